import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec"
import {
  createRegistry,
  define as defineStored,
  open,
  project as projectStored,
  SyncError,
  type Database,
  type DefineOptions,
  type Definition as StoredDefinition,
  type Event as StoredEvent,
  type LogItem,
  type OpenOptions,
  type Projector,
  type PublishedEvent,
  type ReplayResult,
  type SerializedEvent,
  type Store,
} from "./index"

/** One version of one type of event, as session code declares it at module level. */
export interface Definition<
  Type extends string = string,
  Schema extends StandardSchemaV1 = StandardSchemaV1,
  Properties extends StandardSchemaV1 = StandardSchemaV1,
> {
  /** Unversioned: `session.updated`. */
  readonly type: Type
  /** From 1. */
  readonly version: number
  /** The field of the data that holds the aggregate's id. */
  readonly aggregate: string
  readonly schema: Schema
  /** What listeners receive: `busSchema` where it was given, else `schema`. */
  readonly properties: Properties
}

/** An event of a definition: `data` is the schema's input. */
export type Event<D extends Definition = Definition> = StoredEvent<StandardSchemaV1.InferInput<D["schema"]>>

/** What a projector does: `data` is the schema's output. `Tx` is `store.db`, or what `query` made of it. */
export type Apply<D extends Definition = Definition, Tx = Database> = (
  tx: Tx,
  data: StandardSchemaV1.InferOutput<D["schema"]>,
  event: Event<D>,
) => void

/** A definition and its projector, as `project` returns them. */
export type Projection<D extends Definition = Definition, Tx = Database> = [definition: D, apply: Apply<D, Tx>]

/**
 * A projection of any definition. Parameters compare the other way round, so `never` takes them all; `any` for `tx`
 * leaves a projector that is written in the list itself the type that `project` gives it.
 */
type AnyProjection = readonly [definition: Definition, apply: (tx: any, data: never, event: never) => void]

/** What an event means to this process: its projections, and how its data becomes the `properties` of listeners. */
export interface ProjectionOptions {
  projectors: readonly AnyProjection[]
  /** Default: `properties` are the data. */
  convertEvent?: NonNullable<OpenOptions["convertEvent"]>
}

/** `init` opens `path` itself, with any other option of `open`, or takes a store that is open already. */
export type InitOptions<Tx = Database> = PathOptions<Tx> | StoreOptions<Tx>

type PathOptions<Tx> = ProjectionOptions & { path: string; store?: undefined } & Omit<
    OpenOptions<Tx>,
    "projectors" | "registry" | "convertEvent"
  >

type StoreOptions<Tx> = Partial<ProjectionOptions> & { store: Store<Tx> }

export interface ReplayOptions {
  /** Default false. */
  publish?: boolean
  /** Claims what nobody owns; aggregates of another owner are skipped. Default: nothing is checked or claimed. */
  ownerID?: string
}

/** A replay's outcome for one aggregate. */
export interface Replayed extends ReplayResult {
  /** How many events were skipped because `owner` owns the aggregate; absent where none were. */
  skipped?: number
  owner?: string
}

/** Every definition by `type.version`. */
export const registry = new Map<string, Definition>()

/**
 * Defines one version of a type of event. After `init` it throws `ERR_FROZEN`, the same type and version twice
 * `ERR_DUPLICATE_DEFINITION`.
 */
export function define<
  const Type extends string,
  Schema extends StandardSchemaV1,
  BusSchema extends StandardSchemaV1 = Schema,
>(
  options: Pick<
    DefineOptions<Type, Schema, BusSchema>,
    "type" | "version" | "aggregate" | "schema" | "busSchema" | "upcast"
  >,
): Definition<Type, Schema, BusSchema> {
  const { type, version, aggregate, busSchema } = options
  const schema: Schema = options.schema
  const stored = defineStored<Type, Schema, BusSchema>({ ...options, registry: definitions })
  const properties = (busSchema ?? schema) as BusSchema
  const definition = Object.freeze({ type, version, aggregate: aggregate as string, schema, properties })
  recipes.set(definition, (registry) => defineStored<Type, Schema, BusSchema>({ ...options, registry }))
  remember(definition, stored)
  return definition
}

/** Pairs a definition with its projector: synchronous, deterministic, and without running events of its own. */
export function project<D extends Definition, Tx = Database>(definition: D, apply: Apply<D, Tx>): Projection<D, Tx> {
  return [definition, apply]
}

/**
 * Opens the store that `run`, `replay` and the rest use, and freezes the definitions. Definitions that a `reset`
 * dropped are taken up again where a projector names them. Initializing twice: `ERR_FROZEN`.
 *
 * With `store`, one that was opened with {@link openOptions}; its owner closes it.
 */
export function init<Tx = Database>(options: InitOptions<Tx>): Store<Tx> {
  if (current !== undefined) {
    throw new SyncError("ERR_FROZEN", "SyncEvent has been frozen by an earlier init: call reset first")
  }
  const store = options.store === undefined ? opened(options) : adopted(options)
  current = { store, owned: options.store === undefined }
  for (const subscription of subscriptions) attach(subscription, store)
  return store
}

/**
 * What a store of the caller's own needs to know of these events:
 * `init({ store: open("app.db", { ...openOptions({ projectors }), durability: "full" }) })`.
 */
export function openOptions(
  options: ProjectionOptions,
): Pick<OpenOptions, "registry" | "convertEvent"> & { projectors: Projector<unknown>[] } {
  const projectors = options.projectors.map(([definition, apply]) =>
    projectStored(takenUp(definition), apply as Apply<Definition, unknown>),
  )
  given = options
  const { convertEvent } = options
  return { registry: definitions, projectors, ...(convertEvent && { convertEvent }) }
}

/** Records an event: assigns its seq, projects, commits, and publishes unless `publish` is false. */
export function run<D extends Definition>(
  definition: D,
  data: StandardSchemaV1.InferInput<D["schema"]>,
  options: { publish?: boolean } = {},
): Event<D> {
  const store = running()
  return store.run(storedOf(definition), data, options) as Event<D>
}

/** Replays one event; see {@link replayAll}. */
export function replay(event: SerializedEvent | LogItem, options: ReplayOptions = {}): Replayed {
  const [result] = replayAll([event], options)
  return result as Replayed
}

/**
 * Replays events of any aggregates in one transaction; one result an aggregate, in order of appearance. Aggregates
 * that somebody other than `ownerID` owns are skipped, and their results say so; anything else that is wrong throws,
 * and then nothing has changed.
 */
export function replayAll(events: Iterable<SerializedEvent | LogItem>, options: ReplayOptions = {}): Replayed[] {
  const store = running()
  const { ownerID, publish = false } = options
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

/** Erases an aggregate's events; its sequence is never reused. */
export function remove(aggregateID: string): void {
  running().remove(aggregateID)
}

/** Makes `ownerID` the only one that may write the aggregate, or with null nobody in particular. */
export function claim(aggregateID: string, ownerID: string | null): { owner: string | null; epoch: number } {
  return running().claim(aggregateID, ownerID)
}

/**
 * Hears every event after its commit, with its definition; returns the undo. Subscribing before `init` is fine.
 *
 * @example Publishing every event on a bus that exists already, under its unversioned type:
 * ```ts
 * import { SyncEvent } from "syncline/sync-event"
 * import { Bus } from "./bus"
 *
 * export function republish(): () => void {
 *   return SyncEvent.subscribeAll(({ def, event }) => {
 *     Bus.publish({ type: def.type, properties: event.properties })
 *   })
 * }
 * ```
 */
export function subscribeAll(listener: (delivery: Delivery) => void): () => void {
  const subscription: Subscription = { listener, undo: undefined }
  subscriptions.add(subscription)
  if (current !== undefined) attach(subscription, current.store)
  return () => {
    subscriptions.delete(subscription)
    subscription.undo?.()
  }
}

/** What `subscribeAll` delivers. */
export interface Delivery {
  def: Definition
  event: PublishedEvent
}

/**
 * One JSON Schema (draft 2020-12) for each definition's serialized events, titled `type.version`. `data` is described
 * where the schema's library offers Standard JSON Schema, and is any object where it does not.
 */
export function* payloads(): Generator<Record<string, unknown>, void, undefined> {
  for (const [name, { schema }] of registry) {
    yield {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      title: name,
      type: "object",
      properties: {
        id: { type: "string" },
        type: { const: name },
        seq: { type: "integer", minimum: 0, maximum: 2 ** 32 - 1 },
        aggregateID: { type: "string", minLength: 1 },
        data: dataSchema(name, schema),
        created: { type: "integer" },
        metadata: { type: "object" },
      },
      required: ["id", "type", "seq", "aggregateID", "data"],
    }
  }
}

/** The type as it is stored and sent: `versionedType("session.updated", 2)` is `session.updated.2`. */
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
 * open), and drops definitions, projectors and listeners.
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
  registry.clear()
}

/** The same functions as one object, for code that imports the namespace by name. */
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

// Session code in this style defines at module level and names no store: this module holds the one it means.
let definitions = createRegistry()
let current: { store: AnyStore; owned: boolean } | undefined
let given: ProjectionOptions | undefined
const stored = new Map<Definition, StoredDefinition>()
const subscriptions = new Set<Subscription>()

/** How to define again, in a new registry, what was defined before a reset. */
const recipes = new WeakMap<Definition, (registry: typeof definitions) => StoredDefinition>()

function remember(definition: Definition, storedDefinition: StoredDefinition): void {
  stored.set(definition, storedDefinition)
  registry.set(storedDefinition.name, definition)
}

function takenUp(definition: Definition): StoredDefinition {
  const known = stored.get(definition)
  if (known !== undefined) return known
  const recipe = recipes.get(definition)
  if (recipe === undefined) throw new SyncError("ERR_INVALID_ARGUMENT", "A projector needs a definition of SyncEvent")
  const again = recipe(definitions)
  remember(definition, again)
  return again
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

function opened<Tx>(options: PathOptions<Tx>): Store<Tx> {
  const { path, store: _store, projectors, convertEvent, ...others } = options
  const events = openOptions({ projectors, ...(convertEvent && { convertEvent }) })
  return open(path, { ...others, ...events } as OpenOptions<Tx>)
}

/** A store that is open already: what init names must be what it was opened with. */
function adopted<Tx>(options: StoreOptions<Tx>): Store<Tx> {
  const { store, projectors = [], convertEvent } = options
  const known = new Map(given?.projectors)
  const strange = projectors.find(([definition, apply]) => known.get(definition) !== apply)
  if (given === undefined || strange !== undefined || (convertEvent && convertEvent !== given.convertEvent)) {
    const what = strange === undefined ? "its options" : versionedType(strange[0].type, strange[0].version)
    throw new SyncError(
      "ERR_INVALID_ARGUMENT",
      `The store does not know ${what}: open it with SyncEvent.openOptions({ projectors, convertEvent }), or give init a path`,
    )
  }
  return store
}

function attach(subscription: Subscription, store: AnyStore): void {
  subscription.undo = store.subscribeAll((event) => {
    const def = registry.get(versionedType(event.type, event.version))
    // The listener's own result goes back, so that a rejected promise is reported like any other failure.
    return def && subscription.listener({ def, event })
  })
}

function foreign(
  store: AnyStore,
  items: readonly (SerializedEvent | LogItem)[],
  ownerID: string,
): ReadonlyMap<unknown, Replayed> {
  const skipped = new Map<unknown, Replayed>()
  const own = new Set<string>()
  for (const item of items) {
    const aggregateID = aggregateOf(item)
    if (typeof aggregateID !== "string" || aggregateID === "" || own.has(aggregateID)) continue
    const known = skipped.get(aggregateID)
    const owner = known?.owner ?? store.owner(aggregateID)?.owner ?? undefined
    if (owner === undefined || owner === ownerID) {
      own.add(aggregateID)
      continue
    }
    const seq = known?.seq ?? store.sequence(aggregateID)
    skipped.set(aggregateID, {
      aggregateID,
      applied: 0,
      duplicate: 0,
      seq,
      skipped: (known?.skipped ?? 0) + 1,
      owner,
    })
  }
  return skipped
}

/** Of whatever the caller passed: the replay itself refuses what is malformed, and names its index. */
function aggregateOf(item: SerializedEvent | LogItem): unknown {
  const envelope = item as { event?: { aggregateID?: unknown }; aggregateID?: unknown } | null | undefined
  return envelope?.aggregateID ?? envelope?.event?.aggregateID
}

/** The `$id` makes the references within the data's schema relative to it, wherever it stands. */
function dataSchema(name: string, schema: StandardSchemaV1): Record<string, unknown> {
  const { jsonSchema } = schema["~standard"] as Partial<StandardJSONSchemaV1.Props>
  try {
    const described = jsonSchema?.input({ target: "draft-2020-12" })
    if (described !== undefined) return { ...described, $id: `urn:sync-event:${encodeURIComponent(name)}` }
  } catch {
    // Converters throw at what JSON Schema cannot express.
  }
  return { type: "object" }
}
