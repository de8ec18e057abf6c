// The four event types of the recording and their tables, for `replay-memory`: a session, its messages and their parts,
// each event carrying the whole of what it changes.
import * as betterSqlite3 from "./rivals/better-sqlite3.mjs"
import { syncline, zod } from "./syncline.mjs"

const tables = `
CREATE TABLE recorded_session (id TEXT PRIMARY KEY, title TEXT, time_updated INTEGER);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_created INTEGER, data TEXT NOT NULL);
CREATE TABLE part (
  id TEXT PRIMARY KEY, message_id TEXT NOT NULL, session_id TEXT NOT NULL, time_created INTEGER, data TEXT NOT NULL
);`

const upsertSession = `INSERT INTO recorded_session (id, title, time_updated) VALUES (?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET title = excluded.title, time_updated = excluded.time_updated`
const upsertMessage = `INSERT INTO message (id, session_id, time_created, data) VALUES (?, ?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET data = excluded.data`
const upsertPart = `INSERT INTO part (id, message_id, session_id, time_created, data) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET data = excluded.data`

// For each type, what its projector does with a `tx` that prepares statements, which either side gives it.
const projections = {
  "session.created": projectSession,
  "session.updated": projectSession,
  "message.updated"(tx, data) {
    const { id, sessionID, ...rest } = data.info
    tx.prepare(upsertMessage).run(id, sessionID, data.info.time.created, JSON.stringify(rest))
  },
  "message.part.updated"(tx, data) {
    const { id, messageID, sessionID, ...rest } = data.part
    tx.prepare(upsertPart).run(id, messageID, sessionID, data.time, JSON.stringify(rest))
  },
}

function projectSession(tx, { info }) {
  tx.prepare(upsertSession).run(info.id, info.title, info.time.updated)
}

/** Hand-written, in one transaction; statements are kept by their text, as Syncline keeps them. */
export function openBetterSqlite3(file) {
  return betterSqlite3.open(file, {
    tables,
    projection(db) {
      const statements = new Map()
      const tx = {
        prepare(text) {
          if (!statements.has(text)) statements.set(text, db.prepare(text))
          return statements.get(text)
        },
      }
      return (data, type) => projections[type](tx, data)
    },
  })
}

/** The same through Syncline, validated by zod; `projector` "sql" projects the two types of messages in Rust. */
export function openSyncline(file, projector) {
  const { z } = zod
  const whole = z.looseObject({ id: z.string() })
  const sqlProjections = {
    "message.updated": syncline.sql`INSERT INTO message (id, session_id, time_created, data)
      VALUES (:data ->> '$.info.id', :aggregateID, :data ->> '$.info.time.created',
        json_remove(:data -> '$.info', '$.id', '$.sessionID'))
      ON CONFLICT (id) DO UPDATE SET data = excluded.data`,
    "message.part.updated": syncline.sql`INSERT INTO part (id, message_id, session_id, time_created, data)
      VALUES (:data ->> '$.part.id', :data ->> '$.part.messageID', :aggregateID, :data ->> '$.time',
        json_remove(:data -> '$.part', '$.id', '$.messageID', '$.sessionID'))
      ON CONFLICT (id) DO UPDATE SET data = excluded.data`,
  }
  const registry = syncline.createRegistry()
  const projectors = Object.entries(projections).map(([type, inJavaScript]) => {
    const definition = syncline.define({
      type,
      version: 1,
      aggregate: "sessionID",
      registry,
      schema:
        type === "message.part.updated"
          ? z.object({ sessionID: z.string(), part: whole, time: z.number() })
          : z.object({ sessionID: z.string(), info: whole }),
    })
    return syncline.project(definition, (projector === "sql" && sqlProjections[type]) || inJavaScript)
  })
  const store = syncline.open(file, { registry, projectors, migrate: (db) => db.exec(tables) })
  return {
    replayAll: (jsonl) => store.replayAll(jsonl).reduce((applied, result) => applied + result.applied, 0),
    close: () => store.close(),
  }
}
