import { SyncError, errorCodes, type ErrorCode, type ErrorFields } from "./errors"
import { loadAddon } from "./loading"
import type { EventPage } from "./payload"

/** One open connection, owned by Rust. */
export interface Handle {
  readonly "~native": "handle"
}

/** One prepared statement of a connection, owned by Rust. */
export interface StatementHandle {
  readonly "~native": "statement"
}

/** What wakes JavaScript when others have committed, owned by Rust. */
export interface WatchHandle {
  readonly "~native": "watch"
}

/** One job on a store's file, owned by Rust. */
export interface JobHandle {
  readonly "~native": "job"
}

/** Older tables that are being adopted, owned by Rust. */
export interface AdoptionHandle {
  readonly "~native": "adoption"
}

/** A zstd frame that is being made, owned by Rust. */
export interface CompressorHandle {
  readonly "~native": "compressor"
}

/** zstd frames that are being read, owned by Rust. */
export interface DecompressorHandle {
  readonly "~native": "decompressor"
}

/** One parsed input of a replay, owned by Rust. */
export interface Batch {
  readonly "~native": "batch"
}

/** What native calls return for a recorded event: `[seq, id, created, position, pendingIndex]`. */
export type Recorded = readonly [seq: number, id: string, created: number, position: number, pendingIndex: number]

/** What `run` returns for what is stored already: `pendingIndex` is -1, and the frame that it began has ended. */
export type Repeated = readonly [
  seq: number,
  id: string,
  created: number | null,
  position: number,
  pendingIndex: number,
  data: string,
  metadata: string | null,
]

/** How `begin` takes the lock. */
export const MODE = { immediate: 0, deferred: 1, exclusive: 2 } as const

/** How an attempt to begin ended: another connection has the lock; it has begun; this store should come back soon. */
export const BEGUN = { locked: 0, yes: 1, soon: 2 } as const

/** Where the connection stands, as `state` tells. */
export const STATE = { autocommit: 0, transaction: 1, raw: 2, lost: 3 } as const

/** The flags of `run`. */
export const RUN = {
  /** Open a frame first; it is rolled back again if this call throws. */
  begin: 1,
  /** Run the SQL projector in this call. */
  project: 2,
  /** Commit the frame before returning. */
  commit: 4,
  /** Assign no seq and store nothing. */
  unrecorded: 8,
  /** A JavaScript projector follows: until it is done, the connection refuses what projectors may not do. */
  guard: 16,
} as const

/** What is left to do for an event that `replayApply` has applied. */
export const APPLIED = { project: 1, publish: 2 } as const

/** The kinds of projector that `register` knows. */
export const PROJECTOR = { missing: 0, none: 1, function: 2, sql: 3 } as const

/** What Rust has to know of a definition; its position in the list of `register` names it from then on. */
export interface Registration {
  /** `type.version` */
  name: string
  aggregate: string
  projector: (typeof PROJECTOR)[keyof typeof PROJECTOR]
  sql: string[]
  /** JavaScript must see each replayed event before it is applied. */
  validate: boolean
  /** Data of this version goes through JavaScript before its projector. */
  upcast: boolean
  /** Where a constraint refuses what its SQL projector does, the event is recorded all the same. */
  skips: boolean
  /** The names that lead to the key by which it is compacted; none: it is not. */
  compactPath: string[]
  /** Types whose events end every key's life. */
  compactBarriers: string[]
  /** The names that lead to what may differ where a run repeats what is stored; undefined: it is not asked. */
  dedupe: string[][] | undefined
}

export interface NativeOpenOptions {
  readonly: boolean
  full: boolean
  busyTimeout: number
  maxEventBytes: number
  packing: boolean
  keepEvents: number
  keepBytes: number
  packAtBytes: number
  packIdle: number
  log: boolean
}

/** What `logPage` returns. */
export type LogPage = readonly [
  events: EventPage,
  /** `after, through` of each gap up to the last event of the page. */
  gaps: number[],
  /** The tombstone, with a page of its event or of none. */
  removed: [seq: number, event: EventPage] | null,
  /** Nothing is left up to `through`. */
  done: boolean,
]

/** What `logText` returns. */
export type LogText = readonly [
  /** Log items as JSON, UTF-8, each with a line feed after it. */
  lines: Uint8Array,
  /** The last seq that they tell of; that which was asked after where there are none. */
  last: number,
  /** Nothing is left up to `through`. */
  done: boolean,
  /** How many events there are, the tombstone's not among them. */
  events: number,
  gaps: number,
  /** The tombstone's seq. */
  removed: number | null,
]

/** The exports of the addon. Frames, flags and layouts are described where they are written, in `src/binding`. */
export interface Binding {
  /** Of the package that it was built for. */
  version(): string

  /** Null: the file has no older tables. */
  adoptBegin(path: string, options: NativeOpenOptions): AdoptionHandle | null
  /** `{more, report}` as JSON text; at the end the report has findings. */
  adoptStep(adoption: AdoptionHandle, milliseconds: number): string
  adoptEnd(adoption: AdoptionHandle): void

  open(path: string, options: NativeOpenOptions): Handle
  close(handle: Handle): void
  register(handle: Handle, definitions: Registration[]): void

  /** One of `BEGUN`; `yes` where `wait` was asked for. */
  begin(handle: Handle, mode: number, wait: boolean): number
  /** Nobody tries any more to begin without waiting. */
  gaveUp(handle: Handle): void
  /** How many pending events are alive; on failure it has rolled back. */
  commit(handle: Handle): number
  rollback(handle: Handle): number
  state(handle: Handle): number

  run(
    handle: Handle,
    flags: number,
    definition: number,
    aggregateID: string,
    data: string,
    expectedSeq: number,
    created: number | null,
    metadata: string | null,
    owner: string | null,
  ): Recorded | Repeated
  /** Opens the savepoint of a projector whose definition skips. */
  projectorBegin(handle: Handle): void
  /** The pending index of what is to be told of what was taken back; -1: it was kept, or the whole transaction is lost. */
  projectorEnd(handle: Handle, keep: boolean): number
  /** Of SQL projectors, since the last call that ran them: four values each, an item's index, code, message, fields. */
  takeSkipped(handle: Handle): [pendingIndex: number, ...skipped: (number | string)[]]
  remove(
    handle: Handle,
    aggregateID: string,
    definition: number,
    data: string | null,
    created: number | null,
    owner: string | null,
  ): Recorded | null
  adoptOwner(handle: Handle, aggregateID: string, owner: string | null, epoch: number): void
  claim(handle: Handle, aggregateID: string, owner: string | null, expectedEpoch: number): [string | null, number]
  owner(handle: Handle, aggregateID: string): [string | null, number] | null

  /** `record`: events of unknown types are stored; `park`: aggregates can be parked. */
  replayParse(handle: Handle, input: string | Uint8Array | string[], record: boolean, park: boolean): Batch
  replayLength(batch: Batch): number
  /**
   * Eight values an item: index (-1 - index where the stored form must come back), definition (the name of a type that has
   * none), and the event's.
   */
  replayPage(handle: Handle, batch: Batch, from: number): [end: number, ...items: unknown[]]
  /** The stored form of an item's data and metadata. */
  replaySetData(handle: Handle, batch: Batch, index: number, data: string, metadata: string | null): void
  replaySetProjected(batch: Batch, index: number, text: string): void
  /** Three values an applied event: its index, its position, and `APPLIED` flags. */
  replayApply(
    handle: Handle,
    batch: Batch,
    from: number,
    to: number,
    owner: string | null,
    epoch: number,
    collect: boolean,
  ): [stop: number, pendingBase: number, ...applied: number[]]
  replayEvents(handle: Handle, batch: Batch, indices: number[]): unknown[]
  /** The item that `replayApply` failed on; -1 where it was none. */
  replayFailed(batch: Batch): number
  /** What is done from here on can be forgotten by `replayRewind`. */
  replayMark(batch: Batch): void
  replayRewind(batch: Batch): void
  /** Leaves the items of an item's aggregate from that one on; answers the aggregate. */
  replayPark(batch: Batch, index: number): string | null
  /** Writes the sequences. Five values an aggregate: id, applied, duplicate, seq, and where it lags, projected. */
  replayFinish(handle: Handle, batch: Batch): unknown[]
  /** What an aggregate holds that is still to be projected, a page of it, as a batch. */
  reproject(handle: Handle, aggregateID: string): Batch

  read(
    handle: Handle,
    aggregateID: string,
    after: number,
    before: number,
    limit: number,
    descending: boolean,
  ): EventPage
  readAll(handle: Handle, afterPosition: number, limit: number): EventPage
  get(handle: Handle, aggregateID: string, seq: number): EventPage
  logPage(handle: Handle, aggregateID: string, after: number, through: number, limit: number): LogPage
  /** `logPage` as text. */
  logText(handle: Handle, aggregateID: string, after: number, through: number, limit: number): LogText
  /** In the order of creation. Four values an aggregate: a key to go on after, id, last seq, seq of the tombstone or -1. */
  created(handle: Handle, afterKey: number, limit: number): (string | number)[]
  sequence(handle: Handle, aggregateID: string): number
  sequences(handle: Handle, aggregateIDs: string[] | null): unknown[]
  aggregates(handle: Handle, prefix: string, after: string, limit: number): unknown[]

  /** Null in memory, where nobody else commits. */
  watch(handle: Handle, callback: () => void): WatchHandle | null
  unwatch(watch: WatchHandle): void
  /** Whether the process stays alive for the next call. */
  watchHold(watch: WatchHandle, hold: boolean): void
  watchedPosition(handle: Handle): number
  /** Of what is committed, also inside a transaction. */
  lastPosition(handle: Handle): number
  /** Of the last commit of this store; 0 where that is not certain. */
  committedPosition(handle: Handle): number
  /** Which aggregates moved after a position, looked for in at most `rows` event rows: pairs of id and last seq. */
  moved(handle: Handle, afterPosition: number, rows: number): [through: number, done: boolean, ...(string | number)[]]
  /** Which aggregates had history erased after a position, by a removal or a gap: pairs of id and last seq. */
  erased(handle: Handle, afterPosition: number, limit: number): [through: number, ...(string | number)[]]
  /** What was committed after a position, deletion events included. */
  committed(handle: Handle, afterPosition: number, limit: number): [events: EventPage, through: number, done: boolean]
  /** For an event that is never stored; `pendingIndex` is -1 where no transaction is open. */
  stamp(
    handle: Handle,
    aggregateID: string,
  ): [id: string, created: number, after: number, position: number, pendingIndex: number]

  /** Finds repetitions within 2^`windowLog` bytes, at most 8 MiB, and takes as much memory. */
  compressor(windowLog: number): CompressorHandle
  /** What can be sent by now, which may be nothing. */
  compress(compressor: CompressorHandle, chunk: Uint8Array): Uint8Array
  /** The last bytes of the frame, none where it has ended. Gives its memory back. */
  compressEnd(compressor: CompressorHandle): Uint8Array
  decompressor(): DecompressorHandle
  /** A step: at most 1 MiB comes out. `between`: the input may end after what was consumed. */
  decompress(
    decompressor: DecompressorHandle,
    chunk: Uint8Array,
  ): [consumed: number, output: Uint8Array, between: boolean]

  /** Gives its memory back. */
  decompressEnd(decompressor: DecompressorHandle): void

  backup(handle: Handle, target: string): JobHandle
  /** `Stats` as JSON text. */
  stats(handle: Handle, largest: number, aggregates: number): string
  maintenance(handle: Handle, idle: boolean, rewrite: boolean): JobHandle
  verification(handle: Handle, repair: boolean): JobHandle
  /** `{more, report}` or `{code, message, fields}`, as JSON text. */
  jobStep(job: JobHandle, milliseconds: number): Promise<string>
  /** Whether its steps are those of `jobStepHere`: in memory, and for a backup of a file that is gone. */
  jobIsHere(job: JobHandle): boolean
  /** The same for such a job. */
  jobStepHere(handle: Handle, job: JobHandle, milliseconds: number): string
  jobEnd(job: JobHandle): void

  prepare(
    handle: Handle,
    sql: string,
  ): [statement: StatementHandle, reader: boolean, readonly: boolean, parameters: (string | null)[]]
  /** Five values a column: name, column, table, database, type. */
  columns(handle: Handle, statement: StatementHandle): (string | null)[]
  statementRun(
    handle: Handle,
    statement: StatementHandle,
    parameters: unknown[],
    safeIntegers: boolean,
  ): [changes: number, lastInsertRowid: number | bigint]
  /** A generation number, then the values of the row. */
  statementGet(
    handle: Handle,
    statement: StatementHandle,
    parameters: unknown[],
    safeIntegers: boolean,
  ): unknown[] | null
  /** A generation number, then the values of all rows. */
  statementAll(handle: Handle, statement: StatementHandle, parameters: unknown[], safeIntegers: boolean): unknown[]
  cursorOpen(handle: Handle, statement: StatementHandle, parameters: unknown[]): number
  /** As `statementGet`; null at the end, which closes the cursor. */
  cursorNext(handle: Handle, statement: StatementHandle, cursor: number, safeIntegers: boolean): unknown[] | null
  cursorClose(handle: Handle, cursor: number): void
  exec(handle: Handle, sql: string): void
  createFunction(
    handle: Handle,
    name: string,
    options: NativeFunctionOptions,
    fn: (...args: unknown[]) => unknown,
  ): void
}

/** What SQLite is told of a function. */
export interface NativeFunctionOptions {
  /** -1: any number. */
  arguments: number
  deterministic: boolean
  directOnly: boolean
  safeIntegers: boolean
}

const { version } = require("../package.json") as { version: string }

/** The addon. What it throws arrives as a `SyncError`; what the caller's own code threw under it arrives untouched. */
export const native: Binding = guarded(loadAddon(() => require("#native"), version) as Binding)

function guarded(binding: Binding): Binding {
  const wrapped: Record<string, unknown> = {}
  for (const [name, fn] of Object.entries(binding)) {
    if (typeof fn === "function") wrapped[name] = translating(fn as (...args: unknown[]) => unknown)
  }
  return wrapped as unknown as Binding
}

function translating(fn: (...args: unknown[]) => unknown): (...args: unknown[]) => unknown {
  return function call(...args) {
    try {
      return fn(...args)
    } catch (error) {
      const original = thrown
      thrown = undefined
      if (original !== undefined) throw original.value
      throw isNativeError(error) ? translated(error, call) : error
    }
  }
}

/** What a function of the application threw inside SQLite, which carries its message only. */
let thrown: { value: unknown } | undefined

/** Keeps the very value until the native call that it makes fail returns, always before anything else runs. */
export function keepThrown(value: unknown): void {
  thrown = { value }
}

interface NativeError extends Error {
  code: ErrorCode
  fields: string
}

function isNativeError(error: unknown): error is NativeError {
  return (
    error instanceof Error &&
    typeof (error as Partial<NativeError>).fields === "string" &&
    Object.hasOwn(errorCodes, String((error as Partial<NativeError>).code))
  )
}

/** A `SyncError` whose stack begins at the caller of the native function. */
function translated(error: NativeError, call: (...args: unknown[]) => unknown): SyncError {
  const made = new SyncError(error.code, error.message, JSON.parse(error.fields) as ErrorFields)
  Error.captureStackTrace?.(made, call)
  return made
}
