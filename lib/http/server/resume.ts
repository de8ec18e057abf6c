import type { WriteContext } from "../../context"
import { native } from "../../native"
import { Continuity } from "./continuity"
import type { Wants } from "./follower"
import { framesOf } from "./frame"

/** A part of what a follower has missed. */
export interface Missed {
  readonly bytes: readonly Buffer[]
  /** Nothing is left: what comes from here on is for the tail to tell. */
  readonly done: boolean
  /** It cannot be told one by one, and nothing of this part was: only the log itself can say it. */
  readonly swept: boolean
}

/** Reads what a follower has missed, part by part. */
export interface Catchup {
  readonly next: () => Missed
  /** The id of the last event that has been given; at the end, of the last that there was. */
  readonly reached: number
  /** At the end: what was committed through here has been given, so that the tail is to begin here. */
  readonly position: number
}

/** Events read at once. */
const ROWS = 256

/** Erasures looked for at once. */
const ERASURES = 1_000

const SWEPT: Missed = { bytes: [], done: true, swept: true }

/** Nothing: a follower that wants what is new. */
export class FromNow implements Catchup {
  reached = 0

  get position(): number {
    return this.reached
  }

  constructor(private readonly store: WriteContext) {}

  next(): Missed {
    this.reached = native.lastPosition(this.store.handle)
    return { bytes: [], done: true, swept: false }
  }
}

/** What was committed after a position. */
export class AfterPosition implements Catchup {
  #erasures: number
  readonly #continuity: Continuity

  constructor(
    private readonly store: WriteContext,
    private readonly wants: Wants,
    /** Through here everything has been given. */
    public reached: number,
  ) {
    this.#erasures = reached
    this.#continuity = new Continuity(store)
  }

  get position(): number {
    return this.reached
  }

  next(): Missed {
    const { handle } = this.store
    const last = native.lastPosition(handle)
    // The follower comes from another file, or this one is an older copy.
    if (this.reached > last) return this.#sweep()
    const [page, through, done] = native.committed(handle, this.reached, ROWS)
    const frames = framesOf(page).filter(({ aggregateID }) => this.wants.aggregate(aggregateID))
    // Only now: what was erased before the page was read is missing in it.
    if (this.#isErased()) return this.#sweep()
    for (const frame of frames) if (!this.#continuity.holds(frame)) return this.#sweep()
    this.reached = through
    return { bytes: frames.filter(this.wants.event).map(this.wants.encode), done, swept: false }
  }

  #sweep(): Missed {
    this.reached = native.lastPosition(this.store.handle)
    return SWEPT
  }

  /** Whether something was removed, or has become a gap, that took a position. */
  #isErased(): boolean {
    for (;;) {
      const [through, ...erased] = native.erased(this.store.handle, this.#erasures, ERASURES)
      this.#erasures = through
      if (erased.some((id, at) => at % 2 === 0 && this.wants.aggregate(id as string))) return true
      if (erased.length < 2 * ERASURES) return false
    }
  }
}

/** What one aggregate's log holds after a seq. */
export class AfterSeq implements Catchup {
  position = 0

  constructor(
    private readonly store: WriteContext,
    private readonly wants: Wants,
    private readonly aggregateID: string,
    /** Through here everything has been given. */
    public reached: number,
  ) {}

  next(): Missed {
    const { handle } = this.store
    // Before the log: others may commit between two reads, and that must not be missing in both.
    this.position = native.lastPosition(handle)
    const last = native.sequence(handle, this.aggregateID)
    const [page, gaps, removed, done] = native.logPage(handle, this.aggregateID, this.reached, last, ROWS)
    if (this.reached > last || gaps.length > 0 || removed !== null) {
      this.reached = last
      return SWEPT
    }
    const frames = framesOf(page)
    this.reached = frames.at(-1)?.seq ?? this.reached
    return { bytes: frames.filter(this.wants.event).map(this.wants.encode), done, swept: false }
  }
}
