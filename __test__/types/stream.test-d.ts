import { define, open, project, type EitherDefinition, type PublishedOf, type SyncError } from "syncline"
import { z } from "zod"
import type { Equal, Expect } from "./equal"

const Created = define({
  type: "created",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string(), n: z.number().default(1) }),
})
const Told = define({
  type: "told",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string() }),
  ephemeral: false,
})
const Delta = define({
  type: "delta",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string(), text: z.string().default("") }),
  ephemeral: true,
})
const Typing = define({
  type: "typing",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string() }),
  busSchema: z.object({ shown: z.string() }),
  ephemeral: true,
})
const store = open("app.db")

// Ephemeral definitions are published, with the schema's input.
const nothing = store.publish(Delta, { id: "a", text: "t" })
export type Nothing = Expect<Equal<typeof nothing, void>>
store.publish(Delta, { id: "a" })
store.publish(Typing, { id: "a" })
// @ts-expect-error: wrong type
store.publish(Delta, { id: 1 })
// @ts-expect-error: missing field
store.publish(Delta, { text: "t" })
// @ts-expect-error: there is no option
store.publish(Delta, { id: "a" }, { publish: true })

// Recorded ones are run.
store.run(Created, { id: "a" })
store.run(Told, { id: "a" })
// @ts-expect-error: a recorded definition cannot be published
store.publish(Created, { id: "a" })
// @ts-expect-error: nor one that says so
store.publish(Told, { id: "a" })
// @ts-expect-error: an ephemeral definition cannot be run
store.run(Delta, { id: "a" })
// @ts-expect-error: nor run asynchronously
store.runAsync(Delta, { id: "a" })
store.runAll([
  [Created, { id: "a" }],
  // @ts-expect-error: nor among others
  [Delta, { id: "a" }],
])
// @ts-expect-error: nor kept as a deletion event
store.remove("a", { event: [Delta, { id: "a" }] })
// @ts-expect-error: nor projected
project(Delta, () => {})

// A listener of an ephemeral definition gets after and no seq; one of a recorded definition a seq and a position.
store.subscribe(Delta, (event) => {
  type _After = Expect<Equal<typeof event.after, number>>
  type _Seq = Expect<Equal<typeof event.seq, undefined>>
  type _Created = Expect<Equal<typeof event.created, number>>
  type _Data = Expect<Equal<typeof event.data, { id: string; text?: string | undefined }>>
  type _Properties = Expect<Equal<typeof event.properties, { id: string; text?: string | undefined }>>
  type _Event = Expect<Equal<typeof event, PublishedOf<typeof Delta>>>
})
store.subscribe(Typing, (event) => {
  type _Properties = Expect<Equal<typeof event.properties, { shown: string }>>
})
store.subscribe(Created, (event) => {
  type _Seq = Expect<Equal<typeof event.seq, number>>
  type _Position = Expect<Equal<typeof event.position, number | undefined>>
  // @ts-expect-error: what is recorded builds on nothing else
  event.after
})

// A listener of everything gets either.
store.subscribeAll(
  (event) => {
    type _Seq = Expect<Equal<typeof event.seq, number | undefined>>
    type _Data = Expect<Equal<typeof event.data, unknown>>
    if (event.seq === undefined) {
      type _After = Expect<Equal<typeof event.after, number>>
    } else {
      type _Position = Expect<Equal<typeof event.position, number | undefined>>
      type _Is = Expect<Equal<typeof event.seq, number>>
    }
    if ("after" in event) {
      type _After = Expect<Equal<typeof event.after, number>>
    }
    // @ts-expect-error: only ephemeral ones have it
    event.after
  },
  { scope: "database" },
)
store.subscribeAll(() => {}, { scope: "process" })
store.subscribeAll(() => {}, {})
// @ts-expect-error: no such scope
store.subscribeAll(() => {}, { scope: "all" })
open(":memory:", {
  onListenerError(_error, event) {
    if (event.seq === undefined) {
      type _After = Expect<Equal<typeof event.after, number>>
    }
  },
})

// Changes are told apart by kind; a stream gives what such a listener gets.
export async function read(signal: AbortSignal): Promise<void> {
  for await (const change of store.changes({ signal })) {
    type _Kind = Expect<Equal<typeof change.kind, "hint" | "sweep">>
    if (change.kind === "hint") {
      type _Hint = Expect<Equal<[typeof change.aggregateID, typeof change.seq], [string, number]>>
    } else {
      // @ts-expect-error: a sweep names no aggregate
      change.aggregateID
    }
  }
  const stream = store.stream({
    types: ["created", Delta, Created],
    aggregates: ["a"],
    capacity: { events: 10, bytes: 1_000 },
    signal,
  })
  for await (const event of stream) {
    type _Event = Expect<Equal<typeof event, Parameters<Parameters<typeof store.subscribeAll>[0]>[0]>>
    if (event.seq === undefined) event.after.toFixed()
    else event.seq.toFixed()
  }
  const result = await stream.next()
  if (result.done === true) {
    type _End = Expect<Equal<typeof result.value, undefined>>
  }
}
store.stream()
store.stream({ capacity: { events: 10 } })
store.changes()
// @ts-expect-error: types are strings or definitions
store.stream({ types: [5] })
// @ts-expect-error: no such bound
store.stream({ capacity: { event: 10 } })
// @ts-expect-error: no such option
store.changes({ after: 1 })

// Seqs to wait for, as an object or a map.
export const held: Promise<void> = store.waitFor({ a: 1, b: 2 }, { timeout: 5, signal: AbortSignal.timeout(1) })
store.waitFor(new Map([["a", 1]]))
// @ts-expect-error: seqs are numbers
store.waitFor({ a: "1" })
// @ts-expect-error: no such option
store.waitFor({ a: 1 }, { timeOut: 5 })

// What an overflow tells.
export function resumeFrom(error: SyncError): number {
  type _Position = Expect<Equal<typeof error.position, number | undefined>>
  return error.delivered?.get("a") ?? -1
}

// Of a definition of either kind nothing is promised that only one of them has.
export function hear(either: EitherDefinition): void {
  store.subscribe(either, (event) => {
    // @ts-expect-error: it may be ephemeral
    const seq: number = event.seq
    return seq
  })
}
