"use strict"

// What `verify` finds in a file, what it mends, and that nothing which writers do is taken for damage.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, collected, dump, file, history, kept, notes, openNotes, rows } = require("./stores.js")

const codes = (findings) => findings.map((finding) => finding.code)

/** A store with two packed aggregates, `a` of 2,500 events and `b` of 300, and ten newer rows of each. */
async function packedNotes(path = file()) {
  const given = notes()
  const store = openNotes(given, { path, packing: false })
  store.replayAll(history("a", 2_500))
  store.replayAll(history("b", 300))
  await store.maintain()
  store.replayAll(history("a", 10, 2_500))
  store.replayAll(history("b", 10, 300))
  return { ...given, store, path }
}

/** Verifies, asserts the findings' codes, mends where that is expected, and asserts what is left. */
async function finds(store, expected, { repaired, left = repaired === undefined ? expected : [] } = {}) {
  const before = dump(store)
  const found = await store.verify()
  assert.deepEqual(codes(found), expected, JSON.stringify(found, null, 1))
  assert.deepEqual(dump(store), before)
  for (const finding of found) {
    assert.equal(finding.repaired, undefined)
    assert.match(finding.message, /\.$/)
  }
  const mended = await store.verify({ repair: true })
  const pattern = repaired ?? /^nothing$/
  assert.match(mended.map((finding) => finding.repaired).find(Boolean) ?? "nothing", pattern)
  assert.deepEqual(codes(await store.verify()), left)
  return found
}

describe("a sound file has no findings", () => {
  test("but a table whose index calls a function of this program's connection alone, which is not checked", async () => {
    const { store } = await packedNotes()
    store.db.function("shout", { deterministic: true }, (text) => String(text).toUpperCase())
    store.db.exec("CREATE TABLE word (text); CREATE INDEX shouted ON word (shout(text)); INSERT INTO word VALUES ('a')")
    const [found] = await finds(store, ["table-unchecked"])
    assert.equal(found.severity, "warning")
    assert.match(found.message, /table "word".*shout/)
    // The other tables are.
    store.db.exec("DELETE FROM event_sequence WHERE aggregate_id = 'b'")
    assert.ok(codes(await store.verify()).includes("orphan"))
  })

  test("empty, written, replayed, removed, claimed, with gaps, packed and not", async () => {
    const { store, Written, Seen } = await packedNotes()
    store.claim("claimed", "somebody")
    store.run(Written, { noteID: "c" })
    store.remove("c", { event: [Seen, { noteID: "c" }] })
    store.run(Written, { noteID: "c" })
    store.run(Written, { noteID: "d" })
    store.remove("d")
    store.replayAll([{ kind: "gap", aggregateID: "e", after: -1, through: 9 }, ...history("e", 3, 10)])
    store.replayAll([{ kind: "gap", aggregateID: "e", after: 12, through: 20 }])
    assert.deepEqual(await store.verify(), [])
    await store.maintain()
    assert.deepEqual(await store.verify({ repair: true }), [])
  })

  test("in memory, and empty", async () => {
    const given = notes()
    const store = openNotes(given, { path: ":memory:" })
    assert.deepEqual(await store.verify(), [])
    store.replayAll(history("a", 3_000))
    await store.maintain()
    assert.deepEqual(await store.verify({ repair: true }), [])
    store.db.exec("DELETE FROM event_segment WHERE first_seq = 0")
    assert.deepEqual(codes(await store.verify()), ["events-missing"])
  })

  test("removed through an earlier seq, by a replay, inside a segment", async () => {
    const { store } = await packedNotes()
    store.replayAll([{ kind: "removed", aggregateID: "a", seq: 100 }])
    assert.equal(store.read("a")[0].seq, 101)
    assert.deepEqual(await store.verify(), [])
  })
})

describe("what verify finds", () => {
  test("a last seq that is too low is raised", async () => {
    const { store } = await packedNotes()
    store.db.exec("UPDATE event_sequence SET seq = 5 WHERE aggregate_id = 'a'")
    const [found] = await finds(store, ["sequence-behind"], { repaired: /2509/ })
    assert.equal(found.severity, "error")
    assert.deepEqual([found.aggregateID, found.seq], ["a", 5])
    assert.equal(store.sequence("a"), 2_509)
  })

  test("events that are missing, among rows, between segments and at the end, are told and not invented", async () => {
    const { store } = await packedNotes()
    store.db.exec("DELETE FROM event WHERE seq IN (2502, 2503, 309)")
    const middle = "FROM event_segment WHERE first_seq > 0 AND seq < 2499"
    const lost = rows(store, `SELECT first_seq, seq ${middle}`)
    store.db.exec(`DELETE ${middle}`)
    const found = await finds(store, ["events-missing", "events-missing", "events-missing"])
    const ranges = found.map(({ aggregateID, after, through }) => [aggregateID, after, through])
    assert.deepEqual(ranges[1], ["a", 2501, 2503])
    assert.deepEqual(ranges[2], ["b", 308, 309])
    const [[first, last]] = lost
    assert.deepEqual(ranges[0], ["a", first - 1, last])
  })

  test("a row that stands in a segment, too, goes where both are the same", async () => {
    const { store } = await packedNotes()
    const event = store.get("b", 7)
    store.db
      .prepare(
        `INSERT INTO event SELECT ?, key, 7, ?, (SELECT key FROM event_type WHERE name = ?), NULL, NULL, ?
         FROM event_sequence WHERE aggregate_id = 'b'`,
      )
      .run(2_508, event.id, event.type, JSON.stringify(event.data))
    await finds(store, ["event-duplicate"], { repaired: /1 row/ })
    assert.deepEqual(store.get("b", 7), event)
  })

  test("a row that differs from what is packed under its seq stays", async () => {
    const { store } = await packedNotes()
    store.db.exec(`INSERT INTO event SELECT 9000, key, 7, 'other', 1, NULL, NULL, '{"noteID":"b"}'
                   FROM event_sequence WHERE aggregate_id = 'b'`)
    const [found] = await finds(store, ["event-conflict"])
    assert.deepEqual([found.aggregateID, found.seq], ["b", 7])
    const skipped = await store.maintain()
    assert.deepEqual(skipped.skipped, ["b"])
    assert.equal(rows(store, "SELECT count(*) FROM event WHERE id = 'other'")[0][0], 1)
  })

  test("a position floor that is too low is raised", async () => {
    const { store } = await packedNotes()
    await store.maintain()
    store.db.exec("UPDATE event_meta SET position_floor = 3")
    await finds(store, ["position-floor"], { repaired: /2820/ })
    store.replayAll(history("c", 1))
    assert.equal(store.readAll({ afterPosition: 2_820, limit: 10 }).length, 1)
  })

  test("gaps: over held events, overlapping, empty", async () => {
    const { store } = await packedNotes()
    const gap = store.db.prepare("INSERT INTO event_gap SELECT key, ?, ? FROM event_sequence WHERE aggregate_id = ?")
    gap.run(5, 20, "a")
    gap.run(100, 110, "b")
    gap.run(105, 120, "b")
    await finds(store, ["gap-covers-events", "gap-overlap", "gap-covers-events", "gap-covers-events"], {
      repaired: /after 5 through 20/,
    })
    assert.deepEqual(rows(store, "SELECT * FROM event_gap"), [])
    gap.run(7, 7, "a")
    await finds(store, ["gap-invalid"], { repaired: /0 gaps of 1/ })
    gap.run(-9, -3, "a")
    await finds(store, ["gap-invalid"])
  })

  test("a gap loses only what is held of it", async () => {
    const { store } = await packedNotes()
    store.db.exec("DELETE FROM event WHERE seq IN (2502, 2506)")
    store.db.exec("INSERT INTO event_gap SELECT key, 2501, 2506 FROM event_sequence WHERE aggregate_id = 'a'")
    await finds(store, ["gap-covers-events"], { repaired: /2502 through 2505/ })
    assert.deepEqual(rows(store, "SELECT after, through FROM event_gap"), [[2501, 2502], [2505, 2506]]) // prettier-ignore
    assert.equal((await collected(store.log({ aggregateID: "a" }))).filter(({ kind }) => kind === "gap").length, 2)
  })

  test("rows and segments that no aggregate has", async () => {
    const { store } = await packedNotes()
    store.db.exec("DELETE FROM event_sequence WHERE aggregate_id = 'b'")
    const [found] = await finds(store, ["orphan"])
    assert.match(found.message, /key 2/)
    store.db.exec("UPDATE event SET aggregate = 'b' WHERE aggregate = 2")
    assert.deepEqual(codes(await store.verify()), ["orphan", "orphan"])
  })

  test("types: lost ones are errors, those that the store does not define are warnings", async () => {
    const { store, path } = await packedNotes()
    store.close()
    const other = kept(path, {})
    const found = await other.verify()
    assert.deepEqual(codes(found), ["unknown-type", "unknown-type", "unknown-type"])
    assert.deepEqual([...new Set(found.map(({ severity }) => severity))], ["warning"])
    assert.deepEqual(found.map(({ type }) => type).toSorted(), ["note.seen.1", "note.tagged.1", "note.written.1"])
    other.db.exec("DELETE FROM event_type WHERE name = 'note.seen.1'")
    assert.deepEqual(codes(await other.verify()).toSorted(), ["type-missing", "unknown-type", "unknown-type"])
  })

  test("data, metadata and ids that syncline does not write", async () => {
    const { store } = await packedNotes()
    store.db.exec("UPDATE event SET data = '{\"noteID\":' WHERE seq = 2501")
    store.db.exec("UPDATE event SET metadata = '3' WHERE seq = 2502")
    store.db.exec("UPDATE event SET id = '' WHERE seq = 2503")
    store.db.exec("UPDATE event SET data = x'00' WHERE seq = 2504")
    const found = await finds(store, ["event-invalid", "event-invalid", "event-invalid", "event-unreadable"])
    assert.deepEqual(found.map(({ seq }) => seq), [2501, 2502, 2503, 2504]) // prettier-ignore
  })

  test("a tombstone whose event cannot be read, or is another's", async () => {
    const { store, Seen } = await packedNotes()
    store.remove("a", { event: [Seen, { noteID: "a" }] })
    store.remove("b", { event: [Seen, { noteID: "b" }] })
    store.db.exec("UPDATE event_sequence SET removed_event = '{' WHERE aggregate_id = 'a'")
    store.db.exec(
      "UPDATE event_sequence SET removed_event = replace(removed_event, '\"b\"', '\"a\"') WHERE aggregate_id = 'b'",
    )
    await finds(store, ["tombstone-unreadable", "tombstone-unreadable"])
  })

  test("positions: out of order, and in two places", async () => {
    const { store } = await packedNotes()
    store.db.exec("UPDATE event SET position = 5 WHERE seq = 2505")
    const found = await store.verify()
    assert.deepEqual(codes(found).toSorted(), ["position-order", "position-twice"])
    assert.match(found.find(({ code }) => code === "position-twice").message, /seq 4 of aggregate "a".*seq 2505/)
  })

  test("foreign keys, and an index that has lost rows, which is built anew", async () => {
    const { store, path } = await packedNotes()
    store.db.exec(`CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent, n);
                   CREATE INDEX child_n ON child (n)`)
    store.db.pragma("foreign_keys = OFF")
    store.db.exec("INSERT INTO child VALUES (7, 1)")
    await finds(store, ["foreign-key"])
    store.db.exec("DELETE FROM child")
    // The index is hidden while a row is written.
    const [[root, sql]] = rows(store, "SELECT rootpage, sql FROM sqlite_schema WHERE name = 'child_n'")
    const hidden = store.connect()
    hidden.exec("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'child_n'")
    hidden.close()
    const writer = store.connect()
    writer.exec("INSERT INTO child VALUES (NULL, 2)")
    writer.exec("PRAGMA writable_schema = ON")
    writer.prepare("INSERT INTO sqlite_schema VALUES ('index', 'child_n', 'child', ?, ?)").run(root, sql)
    writer.close()
    store.close()
    const again = openNotes(notes(), { path })
    await finds(again, ["index-damaged"], { repaired: /child_n/ })
  })

  test("it ends after ten thousand findings, and says so", async () => {
    const { store } = await packedNotes()
    store.db.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
                   INSERT INTO event_gap SELECT 1000 + i, 0, 1 FROM n`)
    const found = await store.verify()
    assert.equal(found.length, 10_001)
    assert.equal(found.at(-1).code, "too-many-findings")
  })
})

describe("how verify works", () => {
  test("a read-only store verifies and does not repair", async () => {
    const { store, path } = await packedNotes()
    store.db.exec("UPDATE event_sequence SET seq = 5 WHERE aggregate_id = 'a'")
    store.close()
    const reader = openNotes(notes(), { path, readonly: true })
    assert.deepEqual(codes(await reader.verify()), ["sequence-behind"])
    await assert.rejects(reader.verify({ repair: true }), coded("ERR_READONLY"))
  })

  test("it tells how far it is, stops when told to, and refuses wrong options", async () => {
    const { store } = await packedNotes()
    const seen = []
    assert.deepEqual(await store.verify({ onProgress: (progress) => seen.push(progress) }), [])
    assert.deepEqual(seen.at(-1), { ...seen.at(-1), phase: "done", aggregates: 2, events: 2_820, findings: 0 })
    assert.deepEqual(Object.keys(seen.at(-1)), ["phase", "aggregates", "events", "bytes", "findings"].toSorted())
    const controller = new AbortController()
    controller.abort()
    await assert.rejects(store.verify({ signal: controller.signal }), coded("ERR_ABORTED"))
    await assert.rejects(store.verify({ repair: 1 }), coded("ERR_INVALID_ARGUMENT", /repair/))
    await assert.rejects(store.verify({ fix: true }), coded("ERR_INVALID_ARGUMENT", /fix/))
    await assert.rejects(store.verify({ onProgress: 1 }), coded("ERR_INVALID_ARGUMENT", /onProgress/))
  })

  test("what others write, pack and remove meanwhile is no finding, however large the aggregate", async () => {
    const given = notes()
    const path = file()
    const store = openNotes(given, { path, packing: false })
    const text = "x".repeat(2_000)
    const big = Array.from({ length: 6_000 }, (_, seq) => ({
      ...history("big", 1, seq)[0],
      type: "note.seen.1",
      data: { noteID: "big", text },
    }))
    store.replayAll(big)
    const writer = openNotes(notes(), { path, packing: { keepEvents: 10, atBytes: 50_000, idle: 5 } })
    const { Seen } = given
    let verified = 0
    const deadline = performance.now() + 3_000
    const verifying = (async () => {
      while (performance.now() < deadline) {
        assert.deepEqual(await store.verify({ repair: verified % 2 === 1 }), [])
        verified++
      }
    })()
    let next = 6_000
    let round = 0
    while (performance.now() < deadline) {
      writer.replayAll(
        Array.from({ length: 50 }, () => ({
          ...history("big", 1, next)[0],
          type: "note.seen.1",
          seq: next++,
          data: { noteID: "big", text },
        })),
      )
      if (++round % 10 === 0) await writer.maintain({ budget: 30 })
      if (round % 25 === 0) store.remove("other")
      store.run(Seen, { noteID: "other" })
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    await verifying
    assert.ok(verified > 1, `${verified} times`)
  })
})
