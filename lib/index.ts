/**
 * An embedded, single-writer event log: define events, run them, project them, subscribe to them, and replay them elsewhere.
 * @module syncline
 */

// The public surface, in the order in which a program meets it. Nothing else of lib/ can be imported.
export { define, createRegistry } from "./define"
export type {
  AnyDefinition,
  CompactKey,
  DefineOptions,
  Definition,
  EitherDefinition,
  EphemeralDefinition,
  InputOf,
  OutputOf,
  PropertiesOf,
  Registry,
  Upcast,
} from "./define"
export type { AggregateField, JsonInput, Problem, Synchronous, ValidationMode } from "./schema"

export { project } from "./project"
export type { ProjectOptions, Projector } from "./project"
export { sql } from "./sql"
export type { Sql } from "./sql"

export { open } from "./store"
export type { Adopted, AdoptionFinding, AdoptProgress } from "./adopt"
export type { OpenOptions, PackingOptions } from "./settings"
export type { RunEvents, RunList, Store } from "./store"
export type { RunAsyncOptions, RunOptions } from "./run"
export type { RemoveOptions } from "./remove"
export type { AsyncOptions } from "./context"
export type {
  ReplayAllOptions,
  ReplayAsyncOptions,
  ReplayInput,
  ReplayOptions,
  ReplayResult,
  ReprojectResult,
} from "./replayed"
export type { ConvertEvent, ListenerErrorHandler, SubscribeOptions } from "./publish"
export type { SkippedHandler } from "./skipped"
export type { EphemeralEvent, LiveEvent, PublishedEvent, PublishedOf } from "./published"
export type { StreamCapacity, StreamOptions } from "./stream"
export type { AggregateSummary, AggregatesOptions, ReadAllOptions, ReadOptions } from "./read"
export type { AggregateStats, LargestEvent, Share, Stats, StatsOptions, TypeStats, UnprojectedAggregate } from "./stats"
export type { LogItem, LogOptions } from "./log"
export type { Change, ChangesOptions } from "./changes"
export type { WaitOptions, WaitSequences } from "./wait"
export type { JobOptions } from "./job"
export type { MaintainOptions, MaintainReport, MaintainResult } from "./maintain"
export type { BackupOptions, BackupProgress, BackupResult } from "./backup"
export type { Export, ExportOptions, ExportTotals } from "./export"
export type { ImportOptions, ImportProgress, ImportResult, ParkedAggregate } from "./import"
export type { ImportSource } from "./source"
export type { Sequences } from "./argument"
export type { ClaimOptions, Ownership } from "./owner"
export type { Finding, VerifyOptions, VerifyProgress } from "./verify"
export type { Ephemeral, Event, Metadata, PositionedEvent, SerializedEvent } from "./payload"

export type {
  BindValue,
  ColumnDefinition,
  CompiledStatement,
  Database,
  FunctionOptions,
  RunResult,
  Statement,
  TransactionFunction,
} from "./database"

export { SyncError, errorCodes } from "./errors"
export type { AddonFailure, ErrorCode, ErrorFields, ErrorIssue } from "./errors"
