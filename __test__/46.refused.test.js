"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, project } = require("syncline")
const { coded, file, kept, openNotes, refused, serialized } = require("./stores.js")
const { deltas, named } = require("./streaming.js")

/** A store of notes and deltas, what its listeners heard, and shorthands that write a note and publish a delta. */
function publishing(options) {
  const given = deltas()
  const heard = []
  const store = openNotes(given, options)
  store.subscribeAll((event) => heard.push(named(event)))
  const write = (noteID = "a") => store.run(given.Written, { noteID })
  const delta = (noteID = "a") => store.publish(given.Delta, { noteID })
  return { given, store, heard, write, delta }
}

describe("issue 3: what publish refuses", () => {
  test("rule 4: data is checked as run checks it, and nobody hears of what is refused", () => {
    const { given, store, heard } = publishing({ maxEventBytes: 4_000, path: ":memory:" })
    const refuse = (data, ...expected) => {
      refused(store, () => store.publish(given.Delta, data), coded(...expected))
      assert.throws(() => store.transaction(() => store.publish(given.Delta, data)), coded(...expected))
    }
    for (const noteID of [undefined, null, 5, "", "\ud800", {}, ["a"]]) {
      refuse({ noteID }, "ERR_AGGREGATE_REQUIRED", /data\.noteID/, { type: "note.delta.1", field: "noteID" })
    }
    for (const data of [undefined, null, 5, "a"]) refuse(data, "ERR_AGGREGATE_REQUIRED")
    refuse({ noteID: "a", text: 5 }, "ERR_INVALID_DATA", /text/, { type: "note.delta.1", aggregateID: "a" })
    const cyclic = { noteID: "a" }
    cyclic.self = cyclic
    for (const data of [cyclic, { noteID: "a", n: 1n }]) refuse(data, "ERR_INVALID_DATA", /JSON/)
    const nested = (depth) => JSON.parse(`{"noteID":"a","deep":${"[".repeat(depth)}${"]".repeat(depth)}}`)
    refuse(nested(1_000), "ERR_INVALID_DATA", /1,?000/)
    refuse({ noteID: "a", text: "x".repeat(4_000) }, "ERR_TOO_LARGE", /4000/, { type: "note.delta.1", limit: 4_000 })
    assert.deepEqual(heard, [])
    store.publish(given.Delta, nested(999))
    store.publish(given.Delta, { noteID: "a", text: "x".repeat(4_000 - '{"noteID":"a","text":""}'.length) })
    assert.deepEqual(heard, ["a(-1)", "a(-1)"])
  })

  test("an aggregate id over its bound", () => {
    const { heard, delta } = publishing()
    delta("x".repeat(8 * 1024))
    assert.throws(() => delta("x".repeat(8 * 1024 + 1)), coded("ERR_TOO_LARGE", /8193.*8192/))
    assert.equal(heard.length, 1)
  })

  test("rule 5: an async schema; strict and never mean what they mean for run", () => {
    const registry = createRegistry()
    const defined = (type, schema) =>
      define({ type, version: 1, aggregate: "noteID", schema, ephemeral: true, registry })
    const Delta = defined("note.delta", z.object({ noteID: z.string(), text: z.string() }))
    const validate = async () => ({ value: {} })
    const Later = defined("note.later", { "~standard": { version: 1, vendor: "test", validate } })
    const open = (validate) => kept(":memory:", { registry, validate })
    assert.throws(() => open("always").publish(Later, { noteID: "a" }), coded("ERR_ASYNC_SCHEMA"))
    const strict = () => open("strict").publish(Delta, { noteID: "a", text: "t", dropped: undefined, at: new Date(0) })
    assert.throws(strict, coded("ERR_INVALID_DATA"))
    open("never").publish(Delta, { noteID: "a", text: 5 })
  })

  test("the wrong kind, a stale version, another registry, what is no definition", async () => {
    const { given, store, heard } = publishing()
    const data = { noteID: "a", tag: "t" }
    const wrong = coded("ERR_WRONG_KIND", /ephemeral/, { type: "note.delta.1" })
    assert.throws(() => store.run(given.Delta, data), wrong)
    assert.throws(() => store.runAll([[given.Delta, data]]), wrong)
    await assert.rejects(async () => store.runAsync(given.Delta, data), wrong)
    assert.throws(() => store.remove("a", { event: [given.Delta, data] }), wrong)
    assert.throws(() => project(given.Delta, () => {}), wrong)
    for (const Recorded of [given.Written, given.Tagged, given.Seen]) {
      const expected = coded("ERR_WRONG_KIND", /recorded|ephemeral/, { type: `${Recorded.type}.1` })
      assert.throws(() => store.publish(Recorded, data), expected)
    }
    assert.throws(() => store.publish(deltas().Delta, data), coded("ERR_UNKNOWN_EVENT", /another registry/))
    for (const definition of [undefined, null, "note.delta", {}]) {
      assert.throws(() => store.publish(definition, data), coded("ERR_INVALID_ARGUMENT"))
    }
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string() })
    const upcast = { 1: () => assert.fail("nothing is upcast") }
    const defined = (version, more) =>
      define({ type: "note.delta", version, aggregate: "noteID", schema, ephemeral: true, registry, ...more })
    const [First, Second] = [defined(1), defined(2, { upcast })]
    const newer = kept(file("newer.db"), { registry })
    const stale = coded("ERR_STALE_VERSION", /note\.delta\.2/, { type: "note.delta.1", expected: 2, got: 1 })
    assert.throws(() => newer.publish(First, data), stale)
    newer.subscribeAll(({ version }) => heard.push(version))
    newer.publish(Second, data)
    assert.deepEqual(heard, [2])
  })

  test("inside a projector, a replay's schema, and a raw transaction", () => {
    const registry = createRegistry()
    let during = () => {}
    const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => (during(), { value }) } }
    const Note = define({ type: "note.written", version: 1, aggregate: "noteID", schema, registry })
    const plain = z.object({ noteID: z.string() })
    const Delta = define({
      type: "note.delta",
      version: 1,
      aggregate: "noteID",
      schema: plain,
      ephemeral: true,
      registry,
    })
    const delta = () => store.publish(Delta, { noteID: "a" })
    let projected = delta
    const store = kept(file(), { registry, projectors: [project(Note, () => projected())] })
    const heard = []
    store.subscribeAll((event) => heard.push(named(event)))
    refused(store, () => store.run(Note, { noteID: "a" }), coded("ERR_IN_PROJECTOR", /note\.written\.1/))
    refused(store, () => store.replay(serialized("written", 0, { noteID: "a" })), coded("ERR_IN_PROJECTOR"))
    projected = () => {}
    during = delta
    refused(store, () => store.replay(serialized("written", 0, { noteID: "a" })), coded("ERR_IN_PROJECTOR"))
    during = () => {}
    for (const begin of ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT raw"]) {
      store.db.exec(begin)
      assert.throws(delta, coded("ERR_IN_TRANSACTION"))
      store.db.exec(begin.startsWith("BEGIN") ? "COMMIT" : "RELEASE raw")
    }
    assert.deepEqual(heard, [])
    delta()
    assert.deepEqual(heard, ["a(-1)"])
  })

  test("a closed store, also closed by a listener of the same delivery", () => {
    const { store, heard, write, delta } = publishing()
    store.subscribeAll(() => {
      store.close()
      assert.throws(() => delta(), coded("ERR_CLOSED"))
    })
    store.transaction(() => (delta(), write(), delta()))
    assert.deepEqual(heard, ["a(-1)"])
    assert.throws(() => delta(), coded("ERR_CLOSED"))
  })
})
