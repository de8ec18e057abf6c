"use strict"

const assert = require("node:assert/strict")
const { before, describe, test } = require("node:test")
const v = require("valibot")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")
const { coded, file, kept, notes, openNotes } = require("./stores.js")

const schema = z.object({ id: z.string() })
const options = (more) => ({ type: "thing.made", version: 1, aggregate: "id", schema, ...more })

describe("rule 1: type and version", () => {
  test("rule 1: a definition is frozen, and carries its name and defaults", () => {
    const registry = createRegistry()
    const busSchema = z.object({ x: z.number() })
    const Made = define(options({ registry, version: 3, busSchema }))
    assert.ok(Object.isFrozen(Made))
    assert.deepEqual(
      { ...Made },
      {
        type: "thing.made",
        version: 3,
        name: "thing.made.3",
        aggregate: "id",
        schema,
        busSchema,
        ephemeral: false,
        upcast: undefined,
        projector: undefined,
        compactKey: undefined,
        dedupe: undefined,
        registry,
      },
    )
    assert.deepEqual([...registry.definitions.keys()], ["thing.made.3"])
  })

  for (const type of ["", undefined, null, 1, {}, "\ud800"]) {
    test(`rule 1: the type ${JSON.stringify(type)} is refused`, () => {
      const registry = createRegistry()
      assert.throws(() => define(options({ registry, type })), coded("ERR_INVALID_ARGUMENT", /type/))
      assert.equal(registry.definitions.size, 0)
    })
  }

  for (const version of [0, -1, 1.5, NaN, Infinity, 2 ** 53, "1", 1n, undefined, null]) {
    test(`rule 1: the version ${String(version)} (${typeof version}) is refused`, () => {
      const registry = createRegistry()
      assert.throws(() => define(options({ registry, version })), coded("ERR_INVALID_ARGUMENT", /version/))
      assert.equal(registry.definitions.size, 0)
    })
  }

  test("rule 1: the same type and version twice in one registry is refused, in two it is not", () => {
    const registry = createRegistry()
    const first = define(options({ registry }))
    const again = () => define(options({ registry, schema: z.object({ id: z.string(), other: z.number() }) }))
    assert.throws(again, coded("ERR_DUPLICATE_DEFINITION", /thing\.made\.1/, { type: "thing.made.1" }))
    assert.equal(registry.definitions.get("thing.made.1"), first)
    assert.notEqual(define(options({ registry: createRegistry() })), first)
    assert.equal(define(options({ registry, version: 2 })).name, "thing.made.2")
  })

  test("rule 1: a type that ends in a number is not mixed up with a version", () => {
    const registry = createRegistry()
    define(options({ registry, type: "a", version: 11 }))
    define(options({ registry, type: "a.1", version: 1 }))
    define(options({ registry, type: "a.1.1", version: 1 }))
    assert.deepEqual([...registry.definitions.keys()], ["a.11", "a.1.1", "a.1.1.1"])
  })
})

describe("rule 1: frozen while a store is open", () => {
  test("rule 1: defining is refused until the last store that uses the registry is closed", () => {
    const { registry, projectors } = notes()
    const late = () => define(options({ registry }))
    const first = kept(":memory:", { registry, projectors })
    const second = kept(":memory:", { registry, projectors })
    assert.equal(registry.frozen, true)
    assert.throws(late, coded("ERR_FROZEN", /has been frozen/, { type: "thing.made.1" }))
    first.close()
    first.close()
    assert.throws(late, coded("ERR_FROZEN"))
    second.db.close()
    assert.equal(registry.frozen, false)
    assert.equal(late().name, "thing.made.1")
  })

  test("rule 1: failing to open thaws, whatever fails", () => {
    const { registry, projectors } = notes()
    const failure = new Error("migrate")
    const migrate = () => {
      throw failure
    }
    assert.throws(
      () => open(file(), { registry, projectors, migrate }),
      (error) => error === failure,
    )
    assert.equal(registry.frozen, false)
    assert.throws(() => open(file("no/such/folder.db"), { registry, projectors }), coded("ERR_SQLITE"))
    assert.equal(registry.frozen, false)
    assert.throws(() => open(file(), { registry, projectors: [...projectors, projectors[0]] }))
    assert.throws(() => open(file(), { registry, busyTimeout: -1 }))
    assert.equal(registry.frozen, false)
    define(options({ registry }))
  })

  test("rule 1: the default registry is frozen by stores that name none, and by those alone", () => {
    const elsewhere = openNotes(notes())
    const Made = define(options({ type: "default.made", projector: "none" }))
    const store = kept(":memory:")
    assert.throws(() => define(options({ type: "default.late" })), coded("ERR_FROZEN"))
    define(options({ registry: createRegistry() }))
    assert.equal(store.run(Made, { id: "a" }).seq, 0)
    store.close()
    define(options({ type: "default.late" }))
    elsewhere.close()
  })

  test("mistake 15: two stores with definitions of the same name live side by side", () => {
    const one = notes()
    const two = notes()
    const first = openNotes(one, { path: file("one.db") })
    const second = openNotes(two, { path: file("two.db") })
    first.run(one.Written, { noteID: "n", text: "one" })
    second.run(two.Written, { noteID: "n", text: "two" })
    assert.throws(() => first.run(two.Written, { noteID: "n" }), coded("ERR_UNKNOWN_EVENT", /another registry/))
    first.close()
    define(options({ registry: one.registry }))
    assert.throws(() => define(options({ registry: two.registry })), coded("ERR_FROZEN"))
    assert.equal(second.run(two.Written, { noteID: "n" }).seq, 1)
  })
})

describe("rules 2 and 3: names", () => {
  test("rule 2, mistake 1: subscribers of a type hear its events, of every version", () => {
    const registry = createRegistry()
    const One = define(options({ registry, projector: "none" }))
    const Two = define(options({ registry, version: 2, projector: "none" }))
    const store = kept(":memory:", { registry })
    const heard = []
    store.subscribe(One, (event) => heard.push(["one", event.type, event.version, event.seq]))
    store.subscribe(Two, (event) => heard.push(["two", event.type, event.version, event.seq]))
    store.run(Two, { id: "a" })
    store.replay({ id: "old", type: "thing.made.1", seq: 1, aggregateID: "a", data: { id: "a" } }, { publish: true })
    assert.deepEqual(heard, [
      ["one", "thing.made", 2, 0],
      ["two", "thing.made", 2, 0],
      ["one", "thing.made", 1, 1],
      ["two", "thing.made", 1, 1],
    ])
  })

  test("rule 3: what is stored and sent is named type.version, joined by a dot", () => {
    const { Written, ...rest } = notes()
    const store = openNotes({ Written, ...rest })
    const event = store.run(Written, { noteID: "n" })
    assert.equal(event.type, "note.written")
    assert.equal(event.version, 1)
    assert.equal(store.read("n")[0].type, "note.written.1")
    assert.equal(store.db.prepare("SELECT type FROM event_log").pluck().get(), "note.written.1")
  })
})

describe("define: the rest of its options", () => {
  let arktype, Schema
  // They are ES modules, which the oldest Node cannot require.
  before(async () => {
    arktype = await import("arktype")
    Schema = (await import("effect")).Schema
  })

  test("the aggregate must be a string field of the schema's input, where the library can tell", () => {
    const refuse = (aggregate, schema) =>
      assert.throws(
        () => define(options({ registry: createRegistry(), aggregate, schema })),
        coded("ERR_INVALID_ARGUMENT", /thing\.made\.1/),
      )
    refuse("other", schema)
    refuse("id", z.object({ id: z.number() }))
    refuse("id", arktype.type({ id: "number" }))
    refuse("id", z.object({ id: z.string().optional(), title: z.string() }))
    refuse("id", z.object({ id: z.string().default("a"), title: z.string() }))
    refuse("id", arktype.type({ "id?": "string", title: "string" }))
    refuse("toString", schema)
    refuse("", schema)
    refuse(undefined, schema)
    refuse(1, schema)
  })

  test("the aggregate may be a field of a loose schema, an intersection or a union", () => {
    const object = z.object({ id: z.string(), title: z.string() })
    for (const schema of [
      z.looseObject({ id: z.string() }),
      z.object({ id: z.string() }).catchall(z.number()),
      z.intersection(object, z.record(z.string(), z.unknown())),
      z.intersection(object, z.object({ more: z.string() })),
      z.union([object, z.object({ id: z.string(), n: z.number() })]),
      arktype.type({ id: "string", "[string]": "unknown" }),
    ]) {
      define(options({ registry: createRegistry(), schema }))
    }
  })

  test("schemas of zod, valibot, arktype and effect define, validate and give their output", () => {
    const schemas = {
      zod: z.object({ id: z.string(), n: z.number().default(7) }),
      valibot: v.object({ id: v.string(), n: v.optional(v.number(), 7) }),
      arktype: arktype.type({ id: "string", n: "number = 7" }),
      effect: Schema.toStandardSchemaV1(Schema.Struct({ id: Schema.String, n: Schema.optional(Schema.Number) })),
    }
    for (const [name, schema] of Object.entries(schemas)) {
      const registry = createRegistry()
      const Made = define(options({ registry, type: name, schema }))
      const projected = []
      const store = kept(":memory:", {
        registry,
        projectors: [project(Made, (_tx, data) => void projected.push(data))],
      })
      store.run(Made, { id: "a" })
      assert.deepEqual(projected, [name === "effect" ? { id: "a" } : { id: "a", n: 7 }], name)
      assert.throws(
        () => store.run(Made, { id: "a", n: "x" }),
        (error) => coded("ERR_INVALID_DATA")(error) && error.issues.length > 0,
        name,
      )
      assert.equal(store.sequence("a"), 0, name)
    }
  })

  test("what is no Standard Schema, no registry, an unknown option or a wrong upcast is refused", () => {
    const refuse = (more) =>
      assert.throws(() => define(options({ registry: createRegistry(), ...more })), coded("ERR_INVALID_ARGUMENT"))
    refuse({ schema: {} })
    refuse({ schema: undefined })
    refuse({ schema: { "~standard": {} } })
    refuse({ busSchema: {} })
    refuse({ busSchema: null })
    refuse({ registry: {} })
    refuse({ registry: null })
    refuse({ unknown: true })
    refuse({ ephemeral: "yes" })
    refuse({ projector: "some" })
    refuse({ upcast: { 1: (data) => data } })
    refuse({ version: 2, upcast: { 2: (data) => data } })
    refuse({ version: 2, upcast: { 0: (data) => data } })
    refuse({ version: 2, upcast: { 1: "later" } })
    refuse({ version: 2, upcast: null })
    assert.throws(() => define(undefined), coded("ERR_INVALID_ARGUMENT"))
    assert.throws(() => define(null), coded("ERR_INVALID_ARGUMENT"))
  })

  test("an ephemeral definition can neither be projected nor run", () => {
    const registry = createRegistry()
    const Moved = define(options({ registry, ephemeral: true }))
    assert.throws(() => project(Moved, () => {}), coded("ERR_WRONG_KIND", /thing\.made\.1/))
    const store = kept(":memory:", { registry })
    assert.throws(() => store.run(Moved, { id: "a" }), coded("ERR_WRONG_KIND", /thing\.made\.1/))
    const item = { id: "e", type: "thing.made.1", seq: 0, aggregateID: "a", data: { id: "a" } }
    assert.throws(() => store.replay(item), coded("ERR_UNKNOWN_EVENT", /Unknown event type/))
  })
})

describe("project and sql", () => {
  test("a projector is a function, a statement or a list of statements", () => {
    const Made = define(options({ registry: createRegistry() }))
    const refuse = (how) => assert.throws(() => project(Made, how), coded("ERR_INVALID_ARGUMENT", /thing\.made\.1/))
    refuse(undefined)
    refuse("DELETE FROM note")
    refuse([])
    refuse([sql`SELECT 1`, "SELECT 1"])
    assert.throws(() => project({ ...Made, registry: undefined }, () => {}), coded("ERR_INVALID_ARGUMENT"))
    assert.throws(() => project(undefined, () => {}), coded("ERR_INVALID_ARGUMENT"))
    assert.ok(Object.isFrozen(project(Made, [sql`SELECT 1`, sql`SELECT 2`])))
  })

  test("interpolating into sql throws, and names what to use", () => {
    const value = "1; DROP TABLE note"
    assert.throws(() => sql`DELETE FROM note WHERE id = ${value}`, coded("ERR_INVALID_ARGUMENT", /:data/))
    assert.throws(() => sql("SELECT 1"), coded("ERR_INVALID_ARGUMENT"))
  })

  test("open refuses projectors that are foreign, doubled, or of a type that has none", () => {
    const { registry, projectors, Seen } = notes()
    const refuse = (projectors) =>
      assert.throws(() => open(":memory:", { registry, projectors }), coded("ERR_INVALID_ARGUMENT", /projectors/))
    refuse([projectors[0], projectors[0]])
    refuse([project(Seen, () => {})])
    refuse(notes().projectors)
    refuse([{}])
    refuse([undefined])
    refuse({})
  })
})
