// How many pages does one `run` add to the WAL? Counted in the WAL itself, not measured: the one answer that a noisy
// machine cannot change, so a missed target fails the run. Packing is off: what its slices write is not the run's.
import path from "node:path"
import { aggregates } from "./commits.mjs"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"
import { payloads, primers } from "./workload.mjs"
import { readWal } from "./wal-file.mjs"

// Small enough that no side's checkpointer restarts the WAL within a chunk; one that was restarted is not counted.
const commitsPerChunk = 100
const chunks = 50
const primingRounds = 10

function countingSide({ name, openStore, syncline = false }) {
  let side
  let file
  let first = aggregates
  return {
    name,
    syncline,
    open(directory) {
      file = path.join(directory, "app.db")
      side = openStore(file)
      for (let round = 0; round < primingRounds; round++) side.runAll(primers(aggregates))
    },
    async sample() {
      let commits = 0
      let frames = 0
      for (let attempt = 0; commits < chunks * commitsPerChunk; attempt++) {
        if (attempt === 20 * chunks) throw new Error(`The WAL of ${name} was restarted in too many chunks`)
        await emptyWal(side)
        const list = payloads(commitsPerChunk, aggregates, first)
        first += commitsPerChunk
        side.run(list[0])
        const before = readWal(`${file}-wal`)
        for (let n = 1; n < list.length; n++) side.run(list[n])
        const after = readWal(`${file}-wal`)
        if (before.resets !== after.resets) continue
        commits += commitsPerChunk - 1
        frames += after.frames - before.frames
      }
      return frames / commits
    },
    close: () => side.close(),
  }
}

async function emptyWal(side) {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (side.checkpoint()) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error("The WAL could not be emptied within a second")
}

const openSql = (file) => syncline.openRows(file, { projectors: syncline.sqlProjector() })

await measure({
  question: "wal-pages",
  title: "WAL pages a commit of one event with a projector of one upsert",
  unit: "pages/commit",
  rounds: 1,
  warmup: 0,
  sides: [
    countingSide({ name: "better-sqlite3", openStore: betterSqlite3.open }),
    countingSide({ name: "syncline", openStore: syncline.openRows, syncline: true }),
    countingSide({ name: "syncline, SQL projector", openStore: openSql, syncline: true }),
  ],
  targets: [
    { side: "syncline", atMost: 4.4, assert: true },
    { side: "syncline, SQL projector", atMost: 4.4, assert: true },
  ],
})
