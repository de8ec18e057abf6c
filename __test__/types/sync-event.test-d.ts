import { z } from "zod"
import { open, type Database } from "syncline"
import { drizzle, type SynclineDatabase } from "syncline/drizzle"
import { SyncEvent } from "syncline/sync-event"
import * as named from "syncline/sync-event"

const Renamed = SyncEvent.define({
  type: "session.renamed",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), title: z.string().default("untitled") }),
  busSchema: z.object({ info: z.object({ title: z.string() }) }),
})
const type: "session.renamed" = Renamed.type
const versioned: "session.renamed.1" = SyncEvent.versionedType("session.renamed", 1)
const properties: { info: { title: string } } = Renamed.properties.parse({})

// @ts-expect-error a field that the schema does not have
SyncEvent.define({ type: "a", version: 1, aggregate: "id", schema: z.object({ sessionID: z.string() }) })
// @ts-expect-error a field that is not a string
SyncEvent.define({ type: "b", version: 1, aggregate: "n", schema: z.object({ n: z.number() }) })
// @ts-expect-error JSON does not carry dates
SyncEvent.define({ type: "c", version: 1, aggregate: "id", schema: z.object({ id: z.string(), at: z.date() }) })

// A projector gets the schema's output, and the connection unless it says otherwise.
const pair = SyncEvent.project(Renamed, (tx, data, event) => {
  const connection: Database = tx
  const title: string = data.title
  const input: string | undefined = event.data.title
  // @ts-expect-error no such field
  data.name
  return void [connection, title, input]
})
// @ts-expect-error async
SyncEvent.project(Renamed, async () => {})
const skipping = SyncEvent.project(Renamed, (tx, data) => void tx.prepare(data.title), { onConstraint: "skip" })
SyncEvent.openOptions({ projectors: [skipping] })
// @ts-expect-error no such choice
SyncEvent.project(Renamed, () => {}, { onConstraint: "ignore" })
const drizzled = SyncEvent.project(Renamed, (tx: SynclineDatabase, data) => void [tx.$client, data.title])

SyncEvent.init({ path: ":memory:", projectors: [pair], convertEvent: (_type, data) => ({ info: data }) })
SyncEvent.init({ path: ":memory:", projectors: [drizzled], query: (db) => drizzle(db), durability: "full" })
SyncEvent.init({ store: open(":memory:", SyncEvent.openOptions({ projectors: [pair] })), projectors: [pair] })
// @ts-expect-error a path or a store
SyncEvent.init({ projectors: [pair] })

const event = SyncEvent.run(Renamed, { sessionID: "s" }, { publish: false })
const sessionID: string = event.data.sessionID
// @ts-expect-error wrong data
SyncEvent.run(Renamed, { sessionID: 1 })
// @ts-expect-error missing data
named.run(Renamed, {})

const undo: () => void = SyncEvent.subscribeAll(({ def, event: delivered }) => void [def.type, delivered.properties])
const skipped: number | undefined = SyncEvent.replayAll([], { ownerID: "device", publish: true })[0]?.skipped
const names: string[] = [...SyncEvent.registry.keys()]

export { names, properties, sessionID, skipped, type, undo, versioned }
