// Recordings of a real coding-agent server, the definitions of their events, and the tables that they project to.
"use strict"

const { readFileSync } = require("node:fs")
const { join } = require("node:path")
const { decompress } = require("fzstd")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { kept } = require("./stores.js")

const RECORDING = join(__dirname, "../examples/agent-session/recording")

/** The recording as it was written: JSON lines, in the order of commits. */
const sessionsText = () => readFileSync(join(RECORDING, "sessions.events.jsonl"), "utf8")

/** The rows and sequences that the recording server held at the end. */
const sessionsExpected = () => JSON.parse(readFileSync(join(RECORDING, "sessions.expected.json"), "utf8"))

/** One session whose tool output was sent whole on each chunk: 24 MB. */
const buildOutputBytes = () => decompress(readFileSync(join(__dirname, "fixtures/build-output.events.jsonl.zst")))

const TABLES = `
  CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, project_id, parent_id, slug, title, version, agent,
    directory, model, revert, time_created INTEGER, time_updated INTEGER, time_archived INTEGER);
  CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_created INTEGER, data TEXT);
  CREATE TABLE IF NOT EXISTS part (id TEXT PRIMARY KEY, message_id TEXT, session_id TEXT NOT NULL,
    time_created INTEGER, data TEXT);
`

const SESSION_COLUMNS = [
  "id",
  "project_id",
  "parent_id",
  "slug",
  "title",
  "version",
  "agent",
  "directory",
  "model",
  "revert",
  "time_created",
  "time_updated",
  "time_archived",
]
const SAVE_SESSION = `
  INSERT INTO session (${SESSION_COLUMNS}) VALUES (${SESSION_COLUMNS.map((column) => `:${column}`)})
  ON CONFLICT (id) DO UPDATE SET ${SESSION_COLUMNS.map((column) => `${column} = excluded.${column}`)}
`

const json = (value) => (value === undefined ? null : JSON.stringify(value))

function saveSession(tx, { info }) {
  tx.prepare(SAVE_SESSION).run({
    id: info.id,
    project_id: info.projectID,
    parent_id: info.parentID,
    slug: info.slug,
    title: info.title,
    version: info.version,
    agent: info.agent,
    directory: info.directory,
    model: json(info.model),
    revert: json(info.revert),
    time_created: info.time.created,
    time_updated: info.time.updated,
    time_archived: info.time.archived,
  })
}

function saveMessage(tx, { info: { id, sessionID, ...data } }) {
  tx.prepare("INSERT INTO message VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data").run(
    id,
    sessionID,
    data.time.created,
    JSON.stringify(data),
  )
}

function savePart(tx, { part: { id, messageID, sessionID, ...data }, time }) {
  tx.prepare("INSERT INTO part VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data").run(
    id,
    messageID,
    sessionID,
    time,
    JSON.stringify(data),
  )
}

/** By which an event is superseded: each carries the whole state of what its key names. A part goes with its message, too. */
const COMPACT_KEYS = {
  "session.updated": ["info.id"],
  "message.updated": ["info.id", "message.removed"],
  "message.part.updated": ["part.id", "message.part.removed", "message.removed"],
}

/** The projectors of the recording: all JavaScript, or in SQL where SQL says it as well. */
function sessionProjectors(registry, language, compact) {
  const whole = z.looseObject({ id: z.string() })
  const types = {
    "session.created": [{ info: whole }, saveSession],
    "session.updated": [{ info: whole }, saveSession],
    "message.updated": [{ info: whole }, saveMessage],
    "message.removed": [
      { messageID: z.string() },
      (tx, { messageID }) => {
        tx.prepare("DELETE FROM part WHERE message_id = ?").run(messageID)
        tx.prepare("DELETE FROM message WHERE id = ?").run(messageID)
      },
      [
        sql`DELETE FROM part WHERE message_id = :data ->> '$.messageID'`,
        sql`DELETE FROM message WHERE id = :data ->> '$.messageID'`,
      ],
    ],
    "message.part.updated": [
      { part: whole, time: z.number() },
      savePart,
      sql`
        INSERT INTO part VALUES (:data ->> '$.part.id', :data ->> '$.part.messageID', :aggregateID, :data ->> '$.time',
          json_remove(:data -> '$.part', '$.id', '$.messageID', '$.sessionID'))
        ON CONFLICT (id) DO UPDATE SET data = excluded.data`,
    ],
    "message.part.removed": [
      { messageID: z.string(), partID: z.string() },
      (tx, { partID }) => void tx.prepare("DELETE FROM part WHERE id = ?").run(partID),
      sql`DELETE FROM part WHERE id = :data ->> '$.partID'`,
    ],
  }
  const made = {}
  // Barriers first: a key names their definitions.
  const ordered = Object.entries(types).toSorted(([one], [other]) => (one in COMPACT_KEYS) - (other in COMPACT_KEYS))
  return ordered.map(([type, [fields, apply, statements]]) => {
    const schema = z.object({ sessionID: z.string(), ...fields })
    const [path, ...barriers] = (compact && COMPACT_KEYS[type]) || []
    const compactKey = path && { path, barriers: barriers.map((barrier) => made[barrier]) }
    const definition = define({ type, version: 1, aggregate: "sessionID", schema, registry, compactKey })
    made[type] = definition
    return project(definition, language === "sql" && statements !== undefined ? statements : apply)
  })
}

/** A store that knows the recordings. `language`: "js" (default) or "sql"; `compact`: with keys by which it compacts. */
function openSessions(path, { language = "js", compact = false, ...options } = {}) {
  const registry = createRegistry()
  const projectors = sessionProjectors(registry, language, compact)
  return kept(path, { registry, projectors, migrate: (db) => db.exec(TABLES), ...options })
}

/** What the store holds, in the shape of the expected file. */
function sessionState(store) {
  const parsed = (value) => (value === null ? null : JSON.parse(value))
  const all = (table, ...columns) =>
    store.db
      .prepare(`SELECT * FROM ${table} ORDER BY id`)
      .all()
      .map((row) => ({ ...row, ...Object.fromEntries(columns.map((column) => [column, parsed(row[column])])) }))
  return {
    event_sequence: Object.fromEntries(store.sequences()),
    session: all("session", "model", "revert"),
    message: all("message", "data"),
    part: all("part", "data"),
  }
}

/** The expected state in the order of `sessionState`. */
function inOrder(state) {
  const byID = (rows) => rows.toSorted((a, b) => (a.id < b.id ? -1 : 1))
  return { ...state, session: byID(state.session), message: byID(state.message), part: byID(state.part) }
}

module.exports = { buildOutputBytes, inOrder, openSessions, sessionState, sessionsExpected, sessionsText }
