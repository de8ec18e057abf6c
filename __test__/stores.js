// The small application that most tests keep in a store, and the folder in which they keep it.
"use strict"

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach } = require("node:test")
const { z } = require("zod")
const { SyncError, createRegistry, define, open, project, sql } = require("syncline")

let folder
const opened = new Set()

// Registered at the root of the test file that loads this one: after each of its tests, nothing is left.
afterEach(() => {
  for (const store of opened) store.close()
  opened.clear()
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  folder = undefined
})

/** A path in a folder that is removed after the test. */
function file(name = "app.db") {
  folder ??= mkdtempSync(join(tmpdir(), "syncline-"))
  return join(folder, name)
}

/** Opens a store that is closed after the test, if the test has not closed it. */
function kept(path, options) {
  const store = open(path, options)
  opened.add(store)
  return store
}

const TABLES = `
  CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, text TEXT NOT NULL, seq INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS tag (note TEXT NOT NULL, tag TEXT NOT NULL, seq INTEGER NOT NULL);
`

/** Definitions in a registry of their own: one projected by a function, one by SQL, one not at all. */
function notes() {
  const registry = createRegistry()
  const Written = define({
    type: "note.written",
    version: 1,
    aggregate: "noteID",
    schema: z.object({ noteID: z.string(), text: z.string().default("untitled") }),
    registry,
  })
  const Tagged = define({
    type: "note.tagged",
    version: 1,
    aggregate: "noteID",
    schema: z.object({ noteID: z.string(), tag: z.string() }),
    registry,
  })
  const Seen = define({
    type: "note.seen",
    version: 1,
    aggregate: "noteID",
    schema: z.looseObject({ noteID: z.string() }),
    projector: "none",
    registry,
  })
  const writeNote = (tx, { noteID, text }, { seq }) => {
    tx.prepare(
      "INSERT INTO note VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET text = excluded.text, seq = excluded.seq",
    ).run(noteID, text, seq)
  }
  const projectors = [
    project(Written, writeNote),
    project(Tagged, sql`INSERT INTO tag VALUES (:aggregateID, :data ->> '$.tag', :seq)`),
  ]
  return { registry, Written, Tagged, Seen, projectors }
}

/** A store of such definitions with their tables; `given` comes from `notes()`. */
function openNotes(given, { path = file(), migrate, ...options } = {}) {
  const { registry, projectors } = given
  const tables = (db) => (db.exec(TABLES), migrate?.(db))
  return kept(path, { registry, projectors, ...(options.readonly ? {} : { migrate: tables }), ...options })
}

/** A serialized event as another device sends it. */
function serialized(type, seq, data, more = {}) {
  return { id: `evt_${data.noteID}_${seq}`, type: `note.${type}.1`, seq, aggregateID: data.noteID, data, ...more }
}

/** A history of one note: written, tagged and seen in turn. */
function history(noteID, count, from = 0) {
  return Array.from({ length: count }, (_, index) => {
    const seq = from + index
    if (seq % 3 === 1) return serialized("tagged", seq, { noteID, tag: `tag ${seq}` })
    return serialized(seq % 3 === 0 ? "written" : "seen", seq, { noteID, text: `text ${seq}` })
  })
}

/** Every row of every table, Syncline's own included. */
function dump({ db }) {
  const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").pluck().all()
  return tables.map((name) => [name, db.prepare(`SELECT * FROM "${name}"`).raw().safeIntegers().all()])
}

/** For assert.throws and assert.rejects: a SyncError of that code whose message and fields are as described. */
function coded(code, pattern = /./, fields = {}) {
  return (error) => {
    assert.ok(error instanceof SyncError, `${error?.stack ?? error} is a SyncError`)
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    for (const [name, value] of Object.entries(fields)) assert.deepEqual(error[name], value, `field ${name}`)
    return true
  }
}

/** Asserts that `fn` throws, and that not a row of any table has changed. */
function refused(store, fn, expected) {
  const before = dump(store)
  assert.throws(fn, expected)
  assert.deepEqual(dump(store), before)
  assert.equal(store.db.inTransaction, false)
}

/** All that an async iterable yields. */
async function collected(iterable) {
  const items = []
  for await (const item of iterable) items.push(item)
  return items
}

/** Resolves once what was started has had every chance to go on. */
const turns = async (count = 5) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const rows = (store, statement, ...params) =>
  store.db
    .prepare(statement)
    .raw()
    .all(...params)
const noteRows = (store) => rows(store, "SELECT id, text, seq FROM note ORDER BY id")
const tagRows = (store) => rows(store, "SELECT note, tag, seq FROM tag ORDER BY note, seq")

module.exports = {
  coded,
  collected,
  dump,
  file,
  history,
  kept,
  noteRows,
  notes,
  openNotes,
  refused,
  rows,
  serialized,
  tagRows,
  turns,
}
