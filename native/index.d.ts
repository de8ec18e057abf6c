/** An open store or connection. Opaque; used on the thread that opened it. */
export type Handle = { readonly __handle: unique symbol }
/** The whole input of one replay. */
export type Batch = { readonly __batch: unique symbol }
/** What wakes JavaScript when others have committed. */
export type Watch = { readonly __watch: unique symbol }
/** Work on a store's file that is on its way. */
export type Job = { readonly __job: unique symbol }
/** Older tables that are being adopted. */
export type Adoption = { readonly __adoption: unique symbol }
/** A zstd frame that is being made. */
export type Compressor = { readonly __compressor: unique symbol }
/** zstd frames that are being read. */
export type Decompressor = { readonly __decompressor: unique symbol }
/** A prepared statement of some connection. */
export type Statement = { readonly __statement: unique symbol }
/**
 * A page of events: their ids and their data, each joined to one string; seven numbers each (where its id and its data
 * end, seq, created or NaN, position, index of the type, index of the aggregate); the types; the aggregates; and metadata
 * texts by event, or null where no event has any.
 */
export type EventPage = [
  ids: string,
  data: string,
  numbers: Float64Array,
  types: string[],
  aggregates: string[],
  metadata: (string | null)[] | null,
]
/** Eight values an item: index, def, seq, id, aggregateID, created, metadata text, data text. */
export type FlatItems = (string | number | null)[]

/**
 * Which binding artifact the generated loader actually loaded: `'native'` for
 * a native addon, otherwise the `platformArchABI` of the WASI flavor. Every
 * flavor napi-rs can build is listed, because `NAPI_RS_NATIVE_LIBRARY_PATH`
 * can point the loader at a WASI artifact this package does not build itself.
 */
export declare const __napiBindingTarget: 'native' | 'wasm32-wasi' | 'wasm32-wasip1'

/** Begins, or goes on, to adopt the older tables of a file; `null` where it has none. */
export declare function adoptBegin(path: string, options: NativeOpenOptions): Adoption | null

/** Ends it, done or not, and closes its connection; again is nothing. */
export declare function adoptEnd(adoption: Adoption): void

/** Makes an aggregate's owner and epoch those of another log. */
export declare function adoptOwner(handle: Handle, aggregateId: string, owner: string | undefined | null, epoch: number): void

/** Goes on for some milliseconds: `{more, report}` as JSON text; at the end the report has findings. */
export declare function adoptStep(adoption: Adoption, milliseconds: number): string

/** Aggregates by id: five flat values each, id, seq, owner, epoch, and the last seq that is projected where that is another. */
export declare function aggregates(handle: Handle, prefix: string, after: string, limit: number): (string | number | null)[]

/** Begins a copy of the file into one that is not there yet. */
export declare function backup(handle: Handle, target: string): Job

/**
 * Begins a transaction, or a savepoint inside one; mode 0 immediate, 1 deferred, 2 exclusive. Answers 1 where it is
 * open. Where it was not to wait: 0 if another connection has the lock, 2 if it is worth to come back soon.
 */
export declare function begin(handle: Handle, mode: number, wait: boolean): number

/** Gives an aggregate to an owner, or to nobody; `expectedEpoch` −1 does not ask. */
export declare function claim(handle: Handle, aggregateId: string, owner: string | undefined | null, expectedEpoch: number): [owner: string | null, epoch: number]

/** Closes it; again is nothing. */
export declare function close(handle: Handle): void

/** Five flat values a column: name, column, table, database, type. */
export declare function columns(handle: Handle, statement: Statement): (string | null)[]

/** Commits the innermost frame; answers how many events are pending. */
export declare function commit(handle: Handle): number

/**
 * A page of what was committed after a position, deletion events included: the events, the position through which it
 * reaches, and whether that is the end.
 */
export declare function committed(handle: Handle, afterPosition: number, limit: number): [events: EventPage, through: number, done: boolean]

/** The last position of this store's last commit; 0 where that is not certain. */
export declare function committedPosition(handle: Handle): number

/** Compresses a chunk. A Buffer, which may be empty. */
export declare function compress(compressor: Compressor, chunk: Uint8Array): Buffer

/** Ends the frame: its last bytes, none where it had ended. */
export declare function compressEnd(compressor: Compressor): Buffer

/** Begins a frame with a window of 2^`window_log` bytes. */
export declare function compressor(windowLog: number): Compressor

/**
 * Aggregates in the order of their creation, from after a key: four flat values each, key, id, last seq, and the seq
 * through which history was erased, or -1.
 */
export declare function created(handle: Handle, afterKey: number, limit: number): (string | number)[]

/** Gives SQL a function. The TypeScript layer keeps a value that it throws and throws that very value again. */
export declare function createFunction(handle: Handle, name: string, options: NativeFunctionOptions, called: (...parameters: any[]) => unknown): void

/** Ends an iteration; again is nothing. */
export declare function cursorClose(handle: Handle, cursor: number): void

/** The next row as `statementGet` gives it, or `null` at the end, which closes the iteration. */
export declare function cursorNext(handle: Handle, statement: Statement, cursor: number, safeIntegers: boolean): unknown[] | null

/** Begins an iteration; answers its number. */
export declare function cursorOpen(handle: Handle, statement: Statement, parameters: unknown[]): number

/**
 * Decompresses a part of a chunk, at most 1 MiB: how much of it was used up, what came of it, and whether the input may
 * end here.
 */
export declare function decompress(decompressor: Decompressor, chunk: Uint8Array): [consumed: number, output: Buffer, between: boolean]

/** Ends reading. Again: does nothing. */
export declare function decompressEnd(decompressor: Decompressor): void

/** Begins to read frames. */
export declare function decompressor(): Decompressor

/**
 * Which aggregates had history erased after a position, at most `limit`: the position through which it was looked, then id
 * and last seq of each.
 */
export declare function erased(handle: Handle, afterPosition: number, limit: number): [through: number, ...pairs: (string | number)[]]

/** Runs every statement of a text. */
export declare function exec(handle: Handle, sql: string): void

/** Nobody tries any more to begin without waiting, so that others need not make room. */
export declare function gaveUp(handle: Handle): void

/** One event, or nothing. */
export declare function get(handle: Handle, aggregateId: string, seq: number): EventPage

/** Ends a job, and closes its connection; again is nothing. */
export declare function jobEnd(job: Job): void

/** Whether a job has no connection of its own: its steps are those of `jobStepHere`. */
export declare function jobIsHere(job: Job): boolean

/** Does steps of a job for some milliseconds: `{more, report}` or `{code, message, fields}` as JSON text. */
export declare function jobStep(job: Job, milliseconds: number): Promise<string>

/** The same as `jobStep` for such a job, on the calling thread. */
export declare function jobStepHere(handle: Handle, job: Job, milliseconds: number): string

/** The last position in the log that is committed. */
export declare function lastPosition(handle: Handle): number

/**
 * A page of the log, `after < seq <= through`: events, gaps as flat pairs, the tombstone as its seq and a page of
 * the deletion event (or none), and whether the page reaches the end.
 */
export declare function logPage(handle: Handle, aggregateId: string, after: number, through: number, limit: number): [events: EventPage, gaps: number[], removed: [seq: number, event: EventPage] | null, done: boolean]

/**
 * A page of the log as lines of JSON, one log item each: a Buffer of them, the last seq that it tells of, whether it
 * reaches the end, how many events and gaps it holds, and the seq of the tombstone or null.
 */
export declare function logText(handle: Handle, aggregateId: string, after: number, through: number, limit: number): [lines: Buffer, last: number, done: boolean, events: number, gaps: number, removed: number | null]

/** Begins maintenance; `idle`: aggregates that do not move from now on are packed whole. */
export declare function maintenance(handle: Handle, idle: boolean, rewrite: boolean): Job

/**
 * The aggregates that moved after a position, looked for in at most `limit` event rows: the position through which
 * it was looked, whether that is the last one, then id and last seq of each.
 */
export declare function moved(handle: Handle, afterPosition: number, limit: number): [through: number, done: boolean, ...pairs: (string | number)[]]

/** A definition as the core knows it. */
export interface NativeDefinition {
  /** `type.version` */
  name: string
  /** The field of data that names the aggregate. */
  aggregate: string
  /** 0 missing, 1 none, 2 JavaScript, 3 SQL. */
  projector: number
  /** The statements of a SQL projector. */
  sql: Array<string>
  /** JavaScript has to see each replayed event. */
  validate: boolean
  /** Data of this version goes through JavaScript before its projector. */
  upcast: boolean
  /** What its SQL projector did is taken back where a constraint refuses it, and the event is recorded all the same. */
  skips: boolean
  /** The names that lead to the key by which it is compacted; none: it is not. */
  compactPath: Array<string>
  /** Types whose events end every key's life. */
  compactBarriers: Array<string>
  /** Paths inside data that may differ where a run repeats what is stored; absent: it is not asked. */
  dedupe?: Array<Array<string>>
}

/** What a function of the caller is, besides its name. */
export interface NativeFunctionOptions {
  /** −1 for any number. */
  arguments: number
  /** The same arguments give the same value. */
  deterministic: boolean
  /** Not from triggers and views. */
  directOnly: boolean
  /** Integers arrive as bigints. */
  safeIntegers: boolean
}

/** How to open; see `open` in TypeScript for what each means to a caller. */
export interface NativeOpenOptions {
  /** Refuse writes. */
  readonly: boolean
  /** `synchronous=FULL`. */
  full: boolean
  /** Milliseconds to wait for a lock. */
  busyTimeout: number
  /** Bytes of the largest event. */
  maxEventBytes: number
  /** Pack by itself. */
  packing: boolean
  /** Newest events of an aggregate that stay rows. */
  keepEvents: number
  /** And their bytes. */
  keepBytes: number
  /** Bytes written between two rounds of packing. */
  packAtBytes: number
  /** Milliseconds without a commit after which all is packed. */
  packIdle: number
  /** With Syncline's tables; without, a plain second connection. */
  log: boolean
}

/** Opens a database file or `:memory:`. */
export declare function open(path: string, options: NativeOpenOptions): Handle

/** Owner and epoch of an aggregate, `null` where it is unknown. */
export declare function owner(handle: Handle, aggregateId: string): [owner: string | null, epoch: number] | null

/** Prepares exactly one statement. */
export declare function prepare(handle: Handle, sql: string): [statement: Statement, reader: boolean, readonly: boolean, parameters: (string | null)[]]

/** Opens the savepoint of a JavaScript projector whose definition skips. */
export declare function projectorBegin(handle: Handle): void

/**
 * Ends it. Answers the pending index of what is to be told of what was taken back; −1 where it was kept, or where SQLite
 * has ended the whole transaction.
 */
export declare function projectorEnd(handle: Handle, keep: boolean): number

/** A page of one aggregate's events; `before` −1 for none. */
export declare function read(handle: Handle, aggregateId: string, after: number, before: number, limit: number, descending: boolean): EventPage

/** A page of all events in the order of commits. */
export declare function readAll(handle: Handle, afterPosition: number, limit: number): EventPage

/** Names the definitions; their index in the list is what `run` takes. */
export declare function register(handle: Handle, definitions: Array<NativeDefinition>): void

/** Removes an aggregate inside the open transaction; `definition` −1 for no deletion event. Answers as `run` does. */
export declare function remove(handle: Handle, aggregateId: string, definition: number, data?: string | undefined | null, created?: number | undefined | null, owner?: string | undefined | null): [seq: number, id: string, created: number, position: number, pendingIndex: number] | null

/**
 * Applies items inside the open transaction; `epoch` −1 for none. Answers where it stopped, how many events were
 * pending before, and three values an applied event (those of JavaScript projectors, and with `collect` all that are told):
 * its index, its position, and 1 where its projector is to run, plus 2 where listeners are to hear it.
 */
export declare function replayApply(handle: Handle, batch: Batch, from: number, to: number, owner: string | undefined | null, epoch: number, collect: boolean): number[]

/** The events of items, in the same eight values as `replayPage`, without its first. */
export declare function replayEvents(handle: Handle, batch: Batch, indices: Array<number>): FlatItems

/** The item that the last `replayApply` failed on; −1 where it was none. */
export declare function replayFailed(batch: Batch): number

/**
 * Ends a replay inside its transaction. Five flat values an aggregate, in order of appearance: aggregateID, applied,
 * duplicate, seq, and the last seq that is projected where that is another.
 */
export declare function replayFinish(handle: Handle, batch: Batch): (string | number | null)[]

/** How many items there are. */
export declare function replayLength(batch: Batch): number

/** What is done from here on can be forgotten by `replayRewind`. */
export declare function replayMark(batch: Batch): void

/**
 * The items from `from` that JavaScript must see: the end of the page, then eight flat values an item: index (−1 −
 * index where the data must first come back in stored form), def (the name of an unknown type), seq, id, aggregateID,
 * created, metadata, data.
 */
export declare function replayPage(handle: Handle, batch: Batch, from: number): FlatItems

/** Leaves the items of an item's aggregate from that one on. Answers the aggregate. */
export declare function replayPark(batch: Batch, index: number): string | null

/**
 * Reads the whole input and checks all shapes: JSON text (array or lines), the same as bytes, or a text an item.
 * `record`: events of unknown types are stored; `park`: aggregates can be parked.
 */
export declare function replayParse(handle: Handle, input: string | Uint8Array | Array<string>, record: boolean, park: boolean): Batch

/** Forgets what was done since `replayMark`, which has been rolled back. */
export declare function replayRewind(batch: Batch): void

/** Gives an item's data and metadata in the form in which they are stored. */
export declare function replaySetData(handle: Handle, batch: Batch, index: number, data: string, metadata?: string | undefined | null): void

/** Gives the upcast input that a SQL projector gets as `:data`. */
export declare function replaySetProjected(batch: Batch, index: number, data: string): void

/** The next stored events of an aggregate that are to be projected, as a batch that is applied like a replay. */
export declare function reproject(handle: Handle, aggregateId: string): Batch

/** Rolls the innermost frame back; answers how many events are still pending. */
export declare function rollback(handle: Handle): number

/**
 * Records one event. Flags: 1 begin a frame, 2 run the SQL projector, 4 commit the frame, 8 do not record, 16 a
 * JavaScript projector follows. `expectedSeq` −2 does not ask. Answers `[seq, id, created, position, pendingIndex]`;
 * or, with −1 as pending index, `data` and `metadata`, the stored event that says the same: nothing was recorded, and the
 * frame that this call began has been ended.
 */
export declare function run(handle: Handle, flags: number, definition: number, aggregateId: string, data: string, expectedSeq: number, created?: number | undefined | null, metadata?: string | undefined | null, owner?: string | undefined | null): [seq: number, id: string, created: number | null, position: number, pendingIndex: number, data?: string, metadata?: string | null]

/** The last seq of an aggregate, −1 when unknown. */
export declare function sequence(handle: Handle, aggregateId: string): number

/** The last seq of the named aggregates that are known, or of all: flat pairs of id and seq. */
export declare function sequences(handle: Handle, ids?: Array<string> | undefined | null): (string | number)[]

/**
 * What an event has that is published and never stored: its id, its time, the aggregate's last seq, the last position in
 * the log, and its place among the pending events or −1 where no transaction is open.
 */
export declare function stamp(handle: Handle, aggregateId: string): [id: string, created: number, after: number, position: number, pendingIndex: number]

/** 0 no transaction, 1 one that Syncline opened, 2 one that raw SQL opened, 3 one that SQLite ended by itself. */
export declare function state(handle: Handle): number

/** All rows, one after the other, after the generation of their columns. */
export declare function statementAll(handle: Handle, statement: Statement, parameters: unknown[], safeIntegers: boolean): unknown[]

/** The first row, after the generation of its columns, or `null`. */
export declare function statementGet(handle: Handle, statement: Statement, parameters: unknown[], safeIntegers: boolean): unknown[] | null

/** Runs a statement; answers how many rows it changed and the last rowid. */
export declare function statementRun(handle: Handle, statement: Statement, parameters: unknown[], safeIntegers: boolean): [changes: number, lastInsertRowid: number | bigint]

/** What the files and the log hold, as JSON text. */
export declare function stats(handle: Handle, largest: number, aggregates: number): string

/**
 * What the SQL projectors of the last `run`, `remove` or `replayApply` skipped: the pending index of the first, then four
 * flat values each: index of the item, and code, message and fields (JSON text) of the error.
 */
export declare function takeSkipped(handle: Handle): [pendingIndex: number, ...(number | string)[]]

/** Ends the calls, without waiting for the thread; again is nothing. */
export declare function unwatch(watch: Watch): void

/** Begins to verify the file. */
export declare function verification(handle: Handle, repair: boolean): Job

/** The version of the package that this addon was built for. */
export declare function version(): string

/**
 * Calls `callback`, on the event loop, each time others have committed more to the log than this store has looked at.
 * `null` in memory, where there are no others.
 */
export declare function watch(handle: Handle, callback: () => void): Watch | null

/** The last position that the watching thread has seen; 0 without one. */
export declare function watchedPosition(handle: Handle): number

/** Whether the process stays alive for the next call. */
export declare function watchHold(watch: Watch, hold: boolean): void
