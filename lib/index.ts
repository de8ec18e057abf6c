// The public surface, in the order in which a program meets it. Nothing else of lib/ can be imported.
export { define, createRegistry } from "./define"
export type {
  AnyDefinition,
  DefineOptions,
  Definition,
  InputOf,
  OutputOf,
  PropertiesOf,
  Registry,
  Upcast,
} from "./define"
export type { AggregateField, JsonInput, Problem, ValidationMode } from "./schema"

export { project } from "./project"
export type { Projector } from "./project"
export { sql } from "./sql"
export type { Sql } from "./sql"

export { open } from "./store"
export type { OpenOptions, RunEvents, RunList, Store } from "./store"
export type { AsyncOptions, RemoveOptions, RunAsyncOptions, RunOptions } from "./run"
export type { ReplayAsyncOptions, ReplayInput, ReplayOptions, ReplayResult } from "./replay"
export type { ConvertEvent, ListenerErrorHandler, PublishedEvent, PublishedOf } from "./publish"
export type { AggregateSummary, AggregatesOptions, ReadAllOptions, ReadOptions } from "./read"
export type { LogItem, LogOptions } from "./log"
export type { ClaimOptions, Ownership } from "./owner"
export type { Event, Metadata, PositionedEvent, SerializedEvent } from "./payload"

export type { Database, Statement } from "./database"

export { SyncError, errorCodes } from "./errors"
export type { ErrorCode, ErrorFields, ErrorIssue } from "./errors"
