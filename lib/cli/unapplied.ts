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
export async function warnOfLeft(output: Output, all: readonly Left[], what = "was left as it was"): Promise<void> {
  for (const { aggregateID, error, line } of all.slice(0, MOST_TOLD)) {
    const place = line === undefined ? "" : ` at line ${line}`
    const { code, message } = described(error)
    await output.warn(`${aggregateID} ${what}${place}: ${message}`, { aggregateID, code, message, line })
  }
  const more = all.length - MOST_TOLD
  if (more > 0) await output.warn(`The same is true of ${counted(more, "more aggregate")}.`)
}

/** Says that what was stored is not in the program's tables yet. */
export async function noteUnprojected(output: Output, store: Store): Promise<void> {
  if (store.stats({ largest: 0, aggregates: 0 }).unprojected.length === 0) return
  await output.note(
    "Some aggregates are stored, and not in the program's tables yet: the program has to `reproject` them.",
  )
}
