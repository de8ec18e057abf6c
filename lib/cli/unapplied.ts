import type { Store } from "../store"
import { described } from "./failure"
import type { Output } from "./output"
import { counted } from "./text"

/** Aggregates that are told of one by one. */
const MOST_TOLD = 20

/** An aggregate that was left where it stands, and why. */
export interface Left {
  readonly aggregateID: string
  readonly error: unknown
  /** Of an import. */
  readonly line?: number
}

/** Tells which aggregates could not go on. */
export async function warnOfParked(output: Output, parked: readonly Left[]): Promise<void> {
  for (const { aggregateID, error, line } of parked.slice(0, MOST_TOLD)) {
    const place = line === undefined ? "" : ` at line ${line}`
    const { code, message } = described(error)
    await output.warn(`${aggregateID} was left as it was${place}: ${message}`, { aggregateID, code, message, line })
  }
  const more = parked.length - MOST_TOLD
  if (more > 0) await output.warn(`${counted(more, "more aggregate was", "more aggregates were")} left as they were.`)
}

/** Says that what was stored is not in the program's tables yet. */
export async function noteUnprojected(output: Output, store: Store): Promise<void> {
  if (store.stats({ largest: 0, aggregates: 0 }).unprojected.length === 0) return
  await output.note(
    "Some aggregates are stored, and not in the program's tables yet: the program has to `reproject` them.",
  )
}
