import { type Store, define, open, project, sql } from "syncline"
import { z } from "zod"

// What both devices know: the events of a session, the tables that they project to, and how. The writer runs the events;
// the reader gets them over HTTP and never runs one.

const sessionID = z.string()

export const Created = define({
  type: "session.created",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID, title: z.string() }),
})

export const Renamed = define({
  type: "session.renamed",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID, title: z.string() }),
})

export const Written = define({
  type: "message.written",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID, messageID: z.string(), text: z.string() }),
})

export const Deleted = define({
  type: "session.deleted",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID }),
})

const projectors = [
  project(Created, sql`INSERT INTO session (id, title) VALUES (:aggregateID, :data ->> '$.title')`),
  project(Renamed, sql`UPDATE session SET title = :data ->> '$.title' WHERE id = :aggregateID`),
  project(
    Written,
    sql`INSERT INTO message (session, id, text)
        VALUES (:aggregateID, :data ->> '$.messageID', :data ->> '$.text')
        ON CONFLICT (session, id) DO UPDATE SET text = excluded.text`,
  ),
  project(Deleted, [
    sql`DELETE FROM message WHERE session = :aggregateID`,
    sql`DELETE FROM session WHERE id = :aggregateID`,
  ]),
]

const tables = `
  CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, title TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS message (session TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (session, id));
`

/** Opens a device's own database file. */
export function openSessions(path: string): Store {
  return open(path, { projectors, migrate: (db) => db.exec(tables) })
}

/** Everything that the two devices must agree on. */
export function contents(store: Store): unknown {
  return {
    sessions: store.db.prepare("SELECT * FROM session ORDER BY id").all(),
    messages: store.db.prepare("SELECT * FROM message ORDER BY session, id").all(),
    sequences: [...store.sequences()].toSorted(),
  }
}
