import { setImmediate as nextTurn } from "node:timers/promises"
import type { Context } from "hono"
import { MAX_SEQ, checkAggregateID, checkChoice, checkInteger } from "../../argument"
import { WINDOW_LOG, compressed } from "../../compression"
import type { WriteContext } from "../../context"
import { SyncError, show, syncErrorOf } from "../../errors"
import { createdPages, hasNews, linesOf, type Lines } from "../../lines"
import { native } from "../../native"
import { eventCount, pageEvent } from "../../payload"
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
  /** Of aggregates with news, the last event that the reader holds is told again, so that a replay compares it. */
  readonly overlap: boolean
}

/** An aggregate of which there may be something to tell. */
interface News {
  readonly aggregateID: string
  readonly seq: number
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
  const overlap = context.req.query("overlap")
  if (overlap !== undefined) checkChoice("overlap", overlap, ["1"], "1")
  const held = await heldBy(context.req.raw, maxBodyBytes)
  const lacking = { held, listedOnly, overlap: overlap !== undefined }
  const format = acceptedFormat(context)
  const encoding = acceptedEncoding(context)
  const headers: Record<string, string> = {
    "content-type": format === "ndjson" ? "application/x-ndjson" : "application/json",
    vary: "accept, accept-encoding",
    ...(encoding !== undefined && { "content-encoding": encoding }),
  }
  let incomplete: ReadonlySet<string>
  if (format === "json") {
    incomplete = await incompleteIn(store, lacking, context.req.raw.signal, report)
    if (incomplete.size > 0) Object.assign(headers, incompleteHeaders(incomplete))
  }
  const chunksFor = ({ signal }: { signal: AbortSignal }) => {
    const plain =
      format === "ndjson" ? logItems(store, lacking, signal, report) : array(store, lacking, incomplete, signal)
    return encoding === undefined ? plain : compressed(plain, encoding, WINDOW_LOG.wire)
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
async function* logItems(
  store: WriteContext,
  lacking: Lacking,
  signal: AbortSignal,
  report: (error: unknown) => void,
): AsyncGenerator<Uint8Array, void> {
  let parts: Uint8Array[] = []
  let size = 0
  if (await leftAfterTurn(store, signal)) return
  for (const page of withNews(store, lacking)) {
    for (const one of page) {
      for (const part of newsOf(store, lacking, one, report)) {
        const bytes = "unreadable" in part ? unreadableLine(one.aggregateID, part.unreadable) : part.bytes
        parts.push(bytes)
        size += bytes.length
        if (size < CHUNK) continue
        yield joined(parts)
        parts = []
        size = 0
        if (await leftAfterTurn(store, signal)) return
      }
    }
    if (await leftAfterTurn(store, signal)) return
  }
  if (size > 0) yield joined(parts)
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

/** One aggregate's news. The last part says where they cannot be read on: one damaged aggregate keeps back no other. */
function* newsOf(
  store: WriteContext,
  { held, overlap }: Lacking,
  { aggregateID, seq }: News,
  report: (error: unknown) => void,
): Generator<Lines | { readonly unreadable: SyncError }, void> {
  const last = held.get(aggregateID) ?? -1
  const isBehind = last >= 0 && last < seq
  try {
    yield* linesOf(store, aggregateID, overlap && isBehind ? last - 1 : last, seq)
  } catch (error) {
    const unreadable = syncErrorOf(error)
    if (unreadable?.code !== "ERR_CORRUPT" || (unreadable.aggregateID ?? aggregateID) !== aggregateID) throw error
    report(error)
    yield { unreadable }
  }
}

/** In the place of what cannot be read. */
function unreadableLine(aggregateID: string, { code, message }: SyncError): Uint8Array {
  return Buffer.from(`${JSON.stringify({ kind: "unreadable", aggregateID, code, message })}\n`)
}

/** Most pages are a chunk by themselves, and not worth a copy. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts)
}

/** Aggregates with news, in the order of their creation, a page at a time. */
function* withNews(store: WriteContext, { held, listedOnly }: Lacking): Generator<News[], void> {
  if (listedOnly && held.size <= FEW) {
    const flat = native.sequences(store.handle, [...held.keys()])
    const page: News[] = []
    for (let at = 0; at < flat.length; at += 2) {
      page.push({ aggregateID: flat[at] as string, seq: flat[at + 1] as number })
    }
    yield page
    return
  }
  for (const page of createdPages(store)) {
    const meant = listedOnly ? page.filter(({ aggregateID }) => held.has(aggregateID)) : page
    yield meant.filter((one) => hasNews(one, held.get(one.aggregateID)))
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
    for (const { aggregateID } of page) {
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
  const through = native.sequence(handle, aggregateID)
  for (let last = after; last < through;) {
    transactions.assertOpen()
    const page = native.read(handle, aggregateID, last, through + 1, ROWS, false)
    const texts: string[] = []
    for (let index = 0; index < eventCount(page); index++) {
      const { event, text } = pageEvent(page, index)
      const { id, type, version, seq } = event
      if (seq !== last + 1) throw erasedMeanwhile(aggregateID, seq)
      const name = JSON.stringify(`${type}.${version}`)
      texts.push(`{"id":${JSON.stringify(id)},"aggregate_id":${quoted},"seq":${seq},"type":${name},"data":${text}}`)
      last = seq
    }
    if (texts.length === 0) throw erasedMeanwhile(aggregateID, through + 1)
    yield texts
  }
}

function erasedMeanwhile(aggregateID: string, seq: number): SyncError {
  const message = `Events of aggregate "${aggregateID}" before seq ${seq} were erased while they were sent: ask again`
  return new SyncError("ERR_ABORTED", message, { aggregateID, seq })
}

/** The aggregates of which an array would not say all: something of their log is a gap, was removed, or cannot be read. */
async function incompleteIn(
  store: WriteContext,
  lacking: Lacking,
  signal: AbortSignal,
  report: (error: unknown) => void,
): Promise<Set<string>> {
  const incomplete = new Set<string>()
  let size = 0
  if (await leftAfterTurn(store, signal)) throw left()
  for (const page of withNews(store, lacking)) {
    for (const one of page) {
      for (const part of newsOf(store, lacking, one, report)) {
        if ("unreadable" in part || part.gaps > 0 || part.removed > 0) incomplete.add(one.aggregateID)
        size += "unreadable" in part ? 0 : part.bytes.length
        if (size < CHUNK) continue
        size = 0
        if (await leftAfterTurn(store, signal)) throw left()
      }
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
