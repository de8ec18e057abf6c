import { checkBoolean, checkInteger, checkOptions } from "./argument"
import type { WriteContext } from "./context"
import { runJob, type JobOptions } from "./job"
import { native } from "./native"

/**
 * What maintenance did.
 * @example
 * const phases: MaintainReport["phase"][] = []
 * await store.maintain({ onProgress: ({ phase }: MaintainReport) => phases.push(phase) })
 * phases.at(-1) // → "done"
 */
export interface MaintainReport {
  /** What it is, or was last, at. */
  phase: "pack" | "compact" | "rewrite" | "vacuum" | "analyze" | "checkpoint" | "done"
  /** Events that were written into segments. */
  events: number
  /** Bytes of their data and metadata. */
  bytes: number
  /** Events that `compactKey` let go. */
  dropped: number
  /** Bytes that the file gave back. */
  freedBytes: number
  /** Whether the WAL was cut: a reader can prevent it. */
  truncated: boolean
  /**
   * Aggregates, by id, that were left as they are, because some of their events cannot be read; at most 100. `verify`
   * says what is wrong with them.
   */
  skipped: string[]
  /** The longest time for which maintenance in this store has held the write lock, in milliseconds. */
  longestHold: number
}

/**
 * What `maintain` resolves to.
 * @example const result: MaintainResult = await store.maintain() // → { events: 2, dropped: 0, complete: true, … }
 */
export interface MaintainResult extends MaintainReport {
  /** False: the budget was used up before everything was done. */
  complete: boolean
}

/**
 * What `maintain` takes.
 * @example
 * const options: MaintainOptions = { budget: 1_000, signal: AbortSignal.timeout(5_000) }
 * const { complete } = await store.maintain(options)
 */
export interface MaintainOptions extends JobOptions<MaintainReport> {
  /**
   * Ends after about this many milliseconds. Default: runs to completion, and packs aggregates that do not move meanwhile
   * whole; with a budget their newest events stay rows, as the option `packing` says.
   */
  budget?: number | undefined
  /**
   * Writes the whole file anew, in one transaction that needs as much room again: for files that were made without
   * incremental vacuum, which otherwise keep their size. Default false.
   */
  rewrite?: boolean | undefined
}

/** Packs, compacts, shrinks the file and cuts the WAL, in slices. */
export async function maintain(context: WriteContext, options?: MaintainOptions): Promise<MaintainResult> {
  const given = checkOptions("maintain", options, ["budget", "rewrite", "signal", "onProgress"])
  const budget = given.budget === undefined ? undefined : checkInteger("budget", given.budget, 1)
  const rewrite = checkBoolean("rewrite", given.rewrite, false)
  const begin = () => native.maintenance(context.handle, budget === undefined, rewrite)
  const until = budget === undefined ? Infinity : performance.now() + budget
  const { report, complete } = await runJob<MaintainReport>(context, "maintain", begin, given, until)
  return { ...report, complete }
}
