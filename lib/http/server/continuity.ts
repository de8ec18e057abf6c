import type { WriteContext } from "../../context"
import { native } from "../../native"
import { eventCount } from "../../payload"
import type { EventFrame } from "./frame"

/** Aggregates whose last seq is remembered: of others the log is asked. */
const REMEMBERED = 10_000

/** Compaction takes no position: it shows in what is missing before an event. The newest of an aggregate it never takes. */
export class Continuity {
  /** The last seqs that were met. */
  readonly #met = new Map<string, number>()

  constructor(private readonly store: WriteContext) {}

  /** Whether an event, of events in the order of commits, comes next in its aggregate: nothing before it was let go of unseen. */
  holds({ aggregateID, seq }: EventFrame): boolean {
    const met = this.#met.get(aggregateID)
    this.reaches(aggregateID, seq)
    if (met !== undefined) return seq <= met + 1
    return seq === 0 || this.#has(aggregateID, seq - 1)
  }

  /** What is missing of an aggregate through a seq is known. */
  reaches(aggregateID: string, seq: number): void {
    const met = this.#met.get(aggregateID)
    if (met === undefined && this.#met.size >= REMEMBERED) this.#met.clear()
    this.#met.set(aggregateID, Math.max(seq, met ?? seq))
  }

  /** As an event, or as the last one that a removal took, which is told by itself. */
  #has(aggregateID: string, seq: number): boolean {
    const { handle } = this.store
    if (eventCount(native.get(handle, aggregateID, seq)) > 0) return true
    const [, , removed] = native.logPage(handle, aggregateID, seq, seq, 1)
    return removed?.[0] === seq
  }
}
