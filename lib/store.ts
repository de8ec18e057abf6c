/// <reference lib="esnext.disposable" preserve="true" />
import { resolve } from "node:path"
import { adopt, type Adopted } from "./adopt"
import { checkName, checkOptions, checkUncut } from "./argument"
import { backup, type BackupOptions, type BackupResult } from "./backup"
import { changes, type Change, type ChangesOptions } from "./changes"
import type { WriteContext } from "./context"
import { Database } from "./database"
import type { AnyDefinition, EitherDefinition, EphemeralDefinition, InputOf, Lease, Registry } from "./define"
import { publish } from "./ephemeral"
import { SyncError, invalidArgument } from "./errors"
import { exportOf, type Export, type ExportOptions } from "./export"
import { importFrom, type ImportOptions, type ImportResult } from "./import"
import { maintain, type MaintainOptions, type MaintainResult } from "./maintain"
import { log, type LogItem, type LogOptions } from "./log"
import { native, type Handle } from "./native"
import { claim, ownerOf, type ClaimOptions, type Ownership } from "./owner"
import type { Event, PositionedEvent, SerializedEvent } from "./payload"
import { Projections } from "./project"
import { Dispatcher, type SubscribeOptions } from "./publish"
import type { LiveEvent, PublishedEvent, PublishedOf } from "./published"
import { WriteQueue } from "./queue"
import { aggregates, get, read, readAll, sequence, sequences } from "./read"
import type { AggregateSummary, AggregatesOptions, ReadAllOptions, ReadOptions } from "./read"
import { Replayer } from "./replay"
import type { ReplayAllOptions, ReplayAsyncOptions, ReplayInput, ReplayOptions, ReplayResult } from "./replayed"
import type { ReprojectResult } from "./replayed"
import { Remover, type RemoveOptions } from "./remove"
import { Runner, type RunAsyncOptions, type RunOptions } from "./run"
import type { Synchronous } from "./schema"
import { OPEN_OPTIONS, checkSettings, type ConnectionOptions, type OpenOptions } from "./settings"
import { Skips } from "./skipped"
import type { ImportSource } from "./source"
import { stats, type Stats, type StatsOptions } from "./stats"
import { stream, type StreamOptions } from "./stream"
import { Transactions } from "./transaction"
import { verify, type Finding, type VerifyOptions } from "./verify"
import { waitFor, type WaitOptions, type WaitSequences } from "./wait"
import { Watch } from "./watch"

/**
 * Pairs of a definition and its data, as `runAll` takes them.
 * @example
 * const list: RunList<[typeof Created, typeof Renamed]> = [
 *   [Created, { sessionID: "ses_2", title: "Untitled" }],
 *   [Renamed, { sessionID: "ses_2", title: "Ship it" }],
 * ]
 * store.runAll(list).map(({ seq }) => seq) // → [0, 1]
 */
export type RunList<D extends readonly AnyDefinition[]> = {
  readonly [K in keyof D]: readonly [definition: D[K], data: InputOf<D[K]>]
}

/**
 * The events that `runAll` returns for such pairs.
 * @example
 * const events: RunEvents<[typeof Renamed]> = store.runAll([[Renamed, { sessionID: "ses_1", title: "Ship it" }]])
 * events[0].data.title // → "Ship it"
 */
export type RunEvents<D extends readonly AnyDefinition[]> = { -readonly [K in keyof D]: Event<InputOf<D[K]>> }

/**
 * Opens, and where needed creates, the log in a SQLite database file, or in `":memory:"`. Wrong options:
 * `ERR_INVALID_ARGUMENT`; a file that cannot serve: `ERR_NOT_A_DATABASE`, `ERR_FOREIGN_SCHEMA`, `ERR_SCHEMA_NEWER`,
 * `ERR_CORRUPT`, `ERR_FILE_GONE`, `ERR_READONLY`, `ERR_BUSY`, `ERR_DISK_FULL`, `ERR_SQLITE` (a folder that is not there, for
 * one). What `migrate` and `query` throw passes through, and nothing stays open.
 * Projectors whose `tx` is not the database need `query`.
 * @example
 * const phone = open("phone.db", { ...session, owner: "phone", durability: "full" })
 * phone.sequence("ses_1") // → -1
 * phone.close()
 */
export function open<Tx>(path: string, options: OpenOptions<Tx> & { query: (db: Database) => Tx }): Store<Tx>
export function open(path: string, options?: OpenOptions): Store
export function open<Tx>(path: string, options?: OpenOptions<Tx>): Store<Tx> {
  return new Store(checkName("path", checkUncut("path", path)), checkOptions("open", options, OPEN_OPTIONS))
}

/**
 * One open log. Everything but what says otherwise throws `ERR_CLOSED` once it is closed.
 * @example
 * const newest = (store: Store, aggregateID: string) => store.read(aggregateID, { order: "desc", limit: 1 })[0]?.data
 * newest(store, "ses_1") // → { sessionID: "ses_1", title: "Fix the build" }
 */
export class Store<Tx = Database> {
  /** The store's own connection; its transactions are the store's. */
  readonly db: Database
  /** What `adopt: true` has done in this `open`; undefined where the file had no older tables. */
  readonly adopted: Adopted | undefined
  /** `using store = open(…)` closes it. */
  declare readonly [Symbol.dispose]: () => void

  readonly #path: string
  readonly #connection: ConnectionOptions
  readonly #registry: Registry
  readonly #lease: Lease
  readonly #context: WriteContext
  readonly #runner: Runner
  readonly #remover: Remover
  readonly #replayer: Replayer

  /** @internal */
  constructor(path: string, options: OpenOptions<Tx>) {
    const settings = checkSettings(options)
    const { connection, registry, readonly } = settings
    if (settings.adopt && path === MEMORY) throw invalidArgument('adopt needs a file, not ":memory:"')
    this.#path = path === MEMORY ? path : resolve(path)
    this.#connection = connection
    this.#registry = registry
    const projections = new Projections(registry, options.projectors ?? [])
    this.#lease = registry.retain()
    let handle: Handle | undefined
    try {
      this.adopted = settings.adopt ? adopt(this.#path, { ...connection, log: true }, options.onProgress) : undefined
      handle = native.open(this.#path, { ...connection, log: true })
      const transactions: Transactions = new Transactions(
        handle,
        (events, skipped) => {
          skips.add(skipped)
          watch.notify(events)
          dispatcher.publish(events)
          skips.tell()
        },
        () => queue.carryOut(),
      )
      const queue = new WriteQueue(transactions, connection.busyTimeout)
      const watch: Watch = new Watch(
        handle,
        () => transactions.idle,
        () => dispatcher.foreign(),
      )
      const { convertEvent, onListenerError, onSkipped } = options
      const skips = new Skips(onSkipped)
      const dispatcher: Dispatcher = new Dispatcher(handle, watch, convertEvent, onListenerError)
      // Whether the store or `db` is closed, and also before the store is made: by `query`.
      const onClose = () => {
        transactions.close()
        queue.close()
        dispatcher.close()
        watch.close()
        registry.release(this.#lease)
      }
      const db = new Database(handle, path, { memory: path === MEMORY, readonly, gate: transactions, onClose })
      this.db = db
      const { validate, record, owner } = settings
      const { maxEventBytes } = connection
      const { migrate, query } = options
      if (migrate !== undefined) transactions.transaction("immediate", migrate, db)
      // After `migrate`, whose tables it may look at.
      const tx: unknown = query === undefined ? db : query(db)
      const stages = { handle, transactions, queue, watch, dispatcher, projections }
      const { busyTimeout } = connection
      this.#context = { ...stages, validate, record, owner, maxEventBytes, busyTimeout, memory: path === MEMORY, tx }
      native.register(handle, projections.registrations(validate !== "never"))
    } catch (error) {
      registry.release(this.#lease)
      if (handle !== undefined) closeQuietly(handle)
      throw error
    }
    this.#runner = new Runner(this.#context)
    this.#remover = new Remover(this.#context, this.#runner)
    this.#replayer = new Replayer(this.#context)
    registry.releaseWith(this, this.#lease)
  }

  /**
   * Records, projects, commits and publishes one event; any throw undoes all of it. `ERR_STALE_VERSION`, `ERR_WRONG_KIND`,
   * `ERR_AGGREGATE_REQUIRED`, `ERR_INVALID_DATA`, `ERR_ASYNC_SCHEMA`, `ERR_TOO_LARGE`, `ERR_NO_PROJECTOR`,
   * `ERR_ASYNC_PROJECTOR`, `ERR_NOT_OWNER`, `ERR_CONFLICT`, `ERR_IN_PROJECTOR`, `ERR_IN_TRANSACTION` (inside a raw BEGIN),
   * `ERR_UNKNOWN_EVENT` (another registry's, or the aggregate waits for `reproject`), `ERR_INVALID_ARGUMENT`, as every write
   * `ERR_BUSY`, `ERR_READONLY`, `ERR_DISK_FULL`, `ERR_FILE_GONE`; what the projector throws passes through, and a failed
   * constraint says which (`ERR_SQLITE`).
   * @example
   * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }).seq // → 2
   * store.run(Renamed, { sessionID: "ses_1", title: "Too late" }, { expectedSeq: 1 }) // throws ERR_CONFLICT
   */
  run<D extends AnyDefinition>(definition: D, data: InputOf<D>, options?: RunOptions): Event<InputOf<D>> {
    return this.#runner.run(definition, data, options) as Event<InputOf<D>>
  }

  /**
   * The same for a list of `[definition, data]`, in one transaction; of an empty one nothing is looked at. `expectedSeq` is
   * for a list of one aggregate's events.
   * @example
   * const [created, renamed] = store.runAll([
   *   [Created, { sessionID: "ses_2", title: "Untitled" }],
   *   [Renamed, { sessionID: "ses_2", title: "Ship it" }],
   * ])
   * renamed.seq // → 1
   */
  runAll<const D extends readonly AnyDefinition[]>(events: RunList<D>, options?: RunOptions): RunEvents<D> {
    return this.#runner.runAll(events as Pairs, options) as RunEvents<D>
  }

  /**
   * `run`, waiting without blocking the event loop. Aborted: `ERR_ABORTED`; inside a transaction: `ERR_IN_TRANSACTION`.
   * @example const event = await store.runAsync(Renamed, { sessionID: "ses_1", title: "Ship it" }) // → { seq: 2, … }
   */
  runAsync<D extends AnyDefinition>(
    definition: D,
    data: InputOf<D>,
    options?: RunAsyncOptions,
  ): Promise<Event<InputOf<D>>> {
    return this.#runner.runAsync(definition, data, options) as Promise<Event<InputOf<D>>>
  }

  /**
   * `runAll`, waiting likewise.
   * @example
   * const [event] = await store.runAllAsync([[Renamed, { sessionID: "ses_1", title: "Ship it" }]])
   * event.seq // → 2
   */
  runAllAsync<const D extends readonly AnyDefinition[]>(
    events: RunList<D>,
    options?: RunAsyncOptions,
  ): Promise<RunEvents<D>> {
    return this.#runner.runAllAsync(events as Pairs, options) as Promise<RunEvents<D>>
  }

  /**
   * Everything inside commits together, or not at all. Nested calls are savepoints; nothing is published before the
   * outermost commit. Returns what `fn` returns; what it throws passes through. An async `fn`: `ERR_ASYNC_TRANSACTION`;
   * `ERR_IN_PROJECTOR`, `ERR_BUSY`.
   * @example
   * store.transaction((tx) => {
   *   store.run(Renamed, { sessionID: "ses_1", title: "Ship it" })
   *   tx.prepare("UPDATE session SET title = upper(title)").run()
   * })
   * store.db.prepare("SELECT title FROM session").get() // → { title: "SHIP IT" }
   */
  transaction<T>(fn: ((tx: Tx) => T) & Synchronous<T>): T {
    const { transactions, tx } = this.#context
    return transactions.transaction("immediate", fn, tx as Tx)
  }

  /**
   * `replayAll` for one event or log item.
   * @example
   * const phone = open("phone.db", session)
   * for (const event of store.read("ses_1")) phone.replay(event)
   * phone.sequence("ses_1") // → 1
   */
  replay(event: SerializedEvent | LogItem, options?: ReplayOptions): ReplayResult {
    return this.#replayer.replay(event, options)
  }

  /**
   * Applies events that were recorded elsewhere, in one transaction, with one result per aggregate in order of
   * appearance. What is held already counts as duplicate. `ERR_INVALID_EVENT`, `ERR_TOO_LARGE`, `ERR_UNKNOWN_EVENT`,
   * `ERR_AGGREGATE_MISMATCH`, `ERR_INVALID_DATA`, `ERR_ASYNC_SCHEMA`, `ERR_NOT_OWNER`, `ERR_REPLAY_DIVERGED`,
   * `ERR_SEQUENCE_MISMATCH`, `ERR_NO_PROJECTOR`, `ERR_ASYNC_PROJECTOR`; with `record: false` `ERR_INVALID_ARGUMENT`; else as
   * `run`. With `onError: "park"` what concerns one aggregate stops that one alone, and stands in its result.
   * @example
   * const phone = open("phone.db", session)
   * phone.replayAll(store.read("ses_1")) // → [{ aggregateID: "ses_1", applied: 2, duplicate: 0, seq: 1 }]
   */
  replayAll(input: ReplayInput, options?: ReplayAllOptions): ReplayResult[] {
    return this.#replayer.replayAll(input, options)
  }

  /**
   * `replayAll`, waiting for a busy database without blocking the event loop. Aborted: `ERR_ABORTED`; inside a transaction:
   * `ERR_IN_TRANSACTION`.
   * @example
   * const phone = open("phone.db", session)
   * const [result] = await phone.replayAllAsync(store.read("ses_1"))
   * result // → { aggregateID: "ses_1", applied: 2, duplicate: 0, seq: 1 }
   */
  replayAllAsync(input: ReplayInput, options?: ReplayAsyncOptions): Promise<ReplayResult[]> {
    return this.#replayer.replayAllAsync(input, options)
  }

  /**
   * Projects what a replay with `unknown: "record"` has only stored, in order, as far as the types are known now: 500 events
   * a transaction. What a projector throws reaches the caller, and `projected` stays where the last transaction left it.
   * Publishes nothing. An unknown aggregate has seq -1, and nothing to project. `ERR_AGGREGATE_MISMATCH`,
   * `ERR_INVALID_DATA`, `ERR_NO_PROJECTOR`, `ERR_IN_PROJECTOR`, `ERR_BUSY`, `ERR_READONLY`.
   * @example
   * const event = { id: "evt_1", type: "session.starred.1", aggregateID: "ses_2", seq: 0, data: { sessionID: "ses_2" } }
   * store.replay(event, { unknown: "record" })
   * store.reproject("ses_2") // → { aggregateID: "ses_2", applied: 0, seq: 0, projected: -1 }
   */
  reproject(aggregateID: string): ReprojectResult {
    return this.#replayer.reproject(aggregateID)
  }

  /**
   * Hears the events of the definition's type, of every version, once they are committed. Returns the undo. The type of
   * `data` is the definition's: an event of another version, which a replay may publish, has that version's data, so
   * look at `event.version`. A listener that is no function: `ERR_INVALID_ARGUMENT`.
   * @example
   * const undo = store.subscribe(Renamed, ({ seq, properties }) => console.log(seq, properties.title))
   * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }) // prints 2 Ship it
   * undo()
   */
  subscribe<D extends EitherDefinition>(definition: D, listener: (event: PublishedOf<D>) => unknown): () => void {
    this.#context.transactions.assertOpen()
    return this.#context.dispatcher.subscribe(definition, listener as (event: PublishedEvent) => unknown)
  }

  /**
   * Hears all events that this store publishes or, with `scope: "database"`, also all that anybody commits to the file
   * from now on. Returns the undo. It keeps no process alive. Wrong arguments: `ERR_INVALID_ARGUMENT`.
   * @example
   * store.subscribeAll(({ type, aggregateID }) => console.log(type, aggregateID), { scope: "database" })
   * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }) // prints session.renamed ses_1
   */
  subscribeAll(listener: (event: LiveEvent) => unknown, options?: SubscribeOptions): () => void {
    this.#context.transactions.assertOpen()
    return this.#context.dispatcher.subscribeAll(listener, options)
  }

  /**
   * Tells this store's listeners of an event that is never stored: inside a transaction, once that has been committed. It
   * carries `after`, its aggregate's last seq. A recorded definition: `ERR_WRONG_KIND`; else it throws as `run` does where
   * that checks data.
   * @example
   * store.subscribe(Typing, ({ after, data }) => console.log(after, data.title))
   * store.publish(Typing, { sessionID: "ses_1", title: "Ship" }) // prints 1 Ship
   */
  publish<D extends EphemeralDefinition>(definition: D, data: InputOf<D>): void {
    publish(this.#context, definition, data)
  }

  /**
   * Everything that `subscribeAll` with `scope: "database"` would hear from now on, kept until it is taken. More than
   * `capacity` ends it: what waited is dropped, and `next` rejects with `ERR_OVERFLOW`, whose `delivered` says after which
   * seqs `log` goes on. Ends without an error when the signal aborts or the store is closed; while a `next` is pending the
   * process stays alive. Wrong arguments: `ERR_INVALID_ARGUMENT`.
   * @example
   * const live = store.stream({ aggregates: ["ses_1"] })
   * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" })
   * const { value } = await live.next()
   * value?.data // → { sessionID: "ses_1", title: "Ship it" }
   */
  stream(options?: StreamOptions): AsyncIterableIterator<LiveEvent, undefined> {
    return stream(this.#context, options)
  }

  /**
   * The stored events of one aggregate, in the order of their seqs; of an unknown one none. Within a transaction also
   * what it has recorded so far. Wrong arguments: `ERR_INVALID_ARGUMENT`; a failing file: `ERR_SQLITE`, `ERR_CORRUPT`.
   * @example store.read("ses_1", { after: 0 }).map(({ seq, type }) => [seq, type]) // → [[1, "session.renamed.1"]]
   */
  read(aggregateID: string, options?: ReadOptions): SerializedEvent[] {
    return read(this.#context, aggregateID, options)
  }

  /**
   * All stored events, in the order of their commits, each with its `position`: give the last one's as `afterPosition`
   * to go on. Throws as `read` does.
   * @example
   * store.readAll({ limit: 100 }).map(({ position, seq }) => [position, seq]) // → [[1, 0], [2, 1]]
   * store.readAll({ afterPosition: 2, limit: 100 }) // → []
   */
  readAll(options: ReadAllOptions): PositionedEvent[] {
    return readAll(this.#context, options)
  }

  /**
   * One stored event; undefined where there is none. Throws as `read` does.
   * @example
   * store.get("ses_1", 0)?.data // → { sessionID: "ses_1", title: "Untitled" }
   * store.get("ses_1", 9) // → undefined
   */
  get(aggregateID: string, seq: number): SerializedEvent | undefined {
    return get(this.#context, aggregateID, seq)
  }

  /**
   * The log as a reader needs it: events, gaps, what was removed, and `synced` once the present is reached; with `follow`
   * it goes on with whatever anybody commits, and while a `next` is pending the process stays alive. Wrong arguments throw
   * `ERR_INVALID_ARGUMENT` at once. Iterating rejects with `ERR_CLOSED` where the store was closed before `synced` was
   * reached without `follow`; with `follow`, closing ends the iteration.
   * @example
   * const phone = open("phone.db", session)
   * for await (const item of store.log({ aggregateID: "ses_1" })) phone.replay(item)
   * phone.sequence("ses_1") // → 1
   */
  log(options: LogOptions): AsyncIterableIterator<LogItem, undefined> {
    return log(this.#context, options)
  }

  /**
   * Which aggregates moved, whoever moved them: a `sweep` first, and whenever more has moved than hints are told of, then
   * hints with the newest seqs. Once it has begun it never fails, and it costs writers nothing. Ends when the signal aborts
   * or the store is closed; while a `next` is pending the process stays alive. Wrong arguments: `ERR_INVALID_ARGUMENT`.
   * @example
   * const changes = store.changes()
   * await changes.next() // → { value: { kind: "sweep" }, done: false }
   * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" })
   * await changes.next() // → { value: { kind: "hint", aggregateID: "ses_1", seq: 2 }, done: false }
   */
  changes(options?: ChangesOptions): AsyncIterableIterator<Change, undefined> {
    return changes(this.#context, options)
  }

  /**
   * Resolves when the database holds at least these seqs, whoever commits them. Rejects with `ERR_TIMEOUT`, `ERR_ABORTED`,
   * `ERR_CLOSED` when the store is closed first, and `ERR_INVALID_ARGUMENT`. Until then the process stays alive.
   * @example
   * await store.waitFor({ ses_1: 1 })
   * await store.waitFor({ ses_1: 2 }, { timeout: 10 }) // throws ERR_TIMEOUT
   */
  waitFor(seqs: WaitSequences, options?: WaitOptions): Promise<void> {
    return waitFor(this.#context, seqs, options)
  }

  /**
   * The last seq of an aggregate, -1 when it is unknown. Throws as `read` does.
   * @example store.sequence("ses_1") // → 1
   */
  sequence(aggregateID: string): number {
    return sequence(this.#context, aggregateID)
  }

  /**
   * The last seqs of the given aggregates, without those that are unknown; or of all. Throws as `read` does.
   * @example store.sequences(["ses_1", "ses_2"]) // → new Map([["ses_1", 1]])
   */
  sequences(aggregateIDs?: Iterable<string>): Map<string, number> {
    return sequences(this.#context, aggregateIDs)
  }

  /**
   * The known aggregates, ordered by the UTF-8 bytes of their ids. Throws as `read` does.
   * @example store.aggregates({ prefix: "ses_" }) // → [{ aggregateID: "ses_1", seq: 1, owner: null, epoch: 0 }]
   */
  aggregates(options?: AggregatesOptions): AggregateSummary[] {
    return aggregates(this.#context, options)
  }

  /**
   * Makes `owner` the one who may write the aggregate; `null` releases it. Among stores with an `owner`, that is. Returns what
   * holds from now on. An aggregate that is claimed before its first event is known from then on, with seq -1.
   * Another epoch than expected: `ERR_CONFLICT`; inside a projector: `ERR_IN_PROJECTOR`; `ERR_BUSY`, `ERR_READONLY`.
   * @example
   * store.claim("ses_1", "laptop") // → { owner: "laptop", epoch: 1 }
   * store.claim("ses_1", "phone", { expectedEpoch: 0 }) // throws ERR_CONFLICT
   */
  claim(aggregateID: string, owner: string | null, options?: ClaimOptions): Ownership {
    return claim(this.#context, aggregateID, owner, options)
  }

  /**
   * Who may write the aggregate; undefined when it is unknown. Throws as `read` does.
   * @example store.owner("ses_1") // → { owner: null, epoch: 0 }
   */
  owner(aggregateID: string): Ownership | undefined {
    return ownerOf(this.#context, aggregateID)
  }

  /**
   * Erases an aggregate's events and leaves a tombstone; with `event`, that one is recorded and kept in it. Its seqs are
   * never used again. Without `event`, an unknown aggregate stays unknown. In a store whose `owner` is not the aggregate's:
   * `ERR_NOT_OWNER`; an event of another aggregate: `ERR_AGGREGATE_MISMATCH`; with `record: false`: `ERR_INVALID_ARGUMENT`;
   * else it throws as `run` does.
   * @example
   * store.remove("ses_1", { event: [Deleted, { sessionID: "ses_1" }] })
   * store.read("ses_1") // → []
   * store.sequence("ses_1") // → 2
   */
  remove<D extends AnyDefinition>(aggregateID: string, options?: RemoveOptions<D>): void {
    this.#remover.remove(aggregateID, options as RemoveOptions)
  }

  /**
   * Packs, compacts, shrinks the file and cuts the WAL, in slices that hold the write lock for milliseconds. It can be stopped,
   * or killed, anywhere. `ERR_ABORTED`, `ERR_BUSY` past `busyTimeout`, `ERR_READONLY`, `ERR_IN_TRANSACTION` (in memory),
   * `ERR_CLOSED` when the store is closed before it is done, `ERR_CORRUPT`, `ERR_SQLITE`.
   * @example const result = await store.maintain() // → { phase: "done", events: 2, complete: true, … }
   */
  maintain(options?: MaintainOptions): Promise<MaintainResult> {
    return maintain(this.#context, options)
  }

  /**
   * Copies the whole database, the program's tables included, into a file that is not there yet, while everybody goes on
   * reading and writing: as of one moment after the call, what was committed by then and nothing else. The file has its name
   * only once it is complete: until then, and after a kill, it is the path with `-backup-` and 26 letters and digits. While
   * it is made, the WAL cannot begin anew, and grows by what is written; in memory it is made in one go. Something of that
   * name: `ERR_INVALID_ARGUMENT`; a folder or disk that refuses: `ERR_SQLITE`; `ERR_ABORTED`, `ERR_IN_TRANSACTION` (in
   * memory), `ERR_IN_PROJECTOR`, `ERR_CLOSED` when the store is closed before it is done, `ERR_CORRUPT`.
   * @example
   * await store.backup("copy.db")
   * open("copy.db").sequence("ses_1") // → 1
   */
  backup(path: string, options?: BackupOptions): Promise<BackupResult> {
    return backup(this.#context, path, options)
  }

  /**
   * The log as JSON lines, to iterate over, or to write with its `toFile`: all that is committed when that begins, and of
   * some aggregates what came later. Nothing is read before, and while a reader pauses it costs no memory. Wrong arguments,
   * and aggregates that the log does not have: `ERR_INVALID_ARGUMENT`; `ERR_IN_PROJECTOR`.
   * @example const totals = await store.export().toFile("sessions.jsonl.zst") // → { aggregates: 1, events: 2, … }
   */
  export(options?: ExportOptions): Export {
    return exportOf(this.#context, options)
  }

  /**
   * Replays an export, or plain events a line: of a file (decompressed where its name ends in `.zst` or `.gz`), or in chunks
   * of text or bytes, cut anywhere. A batch of lines is a transaction: what was imported stays, whatever comes after, and
   * importing it again is no harm. A source that was cut is imported up to there, and `complete` is false. What no export
   * has written, or was changed since: `ERR_INVALID_EXPORT`, with the `line`; else it rejects as `replayAllAsync` does, with
   * `line` for `index`, and with `ERR_TOO_LARGE` for a line longer than an event may be, `ERR_ABORTED`, `ERR_CLOSED`, and what
   * `onProgress` or the source throw.
   * @example
   * const phone = open("phone.db", session)
   * const result = await phone.import(store.export()) // → { complete: true, applied: 2, … }
   */
  import(source: ImportSource, options?: ImportOptions): Promise<ImportResult> {
    return importFrom(this.#context, this.#replayer, source, options)
  }

  /**
   * What the files and the log hold: no payload is read, and of many events that are not packed a sample. It costs
   * milliseconds, the more the more aggregates there are. Throws as `read` does.
   * @example
   * store.stats({ largest: 1 }).largest // → [{ aggregateID: "ses_1", seq: 1, type: "session.renamed.1", bytes: 45 }]
   */
  stats(options?: StatsOptions): Stats {
    return stats(this.#context, options)
  }

  /**
   * Looks whether the file holds what Syncline writes and, with `repair`, mends what can be mended without loss. Empty for a
   * sound file. Others may write meanwhile: nothing that they do is taken for damage. `ERR_ABORTED`, `ERR_BUSY` past
   * `busyTimeout`, `ERR_READONLY` (`repair` alone), `ERR_IN_TRANSACTION` (in memory), `ERR_CLOSED`, `ERR_SQLITE`.
   * @example await store.verify() // → []
   */
  verify(options?: VerifyOptions): Promise<Finding[]> {
    return verify(this.#context, options)
  }

  /**
   * A second connection to the file, which the caller closes. In memory there is none: `ERR_INVALID_ARGUMENT`. Else it throws
   * as `open` does.
   * @example
   * const db = store.connect()
   * db.prepare("SELECT title FROM session").all() // → [{ title: "Fix the build" }]
   * db.close()
   */
  connect(): Database {
    this.#context.transactions.assertOpen()
    if (this.#path === MEMORY) throw invalidArgument('connect needs a file: a ":memory:" database has one connection')
    const handle = native.open(this.#path, { ...this.#connection, log: false })
    const { readonly } = this.#connection
    return new Database(handle, this.#path, { memory: false, readonly, gate: new Transactions(handle) })
  }

  /**
   * Closes the connection, ends followers, drops what waits for delivery, and thaws the registry. Again: does nothing.
   * Inside a projector: `ERR_IN_PROJECTOR`; inside a transaction: `ERR_IN_TRANSACTION`; during a query: `ERR_BUSY`.
   * @example
   * store.close()
   * store.sequence("ses_1") // throws ERR_CLOSED
   */
  close(): void {
    const { transactions } = this.#context
    if (transactions.closed) return
    transactions.assertUsable("close")
    if (transactions.active)
      throw new SyncError("ERR_IN_TRANSACTION", "The store cannot be closed inside a transaction")
    this.db.close()
  }

  /** @internal What its stages share, for what works on stores from outside; undefined for what is no store. */
  static contextOf(store: unknown): WriteContext | undefined {
    return typeof store === "object" && store !== null && #context in store ? store.#context : undefined
  }

  /** @internal The registry whose definitions the store knows; undefined for what is no store. */
  static registryOf(store: unknown): Registry | undefined {
    return typeof store === "object" && store !== null && #registry in store ? store.#registry : undefined
  }
}

// Node has Symbol.dispose from 20.5 on. Before, what Babel and esbuild make of `using` looks for the registered symbol;
// what TypeScript makes of it needs a polyfill, loaded before this file.
Object.defineProperty(Store.prototype, Symbol.dispose ?? Symbol.for("Symbol.dispose"), {
  value: Store.prototype.close,
  configurable: true,
  writable: true,
})

const MEMORY = ":memory:"

type Pairs = readonly (readonly [AnyDefinition, unknown])[]

/** After a failed open: the first error is the one that counts, and a connection that refuses ends with its handle. */
function closeQuietly(handle: Handle): void {
  try {
    native.close(handle)
  } catch {
    return
  }
}
