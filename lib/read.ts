import { MAX_SEQ, checkAggregateID, checkChoice, checkInteger, checkOptions, checkText } from "./argument"
import { invalidArgument, show } from "./errors"
import { native } from "./native"
import type { Ownership } from "./owner"
import {
  eventCount,
  lazyPositioned,
  lazySerialized,
  type EventPage,
  type PositionedEvent,
  type SerializedEvent,
} from "./payload"
import type { WriteContext } from "./context"

/**
 * What `read` takes.
 * @example
 * const options: ReadOptions = { order: "desc", limit: 1 }
 * store.read("ses_1", options).map(({ seq }) => seq) // → [1]
 */
export interface ReadOptions {
  /** Only events with a greater seq. Default -1: from the start. */
  after?: number | undefined
  /** Only events with a smaller seq. Default: through the last. */
  before?: number | undefined
  /** How many events at most. Default: all of them. */
  limit?: number | undefined
  /** By seq. Default "asc". */
  order?: "asc" | "desc" | undefined
}

/**
 * What `readAll` takes.
 * @example
 * const options: ReadAllOptions = { afterPosition: 1, limit: 100 }
 * store.readAll(options).map(({ position }) => position) // → [2]
 */
export interface ReadAllOptions {
  /** Only events committed after this position. Default 0: from the start. */
  afterPosition?: number | undefined
  /** How many events at most. */
  limit: number
}

/**
 * What `aggregates` takes.
 * @example
 * const options: AggregatesOptions = { prefix: "ses_", after: "ses_1", limit: 10 }
 * store.aggregates(options) // → []
 */
export interface AggregatesOptions {
  /** Only ids that begin with it. Default: any. */
  prefix?: string | undefined
  /** Only ids that come after it, in the order of their UTF-8 bytes. Default: from the first. */
  after?: string | undefined
  /** How many aggregates at most. Default: all of them. */
  limit?: number | undefined
}

/**
 * One aggregate in the list of them.
 * @example
 * const [first]: AggregateSummary[] = store.aggregates()
 * first // → { aggregateID: "ses_1", seq: 1, owner: null, epoch: 0 }
 */
export interface AggregateSummary extends Ownership {
  /** Its id. */
  aggregateID: string
  /** The last one; never lowered. */
  seq: number
  /** The last seq that is projected (-1: none), only where that is not `seq`: see `reproject`. */
  projected?: number
}

/** What reading needs of a store. */
export type ReadContext = Pick<WriteContext, "handle" | "transactions">

/** Rows asked for at once; a page is bounded by its bytes too. */
export const READ_PAGE_ROWS = 1_000

/** The stored events of one aggregate. */
export function read(
  { handle, transactions }: ReadContext,
  aggregateID: string,
  options?: ReadOptions,
): SerializedEvent[] {
  transactions.assertOpen()
  checkAggregateID(aggregateID)
  const given = checkOptions("read", options, ["after", "before", "limit", "order"])
  const limit = given.limit === undefined ? Infinity : checkInteger("limit", given.limit, 0)
  const descending = checkChoice("order", given.order, ["asc", "desc"], "asc") === "desc"
  let after = given.after === undefined ? -1 : checkInteger("after", given.after, -1)
  let before = given.before === undefined ? -1 : checkInteger("before", given.before, 0)
  return paged(limit, lazySerialized, (rows, last) => {
    if (last !== undefined && descending) before = last.seq
    else if (last !== undefined) after = last.seq
    // Nothing lies before the first event, and -1 would mean no bound.
    return before === 0 ? undefined : native.read(handle, aggregateID, after, before, rows, descending)
  })
}

/** All stored events, in the order of their commits. */
export function readAll({ handle, transactions }: ReadContext, options: ReadAllOptions): PositionedEvent[] {
  transactions.assertOpen()
  const given = checkOptions("readAll", options, ["afterPosition", "limit"])
  const limit = checkInteger("limit", given.limit, 0)
  let after = given.afterPosition === undefined ? 0 : checkInteger("afterPosition", given.afterPosition, 0)
  return paged(limit, lazyPositioned, (rows, last) => {
    if (last !== undefined) after = last.position
    return native.readAll(handle, after, rows)
  })
}

export function get(
  { handle, transactions }: ReadContext,
  aggregateID: string,
  seq: number,
): SerializedEvent | undefined {
  transactions.assertOpen()
  const page = native.get(handle, checkAggregateID(aggregateID), checkInteger("seq", seq, 0, MAX_SEQ))
  return eventCount(page) === 0 ? undefined : lazySerialized(page, 0)
}

export function sequence({ handle, transactions }: ReadContext, aggregateID: string): number {
  transactions.assertOpen()
  return native.sequence(handle, checkAggregateID(aggregateID))
}

export function sequences({ handle, transactions }: ReadContext, aggregateIDs?: Iterable<string>): Map<string, number> {
  transactions.assertOpen()
  const flat = native.sequences(handle, aggregateIDs === undefined ? null : checkedIDs(aggregateIDs))
  const found = new Map<string, number>()
  for (let at = 0; at < flat.length; at += 2) found.set(flat[at] as string, flat[at + 1] as number)
  return found
}

/** The aggregates of the log, ordered by id. */
export function aggregates({ handle, transactions }: ReadContext, options?: AggregatesOptions): AggregateSummary[] {
  transactions.assertOpen()
  const given = checkOptions("aggregates", options, ["prefix", "after", "limit"])
  const prefix = given.prefix === undefined ? "" : checkText("prefix", given.prefix)
  const limit = given.limit === undefined ? Infinity : checkInteger("limit", given.limit, 0)
  let after = given.after === undefined ? "" : checkText("after", given.after)
  const list: AggregateSummary[] = []
  while (list.length < limit) {
    const flat = native.aggregates(handle, prefix, after, Math.min(limit - list.length, READ_PAGE_ROWS))
    if (flat.length === 0) break
    for (let at = 0; at < flat.length; at += 5) list.push(summary(flat, at))
    after = (list.at(-1) as AggregateSummary).aggregateID
  }
  return list
}

/** Asks for pages until `limit` is reached or nothing is left. A short page is no sign of the end. */
function paged<T>(
  limit: number,
  make: (page: EventPage, index: number) => T,
  ask: (rows: number, last: T | undefined) => EventPage | undefined,
): T[] {
  const events: T[] = []
  while (events.length < limit) {
    const page = ask(Math.min(limit - events.length, READ_PAGE_ROWS), events.at(-1))
    const count = page === undefined ? 0 : eventCount(page)
    if (page === undefined || count === 0) break
    for (let index = 0; index < count; index++) events.push(make(page, index))
  }
  return events
}

function checkedIDs(aggregateIDs: Iterable<string>): string[] {
  if (typeof aggregateIDs === "string" || typeof aggregateIDs?.[Symbol.iterator] !== "function") {
    throw invalidArgument(`sequences needs an iterable of aggregate ids, not ${show(aggregateIDs)}`)
  }
  return [...aggregateIDs].map(checkAggregateID)
}

function summary(flat: readonly unknown[], at: number): AggregateSummary {
  const listed: AggregateSummary = {
    aggregateID: flat[at] as string,
    seq: flat[at + 1] as number,
    owner: flat[at + 2] as string | null,
    epoch: flat[at + 3] as number,
  }
  if (flat[at + 4] !== null) listed.projected = flat[at + 4] as number
  return listed
}
