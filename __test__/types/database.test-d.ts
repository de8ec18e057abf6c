import { open, type Database } from "syncline"
import { SqliteDialect } from "kysely"

declare const db: Database
const store = open(":memory:")
const own: Database = store.db

// Statements: unknown rows and any parameters, unless the caller says more.
const row: unknown = db.prepare("SELECT 1").get(1, "two", { three: 3 })
const rows = db.prepare<[string, number], { id: string }>("SELECT id FROM item WHERE a = ? AND b = ?")
const id: string | undefined = rows.get("a", 1)?.id
const ids: string[] = rows.all("a", 1).map((each) => each.id)
for (const each of rows.iterate("a", 1)) each.id.toUpperCase()
// @ts-expect-error a parameter too few
rows.get("a")
// @ts-expect-error a parameter of another type
rows.run("a", "b")
const named = db.prepare<{ id: string }>("DELETE FROM item WHERE id = :id")
const changes: number = named.run({ id: "a" }).changes
// @ts-expect-error a missing named parameter
named.run({})
const chained: { id: string }[] = rows.raw().pluck(false).safeIntegers().expand().all("a", 1)
const columns: { name: string; table: string | null }[] = rows.columns()
// @ts-expect-error statements are read-only
rows.source = ""

// Transactions keep their function's arguments, result and this.
const add = db.transaction((a: number, b: string) => `${a}${b}`)
const added: string = add(1, "b")
const deferred: string = add.deferred(1, "b")
const back: Database = add.database
// @ts-expect-error an argument too few
add.immediate(1)
const method = db.transaction(function (this: { base: number }, a: number) {
  return this.base + a
})
const sum: number = method.exclusive.call({ base: 1 }, 2)

// Functions for SQL.
db.function("add", (a: number, b: number) => a + b).function("any", { varargs: true }, (...all: string[]) => all.length)
// @ts-expect-error no such option
db.function("f", { variadic: true }, () => 1)

// kysely: its own dialect takes a second connection, and compiled queries run on any.
new SqliteDialect({ database: store.connect() })
const compiled: { id: string } | undefined = db.get<{ id: string }>({ sql: "SELECT id FROM item", parameters: [] })
db.run({ sql: "DELETE FROM item", parameters: [] }).lastInsertRowid

export { added, back, changes, chained, columns, compiled, deferred, id, ids, own, row, sum }
