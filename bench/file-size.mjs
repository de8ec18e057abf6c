// How many bytes of file does an event take as a row, all tables and indexes counted? Packing is off: `packed-size` and
// `million-open` tell what it makes of them.
import fs from "node:fs"
import { measure } from "./harness.mjs"
import { events, millionFile, removeMillionFiles } from "./million.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"

const bytesPerEvent = (name, openStore) => fs.statSync(millionFile(name, openStore)).size / events

try {
  await measure({
    question: "file-size",
    title: "file bytes an event as a row, 1,000,000 events over 1,000 aggregates",
    unit: "bytes/event",
    rounds: 1,
    warmup: 0,
    sides: [
      { name: "better-sqlite3", sample: () => bytesPerEvent("better-sqlite3", betterSqlite3.open) },
      { name: "syncline", syncline: true, sample: () => bytesPerEvent("syncline", syncline.openRows) },
    ],
    targets: [{ side: "syncline", atMost: 300 }],
  })
} finally {
  removeMillionFiles()
}
