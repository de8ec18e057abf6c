// The side that `run`, `run-sql` and `run-all` share: a primed file that grows by the same payloads on every side, a
// commit each event or each batch.
import path from "node:path"
import { payloads, primers } from "./workload.mjs"

/** How many aggregates the events are spread over. */
export const aggregates = 1000

/**
 * A side that writes `units` events a round, each in its own commit, or `batch` of them in one commit. `openStore` is
 * given a path and returns `{run, runAll?, close}`, or a promise of it.
 */
export function committingSide({ name, openStore, units, batch = 1, syncline = false }) {
  let side
  let first = aggregates
  return {
    name,
    units,
    syncline,
    async open(directory) {
      side = await openStore(path.join(directory, "app.db"))
      for (const data of primers(aggregates)) await side.run(data)
    },
    prepare() {
      const list = payloads(units, aggregates, first)
      first += units
      if (batch === 1) return list
      return Array.from({ length: units / batch }, (_, n) => list.slice(n * batch, (n + 1) * batch))
    },
    round(prepared) {
      const write = batch === 1 ? side.run : side.runAll
      // Awaiting what is not a promise would cost the synchronous sides a turn of the event loop for each event.
      const started = write(prepared[0])
      if (typeof started?.then !== "function") {
        for (let n = 1; n < prepared.length; n++) write(prepared[n])
        return
      }
      return (async () => {
        await started
        for (let n = 1; n < prepared.length; n++) await write(prepared[n])
      })()
    },
    async close() {
      const held = await side.count()
      if (held !== first) throw new Error(`${name} holds ${held} events where ${first} were run`)
      await side.close()
    },
  }
}
