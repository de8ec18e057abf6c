// The recordings as events alone, with no table projected from them: what the questions about packing write and read. Raw
// bytes, against which sizes are told, are those of the events' `data` as JSON text.
import fs from "node:fs"
import { decompress } from "fzstd"
import { syncline, zod } from "./syncline.mjs"
import { aggregateID, eventID, eventType, payload } from "./workload.mjs"

const recordings = {
  "build-output": () => decompress(fs.readFileSync(new URL("data/build-output.events.jsonl.zst", import.meta.url))),
  sessions: () =>
    fs.readFileSync(new URL("../examples/agent-session/recording/sessions.events.jsonl", import.meta.url)),
}

/** `{events, rawBytes}` of the recording `build-output` or `sessions`: serialized events in the order of their commits. */
export function recorded(name) {
  const lines = Buffer.from(recordings[name]()).toString().trimEnd().split("\n")
  const events = lines.map((line) => JSON.parse(line))
  const rawBytes = events.reduce((sum, { data }) => sum + Buffer.byteLength(JSON.stringify(data)), 0)
  return { events, rawBytes }
}

/** `count` serialized events with payloads of `bytes` bytes, over `aggregates` aggregates that take turns. */
export function* generated(count, aggregates = 1, bytes = undefined) {
  for (let n = 0; n < count; n++) {
    const aggregate = aggregateID(n % aggregates)
    const seq = Math.floor(n / aggregates)
    const data = payload(n, aggregate, bytes)
    yield { id: eventID(), type: `${eventType}.1`, seq, aggregateID: aggregate, data }
  }
}

/** A store that knows the types of both recordings, and projects none. `compactKey` is that of `message.part.updated`. */
export function openUnprojected(file, { compactKey, ...options } = {}) {
  const registry = syncline.createRegistry()
  const schema = zod.z.looseObject({ sessionID: zod.z.string() })
  for (const type of types) {
    const key = type === "message.part.updated" ? compactKey : undefined
    syncline.define({
      type,
      version: 1,
      aggregate: "sessionID",
      schema,
      projector: "none",
      compactKey: key,
      registry,
    })
  }
  return syncline.open(file, { registry, ...options })
}

/** Replays the events one a commit, as a reader receives them, and calls `look` after each. */
export function replayEach(store, events, look = () => {}) {
  for (const event of events) {
    if (store.replay(event).applied !== 1) throw new Error(`Event ${event.seq} of ${event.aggregateID} was not new`)
    look()
  }
}

/** The bytes of a database file and of its WAL, 0 where there is none. */
export function fileBytes(file) {
  const bytes = (name) => fs.statSync(name, { throwIfNoEntry: false })?.size ?? 0
  return { database: bytes(file), wal: bytes(`${file}-wal`) }
}

/** Removes a database file with what SQLite keeps beside it. */
export function removeFile(file) {
  for (const suffix of ["", "-wal", "-shm"]) fs.rmSync(file + suffix, { force: true })
}

const types = [
  "session.created",
  "session.updated",
  "message.updated",
  "message.removed",
  "message.part.updated",
  "message.part.removed",
]
