import { MAX_AGGREGATE_ID_BYTES, MAX_OWNER_BYTES, MAX_SEQ, MAX_TYPE_BYTES } from "../../argument"
import { codesByStatus } from "../status"

/** A JSON Schema of 2020-12, as OpenAPI 3.1 has them. */
export type Schema = { readonly [keyword: string]: unknown }

export const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` })

const text = (description: string, more: Schema = {}): Schema => ({ type: "string", description, ...more })
const integer = (minimum: number, maximum: number, description: string): Schema => ({
  type: "integer",
  minimum,
  maximum,
  description,
})
/** An object that has these properties and no others, all required but those that are named. */
const object = (properties: Record<string, Schema>, optional: readonly string[] = [], more: Schema = {}): Schema => ({
  type: "object",
  properties,
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
  additionalProperties: false,
  ...more,
})
const items = (
  kind: string,
  properties: Record<string, Schema>,
  description: string,
  optional: string[] = [],
): Schema => object({ kind: { const: kind }, ...properties }, optional, { description })

export const aggregateID = text(
  `Names one thing whose history is kept: a session, a note. At most ${MAX_AGGREGATE_ID_BYTES} bytes in UTF-8.`,
  { minLength: 1, maxLength: MAX_AGGREGATE_ID_BYTES },
)
export const seq = integer(0, MAX_SEQ, "Place of an event among those of its aggregate, from 0.")
const lastSeq = integer(-1, MAX_SEQ, "The last seq that is held; -1: none.")
const owner = text(`Who may write an aggregate. At most ${MAX_OWNER_BYTES} bytes in UTF-8.`, {
  minLength: 1,
  maxLength: MAX_OWNER_BYTES,
})
const orNull = (schema: Schema): Schema => ({ ...schema, type: [schema["type"], "null"] })
export const epoch = integer(
  0,
  Number.MAX_SAFE_INTEGER,
  "How many times the owner of an aggregate has changed. In one epoch there is one owner, or nobody.",
)
const count = (description: string): Schema => integer(0, MAX_SEQ, description)

const id = text("The event's own id, as its writer gave it.")
const type = text("Type and version, joined by a dot: session.updated.1.", {
  minLength: 1,
  maxLength: MAX_TYPE_BYTES,
  pattern: "\\.[1-9][0-9]*$",
})
const data = { description: "What the event says: JSON, as its type defines it." }

const replayResult = {
  aggregateID,
  applied: count("How many events, gaps and removals were new."),
  duplicate: count("How many were known already."),
  seq: lastSeq,
}

const errorFields: Record<string, Schema> = {
  expected: { type: ["integer", "string", "null"], description: "What was required, or is stored." },
  got: { type: ["integer", "string", "null"], description: "What came in its place." },
  aggregateID: text("The aggregate that is concerned."),
  type: text("The event's type."),
  seq: { type: "integer" },
  first: { type: "integer", description: "The first seq of a range of events." },
  last: { type: "integer", description: "Its last." },
  projected: { type: "integer", description: "The last seq that is projected." },
  epoch: { type: "integer", description: "The epoch that is stored, where ownership was refused." },
  gotEpoch: { type: "integer", description: "The epoch that was offered." },
  sqliteCode: text("SQLite's name of the error."),
  table: text("The table that has the constraint which failed."),
  constraint: text("That constraint."),
  index: { type: "integer", description: "The item of the request that is concerned, from 0." },
  field: text("Its field."),
  limit: { type: "number", description: "The bound that was passed, in the unit that the message names." },
  size: { type: "number", description: "The size that passed it." },
  line: { type: "integer" },
  waited: { type: "number", description: "Milliseconds for which the server waited for its database." },
  position: { type: "integer" },
  issues: {
    type: "array",
    description: "What the schema of the event's type found.",
    items: object({ message: { type: "string" }, path: { type: "array", items: { type: ["string", "integer"] } } }, [
      "path",
    ]),
  },
}

/** What bodies are made of. */
export const schemas: Readonly<Record<string, Schema>> = {
  SerializedEvent: object(
    {
      id,
      type,
      seq,
      aggregateID,
      data,
      created: integer(
        -Number.MAX_SAFE_INTEGER,
        Number.MAX_SAFE_INTEGER,
        "Milliseconds since 1970; absent where the event's writer did not say.",
      ),
      metadata: { type: "object", description: "What travels with the event beside its data." },
    },
    ["created", "metadata"],
    { description: "One fact." },
  ),
  LogItem: {
    description: "One step of an aggregate's log.",
    oneOf: [
      items("event", { event: ref("SerializedEvent") }, "An event."),
      items(
        "gap",
        { aggregateID, after: lastSeq, through: seq },
        "The events after one seq, through another, exist no more: later ones have superseded them.",
      ),
      items(
        "removed",
        { aggregateID, seq, event: ref("SerializedEvent") },
        "Everything through this seq was removed; the event says so to projectors, where there was one.",
        ["event"],
      ),
      items(
        "synced",
        { aggregateID, seq: lastSeq },
        "The aggregate was told through this seq, which was its last one when it was read.",
      ),
    ],
  },
  HistoryEvent: object({ id, aggregate_id: aggregateID, seq, type, data }, [], {
    description: "One event of a history as an array. Neither its time nor its metadata is in it.",
  }),
  Held: {
    type: "object",
    description: "By aggregate, the last seq that the reader holds; -1: none.",
    propertyNames: { minLength: 1, maxLength: MAX_AGGREGATE_ID_BYTES },
    additionalProperties: integer(-1, MAX_SEQ, "The last seq that the reader holds."),
    example: { ses_1: 41, ses_2: -1 },
  },
  Replay: {
    type: "object",
    description: "Events in the order of their seqs, aggregate by aggregate or mixed.",
    properties: {
      directory: text("What a sender may say of itself; it is not looked at."),
      events: {
        type: "array",
        minItems: 1,
        items: { anyOf: [ref("SerializedEvent"), ref("LogItem")] },
      },
      owner: { ...orNull(owner), description: "Claims what nobody owns, and refuses what another owns." },
      epoch: { ...orNull(epoch), description: "A lower one than is stored is refused, a higher one adopted." },
    },
    required: ["events"],
  },
  ReplayResult: object(replayResult, [], { description: "What happened to one aggregate." }),
  Replayed: object(
    {
      sessionID: text("The same as aggregateID, for older clients."),
      ...replayResult,
      results: { type: "array", minItems: 1, items: ref("ReplayResult"), description: "Of all aggregates." },
    },
    [],
    { description: "What happened to the first aggregate, and to all, in the order in which they appeared." },
  ),
  Sequences: object({
    aggregates: {
      type: "array",
      description: "Ordered by the UTF-8 bytes of their ids.",
      items: object({ aggregateID, seq: lastSeq, owner: orNull(owner), epoch }),
    },
    next: { ...orNull(aggregateID), description: "What to give as after for the next page; null: this was the last." },
  }),
  Claim: object(
    {
      aggregateID,
      owner: { ...orNull(owner), description: "Whose it shall be; null releases it, and needs expectedEpoch." },
      expectedEpoch: { ...epoch, description: "The epoch that the sender saw; another one is there: 409." },
    },
    ["expectedEpoch"],
  ),
  Steal: object({ aggregateID, owner, expectedEpoch: epoch }, ["expectedEpoch"]),
  Ownership: object({ aggregateID, owner: orNull(owner), epoch }),
  ...Object.fromEntries(
    Array.from(codesByStatus(), ([status, codes]) => [
      `Error${status}`,
      object({ code: { enum: codes }, message: { type: "string" }, ...errorFields }, Object.keys(errorFields)),
    ]),
  ),
}
