// What does one event of a batch of 100,000 cost to replay into an empty file, from JSONL bytes?
import fs from "node:fs"
import path from "node:path"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as drizzle from "./rivals/drizzle.mjs"
import * as syncline from "./syncline.mjs"
import { serializedEvents } from "./workload.mjs"

const input = serializedEvents(100_000, 1000)
// Drizzle commits each event: the same cost an event in a shorter input, or a round would take a minute.
const shortInput = serializedEvents(2000, 1000)

function replayingSide({ name, openStore, jsonl = input, units = 100_000, syncline = false }) {
  let file
  let store
  return {
    name,
    units,
    syncline,
    open: (directory) => (file = path.join(directory, "app.db")),
    prepare: () => (store = openStore(file)),
    round() {
      const applied = store.replayAll(jsonl)
      if (applied !== units) throw new Error(`${name} applied ${applied} of ${units} events`)
    },
    after() {
      store.close()
      for (const suffix of ["", "-wal", "-shm"]) fs.rmSync(file + suffix, { force: true })
    },
  }
}

const openSql = (file) => syncline.open(file, { projectors: syncline.sqlProjector() })
const openSqlNever = (file) => syncline.open(file, { projectors: syncline.sqlProjector(), validate: "never" })

await measure({
  question: "replay-all",
  title:
    "`replayAll` of 100,000 events over 1,000 aggregates from JSONL bytes, one transaction (drizzle: one an event)",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [
    replayingSide({ name: "better-sqlite3", openStore: betterSqlite3.open }),
    replayingSide({ name: "syncline", openStore: syncline.open, syncline: true }),
    replayingSide({ name: "syncline, SQL projector", openStore: openSql, syncline: true }),
    replayingSide({ name: "syncline, SQL projector, validate never", openStore: openSqlNever, syncline: true }),
    replayingSide({ name: "drizzle", openStore: drizzle.open, jsonl: shortInput, units: 2000 }),
  ],
  targets: [
    { side: "syncline", against: "better-sqlite3", atMost: 0.8, goal: 0.7 },
    { side: "syncline, SQL projector", against: "better-sqlite3", atMost: 0.75 },
    { side: "syncline, SQL projector, validate never", against: "better-sqlite3", atMost: 0.5 },
    { side: "syncline", against: "drizzle", atMost: 1 / 30 },
    { side: "syncline, SQL projector", against: "drizzle", atMost: 1 / 30 },
    { side: "syncline, SQL projector, validate never", against: "drizzle", atMost: 1 / 30 },
  ],
})
