// The process that `tail-latency` and `packing-latency` start for each round: runs 100,000 events and prints its
// percentiles as JSON. With an option `packing` for Syncline also how many events were packed meanwhile, and the longest
// hold of the write lock, which only `maintain` tells: its own slices, of some milliseconds, count in it too.
import fs from "node:fs"
import path from "node:path"
import { temporaryDirectory } from "./harness.mjs"
import { aggregateID, payload, payloads, primers } from "./workload.mjs"
import { readWal } from "./wal-file.mjs"

const runs = 100_000
// The first runs are the compiler's; they are not what a long-lived process feels.
const warmup = 2000

const [name, spread, packing] = process.argv.slice(2)
const aggregates = Number(spread ?? 1000)
const { open } = await import(name === "syncline" ? "./syncline.mjs" : `./rivals/${name}.mjs`)
const directory = temporaryDirectory()
try {
  const file = path.join(directory, "app.db")
  const side = packing === undefined ? open(file) : open(file, { packing: JSON.parse(packing) })
  for (const data of primers(aggregates)) side.run(data)
  for (let n = 0; n < warmup; n++) side.run(payload(n, aggregateID(n % aggregates)))
  const list = payloads(runs, aggregates, aggregates)
  globalThis.gc?.()
  const microseconds = new Float64Array(runs)
  const walBefore = readWal(`${file}-wal`).resets
  let largestWal = 0
  for (let n = 0; n < runs; n++) {
    const start = process.hrtime.bigint()
    side.run(list[n])
    microseconds[n] = Number(process.hrtime.bigint() - start) / 1000
    // A program that serves requests comes back to the event loop; a side with work to do there gets its turn, untimed.
    if (n % 100 === 99) await new Promise((resolve) => setImmediate(resolve))
    if (n % 1000 === 999) largestWal = Math.max(largestWal, fs.statSync(`${file}-wal`).size)
  }
  const resets = readWal(`${file}-wal`).resets - walBefore
  const packed = packing === undefined ? {} : await packedMeanwhile(side.store)
  side.close()
  if (resets === 0) throw new Error("No checkpoint happened, so this measured nothing")
  microseconds.sort()
  const at = (share) => microseconds[Math.min(runs - 1, Math.floor(runs * share))]
  console.log(
    JSON.stringify({
      p999: at(0.999),
      p50: at(0.5),
      p99: at(0.99),
      max: at(1),
      "mean of all": microseconds.reduce((sum, value) => sum + value, 0) / runs,
      "WAL resets": resets,
      "largest WAL in MiB": largestWal / 2 ** 20,
      ...packed,
    }),
  )
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}

async function packedMeanwhile(store) {
  // The view shows rows only.
  const rows = store.db.prepare("SELECT count(*) FROM event_log").pluck().get()
  const { longestHold } = packing === "false" ? { longestHold: 0 } : await store.maintain({ budget: 1 })
  return { "events packed": runs + warmup + aggregates - rows, "longest hold in ms": longestHold }
}
