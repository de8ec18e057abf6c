import {
  DEFAULT_MAX_EVENT_BYTES,
  MAX_MAX_EVENT_BYTES,
  MAX_SEQ,
  checkBoolean,
  checkChoice,
  checkFunction,
  checkInteger,
  checkOptions,
  checkOwner,
} from "./argument"
import type { AdoptProgress } from "./adopt"
import type { Database } from "./database"
import { Registry, defaultRegistry } from "./define"
import { invalidArgument, show } from "./errors"
import type { Projector } from "./project"
import type { ConvertEvent, ListenerErrorHandler } from "./publish"
import type { ValidationMode } from "./schema"
import type { SkippedHandler } from "./skipped"
import { refuseAsync } from "./transaction"

/**
 * What `open` takes; all of it is optional.
 * @example
 * const options: OpenOptions = { ...session, owner: "laptop", busyTimeout: 5_000, maxEventBytes: 1024 * 1024 }
 * open(":memory:", options).run(Created, { sessionID: "ses_1", title: "Untitled" }).seq // → 0
 */
export interface OpenOptions<Tx = Database> {
  /** What `project` made, at most one a definition. Default: none. */
  projectors?: readonly Projector<Tx>[] | undefined
  /** The application's own schema changes: called at each open, under the write lock, before anything else. Default: none. */
  migrate?: ((db: Database) => void) | undefined
  /** Makes the query builder that projectors and `transaction` receive, once. Default: they receive the database. */
  query?: ((db: Database) => Tx) | undefined
  /** Makes `properties` for listeners from the unversioned type and the stored data. Default: they are the data. */
  convertEvent?: ConvertEvent | undefined
  /** Claims each aggregate that the store creates; others may then not write it. At most 255 bytes. Default: nobody. */
  owner?: string | undefined
  /** False: runs project and publish, and nothing is stored. Default true. */
  record?: boolean | undefined
  /** Default: the one registry of the process. */
  registry?: Registry | undefined
  /**
   * "always" (default): the schema sees the data read back from its text. "strict": that must equal the input, too.
   * "never": projectors get the parsed input, unchecked.
   */
  validate?: ValidationMode | undefined
  /** "normal" (default): what `run` returned survives the process. "full": also the power. */
  durability?: "normal" | "full" | undefined
  /** How long a write waits for the lock, in milliseconds; then `ERR_BUSY`. Default 30,000. */
  busyTimeout?: number | undefined
  /** Bound of one event's data in UTF-8 bytes; past it `ERR_TOO_LARGE`. Default 16 MiB. */
  maxEventBytes?: number | undefined
  /** Creates and writes nothing: the file must exist, and what would write throws `ERR_READONLY`. Default false. */
  readonly?: boolean | undefined
  /**
   * Packs old events by itself, on a thread: when enough has been written, and all of them once the store has been idle.
   * False: only `maintain` packs. In memory and read-only: nothing. Default true.
   */
  packing?: boolean | PackingOptions | undefined
  /**
   * Converts the tables of an older event log, `event(id, aggregate_id, seq, type, data[, created])` and
   * `event_sequence(aggregate_id, seq[, owner_id])`, before the store opens; `store.adopted` says what it did. It can be
   * killed anywhere, and goes on when the file is opened so again. Other files open as without it. Where it cannot be done:
   * `ERR_FOREIGN_SCHEMA`, and the file stays as it is. Not read-only, and not in memory. Default false.
   */
  adopt?: boolean | undefined
  /** Called from time to time while adopting, and at its end. What it throws interrupts it, and `open`. */
  onProgress?: ((progress: AdoptProgress) => void) | undefined
  /** Receives what listeners and `convertEvent` throw or reject with, with the event. Default: a process warning. */
  onListenerError?: ListenerErrorHandler | undefined
  /**
   * Hears of the events whose projectors a constraint refused and `onConstraint: "skip"` skipped: after the outermost
   * commit, in their order, once each. Default: a process warning for each.
   */
  onSkipped?: SkippedHandler | undefined
}

/**
 * When events are packed, and which stay rows.
 * @example
 * const packing: PackingOptions = { keepEvents: 32, idle: 5_000 }
 * open("packed.db", { packing }).stats().packing // → true
 */
export interface PackingOptions {
  /** How many of an aggregate's newest events stay rows while it is written. Default 128. */
  keepEvents?: number | undefined
  /** And how many bytes of data and metadata. Default 256 KiB. */
  keepBytes?: number | undefined
  /** Bytes that the store writes between two rounds. Default 1 MiB. */
  atBytes?: number | undefined
  /** Milliseconds without a commit of the store after which everything is packed. Default 30,000. */
  idle?: number | undefined
}

/** The names of the options. */
export const OPEN_OPTIONS = [
  "projectors",
  "migrate",
  "query",
  "convertEvent",
  "owner",
  "record",
  "registry",
  "validate",
  "durability",
  "busyTimeout",
  "maxEventBytes",
  "readonly",
  "packing",
  "adopt",
  "onProgress",
  "onListenerError",
  "onSkipped",
]

/** How a connection is opened, as Rust takes it. */
export interface ConnectionOptions {
  readonly readonly: boolean
  readonly full: boolean
  readonly busyTimeout: number
  readonly maxEventBytes: number
  readonly packing: boolean
  readonly keepEvents: number
  readonly keepBytes: number
  readonly packAtBytes: number
  readonly packIdle: number
}

/** The options of `open`, checked and completed. */
export function checkSettings<Tx>(options: OpenOptions<Tx>) {
  const {
    projectors,
    registry = defaultRegistry,
    busyTimeout = 30_000,
    maxEventBytes = DEFAULT_MAX_EVENT_BYTES,
  } = options
  if (projectors !== undefined && !Array.isArray(projectors)) {
    throw invalidArgument(`projectors must be an array, not ${show(projectors)}`)
  }
  if (!(registry instanceof Registry)) throw invalidArgument("registry must come from createRegistry()")
  for (const name of ["query", "convertEvent", "onListenerError", "onSkipped", "onProgress"] as const)
    checkFunction(name, options[name])
  const readonly = checkBoolean("readonly", options.readonly, false)
  if (options.migrate !== undefined) {
    refuseAsync(options.migrate, "migrate")
    if (readonly) throw invalidArgument("migrate needs a store that is not readonly")
  }
  const adopt = checkBoolean("adopt", options.adopt, false)
  if (adopt && readonly) throw invalidArgument("adopt needs a store that is not readonly")
  const connection: ConnectionOptions = {
    readonly,
    full: checkChoice("durability", options.durability, ["normal", "full"], "normal") === "full",
    busyTimeout: checkInteger("busyTimeout", busyTimeout, 0, 2 ** 31 - 1),
    maxEventBytes: checkInteger("maxEventBytes", maxEventBytes, 1, MAX_MAX_EVENT_BYTES),
    ...checkPacking(options.packing),
  }
  return {
    registry,
    readonly,
    adopt,
    connection,
    validate: checkChoice("validate", options.validate, ["always", "strict", "never"], "always"),
    record: checkBoolean("record", options.record, true),
    owner: checkOwner("owner", options.owner),
  }
}

function checkPacking(packing: OpenOptions["packing"] = true) {
  const given = typeof packing === "boolean" ? {} : checkOptions("packing", packing, PACKING_OPTIONS)
  const { keepEvents = 128, keepBytes = 256 * 1024, atBytes = 1024 * 1024, idle = 30_000 } = given
  return {
    packing: packing !== false,
    keepEvents: checkInteger("packing.keepEvents", keepEvents, 0, MAX_SEQ),
    keepBytes: checkInteger("packing.keepBytes", keepBytes, 0),
    packAtBytes: checkInteger("packing.atBytes", atBytes, 1),
    packIdle: checkInteger("packing.idle", idle, 1, 2 ** 31 - 1),
  }
}

const PACKING_OPTIONS = ["keepEvents", "keepBytes", "atBytes", "idle"]
