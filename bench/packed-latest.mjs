// What does it cost to read the latest 100 events of an aggregate of 100,000 once all are packed, against rows? With
// their data untouched, and parsed. "first": by a store that was just opened and has read another aggregate, so that its
// statements are prepared and nothing of this one is decoded. "again": by a store that has read them before.
import path from "node:path"
import { measure } from "./harness.mjs"
import { generated, openUnprojected } from "./unprojected.mjs"
import { aggregateID } from "./workload.mjs"

const count = 100_000
const latest = 100
const [aggregate, other] = [aggregateID(0), aggregateID(1)]
const rows = { packing: false }
const expected = (latest * (2 * count - latest - 1)) / 2

/** The other aggregate's few events, and then those of the one that is read. */
function* input() {
  for (const event of generated(2 * latest, 2)) if (event.aggregateID === other) yield event
  yield* generated(count)
}

function latestSide(packed, parsed) {
  const name = [packed ? "packed" : "rows", ...(parsed ? ["parsed"] : [])].join(", ")
  // A data's `updated` is read as well, so that no side may leave the parsing out; `NaN` shows a missing one.
  const look = parsed ? (event) => (event.data.updated > 0 ? event.seq : NaN) : (event) => event.seq
  let file
  return {
    name,
    read(store) {
      let seqs = 0
      for (const event of store.read(aggregate, { order: "desc", limit: latest })) seqs += look(event)
      if (seqs !== expected) throw new Error(`${name}: the wrong events were read`)
    },
    open: () => openUnprojected(file, rows),
    async write(directory) {
      file = path.join(directory, "app.db")
      const store = openUnprojected(file, rows)
      store.replayAll(input())
      if (packed) await store.maintain()
      store.close()
    },
  }
}

function again(side, reads = 500) {
  let store
  return {
    name: `${side.name}, again`,
    syncline: true,
    units: reads,
    async open(directory) {
      await side.write(directory)
      store = side.open()
    },
    round() {
      for (let n = 0; n < reads; n++) side.read(store)
    },
    close: () => store?.close(),
  }
}

function first(side, openings = 41) {
  return {
    name: `${side.name}, first`,
    syncline: true,
    open: side.write,
    // The median: one opening that the machine interrupts would otherwise stand for all.
    sample() {
      const microseconds = Array.from({ length: openings }, () => {
        const store = side.open()
        if (store.read(other, { order: "desc", limit: latest }).length !== latest) throw new Error("Events are missing")
        const start = process.hrtime.bigint()
        side.read(store)
        const elapsed = Number(process.hrtime.bigint() - start) / 1000
        store.close()
        return elapsed
      })
      return microseconds.toSorted((a, b) => a - b)[openings >> 1]
    },
  }
}

const pairs = [false, true].flatMap((parsed) =>
  [again, first].map((when) => [when(latestSide(false, parsed)), when(latestSide(true, parsed))]),
)

await measure({
  question: "packed-latest",
  title: "latest 100 events of an aggregate of 100,000",
  unit: "µs/read",
  sides: pairs.flat(),
  targets: pairs.map(([inRows, packed]) => ({ side: packed.name, against: inRows.name, atMost: 3 })),
})
