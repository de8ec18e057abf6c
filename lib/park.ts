import { syncErrorOf } from "./errors"
import { STATE, native, type Batch } from "./native"
import type { Transactions } from "./transaction"

/** Why, and at which item, an aggregate was left. */
interface Parked {
  readonly error: unknown
  readonly index: number
}

/**
 * One bad event does not stop the others: the aggregates of one replay that have stopped at an item. Items are applied some
 * hundreds at a time inside one savepoint. Where one of them fails, that is rolled back and they are applied again, each in
 * a savepoint of its own, so that only what fails costs anything.
 */
export class Parking {
  readonly parked = new Map<string, Parked>()
  /** The item whose JavaScript projector runs; undefined: Rust is at work. */
  projecting: number | undefined

  constructor(
    private readonly transactions: Transactions,
    private readonly batch: Batch,
  ) {}

  isParked(aggregateID: string): boolean {
    return this.parked.has(aggregateID)
  }

  /** Leaves the item's aggregate from it on; throws what is no matter of one aggregate. */
  park(index: number, error: unknown): void {
    if (concernsAll(error) || native.state(this.transactions.handle) === STATE.lost) throw error
    const aggregateID = native.replayPark(this.batch, index)
    if (aggregateID === null) throw error
    // A later item was checked before this one was applied.
    if ((this.parked.get(aggregateID)?.index ?? index) >= index) this.parked.set(aggregateID, { error, index })
  }

  /** Applies items in order, `apply` those of one savepoint. */
  apply(from: number, to: number, apply: (from: number, to: number) => void): void {
    for (let at = from; at < to; at += TOGETHER) {
      const end = Math.min(at + TOGETHER, to)
      if (this.#attempt(at, end, apply)) continue
      for (let index = at; index < end; index++) this.#attempt(index, index + 1, apply)
    }
  }

  /** False: nothing of it was done, and the aggregate that it failed for is parked. */
  #attempt(from: number, to: number, apply: (from: number, to: number) => void): boolean {
    native.replayMark(this.batch)
    this.projecting = undefined
    try {
      this.transactions.write(() => apply(from, to))
      return true
    } catch (error) {
      native.replayRewind(this.batch)
      const index = this.projecting ?? native.replayFailed(this.batch)
      if (index < 0) throw error
      this.park(index, error)
      return false
    }
  }
}

/** Items of one savepoint: what is rolled back where one fails, and what SQLite keeps for that in memory. */
const TOGETHER = 500

/** What would fail for every other event as well, or says that the call is wrong. */
function concernsAll(thrown: unknown): boolean {
  const error = syncErrorOf(thrown)
  if (error === undefined) return false
  // Events that cannot be read are those of one aggregate, which the error then names.
  if (error.code === "ERR_CORRUPT") return error.aggregateID === undefined
  return OF_ALL.has(error.code) || (error.code === "ERR_SQLITE" && DISK.test(error.sqliteCode ?? ""))
}

const OF_ALL: ReadonlySet<string> = new Set([
  "ERR_ASYNC_SCHEMA",
  "ERR_BUSY",
  "ERR_CLOSED",
  "ERR_DISK_FULL",
  "ERR_FILE_GONE",
  "ERR_NOT_A_DATABASE",
  "ERR_POISONED",
  "ERR_READONLY",
  "ERR_TOO_LARGE",
])
const DISK = /^SQLITE_(IOERR|NOMEM|CANTOPEN|PROTOCOL|LOCKED|INTERNAL|INTERRUPT)/
