"use strict"

// What is dropped without being closed: collected at any moment, it must take nothing with it that is still in use.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { existsSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)

/** Before each program: its path, and a way to collect garbage until something has come true. */
const PRELUDE = `
  const assert = require("node:assert/strict")
  const { readdirSync } = require("node:fs")
  const { noteLog, openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
  const path = process.argv.at(-1)
  async function collectUntil(isTrue, what) {
    for (let round = 0; round < 100; round++) {
      gc()
      // Finalizers run between turns of the event loop.
      await new Promise((resume) => setTimeout(resume, 1))
      if (isTrue()) return
    }
    assert.fail(what + " was not collected")
  }
  const openFiles = () => (process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0)
`

/** Runs a program in a process with a garbage collector at hand. It must end by itself, and well. */
function run(program, path = newPath()) {
  const args = ["--expose-gc", "--unhandled-rejections=strict", "-e", `${PRELUDE}; (async () => {${program}})()`, path]
  const { status, signal, stderr, stdout } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 })
  assert.deepEqual({ status, signal }, { status: 0, signal: null }, `${stdout}${stderr}`)
  return stdout
}

describe("garbage", () => {
  test("mistake 15: the registry thaws when its store is collected", () => {
    run(`
      const { registry, Written } = noteLog();
      (() => openNotes(path, { registry, projectors: [] }).store)()
      assert.equal(registry.frozen, true)
      await collectUntil(() => !registry.frozen, "the store")
    `)
  })

  test("a store that only its connection still holds is not collected, and its registry stays frozen", () => {
    run(`
      const log = noteLog()
      const { db } = (() => openNotes(path, { registry: log.registry, projectors: [log.write] }).store)()
      for (let round = 0; round < 5; round++) await collectUntil(() => true)
      assert.equal(log.registry.frozen, true)
      assert.equal(db.prepare("SELECT count(*) AS n FROM note").get().n, 0)
      db.close()
      assert.equal(log.registry.frozen, false)
    `)
  })

  test("what a dropped store held is given back: files, locks and memory", () => {
    const path = newPath()
    run(
      `
      openNotes(path).store.close()
      const before = openFiles()
      const drop = () => {
        const { store, Written } = openNotes(path)
        store.run(Written, { noteID: "a" })
        store.db.prepare("SELECT * FROM note").iterate().next()
        store.connect().prepare("SELECT 1").get()
      }
      for (let round = 0; round < 10; round++) {
        for (let n = 0; n < 20; n++) drop()
        // As long as one connection of a process is open, SQLite keeps the files of the others open, too.
        await collectUntil(() => openFiles() <= before, "a store's file")
      }
      const { store, Written } = openNotes(path)
      assert.equal(store.run(Written, { noteID: "a" }).seq, 200)
    `,
      path,
    )
    const { store } = openNotes(path)
    assert.equal(store.sequence("a"), 200)
    store.close()
    assert.equal(existsSync(`${path}-wal`), false)
  })

  test("a statement or an iterator alone keeps its connection, and is enough to go on", () => {
    run(`
      const make = () => {
        const { store, Written } = openNotes(path)
        store.run(Written, { noteID: "a", text: "t" })
        return store.db.prepare("SELECT * FROM note")
      }
      const statement = make()
      await collectUntil(() => true)
      assert.deepEqual(statement.all(), [{ id: "a", text: "t", writes: 1 }])
      const iterator = (() => make().iterate())()
      await collectUntil(() => true)
      assert.equal(iterator.next().value.writes, 2)
      await collectUntil(() => true)
      assert.deepEqual(iterator.next(), { done: true, value: undefined })
      const log = (() => {
        const { store, Written } = openNotes(path)
        store.run(Written, { noteID: "a" })
        return store.log({ aggregateID: "a" })
      })()
      await collectUntil(() => true)
      const kinds = []
      for await (const item of log) kinds.push(item.kind), gc()
      assert.deepEqual(kinds, ["event", "event", "event", "synced"])
    `)
  })

  test("statements and iterators that are dropped half-way leave the connection as it was", () => {
    run(`
      const { store, Written } = openNotes(path)
      store.runAll(Array.from({ length: 50 }, (_, n) => [Written, { noteID: "n" + n }]))
      for (let n = 0; n < 3_000; n++) store.db.prepare("SELECT " + n + " FROM note").all()
      await collectUntil(() => true)
      const statement = store.db.prepare("SELECT * FROM note")
      for (const row of statement.iterate()) break
      assert.equal(store.run(Written, { noteID: "a" }).seq, 0)
      store.close()
    `)
  })

  test("garbage collected while a statement steps, a projector runs and a listener hears", () => {
    run(`
      const { store, registry, Written } = openNotes(path)
      store.db.function("collect", (value) => (gc(), value))
      for (let n = 0; n < 20; n++) store.run(Written, { noteID: "n" + n })
      assert.equal(store.db.prepare("SELECT collect(id) AS id FROM note").all().length, 20)
      for (const row of store.db.prepare("SELECT collect(id) AS id FROM note").iterate()) gc()
      store.subscribe(Written, (event) => (gc(), event.data))
      store.transaction(() => {
        store.run(Written, { noteID: "a" })
        gc()
        store.run(Written, { noteID: "a" })
      })
      const bytes = Buffer.from(JSON.stringify({ id: "e", type: "note.written.1", seq: 2, aggregateID: "a", data: { noteID: "a" } }))
      store.replayAll((gc(), bytes), { publish: true })
      assert.equal(store.sequence("a"), 2)
      store.close()
    `)
  })

  test("events that are read long after their store is gone still hold their data", () => {
    run(`
      const make = () => {
        const { store, Written } = openNotes(path)
        store.runAll(Array.from({ length: 100 }, (_, n) => [Written, { noteID: "a", text: "t" + n }]))
        const events = store.read("a")
        store.close()
        return events
      }
      const events = make()
      await collectUntil(() => true)
      assert.deepEqual(events.map((event) => event.data.text), Array.from({ length: 100 }, (_, n) => "t" + n))
    `)
  })

  test("memory does not grow with what was run, read and replayed", () => {
    const grown = run(`
      const { store, Written } = openNotes(path)
      const text = "x".repeat(20_000)
      const work = () => {
        for (let n = 0; n < 500; n++) {
          store.run(Written, { noteID: "a", text })
          store.read("a", { order: "desc", limit: 5 })
          store.db.prepare("SELECT data FROM event ORDER BY position DESC LIMIT 5").all()
        }
        gc()
        return process.memoryUsage().rss
      }
      work()
      const before = work()
      work()
      work()
      console.log(Math.round((work() - before) / 2 ** 20))
      store.close()
    `)
    // Half of what one round puts through: a leak of events would show six times over.
    assert.ok(Number(grown) < 40, `${grown.trim()} MiB more`)
  })
})
