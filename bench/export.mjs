// What does it cost to export 100,000 events of 1,000 aggregates, iterated and into files, against reading them? They are
// rows: packing is off.
import fs from "node:fs"
import path from "node:path"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { serializedEvents } from "./workload.mjs"

const count = 100_000

function side(name, work) {
  let opened
  let target
  return {
    name,
    syncline: true,
    units: count,
    open(directory) {
      target = path.join(directory, "export")
      opened = syncline.openRows(path.join(directory, "app.db"))
      opened.replayAll(serializedEvents(count, 1000))
    },
    async round() {
      const events = await work(opened.store, target)
      if (events !== count) throw new Error(`${name} has ${events} of ${count} events`)
    },
    after() {
      for (const suffix of ["", ".zst", ".gz"]) fs.rmSync(target + suffix, { force: true })
    },
    close: () => opened.close(),
  }
}

/** As pages, one aggregate after the other. */
function read(store) {
  let events = 0
  for (const aggregateID of store.sequences().keys()) events += store.read(aggregateID).length
  return events
}

/** What each event is as a line, made in JavaScript: what a program would do that had `read` alone. */
function serialize(store) {
  let events = 0
  for (const aggregateID of store.sequences().keys()) {
    for (const event of store.read(aggregateID)) events += JSON.stringify({ kind: "event", event }).length > 0 ? 1 : 0
  }
  return events
}

async function iterated(store) {
  let events = 0
  const exported = store.export({ onProgress: (totals) => (events = totals.events) })
  for await (const chunk of exported) if (chunk.length === 0) throw new Error("An empty chunk")
  return events
}

const written = (suffix) => async (store, target) => (await store.export().toFile(target + suffix)).events

await measure({
  question: "export",
  title: "export of 100,000 events over 1,000 aggregates, against reading them in pages",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [
    side("read, data untouched", read),
    side("read, as JSON lines", serialize),
    side("export", iterated),
    side("export to .jsonl", written("")),
    side("export to .zst", written(".zst")),
    side("export to .gz", written(".gz")),
  ],
  targets: [
    { side: "export", against: "read, data untouched", atMost: 2 },
    { side: "export", against: "read, as JSON lines", atMost: 1 },
  ],
})
