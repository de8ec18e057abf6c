"use strict"

// What a store tells of its files and its log, and what that may cost: no payload is read.

const assert = require("node:assert/strict")
const { randomBytes } = require("node:crypto")
const { readFileSync, statSync, writeFileSync } = require("node:fs")
const { describe, test } = require("node:test")
const { coded, file, history, kept, notes, openNotes, rows, serialized } = require("./stores.js")

const bytesOf = (data) => Buffer.byteLength(JSON.stringify(data))
const near = (got, expected, part) =>
  assert.ok(Math.abs(got - expected) <= expected * part, `${got} is not within ${part * 100} % of ${expected}`)

/** The same out of the events themselves. */
function counted(store) {
  const events = store.readAll({ limit: 1_000_000 })
  const sum = (list) => ({
    events: list.length,
    rawBytes: list.reduce((bytes, { data }) => bytes + bytesOf(data), 0),
  })
  const sums = (field) =>
    [...new Set(events.map((event) => event[field]))].map((value) => ({
      [field]: value,
      ...sum(events.filter((event) => event[field] === value)),
    }))
  return { ...sum(events), types: sums("type"), aggregates: sums("aggregateID") }
}

/** Asserts that `stats` tells what the events themselves do. */
function assertTold(store) {
  const ordered = (list, field) => list.toSorted((a, b) => (a[field] < b[field] ? -1 : 1))
  const bare = ({ events, rawBytes, types, aggregates }) => ({
    events,
    rawBytes,
    types: ordered(types, "type").map(({ type, events, rawBytes }) => ({ type, events, rawBytes })),
    aggregates: ordered(aggregates, "aggregateID").map(({ aggregateID, events, rawBytes }) => ({
      aggregateID,
      events,
      rawBytes,
    })),
  })
  assert.deepEqual(bare(store.stats()), bare(counted(store)))
}

/** Packs everything. */
async function packed(store) {
  const { events } = await store.maintain()
  assert.ok(events > 0)
}

describe("stats tells what the log holds", () => {
  test("of nothing, in a file and in memory", () => {
    for (const path of [file(), ":memory:"]) {
      const stats = openNotes(notes(), { path }).stats()
      const { events, rawBytes, storedBytes, packedShare, types, aggregates, largest, lastPosition } = stats
      assert.deepEqual(
        { events, rawBytes, storedBytes, packedShare, types, aggregates, largest, lastPosition },
        {
          events: 0,
          rawBytes: 0,
          storedBytes: 0,
          packedShare: 0,
          types: [],
          aggregates: [],
          largest: [],
          lastPosition: 0,
        },
      )
      assert.equal(stats.aggregateCount, 0)
      assert.equal(stats.sampled, false)
      assert.equal(stats.walHeld, false)
      assert.equal(stats.packing, path !== ":memory:")
    }
  })

  test("of rows, of segments, of both, and with gaps and removed aggregates", async () => {
    const store = openNotes(notes(), { packing: false })
    for (const id of ["a", "b", "c"]) store.replayAll(history(id, 40))
    assertTold(store)
    assert.equal(store.stats().packedShare, 0)
    await packed(store)
    assertTold(store)
    assert.equal(store.stats().packedShare, 1)
    assert.ok(store.stats().storedBytes < store.stats().rawBytes)

    store.replayAll([{ kind: "gap", aggregateID: "a", after: 39, through: 44 }, ...history("a", 7, 45)])
    store.replayAll(history("d", 5))
    assertTold(store)
    const { packedShare, aggregates } = store.stats()
    assert.ok(packedShare > 0.5 && packedShare < 1)
    assert.equal(aggregates.find(({ aggregateID }) => aggregateID === "b").packedShare, 1)
    assert.equal(aggregates.find(({ aggregateID }) => aggregateID === "d").packedShare, 0)

    store.remove("b")
    store.replayAll(history("b", 3, 40))
    assertTold(store)
    assert.equal(store.stats().aggregateCount, 4)
    assert.equal(store.stats().lastPosition, store.readAll({ limit: 1000 }).at(-1).position)
    store.remove("b")
    assertTold(store)
    assert.equal(store.stats().aggregateCount, 4)
  })

  test("what a transaction has recorded so far counts, and what it takes back does not", () => {
    const given = notes()
    const store = openNotes(given)
    store.run(given.Written, { noteID: "a" })
    assert.throws(() =>
      store.transaction(() => {
        store.run(given.Seen, { noteID: "new" })
        assertTold(store)
        assert.equal(store.stats().events, 2)
        throw new Error("no")
      }),
    )
    assert.equal(store.stats().events, 1)
    assert.equal(store.stats().aggregateCount, 1)
  })

  test("the largest events, packed or not, and the aggregates with the most bytes, as many as are asked for", async () => {
    const store = openNotes(notes(), { packing: false })
    const text = (size) => "x".repeat(size)
    const large = (noteID, seq, size) => serialized("written", seq, { noteID, text: text(size) })
    store.replayAll([
      large("a", 0, 5_000),
      large("a", 1, 10),
      serialized("seen", 2, { noteID: "a", text: text(9_000) }),
    ])
    await packed(store)
    store.replayAll([large("b", 0, 7_000), large("c", 0, 1)])
    const all = store.stats()
    assert.deepEqual(
      all.largest.slice(0, 3).map(({ aggregateID, seq, type }) => [aggregateID, seq, type]),
      [
        ["a", 2, "note.seen.1"],
        ["b", 0, "note.written.1"],
        ["a", 0, "note.written.1"],
      ],
    )
    assert.equal(all.largest[0].bytes, bytesOf({ noteID: "a", text: text(9_000) }))
    assert.deepEqual(
      all.aggregates.map(({ aggregateID }) => aggregateID),
      ["a", "b", "c"],
    )
    const few = store.stats({ largest: 1, aggregates: 2 })
    assert.deepEqual(few.largest, all.largest.slice(0, 1))
    assert.deepEqual(few.aggregates, all.aggregates.slice(0, 2))
    const none = store.stats({ largest: 0, aggregates: 0 })
    assert.deepEqual([none.largest, none.aggregates], [[], []])
    assert.equal(none.events, all.events)
  })

  test("many rows are sampled: their number is exact, their bytes and types are near", async () => {
    const store = openNotes(notes(), { packing: false })
    const COUNT = 12_000
    const seen = (seq, noteID, size) => serialized("seen", seq, { noteID, text: "x".repeat(size) })
    const events = []
    for (let seq = 0; seq < COUNT; seq++) {
      // Every fourth is another type: a sample of every n-th row would see one of them only.
      const [noteID, at] = seq < COUNT / 4 ? ["small", seq] : ["large", seq - COUNT / 4]
      if (seq % 4 === 0) events.push(serialized("tagged", at, { noteID, tag: "t" }))
      else events.push(seen(at, noteID, noteID === "small" ? 10 : 400 + (seq % 7) * 50))
    }
    store.replayAll(events)
    const [stats, exact] = [store.stats(), counted(store)]
    assert.equal(stats.sampled, true)
    assert.equal(stats.events, COUNT)
    near(stats.rawBytes, exact.rawBytes, 0.05)
    for (const { aggregateID, events, rawBytes } of exact.aggregates) {
      const aggregate = stats.aggregates.find((one) => one.aggregateID === aggregateID)
      assert.equal(aggregate.events, events)
      near(aggregate.rawBytes, rawBytes, 0.15)
    }
    for (const { type, events, rawBytes } of exact.types) {
      const one = stats.types.find((one) => one.type === type)
      near(one.events, events, 0.15)
      near(one.rawBytes, rawBytes, 0.15)
    }
    assert.deepEqual(store.stats().types, stats.types, "asked again, the answer is the same")

    await packed(store)
    assert.equal(store.stats().sampled, false)
    assertTold(store)
  })
})

describe("stats tells of the files", () => {
  test("their sizes, pages and free pages", async () => {
    const path = file()
    const store = openNotes(notes(), { path, packing: false })
    store.replayAll(history("a", 500))
    const stats = store.stats()
    assert.equal(stats.fileBytes, statSync(path).size)
    assert.equal(stats.walBytes, statSync(`${path}-wal`).size)
    assert.ok(stats.walUsedBytes > 0 && stats.walUsedBytes <= stats.walBytes)
    assert.equal(stats.pageSize, 4096)
    assert.ok(stats.pages > 10)
    assert.equal(stats.reclaims, true)
    assert.equal(stats.packing, false)
    assert.equal(stats.longestHold, 0)
    store.db.exec("CREATE TABLE big (data); INSERT INTO big VALUES (zeroblob(100000)); DELETE FROM big")
    assert.ok(store.stats().freePages >= 20)
    store.transaction(() => assert.equal(store.stats().pages, store.db.pragma("page_count", { simple: true })))

    const { longestHold } = await store.maintain()
    const after = store.stats()
    assert.equal(after.longestHold, longestHold)
    assert.ok(after.longestHold > 0)
    assert.deepEqual([after.freePages, after.walUsedBytes, after.walBytes], [0, 0, 0])
    assert.equal(after.fileBytes, after.pages * after.pageSize)
    assert.equal(after.fileBytes, statSync(path).size)
  })

  test("of what another connection has left in the WAL, and to one that only reads", () => {
    const path = file()
    const given = notes()
    const store = openNotes(given, { path })
    const reader = openNotes(given, { path, readonly: true })
    const before = store.stats().walUsedBytes
    const other = store.connect()
    other.exec("CREATE TABLE other (data); INSERT INTO other VALUES (zeroblob(200000))")
    other.close()
    assert.ok(store.stats().walUsedBytes >= before + 200_000)
    const { events, pages } = store.stats()
    const told = reader.stats()
    assert.deepEqual([told.events, told.pages, told.packing], [events, pages, false])
  })

  test("that a file of another program keeps its size, until it is written anew", async () => {
    const path = file()
    const older = openNotes(notes(), { path })
    older.db.pragma("journal_mode = DELETE")
    older.db.pragma("auto_vacuum = NONE")
    older.db.exec("VACUUM")
    older.close()
    const store = openNotes(notes(), { path })
    assert.equal(store.stats().reclaims, false)
    await store.maintain({ rewrite: true })
    assert.equal(store.stats().reclaims, true)
  })

  test("that a reader holds the WAL", { timeout: 60_000 }, async () => {
    const given = notes()
    const store = openNotes(given, { packing: false })
    const reader = store.connect()
    reader.exec("BEGIN")
    reader.prepare("SELECT count(*) FROM note").get()
    const text = "x".repeat(1024 * 1024)
    const until = async (held) => {
      const deadline = Date.now() + 20_000
      for (let seq = 0; store.stats().walHeld !== held; seq++) {
        assert.ok(Date.now() < deadline, `walHeld has become ${held}`)
        store.run(given.Written, { noteID: "a", text })
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    await until(true)
    assert.ok(store.stats().walUsedBytes > 32 * 1024 * 1024)
    reader.close()
    await until(false)
  })
})

describe("stats reads no payload", () => {
  test("it tells the same when all that lies in overflow pages is gone", async () => {
    const path = file()
    const store = openNotes(notes(), { path, packing: false })
    // What does not compress, so that segments have overflow pages too.
    const noise = () => `payload ${randomBytes(30_000).toString("base64")}`
    const written = (noteID, seq) => serialized("written", seq, { noteID, text: noise() })
    for (const id of ["a", "b"]) store.replayAll(Array.from({ length: 20 }, (_, seq) => written(id, seq)))
    await packed(store)
    for (const id of ["b", "c"])
      store.replayAll(Array.from({ length: 20 }, (_, seq) => written(id, seq + (id === "b") * 20)))
    store.db.exec("DELETE FROM note")
    await store.maintain({ budget: 1 })
    const { largest, types, aggregates, events } = store.stats()
    store.close()
    assert.equal(events, 80)

    const pageSize = 4096
    const bytes = readFileSync(path)
    // B-tree pages begin with their kind; the first page with the header of the file. An overflow page begins with the
    // number of the next one, below 2^24, and pointer maps have five bytes for each page.
    let wiped = 0
    for (let at = 2 * pageSize; at < bytes.length; at += pageSize) {
      if (bytes[at] !== 0 || bytes.subarray(at, at + pageSize).every((byte) => byte === 0)) continue
      bytes.fill(0, at, at + pageSize)
      wiped++
    }
    assert.ok(wiped > 500, `${wiped} overflow pages`)
    writeFileSync(path, bytes)
    const again = kept(path, { registry: notes().registry, packing: false })
    const stats = again.stats()
    assert.deepEqual([stats.largest, stats.types, stats.aggregates], [largest, types, aggregates])
    for (const id of ["a", "b", "c"]) assert.throws(() => again.read(id), coded("ERR_CORRUPT"))
  })

  test("no statement of it goes through a table without an index, but for few rows", () => {
    const source = readFileSync(`${__dirname}/../src/stats.rs`, "utf8")
    const statements = [...source.matchAll(/"((?:SELECT|PRAGMA)[^"]*)"/g)].map(([, sql]) => sql)
    const sampling = statements.filter((sql) => /FROM event\s+WHERE/.test(sql))
    assert.equal(sampling.length, 2)
    const store = openNotes(notes())
    for (const sql of sampling) {
      const plan = rows(store, `EXPLAIN QUERY PLAN ${sql.replaceAll(/\?\d/g, "1")}`).map((row) => row.at(-1))
      assert.match(
        plan.join(),
        /^SEARCH event USING (COVERING INDEX event_aggregate_seq|INTEGER PRIMARY KEY) \([^)]*\)$/,
      )
    }
    for (const sql of statements) assert.doesNotMatch(sql, /(?<!length\()\b(data|metadata|head|body)\b/, sql)
  })
})

test("stats refuses what it cannot do", () => {
  const given = notes()
  const store = openNotes(given)
  const invalid = (options, pattern) =>
    assert.throws(() => store.stats(options), coded("ERR_INVALID_ARGUMENT", pattern))
  invalid({ largest: -1 }, /largest/)
  invalid({ largest: 10_001 }, /10000/)
  invalid({ aggregates: 1.5 }, /aggregates/)
  invalid({ limit: 1 }, /no option "limit"/)
  store.close()
  assert.throws(() => store.stats(), coded("ERR_CLOSED"))
})
