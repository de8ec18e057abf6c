"use strict"

// The caller's code that runs in the middle of a call (schemas, upcasts, iterables, toJSON) and uses the store from there.

const assert = require("node:assert/strict")
const { afterEach, describe, test } = require("node:test")
const { createRegistry, define, open } = require("syncline")
const { coded, dump, openNotes, written } = require("./notes")

let store
afterEach(() => store.close())

/** A store whose schema calls `act` when it sees its n-th event; later pages of a replay are checked after earlier ones. */
function storeThatActs(act, n) {
  const registry = createRegistry()
  let seen = 0
  const validate = (value) => {
    if (++seen === n) act(Note)
    return { value }
  }
  const schema = { "~standard": { version: 1, vendor: "test", validate } }
  const Note = define({ type: "note.written", version: 1, aggregate: "noteID", schema, projector: "none", registry })
  store = open(":memory:", { registry })
  return Note
}

const history = Array.from({ length: 600 }, (_, seq) => written("a", seq))
const acts = {
  run: (Note) => store.run(Note, { noteID: "a" }),
  runAll: (Note) => store.runAll([[Note, { noteID: "a" }]]),
  replay: () => store.replay({ kind: "gap", aggregateID: "a", after: -1, through: 5_000 }),
  replayAll: () => store.replayAll([written("a", 0)]),
  reproject: () => store.reproject("a"),
  claim: () => store.claim("a", "somebody"),
  remove: () => store.remove("a"),
  transaction: () => store.transaction(() => {}),
  close: () => store.close(),
}

describe("a schema that, during a replay, calls", () => {
  for (const [name, act] of Object.entries(acts)) {
    test(`${name}: refused, and the history is what it would have been without it`, () => {
      for (const n of [1, 510]) {
        storeThatActs((Note) => assert.throws(() => act(Note), coded("ERR_IN_PROJECTOR")), n)
        assert.deepEqual(store.replayAll(history), [{ aggregateID: "a", applied: 600, duplicate: 0, seq: 599 }])
        assert.deepEqual(store.owner("a"), { owner: null, epoch: 0 })
        assert.equal(store.read("a").length, 600)
        store.close()

        const Note = storeThatActs(act, n)
        const before = dump(store.db)
        assert.throws(() => store.replayAll(history), coded("ERR_IN_PROJECTOR"))
        assert.deepEqual(dump(store.db), before)
        assert.equal(store.run(Note, { noteID: "b" }).seq, 0)
      }
    })
  }
})

describe("during run", () => {
  test("a schema may use the store: nothing is locked yet", () => {
    const Note = storeThatActs((Note) => store.run(Note, { noteID: "a" }), 1)
    assert.equal(store.run(Note, { noteID: "a" }).seq, 1)
    assert.throws(() => store.run(Note, { noteID: "a" }, { expectedSeq: 0 }), coded("ERR_CONFLICT", { got: 1 }))
  })

  test("data whose toJSON closes the store, and an iterable that does: ERR_CLOSED", () => {
    const log = openNotes(":memory:")
    store = log.store
    const data = { toJSON: () => (store.close(), { noteID: "a" }) }
    assert.throws(() => store.run(log.Written, data), coded("ERR_CLOSED"))
    store = openNotes(":memory:").store
    const closing = function* () {
      store.close()
      yield written("a", 0)
    }
    assert.throws(() => store.replayAll(closing()), coded("ERR_CLOSED"))
  })

  test("data whose getters throw: the value is the cause", () => {
    const log = openNotes(":memory:")
    store = log.store
    const thrown = new Error("mine")
    const hostile = Object.defineProperty({ noteID: "a" }, "text", {
      enumerable: true,
      get() {
        throw thrown
      },
    })
    assert.throws(() => store.run(log.Written, hostile), coded("ERR_INVALID_DATA", { cause: thrown, aggregateID: "a" }))
    assert.throws(() => store.replay(written("a", 0, { data: hostile })), coded("ERR_INVALID_EVENT", { cause: thrown }))
    assert.equal(store.sequence("a"), -1)
  })
})
