import { project, sql } from "syncline"
import {
  MessageRemoved,
  MessageUpdated,
  PartRemoved,
  PartUpdated,
  SessionCreated,
  type SessionInfo,
  SessionUpdated,
} from "./events"
import { deleteMessage, deletePartsOfMessage, saveMessage, saveSession, type Tx } from "./queries"
import type { message, session } from "./schema"

export const projectors = [
  project(SessionCreated, (tx: Tx, { info }) => {
    saveSession(tx).run(sessionRow(info))
  }),

  project(SessionUpdated, (tx: Tx, { info }) => {
    saveSession(tx).run(sessionRow(info))
  }),

  project(MessageUpdated, (tx: Tx, { info: { id, sessionID, ...data } }) => {
    const row: typeof message.$inferInsert = { id, session_id: sessionID, time_created: data.time.created, data }
    saveMessage(tx).run(row)
  }),

  project(MessageRemoved, (tx: Tx, { messageID }) => {
    deletePartsOfMessage(tx).run({ messageID })
    deleteMessage(tx).run({ messageID })
  }),

  // Parts make up most of a session's history. A projector in SQL runs inside the native core, without a call into
  // JavaScript for each event.
  project(
    PartUpdated,
    sql`
      INSERT INTO part (id, message_id, session_id, time_created, data)
      VALUES (
        :data ->> '$.part.id',
        :data ->> '$.part.messageID',
        :aggregateID,
        :data ->> '$.time',
        json_remove(:data -> '$.part', '$.id', '$.messageID', '$.sessionID')
      )
      ON CONFLICT (id) DO UPDATE SET data = excluded.data
    `,
  ),

  project(PartRemoved, sql`DELETE FROM part WHERE id = :data ->> '$.partID'`),
]

/** The whole row: a field that `info` lacks becomes NULL. */
function sessionRow(info: SessionInfo): Required<typeof session.$inferInsert> {
  return {
    id: info.id,
    project_id: info.projectID,
    parent_id: info.parentID ?? null,
    slug: info.slug,
    title: info.title,
    version: info.version,
    agent: info.agent ?? null,
    directory: info.directory,
    model: info.model ?? null,
    revert: info.revert ?? null,
    time_created: info.time.created,
    time_updated: info.time.updated,
    time_archived: info.time.archived ?? null,
  }
}
