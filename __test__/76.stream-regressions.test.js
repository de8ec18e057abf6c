"use strict"

// What was found wrong in the stream by reading it, and is to stay right.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { openNotes, turns } = require("./stores.js")
const { logged, named, openTogether, reading, until } = require("./streaming.js")

const DATABASE = { scope: "database" }

function together() {
  const { given, path, stores } = openTogether(2)
  const [store, other] = stores
  const heard = []
  const hear = (by = store) => by.subscribeAll((event) => heard.push(`${named(event)}@${event.position}`), DATABASE)
  return { given, path, store, other, heard, hear, see: (by, noteID = "a") => by.run(given.Seen, { noteID }) }
}

describe("the stream's regressions", () => {
  test("a follower that begins while a query of its connection shows the past hears what was committed meanwhile", async () => {
    const { store, other, see } = together()
    see(store, "b")
    const rows = store.db.prepare("SELECT 1 UNION SELECT 2").iterate()
    rows.next()
    const seen = store.db.prepare("SELECT aggregate_id FROM event_sequence").iterate()
    seen.next()
    see(other)
    const { items } = reading(store.log({ aggregateID: "a", follow: true }), logged)
    await until(() => items.length === 1)
    rows.return()
    seen.return()
    await until(() => items.length === 2)
    assert.deepEqual(items, ["synced", 0])
  })

  test("a listener that begins in a raw transaction hears nothing that was committed before", async () => {
    const { store, heard, hear, see } = together()
    see(store)
    store.db.exec("BEGIN")
    hear()
    store.db.exec("COMMIT")
    see(store)
    await turns(20)
    assert.deepEqual(heard, ["a1@2"])
  })

  test("a raw transaction that SQLite ends by itself does not keep back what is foreign", async () => {
    const { store, other, heard, hear, see } = together()
    store.db.exec("CREATE TABLE t (n); CREATE TRIGGER no BEFORE INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
    const { items } = reading(store.log({ aggregateID: "a", follow: true }), logged)
    hear()
    await until(() => items.length === 1)
    see(other)
    store.db.exec("BEGIN")
    await turns(50)
    assert.throws(() => store.db.exec("INSERT INTO t VALUES (1)"), /no/)
    assert.equal(store.db.inTransaction, false)
    await until(() => items.length === 2 && heard.length === 1)
  })

  test("rule 18: a deletion event that came by itself before its removal is heard once, in its place", async () => {
    const { given, store, other, heard, hear } = together()
    hear()
    const data = { noteID: "a" }
    const events = [0, 1].map((seq) => ({ id: `evt_${seq}`, type: "note.seen.1", seq, aggregateID: "a", data }))
    for (const event of events) other.replay(event)
    const late = openTogether(1, {}, other.db.name).stores[0]
    const before = []
    await until(() => heard.length === 2)
    other.replay({ kind: "removed", aggregateID: "a", seq: 1, event: events[1] })
    late.subscribeAll((event) => before.push(named(event)), DATABASE)
    other.run(given.Seen, { noteID: "end" })
    await until(() => heard.length === 3 && before.length === 1)
    assert.deepEqual(heard, ["a0@1", "a1@2", "end0@4"])
    assert.deepEqual(before, ["end0"])
    assert.equal(store.sequence("a"), 1)
  })

  test("an ephemeral event that cannot be told of leaves nothing among what waits for the commit", () => {
    const { given, store, heard, hear, see } = together()
    hear()
    store.transaction(() => {
      see(store)
      store.db.exec("SAVEPOINT torn; ALTER TABLE event_meta RENAME TO event_meta_away")
      assert.throws(() => store.publish(given.Delta, { noteID: "a" }), { code: "ERR_SQLITE" })
      store.db.exec("ROLLBACK TO torn; RELEASE torn")
      see(store)
    })
    assert.deepEqual(heard, ["a0@1", "a1@2"])
  })

  test("mistake 4: more ephemeral events than can wait fail no transaction, and are told of", () => {
    const { given, path, other, heard, see } = together()
    const errors = []
    const { Seen, Delta } = given
    const store = openNotes(given, { path, onListenerError: ({ code }) => errors.push(code) })
    store.subscribeAll((event) => heard.push(named(event)), DATABASE)
    for (let n = 0; n < 300; n++) see(other)
    store.transaction(() => {
      for (let n = 0; n < 150_000; n++) store.publish(Delta, { noteID: "b" })
      store.run(Seen, { noteID: "b" })
    })
    assert.equal(store.sequence("b"), 0)
    assert.deepEqual(errors, ["ERR_OVERFLOW"])
  })

  test("every overflow is told of, also after the last listener of the database left while it was behind", async () => {
    const errors = []
    const pending = []
    const convertEvent = () => new Promise((resolve) => pending.push(resolve))
    const { given, stores } = openTogether(2, { convertEvent, onListenerError: ({ code }) => errors.push(code) })
    const [store, other] = stores
    const leave = store.subscribeAll(() => {}, DATABASE)
    for (let n = 0; n < 300; n++) other.run(given.Seen, { noteID: "a" })
    store.run(given.Seen, { noteID: "b" })
    leave()
    store.subscribeAll(() => {})
    for (const count of [1, 2]) {
      for (let n = 0; n < 10_050; n++) store.publish(given.Delta, { noteID: "b" })
      assert.equal(errors.length, count)
      for (let answered = 0; answered < pending.length; await turns(3)) {
        while (answered < pending.length) pending[answered++]()
      }
    }
  })

  test("closing the store at synced ends a log without follow, without an error", async () => {
    const { store, see } = together()
    see(store)
    const items = []
    for await (const item of store.log({ aggregateID: "a" })) {
      items.push(logged(item))
      if (item.kind === "synced") store.close()
    }
    assert.deepEqual(items, [0, "synced"])
  })

  test("what cannot be read is told, ends nothing, and is heard once it can be read again", async () => {
    const { other, heard, hear, see } = together()
    const warnings = []
    const warned = (warning) => warnings.push(warning)
    process.on("warning", warned)
    hear()
    other.db.exec("ALTER TABLE event_meta RENAME TO event_meta_away")
    await until(() => warnings.length > 0)
    other.db.exec("ALTER TABLE event_meta_away RENAME TO event_meta")
    see(other)
    await until(() => heard.length === 1)
    assert.deepEqual(heard, ["a0@1"])
    process.off("warning", warned)
    assert.deepEqual(
      warnings.map(({ name, code }) => `${name} ${code}`),
      ["SynclineWarning ERR_SQLITE"],
    )
  })
})
