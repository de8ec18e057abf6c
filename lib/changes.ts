import { setImmediate as nextTurn } from "node:timers/promises"
import { checkOptions, checkSignal } from "./argument"
import type { FollowContext } from "./log"
import { native } from "./native"
import { Pulled } from "./pull"

/**
 * What `changes` yields: which aggregates moved, or that any may have.
 * @example
 * const { value }: IteratorResult<Change, undefined> = await store.changes().next()
 * value // → { kind: "sweep" }
 */
export type Change =
  /** `seq` is the last one that the aggregate had when this was found out. */
  | { kind: "hint"; aggregateID: string; seq: number }
  /** Compare all sequences: at the start, and where more has moved than hints are told of. */
  | { kind: "sweep" }

/**
 * What `changes` takes.
 * @example
 * const options: ChangesOptions = { signal: AbortSignal.abort() }
 * await store.changes(options).next() // → { value: undefined, done: true }
 */
export interface ChangesOptions {
  /** Ends the iteration, without an error. */
  signal?: AbortSignal | undefined
}

/** Aggregates that moved between two pulls, past which a sweep is cheaper than hints: what a slow reader costs in memory. */
const MOST_HINTS = 1_000

/** Event rows looked at in one turn of the event loop. */
const ROWS = 10_000

const SWEEP: Change = Object.freeze({ kind: "sweep" })

/** Tells what moved, as it is pulled: nothing is queued, and what moved twice is told once. */
export function changes(context: FollowContext, options?: ChangesOptions): AsyncIterableIterator<Change, undefined> {
  const { transactions } = context
  transactions.assertOpen()
  const signal = checkSignal(checkOptions("changes", options, ["signal"]).signal)
  const pages = (stopped: AbortSignal) => pagesOf(context, stopped)
  return new Pulled(pages, signal, () => transactions.closed)
}

async function* pagesOf(
  { handle, transactions, watch }: FollowContext,
  stopped: AbortSignal,
): AsyncGenerator<readonly Change[], undefined> {
  const waiter = watch.waiter()
  try {
    let position = native.lastPosition(handle)
    yield [SWEEP]
    while (!transactions.closed && !stopped.aborted) {
      await watch.settled(stopped)
      if (transactions.closed) return
      waiter.reset()
      try {
        const hints = new Map<string, number>()
        for (let done = false; !done && hints.size <= MOST_HINTS;) {
          const [through, last, ...moved] = native.moved(handle, position, ROWS)
          for (let at = 0; at < moved.length; at += 2) hints.set(moved[at] as string, moved[at + 1] as number)
          position = through
          done = last
          if (!done) await nextTurn()
          if (transactions.closed) return
        }
        if (hints.size > MOST_HINTS) {
          position = native.lastPosition(handle)
          yield [SWEEP]
        } else if (hints.size > 0) {
          yield Array.from(hints, ([aggregateID, seq]): Change => ({ kind: "hint", aggregateID, seq }))
        } else {
          await waiter.next(stopped)
        }
      } catch {
        // Whoever sweeps meets the error; the next commit is another chance.
        yield [SWEEP]
        await waiter.next(stopped)
      }
    }
  } finally {
    waiter.release()
  }
}
