// What does an event cost when a hundred of them share a commit?
import { committingSide } from "./commits.mjs"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"

await measure({
  question: "run-all",
  title: "`runAll` of 100 events a commit, JavaScript projector",
  unit: "µs/event",
  sides: [
    committingSide({ name: "syncline run", openStore: syncline.open, units: 2000, syncline: true }),
    committingSide({ name: "syncline runAll", openStore: syncline.open, units: 10000, batch: 100, syncline: true }),
    committingSide({ name: "better-sqlite3", openStore: betterSqlite3.open, units: 10000, batch: 100 }),
  ],
  targets: [{ side: "syncline runAll", against: "syncline run", atMost: 0.25 }],
})
