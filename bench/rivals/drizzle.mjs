// Drizzle over better-sqlite3 on the older schema, as session code writes it today: each query is built and prepared
// anew, one immediate transaction an event, in run and in replay alike.
import { eq } from "drizzle-orm"
import { drizzle } from "drizzle-orm/better-sqlite3"
import { integer, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core"
import { eventID, eventType } from "../workload.mjs"
import { connect } from "./better-sqlite3.mjs"

export const name = "drizzle"

const EventSequence = sqliteTable("event_sequence", {
  aggregate_id: text().primaryKey(),
  seq: integer().notNull(),
  owner_id: text(),
})

const EventRow = sqliteTable(
  "event",
  {
    id: text().primaryKey(),
    aggregate_id: text()
      .notNull()
      .references(() => EventSequence.aggregate_id, { onDelete: "cascade" }),
    seq: integer().notNull(),
    type: text().notNull(),
    data: text({ mode: "json" }).notNull(),
  },
  (table) => [uniqueIndex("event_aggregate_seq").on(table.aggregate_id, table.seq)],
)

const SessionRow = sqliteTable("session", {
  id: text().primaryKey(),
  title: text().notNull(),
  updated: integer().notNull(),
})

export function open(path) {
  const client = connect(path)
  const db = drizzle(client)
  const storedType = `${eventType}.1`

  function lastSeq(tx, aggregate) {
    const row = tx
      .select({ seq: EventSequence.seq })
      .from(EventSequence)
      .where(eq(EventSequence.aggregate_id, aggregate))
      .get()
    return row?.seq ?? -1
  }

  function store(tx, event) {
    const { data } = event
    tx.insert(SessionRow)
      .values({ id: data.sessionID, title: data.title, updated: data.updated })
      .onConflictDoUpdate({ target: SessionRow.id, set: { title: data.title, updated: data.updated } })
      .run()
    tx.insert(EventSequence)
      .values({ aggregate_id: event.aggregateID, seq: event.seq })
      .onConflictDoUpdate({ target: EventSequence.aggregate_id, set: { seq: event.seq } })
      .run()
    tx.insert(EventRow)
      .values({ id: event.id, aggregate_id: event.aggregateID, seq: event.seq, type: storedType, data })
      .run()
  }

  function run(data) {
    return db.transaction(
      (tx) => {
        const event = { id: eventID(), aggregateID: data.sessionID, seq: lastSeq(tx, data.sessionID) + 1, data }
        store(tx, event)
        return event
      },
      { behavior: "immediate" },
    )
  }

  function replay(event) {
    db.transaction(
      (tx) => {
        const expected = lastSeq(tx, event.aggregateID) + 1
        if (event.seq !== expected) throw new Error(`Sequence mismatch: expected ${expected}, got ${event.seq}`)
        store(tx, event)
      },
      { behavior: "immediate" },
    )
  }

  return {
    run,
    replayAll(jsonl) {
      let applied = 0
      for (const line of jsonl.toString("utf8").split("\n")) {
        if (line === "") continue
        replay(JSON.parse(line))
        applied++
      }
      return applied
    },
    count: () => client.prepare("SELECT count(*) FROM event").pluck().get(),
    close: () => client.close(),
  }
}
