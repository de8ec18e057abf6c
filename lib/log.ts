import { checkAggregateID, checkBoolean, checkInteger, checkOptions, checkSignal } from "./argument"
import { native, type LogPage } from "./native"
import { eventCount, lazySerialized, type SerializedEvent } from "./payload"
import type { ReadContext } from "./read"

/** One step of an aggregate's log. */
export type LogItem =
  | { kind: "event"; event: SerializedEvent }
  /** The events after `after`, through `through`, exist no more. */
  | { kind: "gap"; aggregateID: string; after: number; through: number }
  /** Everything through `seq` was removed; `event` is the deletion event, if there was one. */
  | { kind: "removed"; aggregateID: string; seq: number; event?: SerializedEvent }
  /** All that was committed when reading began has been read. `seq` is -1 for an empty log. */
  | { kind: "synced"; aggregateID: string; seq: number }

/** What `log` takes. */
export interface LogOptions {
  /** Whose log; an unknown aggregate has an empty one. */
  aggregateID: string
  /** The last seq that the reader holds. Default -1: none. */
  after?: number | undefined
  /** Go on after `synced`, with what is committed from then on. Default false. */
  follow?: boolean | undefined
  /** Ends the iteration, without an error. */
  signal?: AbortSignal | undefined
}

/** Rows of a page: what a slow consumer costs in memory. */
const LOG_PAGE_ROWS = 256

interface Reading {
  readonly aggregateID: string
  readonly after: number
  readonly follow: boolean
  /** Aborted by the caller's signal, or because the iterator was returned. */
  readonly stopped: AbortSignal
}

/** Pulls pages from the database as they are consumed, from one reader's seq to the present, and on from there. */
export function log(context: ReadContext, options: LogOptions): AsyncIterableIterator<LogItem, undefined> {
  context.transactions.assertOpen()
  const given = checkOptions("log", options, ["aggregateID", "after", "follow", "signal"])
  const signal = checkSignal(given.signal)
  const returned = new AbortController()
  const items = itemsOf(context, {
    aggregateID: checkAggregateID(given.aggregateID),
    after: given.after === undefined ? -1 : checkInteger("after", given.after, -1),
    follow: checkBoolean("follow", given.follow, false),
    stopped: returned.signal,
  })
  const stop = () => returned.abort()
  let started = false
  // Only now: an iterable that nobody iterates must not stay with a signal that outlives it.
  const start = () => {
    started = true
    if (signal?.aborted) stop()
    if (!returned.signal.aborted) signal?.addEventListener("abort", stop, { once: true })
  }
  return {
    async next() {
      if (!started) start()
      let done: boolean | undefined = true
      try {
        const result = await items.next()
        done = result.done
        return result
      } finally {
        if (done) signal?.removeEventListener("abort", stop)
      }
    },
    // A generator alone would answer `return` only after the commit that a pending `next` waits for.
    return() {
      signal?.removeEventListener("abort", stop)
      stop()
      return items.return(undefined)
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

async function* itemsOf(context: ReadContext, reading: Reading): AsyncGenerator<LogItem, undefined> {
  const { handle, transactions } = context
  const { aggregateID, follow, stopped } = reading
  const { commits } = transactions
  let { after } = reading
  let removed = -1
  let synced = false
  while (!stopped.aborted) {
    if (transactions.closed && follow) return
    transactions.assertOpen()
    // Read before the watermark: a commit in between wakes the wait at once.
    const { version } = commits
    const watermark = native.sequence(handle, aggregateID)
    for (let done = false; !done;) {
      const page = native.logPage(handle, aggregateID, after, watermark, LOG_PAGE_ROWS)
      done = page[3]
      for (const item of pageItems(page, aggregateID)) {
        // A tombstone is found again until the reader is past it.
        if (item.kind === "removed" && item.seq <= removed) continue
        if (item.kind === "removed") removed = item.seq
        after = Math.max(after, lastSeq(item))
        yield item
        // Also within a page that was read before: how far a log goes on may not depend on where its pages end.
        if (stopped.aborted || (transactions.closed && follow)) return
        transactions.assertOpen()
      }
    }
    after = Math.max(after, watermark)
    if (!synced) yield { kind: "synced", aggregateID, seq: watermark }
    synced = true
    if (!follow) return
    await commits.after(version, stopped)
  }
}

/** The items of a page in the order of their seqs; what was removed lies before everything else. */
function* pageItems([events, gaps, removed]: LogPage, aggregateID: string): Generator<LogItem> {
  if (removed !== null) {
    const [seq, tombstone] = removed
    const item: LogItem = { kind: "removed", aggregateID, seq }
    if (eventCount(tombstone) > 0) item.event = lazySerialized(tombstone, 0)
    yield item
  }
  let gap = 0
  function* gapsBefore(seq: number): Generator<LogItem> {
    for (; gap < gaps.length && (gaps[gap + 1] as number) < seq; gap += 2) {
      yield { kind: "gap", aggregateID, after: gaps[gap] as number, through: gaps[gap + 1] as number }
    }
  }
  for (let index = 0; index < eventCount(events); index++) {
    const event = lazySerialized(events, index)
    yield* gapsBefore(event.seq)
    yield { kind: "event", event }
  }
  yield* gapsBefore(Infinity)
}

function lastSeq(item: LogItem): number {
  if (item.kind === "event") return item.event.seq
  return item.kind === "gap" ? item.through : item.seq
}
