// What does it cost to bring 100,000 events to JavaScript in the order of their commits, data untouched and parsed? They are
// rows: packing is off.
import path from "node:path"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"
import { serializedEvents } from "./workload.mjs"

const count = 100_000
const input = serializedEvents(count, 1000)

function readingSide({ name, openStore, look, syncline = false }) {
  let side
  return {
    name,
    syncline,
    units: count,
    open(directory) {
      side = openStore(path.join(directory, "app.db"))
      side.replayAll(input)
    },
    round() {
      let seqs = 0
      for (const event of side.all(count)) seqs += look(event)
      if (seqs !== expected) throw new Error(`${name} read the wrong events`)
    },
    close: () => side.close(),
  }
}

const seqOf = (event) => event.seq
// A data's `updated` is read as well, so that no engine may leave the parsing out; `NaN` shows a missing one.
const seqOfParsed = (data, seq) => (data.updated > 0 ? seq : NaN)
const expected = (1000 * (99 * 100)) / 2

await measure({
  question: "read-log",
  title: "100,000 events to JavaScript, in the order of commits",
  unit: "µs/event",
  sides: [
    readingSide({ name: "better-sqlite3 .all()", openStore: betterSqlite3.open, look: seqOf }),
    readingSide({ name: "syncline, untouched", openStore: syncline.openRows, look: seqOf, syncline: true }),
    readingSide({
      name: "better-sqlite3 .all(), parsed",
      openStore: betterSqlite3.open,
      look: (row) => seqOfParsed(JSON.parse(row.data), row.seq),
    }),
    readingSide({
      name: "syncline, parsed",
      openStore: syncline.openRows,
      look: (event) => seqOfParsed(event.data, event.seq),
      syncline: true,
    }),
  ],
  targets: [
    { side: "syncline, untouched", against: "better-sqlite3 .all()", atMost: 0.6 },
    { side: "syncline, parsed", against: "better-sqlite3 .all(), parsed", atMost: 0.8 },
  ],
})
