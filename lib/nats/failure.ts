import { SyncError, invalidArgument } from "../errors"
import { protocolError, unreachable } from "../follow/failure"

/** What the server answers where another message, or another revision of a key, is the last one. */
const WRONG_LAST: ReadonlySet<unknown> = new Set([10071, 10164])

/** What it answers for a message, and a client of it for a status, that is not there. */
const NO_MESSAGE: ReadonlySet<unknown> = new Set([10037, 404])

/** By name, since a program may have several copies of a client. */
const NOT_NOW: ReadonlySet<string> = new Set([
  "ClosedConnectionError",
  "ConnectionError",
  "DrainingConnectionError",
  // Said of a cluster that has no leader at the moment, too.
  "JetStreamNotEnabled",
  "JetStreamStatusError",
  "NoRespondersError",
  "RequestError",
  "TimeoutError",
])

const FORBIDDEN: ReadonlySet<unknown> = new Set([
  "AuthorizationError",
  "PermissionViolationError",
  "UserAuthenticationExpiredError",
])

/** What it answers where a stream, its account or its disk has no room. */
const FULL: ReadonlySet<unknown> = new Set([10023, 10047, 10077])

/** Whether a guarded write came too late. */
export function isRefusal(error: unknown): boolean {
  return WRONG_LAST.has(codeOf(error))
}

/** Whether there is no such message. */
export function isNotThere(error: unknown): boolean {
  return NO_MESSAGE.has(codeOf(error))
}

/** What a client has thrown, as a `SyncError`. */
export function failureOf(error: unknown, what: string): SyncError {
  if (error instanceof SyncError) return error
  const { name, message, status, cause } = Object(error) as Error & { status?: number }
  const text = `${what}: ${message}`
  if (name === "StreamNotFoundError" || name === "ConsumerNotFoundError") {
    return new SyncError("ERR_NOT_FOUND", text, { cause: error })
  }
  // A request that is not allowed is told as one that failed, because of it.
  if (FORBIDDEN.has(name) || FORBIDDEN.has(Object(cause).name)) {
    return new SyncError("ERR_FORBIDDEN", text, { cause: error })
  }
  if (FULL.has(codeOf(error))) return new SyncError("ERR_DISK_FULL", text, { cause: error })
  if (name === "InvalidArgumentError") return invalidArgument(text, error)
  // 4xx says that the request makes no sense to this server; what else it says may be otherwise another time.
  if (NOT_NOW.has(name) || (status ?? 0) >= 500) return unreachable(text, error)
  return protocolError(text, error)
}

function codeOf(error: unknown): unknown {
  return (Object(error) as { code?: unknown }).code
}

/** Whether it is no use to try again: the call is wrong, nobody will allow it, or its connection is closed for good. */
export function isFinal(error: unknown, connection: { isClosed(): boolean }): boolean {
  return !(error instanceof SyncError) || FINAL.has(error.code) || connection.isClosed()
}

const FINAL: ReadonlySet<string> = new Set([
  "ERR_ASYNC_SCHEMA",
  "ERR_CLOSED",
  "ERR_FORBIDDEN",
  "ERR_INVALID_ARGUMENT",
  "ERR_POISONED",
  "ERR_READONLY",
  "ERR_UNAUTHORIZED",
])
