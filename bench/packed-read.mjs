// What does it cost to read a whole aggregate, `data` untouched, that is packed, against one that is rows? "opened anew":
// each round opens the file, untimed, so that nothing is decoded yet. "again": by a store that has read it before.
import path from "node:path"
import { measure } from "./harness.mjs"
import { generated, openUnprojected, recorded } from "./unprojected.mjs"

const inputs = {
  "build-output": () => recorded("build-output").events,
  "100,000 small events": () => [...generated(100_000)],
}
const rows = { packing: false }

function readingSide(input, { packed, anew }) {
  const name = `${input}, ${packed ? "packed" : "rows"}, ${anew ? "opened anew" : "again"}`
  let file
  let store
  let aggregate
  let units
  const side = {
    name,
    syncline: true,
    async open(directory) {
      file = path.join(directory, "app.db")
      const events = inputs[input]()
      aggregate = events[0].aggregateID
      side.units = units = events.length
      const writing = openUnprojected(file, rows)
      writing.replayAll(events)
      if (packed) await writing.maintain()
      const left = writing.db.prepare("SELECT count(*) FROM event_log").pluck().get()
      writing.close()
      if (left !== (packed ? 0 : units)) throw new Error(`${name}: ${left} of ${units} events are rows`)
    },
    prepare() {
      store ??= openUnprojected(file, rows)
      if (store.sequence(aggregate) !== units - 1) throw new Error(`${name}: events are missing`)
    },
    round() {
      let seqs = 0
      for (const event of store.read(aggregate)) seqs += event.seq
      if (seqs !== (units * (units - 1)) / 2) throw new Error(`${name}: the wrong events were read`)
    },
    after: () => void (anew && side.close()),
    close() {
      store?.close()
      store = undefined
    },
  }
  return side
}

const pairs = Object.keys(inputs).flatMap((input) =>
  [true, false].map((anew) => [false, true].map((packed) => readingSide(input, { packed, anew }))),
)

await measure({
  question: "packed-read",
  title: "all events of one aggregate through `read`, data untouched",
  unit: "µs/event",
  sides: pairs.flat(),
  targets: pairs
    .filter(([{ name }]) => name.startsWith("build-output"))
    .map(([inRows, packed]) => ({ side: packed.name, against: inRows.name, atMost: 1 })),
})
