// Compiled, never run: each `@ts-expect-error` fails the build if the line below it compiles.
import { type } from "arktype"
import { Schema } from "effect"
import { createRegistry, define, type Definition, type InputOf, type OutputOf, type PropertiesOf } from "syncline"
import * as v from "valibot"
import { z } from "zod"
import type { Equal, Expect } from "./equal"

const Created = define({
  type: "session.created",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({
    sessionID: z.string(),
    count: z.number().default(0),
    at: z.string().transform((s) => new Date(s)),
  }),
  busSchema: z.object({ title: z.string() }),
})

// The input is what is stored and run; the output is what projectors see; busSchema types the properties.
export type Types = [
  Expect<Equal<(typeof Created)["type"], "session.created">>,
  Expect<Equal<InputOf<typeof Created>, { sessionID: string; count?: number | undefined; at: string }>>,
  Expect<Equal<OutputOf<typeof Created>, { sessionID: string; count: number; at: Date }>>,
  Expect<Equal<PropertiesOf<typeof Created>, { title: string }>>,
]

const Plain = define({ type: "plain", version: 1, aggregate: "id", schema: z.object({ id: z.string() }) })
export type OfUnion = Expect<Equal<PropertiesOf<typeof Created | typeof Plain>, { title: string } | { id: string }>>

// An option that is undefined is one that was left out.
const unset = undefined as undefined | "none"
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id: z.string() }), projector: unset })

// Any Standard Schema infers.
const withValibot = define({
  type: "valibot",
  version: 1,
  aggregate: "id",
  schema: v.object({ id: v.string(), n: v.optional(v.number(), 1) }),
})
const withArktype = define({
  type: "arktype",
  version: 1,
  aggregate: "id",
  schema: type({ id: "string", n: "number" }),
})
const withEffect = define({
  type: "effect",
  version: 1,
  aggregate: "id",
  schema: Schema.toStandardSchemaV1(Schema.Struct({ id: Schema.String, n: Schema.Number })),
})
export type Libraries = [
  Expect<Equal<InputOf<typeof withValibot>, { id: string; n?: number | undefined }>>,
  Expect<Equal<OutputOf<typeof withValibot>, { id: string; n: number }>>,
  Expect<Equal<InputOf<typeof withArktype>, { id: string; n: number }>>,
  Expect<Equal<InputOf<typeof withEffect>, { readonly id: string; readonly n: number }>>,
  Expect<Equal<PropertiesOf<typeof withArktype>, { id: string; n: number }>>,
]

// Definitions of all kinds fit one list.
export const list: Definition[] = [Created, withValibot, withArktype, withEffect]

// The aggregate names a required string field of the input.
const schema = z.object({ id: z.string(), maybe: z.string().optional(), n: z.number(), kind: z.enum(["a", "b"]) })
define({ type: "t", version: 1, aggregate: "id", schema })
define({ type: "t", version: 1, aggregate: "kind", schema })
// @ts-expect-error: no such field
define({ type: "t", version: 1, aggregate: "missing", schema })
// @ts-expect-error: not a string
define({ type: "t", version: 1, aggregate: "n", schema })
// @ts-expect-error: not required
define({ type: "t", version: 1, aggregate: "maybe", schema })
// @ts-expect-error: the input has no string field at all, and the message says so
define({ type: "t", version: 1, aggregate: "n", schema: z.object({ n: z.number() }) })
// @ts-expect-error: a field of the output only
define({ type: "t", version: 1, aggregate: "o", schema: z.object({ o: z.number().transform((n) => `${n}`) }) })
// A union's common field can name it.
const union = z.union([z.object({ id: z.string(), a: z.string() }), z.object({ id: z.string(), b: z.number() })])
define({ type: "t", version: 1, aggregate: "id", schema: union })
// @ts-expect-error: not in every member
define({ type: "t", version: 1, aggregate: "a", schema: union })

// Loose schemas: the declared fields name it, not whatever else may be there.
define({ type: "t", version: 1, aggregate: "id", schema: z.looseObject({ id: z.string(), n: z.number() }) })
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id: z.string() }).passthrough() })
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id: z.string() }).catchall(z.unknown()) })
define({ type: "t", version: 1, aggregate: "id", schema: v.looseObject({ id: v.string() }) })
define({ type: "t", version: 1, aggregate: "id", schema: type({ id: "string", "[string]": "unknown" }) })
const both = z.intersection(z.object({ id: z.string() }), z.record(z.string(), z.unknown()))
define({ type: "t", version: 1, aggregate: "id", schema: both })
// @ts-expect-error: not declared
define({ type: "t", version: 1, aggregate: "missing", schema: z.looseObject({ id: z.string() }) })
// @ts-expect-error: declared, and not a string
define({ type: "t", version: 1, aggregate: "n", schema: z.looseObject({ id: z.string(), n: z.number() }) })
// @ts-expect-error: declared, and not required
define({ type: "t", version: 1, aggregate: "maybe", schema: z.looseObject({ maybe: z.string().optional() }) })
// A record of strings has every field.
define({ type: "t", version: 1, aggregate: "any", schema: z.record(z.string(), z.string()) })

// JSON must carry the input.
const id = z.string()
// @ts-expect-error: Date
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, at: z.date() }) })
// @ts-expect-error: bigint
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, n: z.bigint() }) })
// @ts-expect-error: Map
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, m: z.map(z.string(), z.string()) }) })
// @ts-expect-error: Set
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, s: z.set(z.string()) }) })
// @ts-expect-error: symbol
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, s: z.symbol() }) })
// @ts-expect-error: function
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, f: z.custom<() => void>() }) })
// @ts-expect-error: bytes
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, b: z.instanceof(Uint8Array) }) })
const deep = z.object({ id, list: z.array(z.object({ at: z.date().optional() })) })
// @ts-expect-error: deep inside, and optional
define({ type: "t", version: 1, aggregate: "id", schema: deep })

// What JSON carries is accepted, however it is written.
interface Named {
  id: string
  child?: Named
  children: readonly Named[]
  pair: [number, string | null]
}
define({ type: "t", version: 1, aggregate: "id", schema: z.custom<Named>() })
define({ type: "t", version: 1, aggregate: "id", schema: z.object({ id, any: z.any(), unknown: z.unknown() }) })
define({
  type: "t",
  version: 1,
  aggregate: "id",
  schema: z.object({ id, json: z.json(), record: z.record(z.string(), z.json()) }),
})
define({
  type: "t",
  version: 1,
  aggregate: "id",
  schema: z.object({ id: z.string().brand("ID"), at: z.string().pipe(z.coerce.date()) }),
})
const Tree = z.object({
  id,
  get children() {
    return z.array(Tree)
  },
})
define({ type: "t", version: 1, aggregate: "id", schema: Tree })

// An upcast may say what the older data was, and must make the new input.
define({
  type: "t",
  version: 2,
  aggregate: "id",
  schema: z.object({ id, title: z.string() }),
  upcast: { 1: (data: { id: string; name: string }) => ({ id: data.id, title: data.name }) },
  registry: createRegistry(),
})
define({
  type: "t",
  version: 2,
  aggregate: "id",
  schema: z.object({ id, title: z.string() }),
  // @ts-expect-error: the title is missing
  upcast: { 1: (data: { id: string }) => ({ id: data.id }) },
})
