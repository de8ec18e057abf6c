// What do a caller's own rows cost through `store.db`, whose statements have better-sqlite3's surface?
// No event is recorded, and packing is off.
import path from "node:path"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"

const rows = 10_000
// A round reads all rows this many times, so that it is long enough for the clock and for the garbage to be its own.
const repeats = 10

function selectingSide({ name, openStore, select, syncline = false }) {
  let side
  let statements
  return {
    name,
    units: rows * repeats,
    syncline,
    open(directory) {
      side = openStore(path.join(directory, "app.db"))
      side.db.exec("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER, note TEXT)")
      const insert = side.db.prepare("INSERT INTO item VALUES (?, ?, ?, ?, ?)")
      side.db.transaction(() => {
        for (let n = 0; n < rows; n++)
          insert.run(n, `item ${n}`, n / 7, n % 50, n % 3 ? `a note about item ${n}` : null)
      })()
      statements = {
        every: side.db.prepare("SELECT id, name, price, stock, note FROM item"),
        one: side.db.prepare("SELECT id, name, price, stock, note FROM item WHERE id = ?"),
        ten: side.db.prepare("SELECT id, name, price, stock, note FROM item WHERE id >= ? LIMIT 10"),
      }
    },
    round() {
      for (let repeat = 0; repeat < repeats; repeat++) select(statements)
    },
    close: () => side.close(),
  }
}

function selectAll({ every }) {
  const found = every.all()
  if (found.length !== rows || found[7].name !== "item 7") throw new Error("The wrong rows were read")
}

function selectTens({ ten }) {
  let found = 0
  for (let n = 0; n < rows; n += 10) found += ten.all(n).length
  if (found !== rows) throw new Error(`${found} rows were read where ${rows} stand`)
}

function selectEach({ one }) {
  for (let n = 0; n < rows; n++) if (one.get(n).id !== n) throw new Error("The wrong row was read")
}

const selections = [
  [".all() of 10,000 rows", selectAll],
  [".all() of 10 rows", selectTens],
  [".get() of one row", selectEach],
]

await measure({
  question: "rows",
  title: "rows of five columns through `store.db`",
  unit: "µs/row",
  sides: selections.flatMap(([label, select]) => [
    selectingSide({ name: `better-sqlite3 ${label}`, openStore: betterSqlite3.open, select }),
    selectingSide({ name: `syncline ${label}`, openStore: syncline.openRows, select, syncline: true }),
  ]),
  targets: [
    { side: "syncline .all() of 10,000 rows", against: "better-sqlite3 .all() of 10,000 rows", atMost: 1.3 },
    { side: "syncline .all() of 10 rows", against: "better-sqlite3 .all() of 10 rows", atMost: 1.3 },
  ],
})
