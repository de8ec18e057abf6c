import { checkInteger, checkOptions } from "./argument"
import { native } from "./native"
import type { ReadContext } from "./read"

/** What `stats` takes. */
export interface StatsOptions {
  /** How many of the largest events to list, through 10,000. Default 10. */
  largest?: number | undefined
  /** How many aggregates to list, those with the most bytes, through 10,000. Default 100. */
  aggregates?: number | undefined
}

/** Events and their bytes. */
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

/** The share of one type. */
export interface TypeStats extends Share {
  /** With its version, as stored. */
  type: string
}

/** The share of one aggregate. */
export interface AggregateStats extends Share {
  aggregateID: string
}

/** A large event. */
export interface LargestEvent {
  aggregateID: string
  seq: number
  /** With its version, as stored. */
  type: string
  /** Bytes of its `data`. */
  bytes: number
}

/** An aggregate that is not projected to its end. */
export interface UnprojectedAggregate {
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

/** What a store tells of itself. The totals are those of all events. */
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
