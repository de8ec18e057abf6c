// The mutations that the rest of a program would call. Each runs events; none writes a table.
import { randomUUID } from "node:crypto"
import { MessageUpdated, PartRemoved, PartUpdated, SessionCreated, type SessionInfo, SessionUpdated } from "./events"
import type { SessionStore } from "./store"

export function createSession(store: SessionStore, title: string): SessionInfo {
  const now = Date.now()
  const info = {
    id: newID("ses"),
    projectID: "prj_example",
    slug: "brave-otter",
    title,
    version: "1.0.0",
    directory: process.cwd(),
    time: { created: now, updated: now },
  }
  store.run(SessionCreated, { sessionID: info.id, info })
  return info
}

/**
 * Gives the session a new title. `lastSeq` is the sequence at which the caller read `info`: when somebody wrote in between,
 * the update is refused with `ERR_CONFLICT` instead of undoing what they did.
 */
export function renameSession(store: SessionStore, info: SessionInfo, title: string, lastSeq: number): SessionInfo {
  const renamed = { ...info, title, time: { ...info.time, updated: Date.now() } }
  store.run(SessionUpdated, { sessionID: info.id, info: renamed }, { expectedSeq: lastSeq })
  return renamed
}

/** Adds a user's message with one text part: both or neither. Returns the ids. */
export function prompt(store: SessionStore, sessionID: string, text: string): { messageID: string; partID: string } {
  const messageID = newID("msg")
  const partID = newID("prt")
  const now = Date.now()
  store.runAll([
    [MessageUpdated, { sessionID, info: { id: messageID, sessionID, role: "user", time: { created: now } } }],
    [PartUpdated, { sessionID, part: { id: partID, sessionID, messageID, type: "text", text }, time: now }],
  ])
  return { messageID, partID }
}

/** Adds an assistant's message whose text arrives in chunks, as a language model sends it. */
export function answer(store: SessionStore, sessionID: string, parentID: string, chunks: string[]): void {
  const messageID = newID("msg")
  const partID = newID("prt")
  const created = Date.now()
  const info = { id: messageID, sessionID, parentID, role: "assistant" as const, time: { created } }
  store.run(MessageUpdated, { sessionID, info })
  let text = ""
  for (const chunk of chunks) {
    text += chunk
    const part = { id: partID, sessionID, messageID, type: "text", text }
    store.run(PartUpdated, { sessionID, part, time: Date.now() })
  }
  store.run(MessageUpdated, { sessionID, info: { ...info, time: { created, completed: Date.now() } } })
}

export function removePart(store: SessionStore, sessionID: string, messageID: string, partID: string): void {
  store.run(PartRemoved, { sessionID, messageID, partID })
}

function newID(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll("-", "")}`
}
