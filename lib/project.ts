import type { Database } from "./database"
import { Registry, type AnyDefinition, type EitherDefinition, type InputOf, type OutputOf, type Upcast } from "./define"
import { SyncError, invalidArgument, show } from "./errors"
import { PROJECTOR, type Registration } from "./native"
import type { Event } from "./payload"
import type { Synchronous } from "./schema"
import { Sql } from "./sql"
import type { Transactions } from "./transaction"

/** The pair of a definition and what it does to the caller's tables. */
export interface Projector<in Tx = Database> {
  readonly definition: AnyDefinition
  /** Absent where the projector is SQL. */
  readonly apply: ((tx: Tx, data: never, event: Event<never>) => void) | undefined
  /** The statements of a SQL projector, in order; empty where it is a function. */
  readonly sql: readonly string[]
}

/**
 * Says how events of one definition change the caller's tables: a synchronous, deterministic function over
 * `data` (the schema's output), or SQL that runs in Rust. `tx` is the database, unless `open` has a `query`: then it is
 * what that makes, and its type is to be written: `(tx: Db, data) => …`. An ephemeral definition: `ERR_WRONG_KIND`; neither
 * a function nor `sql` statements: `ERR_INVALID_ARGUMENT`; a generator function: `ERR_ASYNC_PROJECTOR`.
 */
export function project<D extends AnyDefinition>(definition: D, statements: Sql | readonly Sql[]): Projector<unknown>
export function project<D extends AnyDefinition, Tx = Database, Result = unknown>(
  definition: D,
  apply: ((tx: Tx, data: OutputOf<D>, event: Event<InputOf<D>>) => Result) & Synchronous<Result>,
): Projector<Tx>
export function project(
  definition: AnyDefinition,
  how: Sql | readonly Sql[] | ((tx: never, data: never, event: Event<never>) => void),
): Projector<never> {
  if (!(definition?.registry instanceof Registry)) {
    throw invalidArgument(`project needs a definition made by define, not ${show(definition)}`)
  }
  if (definition.ephemeral) {
    throw new SyncError("ERR_WRONG_KIND", `${definition.name} is ephemeral: it is never projected`, {
      type: definition.name,
    })
  }
  if (typeof how === "function") {
    if (/Generator/.test(Object.prototype.toString.call(how))) {
      const message = `The projector of ${definition.name} is a generator function: nothing in it would run`
      throw new SyncError("ERR_ASYNC_PROJECTOR", message, { type: definition.name })
    }
    return Object.freeze({ definition, apply: how, sql: [] })
  }
  const statements: readonly unknown[] = how instanceof Sql ? [how] : Array.isArray(how) ? how : []
  if (statements.length === 0 || !statements.every((statement) => statement instanceof Sql)) {
    throw invalidArgument(`project ${definition.name} needs a function, or statements made by Syncline's sql tag`)
  }
  return Object.freeze({ definition, apply: undefined, sql: (statements as Sql[]).map((statement) => statement.text) })
}

/** What a store does with the events of one definition. */
export interface Target {
  /** As the event is stored. */
  readonly definition: AnyDefinition
  /** The definition whose schema and projector apply: the newest one where an older version is upcast. */
  readonly effective: AnyDefinition
  /** From the stored data to `effective`'s input; empty where they are the same version. */
  readonly upcasts: readonly Upcast[]
  readonly kind: (typeof PROJECTOR)[keyof typeof PROJECTOR]
  readonly apply: ((tx: never, data: never, event: Event<never>) => void) | undefined
  readonly sql: readonly string[]
}

/** Runs the projector of an event where it is a function; one in SQL runs with the native call that records. */
export function applyProjector(
  transactions: Transactions,
  { definition, apply }: Target,
  tx: unknown,
  data: unknown,
  event: Event,
): void {
  if (apply === undefined) return
  transactions.projecting(definition.name, () => apply(tx as never, data as never, event as Event<never>))
}

/** The recorded definitions of a registry with their projectors; a target's index names it to Rust. */
export class Projections {
  readonly targets: readonly Target[]
  readonly #indices = new Map<AnyDefinition, number>()

  constructor(
    private readonly registry: Registry,
    projectors: readonly Projector<never>[],
  ) {
    const given = byDefinition(registry, projectors)
    const recorded = [...registry.definitions.values()].filter((definition) => !definition.ephemeral)
    this.targets = recorded.map((definition) => target(registry, given, definition))
    recorded.forEach((definition, index) => this.#indices.set(definition, index))
  }

  /** The index of a definition that may be run, or the refusal that says why it may not. */
  runnable(definition: AnyDefinition): number {
    assertDefinition(definition)
    const { name } = definition
    if (definition.ephemeral) {
      throw new SyncError("ERR_WRONG_KIND", `${name} is ephemeral: it can be published, not run`, { type: name })
    }
    this.#assertNewest(definition)
    return this.#indices.get(definition) as number
  }

  /** Refuses a definition that may not be published. */
  assertPublishable(definition: EitherDefinition): void {
    assertDefinition(definition)
    const { name } = definition
    if (!definition.ephemeral) {
      throw new SyncError("ERR_WRONG_KIND", `${name} is recorded: run it, which publishes it too`, { type: name })
    }
    this.#assertNewest(definition)
  }

  #assertNewest(definition: EitherDefinition): void {
    const { name, type, version } = definition
    if (definition.registry !== this.registry) {
      throw new SyncError("ERR_UNKNOWN_EVENT", `Unknown event type "${name}": it belongs to another registry`, {
        type: name,
      })
    }
    const newest = this.registry.newest(type)
    if (newest === definition) return
    throw new SyncError("ERR_STALE_VERSION", `${name} is stale: ${newest?.name ?? type} is the version to run`, {
      type: name,
      expected: newest?.version ?? null,
      got: version,
    })
  }

  /** What Rust has to know. `validate`: replayed data passes a schema. */
  registrations(validate: boolean): Registration[] {
    return this.targets.map(({ definition, upcasts, kind, sql }) => ({
      name: definition.name,
      aggregate: definition.aggregate,
      projector: kind,
      sql: [...sql],
      validate: validate || upcasts.length > 0 || kind === PROJECTOR.function,
      upcast: upcasts.length > 0,
      compactPath: definition.compactKey?.path.split(".") ?? [],
      dedupe: definition.dedupe?.map((path) => path.split(".")),
      compactBarriers: [...new Set(definition.compactKey?.barriers.map((barrier) => barrier.type))],
    }))
  }
}

function assertDefinition(definition: EitherDefinition): void {
  if (definition?.registry instanceof Registry) return
  throw invalidArgument(`A definition made by define was expected, not ${show(definition)}`)
}

function byDefinition(
  registry: Registry,
  projectors: readonly Projector<never>[],
): Map<AnyDefinition, Projector<never>> {
  const given = new Map<AnyDefinition, Projector<never>>()
  projectors.forEach((projector, index) => {
    const definition = projector?.definition
    if (!(definition?.registry instanceof Registry))
      throw invalidArgument(`projectors[${index}] must come from project`)
    if (definition.registry !== registry) {
      throw invalidArgument(`projectors[${index}]: ${definition.name} belongs to another registry than this store`)
    }
    if (definition.projector === "none") {
      throw invalidArgument(`projectors[${index}]: ${definition.name} is defined with projector: "none"`)
    }
    if (given.has(definition)) throw invalidArgument(`projectors[${index}]: ${definition.name} has a projector already`)
    given.set(definition, projector)
  })
  return given
}

function target(registry: Registry, given: Map<AnyDefinition, Projector<never>>, definition: AnyDefinition): Target {
  const newest = registry.newest(definition.type) ?? definition
  // A type whose newest version is ephemeral has no projector to go on to.
  if (given.has(definition) || definition.projector === "none" || newest === definition || newest.ephemeral) {
    return { definition, effective: definition, upcasts: [], ...projection(given, definition) }
  }
  const upcasts = chain(registry, definition, newest)
  if (upcasts === undefined) return { definition, effective: definition, upcasts: [], ...missing }
  return { definition, effective: newest, upcasts, ...projection(given, newest) }
}

const missing = { kind: PROJECTOR.missing, apply: undefined, sql: [] }

function projection(
  given: Map<AnyDefinition, Projector<never>>,
  definition: AnyDefinition,
): Pick<Target, "kind" | "apply" | "sql"> {
  const projector = given.get(definition)
  if (projector === undefined) {
    return definition.projector === "none" ? { kind: PROJECTOR.none, apply: undefined, sql: [] } : missing
  }
  const { apply, sql } = projector
  return { kind: apply === undefined ? PROJECTOR.sql : PROJECTOR.function, apply, sql }
}

/** The upcasts from one version to another, each by the nearest later version that takes it further. */
function chain(registry: Registry, from: AnyDefinition, to: AnyDefinition): Upcast[] | undefined {
  const versions = [...registry.definitions.values()]
    .filter((definition) => definition.type === from.type)
    .toSorted((a, b) => a.version - b.version)
  const upcasts: Upcast[] = []
  let version = from.version
  while (version < to.version) {
    const next = versions.find((definition) => definition.version > version && definition.upcast?.[version])
    const upcast = next?.upcast?.[version]
    if (next === undefined || upcast === undefined) return undefined
    upcasts.push(upcast)
    version = next.version
  }
  return upcasts
}
