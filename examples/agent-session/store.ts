import { open } from "syncline"
import { projectors } from "./projectors"
import { connect } from "./queries"
import { createTables } from "./schema"

/** Opens a database file of sessions and makes it when it is missing. Writer and readers open theirs in the same way. */
export function openStore(path: string) {
  return open(path, {
    migrate: (db) => {
      db.exec(createTables)
    },
    query: connect,
    projectors,
  })
}

export type SessionStore = ReturnType<typeof openStore>
