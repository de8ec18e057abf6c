"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { define, project, sql } = require("syncline")
const { coded, collected, dump, history, noteRows, notes, openNotes, refused, rows } = require("./stores.js")

/** Notes that can also be deleted, by a projector in JavaScript or in SQL. */
function deletable(language = "js") {
  const given = notes()
  const Deleted = define({
    type: "note.deleted",
    version: 1,
    aggregate: "noteID",
    schema: z.object({ noteID: z.string(), by: z.string().default("nobody") }),
    registry: given.registry,
  })
  const statement = sql`DELETE FROM note WHERE id = :aggregateID`
  const apply = (tx, { noteID }) => void tx.prepare("DELETE FROM note WHERE id = ?").run(noteID)
  given.projectors.push(project(Deleted, language === "sql" ? statement : apply))
  return { ...given, Deleted }
}

const logged = (store, after) => collected(store.log({ aggregateID: "a", after }))
const kinds = (items) => items.map(({ kind }) => kind)

describe("rule 21: remove", () => {
  test("rule 21: erases the events and leaves a tombstone; a later run goes on after the last seq", async () => {
    const given = notes()
    const store = openNotes(given)
    const heard = []
    store.replayAll([...history("a", 4), ...history("b", 2)])
    store.subscribeAll(({ seq }) => heard.push(seq))
    assert.equal(store.remove("a"), undefined)
    assert.deepEqual(heard, [])
    assert.deepEqual(store.read("a"), [])
    assert.equal(store.get("a", 0), undefined)
    assert.equal(store.sequence("a"), 3)
    assert.deepEqual(
      store.readAll({ limit: 9 }),
      store.readAll({ limit: 9 }).filter(({ aggregateID }) => aggregateID === "b"),
    )
    assert.deepEqual(await logged(store), [
      { kind: "removed", aggregateID: "a", seq: 3 },
      { kind: "synced", aggregateID: "a", seq: 3 },
    ])
    assert.equal(store.run(given.Seen, { noteID: "a" }, { expectedSeq: 3 }).seq, 4)
    assert.deepEqual(kinds(await logged(store)), ["removed", "event", "synced"])
    assert.deepEqual(noteRows(store).length, 2)
  })

  for (const language of ["js", "sql"]) {
    test(`rule 21, mistake 8: a deletion event reaches readers who were away (projector in ${language})`, async () => {
      const given = deletable(language)
      const store = openNotes(given)
      const heard = []
      store.subscribe(given.Deleted, ({ seq, properties }) => heard.push([seq, properties]))
      const reader = openNotes(deletable(language), { path: ":memory:" })
      store.replayAll(history("a", 4))
      reader.replayAll(history("a", 2))
      store.remove("a", { event: [given.Deleted, { noteID: "a", by: "me" }] })
      assert.deepEqual(heard, [[4, { noteID: "a", by: "me" }]])
      assert.deepEqual(noteRows(store), [])
      assert.equal(store.sequence("a"), 4)
      assert.deepEqual(store.read("a"), [])
      const items = await logged(store, 1)
      assert.deepEqual(kinds(items), ["removed", "synced"])
      assert.equal(items[0].seq, 4)
      const { id, created, ...rest } = items[0].event
      assert.match(id, /^evt_/)
      assert.equal(typeof created, "number")
      assert.deepEqual(
        { ...rest, data: items[0].event.data },
        {
          type: "note.deleted.1",
          seq: 4,
          aggregateID: "a",
          data: { noteID: "a", by: "me" },
        },
      )
      assert.equal(noteRows(reader).length, 1)
      reader.replayAll(items)
      assert.deepEqual(noteRows(reader), [])
      assert.equal(reader.sequence("a"), 4)
      reader.replayAll(items)
      assert.deepEqual(
        (await logged(reader)).map((item) => JSON.stringify(item)),
        (await logged(store)).map((item) => JSON.stringify(item)),
      )
    })
  }

  test("rule 21: a reader gets removed unless its after is past the tombstone", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 4))
    store.remove("a")
    store.run(given.Seen, { noteID: "a" })
    store.run(given.Seen, { noteID: "a" })
    for (const after of [-1, 0, 2, 3]) {
      assert.deepEqual(kinds(await logged(store, after)), ["removed", "event", "event", "synced"], `after ${after}`)
    }
    assert.deepEqual(kinds(await logged(store, 4)), ["event", "synced"])
    assert.deepEqual(kinds(await logged(store, 5)), ["synced"])
  })

  test("rule 21, mistake 9: nothing is renumbered, and no seq is ever given again", () => {
    const given = deletable()
    const store = openNotes(given)
    const seen = []
    const run = () => seen.push(store.run(given.Seen, { noteID: "a" }).seq)
    run()
    run()
    store.remove("a")
    run()
    store.remove("a", { event: [given.Deleted, { noteID: "a" }] })
    run()
    store.close()
    const again = openNotes(deletable())
    assert.equal(again.sequence("a"), 4)
    assert.deepEqual(seen, [0, 1, 2, 4])
    assert.deepEqual(
      again.read("a").map(({ seq }) => seq),
      [4],
    )
  })

  test("rule 21: twice, of an unknown aggregate, and of one that was only claimed", async () => {
    const given = deletable()
    const store = openNotes(given)
    store.remove("unknown")
    assert.deepEqual(store.aggregates(), [])
    store.claim("claimed", "me")
    store.remove("claimed")
    assert.deepEqual(store.owner("claimed"), { owner: "me", epoch: 1 })
    assert.deepEqual(await collected(store.log({ aggregateID: "claimed" })), [
      { kind: "synced", aggregateID: "claimed", seq: -1 },
    ])
    store.replayAll(history("a", 3))
    store.remove("a", { event: [given.Deleted, { noteID: "a" }] })
    const before = dump(store)
    store.remove("a")
    assert.deepEqual(dump(store), before)
    store.remove("a", { event: [given.Deleted, { noteID: "a", by: "again" }] })
    const [item] = await logged(store)
    assert.equal(item.seq, 4)
    assert.equal(item.event.data.by, "again")
  })

  test("rule 21: with an event, of an unknown aggregate: it is the first event, and kept", async () => {
    const given = deletable()
    const store = openNotes(given, { owner: "me" })
    store.remove("a", { event: [given.Deleted, { noteID: "a" }] })
    assert.equal(store.sequence("a"), 0)
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    const [item] = await logged(store)
    assert.deepEqual([item.kind, item.seq, item.event.data], ["removed", 0, { noteID: "a" }])
  })

  test("rule 21: owner and epoch stay", () => {
    const given = notes()
    const store = openNotes(given, { owner: "me" })
    store.run(given.Seen, { noteID: "a" })
    store.claim("a", "you")
    store.claim("a", "me")
    store.remove("a")
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 3 })
  })

  test("rule 21: gaps are erased with the events", async () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 2), { kind: "gap", aggregateID: "a", after: 1, through: 5 }])
    store.remove("a")
    assert.deepEqual(rows(store, "SELECT * FROM event_gap"), [])
    assert.deepEqual(kinds(await logged(store)), ["removed", "synced"])
  })

  test("rule 21: a deletion event that is refused removes nothing", () => {
    const given = deletable()
    const store = openNotes(given)
    store.replayAll(history("a", 3))
    const remove = (event) => () => store.remove("a", { event })
    refused(
      store,
      remove([given.Deleted, { noteID: "b" }]),
      coded("ERR_AGGREGATE_MISMATCH", /"b".*"a"/, { expected: "a", got: "b" }),
    )
    refused(store, remove([given.Deleted, { noteID: "a", by: 1 }]), coded("ERR_INVALID_DATA"))
    refused(store, remove([given.Deleted, { noteID: 1 }]), coded("ERR_AGGREGATE_REQUIRED"))
    for (const event of [null, [], given.Deleted, [given.Deleted], [null, {}], {}]) {
      refused(store, remove(event), coded("ERR_INVALID_ARGUMENT"))
    }
    refused(store, () => store.remove("a", { events: [] }), coded("ERR_INVALID_ARGUMENT"))
    refused(store, () => store.remove(""), coded("ERR_INVALID_ARGUMENT"))
    store.db.exec("CREATE TRIGGER no BEFORE DELETE ON note BEGIN SELECT RAISE(ABORT, 'kept'); END")
    refused(store, remove([given.Deleted, { noteID: "a" }]), coded("ERR_SQLITE", /kept/))
    store.db.exec("DROP TRIGGER no; CREATE TRIGGER no BEFORE DELETE ON note BEGIN SELECT RAISE(ROLLBACK, 'lost'); END")
    refused(store, remove([given.Deleted, { noteID: "a" }]), coded("ERR_SQLITE", /lost/))
    assert.deepEqual(store.read("a"), history("a", 3))
  })

  test("rules 10 and 21: inside a transaction it is a savepoint like all others", async () => {
    const given = deletable()
    const store = openNotes(given)
    const heard = []
    store.subscribeAll(({ type, seq }) => heard.push([type, seq]))
    store.replayAll(history("a", 3))
    store.transaction(() => {
      assert.throws(() =>
        store.transaction(() => {
          store.remove("a", { event: [given.Deleted, { noteID: "a" }] })
          assert.fail()
        }),
      )
      assert.equal(store.read("a").length, 3)
      store.remove("a", { event: [given.Deleted, { noteID: "a" }] })
      store.run(given.Written, { noteID: "a" })
      assert.deepEqual(heard, [])
    })
    assert.deepEqual(heard, [
      ["note.deleted", 3],
      ["note.written", 4],
    ])
    assert.deepEqual(kinds(await logged(store)), ["removed", "event", "synced"])
  })

  test("rule 21: a writer's log with removals replays into what the writer holds", async () => {
    const given = deletable()
    const writer = openNotes(given)
    const reader = openNotes(deletable(), { path: ":memory:" })
    const catchUp = async () => {
      const after = reader.sequence("a")
      reader.replayAll(await logged(writer, after))
      assert.deepEqual(reader.read("a"), writer.read("a"))
      assert.deepEqual(noteRows(reader), noteRows(writer))
      assert.equal(reader.sequence("a"), writer.sequence("a"))
    }
    const write = (text) => writer.run(given.Written, { noteID: "a", text })
    write("one")
    await catchUp()
    write("two")
    writer.remove("a", { event: [given.Deleted, { noteID: "a" }] })
    await catchUp()
    write("three")
    await catchUp()
    writer.remove("a", { event: [given.Deleted, { noteID: "a" }] })
    write("four")
    write("five")
    await catchUp()
    await catchUp()
    assert.equal(writer.db.pragma("integrity_check", { simple: true }), "ok")
  })
})
