/**
 * For session code that defines at module level and names no store: this module holds the one it means.
 * @module syncline/sync-event
 */

import type { StandardSchemaV1 } from "@standard-schema/spec"
import { checkOptions } from "./argument"
import { invalidArgument, show } from "./errors"
import {
  createRegistry,
  define as defineStored,
  open,
  project as projectStored,
  SyncError,
  type Database,
  type DefineOptions,
  type Definition as StoredDefinition,
  type LogItem,
  type OpenOptions,
  type ProjectOptions,
  type Projector,
  type PublishedEvent,
  type SerializedEvent,
  type RunOptions,
  type Store,
  type Synchronous,
} from "./index"
import { payloadSchema } from "./json-schema"
import { checkProjectOptions } from "./project"
import { aggregateOf, foreign, type Replayed } from "./foreign"
import type { Apply, Definition, Delivery, Event, InitOptions, Projection } from "./projection"
import type { ProjectionOptions, ReplayOptions } from "./projection"
import { Store as OpenStore } from "./store"

export type { Replayed } from "./foreign"
export type { Apply, Definition, Delivery, Event, InitOptions, Projection, ProjectionOptions } from "./projection"
export type { ReplayOptions } from "./projection"

/**
 * Every definition by `type.version`.
 * @example registry.get("session.renamed.1") === Renamed // → true
 */
export const registry = new Map<string, Definition>()

/**
 * Defines one version of a type of event. After `init` it throws `ERR_FROZEN`, the same type and version twice
 * `ERR_DUPLICATE_DEFINITION`; else as `define` of `syncline`.
 * @example
 * const Noted = define({ type: "session.noted", version: 1, aggregate: "sessionID", schema })
 * registry.get("session.noted.1") === Noted // → true
 */
export function define<
  const Type extends string,
  Schema extends StandardSchemaV1,
  BusSchema extends StandardSchemaV1 = Schema,
>(
  options: Pick<DefineOptions<Type, Schema, BusSchema>, Exclude<(typeof OPTIONS)[number], "compactKey">> & {
    /** As `define` of `syncline` takes it, with barriers that this `define` has made. */
    compactKey?: string | { path: string; barriers?: readonly Definition[] | undefined } | undefined
  },
): Definition<Type, Schema, BusSchema> {
  checkOptions("define", options, OPTIONS)
  if (options === undefined) throw invalidArgument("define needs options")
  const { type, version, aggregate, busSchema } = options
  const schema: Schema = options.schema
  const again = { ...options, compactKey: storedKey(options.compactKey) }
  const first = defineStored<Type, Schema, BusSchema>({ ...again, registry: definitions })
  const properties = (busSchema ?? schema) as BusSchema
  const definition = Object.freeze({ type, version, aggregate: aggregate as string, schema, properties })
  const family = families.get(type) ?? []
  families.set(type, family)
  family.push(definition)
  recipes.set(definition, { first, again: () => defineStored({ ...again, registry: definitions }), family })
  remember(definition, first)
  return definition
}

/**
 * Pairs a definition with its projector: synchronous, deterministic, and without running events of its own. `options` are
 * those of `project` of `syncline`. Wrong arguments: `ERR_INVALID_ARGUMENT`.
 * @example project(Renamed, (tx, { title }) => void tx.prepare("UPDATE session SET title = ?").run(title))
 */
export function project<D extends Definition, Tx = Database, Result = unknown>(
  definition: D,
  apply: ((...args: Parameters<Apply<D, Tx>>) => Result) & Synchronous<Result>,
  options?: ProjectOptions,
): Projection<D, Tx> {
  recipeOf("project", definition)
  if (typeof apply !== "function") throw invalidArgument(`A projector must be a function, not ${show(apply)}`)
  checkProjectOptions(options)
  return options === undefined ? [definition, apply] : [definition, apply, options]
}

/**
 * Opens the store that `run`, `replay` and the rest use, and freezes the definitions. Definitions that a `reset`
 * dropped are taken up again where a projector names them, and with each all versions of its type that were defined
 * before the same `reset`. Initializing twice: `ERR_FROZEN`; else it throws as `open` of `syncline` does.
 *
 * With `store`, one that was opened with {@link openOptions}, whoever closes it; another one: `ERR_INVALID_ARGUMENT`.
 * @example
 * const store = init({ path: "sessions.db", migrate, projectors })
 * run(Created, { sessionID: "ses_1", title: "Untitled" })
 * store.sequence("ses_1") // → 0
 */
export function init<Tx = Database>(options: InitOptions<Tx>): Store<Tx> {
  if (current !== undefined) {
    throw new SyncError("ERR_FROZEN", "SyncEvent has been frozen by an earlier init: call reset first")
  }
  if (typeof options !== "object" || options === null) {
    throw invalidArgument(`init needs options with a path or a store, not ${show(options)}`)
  }
  const store = options.store === undefined ? opened(options) : adopted(options)
  current = { store, owned: options.store === undefined }
  for (const subscription of subscriptions) attach(subscription, store)
  return store
}

/**
 * What a store of the caller's own needs to know of these events.
 * @example
 * const store = open("sessions.db", { ...openOptions({ projectors }), migrate, durability: "full" })
 * init({ store }) === store // → true
 */
export function openOptions(
  options: ProjectionOptions,
): Pick<OpenOptions, "registry" | "convertEvent"> & { projectors: Projector<unknown>[] } {
  const { projectors: pairs, convertEvent } = checkOptions("openOptions", options, ["projectors", "convertEvent"])
  const projectors = checkPairs(pairs).map(([definition, apply, how]) =>
    projectStored(takenUp(definition), apply as Apply<Definition, unknown>, how),
  )
  given = options
  return { registry: definitions, projectors, ...(convertEvent && { convertEvent }) }
}

/**
 * Records an event: assigns its seq, projects, commits, and publishes unless `publish` is false. Before `init`, as whatever
 * needs a store: `ERR_CLOSED`; a definition that a `reset` dropped: `ERR_UNKNOWN_EVENT`; else it throws as `Store.run` does.
 * @example
 * init(session)
 * run(Created, { sessionID: "ses_1", title: "Untitled" }).seq // → 0
 */
export function run<D extends Definition>(
  definition: D,
  data: StandardSchemaV1.InferInput<D["schema"]>,
  options?: RunOptions,
): Event<D> {
  const store = running()
  return store.run(storedOf(definition), data, options) as Event<D>
}

/**
 * Replays one event or log item; see {@link replayAll}.
 * @example
 * init(session)
 * const event = { id: "evt_1", type: "session.created.1", aggregateID: "a", seq: 0, data: { sessionID: "a", title: "b" } }
 * replay(event) // → { aggregateID: "a", applied: 1, duplicate: 0, seq: 0 }
 */
export function replay(event: SerializedEvent | LogItem, options?: ReplayOptions): Replayed {
  const [result] = replayAll([event], options)
  return result as Replayed
}

/**
 * Replays events of any aggregates in one transaction; one result an aggregate, in order of appearance. Aggregates
 * that somebody other than `ownerID` owns are skipped, and their results say so; anything else that is wrong throws,
 * as from `Store.replayAll`, and then nothing has changed.
 * @example
 * const store = init(session)
 * run(Created, { sessionID: "ses_1", title: "Untitled" })
 * replayAll(store.read("ses_1")) // → [{ aggregateID: "ses_1", applied: 0, duplicate: 1, seq: 0 }]
 */
export function replayAll(events: Iterable<SerializedEvent | LogItem>, options?: ReplayOptions): Replayed[] {
  const store = running()
  const { ownerID, publish = false } = checkOptions("replay", options, ["publish", "ownerID"])
  if (typeof (events as Partial<typeof events> | null | undefined)?.[Symbol.iterator] !== "function") {
    throw invalidArgument(`replayAll needs an iterable of events, not ${show(events)}`)
  }
  if (ownerID === undefined) return store.replayAll(events, { publish })
  const items = [...events]
  // One transaction, so that nobody claims an aggregate between the look at its owner and the replay.
  return store.transaction(() => {
    const skipped = foreign(store, items, ownerID)
    const rest = items.filter((item) => !skipped.has(aggregateOf(item)))
    const replayed = rest.length === 0 ? [] : store.replayAll(rest, { publish, owner: ownerID })
    const results = new Map<unknown, Replayed>(replayed.map((result) => [result.aggregateID, result]))
    return [...new Set(items.map(aggregateOf))].flatMap((id) => results.get(id) ?? skipped.get(id) ?? [])
  })
}

/**
 * Erases an aggregate's events, as `Store.remove` does; its sequence is never reused.
 * @example
 * const store = init(session)
 * run(Created, { sessionID: "ses_1", title: "Untitled" })
 * remove("ses_1")
 * store.read("ses_1") // → []
 */
export function remove(aggregateID: string): void {
  running().remove(aggregateID)
}

/**
 * Makes `ownerID` the only one that may write the aggregate, or with null nobody in particular: see `Store.claim`.
 * @example
 * init(session)
 * claim("ses_1", "laptop") // → { owner: "laptop", epoch: 1 }
 */
export function claim(aggregateID: string, ownerID: string | null): { owner: string | null; epoch: number } {
  return running().claim(aggregateID, ownerID)
}

/**
 * Hears every event after its commit, with its definition; returns the undo. Subscribing before `init` is fine. A listener
 * that is no function: `ERR_INVALID_ARGUMENT`.
 * @example
 * const undo = subscribeAll(({ def, event }) => console.log(def.type, event.seq))
 * init(session)
 * run(Created, { sessionID: "ses_1", title: "Untitled" }) // prints session.created 0
 */
export function subscribeAll(listener: (delivery: Delivery) => void): () => void {
  if (typeof listener !== "function") throw invalidArgument(`subscribeAll needs a listener, not ${show(listener)}`)
  const subscription: Subscription = { listener, undo: undefined }
  subscriptions.add(subscription)
  if (current !== undefined) attach(subscription, current.store)
  return () => {
    subscriptions.delete(subscription)
    subscription.undo?.()
  }
}

/**
 * One JSON Schema (draft 2020-12) for each definition's serialized events, titled `type.version`. `data` is described
 * where the schema's library offers Standard JSON Schema, and is any object where it does not.
 * @example Array.from(payloads(), ({ title }) => title).includes(`${Renamed.type}.1`) // → true
 */
export function* payloads(): Generator<Record<string, unknown>, void, undefined> {
  for (const [name, { schema }] of registry) yield payloadSchema(name, schema)
}

/**
 * The type as it is stored and sent: `versionedType("session.updated", 2)` is `session.updated.2`.
 * @example
 * versionedType("session.updated", 2) // → "session.updated.2"
 * versionedType("session.updated") // → "session.updated"
 */
export function versionedType<Type extends string>(type: Type): Type
export function versionedType<Type extends string, Version extends number>(
  type: Type,
  version: Version,
): `${Type}.${Version}`
export function versionedType(type: string, version?: number): string {
  return version === undefined ? type : `${type}.${version}`
}

/**
 * Back to the state before the first `define`: closes the store that `init` opened (a store that was given stays
 * open), and drops definitions, projectors and listeners. Refused inside a transaction (`ERR_IN_TRANSACTION`) and a projector
 * (`ERR_IN_PROJECTOR`).
 * @example
 * init(session)
 * reset()
 * registry.size // → 0
 */
export function reset(): void {
  // First, because it may refuse: inside a transaction or projector everything stays as it is.
  if (current?.owned) current.store.close()
  for (const { undo } of subscriptions) undo?.()
  current = undefined
  given = undefined
  definitions = createRegistry()
  subscriptions.clear()
  stored.clear()
  families.clear()
  registry.clear()
}

/**
 * The same functions as one object, for code that imports the namespace by name.
 * @example
 * SyncEvent.init(session)
 * SyncEvent.run(Created, { sessionID: "ses_1", title: "Untitled" }).seq // → 0
 */
export const SyncEvent = {
  define,
  project,
  init,
  openOptions,
  run,
  replay,
  replayAll,
  remove,
  claim,
  subscribeAll,
  payloads,
  versionedType,
  registry,
  reset,
} as const

/** Whatever its transactions receive: nothing here looks at it. */
type AnyStore = Pick<
  Store<unknown>,
  "run" | "replayAll" | "transaction" | "remove" | "claim" | "owner" | "sequence" | "subscribeAll" | "close"
>

interface Subscription {
  readonly listener: (delivery: Delivery) => void
  undo: (() => void) | undefined
}

// Session code in this style names no store: this module holds the one it means.
let definitions = createRegistry()
let current: { store: AnyStore; owned: boolean } | undefined
let given: ProjectionOptions | undefined
const stored = new Map<Definition, StoredDefinition>()
const subscriptions = new Set<Subscription>()

/** The definitions of each type since the last reset: its versions belong together, also after the next one. */
const families = new Map<string, Definition[]>()

interface Recipe {
  /** What its first `define` stored: a barrier is known by its type, which no reset changes. */
  readonly first: StoredDefinition
  /** Defines it in the present registry. */
  readonly again: () => StoredDefinition
  /** All versions of its type that were defined between the same two resets. */
  readonly family: readonly Definition[]
}

/** How to define again what was defined before a reset. */
const recipes = new WeakMap<Definition, Recipe>()

function remember(definition: Definition, storedDefinition: StoredDefinition): void {
  stored.set(definition, storedDefinition)
  registry.set(storedDefinition.name, definition)
}

/** With its barriers as they are stored. */
function storedKey(key: Parameters<typeof define>[0]["compactKey"]): Parameters<typeof defineStored>[0]["compactKey"] {
  if (typeof key !== "object" || !Array.isArray(key?.barriers)) return key as string | undefined
  return { ...key, barriers: key.barriers.map((barrier: Definition) => recipeOf("compactKey", barrier).first) }
}

function takenUp(definition: Definition): StoredDefinition {
  const known = stored.get(definition)
  if (known !== undefined) return known
  const recipe = recipeOf("A projector", definition)
  const again = recipe.again()
  remember(definition, again)
  // Older versions have no projector of their own where an upcast leads on from them.
  for (const version of recipe.family) {
    if (!registry.has(versionedType(version.type, version.version))) takenUp(version)
  }
  return again
}

function checkPairs(pairs: ProjectionOptions["projectors"]): ProjectionOptions["projectors"] {
  if (Array.isArray(pairs) && pairs.every((pair) => Array.isArray(pair) && (pair.length === 2 || pair.length === 3)))
    return pairs
  throw invalidArgument(`projectors must be an array of what project returns, not ${show(pairs)}`)
}

function recipeOf(what: string, definition: Definition): Recipe {
  const recipe = recipes.get(definition)
  if (recipe !== undefined) return recipe
  throw invalidArgument(`${what} needs a definition of SyncEvent, not ${show(definition)}`)
}

function storedOf(definition: Definition): StoredDefinition {
  const known = stored.get(definition)
  if (known !== undefined) return known
  const name = versionedType(String(definition?.type), Number(definition?.version))
  throw new SyncError("ERR_UNKNOWN_EVENT", `Unknown event type "${name}": SyncEvent does not hold it`, { type: name })
}

function running(): AnyStore {
  if (current === undefined) throw new SyncError("ERR_CLOSED", "SyncEvent has no store: call init first")
  return current.store
}

function opened<Tx>(options: InitOptions<Tx> & ProjectionOptions & { path: string }): Store<Tx> {
  const { path, store: _store, projectors, convertEvent, ...others } = options
  const events = openOptions({ projectors, ...(convertEvent && { convertEvent }) })
  // Whether `query` is there is the caller's matter: without it, Tx is the database.
  return open(path, { ...others, ...events } as OpenOptions<Tx> & { query: (db: Database) => Tx })
}

/** A store that is open already: what init names must be what it was opened with. */
function adopted<Tx>(options: Partial<ProjectionOptions> & { store: Store<Tx> }): Store<Tx> {
  const { store, projectors = [], convertEvent } = checkOptions("init", options, STORE_OPTIONS)
  checkPairs(projectors)
  const known = new Map(given?.projectors.map((pair) => [pair[0], pair]))
  const strange = projectors.find(([definition, apply, how]) => {
    const same = known.get(definition)
    return same?.[1] !== apply || checkProjectOptions(same[2]) !== checkProjectOptions(how)
  })
  if (given === undefined || strange !== undefined || (convertEvent && convertEvent !== given.convertEvent)) {
    const what = strange === undefined ? "its options" : versionedType(strange[0].type, strange[0].version)
    throw new SyncError(
      "ERR_INVALID_ARGUMENT",
      `The store does not know ${what}: open it with SyncEvent.openOptions({ projectors, convertEvent }), or give init a path`,
    )
  }
  if (OpenStore.registryOf(store) !== definitions) {
    throw invalidArgument("The store was opened with another registry: open it with SyncEvent.openOptions")
  }
  return store
}

const OPTIONS = ["type", "version", "aggregate", "schema", "busSchema", "upcast", "compactKey", "dedupe"] as const
const STORE_OPTIONS = ["store", "projectors", "convertEvent"]

function attach(subscription: Subscription, store: AnyStore): void {
  subscription.undo = store.subscribeAll((event) => {
    const def = registry.get(versionedType(event.type, event.version))
    // Ephemeral events are not in this registry. The listener's own result goes back, so that a rejected promise is reported like any other failure.
    return def && subscription.listener({ def, event: event as PublishedEvent })
  })
}
