// A recording is a file of serialized events, one a line. Beside `name.events.jsonl` there may be `name.expected.json`, the
// rows and sequences that the recording server held at its end.
import { deepStrictEqual } from "node:assert"
import { existsSync, readFileSync } from "node:fs"
import { connect } from "./queries"
import { message, part, session } from "./schema"
import type { SessionStore } from "./store"

interface Expected {
  event_sequence: Record<string, number>
  session: (typeof session.$inferSelect)[]
  message: (typeof message.$inferSelect)[]
  part: (typeof part.$inferSelect)[]
}

/** The expected state that belongs to a recording, or undefined when it has none. */
export function readExpected(recording: string): Expected | undefined {
  const path = recording.replace(/(\.events)?\.jsonl$/, ".expected.json")
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Expected) : undefined
}

/** Throws an AssertionError that shows the difference. Sessions that the recording does not know are not looked at. */
export function checkRows(store: SessionStore, expected: Expected): void {
  const rows = readRows(store)
  const known = (sessionID: string) => sessionID in expected.event_sequence
  const sequences = [...store.sequences()].filter(([aggregateID]) => known(aggregateID))
  deepStrictEqual(Object.fromEntries(sequences), expected.event_sequence)
  deepStrictEqual(
    rows.session.filter((row) => known(row.id)),
    byID(expected.session),
  )
  for (const table of ["message", "part"] as const) {
    deepStrictEqual(
      rows[table].filter((row) => known(row.session_id)),
      byID(expected[table]),
    )
  }
}

/** Every row of the three tables, in the order of ids. */
export function readRows(store: SessionStore) {
  const db = connect(store.db)
  return {
    session: byID(db.select().from(session).all()),
    message: byID(db.select().from(message).all()),
    part: byID(db.select().from(part).all()),
  }
}

function byID<Row extends { id: string }>(rows: Row[]): Row[] {
  return rows.toSorted((a, b) => (a.id < b.id ? -1 : 1))
}
