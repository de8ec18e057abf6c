"use strict"

// Sessions and their messages, which refer to them: the application of the tests of writes that come too late.

const { join } = require("node:path")
const { afterEach } = require("node:test")
const { eq } = require("drizzle-orm")
const { sqliteTable, text } = require("drizzle-orm/sqlite-core")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")
const { drizzle } = require("syncline/drizzle")
const { SyncEvent } = require("syncline/sync-event")
const { temporaryFolder } = require("./notes")

const folder = temporaryFolder()
const opened = []
let files = 0

afterEach(() => {
  for (const store of opened.splice(0)) store.close()
  SyncEvent.reset()
})

/** A path of its own. */
const newPath = () => join(folder, `${files++}.db`)

/** A store that is closed after the test. */
const kept = (store) => {
  opened.push(store)
  return store
}

/** A statement of a SQL projector that is not known when the program is written. */
const statementOf = (text) => sql(Object.assign([text], { raw: [text] }))

const TABLES = `
  CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, title TEXT);
  CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, sessionID TEXT NOT NULL REFERENCES session(id), text TEXT);
  CREATE TABLE IF NOT EXISTS part (id TEXT PRIMARY KEY, messageID TEXT REFERENCES message ON DELETE CASCADE);
`
const ADD_SESSION = "INSERT INTO session VALUES (?, 'untitled')"
const ADD_MESSAGE = `INSERT INTO message VALUES (:messageID, :sessionID, :text)
  ON CONFLICT (id) DO UPDATE SET text = excluded.text`
const session = sqliteTable("session", { id: text().primaryKey(), title: text() })
const message = sqliteTable("message", { id: text().primaryKey(), sessionID: text().notNull(), text: text() })
const fields = { sessionID: z.string() }
const types = {
  Created: ["session.created", fields],
  Removed: ["session.removed", fields],
  Written: ["message.updated", { ...fields, messageID: z.string(), text: z.string().default("") }],
}
/** By name: how a projector may write these tables. */
const ways = {
  JavaScript: {
    Created: (tx, { sessionID }) => void tx.prepare(ADD_SESSION).run(sessionID),
    Removed: (tx, { sessionID }) => {
      tx.prepare("DELETE FROM message WHERE sessionID = ?").run(sessionID)
      tx.prepare("DELETE FROM session WHERE id = ?").run(sessionID)
    },
    Written: (tx, data) => {
      tx.prepare("UPDATE session SET title = 'written' WHERE id <> ?").run(data.sessionID)
      tx.prepare(ADD_MESSAGE).run(data)
    },
  },
  SQL: {
    Created: sql`INSERT INTO session VALUES (:aggregateID, 'untitled')`,
    Removed: [
      sql`DELETE FROM message WHERE sessionID = :aggregateID`,
      sql`DELETE FROM session WHERE id = :aggregateID`,
    ],
    Written: [
      sql`UPDATE session SET title = 'written' WHERE id <> :aggregateID`,
      sql`INSERT INTO message VALUES (:data ->> '$.messageID', :aggregateID, :data ->> '$.text')
          ON CONFLICT (id) DO UPDATE SET text = excluded.text`,
    ],
  },
  drizzle: {
    Created: (tx, { sessionID }) => void tx.insert(session).values({ id: sessionID, title: "untitled" }).run(),
    Removed: (tx, { sessionID }) => {
      tx.delete(message).where(eq(message.sessionID, sessionID)).run()
      tx.delete(session).where(eq(session.id, sessionID)).run()
    },
    Written: (tx, { sessionID, messageID, text }) => {
      tx.update(session).set({ title: "written" }).where(eq(session.id, "other")).run()
      tx.insert(message)
        .values({ id: messageID, sessionID, text })
        .onConflictDoUpdate({ target: message.id, set: { text } })
        .run()
    },
  },
}

/** A store of sessions and messages. `options` go to the projector of messages, `given` to `open`. */
function sessions(way, options, given = {}) {
  const made = {}
  const skipped = []
  const events = {
    path: newPath(),
    migrate: (db) => db.exec(TABLES),
    onSkipped: (error, event) => skipped.push({ error, event }),
    ...given,
  }
  if (way === "SyncEvent") {
    const projectors = Object.entries(types).map(([name, [type, shape]]) => {
      made[name] = SyncEvent.define({ type, version: 1, aggregate: "sessionID", schema: z.object(shape) })
      const apply = ways.JavaScript[name]
      return name === "Written" ? SyncEvent.project(made[name], apply, options) : SyncEvent.project(made[name], apply)
    })
    const store = SyncEvent.init({ ...events, projectors })
    return { ...made, store, skipped, run: SyncEvent.run, remove: (id) => SyncEvent.remove(id) }
  }
  const registry = createRegistry()
  // The same event once more, projected in the other language.
  const Streamed = ["message.streamed", types.Written[1]]
  const all = { ...ways[way], Streamed: way === "SQL" ? ways.JavaScript.Written : ways.SQL.Written }
  const projectors = Object.entries({ ...types, Streamed }).map(([name, [type, shape]]) => {
    made[name] = define({ type, version: 1, aggregate: "sessionID", schema: z.object(shape), registry })
    return project(made[name], all[name], "text" in shape ? options : undefined)
  })
  const query = way === "drizzle" ? { query: (db) => drizzle(db) } : {}
  const { path, ...rest } = events
  const store = kept(open(path, { registry, projectors, ...query, ...rest }))
  const run = (...event) => store.run(...event)
  return { ...made, store, skipped, run, path, registry, projectors }
}

/** Two sessions, of which "gone" is removed: by an event, and then its history. */
function removed(way, options, given) {
  const log = sessions(way, options, given)
  const { store, run, Created, Removed, Written } = log
  for (const sessionID of ["gone", "other"]) run(Created, { sessionID })
  run(Written, { sessionID: "gone", messageID: "m0" })
  run(Removed, { sessionID: "gone" })
  store.remove("gone")
  store.db.exec("UPDATE session SET title = 'untitled'")
  return log
}

module.exports = { TABLES, kept, newPath, removed, sessions, statementOf, types, ways }
