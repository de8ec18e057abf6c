import { setImmediate as nextTurn } from "node:timers/promises"
import type { WriteContext } from "../../context"
import type { SyncError } from "../../errors"
import { native } from "../../native"
import type { Capacity } from "../../stream"
import type { Waiter } from "../../watch"
import { Continuity } from "./continuity"
import { Follower, type Wants } from "./follower"
import { framesOf, message } from "./frame"

/** Events read at once. */
const ROWS = 256

/** Erasures looked for at once. */
const ERASURES = 1_000

/**
 * The end of the log, read and encoded once for all who follow it, from the first of them to the last. It is what is
 * committed that is read here, by whomever, and not what the store publishes: so no conversion delays or drops anything, no
 * listener can have changed an event, and what is erased is told before what comes after it.
 */
export class Tail {
  readonly #followers = new Set<Follower>()
  #stop = new AbortController()
  /** Through here the followers have been given all events, and were told of all erasures. */
  #position = 0
  #erasures = 0
  #continuity: Continuity

  constructor(
    private readonly store: WriteContext,
    /** Milliseconds. */
    private readonly heartbeat: number,
  ) {
    this.#continuity = new Continuity(store)
  }

  /**
   * What is committed after a position, which was the last one at some time in this turn of the event loop; and, where others
   * follow already, perhaps some of what was committed before it.
   */
  follow(position: number, wants: Wants, capacity: Capacity, overflows: (error: SyncError) => void): Follower {
    if (this.#followers.size === 0) this.#begin(position)
    const follower: Follower = new Follower(wants, capacity, this.heartbeat, overflows, () => {
      this.#followers.delete(follower)
      if (this.#followers.size === 0) this.#stop.abort()
    })
    this.#followers.add(follower)
    return follower
  }

  #begin(position: number): void {
    const waiter = this.store.watch.waiter()
    this.#position = position
    this.#erasures = position
    this.#continuity = new Continuity(this.store)
    this.#stop = new AbortController()
    void this.#run(waiter, this.#stop.signal)
  }

  async #run(waiter: Waiter, stopped: AbortSignal): Promise<void> {
    const { watch, transactions } = this.store
    try {
      while (!transactions.closed) {
        await watch.settled(stopped)
        if (stopped.aborted) return
        if (transactions.closed) break
        waiter.reset()
        if (this.#look()) await waiter.next(stopped)
        else await nextTurn()
        if (stopped.aborted) return
      }
      this.#end()
    } catch (error) {
      this.#end({ error })
    } finally {
      waiter.release()
    }
  }

  /** Hands over the next page of what was committed. Answers whether that was all. */
  #look(): boolean {
    const { handle } = this.store
    const [page, through, done] = native.committed(handle, this.#position, ROWS)
    const [erasedThrough, ...erased] = native.erased(handle, this.#erasures, ERASURES)
    // Before the events: who holds what was erased must not go on behind it as if nothing had happened.
    for (let at = 0; at < erased.length; at += 2) {
      this.#tellErased(erased[at] as string, erased[at + 1] as number)
    }
    for (const frame of framesOf(page)) {
      // Compaction was faster than this.
      if (!this.#continuity.holds(frame)) this.#tellErased(frame.aggregateID, frame.seq)
      for (const follower of this.#followers) follower.give(frame)
    }
    this.#position = through
    this.#erasures = erasedThrough
    return done && erased.length < 2 * ERASURES
  }

  #tellErased(aggregateID: string, seq: number): void {
    this.#continuity.reaches(aggregateID, seq)
    const told = message("erased", { aggregateID, seq })
    for (const follower of this.#followers) follower.giveErased(aggregateID, told)
  }

  #end(failure?: { readonly error: unknown }): void {
    for (const follower of this.#followers) follower.end(failure)
  }
}
