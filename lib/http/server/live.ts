import { setImmediate as nextTurn } from "node:timers/promises"
import type { Context } from "hono"
import { MAX_SEQ, checkAggregateID, checkInteger, checkName } from "../../argument"
import type { WriteContext } from "../../context"
import { invalidArgument, show } from "../../errors"
import type { Capacity } from "../../stream"
import { answerStream, type Connection } from "./answer"
import type { Follower, Wants } from "./follower"
import { comment, message, type EventFrame } from "./frame"
import { AfterPosition, AfterSeq, FromNow, type Catchup } from "./resume"
import type { Tail } from "./tail"

/** What the live events of a store are served from. */
export interface LiveContext {
  readonly store: WriteContext
  readonly tail: Tail
  /** What may wait for one client. */
  readonly capacity: Capacity
}

interface Asked {
  readonly aggregates: ReadonlySet<string>
  readonly types: ReadonlySet<string>
  /** The one aggregate whose seqs are the ids; undefined: positions are. */
  readonly of: string | undefined
  /** The id that the client has seen last. */
  readonly after: number | undefined
}

const HEADERS = {
  "content-type": "text/event-stream",
  // nginx would hold back what has not filled its buffer.
  "x-accel-buffering": "no",
}

/** `GET /sync-events`: what is committed from now on, after what the client has missed. */
export function answerLive(context: Context, live: LiveContext, report: (error: unknown) => void): Response {
  live.store.transactions.assertOpen()
  const asked = askedOf(context)
  return answerStream(context, HEADERS, (connection) => messages(live, asked, connection), report)
}

function askedOf({ req }: Context): Asked {
  const aggregates = new Set((req.queries("aggregate") ?? []).map(checkAggregateID))
  const types = new Set((req.queries("type") ?? []).map((type) => checkName("type", type)))
  const after = req.query("after")
  const lastID = req.header("last-event-id")
  if (after === undefined) {
    return { aggregates, types, of: undefined, after: idOf("Last-Event-ID", lastID, 0, Number.MAX_SAFE_INTEGER) }
  }
  const [only, another] = aggregates
  if (only === undefined || another !== undefined) {
    throw invalidArgument("after needs exactly one aggregate: it is a seq, and each aggregate has its own")
  }
  const given = idOf("after", after, -1, MAX_SEQ) ?? -1
  // What a client says that comes back is newer than what its address says.
  return { aggregates, types, of: only, after: idOf("Last-Event-ID", lastID, -1, MAX_SEQ) ?? given }
}

function idOf(name: string, text: string | undefined, from: number, through: number): number | undefined {
  if (text === undefined || (name === "Last-Event-ID" && text === "")) return undefined
  if (!/^(-1|\d{1,16})$/.test(text)) throw invalidArgument(`${name} must be an integer, not ${show(text)}`)
  return checkInteger(name, Number(text), from, through)
}

/** Nothing is opened before the first message is wanted: of an answer that nobody reads nothing would close it again. */
async function* messages(
  { store, tail, capacity }: LiveContext,
  asked: Asked,
  { signal, breakOff }: Connection,
): AsyncGenerator<Uint8Array, void> {
  yield comment("connected")
  const { transactions, watch } = store
  const missed = missedBy(store, asked)
  let follower: Follower | undefined
  try {
    while (follower === undefined) {
      await watch.settled(signal)
      if (signal.aborted || transactions.closed) return
      const { bytes, done, swept } = missed.next()
      // In the same turn: what is told by others has not gone past what was read.
      if (done) follower = tail.follow(missed.position, wanting(asked, missed.reached), capacity, breakOff)
      if (swept) yield message("sweep", {})
      else if (bytes.length > 0) yield Buffer.concat(bytes)
      if (!done) await nextTurn()
    }
    const live = follower
    signal.addEventListener("abort", () => live.end(), { once: true })
    if (signal.aborted) return
    yield synced(asked, missed.reached)
    for (let chunk = await live.next(); chunk !== undefined; chunk = await live.next()) yield chunk
  } finally {
    follower?.end()
  }
}

function missedBy(store: WriteContext, asked: Asked): Catchup {
  const { of, after } = asked
  if (after === undefined) return new FromNow(store)
  const wants = wanting(asked, after)
  return of === undefined ? new AfterPosition(store, wants, after) : new AfterSeq(store, wants, of, after)
}

/** What comes after an id. */
function wanting({ aggregates, types, of }: Asked, after: number): Wants {
  const aggregate = (aggregateID: string) => aggregates.size === 0 || aggregates.has(aggregateID)
  const wanted = (frame: EventFrame) => aggregate(frame.aggregateID) && (types.size === 0 || types.has(frame.type))
  if (of === undefined) {
    return {
      aggregate,
      event: (frame) => frame.position > after && wanted(frame),
      encode: (frame) => frame.byPosition,
    }
  }
  return {
    aggregate,
    event: (frame) => frame.seq > after && wanted(frame),
    encode: (frame) => frame.bySeq,
  }
}

/** With an id: a client that is cut off before any event comes must not miss the first ones. */
function synced({ of }: Asked, reached: number): Buffer {
  const where = of === undefined ? { position: reached } : { aggregateID: of, seq: reached }
  return message("synced", where, reached)
}
