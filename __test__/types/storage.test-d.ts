import {
  define,
  open,
  type Adopted,
  type AdoptionFinding,
  type AdoptProgress,
  type AggregateStats,
  type BackupOptions,
  type BackupProgress,
  type BackupResult,
  type CompactKey,
  type Event,
  type Export,
  type ExportOptions,
  type ExportTotals,
  type Finding,
  type ImportOptions,
  type ImportProgress,
  type ImportResult,
  type ImportSource,
  type JobOptions,
  type LargestEvent,
  type MaintainOptions,
  type MaintainReport,
  type MaintainResult,
  type OpenOptions,
  type PackingOptions,
  type ParkedAggregate,
  type ReplayAllOptions,
  type ReplayOptions,
  type ReplayResult,
  type ReprojectResult,
  type Sequences,
  type Share,
  type Stats,
  type StatsOptions,
  type TypeStats,
  type UnprojectedAggregate,
  type VerifyOptions,
  type VerifyProgress,
} from "syncline"
import { SyncEvent } from "syncline/sync-event"
import { z } from "zod"
import type { Equal, Expect } from "./equal"

const id = z.string()
const Removed = define({ type: "removed", version: 1, aggregate: "id", schema: z.object({ id }) })
const Delta = define({ type: "delta", version: 1, aggregate: "id", schema: z.object({ id }), ephemeral: true })

// A key is a path, or a path and the definitions whose events end its life.
const Saved = define({
  type: "saved",
  version: 1,
  aggregate: "id",
  schema: z.object({ id, part: z.object({ id, time: z.number().optional() }) }),
  compactKey: { path: "part.id", barriers: [Removed] },
  dedupe: ["part.time"],
})
export type Keyed = [
  Expect<Equal<typeof Saved.compactKey, CompactKey | undefined>>,
  Expect<Equal<typeof Saved.dedupe, readonly string[] | undefined>>,
]
const unset = undefined as undefined | string
const base = { type: "t", version: 1, aggregate: "id", schema: z.object({ id }) } as const
define({ ...base, compactKey: "part.id", dedupe: [] })
define({ ...base, compactKey: unset, dedupe: undefined })
define({ ...base, compactKey: { path: "a", barriers: [Saved] } })
// @ts-expect-error: no path
define({ ...base, compactKey: { barriers: [Removed] } })
// @ts-expect-error: barriers are definitions
define({ ...base, compactKey: { path: "a", barriers: ["b"] } })
// @ts-expect-error: an ephemeral event is in no log, and ends nothing
define({ ...base, compactKey: { path: "a", barriers: [Delta] } })
// @ts-expect-error: dedupe is a list of paths
define({ ...base, compactKey: "a", dedupe: "time" })

// SyncEvent takes its own definitions for barriers.
const Ended = SyncEvent.define({ type: "ended", version: 1, aggregate: "id", schema: z.object({ id }) })
const key = { path: "a", barriers: [Ended] }
SyncEvent.define({ type: "a", version: 1, aggregate: "id", schema: z.object({ id }), compactKey: key, dedupe: ["b"] })
SyncEvent.define({ type: "b", version: 1, aggregate: "id", schema: z.object({ id }), compactKey: "a" })
const strange = { path: "a", barriers: [Removed] }
// @ts-expect-error: a definition of syncline is none of SyncEvent's
SyncEvent.define({ type: "c", version: 1, aggregate: "id", schema: z.object({ id }), compactKey: strange })

// How a store packs.
const packing: PackingOptions = { keepEvents: 64, keepBytes: 1_024, atBytes: 1_024, idle: 1_000 }
const store = open("app.db", { packing })
open("app.db", { packing: false }).close()
// @ts-expect-error: a number of events
open("app.db", { packing: { keepEvents: "64" } })
// @ts-expect-error: no such option
open("app.db", { packing: { every: 5 } })
export type Packs = Expect<Equal<OpenOptions["packing"], boolean | PackingOptions | undefined>>

// A run may have said nothing new.
const event = store.run(Saved, { id: "a", part: { id: "b" } })
export type Unchanged = Expect<Equal<typeof event.unchanged, true | undefined>>
export const stored: Event[] = [event].filter(({ unchanged }) => !unchanged)

// Maintenance, verification and backups are jobs: they report, and can be stopped.
const { signal } = new AbortController()
const jobs: [MaintainOptions, VerifyOptions, BackupOptions] = [{ signal }, { signal, repair: true }, { signal }]
const [maintaining, verifying, copying] = jobs
export const options: JobOptions<never>[] = [{ signal }]
const maintained = store.maintain(maintaining)
const findings = store.verify(verifying)
const copy = store.backup("copy.db", copying)
export type Jobs = [
  Expect<Equal<typeof maintained, Promise<MaintainResult>>>,
  Expect<Equal<typeof findings, Promise<Finding[]>>>,
  Expect<Equal<typeof copy, Promise<BackupResult>>>,
  Expect<Equal<MaintainResult["complete"], boolean>>,
  Expect<Equal<MaintainResult["skipped"], string[]>>,
  Expect<Equal<Finding["severity"], "error" | "warning">>,
  Expect<Equal<Finding["repaired"], string | undefined>>,
]
const reports: [MaintainReport[], VerifyProgress[], BackupProgress[]] = [[], [], []]
void store.maintain({ budget: 200, rewrite: false, onProgress: (report) => reports[0].push(report) })
void store.verify({ onProgress: (report) => reports[1].push(report) })
void store.backup("copy.db", { onProgress: (report) => reports[2].push(report) })
// @ts-expect-error: milliseconds
void store.maintain({ budget: "200" })
// @ts-expect-error: no such phase
export const phase: MaintainReport["phase"] = "sweep"
// @ts-expect-error: no such finding
void findings.then((list) => list.filter(({ code }) => code === "event-lost"))
// @ts-expect-error: a backup needs a path
void store.backup()

// Statistics.
const asked: StatsOptions = { largest: 3, aggregates: 0 }
const stats = store.stats(asked)
export type Tells = [
  Expect<Equal<typeof stats, Stats>>,
  Expect<Equal<Stats["types"], TypeStats[]>>,
  Expect<Equal<Stats["aggregates"], AggregateStats[]>>,
  Expect<Equal<Stats["largest"], LargestEvent[]>>,
]
export const shares: Share[] = [stats, ...stats.types, ...stats.aggregates]
// @ts-expect-error: no such option
store.stats({ types: 3 })

// What cannot be applied is parked in a batch only, and stored where that is asked for.
const parked: ReplayResult[] = store.replayAll([], { onError: "park", unknown: "record" } satisfies ReplayAllOptions)
export const why: unknown = parked[0]?.error
export const where: number | undefined = parked[0]?.index ?? parked[0]?.projected
export const alone: ReplayResult = store.replay({ kind: "removed", aggregateID: "a", seq: 1 }, { unknown: "record" })
// @ts-expect-error: one event has no others
export const none: ReplayOptions = { onError: "park" }
// @ts-expect-error: it is thrown or parked
store.replayAll([], { onError: "skip" })
export type ReprojectIs = Expect<Equal<ReturnType<typeof store.reproject>, ReprojectResult>>
export const waiting: UnprojectedAggregate[] = store.stats().unprojected
export const lags: number | undefined = store.aggregates()[0]?.projected

// What adopting older tables did is there only where there were any.
const progress: AdoptProgress[] = []
const older = open("older.db", { adopt: true, onProgress: (done) => progress.push(done) })
export type AdoptedIs = Expect<Equal<typeof older.adopted, Adopted | undefined>>
export const found: readonly AdoptionFinding[] | undefined = older.adopted?.findings
// @ts-expect-error: it may not be there
export const events: number = older.adopted.events

// An export is iterated or written; an import takes what gives text or bytes.
const exported = store.export({ aggregates: new Set(["a"]), after: store.sequences(), signal } satisfies ExportOptions)
const totals = exported.toFile("a.jsonl.zst")
const imported = store.import(exported, { onError: "park", unknown: "record", signal } satisfies ImportOptions)
export type Exports = [
  Expect<Equal<typeof exported, Export>>,
  Expect<Equal<typeof totals, Promise<ExportTotals>>>,
  Expect<Equal<typeof imported, Promise<ImportResult>>>,
  Expect<Equal<ImportResult["complete"], boolean | undefined>>,
  Expect<Equal<ImportResult["parked"], ParkedAggregate[]>>,
]
export const text: AsyncIterable<string> = exported
export const seqs: Sequences[] = [{ a: 1 }, new Map([["a", 1]])]
export const sources: ImportSource[] = ["a.jsonl", new Uint8Array(3), ["text", new Uint8Array(3)], exported]
const sums: [ExportTotals[], ImportProgress[]] = [[], []]
store.export({ after: { a: 5 }, onProgress: (sum) => sums[0].push(sum) })
void store.import("a.jsonl", { onProgress: (sum) => sums[1].push(sum) })
// @ts-expect-error: seqs by aggregate
store.export({ after: 5 })
// @ts-expect-error: an import needs a source
void store.import()
// @ts-expect-error: objects are for replayAll
void store.import([{ kind: "synced", aggregateID: "a", seq: 1 }])
