import type { WriteContext } from "../context"
import type { SyncError } from "../errors"
import { described } from "../publish"
import { Backoff, pause, type BackoffOptions } from "./backoff"

/**
 * - `connecting`: the server is being asked.
 * - `catching-up`: it answers; what was recorded while nobody listened is being fetched.
 * - `live`: everything has been applied that was there to be followed, and what is recorded comes by itself.
 * - `waiting`: an attempt failed, and the next one is made in a while.
 * - `stopped`: the last one.
 * @example
 * const ended = new AbortController()
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * await follow(phone, { ...remote, signal: ended.signal, onStatus })
 */
export type FollowStatus = "connecting" | "catching-up" | "live" | "waiting" | "stopped"

/**
 * What is known beside a status.
 * @example
 * import { SyncError } from "syncline"
 * const onStatus = (_: string, { error }: FollowDetail) => error instanceof SyncError && console.log(error.code)
 * await follow(phone, { ...remote, token: "wrong", onStatus }).catch(() => {}) // prints ERR_UNAUTHORIZED
 */
export interface FollowDetail {
  /** `waiting`, and `stopped` where it rejects: why. */
  error?: unknown
  /** `waiting`: how many attempts have failed in a row. */
  attempt?: number
  /** `waiting`: milliseconds until the next one. */
  delay?: number
}

/** What a connection tells of itself. */
export interface Progress {
  connecting(): void
  /** The other side has answered, and everything is asked for. */
  catchingUp(): void
  /** That it has something to give. */
  answered(): void
  /** Everything has been done that there was. Also said again. */
  live(): void
  /** Calls one of the caller's functions: what it throws ends all. */
  report(callback: () => void): void
}

/** Hears of what somebody should look at. */
export type ReportError = (error: unknown, about: { aggregateID?: string }) => void

/** What is done again and again, and how its failures are judged. */
export interface Attempts {
  /** One connection, for as long as it lasts: rejects with what it ended with. */
  readonly connect: (progress: Progress, signal: AbortSignal) => Promise<never>
  /** How much has been done so far, in any unit: an attempt that has done something was a success. */
  readonly applied: () => number
  /** Whether it is no use to try again, after the other side has `worked` or before. */
  readonly isFinal: (error: unknown, worked: boolean) => boolean
  /** What passes by itself, and is nobody's fault: it is not reported. */
  readonly isPassing: (error: SyncError) => boolean
  /** Milliseconds of rest that the other side asks for. Default: none. */
  readonly retryAfter?: (error: unknown) => number
  readonly signal: AbortSignal | undefined
  readonly onStatus: ((status: FollowStatus, detail: FollowDetail) => void) | undefined
  readonly onError: ReportError
  readonly backoff: BackoffOptions | undefined
}

/** Connections, one after the other, until the signal aborts, the store is closed, or going on makes no sense. */
export class Following {
  readonly #stop = new AbortController()
  readonly #backoff: Backoff
  #status: FollowStatus | undefined
  #worked = false
  /** When the present connection was live first, by `performance.now`. */
  #live: number | undefined
  /** What one of the caller's functions threw. */
  #thrown: { readonly error: unknown } | undefined
  /** What was reported last of what concerns everything. */
  #reported: string | undefined

  constructor(
    private readonly context: WriteContext,
    private readonly attempts: Attempts,
  ) {
    this.#backoff = new Backoff(attempts.backoff)
  }

  async run(): Promise<void> {
    const { signal } = this.attempts
    const stop = () => this.#stop.abort()
    const undo = this.context.transactions.onClose(stop)
    signal?.addEventListener("abort", stop)
    if (signal?.aborted) stop()
    let failure: { readonly error: unknown } | undefined
    try {
      while (!this.#stop.signal.aborted) await this.#attempt()
    } catch (error) {
      failure = { error }
    } finally {
      undo()
      signal?.removeEventListener("abort", stop)
    }
    this.#become("stopped", failure)
    if (failure !== undefined) throw failure.error
  }

  /** One connection, and the pause after it. */
  async #attempt(): Promise<void> {
    const { applied, connect, isFinal } = this.attempts
    const before = applied()
    this.#live = undefined
    try {
      await connect(this.#progress, this.#stop.signal)
    } catch (error) {
      if (this.#thrown !== undefined) throw this.#thrown.error
      if (this.#stop.signal.aborted) return
      if (isFinal(error, this.#worked)) throw error
      // One that does nothing and lives for a moment is no success, or a server that fails at once would be asked again at once.
      const lasted = this.#live === undefined ? 0 : performance.now() - this.#live
      if (applied() > before || lasted > this.#backoff.longest) {
        this.#backoff.reset()
        this.#reported = undefined
      }
      await this.#wait(error as SyncError)
    }
  }

  async #wait(error: SyncError): Promise<void> {
    const delay = this.#backoff.next(this.attempts.retryAfter?.(error))
    if (!this.attempts.isPassing(error)) this.#report(error)
    this.#become("waiting", { error, attempt: this.#backoff.failures, delay })
    await pause(delay, this.#stop.signal)
  }

  #report(error: SyncError): void {
    const what = `${error.code} ${error.message}`
    if (this.#reported === what) return
    this.#reported = what
    this.#call(() => this.attempts.onError(error, {}))
  }

  readonly #progress: Progress = {
    connecting: () => this.#become("connecting"),
    catchingUp: () => this.#become("catching-up"),
    answered: () => void (this.#worked = true),
    live: () => {
      this.#live ??= performance.now()
      this.#become("live")
    },
    report: (callback) => this.#call(callback),
  }

  #become(status: FollowStatus, detail: FollowDetail = {}): void {
    if (this.#status === status) return
    this.#status = status
    this.#call(() => this.attempts.onStatus?.(status, detail))
  }

  #call(callback: () => void): void {
    try {
      callback()
    } catch (error) {
      this.#thrown ??= { error }
      throw error
    }
  }
}

/** The default of an `onError`: a process warning. */
export function warning(what: string): ReportError {
  return (error, { aggregateID }) => {
    const { code, reason } = described(error)
    const subject = aggregateID === undefined ? `${what} waits` : `Aggregate "${aggregateID}" stays behind`
    process.emitWarning(`${subject}: ${reason}`, { type: "SynclineWarning", code })
  }
}
