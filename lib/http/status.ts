import { SyncError, errorCodes, type ErrorCode, type ErrorFields, type ErrorIssue } from "../errors"

/** With which status each code is answered: whose fault it is, and whether asking again can help. */
const STATUS: Readonly<Record<ErrorCode, number>> = {
  // What the sender did wrong.
  ERR_INVALID_ARGUMENT: 400,
  ERR_INVALID_EVENT: 400,
  ERR_INVALID_DATA: 400,
  ERR_UNKNOWN_EVENT: 400,
  ERR_AGGREGATE_MISMATCH: 400,
  ERR_AGGREGATE_REQUIRED: 400,
  ERR_INVALID_EXPORT: 400,
  ERR_UNAUTHORIZED: 401,
  ERR_FORBIDDEN: 403,
  ERR_READONLY: 403,
  ERR_NOT_FOUND: 404,
  ERR_METHOD_NOT_ALLOWED: 405,
  ERR_SEQUENCE_MISMATCH: 409,
  ERR_REPLAY_DIVERGED: 409,
  ERR_CONFLICT: 409,
  ERR_NOT_OWNER: 409,
  ERR_TOO_LARGE: 413,
  ERR_UNSUPPORTED_MEDIA_TYPE: 415,
  // What is so now, and may soon be otherwise.
  ERR_BUSY: 503,
  ERR_CLOSED: 503,
  ERR_DISK_FULL: 503,
  ERR_FILE_GONE: 503,
  ERR_IN_TRANSACTION: 503,
  ERR_OVERFLOW: 503,
  ERR_TIMEOUT: 503,
  ERR_ABORTED: 503,
  // What is wrong with the server, its file or its program.
  ERR_INTERNAL: 500,
  ERR_SQLITE: 500,
  ERR_CORRUPT: 500,
  ERR_POISONED: 500,
  ERR_NOT_A_DATABASE: 500,
  ERR_SCHEMA_NEWER: 500,
  ERR_FOREIGN_SCHEMA: 500,
  ERR_NO_PROJECTOR: 500,
  ERR_ASYNC_PROJECTOR: 500,
  ERR_IN_PROJECTOR: 500,
  ERR_ASYNC_SCHEMA: 500,
  ERR_ASYNC_TRANSACTION: 500,
  ERR_STALE_VERSION: 500,
  ERR_WRONG_KIND: 500,
  ERR_DUPLICATE_DEFINITION: 500,
  ERR_FROZEN: 500,
  ERR_UNSUPPORTED_RUNTIME: 500,
  ERR_ADDON_NOT_LOADED: 500,
  // Met by clients alone.
  ERR_UNREACHABLE: 500,
  ERR_PROTOCOL: 500,
}

/** The status with which an error is answered. */
export function statusOf(error: SyncError): number {
  return STATUS[error.code]
}

/** The codes of each status, for who describes or handles them. */
export function codesByStatus(): ReadonlyMap<number, readonly ErrorCode[]> {
  const codes = new Map<number, ErrorCode[]>()
  for (const [code, status] of Object.entries(STATUS) as [ErrorCode, number][]) {
    if (code === "ERR_UNREACHABLE" || code === "ERR_PROTOCOL") continue
    codes.set(status, [...(codes.get(status) ?? []), code])
  }
  return codes
}

/** What an answer says of an error. */
export interface ErrorBody extends Omit<ErrorFields, "cause" | "delivered" | "status"> {
  readonly code: ErrorCode
  readonly message: string
}

/** The fields of an error that go over the wire: numbers and short texts, and what a schema found. */
const FIELDS = [
  "expected",
  "got",
  "aggregateID",
  "type",
  "seq",
  "first",
  "last",
  "projected",
  "epoch",
  "gotEpoch",
  "sqliteCode",
  "table",
  "constraint",
  "index",
  "field",
  "limit",
  "size",
  "line",
  "waited",
  "position",
] as const satisfies readonly (keyof ErrorFields)[]

/** An error as JSON: never its cause or its stack, which are the server's own. */
export function errorBody(error: SyncError): ErrorBody {
  const { code, message, issues } = error
  return { code, message, ...fieldsOf(error), ...(issues !== undefined && { issues: issues.map(plainIssue) }) }
}

/** The error that an answer tells of; undefined for an answer that is none of this protocol. */
export function errorFrom(status: number, json: unknown): SyncError | undefined {
  if (typeof json !== "object" || json === null) return undefined
  const { code, message, issues } = json as Record<string, unknown>
  if (typeof code !== "string" || !Object.hasOwn(errorCodes, code) || typeof message !== "string") return undefined
  const fields: ErrorFields = { ...fieldsOf(json), status }
  if (Array.isArray(issues)) fields.issues = issues.filter(isIssue).map(plainIssue)
  return new SyncError(code as ErrorCode, message, fields)
}

/** Only what has the type of such a field: a body may hold anything. */
function fieldsOf(source: object): ErrorFields {
  const found: Record<string, number | string | null> = {}
  for (const name of FIELDS) {
    const value: unknown = Object.hasOwn(source, name) ? (source as Record<string, unknown>)[name] : undefined
    if (typeof value === "number" || typeof value === "string" || value === null) found[name] = value
  }
  return found
}

function isIssue(issue: unknown): issue is ErrorIssue {
  return typeof issue === "object" && issue !== null && typeof (issue as Partial<ErrorIssue>).message === "string"
}

/** Schema libraries add whatever they like to an issue, the input among it; and a path may hold symbols. */
function plainIssue({ message, path }: ErrorIssue): ErrorIssue {
  if (!Array.isArray(path)) return { message: String(message) }
  const keys = (path as NonNullable<ErrorIssue["path"]>).map((part) => {
    const key: unknown = typeof part === "object" && part !== null ? part.key : part
    return typeof key === "number" ? key : String(key)
  })
  return { message: String(message), path: keys }
}
