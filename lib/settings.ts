import {
  DEFAULT_MAX_EVENT_BYTES,
  MAX_MAX_EVENT_BYTES,
  checkBoolean,
  checkChoice,
  checkFunction,
  checkInteger,
  checkOwner,
} from "./argument"
import type { Database } from "./database"
import { Registry, defaultRegistry } from "./define"
import { invalidArgument, show } from "./errors"
import type { Projector } from "./project"
import type { ConvertEvent, ListenerErrorHandler } from "./publish"
import type { ValidationMode } from "./schema"
import { refuseAsync } from "./transaction"

/** What `open` takes; all of it is optional. */
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
  /** Receives what listeners and `convertEvent` throw or reject with, with the event. Default: a process warning. */
  onListenerError?: ListenerErrorHandler | undefined
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
  "onListenerError",
]

/** How a connection is opened, as Rust takes it. */
export interface ConnectionOptions {
  readonly readonly: boolean
  readonly full: boolean
  readonly busyTimeout: number
  readonly maxEventBytes: number
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
  for (const name of ["query", "convertEvent", "onListenerError"] as const) checkFunction(name, options[name])
  const readonly = checkBoolean("readonly", options.readonly, false)
  if (options.migrate !== undefined) {
    refuseAsync(options.migrate, "migrate")
    if (readonly) throw invalidArgument("migrate needs a store that is not readonly")
  }
  const connection: ConnectionOptions = {
    readonly,
    full: checkChoice("durability", options.durability, ["normal", "full"], "normal") === "full",
    busyTimeout: checkInteger("busyTimeout", busyTimeout, 0, 2 ** 31 - 1),
    maxEventBytes: checkInteger("maxEventBytes", maxEventBytes, 1, MAX_MAX_EVENT_BYTES),
  }
  return {
    registry,
    readonly,
    connection,
    validate: checkChoice("validate", options.validate, ["always", "strict", "never"], "always"),
    record: checkBoolean("record", options.record, true),
    owner: checkOwner("owner", options.owner),
  }
}
