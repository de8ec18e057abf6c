// What reviews found wrong, each kept from coming back.
"use strict"

const assert = require("node:assert/strict")
const { existsSync, renameSync } = require("node:fs")
const { describe, test } = require("node:test")
const { coded, file, history, notes, openNotes, serialized } = require("./stores")

const count = (store, table = "note") => store.db.prepare(`SELECT count(*) FROM ${table}`).pluck().get()

describe("transactions", () => {
  test("raw COMMIT inside a transaction under a raw BEGIN is refused, and the store goes on", () => {
    const given = notes()
    const store = openNotes(given)
    store.db.exec("BEGIN")
    const commit = () => store.transaction((tx) => (tx.exec("INSERT INTO tag VALUES ('a', 'b', 0)"), tx.exec("COMMIT")))
    assert.throws(commit, coded("ERR_IN_TRANSACTION"))
    store.db.exec("ROLLBACK")
    assert.equal(count(store, "tag"), 0)
    assert.equal(store.run(given.Written, { noteID: "a" }).seq, 0)
  })

  test("a raw savepoint cannot take the name of one of ours, and with it what ours takes back", () => {
    const given = notes()
    const store = openNotes(given)
    store.transaction(() => {
      const inner = () =>
        store.transaction((tx) => {
          store.run(given.Written, { noteID: "a" })
          tx.exec("SAVEPOINT Syncline_1")
        })
      assert.throws(inner, coded("ERR_IN_TRANSACTION", /syncline_/))
    })
    assert.equal(store.sequence("a"), -1)
    assert.equal(count(store), 0)
  })

  test("EXPLAIN of a control statement moves no pending event", () => {
    const given = notes()
    const store = openNotes(given)
    let heard = 0
    store.subscribeAll(() => heard++)
    store.transaction((tx) => {
      tx.exec("SAVEPOINT a")
      store.run(given.Written, { noteID: "a" })
      tx.exec("EXPLAIN ROLLBACK TO a")
      tx.exec("RELEASE a")
    })
    assert.equal(heard, 1)
    store.db.exec("EXPLAIN BEGIN")
    assert.equal(store.run(given.Written, { noteID: "a" }).seq, 1)
  })

  test("an iterator that a transaction leaves behind does not refuse later writes", () => {
    const given = notes()
    const store = openNotes(given)
    const left = store.transaction((tx) => {
      const rows = tx.prepare("SELECT 1 UNION SELECT 2").iterate()
      rows.next()
      return rows
    })
    assert.equal(store.run(given.Written, { noteID: "a" }).seq, 0)
    assert.throws(() => left.next(), coded("ERR_CLOSED"))
  })
})

describe("replaying", () => {
  test("an owner and an epoch that an unowned aggregate has already are good for the whole batch", () => {
    const store = openNotes(notes())
    // From a transport that did not name the owner.
    store.replayAll(history("a", 1), { epoch: 1 })
    assert.deepEqual(store.owner("a"), { owner: null, epoch: 1 })
    const [result] = store.replayAll(history("a", 3), { owner: "me", epoch: 1 })
    assert.equal(result.applied, 2)
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    assert.throws(() => store.replayAll(history("b", 1), { owner: "me", epoch: 0 }), coded("ERR_INVALID_ARGUMENT"))
  })

  test("a deletion event that came by itself is not projected again by its removal, and another one diverges", () => {
    const store = openNotes(notes())
    const deletion = serialized("tagged", 1, { noteID: "a", tag: "deleted" })
    store.replayAll([serialized("written", 0, { noteID: "a" }), deletion])
    const removed = { kind: "removed", aggregateID: "a", seq: 1, event: deletion }
    const other = { ...removed, event: { ...deletion, id: "evt_other" } }
    assert.throws(() => store.replay(other), coded("ERR_REPLAY_DIVERGED"))
    assert.equal(store.replay(removed).applied, 1)
    assert.equal(count(store, "tag"), 1)
    assert.deepEqual(store.read("a"), [])
  })

  test("a removal of nothing is refused, and makes no aggregate", () => {
    const store = openNotes(notes())
    assert.throws(() => store.replay({ kind: "removed", aggregateID: "a", seq: -1 }), coded("ERR_INVALID_EVENT"))
    assert.deepEqual(store.aggregates(), [])
  })

  test("one event that stands on several lines is one event", () => {
    const store = openNotes(notes())
    const [event] = history("a", 1)
    assert.equal(store.replayAll(JSON.stringify(event, null, 2))[0].applied, 1)
    assert.deepEqual(store.read("a"), [event])
  })

  test("maxEventBytes bounds what is stored, whatever the spacing of what came", () => {
    const store = openNotes(notes(), { maxEventBytes: 60 })
    const spaced = JSON.stringify(history("a", 1)[0], null, 20)
    assert.equal(store.replayAll(spaced)[0].applied, 1)
    const short = `{"id":"x","type":"note.seen.1","seq":1,"aggregateID":"a","data":{"noteID":"a","n":[1e20,1e20]}}`
    assert.throws(() => store.replayAll(short), coded("ERR_TOO_LARGE", /./, { limit: 60 }))
  })

  test("an aggregate field that JSON writes with escapes is found", () => {
    const { createRegistry, define, open } = require("syncline")
    const { z } = require("zod")
    const registry = createRegistry()
    const field = 'i"d\n'
    const schema = z.object({ [field]: z.string() })
    const Odd = define({ type: "odd", version: 1, aggregate: field, schema, projector: "none", registry })
    const store = open(":memory:", { registry })
    store.run(Odd, { [field]: "a" })
    const copy = open(":memory:", { registry })
    assert.equal(copy.replayAll(store.read("a"))[0].applied, 1)
    store.close()
    copy.close()
  })
})

describe("projectors", () => {
  const reads = {
    read: (store) => store.read("a"),
    readAll: (store) => store.readAll({ limit: 1 }),
    get: (store) => store.get("a", 0),
    sequence: (store) => store.sequence("a"),
    sequences: (store) => store.sequences(),
    aggregates: (store) => store.aggregates(),
    owner: (store) => store.owner("a"),
  }
  for (const [name, read] of Object.entries(reads)) {
    test(`may not ask the store for the log: ${name}`, () => {
      const { project } = require("syncline")
      const given = notes()
      const projectors = [project(given.Written, () => void read(store))]
      const store = openNotes({ ...given, projectors })
      assert.throws(() => store.run(given.Written, { noteID: "a" }), coded("ERR_IN_PROJECTOR", /log/))
      assert.equal(store.sequence("a"), -1)
    })
  }
})

describe("files and rows", () => {
  test("a file that is moved away while open keeps its WAL and every event in it", () => {
    const given = notes()
    const path = file("here.db")
    const store = openNotes(given, { path })
    for (let n = 0; n < 100; n++) store.run(given.Written, { noteID: "a" })
    renameSync(path, file("there.db"))
    renameSync(`${path}-wal`, file("there.db-wal"))
    assert.throws(() => store.connect(), coded("ERR_SQLITE", /here\.db/))
    assert.equal(existsSync(path), false)
    const copy = openNotes(given, { path: file("there.db") })
    assert.equal(copy.sequence("a"), 99)
  })

  test("text that JavaScript cannot hold is an error, not undefined", () => {
    const store = openNotes(notes())
    const huge = store.db.prepare("SELECT printf('%.*c', 600000000, 'x')")
    assert.throws(() => huge.get(), coded("ERR_TOO_LARGE", /600000000/))
  })

  test("a store that reads only takes transactions that read only", () => {
    const given = notes()
    const store = openNotes(given)
    store.run(given.Written, { noteID: "a" })
    const reader = openNotes(given, { readonly: true })
    assert.equal(reader.db.transaction(() => count(reader))(), 1)
    assert.throws(() => reader.transaction(() => reader.run(given.Written, { noteID: "a" })), coded("ERR_READONLY"))
  })
})
