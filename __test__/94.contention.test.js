"use strict"

const assert = require("node:assert/strict")
const { symlinkSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { Worker } = require("node:worker_threads")
const { Kysely, SqliteDialect } = require("kysely")
const { PROCESSES, contenders, percentiles } = require("./contenders")
const { say, start, untilTold } = require("./children")
const { assertSound, coded, openNotes, temporaryFolder, written } = require("./notes")
const { extent, figures, soak } = require("./soak")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)
const SHARED = 20

/** No process may take so many times as long as the fastest, counted from the same moment. */
const UNFAIR = 5

/** Milliseconds that the event loop may be late, where the machine lets the process run. */
const LATE = 20

const shown = (milliseconds) => `${milliseconds < 10 ? milliseconds.toFixed(2) : Math.round(milliseconds)} ms`

describe("many processes that write into one file, with default settings", () => {
  const together = contenders()

  /** Everything is there that any of them was told; and the log, replayed elsewhere, gives the same tables. */
  function assertWhole(path, done) {
    const { store } = openNotes(path)
    assertSound(
      store,
      done.flatMap(({ told }) => told),
    )
    const events = store.readAll({ limit: 1_000_000 })
    assert.equal(
      events.length,
      done.reduce((count, { told }) => count + told.length, 0),
    )
    const other = openNotes(newPath()).store
    other.replayAll(events)
    const notes = ({ db }) => db.prepare("SELECT * FROM note ORDER BY id").raw().all()
    assert.deepEqual(notes(store), notes(other))
    other.close()
    store.close()
  }

  function report(name, writers) {
    const calls = writers.flatMap((writer) => writer.calls)
    const lasted = writers.map((writer) => writer.lasted).toSorted((a, b) => a - b)
    const [fastest, slowest] = [lasted[0], lasted.at(-1)]
    const [median, p99, max] = percentiles(calls, 0.5, 0.99, 1).map(shown)
    const times = slowest / fastest
    const all = { fastest: shown(fastest), slowest: shown(slowest), times: times.toFixed(1), median, p99, max }
    const late = Math.max(...writers.filter(({ waiting }) => waiting).map(({ delay }) => delay.p99))
    figures(`contention, ${name}`, late > 0 ? { ...all, "event loop p99 of the latest": shown(late) } : all)
    return times
  }

  for (const [count, runs, waiting] of [
    [PROCESSES, 200, false],
    [8, 1_000, false],
    [PROCESSES, 200, true],
  ]) {
    const call = waiting ? "runAsync" : "run"
    // Half as many runs are over too soon to tell who was kept waiting.
    const fair = soak ? `, and none takes ${UNFAIR} times as long` : ""
    test(`${count} processes with ${extent(runs / 2, runs)} ${call} each: no error, no hole${fair}`, async () => {
      for (let round = 0; round < extent(1, 5); round++) {
        const path = newPath()
        openNotes(path).store.close()
        const work = { work: "write", path, runs: extent(runs / 2, runs), shared: SHARED, waiting }
        const done = await together(Array.from({ length: count }, () => work))
        const times = report(`${count} × ${work.runs} ${call}`, done)
        if (soak) assert.ok(times <= UNFAIR, `the slowest took ${times} times as long as the fastest`)
        assertWhole(path, done)
      }
    })
  }

  test("some that block and some that wait on timers: neither starves the other", async () => {
    const path = newPath()
    openNotes(path).store.close()
    const work = { work: "write", path, runs: extent(100, 400), shared: SHARED }
    const done = await together(Array.from({ length: 16 }, (_, n) => ({ ...work, waiting: n % 2 === 1 })))
    const times = report("8 × run beside 8 × runAsync", done)
    if (soak) assert.ok(times <= UNFAIR, `the slowest took ${times} times as long as the fastest`)
    assertWhole(path, done)
  })

  test("beside one that holds the lock for seconds, again and again, everybody gets it", async () => {
    const path = newPath()
    openNotes(path).store.close()
    const [times, lasting] = [extent(4, 8), extent(250, 3_000)]
    const work = { work: "write", path, runs: extent(20, 200), shared: SHARED }
    const writers = Array.from({ length: extent(12, PROCESSES) - 1 }, (_, n) => ({ ...work, waiting: n % 2 === 1 }))
    const done = await together([...writers, { work: "hold", path, times, lasting }])
    report(`a lock held for ${lasting} ms, ${times} times`, done.slice(0, -1))
    assert.equal(done.at(-1).told.length, times)
    assertWhole(path, done)
  })

  test("the event loop of who waits with runAsync goes on, however long the lock is held", async () => {
    const path = newPath()
    openNotes(path).store.close()
    const [times, lasting] = [extent(3, 5), extent(400, 3_000)]
    const work = { work: "write", path, runs: extent(20, 200), shared: SHARED, waiting: true }
    const [writer] = await together([work, { work: "hold", path, times, lasting }])
    const { p99, max } = writer.delay
    figures("contention, event-loop delay of runAsync", { p99: shown(p99), max: shown(max), held: shown(lasting) })
    // One call that waited would last as long as the lock is held; the machine alone may stop the process once for long.
    assert.ok(p99 < extent(lasting / 2, LATE), `the event loop was late by ${p99} ms`)
  })
})

describe("a lock that another process holds past the deadline", () => {
  const HOLD = `
    store.run(Written, { noteID: "a" })
    store.db.exec("BEGIN IMMEDIATE")
    tell("held")
    untilWord(() => (store.db.exec("COMMIT"), tell("free"), store.close()))
  `

  test("is ERR_BUSY that says how long it was waited for, leaves everything as it was, and can be repeated", async () => {
    const path = newPath()
    const holder = start(HOLD, { path })
    await untilTold(holder, 1)
    const { store, Written } = openNotes(path, { busyTimeout: 60, migrate: undefined })
    const data = { noteID: "a" }
    const calls = {
      run: () => store.run(Written, data),
      runAll: () => store.runAll([[Written, data]]),
      replay: () => store.replay(written("replayed", 0)),
      transaction: () => store.transaction(() => store.run(Written, data)),
      claim: () => store.claim("claimed", "me"),
      remove: () => store.remove("removed"),
      exec: () => store.db.exec("UPDATE note SET text = 'x'"),
      statement: () => store.db.prepare("UPDATE note SET text = 'x'").run(),
    }
    const before = store.aggregates()
    for (const [name, call] of Object.entries(calls)) {
      const began = performance.now()
      assert.throws(call, coded("ERR_BUSY", { waited: (ms) => ms >= 60, message: /locked \(waited \d+ ms\)/ }), name)
      assert.ok(performance.now() - began >= 60)
      assert.equal(store.db.inTransaction, false)
    }
    assert.deepEqual(store.aggregates(), before)
    // Jobs, too, wait no longer than they are told to.
    const waits = []
    for (let n = 0; n < 3; n++) {
      const waited = (ms) => (waits.push(ms), ms >= 60)
      await assert.rejects(store.maintain(), coded("ERR_BUSY", { waited, message: /maintain.*waited \d+ ms/ }))
    }
    assert.ok(Math.min(...waits) < 900, `${waits}`)
    assert.throws(() => openNotes(path, { busyTimeout: 60 }), coded("ERR_BUSY", { waited: (ms) => ms >= 60 }))
    say(holder)
    await untilTold(holder, 2)
    for (const call of Object.values(calls)) call()
    assert.equal(store.sequence("a"), 3)
    store.close()
  })
})

describe("a lock that the same thread holds", () => {
  const atOnce = coded("ERR_BUSY", { waited: 0, message: /locked: another connection of this thread/ })

  /** Default settings: who waits, waits for half a minute. */
  const given = () => {
    const path = newPath()
    return { path, ...openNotes(path) }
  }

  test("is ERR_BUSY at once: in another store's transaction, under any name of the file, and in a raw one", () => {
    const { path, store, Written } = given()
    const link = newPath()
    symlinkSync(path, link)
    const run = ({ store, Written }) => store.run(Written, { noteID: "a" })
    for (const name of [path, link]) {
      const other = openNotes(name)
      store.transaction(() => assert.throws(() => run(other), atOnce))
      other.store.transaction(() => assert.throws(() => run({ store, Written }), atOnce))
      assert.throws(() => other.store.transaction(() => store.transaction(() => {})), atOnce)
      other.store.close()
    }
    const connection = store.connect()
    for (const begin of [
      "BEGIN IMMEDIATE",
      "BEGIN; DELETE FROM note WHERE id = 'none'",
      "SAVEPOINT s; DELETE FROM note",
    ]) {
      connection.exec(begin)
      assert.throws(() => run({ store, Written }), atOnce)
      assert.throws(() => store.db.exec("DELETE FROM note"), atOnce)
      assert.throws(() => openNotes(path), atOnce)
      connection.exec("ROLLBACK")
      run({ store, Written })
    }
    // Whoever reads, or writes another file, is in nobody's way.
    connection.exec("BEGIN; SELECT * FROM note")
    run({ store, Written })
    connection.exec("ROLLBACK")
    given().store.transaction(() => run({ store, Written }))
    assert.equal(store.sequence("a"), 4)
    connection.close()
    store.close()
  })

  test("in a transaction of kysely's: run is refused at once, and runAsync waits for its end", async () => {
    const { store, Written } = given()
    const kysely = new Kysely({ dialect: new SqliteDialect({ database: store.connect() }) })
    let waiting
    await kysely.transaction().execute(async (tx) => {
      await tx.insertInto("note").values({ id: "k", text: "", writes: 0 }).execute()
      assert.throws(() => store.run(Written, { noteID: "k" }), atOnce)
      waiting = store.runAsync(Written, { noteID: "k" })
      await new Promise((resolve) => setTimeout(resolve, 20))
      assert.equal(store.sequence("k"), -1)
    })
    assert.equal((await waiting).seq, 0)
    await kysely.destroy()
    store.close()
  })

  test("connections that were closed, in a transaction too, hold nothing any more", () => {
    const { path, store, Written } = given()
    for (let n = 0; n < 50; n++) {
      const connection = store.connect()
      connection.exec("BEGIN IMMEDIATE")
      assert.throws(() => store.run(Written, { noteID: "a" }), atOnce)
      connection.close()
      const other = openNotes(path)
      other.store.db.exec("BEGIN IMMEDIATE")
      assert.throws(() => store.run(Written, { noteID: "a" }), atOnce)
      other.store.close()
      assert.equal(store.run(Written, { noteID: "a" }).seq, n)
    }
    store.close()
  })

  test("what another thread of the process holds is waited for", async () => {
    const { path, store, Written } = given()
    const program = `
      const { parentPort } = require("node:worker_threads")
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      const { store, Written } = openNotes(${JSON.stringify(path)})
      store.transaction(() => {
        store.run(Written, { noteID: "a" })
        parentPort.postMessage("held")
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
      })
      store.close()
    `
    const worker = new Worker(program, { eval: true })
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject))
    assert.equal(store.run(Written, { noteID: "a" }).seq, 1)
    await worker.terminate()
    store.close()
  })
})
