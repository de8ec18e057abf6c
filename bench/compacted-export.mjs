// How many bytes does a reader who has nothing receive of `build-output`, once later states of a part have superseded the
// earlier ones? All items of the aggregate's log, as JSON lines, uncompressed. Counted, not measured: a noisy machine
// cannot change it, so a missed target fails the run.
import path from "node:path"
import { measure } from "./harness.mjs"
import { fileBytes, openUnprojected, recorded, removeFile, replayEach } from "./unprojected.mjs"

function exportedSide(name, options) {
  let file
  let recording
  return {
    name,
    syncline: true,
    open(directory) {
      file = path.join(directory, "app.db")
      recording = recorded("build-output")
    },
    async sample() {
      const { events, rawBytes } = recording
      const store = openUnprojected(file, options)
      replayEach(store, events)
      await store.maintain()
      const items = { event: 0, gap: 0, synced: 0 }
      let bytes = 0
      for await (const item of store.log({ aggregateID: events[0].aggregateID })) {
        bytes += Buffer.byteLength(JSON.stringify(item)) + 1
        items[item.kind]++
      }
      store.close()
      const share = (100 * fileBytes(file).database) / rawBytes
      removeFile(file)
      const more = { bytes, events: items.event, gaps: items.gap, "file, % of raw": share }
      return { figure: (100 * bytes) / rawBytes, more }
    },
  }
}

const compacted = 'compactKey: "part.id"'

await measure({
  question: "compacted-export",
  title: "export of build-output from its beginning as JSON lines, in percent of its data",
  unit: "% of raw",
  rounds: 1,
  warmup: 0,
  sides: [exportedSide("whole"), exportedSide(compacted, { compactKey: "part.id" })],
  targets: [{ side: compacted, atMost: 3, assert: true }],
})
