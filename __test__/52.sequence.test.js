"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { define, project } = require("syncline")
const { coded, dump, history, kept, notes, openNotes, refused, serialized } = require("./stores.js")

const lines = (items) => items.map((item) => JSON.stringify(item)).join("\n")

describe("rule 16: sequence", () => {
  test("rule 16: a seq that is not last + 1 names expected and got", () => {
    const store = openNotes(notes())
    const mismatch = (expected, got) =>
      coded("ERR_SEQUENCE_MISMATCH", /Sequence mismatch.*"a"/, { expected, got, aggregateID: "a" })
    const at = (seq) => serialized("seen", seq, { noteID: "a" })
    refused(store, () => store.replay(at(1)), mismatch(0, 1))
    store.replay(at(0))
    refused(store, () => store.replay(at(2)), mismatch(1, 2))
    refused(store, () => store.replayAll([at(1), at(3)]), mismatch(2, 3))
    store.replayAll([at(0), at(1), at(1), at(0), at(2)])
    assert.equal(store.sequence("a"), 2)
  })

  test("rule 16, mistake 6: a stale event with other content is never accepted in silence", () => {
    const store = openNotes(notes())
    const item = serialized("written", 0, { noteID: "a", text: "x", n: 1 }, { created: 1, metadata: { m: 1 } })
    store.replay(item)
    const diverged = (what) =>
      coded("ERR_REPLAY_DIVERGED", new RegExp(`"a".*${what}|${what}.*"a"`), { aggregateID: "a" })
    refused(store, () => store.replay({ ...item, id: "other" }), diverged("id"))
    refused(store, () => store.replay({ ...item, type: "note.seen.1" }), diverged("type"))
    refused(store, () => store.replay({ ...item, data: { noteID: "a", text: "y", n: 1 } }), diverged("data"))
    refused(store, () => store.replay({ ...item, data: { noteID: "a", text: "x" } }), diverged("data"))
    refused(store, () => store.replay({ ...item, data: { ...item.data, more: null } }), diverged("data"))
    refused(store, () => store.replayAll([...history("b", 2), { ...item, id: "other" }]), diverged("id"))
  })

  test("rule 16: data is compared parsed: key order, spacing and spelling do not count", () => {
    const store = openNotes(notes())
    const start = '{"id":"e","type":"note.seen.1","seq":0,"aggregateID":"a","data":'
    const same = [
      '{"noteID":"a","n":100,"text":"é/","list":[1,{"x":null,"y":0.5}]}',
      '{"n":100,"text":"é/","noteID":"a","list":[1,{"y":0.5,"x":null}]}',
      '{ "noteID" : "a", "n":1e2, "text":"\\u00e9\\/", "list":[1.0,{"y":5e-1,"x":null}] }',
      '{"noteID":"b","n":1,"noteID":"a","n":100,"text":"é/","list":[1,{"x":1,"x":null,"y":0.5}]}',
    ]
    store.replayAll(`${start}${same[0]}}`)
    const before = dump(store)
    for (const data of same) {
      assert.deepEqual(store.replayAll(`${start}${data}}`), [{ aggregateID: "a", applied: 0, duplicate: 1, seq: 0 }])
      store.replay(JSON.parse(`${start}${data}}`))
    }
    assert.deepEqual(dump(store), before)
    for (const data of [
      '{"noteID":"a","n":100,"text":"é/","list":[{"x":null,"y":0.5},1]}',
      '{"noteID":"a","n":"100","text":"é/","list":[1,{"x":null,"y":0.5}]}',
    ]) {
      refused(store, () => store.replayAll(`${start}${data}}`), coded("ERR_REPLAY_DIVERGED"))
    }
  })

  test("rule 16: within one batch, too", () => {
    const store = openNotes(notes())
    const [first, second] = history("a", 2)
    const results = store.replayAll([first, first, second, first, second])
    assert.deepEqual(results, [{ aggregateID: "a", applied: 2, duplicate: 3, seq: 1 }])
    const fresh = openNotes(notes(), { path: ":memory:" })
    refused(
      fresh,
      () => fresh.replayAll([first, { ...first, id: "other" }]),
      coded("ERR_REPLAY_DIVERGED", /./, { index: 1 }),
    )
  })
})

describe("rule 17: a failed batch changes nothing", () => {
  test("rule 17: wherever it fails, and whatever it holds", () => {
    const given = notes()
    const Fragile = define({
      type: "note.fragile",
      version: 1,
      aggregate: "noteID",
      schema: z.object({ noteID: z.string() }),
      registry: given.registry,
    })
    const failure = new Error("fragile")
    given.projectors.push(
      project(Fragile, () => {
        throw failure
      }),
    )
    const store = openNotes(given)
    store.replayAll([...history("a", 4), ...history("b", 4)])
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    const good = [
      ...history("a", 3, 4),
      { kind: "gap", aggregateID: "b", after: 3, through: 6 },
      { kind: "removed", aggregateID: "a", seq: 6 },
      ...history("c", 700),
    ]
    const fragile = serialized("fragile", 7, { noteID: "b" })
    for (const at of [1, 3, 4, 5, 200, good.length]) {
      const items = [...good.slice(0, at), { ...fragile, seq: at < 4 ? 4 : 7 }, ...good.slice(at)]
      refused(
        store,
        () => store.replayAll(items, { publish: true, owner: "x" }),
        (error) => error === failure,
      )
      refused(
        store,
        () => store.replayAll(lines(items), { owner: "x", epoch: 9 }),
        (error) => error === failure,
      )
    }
    assert.deepEqual(heard, [])
    assert.equal(store.owner("a").owner, null)
  })

  test("rule 17: across several stores of one process, and after a reopen, it is the same", () => {
    const items = [...history("a", 7), ...history("b", 5)]
    const first = openNotes(notes())
    first.replayAll(items.slice(0, 6))
    first.close()
    const second = openNotes(notes())
    second.replayAll(items)
    const fresh = openNotes(notes(), { path: ":memory:" })
    fresh.replayAll(items)
    assert.deepEqual(dump(second), dump(fresh))
  })

  test("mistake 7: one bad event harms nobody once each aggregate is replayed on its own", () => {
    const store = openNotes(notes())
    const histories = {
      a: history("a", 3),
      b: [serialized("written", 0, { noteID: "b", text: 1 })],
      c: history("c", 3),
    }
    const failed = []
    for (const [aggregateID, items] of Object.entries(histories)) {
      try {
        store.replayAll(items)
      } catch (error) {
        failed.push([aggregateID, error.code, error.aggregateID])
      }
    }
    assert.deepEqual(failed, [["b", "ERR_INVALID_DATA", "b"]])
    assert.deepEqual(
      [...store.sequences()],
      [
        ["a", 2],
        ["c", 2],
      ],
    )
  })

  test("rule 17: projectors may not read Syncline's own tables", () => {
    const given = notes()
    given.projectors[0] = project(given.Written, (tx) => void tx.prepare("SELECT max(position) FROM event").get())
    const store = kept(":memory:", { registry: given.registry, projectors: given.projectors })
    refused(store, () => store.replayAll(history("a", 1)), coded("ERR_IN_PROJECTOR"))
  })
})
