import { SyncError } from "./errors"
import type { Transactions } from "./transaction"

/** Between two attempts on a busy database, in milliseconds: random, growing to this. */
const LONGEST_PAUSE = 20

interface Job {
  readonly work: () => unknown
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  readonly since: number
}

/**
 * Writes that wait for a busy database without blocking the event loop, first come, first served. Only the waiting is
 * asynchronous: once the lock is had, a write is done within one turn.
 */
export class WriteQueue {
  readonly #jobs: Job[] = []
  #pumping = false
  /** When a waiting write last had the lock: those behind it have not been kept waiting by others before that. */
  #progress = 0

  constructor(
    private readonly transactions: Transactions,
    /** Milliseconds. */
    private readonly busyTimeout: number,
  ) {}

  /** Does `work` in a transaction of its own, as soon as its turn comes and the lock is free. */
  enqueue<T>(work: () => T, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) return reject(aborted(signal))
      const settled = () => signal?.removeEventListener("abort", abort)
      const job: Job = {
        work,
        resolve: (value) => (settled(), resolve(value as T)),
        reject: (error) => (settled(), reject(error)),
        since: Date.now(),
      }
      const abort = () => {
        const at = this.#jobs.indexOf(job)
        if (at < 0) return
        this.#jobs.splice(at, 1)
        job.reject(aborted(signal as AbortSignal))
      }
      signal?.addEventListener("abort", abort)
      this.#jobs.push(job)
      if (!this.#pumping) void this.#pump()
    })
  }

  /** What waits goes first: called before a synchronous write of the same store takes the lock. */
  carryOut(): void {
    // Inside a raw BEGIN nothing has its turn: what is asked for there is a savepoint, or refused by itself.
    if (this.#jobs.length === 0 || !this.transactions.idle) return
    while (this.#jobs.length > 0 && this.transactions.lock(true)) this.#finishFirst()
  }

  close(): void {
    for (const job of this.#jobs.splice(0)) job.reject(new SyncError("ERR_CLOSED", "The store was closed"))
  }

  async #pump(): Promise<void> {
    this.#pumping = true
    // The call that enqueued never touches the database itself: it may stand inside a query.
    await undefined
    let refusals = 0
    while (this.#jobs.length > 0) {
      if (this.#attempt()) {
        refusals = 0
        await new Promise(setImmediate)
      } else {
        this.#expire()
        const bound = Math.min(LONGEST_PAUSE, 2 ** Math.min(++refusals, 5))
        await new Promise((resume) => setTimeout(resume, 1 + Math.random() * (bound - 1)))
      }
    }
    this.#pumping = false
  }

  /** False: the lock is not to be had now. */
  #attempt(): boolean {
    try {
      if (!this.transactions.lock(false)) return false
    } catch (error) {
      // A query of this connection that is still open ends sooner or later, as another connection's lock does.
      if (error instanceof SyncError && error.code === "ERR_BUSY") return false
      this.#jobs.shift()?.reject(error)
      return true
    }
    this.#finishFirst()
    return true
  }

  #finishFirst(): void {
    this.#progress = Date.now()
    const job = this.#jobs.shift() as Job
    try {
      job.resolve(this.transactions.inside(job.work))
    } catch (error) {
      job.reject(error)
    }
  }

  #expire(): void {
    const now = Date.now()
    const waited = (job: Job) => now - Math.max(job.since, this.#progress)
    for (const job of this.#jobs.filter((job) => waited(job) >= this.busyTimeout)) {
      this.#jobs.splice(this.#jobs.indexOf(job), 1)
      const message = `The database was still locked after ${waited(job)} ms`
      job.reject(new SyncError("ERR_BUSY", message, { waited: waited(job) }))
    }
  }
}

function aborted(signal: AbortSignal): SyncError {
  return new SyncError("ERR_ABORTED", "The write was aborted before its turn came", { cause: signal.reason })
}
