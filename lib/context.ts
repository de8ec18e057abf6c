import type { Handle } from "./native"
import type { Projections } from "./project"
import type { WriteQueue } from "./queue"
import type { ValidationMode } from "./schema"
import type { Transactions } from "./transaction"

/** What each call takes that waits for a busy database without blocking the event loop. */
export interface AsyncOptions {
  /** Gives up waiting: `ERR_ABORTED`. Nothing has been written then. */
  signal?: AbortSignal | undefined
}

/** What the stages that write share. */
export interface WriteContext {
  readonly handle: Handle
  readonly transactions: Transactions
  readonly queue: WriteQueue
  readonly projections: Projections
  readonly validate: ValidationMode
  readonly record: boolean
  readonly owner: string | null
  /** In UTF-8 bytes. */
  readonly maxEventBytes: number
  /** The argument of projectors and transaction functions. */
  readonly tx: unknown
}
