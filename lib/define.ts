import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec"
import {
  MAX_TYPE_BYTES,
  checkBoolean,
  checkChoice,
  checkInteger,
  checkName,
  checkOptions,
  exceeds,
  tooLarge,
} from "./argument"
import { SyncError, invalidArgument, show } from "./errors"
import type { AggregateField, JsonInput } from "./schema"

/**
 * One version of one type of event.
 * @example
 * const described = ({ name, aggregate }: Definition) => `${name} by ${aggregate}`
 * described(Renamed) // → "session.renamed.1 by sessionID"
 */
export interface Definition<
  Type extends string = string,
  Schema extends StandardSchemaV1 = StandardSchemaV1,
  BusSchema extends StandardSchemaV1 | undefined = StandardSchemaV1 | undefined,
  Ephemeral extends boolean = false,
> {
  /** Unversioned: `session.updated`. */
  readonly type: Type
  /** From 1. */
  readonly version: number
  /** `type.version`, as it is stored and sent. */
  readonly name: string
  /** The field of the data that holds the aggregate's id. */
  readonly aggregate: string
  /** Checks the data of `run` and of replay; its input is what is stored, its output what projectors receive. */
  readonly schema: Schema
  /** Types the `properties` that listeners receive; nothing is validated with it. */
  readonly busSchema: BusSchema
  /** Never stored: published only. */
  readonly ephemeral: Ephemeral
  /** By the older version that each takes; see `DefineOptions.upcast`. */
  readonly upcast: Readonly<Record<number, Upcast>> | undefined
  /** "none": recorded and published, and deliberately not projected. */
  readonly projector: "none" | undefined
  /** By which later events supersede earlier ones; see `DefineOptions.compactKey`. */
  readonly compactKey: CompactKey | undefined
  /** What may differ where a run says nothing new; see `DefineOptions.dedupe`. */
  readonly dedupe: readonly string[] | undefined
  /** Only stores that were opened with this registry know the definition. */
  readonly registry: Registry
}

/**
 * Which value of an event's data tells what it is about, and what ends that value's life.
 * @example
 * const compactKey: CompactKey = { path: "part.id", barriers: [Deleted] }
 * const schema = z.object({ sessionID: z.string(), part: z.object({ id: z.string(), text: z.string() }) })
 * const Updated = define({ type: "part.updated", version: 1, aggregate: "sessionID", schema, compactKey })
 * Updated.compactKey?.path // → "part.id"
 */
export interface CompactKey {
  /** Names inside data, joined by dots: `part.id`. The value is a string or a number; events without it are kept. */
  readonly path: string
  /** Definitions whose events, of any version, end every key's life, so that what comes after begins anew. */
  readonly barriers: readonly AnyDefinition[]
}

/**
 * A definition of any type whose events are recorded: what `run`, `remove` and `project` take.
 * @example
 * const recorded: AnyDefinition[] = [Created, Renamed]
 * recorded.map(({ type }) => type) // → ["session.created", "session.renamed"]
 */
export type AnyDefinition = Definition

/**
 * A definition of any type whose events are never stored: what `publish` takes.
 * @example
 * const told: EphemeralDefinition = Typing
 * told.ephemeral // → true
 */
export type EphemeralDefinition = Definition<string, StandardSchemaV1, StandardSchemaV1 | undefined, true>

/**
 * A definition of either kind: what `subscribe` takes.
 * @example
 * const heard: EitherDefinition[] = [Renamed, Typing]
 * heard.map(({ ephemeral }) => ephemeral) // → [false, true]
 */
export type EitherDefinition = AnyDefinition | EphemeralDefinition

/**
 * What is stored, sent and given to `run`.
 * @example const data: InputOf<typeof Renamed> = { sessionID: "ses_1", title: "Ship it" }
 */
export type InputOf<D extends EitherDefinition> = StandardSchemaV1.InferInput<D["schema"]>

/**
 * What projectors receive.
 * @example
 * const schema = z.object({ id: z.string(), tags: z.string().transform((text) => text.split(",")) })
 * const Tagged = define({ type: "note.tagged", version: 1, aggregate: "id", schema })
 * const output: OutputOf<typeof Tagged> = { id: "n1", tags: ["a", "b"] }
 */
export type OutputOf<D extends EitherDefinition> = StandardSchemaV1.InferOutput<D["schema"]>

/**
 * What listeners receive as `properties`.
 * @example const properties: PropertiesOf<typeof Renamed> = { sessionID: "ses_1", title: "Ship it" }
 */
export type PropertiesOf<D extends EitherDefinition> = D extends EitherDefinition
  ? D["busSchema"] extends StandardSchemaV1
    ? StandardSchemaV1.InferInput<D["busSchema"]>
    : InputOf<D>
  : never

/**
 * Turns the stored data of an older version into the input of the version it belongs to.
 * @example
 * const upcast: Upcast<{ id: string; title: string }> = (data) => ({ title: "Untitled", ...(data as { id: string }) })
 * upcast({ id: "n1" }) // → { id: "n1", title: "Untitled" }
 */
export type Upcast<Input = unknown> = {
  // A method's parameter is compared both ways: the caller says what the older version's data was.
  upcast(data: unknown): Input
}["upcast"]

/**
 * What `define` takes: one version of one type of event.
 * @example
 * const options: DefineOptions<"note.added", typeof schema, undefined> = {
 *   type: "note.added",
 *   version: 1,
 *   aggregate: "sessionID",
 *   schema,
 * }
 * define(options).version // → 1
 */
export interface DefineOptions<
  Type extends string,
  Schema extends StandardSchemaV1,
  BusSchema extends StandardSchemaV1 | undefined,
  Ephemeral extends boolean = boolean,
> {
  /** Unversioned, not empty; with its version at most 255 bytes. */
  type: Type
  /** From 1; the newest one of a type is the one that runs. */
  version: number
  /** A required string field of the schema's input. */
  aggregate: AggregateField<StandardSchemaV1.InferInput<Schema>>
  /** Any synchronous Standard Schema whose input JSON can carry. */
  schema: Schema & JsonInput<Schema>
  /** Types the `properties` that listeners receive, where `convertEvent` makes others than the data. Validates nothing. */
  busSchema?: BusSchema | undefined
  /** Never stored or projected: published only. Default false. */
  ephemeral?: Ephemeral | undefined
  /** By the older version they take: `{1: (data) => …}` on version 2 turns version 1 data into version 2's input. */
  upcast?: Readonly<Record<number, Upcast<StandardSchemaV1.InferInput<Schema>>>> | undefined
  /** "none": recorded and published, and not projected. Default: running it without a projector is `ERR_NO_PROJECTOR`. */
  projector?: "none" | undefined
  /**
   * Lets compaction drop what later events have superseded: of the events of this type and version with one key, between
   * two barriers, the first and the newest are kept. Opt in where each event carries the whole state of what its key names.
   * A string is a path without barriers. Default: every event is kept for good.
   */
  compactKey?: string | { path: string; barriers?: readonly AnyDefinition[] | undefined } | undefined
  /**
   * Spares what says nothing new: a run whose data equals the newest event of its `compactKey`, since the last barrier, but
   * for these paths (names inside data, joined by dots; none: all of it must be equal) stores nothing, projects nothing,
   * publishes nothing, and returns that event with `unchanged: true`. The JSON texts are compared, so that keys in
   * another order are a difference; metadata is not looked at. Replay applies every event. Without `compactKey`:
   * `ERR_INVALID_ARGUMENT`. Default: every run is stored.
   */
  dedupe?: readonly string[] | undefined
  /** Default: the one registry of the process. */
  registry?: Registry | undefined
}

/**
 * Defines one version of a type of event. The same type and version twice: `ERR_DUPLICATE_DEFINITION`; into a registry
 * that an open store uses: `ERR_FROZEN`; a type over 255 bytes: `ERR_TOO_LARGE`; anything else that is wrong:
 * `ERR_INVALID_ARGUMENT`.
 * @example
 * const Added = define({
 *   type: "note.added",
 *   version: 1,
 *   aggregate: "noteID", // a required string of the schema's input
 *   schema: z.object({ noteID: z.string(), text: z.string() }),
 * })
 * Added.name // → "note.added.1"
 */
export function define<
  const Type extends string,
  Schema extends StandardSchemaV1,
  BusSchema extends StandardSchemaV1 | undefined = undefined,
  Ephemeral extends boolean = false,
>(options: DefineOptions<Type, Schema, BusSchema, Ephemeral>): Definition<Type, Schema, BusSchema, Ephemeral> {
  const given = checkOptions("define", options, OPTIONS)
  const { type, version, schema, busSchema, upcast, projector, registry = defaultRegistry } = given
  const name = versionedName(type, version)
  const aggregate = checkName(`define ${name}: aggregate`, given.aggregate)
  checkSchema(`define ${name}: schema`, schema)
  if (busSchema !== undefined) checkSchema(`define ${name}: busSchema`, busSchema)
  checkAggregateField(name, aggregate, schema)
  if (upcast !== undefined) checkUpcast(name, version, upcast)
  if (projector !== undefined) checkChoice(`define ${name}: projector`, projector, ["none"], "none")
  if (!(registry instanceof Registry)) throw invalidArgument(`define ${name}: registry must come from createRegistry()`)
  const definition: Definition<Type, Schema, BusSchema, Ephemeral> = Object.freeze({
    type,
    version,
    name,
    aggregate,
    schema,
    busSchema: busSchema as BusSchema,
    ephemeral: checkBoolean(`define ${name}: ephemeral`, given.ephemeral, false) as Ephemeral,
    upcast: upcast === undefined ? undefined : Object.freeze({ ...upcast }),
    projector,
    compactKey: checkCompactKey(name, given.compactKey, given.ephemeral),
    dedupe: checkDedupe(name, given.dedupe, given.compactKey),
    registry,
  })
  registry.add(definition as EitherDefinition)
  return definition
}

/**
 * An empty registry, for stores that should not see each other's definitions.
 * @example
 * const registry = createRegistry()
 * define({ type: "note.added", version: 1, aggregate: "id", schema: z.object({ id: z.string() }), registry })
 * registry.definitions.has("note.added.1") // → true
 */
export function createRegistry(): Registry {
  return new Registry()
}

/**
 * The definitions that a store knows. While a store that uses it is open, it is frozen.
 * @example
 * const registry: Registry = createRegistry()
 * const notes = open(":memory:", { registry })
 * registry.frozen // → true
 */
export class Registry {
  readonly #definitions = new Map<string, EitherDefinition>()
  readonly #newest = new Map<string, EitherDefinition>()
  readonly #leases = new Set<Lease>()
  readonly #abandoned = new FinalizationRegistry<Lease>((lease) => this.release(lease))

  /** By `type.version`, in the order in which they were defined. */
  get definitions(): ReadonlyMap<string, EitherDefinition> {
    return this.#definitions
  }

  /** Whether an open store uses it, so that defining throws `ERR_FROZEN`. */
  get frozen(): boolean {
    return this.#leases.size > 0
  }

  /** @internal */
  add(definition: EitherDefinition): void {
    const { name, type, version } = definition
    if (this.frozen) {
      throw new SyncError("ERR_FROZEN", `Cannot define ${name}: its registry has been frozen by an open store`, {
        type: name,
      })
    }
    if (this.#definitions.has(name)) {
      throw new SyncError("ERR_DUPLICATE_DEFINITION", `${name} is defined already in this registry`, { type: name })
    }
    this.#definitions.set(name, definition)
    const newest = this.#newest.get(type)
    if (newest === undefined || newest.version < version) this.#newest.set(type, definition)
  }

  /** @internal The newest version of an unversioned type. */
  newest(type: string): EitherDefinition | undefined {
    return this.#newest.get(type)
  }

  /** @internal Freezes until released. */
  retain(): Lease {
    const lease: Lease = { retained: true }
    this.#leases.add(lease)
    return lease
  }

  /** @internal Releases by itself when the store is collected without having been closed. */
  releaseWith(store: object, lease: Lease): void {
    this.#abandoned.register(store, lease, lease)
  }

  /** @internal */
  release(lease: Lease): void {
    this.#leases.delete(lease)
    this.#abandoned.unregister(lease)
  }
}

/** @internal One open store's hold on a registry. */
export interface Lease {
  readonly retained: true
}

/** The registry of `define` and `open` where none is named: the library's only state beside its stores. */
export const defaultRegistry = new Registry()

const OPTIONS = [
  "type",
  "version",
  "aggregate",
  "schema",
  "busSchema",
  "ephemeral",
  "upcast",
  "projector",
  "compactKey",
  "dedupe",
  "registry",
] as const

function versionedName(type: string, version: number): string {
  checkName("define: type", type)
  checkInteger(`define ${show(type)}: version`, version, 1)
  const name = `${type}.${version}`
  if (exceeds(name, MAX_TYPE_BYTES)) throw tooLarge(`The type ${show(name)}`, name, MAX_TYPE_BYTES, name)
  return name
}

function checkSchema(name: string, schema: StandardSchemaV1): void {
  const candidate = (typeof schema === "object" || typeof schema === "function") && schema !== null
  if (candidate && typeof schema["~standard"]?.validate === "function") return
  throw invalidArgument(`${name} must be a Standard Schema (zod, valibot, arktype, effect, …), not ${show(schema)}`)
}

function checkUpcast(name: string, version: number, upcast: Readonly<Record<number, Upcast>>): void {
  if (typeof upcast !== "object" || upcast === null) throw invalidArgument(`define ${name}: upcast must be an object`)
  for (const [from, fn] of Object.entries(upcast)) {
    const older = Number(from)
    if (!Number.isSafeInteger(older) || older < 1 || older >= version || typeof fn !== "function") {
      throw invalidArgument(`define ${name}: upcast must map versions from 1 through ${version - 1} to functions`)
    }
  }
}

function checkCompactKey(
  name: string,
  given: string | { path: string; barriers?: readonly AnyDefinition[] | undefined } | undefined,
  ephemeral: boolean | undefined,
): CompactKey | undefined {
  if (given === undefined) return undefined
  if (ephemeral) throw invalidArgument(`define ${name}: compactKey is for events that are stored`)
  const where = `define ${name}: compactKey`
  const { path, barriers = [] } =
    typeof given === "string" ? { path: given } : checkOptions(where, given, ["path", "barriers"])
  checkPath(`${where}.path`, path)
  if (!Array.isArray(barriers) || !barriers.every((barrier) => barrier?.registry instanceof Registry)) {
    throw invalidArgument(`${where}.barriers must be an array of definitions`)
  }
  return Object.freeze({ path, barriers: Object.freeze([...barriers]) })
}

/** Names inside data, joined by dots. */
function checkPath(name: string, path: string): void {
  if (checkName(name, path).split(".").includes("")) throw invalidArgument(`${name} has an empty name: ${show(path)}`)
}

function checkDedupe(
  name: string,
  given: readonly string[] | undefined,
  compactKey: unknown,
): readonly string[] | undefined {
  if (given === undefined) return undefined
  const where = `define ${name}: dedupe`
  if (compactKey === undefined) throw invalidArgument(`${where} needs a compactKey: the newest event of what?`)
  if (!Array.isArray(given)) throw invalidArgument(`${where} must be an array of paths, not ${show(given)}`)
  given.forEach((path, index) => checkPath(`${where}[${index}]`, path))
  return Object.freeze([...given])
}

/** The run-time side of `AggregateField`, for schemas that can describe themselves as JSON Schema. */
function checkAggregateField(name: string, aggregate: string, schema: StandardSchemaV1): void {
  const described = inputJsonSchema(schema)
  if (described === undefined || described["type"] !== "object") return
  const { properties, required, additionalProperties = false } = described
  if (typeof properties !== "object" || properties === null) return
  const field = Object.hasOwn(properties, aggregate) ? (properties as Record<string, unknown>)[aggregate] : undefined
  if (field === undefined) {
    if (additionalProperties !== false || "patternProperties" in described || "allOf" in described) return
    throw invalidArgument(`define ${name}: the schema's input has no field ${show(aggregate)} to name the aggregate`)
  }
  const type = (field as { type?: unknown }).type
  if (type !== undefined && ![type].flat().includes("string")) {
    throw invalidArgument(
      `define ${name}: the aggregate field ${show(aggregate)} must be a string in the schema's input`,
    )
  }
  if (!Array.isArray(required) || required.includes(aggregate) || "allOf" in described) return
  throw invalidArgument(`define ${name}: the aggregate field ${show(aggregate)} must be required in the schema's input`)
}

function inputJsonSchema(schema: StandardSchemaV1): Record<string, unknown> | undefined {
  const { jsonSchema } = schema["~standard"] as Partial<StandardJSONSchemaV1.Props>
  try {
    return jsonSchema?.input({ target: "draft-2020-12" })
  } catch {
    // Converters throw at what JSON Schema cannot express; then the types alone have checked the field.
    return undefined
  }
}
