import { checkInteger, checkOptions, checkSequences, checkSignal, type Sequences } from "./argument"
import { SyncError } from "./errors"
import type { FollowContext } from "./log"
import { sequences } from "./read"
import type { Waiter } from "./watch"

/**
 * What `waitFor` takes.
 * @example
 * const options: WaitOptions = { timeout: 10, signal: AbortSignal.timeout(5_000) }
 * await store.waitFor({ ses_1: 2 }, options) // throws ERR_TIMEOUT
 */
export interface WaitOptions {
  /** Milliseconds; then it rejects with `ERR_TIMEOUT`. Default: none, it waits until the store is closed. */
  timeout?: number | undefined
  /** Gives up waiting: `ERR_ABORTED`. */
  signal?: AbortSignal | undefined
}

/**
 * The seqs to wait for, by aggregate.
 * @example
 * const seqs: WaitSequences = { ses_1: 1 }
 * await store.waitFor(seqs)
 */
export type WaitSequences = Sequences

/** The longest that a timer can run. */
const MAX_TIMEOUT = 2 ** 31 - 1

/** Resolves when the database holds at least these seqs, whoever commits them. */
export async function waitFor(context: FollowContext, seqs: WaitSequences, options?: WaitOptions): Promise<void> {
  context.transactions.assertOpen()
  const missing = new Map<string, Missing>()
  for (const [id, seq] of checkSequences("waitFor", seqs)) missing.set(id, { seq, held: -1 })
  const { timeout, signal } = checkOptions("waitFor", options, ["timeout", "signal"])
  if (timeout !== undefined) checkInteger("timeout", timeout, 0, MAX_TIMEOUT)
  checkSignal(signal)
  const started = performance.now()
  const over = new AbortController()
  const end = () => over.abort()
  if (signal?.aborted) end()
  const timer = timeout === undefined ? undefined : setTimeout(end, timeout)
  signal?.addEventListener("abort", end, { once: true })
  let waiter: Waiter | undefined
  try {
    // Not inside a transaction of the caller, which may be rolled back.
    await undefined
    for (;;) {
      // Nor in a raw one, also not to tell what is missing.
      await context.watch.settled(over.signal)
      waiter?.reset()
      const reached = !over.signal.aborted && forget(context, missing)
      if (signal?.aborted) throw aborted(signal)
      if (reached) return
      if (over.signal.aborted) throw timedOut(missing, Math.round(performance.now() - started))
      if (waiter === undefined) waiter = context.watch.waiter([...missing.keys()])
      else await waiter.next(over.signal)
    }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener("abort", end)
    waiter?.release()
  }
}

/** A seq that is waited for, and the one that was held when last looked. */
interface Missing {
  readonly seq: number
  held: number
}

/** Forgets what is held by now. True: that was all. */
function forget(context: FollowContext, missing: Map<string, Missing>): boolean {
  const held = sequences(context, missing.keys())
  for (const [id, one] of missing) {
    one.held = held.get(id) ?? -1
    if (one.held >= one.seq) missing.delete(id)
  }
  return missing.size === 0
}

function aborted(signal: AbortSignal): SyncError {
  return new SyncError("ERR_ABORTED", "The wait was aborted", { cause: signal.reason })
}

function timedOut(missing: Map<string, Missing>, waited: number): SyncError {
  const [aggregateID, { seq: expected, held: got }] = missing.entries().next().value as [string, Missing]
  const others = missing.size > 1 ? `, and ${missing.size - 1} more` : ""
  return new SyncError(
    "ERR_TIMEOUT",
    `Aggregate "${aggregateID}" had seq ${got} after ${waited} ms, not ${expected}${others}`,
    { aggregateID, expected, got, waited },
  )
}
