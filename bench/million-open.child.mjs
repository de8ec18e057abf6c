// The process that `million-open` starts for each file of each round: prints how long each first thing took as JSON.
import fs from "node:fs"
import { aggregates } from "./million.mjs"
import { open } from "./syncline.mjs"
import { aggregateID, payload } from "./workload.mjs"

const [file] = process.argv.slice(2)
const data = payload(0, aggregateID(aggregates >> 1))
let side
const took = {
  open: await milliseconds(() => (side = open(file))),
  "first run": await milliseconds(() => side.run(data)),
}
if (side.store.stats) took.stats = await milliseconds(() => side.store.stats())
const rows = side.db.prepare("SELECT count(*) FROM event_log").pluck().get()
side.close()
console.log(JSON.stringify({ ...took, rows, MiB: fs.statSync(file).size / 2 ** 20 }))

async function milliseconds(step) {
  const start = process.hrtime.bigint()
  const pending = step()
  if (typeof pending?.then === "function") await pending
  return Number(process.hrtime.bigint() - start) / 1e6
}
