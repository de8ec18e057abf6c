// The process that `addons` starts for each round: measures each task with the addon that the environment names, and prints
// as JSON what a unit takes: microseconds of processor time, of all threads, which other work on the machine disturbs less
// than it does the clock. Every task is short and done several times; its figure is the least.
import { rmSync } from "node:fs"
import path from "node:path"
import { temporaryDirectory } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { openUnprojected, recorded } from "./unprojected.mjs"
import { payloads, primers, serializedEvents } from "./workload.mjs"

const words = process.argv.slice(2)
const aggregates = 100
const input = serializedEvents(20_000, aggregates)
const runs = payloads(2000, aggregates, aggregates)
const directory = temporaryDirectory()
const figures = {}
try {
  committing("run", {})
  committing("run, SQL projector", { projectors: syncline.sqlProjector() })
  replaying("replayAll", {})
  replaying("replayAll, SQL projector, validate never", { projectors: syncline.sqlProjector(), validate: "never" })
  await reading()
  selecting()
  await packing()
  console.log(JSON.stringify(figures))
} finally {
  rmSync(directory, { recursive: true, force: true })
}

function committing(task, options) {
  const side = syncline.openRows(path.join(directory, `${task}.db`), options)
  for (const data of primers(aggregates)) side.run(data)
  measure(task, runs.length, () => runs.forEach((data) => side.run(data)))
  side.close()
}

function replaying(task, options) {
  let copies = 0
  measure(task, 20_000, () => {
    const side = syncline.openRows(path.join(directory, `${task}.${copies++}.db`), options)
    side.replayAll(input)
    side.close()
  })
}

async function reading() {
  const side = syncline.openRows(path.join(directory, "read.db"))
  side.replayAll(input)
  const { store } = side
  const ids = [...store.sequences().keys()]
  measure("read, data untouched", 20_000, () => ids.forEach((id) => store.read(id)))
  measure("readAll, in the order of commits", 20_000, () => void store.readAll({ limit: 20_000 }))
  await measureAsync("export to .zst", 20_000, (n) => store.export().toFile(path.join(directory, `${n}.zst`)))
  await measureAsync("verify", 20_000, () => store.verify())
  let copies = 0
  await measureAsync("import of .zst", 20_000, async () => {
    const target = syncline.openRows(path.join(directory, `import.${copies++}.db`))
    await target.store.import(path.join(directory, "0.zst"))
    target.close()
  })
  side.close()
}

/** SQLite alone: rows out, and statements that keep it busy without a row. */
function selecting() {
  const { db, close } = syncline.openRows(path.join(directory, "rows.db"))
  db.exec("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER, note TEXT)")
  db.exec("CREATE VIRTUAL TABLE found USING fts5(note)")
  const insert = db.prepare("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?)")
  measure("db: insert of a row", 10_000, () =>
    db.transaction(() => {
      for (let n = 0; n < 10_000; n++) insert.run(n, `item ${n}`, n / 7, n % 50, `{"note": "about ${n % 97}"}`)
    })(),
  )
  const every = db.prepare("SELECT id, name, price, stock, note FROM item")
  const one = db.prepare("SELECT name FROM item WHERE id = ?").pluck()
  measure("db: all() of 10,000 rows", 10_000, () => every.all().length)
  measure("db: get() of one row", 10_000, () => {
    for (let n = 0; n < 10_000; n++) one.get(n)
  })
  const busy = {
    "db: join, group and sort": `SELECT a.stock, count(*), sum(b.price) FROM item a JOIN item b ON b.id = (a.id * 7) % 10000
      GROUP BY a.stock ORDER BY sum(b.price)`,
    "db: JSON of each row":
      "SELECT max(length(note ->> '$.note')), sum(json_valid(json_set(note, '$.x', id))) FROM item",
    "db: like and sort by text": "SELECT name FROM item WHERE note LIKE '%about 5%' ORDER BY name DESC LIMIT 3",
    "db: full-text index": "INSERT INTO found SELECT note FROM item LIMIT 5000",
  }
  for (const [task, sql] of Object.entries(busy)) {
    const statement = db.prepare(sql)
    measure(task, 10_000, () => (statement.reader ? statement.all() : statement.run()))
  }
  close()
}

/** The recordings: ordinary sessions, and tool output that was sent whole again and again. */
async function packing() {
  for (const [name, times] of Object.entries({ sessions: 3, "build-output": 1 })) {
    const { events } = recorded(name)
    const file = path.join(directory, `${name}.db`)
    const stores = Array.from({ length: times }, (_, n) => {
      const store = openUnprojected(n === 0 ? file : `${file}.${n}`, { packing: false })
      store.replayAll(events)
      return store
    })
    await measureAsync(`packing of ${name}`, events.length, (n) => stores[n].maintain(), times)
    for (const store of stores) store.close()
    measure(`read of packed ${name}, opened anew`, events.length, () => {
      const store = openUnprojected(file, { packing: false })
      for (const id of store.sequences().keys()) store.read(id)
      store.close()
    })
  }
}

function measure(task, units, work, times = 5) {
  for (let n = 0; n < (isAsked(task) ? times : 1); n++) {
    globalThis.gc?.()
    const before = process.cpuUsage()
    work(n)
    keepLeast(task, units, before)
  }
}

async function measureAsync(task, units, work, times = 3) {
  for (let n = 0; n < (isAsked(task) ? times : 1); n++) {
    globalThis.gc?.()
    const before = process.cpuUsage()
    await work(n)
    keepLeast(task, units, before)
  }
}

/** What is not asked is done once all the same: later tasks read what it wrote. */
function isAsked(task) {
  return words.length === 0 || words.some((word) => task.includes(word))
}

function keepLeast(task, units, before) {
  const { user, system } = process.cpuUsage(before)
  if (isAsked(task)) figures[task] = Math.min(figures[task] ?? Infinity, (user + system) / units)
}
