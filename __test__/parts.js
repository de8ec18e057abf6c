// Parts of a session, as session code sends them again and again: the store that spares what says nothing new.
"use strict"

const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { kept } = require("./stores.js")

const TABLES = "CREATE TABLE IF NOT EXISTS part (id TEXT PRIMARY KEY, text TEXT, writes INTEGER NOT NULL)"
const UPSERT = `INSERT INTO part VALUES (:id, :text, 1)
  ON CONFLICT (id) DO UPDATE SET text = excluded.text, writes = writes + 1`
const UPSERT_SQL = sql`INSERT INTO part VALUES (:data ->> '$.part.id', :data ->> '$.part.text', 1)
  ON CONFLICT (id) DO UPDATE SET text = excluded.text, writes = writes + 1`

/** Parts of a session; `how` they are projected, and what else their definition says. */
function parts({ how = "function", dedupe = ["time", "part.time.end"], version = 1 } = {}) {
  const registry = createRegistry()
  const schema = z.looseObject({ sessionID: z.string() })
  const make = (type, more) => define({ type, version: 1, aggregate: "sessionID", schema, registry, ...more })
  const Removed = make("part.removed")
  const Renamed = make("session.renamed", { projector: "none" })
  const Updated = make("part.updated", {
    version,
    ...(how === "none" ? { projector: "none" } : {}),
    ...(dedupe === null ? {} : { compactKey: { path: "part.id", barriers: [Removed] }, dedupe }),
  })
  const calls = []
  const write = project(Updated, (tx, { part }) => {
    calls.push(part)
    if (part?.text === "refused") throw new Error("refused")
    tx.prepare(UPSERT).run({ id: part.id, text: part.text ?? null })
  })
  const remove = project(Removed, (tx, { id }) => tx.prepare("DELETE FROM part WHERE id = ?").run(id))
  const updated = { function: [write], sql: [project(Updated, UPSERT_SQL)], none: [] }[how]
  return { registry, make, Removed, Renamed, Updated, calls, projectors: [...updated, remove] }
}

/** A store of them, with what its listeners have heard. `update` runs an update of one part. */
function opened({ path = ":memory:", options, ...rest } = {}) {
  const given = parts(rest)
  const { registry, projectors } = given
  const heard = []
  const store = kept(path, { registry, projectors, migrate: (db) => db.exec(TABLES), packing: false, ...options })
  store.subscribeAll((event) => heard.push(event))
  const update = (part, more = {}, how) => store.run(given.Updated, { sessionID: "s", part, ...more }, how)
  return { ...given, store, heard, update }
}

module.exports = { opened, parts }
