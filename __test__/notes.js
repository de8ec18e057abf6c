"use strict"

// The log that suites 70 and up write: notes, each an aggregate of its own, in files that are gone when a suite ends.

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after } = require("node:test")
const { z } = require("zod")
const { SyncError, createRegistry, define, open, project, sql } = require("syncline")

/** Definition, registry and projectors; every call makes them anew, so that no two stores share a registry. */
function noteLog() {
  const registry = createRegistry()
  const Written = define({
    type: "note.written",
    version: 1,
    aggregate: "noteID",
    schema: z.looseObject({ noteID: z.string() }),
    registry,
  })
  const write = project(Written, (tx, data) => tx.prepare(UPSERT).run({ noteID: data.noteID, text: data.text ?? null }))
  const writeInSql = project(
    Written,
    sql`INSERT INTO note VALUES (:aggregateID, :data ->> '$.text', 1)
        ON CONFLICT (id) DO UPDATE SET text = excluded.text, writes = writes + 1`,
  )
  return { registry, Written, write, writeInSql }
}

/** A store of notes. `options` are those of `open`; a registry and projectors of the caller's own replace these. */
function openNotes(path, options = {}) {
  const log = noteLog()
  const migrate = options.readonly ? {} : { migrate: (db) => db.exec(TABLE) }
  const store = open(path, { registry: log.registry, projectors: [log.write], ...migrate, ...options })
  return { ...log, store }
}

/** A folder that is removed when the suite ends. */
function temporaryFolder(parent = tmpdir()) {
  const folder = mkdtempSync(join(parent, "syncline-notes-"))
  after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The same in memory where there is a place for that: for what does not depend on the disk, and need not wait for one. */
function memoryFolder() {
  try {
    return temporaryFolder("/dev/shm")
  } catch {
    return temporaryFolder()
  }
}

/** The serialized form of a note's event. */
function written(noteID, seq, more = {}) {
  return { id: `evt_${seq}`, type: "note.written.1", seq, aggregateID: noteID, data: { noteID }, ...more }
}

/** Every row of every table, Syncline's own among them: two equal dumps are two equal databases. */
function dump(db) {
  const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").pluck().all()
  return Object.fromEntries(tables.map((table) => [table, db.prepare(`SELECT * FROM "${table}"`).raw().all()]))
}

/**
 * Every aggregate counts 0, 1, 2 …; each event that a writer told of is there, as [noteID, seq, id];
 * each row was written once for each event.
 */
function assertSound(store, told) {
  for (const { aggregateID, seq } of store.aggregates()) {
    const events = store.read(aggregateID)
    assert.deepEqual(
      events.map((event) => event.seq),
      Array.from({ length: seq + 1 }, (_, n) => n),
    )
    const writes = store.db.prepare("SELECT writes FROM note WHERE id = ?").pluck().get(aggregateID)
    assert.equal(writes, events.length)
  }
  for (const item of told.filter(Array.isArray)) assert.equal(store.get(item[0], item[1]).id, item[2])
  assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
}

/** What `assert.throws` and `assert.rejects` check: the code, and fields by value, by pattern or by a function of them. */
function coded(code, fields = {}) {
  return (error) => {
    assert.ok(error instanceof SyncError, `a SyncError was expected, not ${error?.stack ?? error}`)
    assert.equal(error.code, code, error.stack)
    for (const [name, value] of Object.entries(fields)) {
      if (typeof value === "function") assert.ok(value(error[name]), `${name} of ${error.stack}`)
      else if (value instanceof RegExp) assert.match(String(error[name]), value)
      else assert.deepEqual(error[name], value, `${name} of ${error.stack}`)
    }
    return true
  }
}

const TABLE = "CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, text TEXT, writes INTEGER NOT NULL)"
const UPSERT = `INSERT INTO note VALUES (:noteID, :text, 1)
  ON CONFLICT (id) DO UPDATE SET text = excluded.text, writes = writes + 1`

module.exports = { assertSound, coded, dump, memoryFolder, noteLog, openNotes, temporaryFolder, written }
