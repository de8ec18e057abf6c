import { customType, index, integer, sqliteTable, text } from "drizzle-orm/sqlite-core"

type JSONObject = Record<string, unknown>

/** JSON in a TEXT column. drizzle's own json mode would store a null that comes through a placeholder as the text "null". */
const json = customType<{ data: JSONObject; driverData: string | null }>({
  dataType: () => "text",
  toDriver: (value: JSONObject | null) => (value === null ? null : JSON.stringify(value)),
  fromDriver: (value) => JSON.parse(value ?? "null") as JSONObject,
})

export const session = sqliteTable("session", {
  id: text().primaryKey(),
  project_id: text().notNull(),
  parent_id: text(),
  slug: text().notNull(),
  title: text().notNull(),
  version: text().notNull(),
  agent: text(),
  directory: text().notNull(),
  model: json(),
  revert: json(),
  time_created: integer().notNull(),
  time_updated: integer().notNull(),
  time_archived: integer(),
})

export const message = sqliteTable(
  "message",
  {
    id: text().primaryKey(),
    session_id: text()
      .notNull()
      .references(() => session.id, { onDelete: "cascade" }),
    time_created: integer().notNull(),
    data: json().notNull(),
  },
  (table) => [index("message_session").on(table.session_id)],
)

/** A part may come before its message, or after the message is gone, so `message_id` references nothing. */
export const part = sqliteTable(
  "part",
  {
    id: text().primaryKey(),
    message_id: text().notNull(),
    session_id: text()
      .notNull()
      .references(() => session.id, { onDelete: "cascade" }),
    time_created: integer().notNull(),
    data: json().notNull(),
  },
  (table) => [index("part_message").on(table.message_id), index("part_session").on(table.session_id)],
)

/** The same tables as SQL, run by `open` before anything else. A larger application leaves this to drizzle's migrations. */
export const createTables = `
  CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    parent_id TEXT,
    slug TEXT NOT NULL,
    title TEXT NOT NULL,
    version TEXT NOT NULL,
    agent TEXT,
    directory TEXT NOT NULL,
    model TEXT,
    revert TEXT,
    time_created INTEGER NOT NULL,
    time_updated INTEGER NOT NULL,
    time_archived INTEGER
  );
  CREATE TABLE IF NOT EXISTS message (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    time_created INTEGER NOT NULL,
    data TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS message_session ON message (session_id);
  CREATE TABLE IF NOT EXISTS part (
    id TEXT PRIMARY KEY,
    message_id TEXT NOT NULL,
    session_id TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    time_created INTEGER NOT NULL,
    data TEXT NOT NULL
  );
  CREATE INDEX IF NOT EXISTS part_message ON part (message_id);
  CREATE INDEX IF NOT EXISTS part_session ON part (session_id);
`
