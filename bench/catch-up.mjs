// What does it cost a reader to catch up on the 100,000 events of one aggregate through `log`, item by item, against
// `read` in pages of 1,000, each from where the last one ended? With their data untouched, and with it parsed.
// The events are rows: packing is off, and `packed-read` tells what it changes.
import path from "node:path"
import { measure } from "./harness.mjs"
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import * as syncline from "./syncline.mjs"
import { aggregateID, serializedEvents } from "./workload.mjs"

const count = 100_000
const pageRows = 1000
const aggregate = aggregateID(0)
const input = serializedEvents(count, 1)

/** `sumAll(side, look)` adds up what `look` returns of each event, or promises to. */
function catchingUpSide({ name, openStore, sumAll, look, syncline = false }) {
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
      const sum = sumAll(side, look)
      // Awaiting what is not a promise would give the synchronous sides a turn that they do not need.
      return typeof sum.then === "function" ? sum.then(assertAll) : assertAll(sum)
    },
    close: () => side.close(),
  }

  function assertAll(sum) {
    if (sum !== (count * (count - 1)) / 2) throw new Error(`${name} read the wrong events`)
  }
}

async function throughLog({ store }, look) {
  let sum = 0
  for await (const item of store.log({ aggregateID: aggregate })) if (item.kind === "event") sum += look(item.event)
  return sum
}

function inPages({ store }, look) {
  return summedPages(look, (after) => store.read(aggregate, { after, limit: pageRows }))
}

function inRows({ db }, look) {
  const page = db.prepare(
    "SELECT id, aggregate_id, seq, type, data FROM event WHERE aggregate_id = ? AND seq > ? ORDER BY seq LIMIT ?",
  )
  return summedPages(look, (after) => page.all(aggregate, after, pageRows))
}

function summedPages(look, ask) {
  let sum = 0
  for (let after = -1; ;) {
    const page = ask(after)
    for (const event of page) sum += look(event)
    if (page.length < pageRows) return sum
    after = page.at(-1).seq
  }
}

const seqOf = (event) => event.seq
// A data's `updated` is read as well, so that no engine may leave the parsing out; `NaN` shows a missing one.
const seqOfParsed = (event) => (event.data.updated > 0 ? event.seq : NaN)
const seqOfRow = (row) => (JSON.parse(row.data).updated > 0 ? row.seq : NaN)

const ours = { openStore: syncline.openRows, syncline: true }
const theirs = { openStore: betterSqlite3.open, sumAll: inRows }

await measure({
  question: "catch-up",
  title: "catching up on 100,000 events of one aggregate",
  unit: "µs/event",
  sides: [
    catchingUpSide({ name: "better-sqlite3 in pages", ...theirs, look: seqOf }),
    catchingUpSide({ name: "syncline read in pages", ...ours, sumAll: inPages, look: seqOf }),
    catchingUpSide({ name: "syncline log", ...ours, sumAll: throughLog, look: seqOf }),
    catchingUpSide({ name: "better-sqlite3 in pages, parsed", ...theirs, look: seqOfRow }),
    catchingUpSide({ name: "syncline read in pages, parsed", ...ours, sumAll: inPages, look: seqOfParsed }),
    catchingUpSide({ name: "syncline log, parsed", ...ours, sumAll: throughLog, look: seqOfParsed }),
  ],
  targets: [
    { side: "syncline log", against: "syncline read in pages", atMost: 1.3 },
    { side: "syncline log, parsed", against: "syncline read in pages, parsed", atMost: 1.3 },
  ],
})
