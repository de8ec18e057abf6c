import { eq, getTableColumns, type Placeholder, sql, type SQL } from "drizzle-orm"
import type { SQLiteTable } from "drizzle-orm/sqlite-core"
import type { Database } from "syncline"
import { drizzle } from "syncline/drizzle"
import * as schema from "./schema"

const { session, message, part } = schema

/** drizzle over the store's own connection: what it writes inside a projector is part of the event's transaction. */
export function connect(db: Database) {
  return drizzle(db, { schema })
}

export type Tx = ReturnType<typeof connect>

export const saveSession = once((tx) =>
  tx
    .insert(session)
    .values(placeholders(session))
    .onConflictDoUpdate({ target: session.id, set: incoming(session, "id") })
    .prepare(),
)

export const saveMessage = once((tx) =>
  tx
    .insert(message)
    .values(placeholders(message))
    // A message keeps the time of its first event, so only its data is replaced.
    .onConflictDoUpdate({ target: message.id, set: { data: sql`excluded.data` } })
    .prepare(),
)

export const deleteMessage = once((tx) =>
  tx
    .delete(message)
    .where(eq(message.id, sql.placeholder("messageID")))
    .prepare(),
)

export const deletePartsOfMessage = once((tx) =>
  tx
    .delete(part)
    .where(eq(part.message_id, sql.placeholder("messageID")))
    .prepare(),
)

/** Building a query costs drizzle more than SQLite needs to run it, so each is built once per connection. */
function once<Query>(build: (tx: Tx) => Query): (tx: Tx) => Query {
  const built = new WeakMap<Tx, Query>()
  return (tx) => {
    const query = built.get(tx) ?? build(tx)
    built.set(tx, query)
    return query
  }
}

/** A placeholder for each column of a table, of the column's name: `run` then takes a whole row. */
function placeholders<Table extends SQLiteTable>(table: Table) {
  const names = Object.keys(getTableColumns(table))
  return Object.fromEntries(names.map((name) => [name, sql.placeholder(name)])) as {
    [Column in keyof Table["$inferInsert"]]-?: Placeholder
  }
}

/** Sets every column but the key to what the refused insert would have written. */
function incoming<Table extends SQLiteTable>(table: Table, key: keyof Table["$inferInsert"]) {
  const columns = Object.entries(getTableColumns(table)).filter(([name]) => name !== key)
  return Object.fromEntries(
    columns.map(([name, column]) => [name, sql`excluded.${sql.identifier(column.name)}`]),
  ) as Record<string, SQL>
}
