/**
 * Every code that a `SyncError` can carry, with what the caller should do about it. `docs/errors.md` is checked against it.
 * @example errorCodes.ERR_BUSY // → "Retry later, or raise `busyTimeout`; …"
 */
export const errorCodes = {
  // Defining
  ERR_DUPLICATE_DEFINITION: "Give the definition another type or version, or another registry.",
  ERR_FROZEN: "Define before the first store of this registry opens, or after the last one is closed.",
  // Arguments
  ERR_INVALID_ARGUMENT: "Correct the call: the message names the argument and what it may be.",
  ERR_UNSUPPORTED_RUNTIME: "Run on Node 20.3 or newer, or on a Bun or Deno that offers Node-API level 8.",
  ERR_ADDON_NOT_LOADED:
    "Run the command that the message names: `reason` says what keeps the native addon from loading.",
  // Running
  ERR_STALE_VERSION: "Run the newest version of the type; older versions can only be replayed.",
  ERR_WRONG_KIND: "Run recorded definitions; publish ephemeral ones.",
  ERR_AGGREGATE_REQUIRED: "Put a non-empty string of at most 8 KiB into the data's aggregate field.",
  ERR_INVALID_DATA: "Correct the data: `issues` holds what its schema found.",
  ERR_ASYNC_SCHEMA: "Use a schema that validates synchronously.",
  ERR_TOO_LARGE: "Store large content elsewhere and refer to it, or raise `maxEventBytes`.",
  ERR_NO_PROJECTOR: 'Give `open` a projector (or the missing upcast), or define with `projector: "none"`.',
  ERR_ASYNC_PROJECTOR: "Make the projector synchronous.",
  ERR_IN_PROJECTOR: "Do in a listener, or before the run, what a projector may not do.",
  ERR_CONFLICT: "Read the present state, decide again, and retry with what was found.",
  ERR_NOT_OWNER: "Claim the aggregate first, or send the write to its owner.",
  ERR_IN_TRANSACTION: "End the open transaction first, or open it with `store.transaction`.",
  ERR_ASYNC_TRANSACTION: "Pass a synchronous function: await before the transaction, not inside it.",
  // Publishing
  ERR_OVERFLOW:
    "Take events faster; read what is missing from the log, after the named seqs (`seq`, or `delivered` of a stream).",
  // Replaying
  ERR_INVALID_EVENT: "Correct or drop the item: the message names its index and field.",
  ERR_UNKNOWN_EVENT:
    "Define the event in this store's registry, or upgrade this program; `reproject` what was recorded while it was unknown.",
  ERR_AGGREGATE_MISMATCH: "Correct the event: its data and its envelope name different aggregates.",
  ERR_REPLAY_DIVERGED: "Stop: two histories of one aggregate exist; find out which one is right.",
  ERR_SEQUENCE_MISMATCH: "Fetch the events after the last held seq and replay them in order.",
  ERR_INVALID_EXPORT: "Use a file that `export` wrote, whole and unchanged: the message names the line.",
  // Over HTTP
  ERR_UNAUTHORIZED: "Send the right token: `Authorization: Bearer …`.",
  ERR_FORBIDDEN: "Ask whoever runs the server for the right to do this.",
  ERR_NOT_FOUND: "Check the path, or the id: there is nothing of that name.",
  ERR_METHOD_NOT_ALLOWED: "Use the method that the header `Allow` names.",
  ERR_UNSUPPORTED_MEDIA_TYPE: "Send JSON or NDJSON, as it is or compressed with gzip or zstd.",
  ERR_UNREACHABLE: "Check the address and the network: no answer came, or it ended too early. `cause` says more.",
  ERR_PROTOCOL: "Check the address: what answers there is no sync server, or one that speaks another protocol.",
  ERR_INTERNAL: "Look at what the server's `onError` was given.",
  // Waiting
  ERR_BUSY:
    "Retry later, or raise `busyTimeout`; finish the query that is open on this connection, or the transaction of another one.",
  ERR_TIMEOUT: "Retry, with a longer timeout: `aggregateID`, `expected` and `got` say what is missing.",
  ERR_ABORTED: "Nothing: the caller's own signal asked for it.",
  // The database
  ERR_CLOSED: "Open the store again; this one was closed.",
  ERR_READONLY: "Open the store without `readonly`, and check the file's permissions.",
  ERR_DISK_FULL: "Free some space, or raise the limit that was met, and try again: what was committed before is safe.",
  ERR_FILE_GONE: "Put the file back where it was, with its -wal, or close the store and open another.",
  ERR_SQLITE: "See `sqliteCode`: a statement of the caller, or the disk, failed.",
  ERR_NOT_A_DATABASE: "Check the path: the file there is something else.",
  ERR_CORRUPT: "Ask `verify` what is wrong; restore the file from a copy, or replay the log into a new one.",
  ERR_SCHEMA_NEWER: "Upgrade syncline: a newer version wrote this file.",
  ERR_FOREIGN_SCHEMA:
    "Use another file: a table of another program has one of Syncline's names. An older event log opens with `adopt: true`.",
  ERR_POISONED: "Close the store, open it again and report the bug: the core met a state that must not exist.",
} as const

/**
 * The stable code of a `SyncError`; see {@link errorCodes} for what to do about each.
 * @example
 * const worthRetrying = new Set<ErrorCode>(["ERR_BUSY", "ERR_TIMEOUT", "ERR_UNREACHABLE"])
 * worthRetrying.has("ERR_CORRUPT") // → false
 */
export type ErrorCode = keyof typeof errorCodes

/**
 * What a `SyncError` knows beside its code and message; each is present only where it applies.
 * @example
 * const fields: ErrorFields = { aggregateID: "ses_1", expected: 0, got: 1 }
 * new SyncError("ERR_CONFLICT", "Somebody was faster", fields).got // → 1
 */
export interface ErrorFields {
  /** What was required, or is stored: a seq, an epoch, an owner or an aggregate id; of an addon its platform or version. */
  expected?: number | string | null
  /** What was found in its place. */
  got?: number | string | null
  /** The aggregate that it is about. */
  aggregateID?: string
  /** The event's type, versioned where the version is known: `session.updated.1`. */
  type?: string
  /** The seq that it is about, in that aggregate. */
  seq?: number
  /** The first seq of a range of events. */
  first?: number
  /** Its last. */
  last?: number
  /** The last seq that is projected, where later ones are only stored. */
  projected?: number
  /** The epoch that is stored, where ownership was refused. */
  epoch?: number
  /** The epoch that was offered in its place. */
  gotEpoch?: number
  /** What the schema found, in the form of Standard Schema. */
  issues?: readonly ErrorIssue[]
  /** SQLite's own name of the error, such as `SQLITE_CONSTRAINT_UNIQUE`. */
  sqliteCode?: string
  /** The table that has the constraint which failed. */
  table?: string
  /**
   * That constraint: the columns (`note.tag`), the name or text of a CHECK, or the foreign key,
   * `message(sessionID) → session(id)`. Where it may be one of several foreign keys: all of them, with " or " between.
   */
  constraint?: string
  /** The position of the offending item in the input, from 0. */
  index?: number
  /** The offending field of that item. */
  field?: string
  /** The bound that was passed, in the unit the message names. */
  limit?: number
  /** The size that passed it, in the same unit. */
  size?: number
  /** The line of an export, from 1. */
  line?: number
  /** The HTTP status of the answer. */
  status?: number
  /** How long the call waited, in milliseconds. */
  waited?: number
  /** By aggregate, the last seq that the stream's consumer was given. */
  delivered?: ReadonlyMap<string, number>
  /** The position of the last event that it was given. */
  position?: number
  /** Why the native addon was not loaded. */
  reason?: AddonFailure
  /** The file that was found in its place. */
  path?: string
  /** The error behind this one. */
  cause?: unknown
}

/**
 * Why the native addon could not be loaded: its package is `missing`, there is none for this platform
 * (`unsupported-platform`), what is there is for another one (`wrong-platform`, `wrong-libc`, `glibc-too-old`), of
 * another version (`version-mismatch`), cut short or no addon (`damaged`), somebody else's (`foreign`), or a bundler has
 * taken the JavaScript away from it (`bundled`). `refused`: the system has a reason of its own, which the message quotes.
 * @example
 * const mendedByInstalling = (reason: AddonFailure) => ["missing", "damaged", "version-mismatch"].includes(reason)
 * mendedByInstalling("glibc-too-old") // → false
 */
export type AddonFailure =
  | "missing"
  | "unsupported-platform"
  | "wrong-platform"
  | "wrong-libc"
  | "glibc-too-old"
  | "version-mismatch"
  | "damaged"
  | "foreign"
  | "bundled"
  | "refused"

/**
 * One finding of a schema.
 * @example
 * const told = ({ message, path = [] }: ErrorIssue) => `${path.join(".")}: ${message}`
 * try {
 *   store.run(Renamed, { sessionID: "ses_1", title: 7 as never })
 * } catch (error) {
 *   console.log((error as SyncError).issues?.map(told)[0]) // title: Invalid input: expected string, received number
 * }
 */
export interface ErrorIssue {
  /** The schema's own words. */
  readonly message: string
  /** Where in the data, from the outside in; absent for the whole. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/**
 * Every error that the library throws itself. What the caller's own code throws is never wrapped in one.
 * @example
 * try {
 *   store.run(Renamed, { sessionID: "ses_1", title: "Too late" }, { expectedSeq: 0 })
 * } catch (error) {
 *   if (error instanceof SyncError) console.log(error.code, error.expected, error.got) // ERR_CONFLICT 0 1
 * }
 */
export class SyncError extends Error implements ErrorFields {
  /** Stable, unlike the message: {@link errorCodes} says what to do about each. */
  readonly code: ErrorCode
  declare readonly expected?: number | string | null
  declare readonly got?: number | string | null
  declare readonly aggregateID?: string
  declare readonly type?: string
  declare readonly seq?: number
  declare readonly first?: number
  declare readonly last?: number
  declare readonly projected?: number
  declare readonly epoch?: number
  declare readonly gotEpoch?: number
  declare readonly issues?: readonly ErrorIssue[]
  declare readonly sqliteCode?: string
  declare readonly table?: string
  declare readonly constraint?: string
  declare readonly index?: number
  declare readonly field?: string
  declare readonly limit?: number
  declare readonly size?: number
  declare readonly line?: number
  declare readonly status?: number
  declare readonly waited?: number
  declare readonly delivered?: ReadonlyMap<string, number>
  declare readonly position?: number
  declare readonly reason?: AddonFailure
  declare readonly path?: string

  constructor(code: ErrorCode, message: string, fields: ErrorFields = {}) {
    const { cause, ...others } = fields
    super(message, "cause" in fields ? { cause } : undefined)
    this.code = code
    // Not assigned: under Bun an error has a hidden `line` of its own, which would stay hidden.
    for (const [name, value] of Object.entries(others)) {
      Object.defineProperty(this, name, { value, enumerable: true, configurable: true, writable: true })
    }
  }

  static {
    // On the prototype, as built-in errors have it, so that printing an error does not list its name as a field.
    Object.defineProperty(this.prototype, "name", { value: "SyncError", configurable: true, writable: true })
  }
}

/** @internal The refusal of an argument or an option. */
export function invalidArgument(message: string, cause?: unknown): SyncError {
  return new SyncError("ERR_INVALID_ARGUMENT", message, cause === undefined ? {} : { cause })
}

/** @internal How a message shows a caller's value: short, on one line, and never by running the caller's code. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
  if (typeof value === "bigint") return `${value}n`
  if (typeof value === "function") return "a function"
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object"
  return String(value)
}

/** @internal What was thrown, where it is one of these: a value of the program's own may refuse to be looked at. */
export function syncErrorOf(thrown: unknown): SyncError | undefined {
  try {
    return thrown instanceof SyncError ? thrown : undefined
  } catch {
    return undefined
  }
}

/** How many errors behind one another are looked at. */
const MAX_CAUSES = 16

/** @internal The failed constraint behind what was thrown, which a query builder may have wrapped. */
export function failedConstraint(thrown: unknown): SyncError | undefined {
  try {
    let error = thrown
    for (let depth = 0; depth < MAX_CAUSES && error instanceof Error; depth++, error = error.cause) {
      if (error instanceof SyncError && error.code === "ERR_SQLITE") {
        return error.sqliteCode?.startsWith("SQLITE_CONSTRAINT") ? error : undefined
      }
    }
  } catch {
    // Somebody's own error, which cannot be looked at.
  }
  return undefined
}

/** @internal Adds to an error which event it is about, unless it says so already, or cannot be changed. */
export function locate(
  error: SyncError,
  where: string,
  event: { type: string; aggregateID: string; seq: number },
): void {
  if (error.type !== undefined) return
  const { type, aggregateID, seq } = event
  try {
    const { message, stack } = error
    const complete = `${message}: ${where} ${type} (aggregate "${aggregateID}", seq ${seq})`
    for (const [name, value] of Object.entries({ type, aggregateID, seq })) {
      Reflect.defineProperty(error, name, { value, enumerable: true, configurable: true, writable: true })
    }
    Reflect.set(error, "message", complete)
    // The stack begins with the message that the error had when it was made.
    if (stack?.includes(message))
      Reflect.set(
        error,
        "stack",
        stack.replace(message, () => complete),
      )
  } catch {
    // As above: what was thrown matters more than what is said of it.
  }
}
