import { aggregateID, epoch, ref, schemas, seq, type Schema } from "./schemas"
import { codesByStatus } from "../status"

const OWN_PATH = "/sync/openapi.json"

/** The description of the routes in OpenAPI 3.1, as it is served at `path`: whatever precedes its own is the routes' prefix. */
export function openApi(path: string): object {
  const prefix = path.slice(0, -OWN_PATH.length)
  return prefix === "" ? document : { ...document, servers: [{ url: prefix }] }
}

const json = (schema: Schema): Schema => ({ "application/json": { schema } })
const lines = (of: string): Schema => ({
  "application/x-ndjson": {
    schema: { type: "string", description: `${of}, as JSON, each with a line feed after it.` },
  },
})
const query = (name: string, schema: Schema, description: string, more: Schema = {}): Schema => ({
  name,
  in: "query",
  description,
  schema,
  ...more,
})
const header = (description: string, schema: Schema = { type: "string" }): Schema => ({ description, schema })

const MEANING: Readonly<Record<number, string>> = {
  400: "The request is wrong, and will be wrong again.",
  401: "No valid token was sent. Nothing else is said.",
  403: "This may not be done: the sender lacks the right, or the server opened its file for reading alone.",
  409: "What is stored says otherwise: another seq, another event, another owner, another epoch.",
  413: "The body, or something in it, is larger than may be.",
  415: "The body is neither JSON nor NDJSON, or is encoded otherwise than by gzip or zstd.",
  500: "The server, its file or its program fails.",
  503: "Not now: the server is busy, closed, or its disk is full.",
}

const HEADERS: Readonly<Record<number, Schema>> = {
  401: { "WWW-Authenticate": header("Always `Bearer`.") },
  503: { "Retry-After": header("Seconds to wait.", { type: "integer" }) },
}

/** The answers of a route: success, and errors by their statuses. */
function responses(ok: Schema, ...statuses: number[]): Schema {
  const errors = [400, 401, 403, ...statuses, 500, 503].map((status) => [
    String(status),
    { $ref: `#/components/responses/${status}` },
  ])
  return { 200: ok, ...Object.fromEntries(errors) }
}

const REQUEST_ENCODING = {
  name: "Content-Encoding",
  in: "header",
  description: "How the body is compressed. Its bound holds for what was sent and for what it becomes.",
  schema: { enum: ["gzip", "zstd", "identity"], default: "identity" },
}

const ACCEPT_ENCODING = {
  name: "Accept-Encoding",
  in: "header",
  description: "zstd or gzip, by quality values; zstd where both are as welcome.",
  schema: { type: "string" },
}

const SEQUENCES_LIMIT = { type: "integer", minimum: 1, maximum: 1_000, default: 1_000 }

const paths: Readonly<Record<string, Schema>> = {
  "/sync-events": {
    get: {
      operationId: "followEvents",
      summary: "Follow what is committed",
      description: `Server-sent events: each recorded event from now on, by whomever it is committed, as a message without a name. Its data
is a serialized event, its id the event's position in this server's file; with \`after\` it is the event's seq.

Other messages have names. \`synced\`: everything that was committed before has been sent, and from here on the stream is
live; its data is \`{"position"}\`, or \`{"aggregateID","seq"}\` with \`after\`, its id the same number. \`sweep\`: what came after the id that the client
gave can no longer be told event by event, since history was erased since, or the id is none of this file; catch up
through /sync/history. \`erased\`, with data \`{"aggregateID","seq"}\`: history of this aggregate was removed, or has become a
gap; catch up with it through /sync/history.

A comment is sent where there was nothing to send for a while. Who does not read is cut off, and can come back with
\`Last-Event-ID\`.`,
      parameters: [
        query("aggregate", { type: "array", items: aggregateID }, "Only these aggregates. Default: all.", {
          explode: true,
        }),
        query(
          "type",
          { type: "array", items: { type: "string", minLength: 1 } },
          "Only events of these types, without their versions. Default: all.",
          { explode: true },
        ),
        query(
          "after",
          { ...seq, minimum: -1 },
          "Begin after this seq. Only with exactly one aggregate; ids are seqs then.",
        ),
        {
          name: "Last-Event-ID",
          in: "header",
          description: "Begin after the event that had this id. With `after`, which it outdoes, it is a seq.",
          schema: { type: "integer", minimum: -1 },
        },
      ],
      responses: responses(
        {
          description: "The stream. It ends when the server closes its store.",
          content: { "text/event-stream": { schema: { type: "string" } } },
        },
        413,
      ),
    },
  },
  "/sync/history": {
    post: {
      operationId: "readHistory",
      summary: "Read what is newer than what is held",
      description: `Everything that the log holds after the seqs of the body, and all of each aggregate that the body does not list. The answer
is made as it is read. Where it cannot be completed the connection breaks.

As NDJSON it is log items, aggregates in the order of their creation; each that has news ends with its \`synced\` item, and
others are left out. Where the file is damaged, a line \`{kind: "unreadable", aggregateID, code, message}\` stands for what is left
of that aggregate. As an array it is events alone: an aggregate of which something is a gap, was removed or cannot be
read is left out, and named in a header.`,
      parameters: [
        query("only", { enum: ["listed"] }, "Leave out aggregates that the body does not list."),
        query(
          "overlap",
          { enum: ["1"] },
          "As NDJSON: of aggregates with news, begin with the last event that is held, so that a replay compares it.",
        ),
        REQUEST_ENCODING,
        ACCEPT_ENCODING,
      ],
      requestBody: { description: "May be empty: nothing is held.", required: false, content: json(ref("Held")) },
      responses: responses(
        {
          description: "What is newer.",
          headers: {
            "sync-incomplete": header(
              "As an array alone: the ids of aggregates that were left out, as a JSON array, at most 100.",
            ),
            "sync-incomplete-count": header("How many were left out, where there are any.", { type: "integer" }),
          },
          content: { ...json({ type: "array", items: ref("HistoryEvent") }), ...lines("Log items") },
        },
        413,
        415,
      ),
    },
  },
  "/sync/replay": {
    post: {
      operationId: "replayEvents",
      summary: "Apply events that were recorded elsewhere",
      description: `All in one transaction, or nothing of it. What is held already counts as duplicate, so that a request can be sent again.
Those who follow the server hear what was applied.`,
      parameters: [
        query("owner", { type: "string", minLength: 1 }, "With NDJSON: as `owner` of a JSON body."),
        query("epoch", epoch, "With NDJSON: as `epoch` of a JSON body."),
        REQUEST_ENCODING,
      ],
      requestBody: { required: true, content: { ...json(ref("Replay")), ...lines("Log items or serialized events") } },
      responses: responses({ description: "It was applied.", content: json(ref("Replayed")) }, 409, 413, 415),
    },
  },
  "/sync/sequences": {
    get: {
      operationId: "listSequences",
      summary: "List aggregates with their last seqs and owners",
      parameters: [
        query("prefix", { type: "string" }, "Only ids that begin with it."),
        query("after", { type: "string" }, "Only ids that come after it: `next` of the page before."),
        query("limit", SEQUENCES_LIMIT, "How many at most."),
      ],
      responses: responses({ description: "A page of them.", content: json(ref("Sequences")) }),
    },
  },
  "/sync/claim": {
    post: {
      operationId: "claimAggregate",
      summary: "Own what nobody else owns, or release it",
      description: "An aggregate that is not known yet can be claimed, too.",
      parameters: [REQUEST_ENCODING],
      requestBody: { required: true, content: json(ref("Claim")) },
      responses: responses({ description: "Whose it is now.", content: json(ref("Ownership")) }, 409, 413, 415),
    },
  },
  "/sync/steal": {
    post: {
      operationId: "stealAggregate",
      summary: "Own it, whoever owns it",
      description:
        "The one who owned it is refused from then on. With `expectedEpoch`, only if nobody has claimed it since.",
      parameters: [REQUEST_ENCODING],
      requestBody: { required: true, content: json(ref("Steal")) },
      responses: responses({ description: "Whose it is now.", content: json(ref("Ownership")) }, 409, 413, 415),
    },
  },
  [OWN_PATH]: {
    get: {
      operationId: "describe",
      summary: "Read this document",
      responses: responses({ description: "This document.", content: json({ type: "object" }) }),
    },
  },
}

const document = {
  openapi: "3.1.0",
  info: {
    title: "Syncline",
    version: "1",
    summary: "Reads, follows and writes an event log from another machine.",
    description: `Every error is a JSON object with a stable \`code\`, a message for people, and fields for what it concerns. What is asked
of an unknown path is answered 404 (\`ERR_NOT_FOUND\`), by another method 405 (\`ERR_METHOD_NOT_ALLOWED\`, with \`Allow\`), both
only to who is let in. Whether a token is needed is for whoever runs the server to say.`,
  },
  security: [{ bearer: [] }, {}],
  paths,
  components: {
    securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
    responses: Object.fromEntries(
      [...codesByStatus().keys()]
        .filter((status) => status in MEANING)
        .map((status) => [
          String(status),
          {
            description: MEANING[status],
            ...(HEADERS[status] !== undefined && { headers: HEADERS[status] }),
            content: json(ref(`Error${status}`)),
          },
        ]),
    ),
    schemas,
  },
}
