import {
  define,
  open,
  project,
  sql,
  SyncError,
  type Adopted,
  type AdoptProgress,
  type AnyDefinition,
  type Database,
  type ErrorCode,
  type Event,
  type InputOf,
  type OpenOptions,
  type Projector,
  type RemoveOptions,
  type Store,
  type Synchronous,
} from "syncline"
import { z } from "zod"
import type { Equal, Expect } from "./equal"

const Created = define({
  type: "created",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string(), n: z.number().default(1) }),
})
const Renamed = define({
  type: "renamed",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string(), name: z.string() }),
  busSchema: z.object({ shown: z.string() }),
})

// Projectors see the output, their event the input; without a query builder, tx is the database.
const projectors = [
  project(Created, (tx, data, event) => {
    type _Tx = Expect<Equal<typeof tx, Database>>
    type _Data = Expect<Equal<typeof data, { id: string; n: number }>>
    type _Event = Expect<Equal<typeof event, Event<{ id: string; n?: number | undefined }>>>
    // @ts-expect-error: no such field
    data.missing
  }),
  project(Renamed, sql`UPDATE t SET name = :data ->> '$.name' WHERE id = :aggregateID`),
]
// What becomes of an event that a constraint refuses is said with its projector; the store hears of what is skipped.
project(Created, (tx, data) => void tx.prepare("").run(data.n), { onConstraint: "skip" })
project(Renamed, [sql`SELECT 1`], { onConstraint: "throw" })
// @ts-expect-error: no such choice
project(Renamed, sql`SELECT 1`, { onConstraint: "ignore" })
// @ts-expect-error: no such option
project(Renamed, sql`SELECT 1`, { onConflict: "skip" })
// @ts-expect-error: async, with options as well
project(Created, async () => {}, { onConstraint: "skip" })
export const hearing: OpenOptions = {
  onSkipped: (error, event) => {
    type _Error = Expect<Equal<typeof error, SyncError>>
    type _Event = Expect<Equal<typeof event, Event>>
    const named: (string | undefined)[] = [error.table, error.constraint, error.type, error.aggregateID]
    return void [named, event.seq]
  },
}
// @ts-expect-error: values cannot be interpolated
sql`SELECT ${1}`
// @ts-expect-error: a string is no statement
project(Renamed, "UPDATE t")

const store = open("app.db", { projectors, migrate: (db) => void db.exec("CREATE TABLE t (id)") })
export const annotated: Store = store
export const anyProjectors: Projector[] = projectors

// The data of run is the schema's input.
const event = store.run(Created, { id: "a" })
export type Run = [Expect<Equal<typeof event.data, { id: string; n?: number | undefined }>>]
store.run(Created, { id: "a", n: 1 }, { publish: false, expectedSeq: 0, created: 1, metadata: { by: "me" } })
// @ts-expect-error: wrong type
store.run(Created, { id: 1 })
// @ts-expect-error: missing field
store.run(Renamed, { id: "a" })
// @ts-expect-error: unknown option
store.run(Created, { id: "a" }, { expected: 1 })
// @ts-expect-error: metadata is an object
store.run(Created, { id: "a" }, { metadata: "me" })

// Each pair of runAll is checked by its own definition.
const [first, second] = store.runAll([
  [Created, { id: "a" }],
  [Renamed, { id: "a", name: "b" }],
])
export type RunAll = [
  Expect<Equal<typeof first.data, { id: string; n?: number | undefined }>>,
  Expect<Equal<typeof second.data, { id: string; name: string }>>,
]
store.runAll(["a", "b"].map((id) => [Created, { id }] as const))
store.runAll([
  [Created, { id: "a" }],
  // @ts-expect-error: wrong data in the second pair
  [Renamed, { id: "a" }],
])
export const later: Promise<Event<{ id: string; n?: number | undefined }>> = store.runAsync(
  Created,
  { id: "a" },
  { signal: AbortSignal.timeout(1) },
)
// @ts-expect-error: a signal is for the asynchronous ones
store.run(Created, { id: "a" }, { signal: AbortSignal.timeout(1) })

// A generic caller keeps its types.
export function rerun<D extends AnyDefinition>(definition: D, data: InputOf<D>): Event<InputOf<D>> {
  return store.run(definition, data)
}

// Listeners: data by the schema's input, properties by busSchema, or else the data.
store.subscribe(Renamed, (event) => {
  type _Data = Expect<Equal<typeof event.data, { id: string; name: string }>>
  type _Properties = Expect<Equal<typeof event.properties, { shown: string }>>
})
store.subscribe(Created, (event) => {
  type _Properties = Expect<Equal<typeof event.properties, { id: string; n?: number | undefined }>>
})
store.subscribeAll((event) => {
  type _Data = Expect<Equal<typeof event.data, unknown>>
})

// With a query builder, projectors and transactions receive that.
interface Builder {
  insert(id: string): void
}
const built = open(":memory:", {
  query: (db): Builder => ({ insert: (id) => void db.prepare("INSERT INTO t VALUES (?)").run(id) }),
  projectors: [
    project(Created, (tx: Builder, data) => tx.insert(data.id)),
    project(Renamed, sql`UPDATE t SET name = :data ->> '$.name'`),
  ],
})
const result = built.transaction((tx) => {
  type _Tx = Expect<Equal<typeof tx, Builder>>
  return 1
})
export type Result = Expect<Equal<typeof result, number>>
// @ts-expect-error: projectors of a query builder, and no query
open(":memory:", { projectors: [project(Created, (tx: Builder, data) => tx.insert(data.id))] })
const options: OpenOptions = { owner: undefined, projectors, query: undefined }
export const prepared: Store = open(":memory:", options)
open(":memory:", {
  // @ts-expect-error: the projector wants another builder than this one
  projectors: [project(Created, (tx: Builder, data) => tx.insert(data.id))],
  query: (db) => db,
})

// Projectors and transactions are synchronous.
// @ts-expect-error: async
project(Created, async (tx) => void tx.exec(""))
// @ts-expect-error: perhaps a promise
project(Created, (tx, data) => (data.n > 1 ? Promise.resolve() : tx.exec("")))
// @ts-expect-error: async
store.transaction(async () => 1)
// @ts-expect-error: returns a promise
store.transaction(() => Promise.resolve(1))
project(Created, () => {
  throw new Error("always")
})
project(Created, (tx, data) => tx.prepare("DELETE FROM t WHERE id = ?").get(data.id))
project(Created, (_tx, data) => JSON.parse(data.id))
export const parsed: { a: 1 } = store.transaction((): { a: 1 } => JSON.parse(""))
// A generic caller says so, too.
export function within<T>(work: ((db: Database) => T) & Synchronous<T>): T {
  return store.transaction(work)
}
export const one: number = within(() => 1)
// @ts-expect-error: async
within(async () => 1)

// What a run repeats comes back marked.
const Kept = define({
  type: "kept",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string(), at: z.number() }),
  compactKey: { path: "id", barriers: [Renamed] },
  dedupe: ["at"],
})
const ignored: readonly string[] | undefined = Kept.dedupe
const mark: true | undefined = store.run(Kept, { id: "a", at: 1 }).unchanged
void [ignored, mark]
// @ts-expect-error: a list of paths
define({ type: "t", version: 1, aggregate: "id", schema: Kept.schema, compactKey: "id", dedupe: "at" })
const copied: Promise<{ bytes: number; pages: number }> = store.backup("copy.db", {
  onProgress: ({ pages, totalPages, bytes }) => void [pages, totalPages, bytes],
})
void copied

const removal: RemoveOptions<typeof Renamed> = { event: [Renamed, { id: "a", name: "gone" }] }
store.remove("a", removal)
store.remove("a", { event: [Renamed, { id: "a", name: "gone" }] })
// @ts-expect-error: wrong data
store.remove("a", { event: [Renamed, { id: "a" }] })

// What adopting older tables did is there only where there were any.
const progressed: AdoptProgress[] = []
const older = open("older.db", { adopt: true, onProgress: (progress) => progressed.push(progress) })
export type AdoptedIs = Expect<Equal<typeof older.adopted, Adopted | undefined>>
export const holes = older.adopted?.findings.filter(({ kind }) => kind === "gap").length
// @ts-expect-error: no such kind
older.adopted?.findings.filter(({ kind }) => kind === "hole")
// @ts-expect-error: not a boolean
open("older.db", { adopt: "yes" })

// The log is told apart by kind; errors by code.
export async function follow(): Promise<void> {
  for await (const item of store.log({ aggregateID: "a", follow: true })) {
    if (item.kind === "event") item.event.seq
    else if (item.kind === "gap") item.through
    else item.seq
  }
}
export function codeOf(error: unknown): ErrorCode | undefined {
  if (!(error instanceof SyncError)) return undefined
  // @ts-expect-error: no such code
  if (error.code === "ERR_NO_SUCH_CODE") return undefined
  return error.code
}
using scoped = store
void scoped
