import type { StandardSchemaV1 } from "@standard-schema/spec"
import type { Database, Event as StoredEvent, OpenOptions, ProjectOptions, PublishedEvent, Store } from "./index"

/**
 * One version of one type of event, as session code declares it at module level.
 * @example
 * const described = ({ type, version }: Definition) => `${type} ${version}`
 * described(Renamed) // → "session.renamed 1"
 */
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
  /** Checks the data of `run` and of replay; its input is what is stored, its output what projectors receive. */
  readonly schema: Schema
  /** What listeners receive: `busSchema` where it was given, else `schema`. */
  readonly properties: Properties
}

/**
 * An event of a definition: `data` is the schema's input.
 * @example
 * init(session)
 * const event: Event<typeof Created> = run(Created, { sessionID: "ses_1", title: "Untitled" })
 * event.data.title // → "Untitled"
 */
export type Event<D extends Definition = Definition> = StoredEvent<StandardSchemaV1.InferInput<D["schema"]>>

/**
 * What a projector does: `data` is the schema's output. `Tx` is `store.db`, or what `query` made of it.
 * @example
 * const apply: Apply<typeof Renamed> = (tx, { title }) => void tx.prepare("UPDATE session SET title = ?").run(title)
 * project(Renamed, apply)[1] === apply // → true
 */
export type Apply<D extends Definition = Definition, Tx = Database> = (
  tx: Tx,
  data: StandardSchemaV1.InferOutput<D["schema"]>,
  event: Event<D>,
) => void

/**
 * A definition and its projector, as `project` returns them; the options only where it was given some.
 * @example
 * const projection: Projection<typeof Renamed> = project(Renamed, () => {})
 * projection[0] === Renamed // → true
 */
export type Projection<D extends Definition = Definition, Tx = Database> = [
  definition: D,
  apply: Apply<D, Tx>,
  options?: ProjectOptions,
]

/**
 * A projection of any definition. Parameters compare the other way round, so `never` takes them all; `any` for `tx`
 * leaves a projector that is written in the list itself the type that `project` gives it.
 * @inline
 */
export type AnyProjection = readonly [
  definition: Definition,
  // oxlint-disable-next-line typescript/no-explicit-any -- says so above.
  apply: (tx: any, data: never, event: never) => void,
  options?: ProjectOptions | undefined,
]

/**
 * What an event means to this process: its projections, and how its data becomes the `properties` of listeners.
 * @example
 * const options: ProjectionOptions = { projectors, convertEvent: (type, data) => ({ type, data }) }
 * init({ path: ":memory:", migrate, ...options })
 */
export interface ProjectionOptions {
  /** What `project` made, at most one a definition. */
  projectors: readonly AnyProjection[]
  /** Default: `properties` are the data. */
  convertEvent?: NonNullable<OpenOptions["convertEvent"]> | undefined
}

/**
 * `init` opens `path` itself, with any other option of `open`, or takes a store that is open already.
 * @example
 * const options: InitOptions = { path: "sessions.db", migrate, projectors, durability: "full" }
 * init(options).sequence("ses_1") // → -1
 */
export type InitOptions<Tx = Database> =
  | (ProjectionOptions & { path: string; store?: undefined } & Omit<
        OpenOptions<Tx>,
        keyof ProjectionOptions | "registry"
      >)
  | (Partial<ProjectionOptions> & { store: Store<Tx> })

/**
 * What `replay` and `replayAll` take.
 * @example
 * const options: ReplayOptions = { ownerID: "laptop", publish: true }
 * init(session)
 * const event = { id: "evt_1", type: "session.created.1", aggregateID: "a", seq: 0, data: { sessionID: "a", title: "b" } }
 * replay(event, options).applied // → 1
 */
export interface ReplayOptions {
  /** Deliver to listeners what was applied. Default false. */
  publish?: boolean | undefined
  /** Claims what nobody owns; aggregates of another owner are skipped. Default: nothing is checked or claimed. */
  ownerID?: string | undefined
}

/**
 * What `subscribeAll` delivers.
 * @example
 * const bus = new Map([["session.created", (properties: unknown) => console.log(properties)]])
 * subscribeAll(({ def, event }: Delivery) => bus.get(def.type)?.(event.properties))
 * init(session)
 * run(Created, { sessionID: "a", title: "b" }) // prints { sessionID: 'a', title: 'b' }
 */
export interface Delivery {
  /** The event's definition, in the version that was recorded. */
  def: Definition
  /** The event, with its `properties`. */
  event: PublishedEvent
}
