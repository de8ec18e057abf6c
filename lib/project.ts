import { checkChoice, checkOptions } from "./argument"
import type { Database } from "./database"
import { Registry, type AnyDefinition, type EitherDefinition, type InputOf, type OutputOf, type Upcast } from "./define"
import { SyncError, failedConstraint, invalidArgument, locate, show, type ErrorCode, type ErrorFields } from "./errors"
import { PROJECTOR, native, type Registration } from "./native"
import type { Event } from "./payload"
import type { Synchronous } from "./schema"
import { Sql } from "./sql"
import type { Transactions } from "./transaction"

/**
 * The pair of a definition and what it does to the caller's tables.
 * @example
 * const projectors: Projector[] = [project(Deleted, sql`DELETE FROM session WHERE id = :aggregateID`)]
 * projectors[0]?.definition.name // → "session.deleted.1"
 */
export interface Projector<in Tx = Database> {
  /** Whose events it projects. */
  readonly definition: AnyDefinition
  /** Absent where the projector is SQL. */
  readonly apply: ((tx: Tx, data: never, event: Event<never>) => void) | undefined
  /** The statements of a SQL projector, in order; empty where it is a function. */
  readonly sql: readonly string[]
  /** See `ProjectOptions.onConstraint`. */
  readonly onConstraint: "throw" | "skip"
}

/**
 * What `project` takes.
 * @example
 * const options: ProjectOptions = { onConstraint: "skip" }
 * project(Created, sql`INSERT INTO session VALUES (:aggregateID, :data ->> '$.title')`, options).onConstraint // → "skip"
 */
export interface ProjectOptions {
  /**
   * What becomes of an event where a constraint of the tables (a foreign key, UNIQUE, NOT NULL, CHECK, a trigger's
   * RAISE(ABORT)) refuses what its projector does. "throw" (default): the error reaches the caller, and nothing is recorded.
   * "skip": what the projector did is taken back, the event is recorded and published all the same, and the store's
   * `onSkipped` hears of it after the commit.
   */
  onConstraint?: "throw" | "skip" | undefined
}

/**
 * Says how events of one definition change the caller's tables: a synchronous, deterministic function over
 * `data` (the schema's output), or SQL that runs in Rust. `tx` is the database, unless `open` has a `query`: then it is
 * what that makes, and its type is to be written: `(tx: Db, data) => …`. An ephemeral definition: `ERR_WRONG_KIND`; neither
 * a function nor `sql` statements, or wrong options: `ERR_INVALID_ARGUMENT`; a generator function: `ERR_ASYNC_PROJECTOR`.
 * @example
 * project(Deleted, (tx, { sessionID }) => void tx.prepare("DELETE FROM session WHERE id = ?").run(sessionID))
 * project(Deleted, sql`DELETE FROM session WHERE id = :aggregateID`) // the same, without a call into JavaScript
 */
export function project<D extends AnyDefinition>(
  definition: D,
  statements: Sql | readonly Sql[],
  options?: ProjectOptions,
): Projector<unknown>
export function project<D extends AnyDefinition, Tx = Database, Result = unknown>(
  definition: D,
  apply: ((tx: Tx, data: OutputOf<D>, event: Event<InputOf<D>>) => Result) & Synchronous<Result>,
  options?: ProjectOptions,
): Projector<Tx>
export function project(
  definition: AnyDefinition,
  how: Sql | readonly Sql[] | ((tx: never, data: never, event: Event<never>) => void),
  options?: ProjectOptions,
): Projector<never> {
  if (!(definition?.registry instanceof Registry)) {
    throw invalidArgument(`project needs a definition made by define, not ${show(definition)}`)
  }
  if (definition.ephemeral) {
    throw new SyncError("ERR_WRONG_KIND", `${definition.name} is ephemeral: it is never projected`, {
      type: definition.name,
    })
  }
  const onConstraint = checkProjectOptions(options)
  if (typeof how === "function") {
    if (/Generator/.test(Object.prototype.toString.call(how))) {
      const message = `The projector of ${definition.name} is a generator function: nothing in it would run`
      throw new SyncError("ERR_ASYNC_PROJECTOR", message, { type: definition.name })
    }
    return Object.freeze({ definition, apply: how, sql: [], onConstraint })
  }
  const statements: readonly unknown[] = how instanceof Sql ? [how] : Array.isArray(how) ? how : []
  if (statements.length === 0 || !statements.every((statement) => statement instanceof Sql)) {
    throw invalidArgument(`project ${definition.name} needs a function, or statements made by Syncline's sql tag`)
  }
  const texts = (statements as Sql[]).map((statement) => statement.text)
  return Object.freeze({ definition, apply: undefined, sql: texts, onConstraint })
}

/** @internal */
export function checkProjectOptions(options: ProjectOptions | undefined): "throw" | "skip" {
  const { onConstraint } = checkOptions("project", options, ["onConstraint"])
  return checkChoice("onConstraint", onConstraint, ["throw", "skip"], "throw")
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
  /** Where a constraint refuses what the projector does, the event is recorded all the same. */
  readonly skips: boolean
}

/**
 * Runs the projector of an event where it is a function; one in SQL runs with the native call that records. A constraint
 * that it failed on learns of the event, and ends the projector or, where the definition says so, only what it did.
 */
export function applyProjector(
  transactions: Transactions,
  { definition, apply, skips }: Target,
  tx: unknown,
  data: unknown,
  event: Event,
): void {
  if (apply === undefined) return
  const { handle } = transactions
  if (skips) native.projectorBegin(handle)
  try {
    transactions.projecting(definition.name, () => apply(tx as never, data as never, event as Event<never>))
  } catch (thrown) {
    const error = failedConstraint(thrown)
    if (error === undefined) throw thrown
    locate(error, "in the projector of", { type: definition.name, aggregateID: event.aggregateID, seq: event.seq })
    const index = skips ? native.projectorEnd(handle, false) : -1
    // -1, too, where SQLite has taken back the whole transaction.
    if (index < 0) throw thrown
    transactions.skip(index, { error, event })
    return
  }
  if (skips) native.projectorEnd(handle, true)
}

/** Keeps what the SQL projectors of the last native call skipped, to be told after the commit. */
export function holdSkipped(transactions: Transactions, eventOf: (index: number) => Event): void {
  const [pending, ...flat] = native.takeSkipped(transactions.handle)
  for (let at = 0; at < flat.length; at += 4) {
    const [index, code, message, fields] = flat.slice(at, at + 4) as [number, ErrorCode, string, string]
    const error = new SyncError(code, message, JSON.parse(fields) as ErrorFields)
    transactions.skip(pending + at / 4, { error, event: eventOf(index) })
  }
}

/** The recorded definitions of a registry with their projectors; a target's index names it to Rust. */
export class Projections {
  readonly targets: readonly Target[]
  readonly #indices = new Map<AnyDefinition, number>()

  /** Whether any projector in SQL skips. */
  readonly skipInSql: boolean

  constructor(
    private readonly registry: Registry,
    projectors: readonly Projector<never>[],
  ) {
    const given = byDefinition(registry, projectors)
    const recorded = [...registry.definitions.values()].filter((definition) => !definition.ephemeral)
    this.targets = recorded.map((definition) => target(registry, given, definition))
    this.skipInSql = this.targets.some(({ kind, skips }) => skips && kind === PROJECTOR.sql)
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
    return this.targets.map(({ definition, upcasts, kind, sql, skips }) => ({
      name: definition.name,
      aggregate: definition.aggregate,
      projector: kind,
      sql: [...sql],
      validate: validate || upcasts.length > 0 || kind === PROJECTOR.function,
      upcast: upcasts.length > 0,
      skips,
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

const missing = { kind: PROJECTOR.missing, apply: undefined, sql: [], skips: false }

function projection(
  given: Map<AnyDefinition, Projector<never>>,
  definition: AnyDefinition,
): Pick<Target, "kind" | "apply" | "sql" | "skips"> {
  const projector = given.get(definition)
  if (projector === undefined) {
    return definition.projector === "none" ? { ...missing, kind: PROJECTOR.none } : missing
  }
  const { apply, sql, onConstraint } = projector
  const skips = onConstraint === "skip"
  return { kind: apply === undefined ? PROJECTOR.sql : PROJECTOR.function, apply, sql, skips }
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
