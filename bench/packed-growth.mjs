// How large does the database file become while `build-output` is written one event a commit, as fast as that goes, and
// packed on packing's own schedule? Looked at after each commit and after `close`, which ends packing where it is. The
// WAL is told as a side of its own, in percent of the 64 MiB at which a writer checkpoints before it goes on.
import path from "node:path"
import { measure } from "./harness.mjs"
import { fileBytes, openUnprojected, recorded, removeFile, replayEach } from "./unprojected.mjs"

const walLimit = 64 * 2 ** 20
const largest = new Map()

function growingSide(name, options) {
  let file
  let events
  let rawBytes
  return {
    name,
    syncline: true,
    open(directory) {
      file = path.join(directory, "app.db")
      ;({ events, rawBytes } = recorded("build-output"))
    },
    sample() {
      let database = 0
      let wal = 0
      const look = () => {
        const bytes = fileBytes(file)
        database = Math.max(database, bytes.database)
        wal = Math.max(wal, bytes.wal)
      }
      const store = openUnprojected(file, options)
      const start = performance.now()
      replayEach(store, events, look)
      const seconds = (performance.now() - start) / 1000
      store.close()
      look()
      const closed = fileBytes(file).database
      removeFile(file)
      largest.set(name, wal)
      const more = { "largest WAL in MiB": wal / 2 ** 20, "closed, % of raw": (100 * closed) / rawBytes, seconds }
      return { figure: (100 * database) / rawBytes, more }
    },
  }
}

/** Another figure of what the side of that name has just measured: only a side's figure can have a target. */
function walSide(name) {
  return { name: `${name}: WAL`, syncline: true, sample: () => (100 * largest.get(name)) / walLimit }
}

await measure({
  question: "packed-growth",
  title:
    "largest database file while build-output is written at full speed, in percent of its data (WAL: of its 64 MiB)",
  unit: "%",
  rounds: 5,
  warmup: 0,
  sides: [
    growingSide("packing on"),
    walSide("packing on"),
    growingSide("packing off", { packing: false }),
    walSide("packing off"),
  ],
  targets: [
    { side: "packing on", atMost: 25 },
    { side: "packing on: WAL", atMost: 100 },
  ],
})
