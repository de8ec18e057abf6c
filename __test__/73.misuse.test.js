"use strict"

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { SyncError, open, project, sql } = require("syncline")
const { coded, dump, noteLog, openNotes, temporaryFolder, written } = require("./notes")

const folder = temporaryFolder()
let files = 0
let path, store, Written

beforeEach(() => {
  path = join(folder, `${files++}.db`)
  ;({ store, Written } = openNotes(path))
  store.runAll([1, 2, 3].map((n) => [Written, { noteID: "a", text: `${n}` }]))
})

afterEach(() => store.close())

const closed = coded("ERR_CLOSED")

describe("use after close", () => {
  test("of the store", async () => {
    const unsubscribe = store.subscribeAll(() => assert.fail())
    const event = store.get("a", 0)
    store.close()
    store.close()
    store[Symbol.dispose ?? Symbol.for("Symbol.dispose")]()
    const calls = {
      run: () => store.run(Written, { noteID: "a" }),
      runAll: () => store.runAll([[Written, { noteID: "a" }]]),
      transaction: () => store.transaction(() => assert.fail()),
      replay: () => store.replay(written("a", 3)),
      replayAll: () => store.replayAll("[]"),
      reproject: () => store.reproject("a"),
      subscribe: () => store.subscribe(Written, () => {}),
      subscribeAll: () => store.subscribeAll(() => {}),
      read: () => store.read("a"),
      readAll: () => store.readAll({ limit: 1 }),
      get: () => store.get("a", 0),
      publish: () => store.publish(Written, { noteID: "a" }),
      stream: () => store.stream(),
      log: () => store.log({ aggregateID: "a" }),
      changes: () => store.changes(),
      export: () => store.export(),
      stats: () => store.stats(),
      sequence: () => store.sequence("a"),
      sequences: () => store.sequences(),
      aggregates: () => store.aggregates(),
      claim: () => store.claim("a", "me"),
      owner: () => store.owner("a"),
      remove: () => store.remove("a"),
      connect: () => store.connect(),
    }
    for (const [name, call] of Object.entries(calls)) assert.throws(call, closed, name)
    const promises = {
      runAsync: () => store.runAsync(Written, { noteID: "a" }),
      runAllAsync: () => store.runAllAsync([[Written, { noteID: "a" }]]),
      replayAllAsync: () => store.replayAllAsync("[]"),
      waitFor: () => store.waitFor({ a: 0 }),
      maintain: () => store.maintain(),
      backup: () => store.backup(join(folder, "copy.db")),
      verify: () => store.verify(),
      import: () => store.import([""]),
    }
    for (const [name, call] of Object.entries(promises)) await assert.rejects(call, closed, name)
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(store))
    const known = ["constructor", "close", ...Object.keys(calls), ...Object.keys(promises)]
    assert.deepEqual(methods.toSorted(), known.toSorted(), "a method of the store is missing here")
    unsubscribe()
    assert.deepEqual(event.data, { noteID: "a", text: "1" }, "what was read stays readable")
  })

  test("of the connection and its statements", () => {
    const { db } = store
    const select = db.prepare("SELECT * FROM note")
    const insert = db.prepare("INSERT INTO note VALUES (?, ?, ?)")
    const inTransaction = db.transaction(() => assert.fail())
    const rows = select.all()
    store.close()
    assert.equal(db.open, false)
    assert.equal(db.inTransaction, false)
    for (const call of [
      () => db.prepare("SELECT 1"),
      () => db.exec("SELECT 1"),
      () => db.pragma("user_version"),
      () => db.function("f", () => 1),
      () => inTransaction(),
      () => inTransaction.deferred(),
      () => select.get(),
      () => select.all(),
      () => select.iterate(),
      () => select.columns(),
      () => insert.run("b", "c", 1),
    ]) {
      assert.throws(call, closed, call.toString())
    }
    db.close()
    assert.equal(rows.length, 1)
  })

  test("of an iterator: closing ends it, and returning it afterwards is nothing", () => {
    const open = store.db.prepare("SELECT * FROM note").iterate()
    const begun = store.db.prepare("SELECT seq FROM event ORDER BY seq").iterate()
    assert.deepEqual(begun.next().value, { seq: 0 })
    store.close()
    for (const iterator of [open, begun]) {
      assert.throws(() => iterator.next(), closed)
      assert.deepEqual(iterator.return(), { done: true, value: undefined })
      assert.deepEqual(iterator.next(), { done: true, value: undefined })
    }
  })

  test("of a log: one that was begun fails, one that follows ends", async () => {
    const begun = store.log({ aggregateID: "a" })
    const following = store.log({ aggregateID: "a", after: 2, follow: true })
    assert.equal((await begun.next()).value.event.seq, 0)
    assert.equal((await following.next()).value.kind, "synced")
    const waiting = following.next()
    const later = store.log({ aggregateID: "a" })
    store.close()
    assert.deepEqual(await waiting, { done: true, value: undefined })
    await assert.rejects(() => later.next(), closed)
    await begun.return()
    assert.equal((await begun.next()).done, true)
  })

  test("what waits is refused, and a second connection lives on", async () => {
    const second = store.connect()
    second.exec("BEGIN IMMEDIATE")
    const waiting = store.runAsync(Written, { noteID: "a" })
    store.close()
    await assert.rejects(waiting, closed)
    second.exec("ROLLBACK")
    assert.equal(second.prepare("SELECT count(*) FROM event").pluck().get(), 3)
    second.close()
    assert.throws(() => second.prepare("SELECT 1"), closed)
  })
})

describe("a projector that", () => {
  /** Runs and replays with this projector: both must be refused so, and leave everything as it was. */
  function refused(projector, check) {
    store.close()
    const log = noteLog()
    const make = (how) => (typeof how === "function" ? (...args) => how(store, ...args) : how)
    store = open(path, { registry: log.registry, projectors: [project(log.Written, make(projector))] })
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    const before = dump(store.db)
    const calls = [
      () => store.run(log.Written, { noteID: "b" }),
      () => store.runAll([[log.Written, { noteID: "b" }]]),
      () => store.replay(written("b", 0), { publish: true }),
      () => store.remove("a", { event: [log.Written, { noteID: "a" }] }),
      () => store.transaction(() => store.run(log.Written, { noteID: "b" })),
    ]
    for (const call of calls) {
      assert.throws(call, check, call.toString())
      assert.equal(store.db.inTransaction, false)
      assert.deepEqual(dump(store.db), before)
    }
    assert.deepEqual(heard, [])
  }
  const inProjector = coded("ERR_IN_PROJECTOR")

  test("throws: the very value reaches the caller", () => {
    for (const thrown of [new Error("mine"), null, undefined, "text", Object.freeze({}), NaN]) {
      const throwing = (_, tx) => {
        tx.exec("DELETE FROM note")
        throw thrown
      }
      refused(throwing, (error) => Object.is(error, thrown))
    }
  })

  test("returns a promise or another thenable: a rejection is caught", () => {
    refused(async () => assert.fail("unhandled"), coded("ERR_ASYNC_PROJECTOR"))
    // oxlint-disable-next-line unicorn/no-thenable -- that is what is refused
    refused(() => ({ then: () => {} }), coded("ERR_ASYNC_PROJECTOR"))
  })

  test("closes the store, or its connection", () => {
    refused((store) => store.close(), inProjector)
    refused((_, tx) => tx.close(), inProjector)
  })

  test("mistake 5: runs, replays, claims, removes or opens a transaction", () => {
    const log = noteLog()
    refused((store, _, data, event) => store.run(log.Written, { noteID: event.aggregateID }), inProjector)
    refused((store) => store.runAll([]), inProjector)
    refused((store) => store.replay(written("c", 0)), inProjector)
    refused((store) => store.replayAll([]), inProjector)
    refused((store) => store.claim("a", "me"), inProjector)
    refused((store) => store.remove("a"), inProjector)
    refused((store) => store.transaction(() => {}), inProjector)
    refused((_, tx) => tx.transaction(() => {})(), inProjector)
  })

  test("begins, divides or ends the transaction by SQL, from JavaScript or in SQL", () => {
    for (const control of ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"]) {
      refused((_, tx) => tx.exec(control), inProjector)
      refused((_, tx) => tx.prepare(control).run(), inProjector)
    }
    refused(sql`COMMIT`, inProjector)
    refused([sql`INSERT INTO note VALUES ('c', NULL, 1)`, sql`SAVEPOINT s`], inProjector)
  })

  test("reads or writes the log's own tables", () => {
    for (const statement of ["SELECT * FROM event", "SELECT * FROM event_log", "DELETE FROM event_sequence"]) {
      refused((_, tx) => tx.prepare(statement).run(), inProjector)
    }
    refused(sql`UPDATE event SET data = '{}'`, inProjector)
  })

  test("catches a refusal: what it did beside that is kept, and nothing else", () => {
    store.close()
    const log = noteLog()
    const trying = project(log.Written, (tx, data) => {
      for (const attempt of [
        () => store.run(log.Written, { noteID: "z" }),
        () => tx.exec("COMMIT"),
        () => store.close(),
      ]) {
        assert.throws(attempt, inProjector)
      }
      tx.prepare("INSERT INTO note VALUES (?, NULL, 1)").run(data.noteID)
    })
    store = open(path, { registry: log.registry, projectors: [trying] })
    assert.equal(store.run(log.Written, { noteID: "b" }).seq, 0)
    assert.equal(store.sequence("z"), -1)
    assert.equal(store.db.prepare("SELECT count(*) FROM note").pluck().get(), 2)
  })

  test("meets RAISE(ROLLBACK): nothing after it commits by itself", () => {
    store.db.exec("CREATE TRIGGER no BEFORE INSERT ON note WHEN new.id = 'no' BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
    const lost = coded("ERR_SQLITE", { message: /no/ })
    const insert = "INSERT INTO note VALUES ('no', NULL, 1)"
    refused((_, tx) => tx.exec(insert), lost)
    refused(sql`INSERT INTO note VALUES ('no', NULL, 1)`, lost)
    const catching = (_, tx) => {
      assert.throws(() => tx.exec(insert), lost)
      assert.throws(() => tx.exec("INSERT INTO note VALUES ('after', NULL, 1)"), lost)
    }
    refused(catching, lost)
  })

  test("leaves a constraint that only COMMIT checks", () => {
    store.db.exec("CREATE TABLE part (note TEXT REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)")
    const failing = coded("ERR_SQLITE", { sqliteCode: "SQLITE_CONSTRAINT_FOREIGNKEY" })
    refused((_, tx) => tx.exec("INSERT INTO part VALUES ('nothing')"), failing)
    refused(sql`INSERT INTO part VALUES ('nothing')`, failing)
  })

  test("uses SQL that is no SQL, or parameters that do not exist", () => {
    refused(sql`NONSENSE`, coded("ERR_SQLITE"))
    refused(sql`INSERT INTO nowhere VALUES (1)`, coded("ERR_SQLITE", { message: /nowhere/ }))
    refused(sql`UPDATE note SET text = :nothing`, coded("ERR_INVALID_ARGUMENT", { message: /:nothing/ }))
    refused(sql`UPDATE note SET text = ?`, coded("ERR_INVALID_ARGUMENT"))
    refused(sql`DELETE FROM note; DELETE FROM note`, coded("ERR_INVALID_ARGUMENT", { message: /more than one/ }))
  })
})

describe("a listener that", () => {
  test("mistake 4: throws null, or anything, reaches onListenerError; the run succeeds, the others hear", async () => {
    const errors = []
    const log = openNotes(join(folder, `${files++}.db`), {
      onListenerError: (error, event) => errors.push([error, event.seq]),
    })
    const heard = []
    const thrown = [null, undefined, "text", new Error("mine")]
    for (const value of thrown) {
      log.store.subscribeAll(() => {
        throw value
      })
    }
    log.store.subscribeAll(() => Promise.reject(null))
    log.store.subscribeAll((event) => heard.push(event.seq))
    assert.equal(log.store.run(log.Written, { noteID: "a" }).seq, 0)
    await new Promise(setImmediate)
    assert.deepEqual(heard, [0])
    assert.deepEqual(
      errors,
      [...thrown, null].map((value) => [value, 0]),
    )
    log.store.close()
  })

  test("throws with no handler gives a process warning; a handler that throws does, too", () => {
    const program = `
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      process.on("warning", (warning) => console.log(warning.name, warning.code, warning.message.split("\\n")[0]))
      for (const options of [{}, { onListenerError() { throw new Error("handler") } }]) {
        const { store, Written } = openNotes(":memory:", options)
        store.subscribe(Written, () => { throw null })
        store.run(Written, { noteID: "a" })
      }
    `
    const { stdout, stderr, status } = spawnSync(process.execPath, ["-e", program], { encoding: "utf8" })
    assert.equal(status, 0, stderr)
    const lines = stdout.split("\n").filter((line) => line.startsWith("SynclineWarning"))
    assert.match(lines[0], /LISTENER_FAILED A listener of "note\.written" failed \(aggregate "a", seq 0\): null/)
    assert.match(lines[1], /LISTENER_FAILED .*Error: handler/)
  })

  test("unsubscribes itself and others, subscribes anew, runs events, closes the store", () => {
    const heard = []
    const undo = [
      store.subscribe(Written, (event) => {
        heard.push(`first ${event.seq}`)
        for (const each of undo) each()
        store.subscribeAll((event) => heard.push(`new ${event.seq}`))
        store.run(Written, { noteID: "a" })
        heard.push("ran")
      }),
      store.subscribe(Written, (event) => heard.push(`second ${event.seq}`)),
    ]
    store.run(Written, { noteID: "a" })
    assert.deepEqual(heard, ["first 3", "ran", "new 4"])
    store.subscribe(Written, () => store.close())
    store.subscribe(Written, () => assert.fail("it was closed"))
    assert.equal(store.run(Written, { noteID: "a" }).seq, 5)
    assert.throws(
      () => store.sequence("a"),
      (error) => error instanceof SyncError && error.code === "ERR_CLOSED",
    )
  })

  test("changes the event it was given changes nothing of what run returns or what is stored", () => {
    const heard = []
    store.subscribeAll((event) => {
      event.data.text = "changed"
      event.properties.more = 1
      event.seq = 99
    })
    store.subscribeAll((event) => heard.push(event.data))
    const event = store.run(Written, { noteID: "a", text: "same" })
    assert.deepEqual(event.data, { noteID: "a", text: "same" })
    assert.deepEqual(store.get("a", 3).data, { noteID: "a", text: "same" })
    assert.equal(heard.length, 1)
  })
})
