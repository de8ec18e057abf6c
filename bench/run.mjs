// What does one event cost, in a commit of its own, with a projector of one upsert written in JavaScript?
import { committingSide } from "./commits.mjs"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as drizzle from "./rivals/drizzle.mjs"
import * as emmett from "./rivals/emmett.mjs"
import * as syncline from "./syncline.mjs"

await measure({
  question: "run",
  title: "one event a commit, JavaScript projector of one upsert",
  unit: "µs/event",
  sides: [
    committingSide({ name: "better-sqlite3", openStore: betterSqlite3.open, units: 4000 }),
    committingSide({ name: "syncline", openStore: syncline.open, units: 4000, syncline: true }),
    committingSide({ name: "drizzle", openStore: drizzle.open, units: 1000 }),
    committingSide({ name: "emmett", openStore: emmett.open, units: 400 }),
    committingSide({ name: "emmett, one connection kept", openStore: emmett.openKept, units: 400 }),
  ],
  targets: [
    { side: "syncline", against: "better-sqlite3", atMost: 0.6, goal: 0.5 },
    { side: "syncline", against: "drizzle", atMost: 1 / 8 },
    { side: "syncline", against: "emmett", atMost: 1 / 12 },
  ],
})
