import { SyncError, failedConstraint, invalidArgument, locate, show } from "./errors"
import { BEGUN, MODE, STATE, native, type Handle } from "./native"
import type { Ephemeral, Event } from "./payload"
import { isThenable, quiet } from "./promise"

// Deno makes this global when it is first looked at, and meanwhile runs what waits in promises, whatever is going on: that
// must not happen first between begin and commit, nor between two events of one delivery.
void globalThis.Buffer

export type TransactionMode = keyof typeof MODE

/** How `Database` reaches the transactions of the store it belongs to. */
export interface TransactionGate {
  /** Runs `fn` in a transaction of that mode, or in a savepoint where one is open already. */
  transaction<T>(mode: TransactionMode, fn: () => T): T
  /** To be called after any raw statement or exec that may have ended a root transaction. */
  committed(): void
}

/** An event that waits for the outermost commit. */
export interface PendingEvent {
  readonly event: Event | Ephemeral
  /** The event's data: listeners share one object made of it, and what they change in it `run`'s caller does not see. */
  readonly text: string
  /** Its own in the log or, of an event that is not recorded, that of the last one it may build on. */
  readonly position: number
  readonly recorded: boolean
  /** Whether the listeners of this store's own events hear it. */
  readonly publish: boolean
}

/** What a projector did not do, to be told after the outermost commit. */
export interface Skipped {
  readonly error: SyncError
  readonly event: Event
}

/** The position of what a store that does not record has run: it builds on nothing that is in the log. */
export const UNRECORDED = Infinity

/** The frames of one connection, and the events that wait for the outermost commit. */
export class Transactions implements TransactionGate {
  /**
   * In step with Rust's count of pending events, which knows of raw savepoints too: Rust names the index of each event,
   * and how many are still alive at the end.
   */
  readonly pending: (PendingEvent | Skipped)[] = []

  /** Whether something of it was skipped; false is certain. */
  #skipping = false
  #depth = 0
  #projecting: string | null = null
  #checking = false
  #closed = false
  readonly #closing = new Set<() => void>()

  constructor(
    readonly handle: Handle,
    /** Told of each outermost commit, with the events that it made public, in their order. */
    private readonly publish: (events: readonly PendingEvent[], skipped: readonly Skipped[]) => void = () => {},
    /** Called before this connection takes the write lock on its own behalf. */
    private readonly beforeRoot: () => void = () => {},
  ) {}

  get closed(): boolean {
    return this.#closed
  }

  /** Whether a transaction that Syncline opened is running. */
  get active(): boolean {
    return this.#depth > 0
  }

  /** Whether no transaction is open at all, not even a raw one. */
  get idle(): boolean {
    return native.state(this.handle) === STATE.autocommit
  }

  /** Refuses what a closed store, or a projector, may not do. */
  assertUsable(what: string): void {
    this.assertOpen()
    if (this.#projecting !== null) {
      throw new SyncError("ERR_IN_PROJECTOR", `${what} is not allowed inside the projector of "${this.#projecting}"`, {
        type: this.#projecting,
      })
    }
    if (this.#checking) {
      throw new SyncError("ERR_IN_PROJECTOR", `${what} is not allowed inside a schema or an upcast during a replay`)
    }
  }

  /** The same, for what waits its turn: a transaction that is open would never end. */
  assertMayWait(what: string): void {
    this.assertUsable(what)
    if (!this.active) return
    throw new SyncError("ERR_IN_TRANSACTION", `${what} inside a transaction would wait for that transaction itself`)
  }

  assertOpen(): void {
    if (this.#closed) throw new SyncError("ERR_CLOSED", "The store is closed")
  }

  transaction<T, Args extends unknown[]>(mode: TransactionMode, fn: (...args: Args) => T, ...args: Args): T {
    this.assertUsable("A transaction")
    refuseAsync(fn)
    this.begin(mode)
    return this.inside(() => synchronous(fn(...args), "A transaction function"))
  }

  /** The same, immediate, for the library's own synchronous work. */
  write<T>(work: () => T): T {
    this.begin("immediate")
    return this.inside(work)
  }

  /** Opens a frame and waits for the lock; `inside`, `commit` or `rollback` must follow. */
  begin(mode: TransactionMode): void {
    this.beforeFrame()
    native.begin(this.handle, MODE[mode], true)
    this.entered()
  }

  /** Opens a root frame for a write that waited its turn, if it can now. Answers one of `BEGUN`. */
  lock(wait: boolean): number {
    if (!this.idle) {
      throw new SyncError("ERR_IN_TRANSACTION", "A waiting write met an open transaction of its own connection")
    }
    const begun = native.begin(this.handle, MODE.immediate, wait)
    if (begun === BEGUN.yes) this.entered()
    return begun
  }

  /** Nobody waits any more to `lock`: others need not make room. */
  leaveLine(): void {
    try {
      native.gaveUp(this.handle)
    } catch {
      // A closed store is in no line.
    }
  }

  /** Does the work in the frame just opened, and ends it. */
  inside<T>(work: () => T): T {
    let result
    try {
      result = work()
    } catch (error) {
      this.rollback()
      throw error
    }
    this.commit()
    return result
  }

  /** To be called before Rust opens a frame in a call of its own; `entered` after that call succeeded. */
  beforeFrame(): void {
    if (this.#depth === 0) this.beforeRoot()
  }

  entered(): void {
    this.#depth++
  }

  commit(): void {
    this.#depth--
    let alive
    try {
      alive = native.commit(this.handle)
    } catch (error) {
      // It has rolled back. In an outer frame the next event, or its end, tells how many are left.
      if (this.#depth === 0) this.#blame(error, this.pending.splice(0))
      throw error
    }
    this.#truncate(alive)
    if (this.#depth === 0 && this.idle) this.#committedRoot()
  }

  rollback(): void {
    this.#depth--
    this.#truncate(native.rollback(this.handle))
  }

  /** An event that Rust recorded as pending number `index`; later ones were taken back by a raw savepoint. */
  hold(index: number, event: PendingEvent): void {
    this.pending.length = index
    this.pending.push(event)
  }

  /** Something that is told after the commit, and was counted by Rust as events are. */
  skip(index: number, skipped: Skipped): void {
    this.pending.length = index
    this.pending.push(skipped)
    this.#skipping = true
  }

  /** An event whose frame Rust committed in the same call. */
  recorded(index: number, event: PendingEvent): void {
    this.hold(index, event)
    if (this.#depth === 0) this.#committedRoot()
  }

  committed(): void {
    // Raw transactions record no events: `run` refuses there.
    if (this.#depth === 0) this.publish([], [])
  }

  /** Runs a projector: until it returns, nothing that records, claims or opens transactions is allowed. */
  projecting(type: string, projector: () => unknown): void {
    this.#projecting = type
    let result
    try {
      result = projector()
    } finally {
      this.#projecting = null
    }
    if (!isThenable(result)) return
    quiet(result)
    throw new SyncError("ERR_ASYNC_PROJECTOR", `The projector of "${type}" returned a promise`, { type })
  }

  /** Runs the caller's schemas and upcasts under the lock of a replay: they may do no more than a projector. */
  checking<T>(check: () => T): T {
    this.#checking = true
    try {
      return check()
    } finally {
      this.#checking = false
    }
  }

  /** Calls back when the store is closed. Answers the undo. */
  onClose(call: () => void): () => void {
    this.#closing.add(call)
    return () => void this.#closing.delete(call)
  }

  close(): void {
    this.#closed = true
    this.pending.length = 0
    for (const call of this.#closing) call()
  }

  #committedRoot(): void {
    const pending = this.pending.splice(0)
    if (!this.#skipping) return this.publish(pending as PendingEvent[], [])
    this.#skipping = false
    this.publish(pending.filter(isEvent), pending.filter(isSkipped))
  }

  /** What only COMMIT found out is the fault of the transaction's event, where it has only one. */
  #blame(error: unknown, pending: readonly (PendingEvent | Skipped)[]): void {
    const failure = failedConstraint(error)
    const [event, another] = pending.filter(isEvent)
    if (failure === undefined || event === undefined || another !== undefined || "after" in event.event) return
    const { type, version, aggregateID, seq } = event.event
    locate(failure, "in the projector of", { type: `${type}.${version}`, aggregateID, seq })
  }

  #truncate(alive: number): void {
    if (this.pending.length > alive) this.pending.length = alive
  }
}

function isSkipped(one: PendingEvent | Skipped): one is Skipped {
  return "error" in one
}

function isEvent(one: PendingEvent | Skipped): one is PendingEvent {
  return !isSkipped(one)
}

/**
 * Whether these events follow on `position` with nothing of others between them or before what they build on, and reach
 * through `last` (0: not known). Answers the position that they reach, or -1.
 */
export function reaches(events: readonly PendingEvent[], position: number, last: number): number {
  let reached = position
  for (const event of events) {
    if (event.recorded ? event.position !== ++reached : event.position > reached && event.position !== UNRECORDED)
      return -1
  }
  return last > 0 && last <= reached ? reached : -1
}

/** Refuses, before it is called, a function that cannot finish within a synchronous transaction. */
export function refuseAsync(fn: unknown, what = "A transaction function"): void {
  if (typeof fn !== "function") throw invalidArgument(`${what} must be a function, not ${show(fn)}`)
  if (/Async|Generator/.test(Object.prototype.toString.call(fn))) throw asynchronous(what)
}

/** Passes a result on, unless it is a promise. */
export function synchronous<T>(result: T, what: string): T {
  if (!isThenable(result)) return result
  quiet(result)
  throw asynchronous(what)
}

function asynchronous(what: string): SyncError {
  return new SyncError("ERR_ASYNC_TRANSACTION", `${what} must be synchronous: it may not be async, or return a promise`)
}
