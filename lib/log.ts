import { checkAggregateID, checkBoolean, checkInteger, checkOptions, checkSignal } from "./argument"
import { native, type LogPage } from "./native"
import { eventCount, lastEventSeq, lazySerialized, type SerializedEvent } from "./payload"
import { Pulled } from "./pull"
import type { ReadContext } from "./read"
import type { Watch } from "./watch"

/**
 * One step of an aggregate's log.
 * @example
 * const kinds: LogItem["kind"][] = []
 * for await (const { kind } of store.log({ aggregateID: "ses_1" })) kinds.push(kind)
 * kinds // → ["event", "event", "synced"]
 */
export type LogItem =
  | { kind: "event"; event: SerializedEvent }
  /** The events after `after`, through `through`, exist no more. */
  | { kind: "gap"; aggregateID: string; after: number; through: number }
  /** Everything through `seq` was removed; `event` is the deletion event, if there was one. */
  | { kind: "removed"; aggregateID: string; seq: number; event?: SerializedEvent }
  /** All that was committed when reading began has been read. `seq` is -1 for an empty log. */
  | { kind: "synced"; aggregateID: string; seq: number }

/**
 * What `log` takes.
 * @example
 * const options: LogOptions = { aggregateID: "ses_1", after: 1 }
 * for await (const item of store.log(options)) console.log(item.kind) // synced
 */
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
  /** The present has been reached. */
  synced: boolean
}

/** What following needs of a store. */
export interface FollowContext extends ReadContext {
  readonly watch: Watch
}

/** Pulls pages from the database as they are consumed, from one reader's seq to the present, and on from there. */
export function log(context: FollowContext, options: LogOptions): AsyncIterableIterator<LogItem, undefined> {
  const { transactions } = context
  transactions.assertOpen()
  const given = checkOptions("log", options, ["aggregateID", "after", "follow", "signal"])
  const signal = checkSignal(given.signal)
  const reading: Reading = {
    aggregateID: checkAggregateID(given.aggregateID),
    after: given.after === undefined ? -1 : checkInteger("after", given.after, -1),
    follow: checkBoolean("follow", given.follow, false),
    synced: false,
  }
  // Asked before each item: how far a log goes on may not depend on where its pages end.
  const ended = () => {
    if (!transactions.closed) return false
    if (!reading.follow && !reading.synced) transactions.assertOpen()
    return true
  }
  return new Pulled((stopped) => pagesOf(context, reading, stopped), signal, ended)
}

async function* pagesOf(
  { handle, transactions, watch }: FollowContext,
  reading: Reading,
  stopped: AbortSignal,
): AsyncGenerator<LogItem[], undefined> {
  const { aggregateID, after, follow } = reading
  // Registered before anything is read: what is committed from here on ends the wait.
  const waiter = follow ? watch.waiter([aggregateID]) : undefined
  try {
    let last = after
    let removed = -1
    for (;;) {
      if (transactions.closed) return
      waiter?.reset()
      const watermark = native.sequence(handle, aggregateID)
      for (let done = false; !done;) {
        const page = native.logPage(handle, aggregateID, last, watermark, LOG_PAGE_ROWS)
        done = page[3]
        // A tombstone is found again until the reader is past it.
        const tombstone = page[2] !== null && page[2][0] > removed ? page[2] : null
        removed = tombstone?.[0] ?? removed
        last = Math.max(last, lastSeq(page), removed)
        yield pageItems(page, tombstone, aggregateID)
        if (reading.synced) await watch.settled(stopped)
        if (transactions.closed) return
      }
      last = Math.max(last, watermark)
      // A removal that came since has taken the reader further.
      const seq = Math.max(watermark, removed)
      const synced = reading.synced
      reading.synced = true
      if (!synced) yield [{ kind: "synced", aggregateID, seq }]
      if (waiter === undefined) return
      await waiter.next(stopped)
      await watch.settled(stopped)
      if (stopped.aborted) return
    }
  } finally {
    waiter?.release()
  }
}

/** The items of a page in the order of their seqs; what was removed lies before everything else. */
function pageItems([events, gaps]: LogPage, removed: LogPage[2], aggregateID: string): LogItem[] {
  const items: LogItem[] = []
  if (removed !== null) {
    const [seq, tombstone] = removed
    const item: LogItem = { kind: "removed", aggregateID, seq }
    if (eventCount(tombstone) > 0) item.event = lazySerialized(tombstone, 0)
    items.push(item)
  }
  let gap = 0
  const giveGapsBefore = (seq: number) => {
    for (; gap < gaps.length && (gaps[gap + 1] as number) < seq; gap += 2) {
      items.push({ kind: "gap", aggregateID, after: gaps[gap] as number, through: gaps[gap + 1] as number })
    }
  }
  const count = eventCount(events)
  for (let index = 0; index < count; index++) {
    const event = lazySerialized(events, index)
    giveGapsBefore(event.seq)
    items.push({ kind: "event", event })
  }
  giveGapsBefore(Infinity)
  return items
}

/** How far a page reaches; -1 for one that holds neither events nor gaps. */
function lastSeq([events, gaps]: LogPage): number {
  return Math.max(gaps.at(-1) ?? -1, lastEventSeq(events))
}
