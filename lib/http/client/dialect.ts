import { createParser, type ParseError } from "eventsource-parser"
import { MAX_AGGREGATE_ID_BYTES } from "../../argument"
import type { SyncError } from "../../errors"
import { BATCH_BYTES, elements, wholeLines } from "../../follow/batches"
import { protocolError, unreachable } from "../../follow/failure"
import { compressedBody, type Answer, type Body, type Remote } from "./remote"

/** What a server tells while it is listened to. */
export type LiveMessage =
  /** `text` is one line of JSON. The aggregate is named where the text has been parsed. */
  | { readonly kind: "event"; readonly text: string; readonly aggregateID?: string }
  /** Something of the aggregate through `seq` exists no more: its history is to be asked for. */
  | { readonly kind: "erased"; readonly aggregateID: string; readonly seq: number }
  /** Something was missed: all histories are to be asked for. */
  | { readonly kind: "sweep" }
  /** From here on everything is told. */
  | { readonly kind: "synced" }

/** The history that is wanted. */
export interface Wanted {
  /** By aggregate, the last seq that is held; -1: none. */
  readonly held: ReadonlyMap<string, number>
  /** Those aggregates alone. False: all others as well, whole. */
  readonly only: boolean
  /** Whatever else is held, for a server that cannot leave the others out. */
  readonly others: () => ReadonlyMap<string, number>
}

/** What is listened to. */
export interface Listening {
  /** Undefined: all of them. */
  readonly aggregates: ReadonlySet<string> | undefined
  /** Of one line or event, in bytes. */
  readonly limit: number
}

/** One server, as it speaks: the connection over which it tells what is new stands already. */
export interface Dialect {
  /** Until the connection ends: `ERR_UNREACHABLE`, or `ERR_PROTOCOL` where nothing can be made of it. */
  messages(): AsyncGenerator<readonly LiveMessage[], void>
  /** What is newer than what is held, as log items or events, one JSON text a line, in pieces of about 1 MiB. */
  history(remote: Remote, wanted: Wanted): AsyncGenerator<Uint8Array | string, void>
}

/** The media types of the protocol. */
export const TYPES = { events: "text/event-stream", lines: "application/x-ndjson", json: "application/json" } as const

/** More aggregates, or longer names, are not put into a URL: then all events come, and the others are dropped here. */
const MAX_FILTERED = 100
const MAX_FILTER_LENGTH = 4_000

/**
 * Listens to a server, and tells by what it answers with in which dialect: not by status, since older ones answer what they
 * do not know with 200 and a page. Resolves once the connection stands.
 */
export async function listen(remote: Remote, { aggregates, limit }: Listening): Promise<Dialect> {
  const query = filterOf(aggregates)
  const live = await remote.request("GET", "sync-events", { query, accept: TYPES.events })
  if (live.is(TYPES.events)) return new Current(live, query === undefined ? aggregates : undefined, limit)
  const refusal = await live.refusal(TYPES.events)
  if (!isUnknownPath(refusal)) throw refusal
  const older = await remote.request("GET", "global/event", { accept: TYPES.events })
  if (older.is(TYPES.events)) return new Older(older, aggregates, limit)
  older.end()
  throw refusal
}

/** Whether a refusal may come from a server that does not know the path. */
export function isUnknownPath({ code }: SyncError): boolean {
  return code === "ERR_PROTOCOL" || code === "ERR_NOT_FOUND"
}

function filterOf(aggregates: ReadonlySet<string> | undefined): URLSearchParams | undefined {
  // None named would mean all.
  if (aggregates === undefined || aggregates.size === 0 || aggregates.size > MAX_FILTERED) return undefined
  const query = new URLSearchParams([...aggregates].map((id): [string, string] => ["aggregate", id]))
  return query.toString().length > MAX_FILTER_LENGTH ? undefined : query
}

/** Log items without gaps in what they say, and an announcement of everything that events cannot say. */
class Current implements Dialect {
  constructor(
    private readonly live: Answer,
    /** Undefined: all that the server tells of. */
    private readonly aggregates: ReadonlySet<string> | undefined,
    private readonly limit: number,
  ) {}

  messages(): AsyncGenerator<readonly LiveMessage[], void> {
    return frames(this.live, this.limit, ({ event, data }) => this.#message(event, data))
  }

  history(remote: Remote, wanted: Wanted): AsyncGenerator<Uint8Array | string, void> {
    return historyOf(remote, wanted, this.limit)
  }

  #message(event: string | undefined, data: string): LiveMessage | undefined {
    if (event === undefined) {
      if (this.aggregates === undefined) return { kind: "event", text: oneLine(data) }
      const { aggregateID } = fields(data)
      if (typeof aggregateID !== "string" || !this.aggregates.has(aggregateID)) return undefined
      return { kind: "event", text: oneLine(data), aggregateID }
    }
    if (event === "synced" || event === "sweep") return { kind: event }
    // A later version may tell of more.
    if (event !== "erased") return undefined
    const { aggregateID, seq } = fields(data)
    const isNamed = typeof aggregateID === "string" && aggregateID.length <= MAX_AGGREGATE_ID_BYTES
    if (!isNamed || typeof seq !== "number") throw protocolError("What was erased is not said")
    if (this.aggregates?.has(aggregateID) === false) return undefined
    return { kind: "erased", aggregateID, seq }
  }
}

/** Events alone, as arrays of another shape, and in frames among others. */
class Older implements Dialect {
  constructor(
    private readonly live: Answer,
    private readonly aggregates: ReadonlySet<string> | undefined,
    private readonly limit: number,
  ) {}

  async *messages(): AsyncGenerator<readonly LiveMessage[], void> {
    // It never says so, and has begun by now.
    yield [{ kind: "synced" }]
    yield* frames(this.live, this.limit, ({ data }) => this.#message(data))
  }

  async *history(remote: Remote, { held, only, others }: Wanted): AsyncGenerator<Uint8Array | string, void> {
    // It knows no `only`, nor any compression: what it sends of others is left out here.
    const listed = only ? new Map([...others(), ...held]) : held
    const answer = await askHistory(remote, { type: TYPES.json, content: listOf(listed) }, undefined)
    yield* pieces(answer, this.limit, only ? held : undefined)
  }

  #message(data: string): LiveMessage | undefined {
    const { payload } = fields(data)
    if (typeof payload !== "object" || payload === null) return undefined
    const { type, syncEvent } = payload as Record<string, unknown>
    if (type !== "sync" || typeof syncEvent !== "object" || syncEvent === null) return undefined
    const { aggregateID } = syncEvent as Record<string, unknown>
    if (typeof aggregateID !== "string") throw protocolError("An event has no aggregateID")
    if (this.aggregates?.has(aggregateID) === false) return undefined
    return { kind: "event", text: JSON.stringify(syncEvent), aggregateID }
  }
}

/**
 * The same of a server that is known not to be an older one. Of what has gone on there the last event that is held comes
 * again, so that a replay compares it: two histories of one aggregate must be found out, not put one on the other.
 */
export async function* historyOf(
  remote: Remote,
  { held, only }: Omit<Wanted, "others">,
  limit: number,
): AsyncGenerator<Uint8Array | string, void> {
  const query = new URLSearchParams({ overlap: "1", ...(only && { only: "listed" }) })
  const body = await compressedBody(TYPES.json, listOf(held))
  yield* pieces(await askHistory(remote, body, query), limit)
}

function listOf(held: ReadonlyMap<string, number>): Uint8Array {
  return Buffer.from(JSON.stringify(Object.fromEntries(held)))
}

async function askHistory(remote: Remote, body: Body, query: URLSearchParams | undefined): Promise<Answer> {
  const accept = `${TYPES.lines}, ${TYPES.json};q=0.5`
  const answer = await remote.request("POST", "sync/history", { query, accept, encodings: "zstd, gzip", body })
  if (answer.is(TYPES.lines, TYPES.json)) return answer
  throw await answer.refusal(TYPES.lines)
}

/** A history in either form; of the array, whose aggregates cannot be chosen, `only` these. */
async function* pieces(
  answer: Answer,
  limit: number,
  only?: ReadonlyMap<string, number>,
): AsyncGenerator<Uint8Array | string, void> {
  if (answer.is(TYPES.lines)) return yield* wholeLines(answer.bytes(), limit)
  let lines = ""
  try {
    for await (const list of elements(answer.bytes(), limit)) {
      for (const element of list) lines += lineOf(element, only)
      if (lines.length < BATCH_BYTES) continue
      yield lines
      lines = ""
    }
  } catch (error) {
    // What has come whole is kept.
    if (lines !== "") yield lines
    throw error
  }
  if (lines !== "") yield lines
}

function lineOf(element: unknown, only: ReadonlyMap<string, number> | undefined): string {
  const { aggregate_id: aggregateID, ...event } = (element ?? {}) as Record<string, unknown>
  if (typeof aggregateID !== "string") throw protocolError("An element of the history has no aggregate_id")
  return only?.has(aggregateID) === false ? "" : `${JSON.stringify({ ...event, aggregateID })}\n`
}

/** The messages that a connection's frames come to, those of one chunk together. */
async function* frames(
  answer: Answer,
  limit: number,
  read: (frame: { event?: string | undefined; data: string }) => LiveMessage | undefined,
): AsyncGenerator<readonly LiveMessage[], void> {
  let messages: LiveMessage[] = []
  let tooLong: ParseError | undefined
  const parser = createParser({
    maxBufferSize: limit,
    onEvent: (frame) => {
      const message = read(frame)
      if (message !== undefined) messages.push(message)
    },
    // Fields that it does not know are to be ignored.
    onError: (error) => void (error.type === "max-buffer-size-exceeded" && (tooLong = error)),
  })
  const decoder = new TextDecoder("utf-8", { fatal: true })
  for await (const chunk of answer.bytes()) {
    parser.feed(decoded(decoder, chunk))
    if (tooLong !== undefined) throw protocolError(`An event has more than ${limit} bytes`, tooLong)
    if (messages.length === 0) continue
    yield messages
    messages = []
  }
  throw unreachable("The server has ended the connection")
}

/** A character in its place would be another event. */
function decoded(decoder: InstanceType<typeof TextDecoder>, chunk: Uint8Array): string {
  try {
    return decoder.decode(chunk, { stream: true })
  } catch (error) {
    throw protocolError("What the server tells is no UTF-8", error)
  }
}

function fields(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {}
  } catch (error) {
    throw protocolError("What the server tells is no JSON", error)
  }
}

/** A line feed can only be space between two tokens. */
function oneLine(json: string): string {
  return json.includes("\n") ? json.replaceAll("\n", " ") : json
}
