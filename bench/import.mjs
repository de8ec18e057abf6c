// What does it cost to import 100,000 events into an empty file, against one `replayAll` of the same bytes?
import fs from "node:fs"
import path from "node:path"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { serializedEvents } from "./workload.mjs"

const count = 100_000

function side(name, projectors, work, suffix = "") {
  let file
  let source
  let opened
  return {
    name,
    syncline: true,
    units: count,
    async open(directory) {
      file = path.join(directory, "app.db")
      source = path.join(directory, `export.jsonl${suffix}`)
      const writer = syncline.open(path.join(directory, "writer.db"))
      writer.replayAll(serializedEvents(count, 1000))
      await writer.store.export().toFile(source)
      writer.close()
    },
    prepare: () => (opened = syncline.open(file, { projectors: projectors() })),
    async round() {
      const applied = await work(opened, source)
      if (applied !== count) throw new Error(`${name} applied ${applied} of ${count} events`)
    },
    after() {
      opened.close()
      for (const end of ["", "-wal", "-shm"]) fs.rmSync(file + end, { force: true })
    },
  }
}

/** The items without header and closing line, in one transaction. */
function replay({ replayAll }, source) {
  const bytes = fs.readFileSync(source)
  return replayAll(bytes.subarray(bytes.indexOf(10) + 1, bytes.lastIndexOf(10, bytes.length - 2)))
}

const imported = async ({ store }, source) => (await store.import(source)).applied
const { jsProjector, sqlProjector } = syncline

await measure({
  question: "import",
  title: "import of 100,000 events over 1,000 aggregates, against `replayAll` of the same bytes in one transaction",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [
    side("replayAll", jsProjector, replay),
    side("import", jsProjector, imported),
    side("replayAll, SQL projector", sqlProjector, replay),
    side("import, SQL projector", sqlProjector, imported),
    side("import of .zst, SQL projector", sqlProjector, imported, ".zst"),
  ],
  targets: [
    { side: "import", against: "replayAll", atMost: 1.3 },
    { side: "import, SQL projector", against: "replayAll, SQL projector", atMost: 1.3 },
  ],
})
