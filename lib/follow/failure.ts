import { SyncError } from "../errors"

/** What answers speaks another protocol. */
export function protocolError(message: string, cause?: unknown): SyncError {
  return new SyncError("ERR_PROTOCOL", message, cause === undefined ? {} : { cause })
}

/** Nobody answers, or the answer ends too early: another attempt may go well. */
export function unreachable(message: string, cause?: unknown): SyncError {
  return new SyncError("ERR_UNREACHABLE", message, cause === undefined ? {} : { cause })
}
