"use strict"

// Files with the older tables, as the session code of before had them, and what can be wrong with those. The fixtures were
// made by this (scripts/make-old-files.mjs).

const assert = require("node:assert/strict")
const { readFileSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { gunzipSync } = require("node:zlib")
const { open } = require("syncline")

const text = (value) => `'${value.replaceAll("'", "''")}'`

/** Works on a file without a store on it: its tables are `made.…`. */
function inFile(path, work) {
  const { db, close } = plain()
  db.exec(`PRAGMA foreign_keys = OFF; ATTACH ${text(path)} AS made`)
  try {
    return work(db)
  } finally {
    close()
  }
}

function plain() {
  const store = open(":memory:")
  return { db: store.db, close: () => store.close() }
}

/** Tables with such columns and indexes, and these serialized events in them, in their order. */
function olderTables(path, events, shape = {}) {
  const { created = false, owner = false, index = false, shuffled = false, unique = true } = shape
  inFile(path, (db) => {
    const primary = unique ? "TEXT PRIMARY KEY" : "TEXT"
    const columns = [
      `id ${primary}`,
      "aggregate_id TEXT NOT NULL REFERENCES event_sequence (aggregate_id) ON DELETE CASCADE",
      "seq INTEGER NOT NULL",
      "type TEXT NOT NULL",
      "data TEXT NOT NULL",
      ...(created ? ["created INTEGER"] : []),
    ].map((column) => (unique ? column : column.replace(" NOT NULL", "")))
    const strange = ["data JSON", "seq BIGINT NOT NULL", "type VARCHAR(255)", "aggregate_id", "id TEXT PRIMARY KEY"]
    db.exec(`
      CREATE TABLE made.event_sequence (
        ${shuffled ? "seq NUMERIC, aggregate_id VARCHAR PRIMARY KEY" : "aggregate_id TEXT PRIMARY KEY, seq INTEGER NOT NULL"}
        ${owner ? ", owner_id TEXT" : ""}
      );
      CREATE TABLE made.event (${shuffled ? strange : columns});
    `)
    if (index) {
      db.exec(`
        CREATE UNIQUE INDEX made.event_aggregate_seq ON event (aggregate_id, seq);
        CREATE INDEX made.event_aggregate_type_idx ON event (aggregate_id, type, seq);
      `)
    }
    const names = `id, aggregate_id, seq, type, data${created ? ", created" : ""}`
    const insert = db.prepare(`INSERT INTO made.event (${names}) VALUES (?, ?, ?, ?, ?${created ? ", ?" : ""})`)
    const count = db.prepare(`
      INSERT INTO made.event_sequence (aggregate_id, seq) VALUES (?, ?)
      ON CONFLICT (aggregate_id) DO UPDATE SET seq = excluded.seq`)
    db.transaction(() => {
      for (const event of events) {
        count.run(event.aggregateID, event.seq)
        const values = [event.id, event.aggregateID, event.seq, event.type, JSON.stringify(event.data)]
        insert.run(...values, ...(created ? [event.created ?? null] : []))
      }
    })()
    if (owner) db.exec("UPDATE made.event_sequence SET owner_id = 'somebody' WHERE rowid = 1")
  })
}

/** What a session's event looks like, one of each kind of damage. */
function damaged(path) {
  const nested = `{"a":${"[".repeat(1_001)}${"]".repeat(1_001)}}`
  inFile(path, (db) => {
    const insert = db.prepare(
      "INSERT INTO made.event (id, aggregate_id, seq, type, data, created) VALUES (?, ?, ?, ?, ?, ?)",
    )
    const sequence = db.prepare("INSERT INTO made.event_sequence (aggregate_id, seq, owner_id) VALUES (?, ?, ?)")
    const add = (aggregateID, seq, more = {}) => {
      const {
        id = `evt_${aggregateID}_${seq}`,
        type = "note.written.1",
        data = `{"seq":${Number(seq)}}`,
        created = 1,
      } = more
      insert.run(id, aggregateID, seq, type, data, created)
    }
    db.transaction(() => {
      // No sequence row.
      for (const seq of [0, 1, 2]) add("orphan", seq)
      // No events.
      sequence.run("empty", 4, null)
      sequence.run("new", -1, "somebody")
      // Does not begin at 0, misses two in the middle and two at the end; inserted in another order than that of its seqs.
      for (const seq of [7, 6, 3, 4]) add("gappy", seq)
      sequence.run("gappy", 9, null)
      // Two of one seq, the second of which cannot be in the log; and two where the first cannot.
      add("twice", 0)
      add("twice", 1, { id: "evt_first" })
      add("twice", 1, { id: "evt_second", data: '{"second":true}' })
      add("twice", 2, { id: "evt_broken", data: "{" })
      add("twice", 2, { id: "evt_mended" })
      sequence.run("twice", 2, null)
      // One each of what the log cannot hold, and sound ones around them.
      const bad = [
        { data: '{"a":1' },
        { data: "[1]" },
        { data: nested },
        { data: Buffer.from([0x7c, 0x17, 0x61, 0x13, 0x31]) },
        { id: "i".repeat(256) },
        { id: "" },
        { id: null },
        { type: "t".repeat(256) },
        { type: null },
      ]
      bad.forEach((more, index) => (add("bad", 2 * index), add("bad", 2 * index + 1, more)))
      add("bad", -1)
      add("bad", "three", { data: "{}" })
      add("bad", 2 ** 32)
      sequence.run("bad", 17, null)
      // What it can hold, though it looks otherwise.
      add("odd", 0, { data: ' { "spaced" : [ 1.0, 1e3 ],\n"__proto__": 1, "a": "\\ud800", "a": 2 } ' })
      add("odd", 1, { data: Buffer.from('{"in":"a BLOB"}') })
      add("odd", 2, { type: "note.unversioned" })
      add("odd", 3, { type: "plain" })
      add("odd", 4, { created: "2024-01-01" })
      add("odd", 5, { created: null })
      add("odd", 6, { id: "evt_\u00e9\u{1f600}", created: 5.0 })
      sequence.run("odd", 3, "o".repeat(256))
      // Aggregates without a name.
      for (const name of [null, "", "n".repeat(8 * 1024 + 1)]) {
        add(name, 0, { id: "evt_nameless" })
        sequence.run(name, 0, null)
      }
      sequence.run("uncounted", "many", null)
      add("uncounted", 0)
    })()
  })
}

/** A copy of a file of `fixtures`, as a program of before left it. */
function fixture(name, path) {
  writeFileSync(path, gunzipSync(readFileSync(join(__dirname, `fixtures/${name}.db.gz`))))
  return path
}

/** The older events of a file, in the order in which they were inserted. */
const olderEvents = (path, columns = "id, aggregate_id, seq, type, data") =>
  inFile(path, (db) => db.prepare(`SELECT ${columns} FROM made.event ORDER BY rowid`).raw().all())

/** What must hold of any log, asked of the tables themselves. */
async function assertSound(store) {
  assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
  assert.deepEqual(store.db.pragma("foreign_key_check"), [])
  // These stores define no types.
  assert.deepEqual(
    (await store.verify()).filter(({ code }) => code !== "unknown-type"),
    [],
  )
  for (const { aggregateID, seq } of store.aggregates()) {
    // It throws where a seq is neither there nor explained.
    let last
    for await (const item of store.log({ aggregateID })) last = item
    assert.deepEqual(last, { kind: "synced", aggregateID, seq })
  }
  const positions = store.readAll({ limit: 100_000 }).map((event) => event.position)
  assert.deepEqual(
    positions,
    [...new Set(positions)].toSorted((a, b) => a - b),
  )
  const value = (sql) => store.db.prepare(sql).pluck().get()
  assert.ok(
    value("SELECT coalesce(max(position), 0) FROM event_segment") <= value("SELECT position_floor FROM event_meta"),
  )
}

module.exports = { assertSound, damaged, fixture, inFile, olderEvents, olderTables }
