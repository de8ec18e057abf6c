import { setTimeout as pause } from "node:timers/promises"
import type { Store } from "syncline"
import type { Recorded } from "./sessions"

/** Runs events, evenly over some milliseconds. `each` hears of an event before it is run, and says whether it is. */
export async function write(
  store: Store,
  events: readonly Recorded[],
  duration: number,
  each: (index: number) => boolean = () => true,
): Promise<number> {
  const started = performance.now()
  let written = 0
  for (const [index, { type, data }] of events.entries()) {
    const late = performance.now() - started - (index / events.length) * duration
    if (late < 0) await pause(-late)
    if (!each(index)) continue
    store.run(type, data)
    written++
  }
  return written
}
