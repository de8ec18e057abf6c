"use strict"

const assert = require("node:assert/strict")
const { existsSync } = require("node:fs")
const { describe, test } = require("node:test")
const { open, project } = require("syncline")
const {
  coded,
  dump,
  file,
  history,
  kept,
  noteRows,
  notes,
  openNotes,
  refused,
  serialized,
  turns,
} = require("./stores.js")

describe("open: migrate", () => {
  test("runs at each open, in one transaction under the write lock, before projectors are used", () => {
    const given = notes()
    const other = openNotes(notes())
    let calls = 0
    const migrate = (db) => {
      calls++
      assert.equal(db.inTransaction, true)
      const second = other.connect()
      assert.throws(() => second.exec("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE"), coded("ERR_BUSY"))
      second.close()
      db.exec(`CREATE TABLE more_${calls} (x)`)
      db.transaction(() => db.exec(`INSERT INTO more_${calls} VALUES (1)`))()
      db.pragma(`user_version = ${calls}`)
    }
    const options = { busyTimeout: 20 }
    for (let time = 1; time <= 2; time++) {
      const store = openNotes(given, { migrate, ...options })
      assert.equal(calls, time)
      assert.equal(store.db.pragma("user_version", { simple: true }), time)
      assert.equal(store.db.prepare(`SELECT x FROM more_${time}`).pluck().get(), 1)
      assert.equal(store.run(given.Written, { noteID: "n" }).seq, time - 1)
      store.close()
    }
  })

  test("what it throws passes through, changes nothing, and leaves nothing open", () => {
    const store = openNotes(notes())
    const before = dump(store)
    const failure = new Error("migrate")
    const failing = (migrate) => () => openNotes(notes(), { migrate })
    assert.throws(
      failing((db) => {
        db.exec("CREATE TABLE half (x)")
        throw failure
      }),
      (error) => error === failure,
    )
    assert.throws(
      failing((db) => db.exec("CREATE TABLE note (x)")),
      coded("ERR_SQLITE", /already exists/),
    )
    assert.throws(
      failing((db) => db.exec("COMMIT")),
      coded("ERR_IN_TRANSACTION"),
    )
    assert.throws(
      failing((db) => db.close()),
      coded("ERR_IN_TRANSACTION"),
    )
    assert.deepEqual(dump(store), before)
    store.close()
    assert.equal(existsSync(`${file()}-wal`), false)
  })

  test("an async one is refused before it runs, a promise is refused after", async () => {
    let called = 0
    const { registry } = notes()
    assert.throws(() => open(file(), { registry, migrate: async () => void called++ }), coded("ERR_ASYNC_TRANSACTION"))
    assert.equal(called, 0)
    const rejecting = (db) => {
      db.exec("CREATE TABLE half (x)")
      return Promise.reject(new Error("late"))
    }
    assert.throws(() => open(file(), { registry, migrate: rejecting }), coded("ERR_ASYNC_TRANSACTION"))
    await turns()
    const store = kept(file(), { registry })
    assert.equal(store.db.prepare("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").pluck().get(), 0)
    assert.throws(() => open(file(), { registry, readonly: true, migrate: () => {} }), coded("ERR_INVALID_ARGUMENT"))
  })
})

describe("open: readonly", () => {
  test("reads everything, and refuses every write", async () => {
    const given = notes()
    const writer = openNotes(given)
    writer.replayAll(history("a", 3))
    writer.claim("a", "me")
    const store = openNotes(given, { readonly: true })
    assert.equal(store.db.readonly, true)
    assert.deepEqual(dump(store), dump(writer))
    assert.deepEqual(store.read("a"), history("a", 3))
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    const readonly = coded("ERR_READONLY")
    refused(store, () => store.run(given.Written, { noteID: "a" }), readonly)
    refused(store, () => store.replayAll(history("b", 1)), readonly)
    refused(store, () => store.transaction((tx) => tx.exec("DELETE FROM note")), readonly)
    assert.equal(
      store.transaction(() => noteRows(store).length),
      1,
    )
    refused(store, () => store.claim("a", "you"), readonly)
    refused(store, () => store.remove("a"), readonly)
    refused(store, () => store.db.exec("DELETE FROM note"), readonly)
    await assert.rejects(store.runAsync(given.Written, { noteID: "a" }), readonly)
    assert.equal(store.db.transaction(() => noteRows(store).length).deferred(), 1)
    writer.run(given.Written, { noteID: "c" })
    assert.equal(store.sequence("c"), 0)
  })

  test("a file that does not exist is not created", () => {
    const { registry } = notes()
    assert.throws(() => open(file(), { registry, readonly: true }), coded("ERR_SQLITE"))
    assert.equal(existsSync(file()), false)
    assert.equal(registry.frozen, false)
  })
})

describe("open: connect, close, dispose", () => {
  test("connect gives a second connection that its caller owns", () => {
    const given = notes()
    const store = openNotes(given)
    const other = store.connect()
    assert.notEqual(other, store.db)
    store.run(given.Written, { noteID: "a" })
    assert.equal(other.prepare("SELECT count(*) FROM note").pluck().get(), 1)
    other.transaction(() => other.exec("INSERT INTO note VALUES ('b', '', 0)"))()
    assert.deepEqual(
      noteRows(store).map(([id]) => id),
      ["a", "b"],
    )
    assert.equal(other.pragma("foreign_keys", { simple: true }), 1)
    store.close()
    assert.equal(other.open, true)
    assert.equal(other.prepare("SELECT count(*) FROM note").pluck().get(), 2)
    other.close()
    other.close()
    assert.equal(other.open, false)
    assert.throws(() => store.connect(), coded("ERR_CLOSED"))
    assert.throws(
      () => kept(":memory:", { registry: given.registry }).connect(),
      coded("ERR_INVALID_ARGUMENT", /memory/),
    )
  })

  test("close is idempotent, through store, db and Symbol.dispose; the last one removes the WAL", () => {
    const given = notes()
    // Node has the symbol from 20.5 on.
    const dispose = Symbol.dispose ?? Symbol.for("Symbol.dispose")
    for (const close of [(store) => store.close(), (store) => store.db.close(), (store) => store[dispose]()]) {
      const store = openNotes(given)
      store.run(given.Written, { noteID: "a" })
      assert.equal(existsSync(`${file()}-wal`), true)
      close(store)
      close(store)
      store.close()
      assert.equal(store.db.open, false)
      assert.equal(existsSync(`${file()}-wal`), false)
      assert.equal(given.registry.frozen, false)
    }
    assert.equal(openNotes(given).sequence("a"), 2)
  })

  test("closed stores refuse everything with ERR_CLOSED", async () => {
    const given = notes()
    const store = openNotes(given)
    const statement = store.db.prepare("SELECT 1")
    const undo = store.subscribeAll(() => {})
    store.close()
    undo()
    const calls = [
      () => store.run(given.Written, { noteID: "a" }),
      () => store.runAll([]),
      () => store.transaction(() => {}),
      () => store.replay(serialized("seen", 0, { noteID: "a" })),
      () => store.replayAll([]),
      () => store.subscribe(given.Written, () => {}),
      () => store.subscribeAll(() => {}),
      () => store.read("a"),
      () => store.readAll({ limit: 1 }),
      () => store.get("a", 0),
      () => store.log({ aggregateID: "a" }),
      () => store.sequence("a"),
      () => store.sequences(),
      () => store.aggregates(),
      () => store.claim("a", "me"),
      () => store.owner("a"),
      () => store.remove("a"),
      () => store.connect(),
      () => store.db.prepare("SELECT 1"),
      () => store.db.exec("SELECT 1"),
      () => store.db.transaction(() => {})(),
      () => statement.get(),
    ]
    for (const call of calls) assert.throws(call, coded("ERR_CLOSED"), String(call))
    await assert.rejects(store.runAsync(given.Written, { noteID: "a" }), coded("ERR_CLOSED"))
  })

  test("unknown options and wrong values are refused, and thaw the registry", () => {
    const { registry } = notes()
    const wrong = [
      null,
      1,
      [],
      { unknown: 1 },
      { registry: {} },
      { registry: null },
      { durability: "some" },
      { busyTimeout: -1 },
      { busyTimeout: "1" },
      { maxEventBytes: 0 },
      { readonly: "no" },
      { record: 1 },
      { owner: "" },
      { validate: "maybe" },
    ]
    for (const options of wrong) {
      const given =
        options === null || typeof options !== "object" || Array.isArray(options) ? options : { registry, ...options }
      assert.throws(() => open(":memory:", given), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const path of ["", undefined, null, 1, {}, "a\ud800"]) {
      assert.throws(() => open(path, { registry }), coded("ERR_INVALID_ARGUMENT", /path/))
    }
    assert.equal(registry.frozen, false)
  })
})

describe("open: query", () => {
  test("is called once, after migrate, and makes the tx of projectors and transactions", () => {
    const given = notes()
    const calls = []
    const made = []
    const Seen = project(given.Written, (tx) => void made.push(tx))
    const store = kept(file(), {
      registry: given.registry,
      projectors: [Seen],
      migrate: () => void calls.push("migrate"),
      query: (db) => (calls.push("query"), { db }),
    })
    assert.deepEqual(calls, ["migrate", "query"])
    store.run(given.Written, { noteID: "a" })
    store.transaction((tx) => void made.push(tx))
    assert.deepEqual(calls, ["migrate", "query"])
    assert.deepEqual(made, [{ db: store.db }, { db: store.db }])
    assert.equal(made[0], made[1])
  })

  test("may do what no projector may: it runs outside of any", () => {
    const given = notes()
    const store = openNotes(given, {
      query: (db) => {
        db.transaction(() => db.exec("CREATE TABLE made_by_query (id)"))()
        return db
      },
    })
    store.run(given.Written, { noteID: "a" })
    assert.deepEqual(store.db.prepare("SELECT * FROM made_by_query").all(), [])
  })

  test("what it throws passes through, and nothing stays open; closing in it refuses the store", () => {
    const given = notes()
    const failure = new Error("query")
    const failing = () => {
      throw failure
    }
    assert.throws(
      () => openNotes(given, { query: failing }),
      (error) => error === failure,
    )
    assert.throws(() => openNotes(given, { query: (db) => db.close() }), coded("ERR_CLOSED"))
    assert.equal(given.registry.frozen, false)
    openNotes(given)
  })
})

describe("rule 10: while a query of the connection is open", () => {
  test("rule 10: a run inside an application-defined function, or beside a cursor, is refused and harms nothing", () => {
    const given = notes()
    const store = openNotes(given)
    store.db.exec("INSERT INTO note VALUES ('a', '', 0), ('b', '', 0)")
    store.db.function("run_it", () => store.run(given.Seen, { noteID: "n" }).seq)
    refused(store, () => store.db.prepare("SELECT run_it()").get(), coded("ERR_BUSY"))
    store.db.function("replay_it", () => store.replayAll(history("n", 1)).length)
    refused(store, () => store.db.prepare("SELECT replay_it()").get(), coded("ERR_BUSY"))
    store.db.function("close_it", () => store.close())
    refused(store, () => store.db.prepare("SELECT close_it()").get(), coded("ERR_BUSY"))
    for (const _ of store.db.prepare("SELECT * FROM note").iterate()) {
      assert.throws(() => store.run(given.Written, { noteID: "n" }), coded("ERR_BUSY"))
      assert.throws(() => store.run(given.Tagged, { noteID: "n", tag: "t" }), coded("ERR_BUSY"))
      assert.throws(() => store.transaction(() => {}), coded("ERR_BUSY"))
      assert.throws(() => store.claim("n", "me"), coded("ERR_BUSY"))
      assert.equal(store.sequence("n"), -1)
    }
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
  })
})
