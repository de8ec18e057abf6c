import type { StandardSchemaV1 } from "@standard-schema/spec"
import { isDeepStrictEqual } from "node:util"
import { MAX_NESTING } from "./argument"
import { SyncError, invalidArgument, show, type ErrorFields, type ErrorIssue } from "./errors"
import { nestsDeeperThan } from "./payload"
import { isThenable, quiet } from "./promise"

/**
 * How much of what is run and replayed is checked; see `OpenOptions.validate`.
 * @example
 * const validate: ValidationMode = "strict"
 * open(":memory:", { ...session, validate }).run(Created, { sessionID: "ses_1", title: "Untitled" }).seq // → 0
 */
export type ValidationMode = "always" | "strict" | "never"

/**
 * A compile error that reads as a sentence: nothing has such a property.
 * @example store.transaction(async () => {}) // does not compile: Problem<"it must be synchronous: …">
 */
export interface Problem<Message extends string> {
  readonly "~problem": Message
}

/**
 * `unknown`, or a problem where a function's result may be a promise. A generic function that passes its caller's function
 * on to `transaction` or `project` takes it as `(() => Result) & Synchronous<Result>`, as they do.
 * @example
 * const logged = <T>(fn: (() => T) & Synchronous<T>) => store.transaction<T>(fn)
 * logged(() => store.sequence("ses_1")) // → 1
 */
export type Synchronous<Result> = 0 extends 1 & Result
  ? unknown
  : [Extract<Result, PromiseLike<unknown>>] extends [never]
    ? unknown
    : Problem<"it must be synchronous: no async function, no promise as the result">

/**
 * The fields of `Input` that can name its aggregate: required strings.
 * @example
 * const field: AggregateField<{ id: string; count: number }> = "id"
 * const wrong: AggregateField<{ id: string; count: number }> = "count" // does not compile
 */
export type AggregateField<Input> = 0 extends 1 & Input
  ? string
  : [StringField<Input>] extends [never]
    ? Problem<"the schema's input has no required string field that could name the aggregate">
    : StringField<Input>

/** The declared fields, where an index signature (`z.looseObject`) allows any others; all fields, if it says string. */
type StringField<Input> =
  | (keyof { [K in keyof Input as string extends K ? never : Input[K] extends string ? K : never]: 0 } & string)
  | (string extends keyof Input ? (Input[keyof Input & string] extends string ? string : never) : never)

/**
 * `unknown` where JSON carries the schema's input unchanged, else a problem that nothing satisfies.
 * @example
 * const schema = z.object({ id: z.string(), at: z.date() })
 * define({ type: "note.dated", version: 1, aggregate: "id", schema }) // does not compile: JSON has no Date
 */
export type JsonInput<Schema extends StandardSchemaV1> = [StandardSchemaV1.InferInput<Schema>] extends [
  Carried<StandardSchemaV1.InferInput<Schema>>,
]
  ? unknown
  : Problem<"the schema's input must be JSON: no Date, bigint, Map, Set, symbol or function">

/** `T` with a problem in place of whatever JSON would drop or change. */
type Carried<T> = 0 extends 1 & T
  ? T
  : unknown extends T
    ? T
    : T extends string | number | boolean | null | undefined
      ? T
      : T extends bigint | symbol | Uncarried | ((...args: never[]) => unknown)
        ? Problem<"JSON cannot carry this">
        : T extends readonly (infer Item)[]
          ? readonly Carried<Item>[]
          : { [K in keyof T]: Carried<T[K]> }

type Uncarried =
  | Date
  | RegExp
  | ReadonlyMap<unknown, unknown>
  | ReadonlySet<unknown>
  | WeakMap<WeakKey, unknown>
  | WeakSet<WeakKey>
  | Promise<unknown>
  | ArrayBufferLike
  | ArrayBufferView

/** What an error about an event's data says of it. */
export interface Subject {
  /** `type.version` */
  type: string
  aggregateID: string
  seq?: number
  index?: number
}

/** The schema's output for what `text` holds. Its own throws pass through. */
export function validated(schema: StandardSchemaV1, input: unknown, text: string, subject: Subject): unknown {
  const result = guardDepth(text, subject, () => schema["~standard"].validate(input))
  if (isThenable(result)) {
    quiet(result)
    // Some libraries take an exhausted stack for the sign of an asynchronous schema.
    if (nestsDeeperThan(MAX_NESTING, text)) throw tooDeep(subject)
    throw new SyncError("ERR_ASYNC_SCHEMA", `The schema of ${subject.type} validates asynchronously`, { ...subject })
  }
  if (typeof result !== "object" && typeof result !== "function") throw unusable(subject, result)
  if (result === null) throw unusable(subject, result)
  const { issues } = result
  if (issues === undefined || issues === null) return result.value
  if (!Array.isArray(issues)) throw unusable(subject, issues)
  throw invalidData(subject, issues.map(describe).join("; "), { issues })
}

/** `validate: "strict"`: what was read back from the text must be what the caller gave. */
export function assertCarried(data: unknown, parsed: unknown, text: string, subject: Subject): void {
  if (guardDepth(text, subject, () => isDeepStrictEqual(data, parsed))) return
  throw invalidData(subject, "it differs from its own JSON text read back")
}

export function invalidData(subject: Subject, what: string, fields: ErrorFields = {}): SyncError {
  const at = subject.index === undefined ? "" : ` at index ${subject.index}`
  const seq = subject.seq === undefined ? "" : `, seq ${subject.seq}`
  const message = `Invalid data for ${subject.type}${at} (aggregate "${subject.aggregateID}"${seq}): ${what}`
  return new SyncError("ERR_INVALID_DATA", message, { ...subject, ...fields })
}

/** Validators recurse: data nested beyond the limit can exhaust the stack before Rust refuses it by count. */
function guardDepth<T>(text: string, subject: Subject, work: () => T): T {
  try {
    return work()
  } catch (error) {
    // The text is asked first: what a schema throws may refuse to be looked at.
    if (!nestsDeeperThan(MAX_NESTING, text) || !(error instanceof RangeError)) throw error
    throw tooDeep(subject, { cause: error })
  }
}

function tooDeep(subject: Subject, fields?: ErrorFields): SyncError {
  return invalidData(subject, `it nests deeper than ${MAX_NESTING} levels`, fields)
}

/** A schema that answers otherwise than Standard Schema says has found nothing out about the data. */
function unusable({ type }: Subject, answer: unknown): SyncError {
  return invalidArgument(
    `The schema of ${type} must answer with a value or with an array of issues, not ${show(answer)}`,
  )
}

/** As far as what a schema calls an issue is one. */
function describe(issue: Partial<ErrorIssue> | null | undefined): string {
  const message = typeof issue?.message === "string" ? issue.message : show(issue?.message ?? issue)
  if (!Array.isArray(issue?.path) || issue.path.length === 0) return message
  const path = issue.path.map((segment: unknown) =>
    String(typeof segment === "object" && segment !== null ? (segment as { key?: PropertyKey }).key : segment),
  )
  return `${path.join(".")}: ${message}`
}
