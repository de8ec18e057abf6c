import { readFileSync } from "node:fs"
import { join } from "node:path"
import { type Definition, type Store, define, open, project, sql } from "syncline"
import { z } from "zod"

// What all devices know: the events of a session, the tables that they project to, and how; and the recording from which
// the events are taken.

const sessionID = z.string()
const schema = z.looseObject({ sessionID })

const Created = define({ type: "session.created", version: 1, aggregate: "sessionID", schema })
const Updated = define({ type: "session.updated", version: 1, aggregate: "sessionID", schema })
const MessageUpdated = define({ type: "message.updated", version: 1, aggregate: "sessionID", schema })
const MessageRemoved = define({ type: "message.removed", version: 1, aggregate: "sessionID", schema })
const PartUpdated = define({ type: "message.part.updated", version: 1, aggregate: "sessionID", schema })
const PartRemoved = define({ type: "message.part.removed", version: 1, aggregate: "sessionID", schema })

const saveSession = sql`
  INSERT INTO session (id, info) VALUES (:aggregateID, :data -> '$.info')
  ON CONFLICT (id) DO UPDATE SET info = excluded.info`

const projectors = [
  project(Created, saveSession),
  project(Updated, saveSession),
  project(
    MessageUpdated,
    sql`INSERT INTO message (id, session, info) VALUES (:data ->> '$.info.id', :aggregateID, :data -> '$.info')
        ON CONFLICT (id) DO UPDATE SET info = excluded.info`,
  ),
  project(MessageRemoved, [
    sql`DELETE FROM part WHERE message = :data ->> '$.messageID'`,
    sql`DELETE FROM message WHERE id = :data ->> '$.messageID'`,
  ]),
  project(
    PartUpdated,
    sql`INSERT INTO part (id, message, session, part)
        VALUES (:data ->> '$.part.id', :data ->> '$.part.messageID', :aggregateID, :data -> '$.part')
        ON CONFLICT (id) DO UPDATE SET part = excluded.part`,
  ),
  project(PartRemoved, sql`DELETE FROM part WHERE id = :data ->> '$.partID'`),
]

const tables = `
  CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, info TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, session TEXT NOT NULL, info TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS part (id TEXT PRIMARY KEY, message TEXT NOT NULL, session TEXT NOT NULL, part TEXT NOT NULL);
`

/** Opens a device's own database file. It writes only what is its own, or nobody's. */
export function openSessions(path: string, owner: string): Store {
  return open(path, { owner, projectors, migrate: (db) => db.exec(tables) })
}

/** What is run, and where. */
export interface Recorded {
  sessionID: string
  type: Definition
  data: unknown
}

const types = new Map<string, Definition>(
  [Created, Updated, MessageUpdated, MessageRemoved, PartUpdated, PartRemoved].map((type) => [`${type.type}.1`, type]),
)

/** The first events of the recorded sessions, in the order in which they happened. */
export function recorded(count: number): Recorded[] {
  const path = join(__dirname, "../../agent-session/recording/sessions.events.jsonl")
  const lines = readFileSync(path, "utf8").trim().split("\n").slice(0, count)
  return lines.map((line) => {
    const { type, aggregateID, data } = JSON.parse(line) as { type: string; aggregateID: string; data: unknown }
    return { sessionID: aggregateID, type: types.get(type) as Definition, data }
  })
}

/** Everything that two devices must agree on, of some sessions. */
export function contents(store: Store, sessions: readonly string[]): unknown {
  const list = JSON.stringify(sessions)
  const rows = (table: string, column: string) =>
    store.db.prepare(`SELECT * FROM ${table} WHERE ${column} IN (SELECT value FROM json_each(?)) ORDER BY id`).all(list)
  return {
    sessions: rows("session", "id"),
    messages: rows("message", "session"),
    parts: rows("part", "session"),
    log: sessions.map((id) => ({ owner: store.owner(id), events: store.read(id) })),
  }
}
