// How large is the database file of a recording that came one event a commit and was then maintained and closed? The WAL
// counts with it, and everything that an empty database has; no table is projected.
import path from "node:path"
import { measure } from "./harness.mjs"
import { fileBytes, openUnprojected, recorded, removeFile, replayEach } from "./unprojected.mjs"

function packedSide(name) {
  let file
  let events
  let rawBytes
  return {
    name,
    syncline: true,
    open(directory) {
      file = path.join(directory, "app.db")
      ;({ events, rawBytes } = recorded(name))
    },
    async sample() {
      const store = openUnprojected(file)
      replayEach(store, events)
      await store.maintain()
      store.close()
      const { database, wal } = fileBytes(file)
      removeFile(file)
      return {
        figure: (100 * (database + wal)) / rawBytes,
        more: { "file bytes": database + wal, "raw bytes": rawBytes },
      }
    },
  }
}

await measure({
  question: "packed-size",
  title: "database file and WAL after one event a commit, `maintain` and `close`, in percent of the events' data",
  unit: "% of raw",
  rounds: 3,
  warmup: 0,
  sides: [packedSide("build-output"), packedSide("sessions")],
  targets: [
    { side: "build-output", atMost: 0.8, goal: 0.5 },
    { side: "sessions", atMost: 15, goal: 11 },
  ],
})
