import { eq, relations, sql } from "drizzle-orm"
import { integer, sqliteTable, text } from "drizzle-orm/sqlite-core"
import { open, type Database } from "syncline"
import { drizzle, migrate, type SynclineDatabase } from "syncline/drizzle"

const session = sqliteTable("session", { id: text().primaryKey(), count: integer().notNull(), note: text() })
const message = sqliteTable("message", { id: text().primaryKey(), sessionID: text() })
const sessionRelations = relations(session, ({ many }) => ({ messages: many(message) }))
const messageRelations = relations(message, ({ one }) => ({
  session: one(session, { fields: [message.sessionID], references: [session.id] }),
}))
const schema = { session, message, sessionRelations, messageRelations }

const store = open(":memory:", { query: (db) => drizzle(db, { schema }) })
const db = drizzle(store.db, { schema })

// Everything is synchronous and typed by the tables.
const rows: { id: string; count: number; note: string | null }[] = db.select().from(session).all()
const changes: number = db.insert(session).values({ id: "a", count: 1 }).run().changes
const returned: { id: string } | undefined = db.delete(session).returning({ id: session.id }).get()
const found = db.query.session.findFirst({ columns: { id: true }, with: { messages: true } }).sync()
const messageIDs: string[] | undefined = found?.messages.map((each) => each.id)
// @ts-expect-error a missing column
db.insert(session).values({ id: "a" })
// @ts-expect-error a value of another type
db.update(session).set({ count: "one" })
// @ts-expect-error only what the schema holds can be queried
drizzle(store.db).query.session

const nested: number = db.transaction(
  (tx) => tx.transaction((inner) => inner.update(session).set({ count: 2 }).where(eq(session.id, "a")).run().changes),
  { behavior: "deferred" },
)
const client: Database = db.$client

// As the tx of a store.
const counted: { id: string }[] = store.transaction((tx) => tx.select({ id: session.id }).from(session).all())
const plain: SynclineDatabase = drizzle(store, { logger: true, casing: "snake_case" })
plain.run(sql`SELECT 1`)
migrate(plain, { migrationsFolder: "drizzle" })
// @ts-expect-error caching needs an asynchronous driver
drizzle(store.db, { cache: undefined as never })

export { changes, client, counted, messageIDs, nested, returned, rows }
