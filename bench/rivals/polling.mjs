// How a careful programmer hears with better-sqlite3 of what other processes commit: asks `PRAGMA data_version` each 10 ms,
// which reads no table, and only where it has changed asks for the rows after the last one that was seen.
import { connect } from "./better-sqlite3.mjs"

/** Between two questions, in milliseconds. */
export const pollingInterval = 10

/** Calls `listener` with each row that is committed from now on. Returns the undo, which closes the connection. */
export function poll(path, listener) {
  const db = connect(path)
  const dataVersion = db.prepare("PRAGMA data_version").pluck()
  const rowsAfter = db.prepare(
    "SELECT rowid, id, aggregate_id, seq, type, data FROM event WHERE rowid > ? ORDER BY rowid",
  )
  let version = dataVersion.get()
  let last = db.prepare("SELECT ifnull(max(rowid), 0) FROM event").pluck().get()
  const timer = setInterval(() => {
    const now = dataVersion.get()
    if (now === version) return
    // Read before the rows: what is committed in between changes it once more.
    version = now
    for (const row of rowsAfter.all(last)) {
      last = row.rowid
      listener(row)
    }
  }, pollingInterval)
  return () => {
    clearInterval(timer)
    db.close()
  }
}
