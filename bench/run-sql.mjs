// What does one event cost, in a commit of its own, when its projector is SQL and runs in Rust?
import { committingSide } from "./commits.mjs"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"

const openSql = (path) => syncline.open(path, { projectors: syncline.sqlProjector() })

await measure({
  question: "run-sql",
  title: "one event a commit, SQL projector of one upsert",
  unit: "µs/event",
  sides: [
    committingSide({ name: "better-sqlite3", openStore: betterSqlite3.open, units: 4000 }),
    committingSide({ name: "syncline", openStore: openSql, units: 4000, syncline: true }),
  ],
  targets: [{ side: "syncline", against: "better-sqlite3", atMost: 0.55 }],
})
