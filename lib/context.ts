import type { Handle } from "./native"
import type { Projections } from "./project"
import type { Dispatcher } from "./publish"
import type { WriteQueue } from "./queue"
import type { ValidationMode } from "./schema"
import type { Transactions } from "./transaction"
import type { Watch } from "./watch"

/**
 * What each call takes that waits for a busy database without blocking the event loop.
 * @example
 * const options: AsyncOptions = { signal: AbortSignal.abort() }
 * await store.runAsync(Renamed, { sessionID: "ses_1", title: "Ship it" }, options) // throws ERR_ABORTED
 */
export interface AsyncOptions {
  /** Gives up waiting: `ERR_ABORTED`. Nothing has been written then. */
  signal?: AbortSignal | undefined
}

/** What the stages share. */
export interface WriteContext {
  readonly handle: Handle
  readonly transactions: Transactions
  readonly queue: WriteQueue
  readonly watch: Watch
  readonly dispatcher: Dispatcher
  readonly projections: Projections
  readonly validate: ValidationMode
  readonly record: boolean
  readonly owner: string | null
  /** In UTF-8 bytes. */
  readonly maxEventBytes: number
  /** Milliseconds. */
  readonly busyTimeout: number
  /** There is no file. */
  readonly memory: boolean
  /** The argument of projectors and transaction functions. */
  readonly tx: unknown
}
