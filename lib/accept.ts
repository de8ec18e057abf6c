import { MAX_AGGREGATE_ID_BYTES, MAX_NESTING, exceeds, tooLarge } from "./argument"
import type { WriteContext } from "./context"
import type { EitherDefinition } from "./define"
import { SyncError, show } from "./errors"
import { nestsDeeperThan } from "./payload"
import { assertCarried, invalidData, validated, type Subject } from "./schema"

/** A caller's data that has passed every check that needs no lock. */
export interface Accepted {
  readonly aggregateID: string
  /** What is stored and sent. */
  readonly text: string
  /** What the projector receives. */
  readonly output: unknown
}

/** Checks the data of a new event: that JSON carries it, its size, its aggregate, and its schema over the text read back. */
export function accept(
  { validate, maxEventBytes }: Pick<WriteContext, "validate" | "maxEventBytes">,
  definition: EitherDefinition,
  data: unknown,
): Accepted {
  const { name, aggregate, schema } = definition
  const text = stringified(data, definition)
  if (exceeds(text, maxEventBytes)) throw tooLarge(`The data of ${name}`, text, maxEventBytes, name)
  const parsed: unknown = JSON.parse(text)
  const subject = { type: name, aggregateID: aggregateOf(parsed, aggregate, name) }
  if (validate === "strict") assertCarried(data, parsed, text, subject)
  const output = validate === "never" ? parsed : validated(schema, parsed, text, subject)
  return { aggregateID: subject.aggregateID, text, output }
}

/** What Rust checks of an event that is recorded. */
export function assertNesting(text: string, subject: Subject, what = "data"): void {
  // Most texts are too short to nest that deep: each level takes a character at its beginning and one at its end.
  if (text.length <= 2 * MAX_NESTING || !nestsDeeperThan(MAX_NESTING, text)) return
  throw invalidData(subject, `${what} nests deeper than ${MAX_NESTING} levels`)
}

function stringified(data: unknown, { name, aggregate }: EitherDefinition): string {
  if (typeof data !== "object" || data === null) throw aggregateRequired(name, aggregate, data)
  const subject = { type: name, aggregateID: shownAggregate(data, aggregate) }
  let text
  try {
    text = JSON.stringify(data) as string | undefined
  } catch (error) {
    throw invalidData(subject, "JSON cannot carry it (cyclic, too deep, or a bigint)", { cause: error })
  }
  if (text === undefined) throw invalidData(subject, "it has no JSON text")
  return text
}

/** The aggregate of what is stored, which `toJSON` may have made different from what was given. */
function aggregateOf(parsed: unknown, aggregate: string, name: string): string {
  const id = ownField(parsed, aggregate)
  if (typeof id !== "string" || id === "" || !id.isWellFormed()) throw aggregateRequired(name, aggregate, id)
  if (exceeds(id, MAX_AGGREGATE_ID_BYTES)) {
    throw tooLarge(`The aggregate id in data.${aggregate} of ${name}`, id, MAX_AGGREGATE_ID_BYTES)
  }
  return id
}

function aggregateRequired(name: string, aggregate: string, got: unknown): SyncError {
  return new SyncError(
    "ERR_AGGREGATE_REQUIRED",
    `${name} needs a non-empty string in data.${aggregate}, got ${show(got)}`,
    { type: name, field: aggregate },
  )
}

/** For a message about data that cannot even be written as JSON. */
function shownAggregate(data: object, aggregate: string): string {
  const id = Object.getOwnPropertyDescriptor(data, aggregate)?.value as unknown
  return typeof id === "string" ? id : ""
}

function ownField(value: unknown, field: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, field)) return undefined
  return (value as Record<string, unknown>)[field]
}
