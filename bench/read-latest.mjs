// What does it cost to read the latest 100 events of one aggregate among a million events, with their data parsed?
// Packing is off: `packed-latest` asks the same of packed events.
import { measure } from "./harness.mjs"
import { aggregates, millionFile, removeMillionFiles } from "./million.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"
import { aggregateID } from "./workload.mjs"

const reads = 500

function readingSide({ name, openStore, dataOf, syncline = false }) {
  let side
  let next = 0
  return {
    name,
    syncline,
    units: reads,
    open: () => (side = openStore(millionFile(name, openStore))),
    // Each round reads other aggregates, the same ones on every side; 7 and 1,000 share no factor.
    round() {
      let updated = 0
      for (let n = 0; n < reads; n++, next += 7) {
        for (const event of side.latest(aggregateID(next % aggregates), 100)) updated += dataOf(event).updated
      }
      if (!(updated > 0)) throw new Error(`${name} read no event`)
    },
    close: () => side.close(),
  }
}

try {
  await measure({
    question: "read-latest",
    title: "latest 100 events of an aggregate among 1,000,000, parsed",
    unit: "µs/read",
    sides: [
      readingSide({
        name: "better-sqlite3",
        openStore: betterSqlite3.open,
        dataOf: (row) => JSON.parse(row.data),
      }),
      readingSide({ name: "syncline", openStore: syncline.openRows, dataOf: (event) => event.data, syncline: true }),
    ],
    targets: [{ side: "syncline", against: "better-sqlite3", atMost: 0.75 }],
  })
} finally {
  removeMillionFiles()
}
