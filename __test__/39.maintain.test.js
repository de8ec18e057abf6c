"use strict"

const assert = require("node:assert/strict")
const { existsSync, statSync } = require("node:fs")
const { describe, test } = require("node:test")
const { coded, file, history, kept, notes, openNotes, rows, turns } = require("./stores.js")

const quiet = (given, options) => openNotes(given, { packing: false, ...options })
const texts = (store) => store.readAll({ limit: 1_000_000 }).map((event) => JSON.stringify(event))
const size = (path) => statSync(path).size + (existsSync(`${path}-wal`) ? statSync(`${path}-wal`).size : 0)
const fill = (store, given, count, noteID = "a") =>
  store.transaction(() => {
    for (let n = 0; n < count; n++) store.run(given.Seen, { noteID, text: `${n} `.repeat(500) })
  })

const unpacked = (store) => rows(store, "SELECT count(*) FROM event")[0][0]
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** Packs everything, and proves that nothing has changed by it. */
async function packWhole(store) {
  const before = texts(store)
  assert.equal((await store.maintain()).complete, true)
  assert.equal(unpacked(store), 0)
  assert.deepEqual(texts(store), before)
}

describe("maintain and the file", () => {
  test("gives freed pages back in slices, and cuts the WAL", async () => {
    const given = notes()
    const store = quiet(given)
    fill(store, given, 3_000)
    const before = texts(store)
    const full = size(store.db.name)
    const phases = new Set()
    const result = await store.maintain({ onProgress: ({ phase }) => phases.add(phase) })
    assert.deepEqual([result.phase, result.complete, result.truncated], ["done", true, true])
    assert.ok(phases.has("done"))
    assert.ok(size(store.db.name) < full / 4, `${size(store.db.name)} of ${full} bytes`)
    assert.ok(result.freedBytes > 0)
    assert.equal(store.db.pragma("freelist_count", { simple: true }), 0)
    assert.equal(statSync(`${store.db.name}-wal`).size, 0)
    assert.deepEqual(texts(store), before)
    const again = await store.maintain()
    assert.deepEqual([again.events, again.freedBytes, again.dropped], [0, 0, 0])
  })

  test("rewrite: a file that was made without incremental vacuum keeps its size until then", async () => {
    const given = notes()
    // As another program made it: with tables of its own, before Syncline came.
    const plain = kept(file(), { registry: given.registry, packing: false })
    plain.db.exec("PRAGMA auto_vacuum = NONE")
    plain.db.exec("CREATE TABLE own (id INTEGER PRIMARY KEY, x); INSERT INTO own VALUES (7, 'own')")
    plain.close()
    const made = quiet(given, { path: plain.db.name })
    made.db.pragma("journal_mode = DELETE")
    made.db.pragma("auto_vacuum = NONE")
    made.db.exec("VACUUM")
    made.db.pragma("journal_mode = WAL")
    assert.equal(made.db.pragma("auto_vacuum", { simple: true }), 0)
    fill(made, given, 3_000)
    const reader = quiet(given, { path: plain.db.name })
    const before = texts(made)
    const full = size(made.db.name)
    const { freedBytes } = await made.maintain()
    assert.equal(freedBytes, 0)
    assert.ok(statSync(made.db.name).size > full / 3)
    const seen = []
    const result = await made.maintain({ rewrite: true, onProgress: ({ phase }) => seen.push(phase) })
    assert.ok(result.freedBytes > 0)
    assert.ok(size(made.db.name) < full / 4)
    assert.deepEqual(texts(made), before)
    assert.equal(made.db.pragma("auto_vacuum", { simple: true }), 2)
    for (const store of [made, reader]) {
      assert.deepEqual(texts(store), before)
      assert.deepEqual(rows(store, "SELECT * FROM own"), [[7, "own"]])
      store.run(given.Seen, { noteID: "a" })
      before.push(JSON.stringify(store.readAll({ limit: 1_000_000 }).at(-1)))
    }
    // From then on in slices.
    made.remove("a")
    assert.ok((await made.maintain()).freedBytes > 0)
    assert.equal(made.db.pragma("integrity_check", { simple: true }), "ok")
  })

  test("a table that cannot be analysed, and one whose name needs quotes, stop nothing", async () => {
    const given = notes()
    const store = quiet(given)
    store.db.exec(`CREATE TABLE "a ""b"" c" (x, y); CREATE INDEX "i ""1""" ON "a ""b"" c" (x)`)
    store.db.exec(`INSERT INTO "a ""b"" c" VALUES (1, 2), (3, 4)`)
    store.run(given.Seen, { noteID: "a" })
    assert.equal((await store.maintain()).complete, true)
    const analysed = rows(store, "SELECT DISTINCT tbl FROM sqlite_stat1 ORDER BY tbl").flat()
    assert.ok(analysed.includes('a "b" c'), analysed.join())
    assert.equal(analysed.filter((name) => name.startsWith("event")).length, 0)
  })

  test("a store that is closed meanwhile leaves no WAL behind", async () => {
    const given = notes()
    for (let round = 0; round < 8; round++) {
      const path = file(`${round}.db`)
      const store = quiet(given, { path })
      fill(store, given, 800)
      const maintaining = store.maintain().catch(coded("ERR_CLOSED"))
      await turns(round * 3)
      store.close()
      await maintaining
      assert.equal(existsSync(`${path}-wal`), false, `in round ${round}`)
      const again = quiet(given, { path })
      assert.equal(again.read("a").length, 800)
      again.close()
    }
  })

  test("somebody else's transaction is waited for as long as busyTimeout says", async () => {
    const given = notes()
    const store = quiet(given, { busyTimeout: 100 })
    const other = quiet(given, { path: store.db.name })
    fill(store, given, 300)
    other.db.exec("BEGIN IMMEDIATE")
    await assert.rejects(store.maintain(), coded("ERR_BUSY"))
    other.db.exec("COMMIT")
    assert.ok((await store.maintain()).events >= 300)
    // And one's own, raw, in which it does not begin: a job has a connection of its own.
    fill(store, given, 300)
    const waiting = store.maintain()
    store.db.exec("BEGIN IMMEDIATE")
    await assert.rejects(async () => store.maintain(), coded("ERR_IN_TRANSACTION"))
    await assert.rejects(waiting, coded("ERR_BUSY"))
    store.db.exec("COMMIT")
    assert.equal((await store.maintain()).complete, true)
    assert.equal(store.read("a").length, 600)
  })

  test("runAsync and replayAllAsync get their turns beside it, and every one of them", async () => {
    const given = notes()
    const store = quiet(given)
    fill(store, given, 2_000)
    const writing = new AbortController()
    const maintaining = (async () => {
      while (!writing.signal.aborted) await store.maintain({ budget: 10 })
    })()
    const writes = []
    for (let n = 0; n < 200; n++) {
      writes.push(store.runAsync(given.Seen, { noteID: `b${n % 3}`, n }))
      if (n % 50 === 0) writes.push(store.replayAllAsync(history(`c${n}`, 20)))
      if (n % 9 === 0) await turns(1)
    }
    await Promise.all(writes)
    writing.abort()
    await maintaining
    assert.equal(store.readAll({ limit: 1_000_000 }).length, 2_000 + 200 + 4 * 20)
  })

  test("stores that pack and maintain at once compact and compress what the other does, and say nothing of it", async () => {
    const given = notes()
    const store = openNotes(given, { packing: { keepEvents: 0, atBytes: 1, idle: 1 } })
    const other = openNotes(given, { path: store.db.name, packing: { keepEvents: 0, atBytes: 1, idle: 1 } })
    for (let round = 0; round < 15; round++) {
      const maintaining = [store.maintain(), other.maintain({ budget: 5 }), other.maintain()]
      for (const one of [store, other]) {
        for (let n = 0; n < 60; n++) one.run(given.Seen, { noteID: `note ${n % 4}`, text: "x".repeat(n * 20) })
        await turns(2)
      }
      await Promise.all(maintaining)
    }
    assert.equal(store.readAll({ limit: 1_000_000 }).length, 15 * 120)
    assert.deepEqual(texts(store), texts(other))
  })
})

describe("who packs, and what", () => {
  test("the option packing, and those of maintain", async () => {
    const given = notes()
    for (const packing of [1, "yes", null, { keep: 1 }, { keepEvents: -1 }, { keepEvents: 1.5 }, { keepBytes: -1 }]) {
      assert.throws(
        () => openNotes(given, { packing }),
        coded("ERR_INVALID_ARGUMENT", /packing/),
        JSON.stringify(packing),
      )
    }
    for (const packing of [{ atBytes: 0 }, { idle: 0 }, { idle: 2 ** 31 }, { keepEvents: 2 ** 32 }, { idle: NaN }]) {
      assert.throws(
        () => openNotes(given, { packing }),
        coded("ERR_INVALID_ARGUMENT", /packing/),
        JSON.stringify(packing),
      )
    }
    const largest = { keepEvents: 2 ** 32 - 1, keepBytes: 2 ** 53 - 1, atBytes: 2 ** 53 - 1, idle: 2 ** 31 - 1 }
    const store = openNotes(given, { packing: largest })
    store.run(given.Seen, { noteID: "a" })
    assert.deepEqual((await store.maintain({ budget: 1_000 })).events, 0)
    for (const [options, name] of [
      [{ budget: 0 }, /budget/],
      [{ budget: "1" }, /budget/],
      [{ rewrite: 1 }, /rewrite/],
      [{ signal: {} }, /signal/],
      [{ onProgress: 1 }, /onProgress/],
      [{ speed: 1 }, /speed/],
    ]) {
      await assert.rejects(async () => store.maintain(options), coded("ERR_INVALID_ARGUMENT", name))
    }
  })

  test("packing: false packs nothing by itself, and maintain packs it all the same", async () => {
    const given = notes()
    const store = quiet(given)
    const keep = openNotes(given, { path: file("keep.db"), packing: { keepEvents: 10, idle: 2 ** 31 - 1 } })
    for (const one of [store, keep]) {
      one.transaction(() => {
        for (let n = 0; n < 1_000; n++) one.run(given.Seen, { noteID: "a", text: "x".repeat(2_000) })
      })
    }
    // What is left beyond the ten is too little to be worth a slice.
    while (unpacked(keep) >= 10 + 256) await pause(5)
    assert.equal(unpacked(store), 1_000)
    await packWhole(store)
  })

  test("a budget keeps the newest events rows, and none lets nothing of what is idle stay", async () => {
    const given = notes()
    const store = openNotes(given, {
      packing: { keepEvents: 20, keepBytes: 1_000, atBytes: 2 ** 40, idle: 2 ** 31 - 1 },
    })
    store.replayAll([...history("a", 600), ...history("b", 600)])
    while (!(await store.maintain({ budget: 1_000 })).complete);
    const left = rows(store, "SELECT count(*), sum(length(data)) FROM event GROUP BY aggregate")
    for (const [events, bytes] of left) assert.ok(events > 0 && events <= 20 && bytes <= 1_000, `${events}, ${bytes}`)
    assert.equal(left.length, 2)
    await packWhole(store)
  })

  test("two that maintain at once lose nothing and pack everything", async () => {
    const given = notes()
    const store = quiet(given)
    const other = quiet(given, { path: store.db.name })
    store.replayAll(Array.from({ length: 40 }, (_, n) => history(`note ${n}`, 300)).flat())
    const before = texts(store)
    await Promise.all([store.maintain(), other.maintain(), store.maintain(), other.maintain()])
    assert.equal(unpacked(store), 0)
    assert.deepEqual(texts(store), before)
    assert.equal(rows(store, "PRAGMA integrity_check")[0][0], "ok")
  })

  test("runs while it is maintained: all there, and rows of what moves", async () => {
    const given = notes()
    const store = openNotes(given, { packing: { keepEvents: 16, atBytes: 10_000, idle: 1 } })
    const events = []
    const writing = new AbortController()
    const maintaining = (async () => {
      while (!writing.signal.aborted) await store.maintain({ budget: 5 })
    })()
    for (let n = 0; n < 3_000; n++) {
      events.push(store.run(given.Written, { noteID: `note ${n % 3}`, text: `text ${n}` }).id)
      if (n % 10 === 0) await turns(1)
    }
    writing.abort()
    await maintaining
    assert.deepEqual(
      store.readAll({ limit: 1_000_000 }).map((event) => event.id),
      events,
    )
    await packWhole(store)
  })

  test("in memory, read-only, closed, aborted, in a transaction", async () => {
    const given = notes()
    const memory = openNotes(given, { path: ":memory:" })
    memory.replayAll(history("a", 2_000))
    await packWhole(memory)
    const store = quiet(given)
    store.replayAll(history("a", 2_000))
    const reader = kept(store.db.name, { readonly: true, registry: given.registry, projectors: given.projectors })
    await assert.rejects(async () => reader.maintain(), coded("ERR_READONLY"))
    await assert.rejects(store.maintain({ signal: AbortSignal.abort() }), coded("ERR_ABORTED"))
    const before = texts(store)
    const controller = new AbortController()
    const aborted = store.maintain({ signal: controller.signal, onProgress: () => controller.abort() })
    // The job may have been done with its first progress.
    await aborted.catch(coded("ERR_ABORTED"))
    assert.deepEqual(texts(store), before)
    assert.deepEqual(texts(reader), before)
    await assert.rejects(
      store.maintain({
        onProgress() {
          throw new Error("mine")
        },
      }),
      /mine/,
    )
    assert.deepEqual(texts(store), before)
    const closing = store.maintain()
    store.close()
    // It may have been done already: a job that is resolves, whoever has closed the store.
    const outcome = await closing.then(
      ({ complete }) => complete,
      ({ code }) => code,
    )
    assert.ok(outcome === true || outcome === "ERR_CLOSED", String(outcome))
    await assert.rejects(async () => store.maintain(), coded("ERR_CLOSED"))
    assert.deepEqual(texts(reader), before)
  })

  test("while it is written, an aggregate's rows stay within what is kept and one batch", async () => {
    const given = notes()
    const keepEvents = 50
    const store = openNotes(given, { packing: { keepEvents, keepBytes: 2 ** 40, atBytes: 50_000, idle: 2 ** 31 - 1 } })
    // A batch: what is written between two rounds, between two looks at it, and what is too little to be worth a segment.
    const bound = keepEvents + Math.ceil(50_000 / 600) + 64 + 256
    const perRound = 500
    for (let round = 0; round < 20; round++) {
      for (let n = 0; n < perRound; n++) store.run(given.Seen, { noteID: "a", text: "x".repeat(500) })
      while (unpacked(store) > bound) await pause(1)
    }
    assert.equal(store.read("a").length, 20 * perRound)
    const { longestHold } = await store.maintain({ budget: 1_000 })
    assert.ok(longestHold > 0 && Number.isFinite(longestHold))
  })

  test("what is written while idle packing is at work is packed, too, once it is idle again", async () => {
    const given = notes()
    const store = openNotes(given, { packing: { idle: 1, atBytes: 2 ** 40 } })
    for (let round = 0; round < 60; round++) {
      for (let n = 0; n < 1 + (round % 5) * 20; n++) store.run(given.Seen, { noteID: `note ${round % 3}` })
      // In the middle of the round that packs, sometimes: the last run calls, or is seen.
      if (round % 4 > 0) while (unpacked(store) > 0) await pause(0)
      store.run(given.Seen, { noteID: "last" })
      for (const start = performance.now(); unpacked(store) > 0; await pause(1)) {
        assert.ok(performance.now() - start < 5_000, `nobody packs what was written last, in round ${round}`)
      }
    }
  })
})
