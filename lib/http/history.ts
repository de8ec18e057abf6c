import { setImmediate as nextTurn } from "node:timers/promises"
import type { Context } from "hono"
import { MAX_SEQ, checkAggregateID, checkChoice, checkInteger } from "../argument"
import { compressed } from "../compression"
import type { WriteContext } from "../context"
import { SyncError, show } from "../errors"
import { createdPages, hasNews, lines } from "../lines"
import { native } from "../native"
import { eventCount, pageEvent } from "../payload"
import { acceptedEncoding, acceptedFormat } from "./accept"
import { answerStream } from "./answer"
import { formatOf, parseObject, readBody } from "./body"

/** Bytes that go out together. */
const CHUNK = 128 * 1024

/** Rows read at once for the JSON array. */
const ROWS = 1_000

/** Aggregates that are listed by themselves; more are picked out of all. */
const FEW = 1_000

/** What the header `sync-incomplete` names at most, in aggregates and in bytes. */
const MOST_NAMED = 100
const MOST_NAMED_BYTES = 4_096

interface Lacking {
  /** The last seq that the reader holds, by aggregate. */
  readonly held: ReadonlyMap<string, number>
  /** Aggregates that the reader did not list are not meant. */
  readonly listedOnly: boolean
}

/** `POST /sync/history`: what is newer than what the reader holds. */
export async function answerHistory(
  context: Context,
  store: WriteContext,
  maxBodyBytes: number,
  report: (error: unknown) => void,
): Promise<Response> {
  store.transactions.assertOpen()
  const only = context.req.query("only")
  const listedOnly = only !== undefined && checkChoice("only", only, ["listed"], "listed") === "listed"
  const held = await heldBy(context.req.raw, maxBodyBytes)
  const lacking = { held, listedOnly }
  const format = acceptedFormat(context)
  const encoding = acceptedEncoding(context)
  const headers: Record<string, string> = {
    "content-type": format === "ndjson" ? "application/x-ndjson" : "application/json",
    vary: "accept, accept-encoding",
    ...(encoding !== undefined && { "content-encoding": encoding }),
  }
  let incomplete: ReadonlySet<string>
  if (format === "json") {
    incomplete = await incompleteIn(store, lacking, context.req.raw.signal)
    if (incomplete.size > 0) Object.assign(headers, incompleteHeaders(incomplete))
  }
  const chunksFor = ({ signal }: { signal: AbortSignal }) => {
    const plain = format === "ndjson" ? logItems(store, lacking, signal) : array(store, lacking, incomplete, signal)
    return encoding === undefined ? plain : compressed(plain, encoding)
  }
  return answerStream(context, headers, chunksFor, report)
}

/** The body, `{"<aggregateID>": lastKnownSeq}`; an empty one stands for an empty object. */
async function heldBy(request: Request, maxBodyBytes: number): Promise<Map<string, number>> {
  if (request.headers.has("content-type")) formatOf(request, ["json"])
  const body = await readBody(request, maxBodyBytes)
  if (body.length === 0) return new Map()
  formatOf(request, ["json"])
  const held = new Map<string, number>()
  // JSON.parse makes an own property of any name, "__proto__" too.
  for (const [aggregateID, seq] of Object.entries(parseObject(body))) {
    held.set(checkAggregateID(aggregateID), checkInteger(`The seq of ${show(aggregateID)}`, seq, -1, MAX_SEQ))
  }
  return held
}

/** As log items, a line each: what an array cannot say, too. */
async function* logItems(store: WriteContext, lacking: Lacking, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  const after = (aggregateID: string) => lacking.held.get(aggregateID)
  let parts: Uint8Array[] = []
  let size = 0
  if (await leftAfterTurn(store, signal)) return
  for (const only of withNews(store, lacking)) {
    for (const { bytes } of lines(store, { after, only })) {
      parts.push(bytes)
      size += bytes.length
      if (size < CHUNK) continue
      yield Buffer.concat(parts)
      parts = []
      size = 0
      if (await leftAfterTurn(store, signal)) return
    }
    if (await leftAfterTurn(store, signal)) return
  }
  if (size > 0) yield Buffer.concat(parts)
}

/**
 * A long catch-up leaves room for everybody else, and reads in no transaction that is open on the store's connection: that
 * would be tied to what was read. Answers whether the client has left meanwhile.
 */
async function leftAfterTurn({ watch }: WriteContext, signal: AbortSignal): Promise<boolean> {
  await nextTurn()
  await watch.settled(signal)
  return signal.aborted
}

/** The ids of aggregates with news, in the order of their creation, a page at a time. */
function* withNews(store: WriteContext, { held, listedOnly }: Lacking): Generator<string[], void> {
  if (listedOnly && held.size <= FEW) {
    const flat = native.sequences(store.handle, [...held.keys()])
    yield flat.filter((_, at) => at % 2 === 0) as string[]
    return
  }
  for (const page of createdPages(store)) {
    const meant = listedOnly ? page.filter(({ aggregateID }) => held.has(aggregateID)) : page
    yield meant.filter((one) => hasNews(one, held.get(one.aggregateID))).map(({ aggregateID }) => aggregateID)
  }
}

/** As a JSON array of events. */
async function* array(
  store: WriteContext,
  lacking: Lacking,
  incomplete: ReadonlySet<string>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  let text = "["
  let any = false
  if (await leftAfterTurn(store, signal)) return
  for (const page of withNews(store, lacking)) {
    for (const aggregateID of page) {
      if (incomplete.has(aggregateID)) continue
      for (const events of eventsOf(store, aggregateID, lacking.held.get(aggregateID) ?? -1)) {
        for (const event of events) {
          text += `${any ? "," : ""}\n${event}`
          any = true
        }
        if (text.length < CHUNK) continue
        yield Buffer.from(text)
        text = ""
        if (await leftAfterTurn(store, signal)) return
      }
    }
    if (await leftAfterTurn(store, signal)) return
  }
  yield Buffer.from(`${text}\n]\n`)
}

/** The events of one aggregate after a seq, as the texts of JSON objects. Fails where some have been erased since the start. */
function* eventsOf({ handle, transactions }: WriteContext, aggregateID: string, after: number): Generator<string[]> {
  const quoted = JSON.stringify(aggregateID)
  for (let last = after; ;) {
    transactions.assertOpen()
    const page = native.read(handle, aggregateID, last, -1, ROWS, false)
    const texts: string[] = []
    for (let index = 0; index < eventCount(page); index++) {
      const { event, text } = pageEvent(page, index)
      const { id, type, version, seq } = event
      if (seq !== last + 1) throw erasedMeanwhile(aggregateID, seq)
      const name = JSON.stringify(`${type}.${version}`)
      texts.push(`{"id":${JSON.stringify(id)},"aggregate_id":${quoted},"seq":${seq},"type":${name},"data":${text}}`)
      last = seq
    }
    if (texts.length > 0) {
      yield texts
      continue
    }
    if (last < native.sequence(handle, aggregateID)) throw erasedMeanwhile(aggregateID, last + 1)
    return
  }
}

function erasedMeanwhile(aggregateID: string, seq: number): SyncError {
  const message = `Events of aggregate "${aggregateID}" before seq ${seq} were erased while they were sent: ask again`
  return new SyncError("ERR_ABORTED", message, { aggregateID, seq })
}

/** The aggregates of which an array would not say all, since something of their log is a gap or was removed. */
async function incompleteIn(store: WriteContext, lacking: Lacking, signal: AbortSignal): Promise<Set<string>> {
  const after = (aggregateID: string) => lacking.held.get(aggregateID)
  const incomplete = new Set<string>()
  let size = 0
  if (await leftAfterTurn(store, signal)) throw left()
  for (const only of withNews(store, lacking)) {
    for (const { aggregateID, bytes, gaps, removed } of lines(store, { after, only })) {
      if (gaps > 0 || removed > 0) incomplete.add(aggregateID)
      size += bytes.length
      if (size < CHUNK) continue
      size = 0
      if (await leftAfterTurn(store, signal)) throw left()
    }
    if (await leftAfterTurn(store, signal)) throw left()
  }
  return incomplete
}

function left(): SyncError {
  return new SyncError("ERR_ABORTED", "The client has left")
}

/** In ASCII, as headers are; there may be more than headers can hold. */
function incompleteHeaders(incomplete: ReadonlySet<string>): Record<string, string> {
  const named: string[] = []
  let size = 0
  for (const aggregateID of incomplete) {
    const text = JSON.stringify(aggregateID).replace(
      /[^ -~]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
    )
    if (named.length === MOST_NAMED) break
    // One that is too long does not hide the others.
    if (size + text.length + 1 > MOST_NAMED_BYTES) continue
    size += text.length + 1
    named.push(text)
  }
  return { "sync-incomplete": `[${named.join(",")}]`, "sync-incomplete-count": String(incomplete.size) }
}
