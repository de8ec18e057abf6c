"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { z } = require("zod")
const { createRegistry, define, project } = require("syncline")
const { coded, collected, file, kept, rows, turns } = require("./stores.js")
const { buildOutputBytes, inOrder, openSessions, sessionState, sessionsExpected, sessionsText } = require("./sessions.js")

const TABLES = `
  CREATE TABLE IF NOT EXISTS list (id TEXT PRIMARY KEY, title TEXT);
  CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, list TEXT NOT NULL REFERENCES list (id),
    first_seen INTEGER NOT NULL, first_text TEXT NOT NULL, text TEXT NOT NULL);
`

const KEY = "item.id"

/**
 * Lists with items: an item belongs to a list by a foreign key, and keeps what it was at first. `itemKey` and `listKey` are
 * the keys by which they are compacted; by default with every barrier that they need.
 */
function lists({ itemKey, listKey } = {}) {
  const registry = createRegistry()
  const schema = z.looseObject({ board: z.string() })
  const make = (type, compactKey, version = 1) =>
    define({ type, version, aggregate: "board", schema, registry, ...(compactKey && { compactKey }) })
  const ItemRemoved = make("item.removed")
  const ListRemoved = make("list.removed")
  const barriers = [ItemRemoved, ListRemoved]
  const Item = make("item.saved", itemKey === undefined ? { path: KEY, barriers } : itemKey)
  const List = make("list.saved", listKey === undefined ? { path: "list.id", barriers: [ListRemoved] } : listKey)
  const projectors = [
    project(List, (tx, { list }) =>
      tx
        .prepare("INSERT INTO list VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET title = excluded.title")
        .run(list.id, list.title ?? null),
    ),
    project(Item, (tx, { item }, { seq }) =>
      tx
        .prepare("INSERT INTO item VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET text = excluded.text")
        .run(String(item?.id), item?.list ?? "l", seq, String(item?.text), String(item?.text)),
    ),
    project(ItemRemoved, (tx, { id }) => tx.prepare("DELETE FROM item WHERE id = ?").run(id)),
    project(ListRemoved, (tx, { id }) => {
      tx.prepare("DELETE FROM item WHERE list = ?").run(id)
      tx.prepare("DELETE FROM list WHERE id = ?").run(id)
    }),
  ]
  return { registry, projectors, Item, List, ItemRemoved, ListRemoved }
}

function openLists({ registry, projectors }, path = file(), options = {}) {
  const migrate = (db) => db.exec(TABLES)
  return kept(path, { registry, projectors, migrate, packing: false, ...options })
}

const seqs = (store, aggregateID = "b") => store.read(aggregateID).map((event) => event.seq)

const gaps = async (store, aggregateID = "b", after = -1) =>
  (await collected(store.log({ aggregateID, after })))
    .filter(({ kind }) => kind === "gap")
    .map((gap) => [gap.after, gap.through])

/** The state that the log projects to. */
const tables = (store) => [
  rows(store, "SELECT * FROM list ORDER BY id"),
  rows(store, "SELECT * FROM item ORDER BY id"),
]

/** A board that has one list, and then items by their keys; a key that is an array is a whole event. */
function board(given, store, events) {
  store.run(given.List, { board: "b", list: { id: "l" } })
  for (const [n, event] of events.entries()) {
    if (Array.isArray(event)) store.run(given[event[0]], { board: "b", ...event[1] })
    else store.run(given.Item, { board: "b", item: { id: event, text: `text ${n}` } })
  }
}

/** Replays a log as it is now into a new file. */
async function replica(given, store, name = `${Math.random()}.db`, open = openLists) {
  const copy = open(given, file(name))
  for (const { aggregateID } of store.aggregates()) copy.replayAll(await collected(store.log({ aggregateID })))
  return copy
}

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
    types.push("saved.2", "saved.1", "ended.2", "saved.1", "plain.1", "plain.1", "plain.1", "plain.2", "plain.2", "plain.2")
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
    later.transaction(() => board(given, later, Array(1_023).fill("x").map((_, n) => `x${n}`)))
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
    const bold = open(path, { itemKey: KEY })
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

describe("compacted logs and their readers", () => {
  /** Eight of one key: 2 … 7 are gone. */
  async function compacted(name) {
    const given = lists()
    const store = openLists(given, file(name))
    board(given, store, Array(8).fill("a"))
    const events = store.read("b")
    await store.maintain()
    assert.deepEqual(seqs(store), [0, 1, 8])
    return { given, store, events }
  }

  test("a plain list of events with a hole that nothing explains is refused", async () => {
    const { given, store } = await compacted()
    const copy = openLists(given, file("copy.db"))
    assert.throws(
      () => copy.replayAll(store.read("b")),
      coded("ERR_SEQUENCE_MISMATCH", /Sequence mismatch/, { expected: 2, got: 8 }),
    )
    assert.equal(copy.sequence("b"), -1)
  })

  test("readers before, at, inside and behind the gap catch up, with and without follow", async () => {
    const { given, store, events } = await compacted()
    for (let last = -1; last < 9; last++) {
      const reader = openLists(given, file(`${last}.db`))
      reader.replayAll(events.slice(0, last + 1))
      const items = await collected(store.log({ aggregateID: "b", after: reader.sequence("b") }))
      assert.deepEqual(
        items.filter(({ kind }) => kind === "gap").map(({ after, through }) => [after, through]),
        last >= 7 ? [] : [[Math.max(1, last), 7]],
      )
      reader.replayAll(items)
      assert.deepEqual(tables(reader), tables(store), `from ${last}`)
      assert.equal(reader.sequence("b"), 8)
      // Everything again, from the whole log and from the compacted one.
      assert.deepEqual(reader.replayAll(events)[0].duplicate, 9)
      assert.deepEqual(reader.replayAll(await collected(store.log({ aggregateID: "b" })))[0].applied, 0)
      const following = []
      for await (const item of store.log({ aggregateID: "b", after: last, follow: true })) {
        following.push(JSON.stringify(item))
        if (item.kind === "synced") break
      }
      assert.deepEqual(following, items.map((item) => JSON.stringify(item)))
    }
  })

  test("what lies in the gap is a duplicate, whatever it says; what is kept must be the same", async () => {
    const { store, events } = await compacted()
    assert.deepEqual(store.replayAll(events), [{ aggregateID: "b", applied: 0, duplicate: 9, seq: 8 }])
    assert.equal(store.replay({ ...events[4], id: "other" }).duplicate, 1)
    assert.throws(() => store.replay({ ...events[8], id: "other" }), coded("ERR_REPLAY_DIVERGED"))
    assert.equal(store.replay({ kind: "gap", aggregateID: "b", after: 1, through: 7 }).duplicate, 1)
  })

  test("a log is read while it is compacted: every seq is an event or in a gap", async () => {
    const given = lists()
    const store = openLists(given)
    const other = openLists(given, store.db.name)
    store.transaction(() => board(given, store, Array.from({ length: 3_500 }, (_, n) => `i${n % 7}`)))
    let last = -1
    let count = 0
    for await (const item of store.log({ aggregateID: "b" })) {
      if (item.kind === "event") assert.equal(item.event.seq, last + 1)
      if (item.kind === "gap") assert.ok(item.after === last, `${item.after} follows on ${last}`)
      last = item.event?.seq ?? item.through ?? last
      if (count++ === 500) await other.maintain()
    }
    assert.equal(last, 3_500)
    assert.ok(count > 500 && count < 1_100, `${count} items`)
  })

  test("listeners of the database that are behind get what is left, in order", async () => {
    const given = lists()
    const writer = openLists(given)
    const reader = openLists(given, writer.db.name)
    const heard = []
    reader.subscribeAll(({ seq }) => heard.push(seq), { scope: "database" })
    for (let round = 0; round < 3; round++) {
      writer.transaction(() => board(given, writer, Array(1_000).fill("a")))
      await writer.maintain()
    }
    while (heard.at(-1) !== 3_002) await turns(1)
    assert.deepEqual(heard, heard.toSorted((a, b) => a - b))
    assert.equal(new Set(heard).size, heard.length)
    for (const { seq } of reader.read("b")) assert.ok(heard.includes(seq), `seq ${seq} was heard`)
    reader.run(given.Item, { board: "b", item: { id: "z", text: "" } })
    assert.equal(heard.at(-1), 3_003)
  })

  test("removed after it was compacted, and the other way round", async () => {
    const { given, store, events } = await compacted()
    store.remove("b", { event: [given.ListRemoved, { board: "b", id: "l" }] })
    assert.deepEqual(await gaps(store), [])
    assert.equal(rows(store, "SELECT count(*) FROM event_gap")[0][0], 0)
    board(given, store, ["a", "a", "a"])
    await store.maintain()
    assert.deepEqual(seqs(store), [10, 11, 13])
    const copy = await replica(given, store)
    assert.deepEqual(
      rows(copy, "SELECT id, first_text, text FROM item"),
      rows(store, "SELECT id, first_text, text FROM item"),
    )
    assert.equal(copy.replayAll(events)[0].duplicate, 9)
    // A removal that ends inside a gap, as a reader replays it.
    for (const seq of [0, 1, 4, 7, 8]) {
      const { store: cut, events } = await compacted(`${seq}.db`)
      cut.replay({ kind: "removed", aggregateID: "b", seq })
      const [removed, ...rest] = await collected(cut.log({ aggregateID: "b" }))
      assert.deepEqual([removed.kind, removed.seq], ["removed", seq])
      assert.deepEqual(
        rest.map((item) => item.event?.seq ?? item.through ?? item.kind),
        [...(seq < 1 ? [1] : []), ...(seq < 7 ? [7] : []), ...(seq < 8 ? [8] : []), "synced"],
      )
      assert.equal(cut.replayAll(events)[0].duplicate, 9)
    }
  })

  test("gaps that were replayed, and those of compaction, join and stay apart", async () => {
    const { given, store } = await compacted()
    const copy = await replica(given, store, "copy.db")
    assert.deepEqual(await gaps(copy), [[1, 7]])
    assert.equal(copy.sequence("b"), 8)
    for (let n = 0; n < 5; n++) copy.run(given.Item, { board: "b", item: { id: "a", text: n } })
    copy.replay({ kind: "gap", aggregateID: "b", after: 13, through: 20 })
    copy.run(given.Item, { board: "b", item: { id: "a", text: "last" } })
    await copy.maintain()
    assert.deepEqual(seqs(copy), [0, 1, 21])
    assert.deepEqual(await gaps(copy), [[1, 20]])
    assert.equal((await replica(given, copy)).sequence("b"), 21)
  })
})

describe("replaying the compacted log gives the same tables as the whole one", () => {
  const list = fc.constantFrom("l", "m")
  const item = fc.constantFrom("i", "j", "k")
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant("item"), item, list, text: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("list"), list, title: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("item removed"), item }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("list removed"), list }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("maintain", "maintain a little") }) },
  )

  test("for any upserts and removals, foreign keys and first-seen columns, from any reader's place", async () => {
    let files = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), fc.nat(60), async (steps, place) => {
        const given = lists()
        const store = openLists(given, file(`${files++}.db`), { packing: { keepEvents: 4, idle: 2 ** 31 - 1, atBytes: 2 ** 40 } })
        const whole = []
        const run = (definition, data) => {
          try {
            const { id, seq } = store.run(definition, { board: "b", ...data })
            whole.push(store.get("b", seq))
            assert.equal(whole.at(-1).id, id)
          } catch (error) {
            // An item without its list.
            assert.match(error.message, /FOREIGN KEY/)
          }
        }
        for (const step of steps) {
          if (step.do === "item") run(given.Item, { item: { id: step.item, list: step.list, text: step.text } })
          else if (step.do === "list") run(given.List, { list: { id: step.list, title: step.title } })
          else if (step.do === "item removed") run(given.ItemRemoved, { id: step.item })
          else if (step.do === "list removed") run(given.ListRemoved, { id: step.list })
          else await store.maintain(step.do === "maintain" ? {} : { budget: 1 })
        }
        const replayed = await replica(given, store, `${files++}.db`)
        assert.deepEqual(tables(replayed), tables(store))
        await store.maintain()
        const full = await replica(given, store, `${files++}.db`)
        assert.deepEqual(tables(full), tables(store))
        const behind = openLists(given, file(`${files++}.db`))
        behind.replayAll(whole.slice(0, place))
        behind.replayAll(await collected(store.log({ aggregateID: "b", after: behind.sequence("b") })))
        assert.deepEqual(tables(behind), tables(store))
        assert.equal(behind.sequence("b"), store.sequence("b"))
        for (const one of [replayed, full, behind, store]) one.close()
      }),
      { numRuns: 40, includeErrorInReport: true },
    )
  })
})

describe("the recordings, compacted", () => {
  async function assertSame(store, path) {
    const before = sessionState(store)
    const { dropped } = await store.maintain()
    assert.ok(dropped > 0)
    assert.deepEqual(sessionState(store), before)
    for (const language of ["js", "sql"]) {
      const copy = openSessions(file(`${path}-${language}.db`), { language, compact: true })
      for (const { aggregateID } of store.aggregates()) copy.replayAll(await collected(store.log({ aggregateID })))
      assert.deepEqual(sessionState(copy), before)
    }
    return { before, dropped }
  }

  test("sessions project to what the server held", async () => {
    const store = openSessions(file(), { compact: true, packing: false })
    store.replayAll(sessionsText())
    const { before } = await assertSame(store, "sessions")
    assert.deepEqual(before, inOrder(sessionsExpected()))
    // Whoever has seen any part of it goes on from there.
    const lines = sessionsText().trimEnd().split("\n")
    for (const count of [1, 500, 1_100, 2_000]) {
      const behind = openSessions(file(`${count}.db`), { compact: true })
      behind.replayAll(lines.slice(0, count).join("\n"))
      for (const { aggregateID } of store.aggregates()) {
        behind.replayAll(await collected(store.log({ aggregateID, after: behind.sequence(aggregateID) })))
      }
      assert.deepEqual(sessionState(behind), before)
    }
  })

  test("build-output projects to the same rows, from a part of its bytes", async () => {
    const store = openSessions(file(), { compact: true, packing: { keepEvents: 50, atBytes: 1_000_000, idle: 1_000 } })
    store.replayAll(buildOutputBytes())
    await assertSame(store, "build-output")
    const bytes = store.readAll({ limit: 10_000 }).reduce((sum, { data }) => sum + JSON.stringify(data).length, 0)
    assert.ok(bytes < 24e6 * 0.03, `${bytes} bytes are left`)
  })
})
