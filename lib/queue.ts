import { SyncError } from "./errors"
import { BEGUN } from "./native"
import type { Transactions } from "./transaction"

/**
 * Between two attempts on a busy database, in milliseconds on the average: at first, and at most; it grows by this part of
 * the time that was waited. Those who wait in a blocking call have the same pauses (`src/connection/busy.rs`), so that
 * neither comes before the other.
 */
const PAUSE = { first: 2, longest: 8, part: 1 / 8 }

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
  /** Others have seen that something waits here. */
  #inLine = false

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
        since: performance.now(),
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
    while (this.#jobs.length > 0 && this.transactions.lock(true) === BEGUN.yes) this.#finishFirst()
  }

  close(): void {
    for (const job of this.#jobs.splice(0)) job.reject(new SyncError("ERR_CLOSED", "The store was closed"))
  }

  async #pump(): Promise<void> {
    this.#pumping = true
    // The call that enqueued never touches the database itself: it may stand inside a query.
    await undefined
    while (this.#jobs.length > 0) {
      if (this.#attempt()) {
        await new Promise(setImmediate)
      } else {
        const waited = this.#expire()
        const mean = Math.min(PAUSE.first + waited * PAUSE.part, PAUSE.longest)
        await new Promise((resume) => setTimeout(resume, mean * (0.5 + Math.random())))
      }
    }
    if (this.#inLine) this.transactions.leaveLine()
    this.#inLine = false
    this.#pumping = false
  }

  /** False: the lock is not to be had now. */
  #attempt(): boolean {
    let begun
    try {
      begun = this.transactions.lock(false)
    } catch (error) {
      // A query of this connection that is still open ends sooner or later, as another connection's lock does.
      if (error instanceof SyncError && error.code === "ERR_BUSY") return false
      this.#jobs.shift()?.reject(error)
      return true
    }
    if (begun === BEGUN.yes) this.#finishFirst()
    // What the store itself wants to do first, or others who wait, is no reason to give up.
    else if (begun === BEGUN.soon) this.#progress = performance.now()
    else this.#inLine = true
    return begun === BEGUN.yes
  }

  #finishFirst(): void {
    this.#progress = performance.now()
    const job = this.#jobs.shift() as Job
    try {
      job.resolve(this.transactions.inside(job.work))
    } catch (error) {
      job.reject(error)
    }
  }

  /** Rejects those that have waited for too long. Answers how long the first one that is left has. */
  #expire(): number {
    const now = performance.now()
    const waited = (job: Job) => now - Math.max(job.since, this.#progress)
    for (const job of this.#jobs.filter((job) => waited(job) >= this.busyTimeout)) {
      this.#jobs.splice(this.#jobs.indexOf(job), 1)
      const milliseconds = Math.floor(waited(job))
      const message = `The database is locked (waited ${milliseconds} ms)`
      job.reject(new SyncError("ERR_BUSY", message, { waited: milliseconds }))
    }
    const [first] = this.#jobs
    return first === undefined ? 0 : waited(first)
  }
}

function aborted(signal: AbortSignal): SyncError {
  return new SyncError("ERR_ABORTED", "The write was aborted before its turn came", { cause: signal.reason })
}
