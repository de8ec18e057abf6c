import { checkInteger, checkOptions } from "./argument"
import { native } from "./native"
import type { ReadContext } from "./read"

/**
 * What `stats` takes.
 * @example
 * const options: StatsOptions = { largest: 1, aggregates: 1 }
 * store.stats(options).largest.length // → 1
 */
export interface StatsOptions {
  /** How many of the largest events to list, through 10,000. Default 10. */
  largest?: number | undefined
  /** How many aggregates to list, those with the most bytes, through 10,000. Default 100. */
  aggregates?: number | undefined
}

/**
 * Events and their bytes.
 * @example
 * const { events, rawBytes, packedShare }: Share = store.stats()
 * packedShare // → 0
 */
export interface Share {
  /** How many. */
  events: number
  /** Bytes of their `data`. */
  rawBytes: number
  /**
   * Bytes that they take in the file, about: of those that are packed, their part of the segments; of the others, data,
   * metadata and 100 bytes each.
   */
  storedBytes: number
  /** The part of `rawBytes` that is packed: from 0 through 1. */
  packedShare: number
}

/**
 * The share of one type.
 * @example
 * const [first]: TypeStats[] = store.stats().types
 * first // → { type: "session.renamed.1", events: 1, rawBytes: 45, … }
 */
export interface TypeStats extends Share {
  /** With its version, as stored. */
  type: string
}

/**
 * The share of one aggregate.
 * @example
 * const [first]: AggregateStats[] = store.stats().aggregates
 * first // → { aggregateID: "ses_1", events: 2, … }
 */
export interface AggregateStats extends Share {
  /** Its id. */
  aggregateID: string
}

/**
 * A large event.
 * @example
 * const [first]: LargestEvent[] = store.stats().largest
 * first // → { aggregateID: "ses_1", seq: 1, type: "session.renamed.1", bytes: 45 }
 */
export interface LargestEvent {
  /** Whose event it is. */
  aggregateID: string
  /** Its place in that aggregate. */
  seq: number
  /** With its version, as stored. */
  type: string
  /** Bytes of its `data`. */
  bytes: number
}

/**
 * An aggregate that is not projected to its end.
 * @example
 * const event = { id: "evt_1", type: "session.starred.1", aggregateID: "ses_2", seq: 0, data: { sessionID: "ses_2" } }
 * store.replay(event, { unknown: "record" })
 * const [first]: UnprojectedAggregate[] = store.stats().unprojected
 * first // → { aggregateID: "ses_2", seq: 0, projected: -1, type: "session.starred.1" }
 */
export interface UnprojectedAggregate {
  /** Its id. */
  aggregateID: string
  /** The last one that it holds. */
  seq: number
  /** The last one that is projected; -1 for none. */
  projected: number
  /**
   * Of the first event after that, with its version: the one that the store did not know when it was recorded. Empty where
   * it cannot be read.
   */
  type: string
}

/**
 * What a store tells of itself. The totals are those of all events.
 * @example
 * const { aggregateCount, lastPosition }: Stats = store.stats()
 * lastPosition // → 2
 */
export interface Stats extends Share {
  /** Bytes of the database file. */
  fileBytes: number
  /** Bytes of the WAL file. It keeps its size when it begins anew. */
  walBytes: number
  /** Bytes of the WAL that are in use. */
  walUsedBytes: number
  /**
   * At the last attempt, a read transaction that somebody holds open kept the WAL from beginning anew; it grows until that
   * ends. It is attempted from 32 MiB on.
   */
  walHeld: boolean
  /** Bytes of a page. */
  pageSize: number
  /** Pages of the database. */
  pages: number
  /** Pages that hold nothing: what is written next goes there. */
  freePages: number
  /**
   * Free pages can be given back to the file system. False for a file that another program made: it reuses them and keeps
   * its size, until `maintain({ rewrite: true })`.
   */
  reclaims: boolean
  /** Whether this store packs by itself. */
  packing: boolean
  /** The longest time for which maintenance in this store has held the write lock, in milliseconds. */
  longestHold: number
  /** The position of the last commit to the log. */
  lastPosition: number
  /** How many aggregates are known, removed ones included. */
  aggregateCount: number
  /**
   * More than 10,000 events are not packed, so that a sample of 2,000 stands for them: of those, bytes and types are
   * estimates, and the largest may have been missed. The number of all events and of each aggregate's, and all that is
   * packed, are exact.
   */
  sampled: boolean
  /** Every type that has events, the one with the most `rawBytes` first. */
  types: TypeStats[]
  /** Aggregates that have events, those with the most `rawBytes` first, at most as many as were asked for. */
  aggregates: AggregateStats[]
  /** The largest events first. Of one type in one segment (1,024 events), only the largest is known. */
  largest: LargestEvent[]
  /** What waits for `reproject`, in the order of creation, at most 100. */
  unprojected: UnprojectedAggregate[]
}

/** Lists are made in memory. */
const MOST_LISTED = 10_000

/** What the files and the log hold. */
export function stats({ handle, transactions }: ReadContext, options?: StatsOptions): Stats {
  transactions.assertOpen()
  const given = checkOptions("stats", options, ["largest", "aggregates"])
  const largest = given.largest === undefined ? 10 : checkInteger("largest", given.largest, 0, MOST_LISTED)
  const aggregates = given.aggregates === undefined ? 100 : checkInteger("aggregates", given.aggregates, 0, MOST_LISTED)
  return JSON.parse(native.stats(handle, largest, aggregates)) as Stats
}
