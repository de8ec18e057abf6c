// Emmett's SQLite store with one inline projection, twice: `open` is the store as its users have it, `openKept` its own
// exported append over one connection that stays open, which is the best that its code can do. Both are helped to the
// pragmas that all sides share, and `open` also by a second connection that keeps the file open: the store closes its
// connection after every append, and the last one to close would checkpoint and delete the WAL each time.
import { appendToStream, getSQLiteEventStore, sqliteConnection } from "@event-driven-io/emmett-sqlite"
import sqlite3 from "sqlite3"
import { eventType, sessionTable, sessionUpsert } from "../workload.mjs"

export const name = "emmett"

export async function open(path) {
  const keeper = await keep(path)
  // Emmett has no option for pragmas, and a file cannot hold this one, so each new connection is told as it opens.
  const Database = sqlite3.Database
  sqlite3.Database = class extends Database {
    constructor(...parameters) {
      super(...parameters)
      // Serialized and in one step: it must be over before the BEGIN that Emmett sends without waiting.
      this.serialize(() => this.exec("PRAGMA synchronous = NORMAL"))
    }
  }
  const store = getSQLiteEventStore({
    fileName: path,
    projections: [{ type: "inline", projection: { canHandle: [eventType], handle: projectAll } }],
  })
  await store.readStream("session-none")
  return {
    run: (data) => store.appendToStream(streamOf(data), [{ type: eventType, data }]),
    count: () => countMessages(keeper),
    close() {
      sqlite3.Database = Database
      keeper.close()
    },
  }
}

export async function openKept(path) {
  const keeper = await keep(path)
  await getSQLiteEventStore({ fileName: path }).readStream("session-none")
  const options = { onBeforeCommit: (events, context) => projectAll(events, context) }
  return {
    run: (data) => appendToStream(keeper, streamOf(data), "session", [{ type: eventType, data }], options),
    count: () => countMessages(keeper),
    close: () => keeper.close(),
  }
}

async function keep(path) {
  const connection = sqliteConnection({ fileName: path })
  await connection.command("PRAGMA synchronous = NORMAL")
  await connection.command(sessionTable)
  return connection
}

async function projectAll(events, { connection }) {
  for (const { data } of events) await connection.command(sessionUpsert, [data.sessionID, data.title, data.updated])
}

async function countMessages(connection) {
  const row = await connection.querySingle("SELECT count(*) AS count FROM emt_messages")
  return row.count
}

function streamOf(data) {
  return `session-${data.sessionID}`
}
