"use strict"

// POST /sync/history: what is newer than what a reader holds, as log items and as an array of events.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { assertError, itemsOf, served, shortened } = require("./serving")
const { history, notes, openNotes, rows } = require("./stores")
const { counted } = require("./streaming")

const NDJSON = "application/x-ndjson"

/** The history as log items, shortened. */
async function itemsFor(call, held, query = "") {
  const { status, text } = await call("POST", `/sync/history${query}`, { body: held, headers: { accept: NDJSON } })
  assert.equal(status, 200, text)
  return shortened(itemsOf(text))
}

/** The history as an array: its events, shortened, and which aggregates it leaves out. */
async function arrayFor(call, held, query = "") {
  const { status, json, text, headers } = await call("POST", `/sync/history${query}`, { body: held })
  assert.equal(status, 200, text)
  return {
    events: json.map((event) => `${event.aggregate_id}${event.seq}`),
    incomplete: JSON.parse(headers.get("sync-incomplete") ?? "[]"),
    count: Number(headers.get("sync-incomplete-count") ?? 0),
  }
}

/** c before a before b; of b a part is a gap, and of r all but the last event was removed. */
async function gapped() {
  const server = await served()
  const { store, Seen } = server
  store.replayAll([...history("c", 2), ...history("a", 3), ...history("b", 2)])
  store.replay({ kind: "gap", aggregateID: "b", after: 1, through: 4 })
  store.run(Seen, { noteID: "b" })
  store.replayAll(history("r", 4))
  store.remove("r", { event: [Seen, { noteID: "r" }] })
  store.run(Seen, { noteID: "r" })
  return server
}

describe("history as log items", () => {
  test("is whole where nothing is held, aggregate after aggregate in the order of their creation", async () => {
    const { call } = await gapped()
    const whole = "c0,c1,synced c 1,a0,a1,a2,synced a 2,b0,b1,gap b 1 4,b5,synced b 5,removed r 4,r5,synced r 5"
    assert.deepEqual(await itemsFor(call, undefined), whole.split(","))
    assert.deepEqual(await itemsFor(call, {}), await itemsFor(call, undefined))
  })

  test("leaves out what is held, and aggregates without news altogether", async () => {
    const { call } = await gapped()
    const news = "a1,a2,synced a 2,gap b 3 4,b5,synced b 5"
    assert.deepEqual(await itemsFor(call, { c: 1, a: 0, b: 3, r: 5 }), news.split(","))
    assert.deepEqual(await itemsFor(call, { c: 5, a: 2, b: 5, r: 5 }), [])
    assert.deepEqual(await itemsFor(call, { c: -1, a: 2, b: 5, r: 5 }), ["c0", "c1", "synced c 1"])
    // Whoever stands exactly at a tombstone may have been there before the removal.
    assert.deepEqual(await itemsFor(call, { c: 1, a: 2, b: 5, r: 4 }), ["removed r 4", "r5", "synced r 5"])
  })

  test("of listed aggregates alone, in the order of their creation, unknown ones left out", async () => {
    const { call } = await gapped()
    const few = await itemsFor(call, { a: 1, nothing: 3, c: 0, r: 5 }, "?only=listed")
    assert.deepEqual(few, ["c1", "synced c 1", "a2", "synced a 2"])
    assert.deepEqual(await itemsFor(call, {}, "?only=listed"), [])
    // Past a thousand they are picked out of all.
    const many = Object.fromEntries(counted(2_000).map((n) => [`other ${n}`, -1]))
    assert.deepEqual(await itemsFor(call, { ...many, a: 1, c: 0, r: 5 }, "?only=listed"), few)
  })

  test("with overlap, begins with the last event that is held, where there is more", async () => {
    const { call } = await gapped()
    const all = ["c0", "c1", "synced c 1", "a0", "a1", "a2", "synced a 2", "gap b 3 4", "b5", "synced b 5"]
    assert.deepEqual(await itemsFor(call, { c: 0, a: 0, b: 4, r: 5 }, "?overlap=1"), all)
    assert.deepEqual(await itemsFor(call, { c: 1, a: 2, b: 5, r: 5 }, "?overlap=1"), [])
    assert.deepEqual(await itemsFor(call, { c: 1, a: 1 }, "?overlap=1&only=listed"), ["a1", "a2", "synced a 2"])
    assert.deepEqual((await itemsFor(call, { c: -1, a: 2, b: 5, r: 5 }, "?overlap=1"))[0], "c0")
    assertError(await call("POST", "/sync/history?overlap=yes", { body: {} }), 400, "ERR_INVALID_ARGUMENT")
  })

  test("replayed into an empty store makes the same log", async () => {
    const { call, store } = await gapped()
    const { text } = await call("POST", "/sync/history", { headers: { accept: NDJSON } })
    const copy = openNotes(notes(), { path: ":memory:" })
    copy.replayAll(text)
    assert.deepEqual(copy.sequences(), store.sequences())
    for (const id of ["a", "b", "c", "r"]) {
      assert.deepEqual(JSON.stringify(copy.read(id)), JSON.stringify(store.read(id)))
    }
    // What was removed before its events came was never projected there.
    const projected = "SELECT * FROM note WHERE id <> 'r' ORDER BY id"
    assert.deepEqual(rows(copy, projected), rows(store, projected))
  })

  test("has packed and compacted events as all others, with gaps for what was compacted", async () => {
    const registry = createRegistry()
    const schema = z.object({ id: z.string(), part: z.string(), text: z.string() })
    const Part = define({
      type: "part",
      version: 1,
      aggregate: "id",
      schema,
      registry,
      projector: "none",
      compactKey: { path: "part" },
    })
    const given = { registry, projectors: [] }
    const { store, call } = await served({ given })
    store.runAll(counted(6).map((n) => [Part, { id: "a", part: "p", text: `text ${n}` }]))
    const before = await itemsFor(call)
    await store.maintain()
    const after = await itemsFor(call)
    assert.deepEqual(before, ["a0", "a1", "a2", "a3", "a4", "a5", "synced a 5"])
    assert.deepEqual(after, ["a0", "gap a 0 4", "a5", "synced a 5"])
    assert.deepEqual(await arrayFor(call), { events: [], incomplete: ["a"], count: 1 })
    assert.deepEqual(await arrayFor(call, { a: 4 }), { events: ["a5"], incomplete: [], count: 0 })
  })
})

describe("history as an array", () => {
  test("has events alone, and names in a header the aggregates that need more than events", async () => {
    const { call } = await gapped()
    assert.deepEqual(await arrayFor(call, {}), {
      events: ["c0", "c1", "a0", "a1", "a2"],
      incomplete: ["b", "r"],
      count: 2,
    })
    assert.deepEqual(await arrayFor(call, { c: 0, b: 4, r: 5 }), {
      events: ["c1", "a0", "a1", "a2", "b5"],
      incomplete: [],
      count: 0,
    })
    assert.deepEqual(await arrayFor(call, { c: 1, a: 2, b: 5, r: 5 }), { events: [], incomplete: [], count: 0 })
    assert.deepEqual(await arrayFor(call, { a: 1, r: -1 }, "?only=listed"), {
      events: ["a2"],
      incomplete: ["r"],
      count: 1,
    })
  })

  test("gives of each event id, aggregate, seq, type and data", async () => {
    const { call, store } = await served()
    const data = { noteID: 'quo"ted', text: "ünïcödé \n \u2028", nested: { __proto__: null, n: 1e21 } }
    store.replay({
      id: "evt",
      type: "note.seen.1",
      seq: 0,
      aggregateID: 'quo"ted',
      data,
      created: 5,
      metadata: { m: 1 },
    })
    const { json } = await call("POST", "/sync/history")
    const [event] = json
    assert.deepEqual(Object.keys(event), ["id", "aggregate_id", "seq", "type", "data"])
    assert.deepEqual(
      { ...event },
      { id: "evt", aggregate_id: 'quo"ted', seq: 0, type: "note.seen.1", data: JSON.parse(JSON.stringify(data)) },
    )
  })

  test("names in headers what fits, in ASCII, and counts the rest", async () => {
    const { call, store, Seen } = await served()
    const ids = counted(150).map((n) => `ä\n"${n}`)
    for (const noteID of ids) {
      store.run(Seen, { noteID })
      store.remove(noteID)
    }
    const { incomplete, count } = await arrayFor(call, {})
    assert.deepEqual(incomplete, ids.slice(0, 100))
    assert.equal(count, 150)
    const long = counted(3).map((n) => `${n}`.repeat(2_000))
    for (const noteID of long) {
      store.run(Seen, { noteID })
      store.remove(noteID)
    }
    const named = await arrayFor(call, Object.fromEntries(long.map((id) => [id, -1])), "?only=listed")
    assert.deepEqual([named.incomplete, named.count], [long.slice(0, 2), 3])
    for (const noteID of ["x".repeat(8_000), "last"]) {
      store.run(Seen, { noteID })
      store.remove(noteID)
    }
    const others = await arrayFor(call, { ["x".repeat(8_000)]: -1, last: -1 }, "?only=listed")
    assert.deepEqual([others.incomplete, others.count], [["last"], 2])
  })
})

describe("what a reader says that it holds", () => {
  test("may be 5,000 aggregates, or 100,000", async () => {
    const { call, store, Seen } = await served({ store: { path: ":memory:" } })
    const known = counted(5_000).map((n) => `note ${n}`)
    store.runAll(
      known.flatMap((noteID) => [
        [Seen, { noteID }],
        [Seen, { noteID }],
      ]),
    )
    const held = Object.fromEntries(known.map((noteID, n) => [noteID, n % 1_000 === 0 ? 0 : 1]))
    const news = counted(5).flatMap((n) => [`note ${n * 1_000}1`, `synced note ${n * 1_000} 1`])
    assert.deepEqual(await itemsFor(call, held), news)
    assert.deepEqual(await itemsFor(call, held, "?only=listed"), news)
    assert.deepEqual(
      (await arrayFor(call, held)).events,
      news.filter((item) => !item.startsWith("synced")),
    )
    const unknown = Object.fromEntries(counted(100_000).map((n) => [`unknown ${n}`, n]))
    assert.deepEqual(await itemsFor(call, { ...unknown, ...held }), news)
    assert.deepEqual(await itemsFor(call, { ...unknown, ...held }, "?only=listed"), news)
  })

  test("may be of any name", async () => {
    const { call, store, Seen } = await served()
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "1", "", "ü", '"'].filter(Boolean)
    for (const noteID of names)
      store.runAll([
        [Seen, { noteID }],
        [Seen, { noteID }],
      ])
    const body = `{${names.map((name) => `${JSON.stringify(name)}:0`).join(",")}}`
    const expected = names.flatMap((name) => [`${name}1`, `synced ${name} 1`])
    assert.deepEqual(await itemsFor(call, body), expected)
    assert.deepEqual(await itemsFor(call, body, "?only=listed"), expected)
    assert.deepEqual(await itemsFor(call, '{"__proto__": {"x": 1}}'.replace('{"x": 1}', "1"), "?only=listed"), [])
  })

  test("is integers from -1, of aggregates that can be", async () => {
    const { call } = await served()
    for (const body of [
      '{"a":-2}',
      '{"a":1.5}',
      '{"a":"1"}',
      '{"a":null}',
      '{"a":4294967296}',
      '{"a":1e99}',
      "[]",
      "1",
      "null",
      '"a"',
      '{"":1}',
      '{"\\ud800":1}',
      "{",
      '{"__proto__":{}}',
    ]) {
      assertError(await call("POST", "/sync/history", { body }), 400, "ERR_INVALID_ARGUMENT")
    }
    assertError(await call("POST", "/sync/history", { body: { [`${"a".repeat(8_193)}`]: 1 } }), 413, "ERR_TOO_LARGE")
    for (const query of ["?only=", "?only=all", "?only=Listed"]) {
      assertError(await call("POST", `/sync/history${query}`), 400, "ERR_INVALID_ARGUMENT")
    }
    assert.equal((await call("POST", "/sync/history", { body: '{"a":4294967295,"b":-1}' })).status, 200)
  })
})
