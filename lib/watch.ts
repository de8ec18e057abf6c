import { native, type Handle, type WatchHandle } from "./native"
import { reaches, type PendingEvent } from "./transaction"

/** Event rows that one look takes in; what is left is looked at in the next turn of the event loop. */
const ROWS = 10_000

/**
 * Milliseconds after which the store's own connection is looked at again where it may not be read, or shows an older state
 * because of a query that is still open. Where reading fails, the pause doubles each time, up to the longest.
 */
const PAUSE = 20
const LONGEST_PAUSE = 1_000

/**
 * Tells those who wait for it that the log has grown: by commits of this store, and by those of other stores, threads and
 * processes, for which a native thread watches the file while anybody needs it.
 */
export class Watch {
  readonly #byAggregate = new Map<string, Set<Waiter>>()
  readonly #ofAll = new Set<Waiter>()
  readonly #idling = new Set<() => void>()
  #thread: WatchHandle | null = null
  #needs = 0
  #holds = 0
  /** Through here the waiters have been told. */
  #position = 0
  #looking = false
  /** When what others committed is looked at again. */
  #due: NodeJS.Timeout | undefined
  #pause = PAUSE
  #closed = false

  constructor(
    private readonly handle: Handle,
    /** Whether no transaction is open on the store's connection. */
    private readonly isIdle: () => boolean,
    /** Called when others have committed. False: it may not look at what now, and is to be called again. May throw. */
    private readonly foreign: () => boolean,
  ) {}

  /** Keeps watching until the answer is called. `ERR_SQLITE` where the file cannot be watched. */
  need(): () => void {
    if (this.#needs === 0) this.#start()
    this.#needs++
    let needed = true
    return () => {
      if (!needed) return
      needed = false
      if (--this.#needs === 0) this.#stop()
    }
  }

  /** Waits for commits to these aggregates, or to any. To be released. */
  waiter(aggregateIDs?: readonly string[]): Waiter {
    const release = this.need()
    try {
      if (this.#byAggregate.size === 0 && this.#ofAll.size === 0) this.#position = native.lastPosition(this.handle)
    } catch (error) {
      release()
      throw error
    }
    const sets = aggregateIDs === undefined ? [this.#ofAll] : aggregateIDs.map((id) => this.#of(id))
    const waiter: Waiter = new Waiter(
      (held) => this.hold(held),
      () => {
        for (const set of sets) set.delete(waiter)
        for (const id of aggregateIDs ?? []) if (this.#byAggregate.get(id)?.size === 0) this.#byAggregate.delete(id)
        release()
      },
    )
    for (const set of sets) set.add(waiter)
    if (this.#closed) waiter.wake()
    return waiter
  }

  /** While somebody waits for what others may commit, there is something to wait for: the process stays. */
  hold(held: boolean): void {
    this.#holds += held ? 1 : -1
    if (this.#thread !== null && this.#holds === (held ? 1 : 0)) native.watchHold(this.#thread, held)
  }

  /**
   * Whether the store's connection may be read on somebody else's behalf: not inside a raw transaction, which would be tied
   * to the state that was read, and be refused its own first write once others have committed.
   */
  get idle(): boolean {
    return this.#closed || this.isIdle()
  }

  /** Resolves when it may, or when the signal aborts. */
  async settled(stopped: AbortSignal): Promise<void> {
    while (!this.idle && !stopped.aborted) {
      await new Promise<void>((resolve) => {
        const resume = () => {
          this.#idling.delete(resume)
          stopped.removeEventListener("abort", resume)
          clearTimeout(timer)
          resolve()
        }
        // SQLite can end a transaction by itself, which nobody is told of.
        const timer = setTimeout(resume, PAUSE).unref()
        this.#idling.add(resume)
        stopped.addEventListener("abort", resume)
      })
    }
  }

  /** After a commit of this store, with what it recorded, and at the end of any transaction of its connection. */
  notify(committed: readonly PendingEvent[]): void {
    for (const resume of this.#idling) resume()
    if (this.#due !== undefined) this.#foreignIn(0)
    if (this.#looking || this.#needs === 0) return
    if (this.#byAggregate.size === 0 && this.#ofAll.size === 0) return
    const reached = reaches(committed, this.#position, native.committedPosition(this.handle))
    if (reached >= 0) {
      this.#position = reached
      this.#wake(committed.filter(({ recorded }) => recorded).map(({ event }) => event.aggregateID))
    } else {
      this.#looking = true
      // One look for all commits of this turn, and none inside the call that committed.
      queueMicrotask(this.#look)
    }
  }

  /** Something could not be read now: it is tried again in a while. */
  again(): void {
    if (this.#due === undefined && !this.#closed && this.#needs > 0) this.#foreignIn(this.#pause)
  }

  #failed(): void {
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE)
    this.again()
  }

  close(): void {
    this.#closed = true
    this.#stop()
    this.#wakeAll()
    for (const resume of this.#idling) resume()
  }

  readonly #look = (): void => {
    this.#looking = false
    if (this.#closed || this.#needs === 0) return
    try {
      if (!this.idle) return this.again()
      const [through, done, ...moved] = native.moved(this.handle, this.#position, ROWS)
      this.#position = through
      this.#wake(moved.filter((_, at) => at % 2 === 0) as string[])
      if (!done) this.#lookLater()
    } catch {
      // Whoever waits reads next, and meets the error where it can be told.
      this.#wakeAll()
      this.#failed()
    }
  }

  #lookLater(): void {
    this.#looking = true
    setImmediate(this.#look)
  }

  readonly #foreign = (): void => {
    clearTimeout(this.#due)
    this.#due = undefined
    if (this.#closed || this.#needs === 0) return
    try {
      this.#look()
      const current = this.idle && this.foreign()
      if (!current || native.watchedPosition(this.handle) > native.lastPosition(this.handle)) this.#foreignIn(PAUSE)
      this.#pause = PAUSE
    } catch {
      this.#failed()
    }
  }

  #foreignIn(pause: number): void {
    clearTimeout(this.#due)
    this.#due = setTimeout(this.#foreign, pause).unref()
  }

  #start(): void {
    if (this.#closed) return
    this.#thread = native.watch(this.handle, this.#foreign)
  }

  #stop(): void {
    clearTimeout(this.#due)
    this.#due = undefined
    if (this.#thread !== null) native.unwatch(this.#thread)
    this.#thread = null
  }

  #of(aggregateID: string): Set<Waiter> {
    let waiters = this.#byAggregate.get(aggregateID)
    if (waiters === undefined) this.#byAggregate.set(aggregateID, (waiters = new Set()))
    return waiters
  }

  #wake(moved: readonly string[]): void {
    for (const id of moved) for (const waiter of this.#byAggregate.get(id) ?? []) waiter.wake()
    if (moved.length > 0) for (const waiter of this.#ofAll) waiter.wake()
  }

  #wakeAll(): void {
    for (const waiters of [...this.#byAggregate.values(), this.#ofAll]) for (const waiter of waiters) waiter.wake()
  }
}

/** One reader's wait: `reset`, then look, then `next`. So what comes between look and wait ends the wait at once. */
export class Waiter {
  #woken = false
  #resume: (() => void) | undefined

  constructor(
    private readonly hold: (held: boolean) => void,
    /** Ends the registration. */
    readonly release: () => void,
  ) {}

  reset(): void {
    this.#woken = false
  }

  wake(): void {
    this.#woken = true
    this.#resume?.()
  }

  /** Resolves once it was woken since `reset`, or when the signal aborts. */
  async next(stopped: AbortSignal): Promise<void> {
    if (this.#woken || stopped.aborted) return
    this.hold(true)
    await new Promise<void>((resolve) => {
      this.#resume = resolve
      stopped.addEventListener("abort", this.#stopped, { once: true })
    })
    this.#resume = undefined
    stopped.removeEventListener("abort", this.#stopped)
    this.hold(false)
  }

  readonly #stopped = (): void => this.#resume?.()
}
