// Hand-written better-sqlite3 on the older schema: what a careful programmer writes without Syncline. Every statement is
// prepared once; nothing is validated, converted or published.
import Database from "better-sqlite3"
import { eventID, eventType, sessionTable, sessionUpsert } from "../workload.mjs"

export const name = "better-sqlite3"

/** The older schema, with its foreign key and the unique index beside the primary key on id. */
export const olderSchema = `
CREATE TABLE IF NOT EXISTS event_sequence (aggregate_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, owner_id TEXT);
CREATE TABLE IF NOT EXISTS event (
  id TEXT PRIMARY KEY,
  aggregate_id TEXT NOT NULL REFERENCES event_sequence (aggregate_id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  type TEXT NOT NULL,
  data TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS event_aggregate_seq ON event (aggregate_id, seq);`

/** Opens a connection with the pragmas that all sides share, and makes the older schema and the projected `tables`. */
export function connect(path, tables = sessionTable) {
  const db = new Database(path)
  db.pragma("journal_mode = WAL")
  db.pragma("synchronous = NORMAL")
  db.pragma("foreign_keys = ON")
  db.exec(olderSchema)
  db.exec(tables)
  return db
}

/** `projection(db)` prepares its statements and returns the projector, `(data, type) => void`. */
export function open(path, { tables = sessionTable, projection = sessionProjection } = {}) {
  const db = connect(path, tables)
  const project = projection(db)
  const storedType = `${eventType}.1`
  const selectSeq = db.prepare("SELECT seq FROM event_sequence WHERE aggregate_id = ?").pluck()
  const upsertSeq = db.prepare(
    "INSERT INTO event_sequence (aggregate_id, seq) VALUES (?, ?) ON CONFLICT (aggregate_id) DO UPDATE SET seq = excluded.seq",
  )
  const insertEvent = db.prepare("INSERT INTO event (id, aggregate_id, seq, type, data) VALUES (?, ?, ?, ?, ?)")
  const latestEvents = db.prepare(
    "SELECT id, aggregate_id, seq, type, data FROM event WHERE aggregate_id = ? ORDER BY seq DESC LIMIT ?",
  )
  const allEvents = db.prepare("SELECT id, aggregate_id, seq, type, data FROM event ORDER BY rowid LIMIT ?")

  function store(data) {
    const aggregate = data.sessionID
    const seq = (selectSeq.get(aggregate) ?? -1) + 1
    project(data, eventType)
    upsertSeq.run(aggregate, seq)
    const id = eventID()
    insertEvent.run(id, aggregate, seq, storedType, JSON.stringify(data))
    return { id, type: eventType, version: 1, aggregateID: aggregate, seq, data }
  }
  const run = db.transaction(store).immediate
  const runAll = db.transaction((list) => list.map(store)).immediate
  const replayAll = db.transaction((jsonl) => {
    let applied = 0
    for (const line of jsonl.toString("utf8").split("\n")) {
      if (line === "") continue
      const event = JSON.parse(line)
      const expected = (selectSeq.get(event.aggregateID) ?? -1) + 1
      if (event.seq !== expected) throw new Error(`Sequence mismatch: expected ${expected}, got ${event.seq}`)
      const { data } = event
      project(data, event.type.slice(0, event.type.lastIndexOf(".")))
      upsertSeq.run(event.aggregateID, event.seq)
      insertEvent.run(event.id, event.aggregateID, event.seq, event.type, JSON.stringify(data))
      applied++
    }
    return applied
  }).immediate

  return {
    db,
    run,
    runAll,
    replayAll,
    latest: (aggregate, limit) => latestEvents.all(aggregate, limit),
    all: (limit) => allEvents.all(limit),
    count: () => db.prepare("SELECT count(*) FROM event").pluck().get(),
    checkpoint: () => db.pragma("wal_checkpoint(TRUNCATE)")[0].busy === 0,
    close: () => db.close(),
  }
}

function sessionProjection(db) {
  const upsert = db.prepare(sessionUpsert)
  return (data) => upsert.run(data.sessionID, data.title, data.updated)
}
