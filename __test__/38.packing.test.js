"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, collected, file, history, notes, openNotes, rows } = require("./stores.js")

/** All that the public interface says of the log. */
async function told(store) {
  const logs = []
  for (const { aggregateID } of store.aggregates()) logs.push(await collected(store.log({ aggregateID })))
  return JSON.parse(
    JSON.stringify({ all: store.readAll({ limit: 1_000_000 }), logs, sequences: [...store.sequences()] }),
  )
}

const packed = (store) => rows(store, "SELECT count(*) FROM event_segment")[0][0]
const unpacked = (store) => rows(store, "SELECT count(*) FROM event")[0][0]

/** Packs everything, and proves that nothing has changed by it. */
async function pack(store) {
  const before = await told(store)
  const result = await store.maintain()
  assert.equal(result.complete, true)
  assert.equal(unpacked(store), 0)
  assert.deepEqual(await told(store), before)
  return before
}

/** A store that packs only when it is told to. */
const quiet = (given, options) => openNotes(given, { packing: false, ...options })

const texts = (items) => items.map((item) => JSON.stringify(item))

describe("packed events are read as rows are", () => {
  test("read: every cut at the bounds of segments, in both orders, gives what a plain list gives", async () => {
    const store = quiet(notes())
    store.replayAll(history("a", 2_500))
    await pack(store)
    store.replayAll(history("a", 40, 2_500))
    const ends = rows(store, "SELECT seq FROM event_segment ORDER BY seq").flat()
    assert.deepEqual(ends, [1_023, 2_047, 2_499])
    const all = store.read("a")
    assert.equal(all.length, 2_540)
    const list = texts(all)
    const at = [-1, 0, 1, 1_022, 1_023, 1_024, 1_025, 2_046, 2_047, 2_048, 2_498, 2_499, 2_500, 2_539, 2_540, 9_999]
    for (const order of ["asc", "desc"]) {
      for (const after of at) {
        for (const before of [undefined, ...at.slice(1)]) {
          const wanted = list.slice(after + 1, Math.max(before ?? Infinity, after + 1))
          if (order === "desc") wanted.reverse()
          for (const limit of [0, 1, 2, 1_000, 1_025, undefined]) {
            // Thousands of events at each of many cuts would take long, and say no more than their ends.
            const found = store.read("a", { after, before, limit, order })
            const due = wanted.slice(0, limit)
            assert.equal(found.length, due.length, JSON.stringify({ after, before, limit, order }))
            for (const index of [0, 1, due.length >> 1, due.length - 1]) {
              assert.equal(found[index]?.seq, due[index] && JSON.parse(due[index]).seq)
              assert.equal(JSON.stringify(found[index]), due[index])
            }
          }
        }
      }
    }
  })

  test("get finds each seq, and nothing past the last", async () => {
    const store = quiet(notes())
    store.replayAll(history("a", 1_030))
    const before = Array.from({ length: 1_031 }, (_, seq) => JSON.stringify(store.get("a", seq)))
    await pack(store)
    assert.deepEqual(
      Array.from({ length: 1_031 }, (_, seq) => JSON.stringify(store.get("a", seq))),
      before,
    )
    assert.equal(store.get("a", 1_030), undefined)
    assert.equal(store.get("b", 0), undefined)
  })

  test("readAll of interleaved aggregates gives the order of commits, from any position and in any page", async () => {
    const given = notes()
    const store = quiet(given)
    store.transaction(() => {
      for (let n = 0; n < 3_000; n++) store.run(given.Seen, { noteID: `note ${(n * n) % 37}`, n })
    })
    await pack(store)
    // Rows among segments: some aggregates move on, one new, one gone.
    for (let n = 0; n < 100; n++) store.run(given.Seen, { noteID: `note ${n % 5}`, n })
    store.remove("note 1")
    store.run(given.Seen, { noteID: "note 1", n: -1 })
    const all = texts(store.readAll({ limit: 1_000_000 }))
    await store.maintain({ budget: 60_000 })
    assert.deepEqual(texts(store.readAll({ limit: 1_000_000 })), all)
    const positions = all.map((text) => JSON.parse(text).position)
    assert.deepEqual(
      positions,
      positions.toSorted((a, b) => a - b),
    )
    assert.equal(new Set(positions).size, positions.length)
    for (const [index, position] of positions.entries()) {
      if (index % 97 > 1 && index < all.length - 3) continue
      for (const limit of [1, 2, 1_001]) {
        assert.deepEqual(
          texts(store.readAll({ afterPosition: position, limit })),
          all.slice(index + 1, index + 1 + limit),
        )
      }
    }
    for (const size of [1, 7, 1_000]) {
      const found = []
      for (let afterPosition = size === 1 ? positions.at(-50) : 0; ;) {
        const page = store.readAll({ afterPosition, limit: size })
        if (page.length === 0) break
        found.push(...texts(page))
        afterPosition = page.at(-1).position
      }
      assert.deepEqual(found, size === 1 ? all.slice(-49) : all)
    }
  })

  test("every byte comes back: emoji, escapes, lone surrogates, metadata, no created, ids of other shapes", async () => {
    const given = notes()
    const store = quiet(given)
    const ids = [
      "1",
      "é",
      "évt",
      "éé",
      "evt_\u{1F600}",
      "evt_\u{1F601}",
      "evt_\u{1F601}x",
      "x".repeat(255),
      "0",
      "\u0000",
    ]
    const strings = ["", "\u{1F600}", "\u0000\u001f\u007f", "\ud800", '"\\/', "\u2028", "ß".repeat(999), "\uffff"]
    const created = [undefined, 0, -1, -8.64e15, 2 ** 53 - 1, 1, -(2 ** 53 - 1), undefined, 1_700_000_000_000, 5]
    const metadata = [undefined, {}, { cause: "\u{1F600}" }, { a: { b: [1, null] } }, undefined]
    const items = Array.from({ length: 400 }, (_, seq) => ({
      id: seq < ids.length ? ids[seq] : `${ids[(seq * 7) % ids.length].slice(0, 200)}${seq}`,
      type: "note.seen.1",
      seq,
      aggregateID: "\u{1F600} note",
      data: { noteID: "\u{1F600} note", text: strings[seq % strings.length], "k\u{1F600}": [seq, 1e300, -0.5, null] },
      ...(metadata[seq % 5] && { metadata: metadata[seq % 5] }),
      ...(created[seq % 10] !== undefined && { created: created[seq % 10] }),
    }))
    const usable = items.filter(({ id, created = 0 }) => id !== "" && Math.abs(created) <= 2 ** 53 - 1)
    assert.equal(usable.length, 400)
    store.replayAll(items)
    const stored = rows(store, "SELECT position, seq, id, type, created, metadata, data FROM event ORDER BY position")
    await pack(store)
    assert.deepEqual(texts(store.read("\u{1F600} note")), texts(items.map((item) => inOrder(item))))
    assert.equal(stored.length, 400)
    // It replays as what it is.
    assert.deepEqual(store.replayAll(store.read("\u{1F600} note")), [
      { aggregateID: "\u{1F600} note", applied: 0, duplicate: 400, seq: 399 },
    ])
    const copy = quiet(given, { path: file("copy.db") })
    copy.replayAll(store.read("\u{1F600} note"))
    assert.deepEqual(
      rows(copy, "SELECT position, seq, id, type, created, metadata, data FROM event ORDER BY position"),
      stored,
    )
  })

  test("segments end at 1,024 events and at 8 MiB, and a larger event is one of its own", async () => {
    const given = notes()
    const store = quiet(given, { maxEventBytes: 32 * 1024 * 1024 })
    const MiB = 1024 * 1024
    const sized = (noteID, bytes) => {
      const frame = JSON.stringify({ noteID, text: "" }).length
      store.run(given.Seen, { noteID, text: "x".repeat(bytes - frame) })
    }
    store.transaction(() => {
      for (let n = 0; n < 1_024; n++) store.run(given.Seen, { noteID: "exact" })
      for (let n = 0; n < 1_025; n++) store.run(given.Seen, { noteID: "over" })
    })
    for (const bytes of [4 * MiB, 4 * MiB]) sized("8 MiB", bytes)
    for (const bytes of [4 * MiB, 4 * MiB + 1]) sized("8 MiB + 1", bytes)
    for (const bytes of [100, 8 * MiB, 100, 8 * MiB + 1, 100, 17 * MiB, 17 * MiB]) sized("large", bytes)
    await store.maintain()
    assert.equal(unpacked(store), 0)
    const segments = (noteID) =>
      rows(
        store,
        `SELECT first_seq, s.seq FROM event_segment s JOIN event_sequence e ON e.key = s.aggregate
         WHERE aggregate_id = ? ORDER BY s.seq`,
        noteID,
      )
    assert.deepEqual(segments("exact"), [[0, 1_023]])
    assert.deepEqual(segments("over"), [
      [0, 1_023],
      [1_024, 1_024],
    ])
    assert.deepEqual(segments("8 MiB"), [[0, 1]])
    assert.deepEqual(segments("8 MiB + 1"), [
      [0, 0],
      [1, 1],
    ])
    assert.deepEqual(
      segments("large"),
      Array.from({ length: 7 }, (_, seq) => [seq, seq]),
    )
    assert.equal(
      store.get("large", 6).data.text.length,
      17 * MiB - JSON.stringify({ noteID: "large", text: "" }).length,
    )
  })
})

/** A serialized event with its fields in the order in which they are read. */
function inOrder({ id, type, seq, aggregateID, data, created, metadata }) {
  return JSON.parse(JSON.stringify({ id, type, seq, aggregateID, data, created, metadata }))
}

describe("packed events are replayed, removed and followed as rows are", () => {
  test("rule 16: what is packed is a duplicate, or has diverged", async () => {
    const store = quiet(notes())
    const items = history("a", 1_500)
    store.replayAll(items)
    await pack(store)
    assert.deepEqual(store.replayAll(items), [{ aggregateID: "a", applied: 0, duplicate: 1_500, seq: 1_499 }])
    for (const seq of [0, 1_023, 1_024, 1_499]) {
      const item = items[seq]
      const type = item.type === "note.seen.1" ? "note.written.1" : "note.seen.1"
      const others = { id: { ...item, id: "other" }, type: { ...item, type } }
      others.data = { ...item, data: { ...item.data, text: "other", tag: "other" } }
      for (const [what, other] of Object.entries(others)) {
        assert.throws(() => store.replay(other), coded("ERR_REPLAY_DIVERGED", new RegExp(what), { seq }), what)
      }
    }
    assert.throws(() => store.replay(history("a", 1, 1_501)[0]), coded("ERR_SEQUENCE_MISMATCH"))
    store.replayAll(history("a", 10, 1_495))
    assert.equal(store.sequence("a"), 1_504)
  })

  test("seqs and positions go on after everything is packed, and after what is packed is removed", async () => {
    const given = notes()
    const path = file()
    let store = quiet(given, { path })
    const positions = []
    const run = () => {
      const { seq } = store.run(given.Seen, { noteID: "a" })
      positions.push(store.readAll({ limit: 1_000_000 }).findLast((event) => event.aggregateID === "a").position)
      return seq
    }
    assert.deepEqual([run(), run()], [0, 1])
    await pack(store)
    assert.deepEqual([run(), run()], [2, 3])
    await pack(store)
    store.remove("a")
    assert.equal(run(), 4)
    await pack(store)
    store.remove("a", { event: [given.Tagged, { noteID: "a", tag: "gone" }] })
    store.close()
    store = quiet(given, { path })
    assert.equal(run(), 6)
    assert.throws(() => store.run(given.Seen, { noteID: "a" }, { expectedSeq: 5 }), coded("ERR_CONFLICT"))
    assert.deepEqual(
      positions.map((position, index) => index === 0 || position > positions[index - 1]),
      positions.map(() => true),
    )
  })

  test("rule 21: remove erases segments, with their event, and a reader that was away learns of it", async () => {
    const given = notes()
    const store = quiet(given)
    store.replayAll([...history("a", 2_100), ...history("b", 3)])
    await pack(store)
    store.remove("a", { event: [given.Tagged, { noteID: "a", tag: "gone" }] })
    assert.deepEqual(store.read("a"), [])
    assert.equal(packed(store), 1)
    const [removed, ...rest] = await collected(store.log({ aggregateID: "a" }))
    assert.deepEqual([removed.kind, removed.seq, removed.event.data.tag], ["removed", 2_100, "gone"])
    assert.deepEqual(rest, [{ kind: "synced", aggregateID: "a", seq: 2_100 }])
    assert.deepEqual(
      store.readAll({ limit: 10 }).map((event) => event.aggregateID),
      ["b", "b", "b"],
    )
    await pack(store)
  })

  test("rule 18: a replayed removal cuts a segment anywhere, and keeps what comes later", async () => {
    for (const seq of [0, 500, 1_022, 1_023, 1_024, 1_500, 1_499, 1_600]) {
      const given = notes()
      const store = quiet(given, { path: file(`${seq}.db`) })
      store.replayAll(history("a", 1_500))
      await store.maintain()
      store.replayAll(history("a", 100, 1_500))
      const all = texts(store.readAll({ limit: 1_000_000 }))
      store.replay({ kind: "removed", aggregateID: "a", seq })
      assert.deepEqual(texts(store.readAll({ limit: 1_000_000 })), all.slice(seq + 1), `cut at ${seq}`)
      const events = history("a", 1_600)
      const applied = store.replayAll(events)[0]
      assert.deepEqual([applied.applied, applied.duplicate], [0, 1_600])
      await pack(store)
      assert.equal(store.run(given.Seen, { noteID: "a" }).seq, seq === 1_600 ? 1_601 : 1_600)
      store.close()
    }
  })

  test("a removal that is taken back leaves segments as they were", async () => {
    const given = notes()
    const store = quiet(given)
    store.replayAll(history("a", 1_200))
    const before = await pack(store)
    const fail = () => {
      throw new Error("mine")
    }
    assert.throws(
      () => store.transaction(() => (store.remove("a"), assert.deepEqual(store.read("a"), []), fail())),
      /mine/,
    )
    assert.deepEqual(await told(store), before)
    const cut = () => {
      store.replay({ kind: "removed", aggregateID: "a", seq: 600 })
      assert.equal(store.read("a").length, 599)
      store.run(given.Seen, { noteID: "a" })
      assert.equal(store.read("a").length, 600)
      fail()
    }
    assert.throws(() => store.transaction(cut), /mine/)
    assert.deepEqual(await told(store), before)
    // Cut for good elsewhere than before: the cache must not remember the other cut.
    store.replay({ kind: "removed", aggregateID: "a", seq: 700 })
    assert.deepEqual(
      store.read("a", { limit: 1 }).map((event) => event.seq),
      [701],
    )
    assert.equal(store.read("a").length, 499)
  })

  test("rule 20: log, followed or not, and what is committed while it is read", async () => {
    const given = notes()
    const store = quiet(given)
    const other = quiet(given, { path: store.db.name })
    store.replayAll(history("a", 3_000))
    const seen = []
    let pages = 0
    for await (const item of store.log({ aggregateID: "a", after: 10, follow: true })) {
      if (item.kind === "synced") {
        assert.equal(item.seq, 2_999)
        other.run(given.Seen, { noteID: "a" })
        await other.maintain()
        other.run(given.Seen, { noteID: "a" })
        await store.maintain()
        store.run(given.Seen, { noteID: "a" })
        continue
      }
      seen.push(item.event.seq)
      // Somebody packs while the reader is between pages and inside them.
      if (pages++ % 700 === 0) await other.maintain(pages > 1_000 ? {} : { budget: 1 })
      if (item.event.seq === 3_002) break
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 2_992 }, (_, n) => n + 11),
    )
  })

  test("a store that was open before somebody else packs, removes and packs again sees what is there", async () => {
    const given = notes()
    const store = quiet(given)
    const other = quiet(given, { path: store.db.name })
    store.replayAll(history("a", 1_100))
    for (let round = 0; round < 4; round++) {
      const before = await told(store)
      await other.maintain()
      assert.deepEqual(await told(store), before)
      assert.deepEqual(await told(other), before)
      const last = store.sequence("a")
      other.replay({ kind: "removed", aggregateID: "a", seq: last - 300 })
      assert.equal(store.read("a").length, 300)
      assert.deepEqual(store.read("a"), other.read("a"))
      store.replayAll(history("a", 200, last + 1))
      assert.deepEqual(await told(store), await told(other))
    }
  })
})

test("a writer waits for nobody where its thread cannot pack", () => {
  const { Seen, ...given } = notes()
  const store = openNotes(given, { packing: { atBytes: 20_000 } })
  const refused = "BEFORE INSERT ON event_segment BEGIN SELECT RAISE(ABORT, 'nothing is packed here'); END"
  store.db.exec(`CREATE TRIGGER unpacked ${refused}`)
  const text = "x".repeat(500)
  const times = Array.from({ length: 400 }, () => {
    const start = performance.now()
    store.run(Seen, { noteID: "a", text })
    return performance.now() - start
  })
  const [median] = times
    .slice(200)
    .toSorted((one, other) => one - other)
    .slice(100)
  assert.ok(median < 5, `${median} ms`)
})
