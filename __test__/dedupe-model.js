// What a run must answer, read from the whole log, against what stores answer that write to one file in random order.
"use strict"

const assert = require("node:assert/strict")
const { opened } = require("./parts.js")
const { file } = require("./stores.js")

/** The text of what may not differ. */
const cut = (data) => {
  const copy = JSON.parse(JSON.stringify(data))
  delete copy.time
  delete copy.part.time.end
  return JSON.stringify(copy)
}

/** Two stores that dedupe and one that does not: runs, barriers, removals, nested and raw rollbacks, packing, reopening. */
async function follow(seed) {
  let x = seed * 7919
  const rnd = (n) => ((x = (x * 1103515245 + 12345) % 2147483648), Math.floor(x / 65536) % n)
  const path = file(`${seed}.db`)
  const make = (i) => opened({ path, how: "none", ...(i === 2 ? { dedupe: null } : {}) })
  const stores = [make(0), make(1), make(2)]
  /** The event that a run of `data` repeats. */
  const repeats = (store, sessionID, data) => {
    let newest
    for (const event of store.read(sessionID)) {
      if (event.type === "part.removed.1") newest = undefined
      else if (event.type === "part.updated.1" && event.data.part?.id === data.part.id) newest = event
    }
    return newest !== undefined && cut(newest.data) === cut(data) ? newest : undefined
  }
  let repeated = 0
  const step = (i) => {
    const { store, Updated, Removed, Renamed } = stores[i]
    const sessionID = `s${rnd(2)}`
    switch (rnd(12)) {
      case 0:
        store.run(Removed, { sessionID, id: "x" })
        break
      case 1:
        store.run(Renamed, { sessionID, t: 1 })
        break
      case 2:
        if (rnd(3) === 0) store.remove(sessionID, rnd(2) ? {} : { event: [Removed, { sessionID, id: "x" }] })
        break
      default: {
        const data = { sessionID, part: { id: `p${rnd(3)}`, n: rnd(2), time: { start: 1, end: rnd(5) } }, time: rnd(9) }
        const want = i === 2 ? undefined : repeats(store, sessionID, data)
        const before = store.sequence(sessionID)
        const got = store.run(Updated, data)
        assert.equal(got.unchanged === true, want !== undefined, JSON.stringify(data))
        if (want) {
          repeated++
          assert.equal(got.id, want.id)
          assert.equal(store.sequence(sessionID), before)
        } else assert.equal(got.seq, before + 1)
      }
    }
  }
  const nest = (i, depth) => {
    const { store } = stores[i]
    const how = rnd(3)
    try {
      store.transaction(() => {
        const raw = rnd(4) === 0
        if (raw) store.db.exec("SAVEPOINT r")
        for (let k = rnd(6); k >= 0; k--) depth < 2 && rnd(4) === 0 ? nest(i, depth + 1) : step(i)
        if (raw) {
          if (rnd(2)) store.db.exec("ROLLBACK TO r")
          store.db.exec("RELEASE r")
        }
        for (let k = rnd(3); k > 0; k--) step(i)
        if (how === 0) throw new Error("undo")
      })
    } catch (error) {
      if (error.message !== "undo") throw error
    }
  }
  for (let k = 0; k < 150; k++) {
    const i = rnd(3)
    const what = rnd(20)
    if (what < 6) nest(i, 0)
    else if (what === 19 && rnd(4) === 0) {
      stores[i].store.close()
      stores[i] = make(i)
    } else if (what === 18 && rnd(6) === 0) await stores[rnd(3)].store.maintain()
    else step(i)
  }
  assert.ok(repeated > 5)
}

module.exports = { follow }
