// Syncline's side of every question, through its public API alone. The schema is zod's, and it runs on each event unless
// a question says `validate: "never"`: the rivals validate nothing, so that a ratio never flatters Syncline.
import { createRequire } from "node:module"
import { eventType, sessionTable, sessionUpsert } from "./workload.mjs"

/** False with `--rivals`: the rivals are then measured alone, with no built package needed. */
export const present = !process.env.SYNCLINE_BENCH_RIVALS

// The package refers to itself by name, as it does for whoever installs it, so its `exports` are what is measured.
const packageRequire = createRequire(new URL("../package.json", import.meta.url))

/** The public API, and zod. Undefined without a built package. */
export const syncline = present ? packageRequire("syncline") : undefined
export const zod = present ? packageRequire("zod") : undefined

const Updated = present
  ? syncline.define({
      type: eventType,
      version: 1,
      aggregate: "sessionID",
      schema: zod.z.object({
        sessionID: zod.z.string(),
        title: zod.z.string(),
        updated: zod.z.number(),
        text: zod.z.string(),
      }),
    })
  : undefined

/** Options of `open` for a projector in JavaScript: one upsert. */
export function jsProjector() {
  return [
    syncline.project(Updated, (tx, data) => {
      tx.prepare(sessionUpsert).run(data.sessionID, data.title, data.updated)
    }),
  ]
}

/** The same projector as SQL, which runs in Rust. */
export function sqlProjector() {
  return [
    syncline.project(
      Updated,
      syncline.sql`INSERT INTO session (id, title, updated)
        VALUES (:aggregateID, :data ->> '$.title', :data ->> '$.updated')
        ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated = excluded.updated`,
    ),
  ]
}

/** A store with the shared table, in the shape that the rivals have. `options` go to Syncline's own `open`. */
export function open(path, options = {}) {
  const store = syncline.open(path, {
    durability: "normal",
    migrate: (db) => db.exec(sessionTable),
    projectors: jsProjector(),
    ...options,
  })
  return {
    store,
    db: store.db,
    run: (data) => store.run(Updated, data),
    runAll: (list) =>
      store.runAll(
        list.map((data) => [Updated, data]),
        {},
      ),
    replayAll(jsonl) {
      let applied = 0
      for (const result of store.replayAll(jsonl)) applied += result.applied
      return applied
    },
    latest: (aggregate, limit) => store.read(aggregate, { order: "desc", limit }),
    all: (limit) => store.readAll({ limit }),
    count: () => countEvents(store),
    checkpoint: () => store.db.pragma("wal_checkpoint(TRUNCATE)")[0].busy === 0,
    close: () => store.close(),
  }
}

/** The same without packing, which is on by default: for the questions that are about events as rows. */
export function openRows(path, options = {}) {
  return open(path, { packing: false, ...options })
}

/** Wherever events are: the view `event_log` shows those that are rows. */
function countEvents(store) {
  let count = 0
  for (let afterPosition; ;) {
    const page = store.readAll({ limit: 1000, afterPosition })
    if (page.length === 0) return count
    count += page.length
    afterPosition = page.at(-1).position
  }
}
