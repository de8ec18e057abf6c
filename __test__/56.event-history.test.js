"use strict"

// The table event_history of store.db: all events, packed or not, for people who write SQL.

const assert = require("node:assert/strict")
const { existsSync } = require("node:fs")
const { describe, test } = require("node:test")
const { coded, file, history, notes, openNotes, refused, serialized } = require("./stores.js")
const { createRegistry, define, project, sql } = require("syncline")
const { z } = require("zod")

const all = (store, text, ...params) => store.db.prepare(text).all(...params)
const first = (store, text, ...params) =>
  store.db
    .prepare(text)
    .raw()
    .get(...params)

/** The rows that the events of `readAll` are. */
function expected(store) {
  return store.readAll({ limit: 1_000_000 }).map((event) => ({
    position: event.position,
    id: event.id,
    aggregate_id: event.aggregateID,
    seq: event.seq,
    type: event.type,
    created: event.created ?? null,
    metadata: event.metadata === undefined ? null : JSON.stringify(event.metadata),
    data: JSON.stringify(event.data),
  }))
}

/** Several aggregates whose events take turns, the older ones packed, with gaps and one removed. */
async function mixed(options) {
  const store = openNotes(notes(), { packing: false, ...options })
  for (let round = 0; round < 8; round++) {
    for (const id of ["a", "b", "c"]) store.replayAll(history(id, 40, round * 40))
    if (round === 5) {
      store.replayAll([{ kind: "gap", aggregateID: "d", after: -1, through: 9 }, ...history("d", 3, 10)])
      store.replayAll(history("gone", 5))
      await store.maintain()
    }
  }
  store.replay(serialized("seen", 320, { noteID: "a" }, { created: 5, metadata: { by: "é" } }))
  store.remove("gone")
  return store
}

describe("event_history shows all events", () => {
  test("as readAll does, and those of one aggregate as read does", async () => {
    const store = await mixed()
    const rows = expected(store)
    assert.equal(rows.length, 3 * 320 + 3 + 1)
    assert.ok(all(store, "SELECT * FROM event_log").length < rows.length, "some are packed")
    assert.deepEqual(all(store, "SELECT * FROM event_history"), rows)
    for (const id of ["a", "b", "c", "d", "gone", "unknown"]) {
      const own = rows.filter((row) => row.aggregate_id === id)
      assert.deepEqual(all(store, "SELECT * FROM event_history(?)", id), own)
      assert.deepEqual(all(store, "SELECT * FROM event_history WHERE aggregate_id = ?", id), own)
      const backwards = all(store, "SELECT * FROM event_history(?) ORDER BY seq DESC", id)
      assert.deepEqual(backwards, own.toReversed())
    }
    assert.deepEqual(first(store, "SELECT count(*), count(DISTINCT rowid) FROM event_history"), [964, 964])
    const several = all(store, "SELECT * FROM event_history WHERE aggregate_id IN ('c', 'd') ORDER BY position")
    assert.deepEqual(
      several,
      rows.filter(({ aggregate_id: id }) => id === "c" || id === "d"),
    )
  })

  test("whatever bounds and order are asked for, as a plain table would", async () => {
    const store = await mixed()
    store.db.exec(`CREATE TABLE plain (
      position INTEGER, id TEXT, aggregate_id TEXT, seq INTEGER, type TEXT, created INTEGER, metadata TEXT, data TEXT)`)
    store.db.exec("INSERT INTO plain SELECT * FROM event_history")
    assert.deepEqual(all(store, "SELECT * FROM plain ORDER BY position"), expected(store))
    const bounds = ["", "= 77", "> 77", ">= 77", "< 77", "<= 77", "= '77'", "> 76.5", "= 'x'", "IS NULL", "= NULL"]
    bounds.push("BETWEEN 30 AND 260", "> 300", "< 0", "> 1e300", "> 9223372036854775807", "< -9223372036854775808")
    bounds.push("> 10 AND seq < 5", "IN (1, 77, 300)", "< 1e300", ">= -5")
    const wheres = ["aggregate_id = 'b'", "aggregate_id = 'B' COLLATE NOCASE", "aggregate_id IN ('a', 'd')", "1"]
    wheres.push("aggregate_id = 1", "aggregate_id = x'62'", "aggregate_id = NULL", "aggregate_id > 'b'")
    wheres.push("aggregate_id = 'b' AND aggregate_id = 'c'")
    const orders = ["position", "position DESC", "aggregate_id, seq", "aggregate_id DESC, seq DESC", "seq, position"]
    for (const where of wheres) {
      for (const bound of bounds) {
        for (const column of ["seq", "position"]) {
          const rest = `WHERE ${where}${bound === "" ? "" : ` AND ${column} ${bound}`} ORDER BY`
          for (const order of orders) {
            const asked = (table) => all(store, `SELECT * FROM ${table} ${rest} ${order} LIMIT 90`)
            assert.deepEqual(asked("event_history"), asked("plain"), `${rest} ${order}`)
          }
        }
      }
    }
    // Numbers of JavaScript are bound as reals.
    const bound = all(store, "SELECT seq FROM event_history(?) WHERE seq > ? AND seq <= ?", "a", 100, 103)
    assert.deepEqual(
      bound.map(({ seq }) => seq),
      [101, 102, 103],
    )
    assert.deepEqual(
      all(store, "SELECT DISTINCT type FROM event_history ORDER BY type"),
      all(store, "SELECT DISTINCT type FROM plain ORDER BY type"),
    )
    assert.deepEqual(
      all(store, "SELECT type, count(*), sum(length(data)) FROM event_history GROUP BY type ORDER BY type"),
      all(store, "SELECT type, count(*), sum(length(data)) FROM plain GROUP BY type ORDER BY type"),
    )
  })

  test("joined with the application's tables, and with itself", async () => {
    const store = await mixed()
    const joined = all(
      store,
      `SELECT note.id, history.seq FROM note JOIN event_history(note.id) AS history ON history.seq = note.seq
       ORDER BY note.id`,
    )
    assert.deepEqual(joined, all(store, "SELECT id, seq FROM note WHERE id <> 'gone' ORDER BY id"))
    const [pairs] = first(
      store,
      `SELECT count(*) FROM event_history('a') AS one
       JOIN event_history('b') AS other ON other.seq = one.seq AND other.type = one.type`,
    )
    assert.equal(pairs, 320)
    const before = all(
      store,
      "SELECT (SELECT max(seq) FROM event_history(note.id)) AS last FROM note WHERE id IN ('a', 'b') ORDER BY id",
    )
    assert.deepEqual(
      before.map(({ last }) => last),
      [320, 319],
    )
  })

  test("what a transaction has recorded, until it is taken back", async () => {
    const store = await mixed()
    const count = (id) => first(store, "SELECT count(*) FROM event_history(?)", id)[0]
    assert.throws(() =>
      store.transaction(() => {
        store.replayAll([...history("a", 2, 321), ...history("new", 4)])
        assert.deepEqual(all(store, "SELECT * FROM event_history"), expected(store))
        assert.deepEqual([count("a"), count("new")], [323, 4])
        throw new Error("no")
      }),
    )
    assert.deepEqual([count("a"), count("new")], [321, 0])
    // Keys of types and aggregates that were taken back are given again.
    store.replayAll(history("other", 2))
    assert.deepEqual(all(store, "SELECT * FROM event_history"), expected(store))
  })

  test("in memory, in a read-only store, and again after everything was packed anew", async () => {
    const memory = openNotes(notes(), { path: ":memory:" })
    memory.replayAll(history("a", 30))
    assert.deepEqual(all(memory, "SELECT * FROM event_history"), expected(memory))

    const path = file()
    const store = await mixed({ path })
    const reader = openNotes(notes(), { path, readonly: true })
    assert.deepEqual(all(reader, "SELECT * FROM event_history"), expected(store))
    const statement = store.db.prepare("SELECT * FROM event_history")
    const before = statement.all()
    await store.maintain()
    assert.deepEqual(statement.all(), before)
    assert.deepEqual(all(reader, "SELECT * FROM event_history"), before)
    reader.close()
    store.close()
    assert.ok(!existsSync(`${path}-wal`), "it keeps no connection open")
  })
})

describe("event_history reads no more than it must", () => {
  /** A long history in several segments, of which the last is broken. */
  async function broken() {
    const given = notes()
    const store = openNotes(given, { packing: false })
    store.replayAll(history("long", 5_000))
    store.replayAll(history("other", 3))
    await store.maintain()
    const segments = all(store, "SELECT position, seq, first_seq FROM event_segment ORDER BY position")
    assert.ok(segments.length >= 5)
    const { position, seq, first_seq: from } = segments.findLast((segment) => segment.seq === 4_999)
    store.db.prepare("UPDATE event_segment SET body = zeroblob(length(body)) WHERE position = ?").run(position)
    return { store, given, from, seq }
  }

  test("of a page only what is taken, and what cannot be decoded is an error that names it", async () => {
    const { store, given, from, seq } = await broken()
    assert.deepEqual(first(store, "SELECT seq FROM event_history LIMIT 1"), [0])
    assert.deepEqual(first(store, "SELECT seq FROM event_history('long') WHERE seq > 2000"), [2001])
    assert.deepEqual(first(store, "SELECT count(*) FROM event_history('other')"), [3])
    assert.deepEqual(first(store, `SELECT count(*) FROM event_history('long') WHERE seq < ${from}`), [from])
    const names = coded("ERR_CORRUPT", new RegExp(`${from} to ${seq} of aggregate "long"`))
    assert.throws(() => all(store, "SELECT * FROM event_history"), names)
    assert.throws(() => first(store, "SELECT * FROM event_history('long') ORDER BY seq DESC LIMIT 1"), names)
    let read = 0
    assert.throws(() => {
      for (const _ of store.db.prepare("SELECT seq FROM event_history('long')").iterate()) read++
    }, names)
    assert.ok(read > 0 && read <= from)
    assert.equal(store.run(given.Seen, { noteID: "other" }).seq, 3)
  })

  test("an aggregate is searched by its seqs", () => {
    const store = openNotes(notes())
    const plan = (text) => all(store, `EXPLAIN QUERY PLAN ${text}`).map(({ detail }) => detail)
    assert.deepEqual(plan("SELECT * FROM event_history('a') WHERE seq > 5 ORDER BY seq"), [
      "SCAN event_history VIRTUAL TABLE INDEX 0:a=s>",
    ])
    assert.deepEqual(plan("SELECT * FROM event_history WHERE aggregate_id = 'a' ORDER BY seq DESC"), [
      "SCAN event_history VIRTUAL TABLE INDEX 1:a=",
    ])
    assert.deepEqual(plan("SELECT * FROM event_history WHERE position > 7 ORDER BY position"), [
      "SCAN event_history VIRTUAL TABLE INDEX 0:p>",
    ])
  })
})

describe("event_history cannot be misused", () => {
  test("it is only read, and cannot be made again", () => {
    const store = openNotes(notes())
    for (const text of [
      "DELETE FROM event_history",
      "INSERT INTO event_history (id) VALUES ('x')",
      "UPDATE event_history SET seq = 1",
      "DROP TABLE event_history",
      "CREATE VIRTUAL TABLE more USING event_history",
    ]) {
      refused(store, () => store.db.exec(text), coded("ERR_SQLITE"))
    }
  })

  test("projectors may not read it: on another device it would hold other things", () => {
    const registry = createRegistry()
    const schema = z.looseObject({ id: z.string() })
    const made = (type) => define({ type, version: 1, aggregate: "id", schema, registry })
    const [Read, Sql, Viewed] = [made("read"), made("sql"), made("viewed")]
    const store = openNotes(
      {
        registry,
        projectors: [
          project(Read, (tx) => tx.prepare("SELECT count(*) FROM event_history").get()),
          project(Sql, sql`INSERT INTO tag SELECT :aggregateID, 'x', count(*) FROM event_history(:aggregateID)`),
          project(Viewed, sql`INSERT INTO tag SELECT :aggregateID, 'x', count(*) FROM seen`),
        ],
      },
      { migrate: (db) => db.exec("CREATE VIEW seen AS SELECT * FROM event_history") },
    )
    for (const definition of [Read, Sql, Viewed]) {
      refused(store, () => store.run(definition, { id: "a" }), coded("ERR_IN_PROJECTOR", /syncline's own tables/))
    }
  })

  test("an application's own table of that name stays the application's", () => {
    const path = file()
    const registry = createRegistry()
    const Kept = define({
      type: "kept",
      version: 1,
      aggregate: "id",
      schema: z.looseObject({ id: z.string() }),
      registry,
    })
    const projectors = [project(Kept, sql`INSERT INTO event_history SELECT count(*) FROM event_history`)]
    for (const count of [1, 2]) {
      const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS event_history (own)")
      const store = openNotes({ registry, projectors }, { path, migrate })
      store.run(Kept, { id: "a" })
      assert.equal(all(store, "SELECT own FROM event_history").length, count)
      store.close()
    }
  })
})
