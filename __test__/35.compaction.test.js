"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { board, gaps, lists, openLists, replica, seqs, tables } = require("./boards.js")
const { coded, collected, file, kept, rows } = require("./stores.js")

describe("compactKey: which events stay", () => {
  test("the first and the newest of each key, between barriers", async () => {
    const given = lists()
    const store = openLists(given)
    const removed = (id) => ["ItemRemoved", { id }]
    // 0 is the list; then 1 …
    board(given, store, ["a", "a", "b", "a", "b", "b", "a", removed("a"), "a", "a", "a", removed("x"), "a"])
    const before = tables(store)
    const { dropped } = await store.maintain()
    assert.equal(dropped, 4)
    assert.deepEqual(seqs(store), [0, 1, 3, 6, 7, 8, 9, 11, 12, 13])
    assert.deepEqual(await gaps(store), [
      [1, 2],
      [3, 5],
      [9, 10],
    ])
    assert.equal(store.get("b", 4), undefined)
    assert.equal(store.sequence("b"), 13)
    assert.deepEqual(tables(await replica(given, store)), before)
    assert.equal((await store.maintain()).dropped, 0)
  })

  test("a key is a string or a number, by its text; without one an event stays", async () => {
    const given = lists()
    const store = openLists(given)
    const some = [1, "1", 1.5, -1, "", '"', "\\", "é\u{1F600}", "\u0000", 1e21]
    const none = [null, true, false, {}, [], { id: 1 }, undefined]
    store.run(given.List, { board: "b", list: { id: "l" } })
    const due = [0]
    for (let round = 0; round < 3; round++) {
      for (const id of some) {
        const { seq } = store.run(given.Item, { board: "b", item: { id, text: "" } })
        if (round !== 1) due.push(seq)
      }
      for (const id of none) due.push(store.run(given.Item, { board: "b", item: { id, text: "" } }).seq)
      for (const item of [undefined, null, "id", 7, ["id"]]) due.push(store.run(given.Item, { board: "b", item }).seq)
    }
    await store.maintain()
    assert.deepEqual(seqs(store), due)
  })

  test("of every version of a barrier, and for each version of a type by itself", async () => {
    const registry = createRegistry()
    const schema = z.looseObject({ board: z.string() })
    const base = { aggregate: "board", schema, registry, projector: "none" }
    define({ ...base, type: "ended", version: 1 })
    const Ended = define({ ...base, type: "ended", version: 2 })
    const compactKey = { path: "k", barriers: [Ended] }
    define({ ...base, type: "saved", version: 1, compactKey })
    define({ ...base, type: "saved", version: 2, compactKey: "other" })
    // Only its newest version is compacted: of the older, nothing is known to be superseded.
    define({ ...base, type: "plain", version: 1 })
    define({ ...base, type: "plain", version: 2, compactKey })
    const store = kept(file(), { registry, packing: false })
    const types = ["saved.1", "saved.1", "saved.2", "saved.2", "saved.1", "saved.2", "ended.1", "saved.1", "saved.1"]
    types.push(
      "saved.2",
      "saved.1",
      "ended.2",
      "saved.1",
      "plain.1",
      "plain.1",
      "plain.1",
      "plain.2",
      "plain.2",
      "plain.2",
    )
    const items = types.map((type, seq) => {
      return { id: `e${seq}`, type, seq, aggregateID: "b", data: { board: "b", k: "k", other: 1 } }
    })
    store.replayAll(items)
    await store.maintain()
    const gone = [1, 3, 5, 8, 17]
    assert.deepEqual(
      seqs(store),
      types.map((_, seq) => seq).filter((seq) => !gone.includes(seq)),
    )
  })

  test("aggregates apart; a string is a path without barriers; a type without a key keeps everything", async () => {
    const given = lists({ itemKey: "item.id", listKey: false })
    const store = openLists(given)
    for (let n = 0; n < 4; n++) {
      for (const b of ["b", "c"]) store.run(given.List, { board: b, list: { id: "l" } })
      for (const b of ["b", "c"]) store.run(given.Item, { board: b, item: { id: "i", text: `${b}${n}` } })
      store.run(given.ItemRemoved, { board: "b", id: "none" })
    }
    await store.maintain()
    assert.deepEqual(seqs(store, "c"), [0, 1, 2, 4, 6, 7])
    assert.deepEqual(seqs(store, "b"), [0, 1, 2, 3, 5, 6, 8, 9, 10, 11])
  })

  test("a definition refuses what is no key", () => {
    const make = (compactKey, more) => () =>
      define({
        type: "t",
        version: 1,
        aggregate: "board",
        schema: z.object({ board: z.string() }),
        registry: createRegistry(),
        compactKey,
        ...more,
      })
    for (const key of ["", ".", "a.", ".a", "a..b", 1, null, {}, { path: "" }, { path: "a", barrier: [] }, []]) {
      assert.throws(make(key), coded("ERR_INVALID_ARGUMENT", /compactKey/), JSON.stringify(key))
    }
    for (const barriers of ["a", [1], [undefined], {}]) {
      assert.throws(make({ path: "a", barriers }), coded("ERR_INVALID_ARGUMENT", /compactKey/))
    }
    assert.throws(make("a", { ephemeral: true }), coded("ERR_INVALID_ARGUMENT", /compactKey/))
  })
})

describe("compaction of whole histories", () => {
  test("segments of which nothing is kept go whole, while the newest of the key is a row", async () => {
    const given = lists()
    const store = openLists(given, file(), { packing: { keepEvents: 3, atBytes: 2 ** 40, idle: 2 ** 31 - 1 } })
    store.transaction(() => board(given, store, Array(4_000).fill("a")))
    const plain = lists({ itemKey: false, listKey: false })
    const path = store.db.name
    store.close()
    // Packed while there was no rule, three segments and a half.
    const packing = openLists(plain, path)
    await packing.maintain()
    assert.equal(rows(packing, "SELECT count(*) FROM event_segment")[0][0], 4)
    packing.close()
    const later = openLists(given, path, { packing: { keepEvents: 3, atBytes: 2 ** 40, idle: 2 ** 31 - 1 } })
    const before = tables(later)
    later.run(given.Item, { board: "b", item: { id: "a", text: "newest" } })
    const result = await later.maintain({ budget: 60_000 })
    assert.equal(result.dropped, 3_999)
    assert.deepEqual(seqs(later), [0, 1, 4_001])
    assert.equal(rows(later, "SELECT count(*) FROM event")[0][0], 1)
    assert.deepEqual(await gaps(later), [[1, 4_000]])
    assert.equal((await replica(given, later)).sequence("b"), 4_001)
    assert.deepEqual(before[0], tables(later)[0])
    // A key whose first event is not in the first segment: the segments in the middle vanish.
    later.transaction(() =>
      board(
        given,
        later,
        Array(1_023)
          .fill("x")
          .map((_, n) => `x${n}`),
      ),
    )
    later.transaction(() => board(given, later, Array(3_000).fill("y")))
    later.close()
    const again = openLists(plain, path)
    await again.maintain()
    again.close()
    const last = openLists(given, path)
    last.run(given.Item, { board: "b", item: { id: "y", text: "row" } })
    await last.maintain({ budget: 60_000 })
    await last.maintain()
    assert.equal(last.read("b").length, 3 + 1 + 1_023 + 1 + 1)
    assert.deepEqual(tables(await replica(given, last))[0], tables(last)[0])
  })

  test("many segments of which little stays become few, in slices, and stay what they are", async () => {
    const one = (compactKey) => {
      const registry = createRegistry()
      const schema = z.looseObject({ board: z.string() })
      define({ type: "saved", version: 1, aggregate: "board", schema, registry, projector: "none", ...compactKey })
      return registry
    }
    const path = file()
    const store = kept(path, { registry: one(), packing: false })
    const count = 70 * 1_024
    // Three keys all along, and one that goes with each segment, of which two stay.
    const key = (seq) => (seq % 512 === 1 ? `own ${seq >> 10}` : seq % 3)
    store.replayAll(
      Array.from({ length: count }, (_, seq) => {
        return { id: `e${seq}`, type: "saved.1", seq, aggregateID: "b", data: { board: "b", key: key(seq) } }
      }),
    )
    await store.maintain()
    assert.equal(rows(store, "SELECT count(*) FROM event_segment")[0][0], 70)
    const before = await collected(store.log({ aggregateID: "b" }))
    store.close()
    const compacting = kept(path, { registry: one({ compactKey: "key" }), packing: false })
    const { dropped } = await compacting.maintain()
    assert.equal(dropped, count - 70 * 2 - 6)
    assert.equal(rows(compacting, "SELECT count(*) FROM event_segment")[0][0], 1)
    const events = before.filter(({ kind }) => kind === "event").map(({ event }) => JSON.stringify(event))
    const left = compacting.read("b")
    for (const event of left) assert.equal(JSON.stringify(event), events[event.seq])
    assert.equal(left.length, 146)
    await collected(compacting.log({ aggregateID: "b" }))
    assert.equal((await compacting.maintain()).events, 0)
  })

  test("in passing: what is packed by itself is compacted, and tells the same story", async () => {
    const given = lists()
    const store = openLists(given, file(), { packing: { keepEvents: 5, atBytes: 1, idle: 1 } })
    const ids = []
    for (let n = 0; n < 600; n++) {
      if (n % 17 === 0) ids.push(["ListRemoved", { id: "l" }], ["List", { list: { id: "l", title: n } }])
      ids.push(n % 29 === 0 ? ["ItemRemoved", { id: `i${n % 3}` }] : `i${n % 3}`)
    }
    const one = () => rows(store, "SELECT count(*) FROM event_segment")[0][0] > 0
    for (const round of [ids, ids.slice(0, 300)]) {
      board(given, store, round)
      while (!one()) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    while (rows(store, "SELECT count(*) FROM event")[0][0] > 0) await new Promise((resolve) => setTimeout(resolve, 1))
    assert.ok(store.read("b").length < store.sequence("b"), "something was let go")
    const copy = await replica(given, store)
    assert.deepEqual(tables(copy), tables(store))
    assert.equal(copy.sequence("b"), store.sequence("b"))
  })

  test("other rules at another open: what they let go goes then, and nothing comes back", async () => {
    const open = (path, options) => openLists(lists(options), path)
    const path = file()
    const first = open(path, { itemKey: false, listKey: false })
    const given = lists({ itemKey: false, listKey: false })
    first.close()
    const store = openLists(given, path)
    board(given, store, ["a", "a", "a", ["ItemRemoved", { id: "a" }], "a", "a", "a"])
    assert.equal((await store.maintain()).dropped, 0)
    store.close()
    const careful = open(path, {})
    assert.equal((await careful.maintain()).dropped, 2)
    assert.deepEqual(seqs(careful), [0, 1, 3, 4, 5, 7])
    careful.close()
    const bold = open(path, { itemKey: "item.id" })
    assert.equal((await bold.maintain()).dropped, 2)
    assert.deepEqual(seqs(bold), [0, 1, 4, 7])
    bold.close()
    const again = open(path, {})
    assert.equal((await again.maintain()).dropped, 0)
    assert.deepEqual(await gaps(again), [
      [1, 3],
      [4, 6],
    ])
    again.close()
    const none = open(path, { itemKey: false, listKey: false })
    assert.equal((await none.maintain()).dropped, 0)
    assert.deepEqual(seqs(none), [0, 1, 4, 7])
  })
})
