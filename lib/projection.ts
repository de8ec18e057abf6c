import type { StandardSchemaV1 } from "@standard-schema/spec"
import type { Database, Event as StoredEvent, ProjectOptions } from "./index"

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
  /** Checks the data of `run` and of replay; its input is what is stored, its output what projectors receive. */
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

/** A definition and its projector, as `project` returns them; the options only where it was given some. */
export type Projection<D extends Definition = Definition, Tx = Database> = [
  definition: D,
  apply: Apply<D, Tx>,
  options?: ProjectOptions,
]

/**
 * A projection of any definition. Parameters compare the other way round, so `never` takes them all; `any` for `tx`
 * leaves a projector that is written in the list itself the type that `project` gives it.
 */
export type AnyProjection = readonly [
  definition: Definition,
  // oxlint-disable-next-line typescript/no-explicit-any -- says so above.
  apply: (tx: any, data: never, event: never) => void,
  options?: ProjectOptions | undefined,
]
