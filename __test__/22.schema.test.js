"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { coded, file, kept, notes, openNotes, refused, rows } = require("./stores.js")

/** A store of one definition whose projector keeps what it was given, and whose SQL twin keeps the text. */
function seeing(schema, { path = file(), ...options } = {}) {
  const registry = createRegistry()
  const Made = define({ type: "made", version: 1, aggregate: "id", schema, registry })
  const Kept = define({ type: "kept", version: 1, aggregate: "id", schema, registry })
  const projected = []
  const projectors = [
    project(Made, (_tx, data, event) => void projected.push({ data, event })),
    project(Kept, sql`INSERT INTO kept VALUES (:seq, :data)`),
  ]
  const migrate = (db) => db.exec("CREATE TABLE kept (seq INTEGER, data TEXT)")
  const store = kept(path, { registry, projectors, migrate, ...options })
  return { store, Made, Kept, projected }
}

/** A Standard Schema by hand. */
const standard = (validate) => ({ "~standard": { version: 1, vendor: "test", validate } })

const transforming = z.object({
  id: z.string(),
  title: z.string().trim().default("untitled"),
  tags: z.array(z.string().toUpperCase()).default([]),
})

describe("rule 5: what is stored and what is projected", () => {
  test("rule 5: the projector gets the schema's output, the log and listeners its input", () => {
    const { store, Made, projected } = seeing(transforming)
    const heard = []
    store.subscribe(Made, ({ data, properties }) => heard.push([data, properties]))
    const event = store.run(Made, { id: "a", title: " x ", extra: 1 })
    const input = { id: "a", title: " x ", extra: 1 }
    assert.deepEqual(projected[0].data, { id: "a", title: "x", tags: [] })
    assert.deepEqual(event.data, input)
    assert.equal(projected[0].event, event)
    assert.deepEqual(heard, [[input, input]])
    assert.deepEqual(store.get("a", 0).data, input)
    assert.equal(rows(store, "SELECT data FROM event")[0][0], '{"id":"a","title":" x ","extra":1}')
  })

  test("rule 5: a reader's projector sees what the writer's saw", () => {
    const writer = seeing(transforming)
    writer.store.run(writer.Made, { id: "a", tags: ["x"], title: undefined, at: new Date(5) })
    const other = seeing(transforming, { path: ":memory:" })
    other.store.replayAll(writer.store.read("a"))
    assert.deepEqual(other.projected[0].data, writer.projected[0].data)
    assert.deepEqual(other.projected[0].data, { id: "a", tags: ["X"], title: "untitled" })
    const given = writer.projected[0].event
    const replayed = other.projected[0].event
    assert.deepEqual({ ...replayed, data: replayed.data }, { ...given, data: given.data })
  })

  test("rule 5: a SQL projector sees the stored text", () => {
    const { store, Kept } = seeing(transforming)
    store.run(Kept, { id: "a", title: " x ", n: [1.5, null] })
    assert.deepEqual(rows(store, "SELECT data FROM kept"), [['{"id":"a","title":" x ","n":[1.5,null]}']])
  })

  test("rule 5: the schema runs over the text parsed back, not over the caller's object", () => {
    const validated = []
    const schema = standard((value) => (validated.push(value), { value }))
    const { store, Made } = seeing(schema)
    const data = { id: "a", nested: { gone: undefined, at: new Date(0), nan: NaN, zero: -0 } }
    store.run(Made, data)
    assert.deepEqual(validated, [{ id: "a", nested: { at: "1970-01-01T00:00:00.000Z", nan: null, zero: 0 } }])
    assert.ok(!Object.is(validated[0].nested.zero, -0))
  })

  test("rule 5: what a schema or a projector changes in its data is not stored or delivered", () => {
    const schema = standard((value) => {
      value.added = true
      return { value }
    })
    const registry = createRegistry()
    const Made = define({ type: "made", version: 1, aggregate: "id", schema, registry })
    const spoil = (_tx, data) => {
      data.id = "spoiled"
    }
    const store = kept(":memory:", { registry, projectors: [project(Made, spoil)] })
    const heard = []
    store.subscribeAll(({ data }) => heard.push(data))
    assert.deepEqual(store.run(Made, { id: "a" }).data, { id: "a" })
    assert.deepEqual(store.get("a", 0).data, { id: "a" })
    assert.deepEqual(heard, [{ id: "a" }])
  })

  test("rule 5: invalid data is refused with its issues, at run and at replay", () => {
    const { store, Made } = seeing(z.object({ id: z.string(), n: z.number() }))
    const invalid = (fields) => (error) => {
      coded("ERR_INVALID_DATA", /made\.1.*"a".*n: /, { type: "made.1", aggregateID: "a", ...fields })(error)
      assert.deepEqual(error.issues[0].path, ["n"])
      return true
    }
    refused(store, () => store.run(Made, { id: "a", n: "1" }), invalid({}))
    refused(store, () => store.run(Made, { id: "a", n: Infinity }), invalid({}))
    const item = { id: "e", type: "made.1", seq: 0, aggregateID: "a", data: { id: "a", n: "1" } }
    refused(store, () => store.replay(item), invalid({ seq: 0, index: 0 }))
  })

  test("rule 5: a schema's own throw passes through", () => {
    const failure = new TypeError("schema")
    const { store, Made } = seeing(
      standard(() => {
        throw failure
      }),
    )
    const item = { id: "e", type: "made.1", seq: 0, aggregateID: "a", data: { id: "a" } }
    refused(
      store,
      () => store.run(Made, { id: "a" }),
      (error) => error === failure,
    )
    refused(
      store,
      () => store.replay(item),
      (error) => error === failure,
    )
  })

  test("rule 5: an asynchronous schema is refused, and its rejection is not unhandled", () => {
    const { store, Made } = seeing(standard(async () => Promise.reject(new Error("late"))))
    const item = { id: "e", type: "made.1", seq: 0, aggregateID: "a", data: { id: "a" } }
    refused(store, () => store.run(Made, { id: "a" }), coded("ERR_ASYNC_SCHEMA", /made\.1/))
    refused(store, () => store.replay(item), coded("ERR_ASYNC_SCHEMA", /made\.1/))
    const refined = seeing(
      z.object({ id: z.string() }).refine(async () => true),
      { path: ":memory:" },
    )
    assert.throws(() => refined.store.run(refined.Made, { id: "a" }))
    assert.equal(refined.store.sequence("a"), -1)
  })

  test("rule 5: cyclic data, bigints and a throwing toJSON have no text", () => {
    const given = notes()
    const store = openNotes(given)
    const cyclic = { noteID: "n" }
    cyclic.self = cyclic
    const invalid = coded("ERR_INVALID_DATA", /note\.seen\.1.*"n"/, { type: "note.seen.1", aggregateID: "n" })
    refused(
      store,
      () => store.run(given.Seen, cyclic),
      (error) => invalid(error) && error.cause instanceof TypeError,
    )
    refused(store, () => store.run(given.Seen, { noteID: "n", big: 1n }), invalid)
    refused(store, () => store.run(given.Seen, { noteID: "n", toJSON: () => undefined }), invalid)
  })

  test("rule 5: data nests to 1,000 levels and no deeper", () => {
    const given = notes()
    const store = openNotes(given)
    const nested = (levels) => {
      let value = 0
      for (let level = 0; level < levels; level++) value = [value]
      return { noteID: "n", value }
    }
    store.run(given.Seen, nested(999))
    assert.deepEqual(store.get("n", 0).data, nested(999))
    refused(store, () => store.run(given.Seen, nested(1000)), coded("ERR_INVALID_DATA", /1000|1,000/))
    refused(store, () => store.run(given.Seen, nested(100_000)), coded("ERR_INVALID_DATA"))
  })
})

describe("rule 5: validate", () => {
  test('rule 5: "strict" proves that the text read back equals the input', () => {
    const { store, Made } = seeing(z.looseObject({ id: z.string() }), { validate: "strict" })
    const changed = [
      { at: new Date(0) },
      { map: new Map() },
      { gone: undefined },
      { nan: NaN },
      { zero: -0 },
      { list: [undefined] },
      { fn: () => {} },
      { [Symbol("s")]: 1 },
      { toJSON: () => ({ id: "a" }) },
      { text: Object("boxed") },
    ]
    for (const more of changed) {
      refused(store, () => store.run(Made, { id: "a", ...more }), coded("ERR_INVALID_DATA", /made\.1.*"a"/))
    }
    store.run(Made, { id: "a", list: [1.5, null, "\ud800", { deep: true }], n: 1e21 })
    store.run(Made, JSON.parse('{"id":"a","__proto__":{"x":1}}'))
    assert.equal(store.sequence("a"), 1)
    assert.equal(rows(store, "SELECT data FROM event")[1][0], '{"id":"a","__proto__":{"x":1}}')
  })

  test('rule 5: "strict" replays what "always" replays', () => {
    const { store, Made, projected } = seeing(transforming, { validate: "strict" })
    store.replay({ id: "e", type: "made.1", seq: 0, aggregateID: "a", data: { id: "a", title: " t " } })
    assert.deepEqual(projected[0].data, { id: "a", title: "t", tags: [] })
    store.run(Made, { id: "a", title: " t " })
    assert.deepEqual(projected[1].data, projected[0].data)
  })

  test('rule 5: "never" gives projectors the parsed input, at run and at replay', () => {
    let calls = 0
    const schema = standard(() => {
      calls++
      return { issues: [{ message: "never valid" }] }
    })
    const { store, Made, projected } = seeing(schema, { validate: "never" })
    const data = { id: "a", at: new Date(0) }
    store.run(Made, data)
    store.replay({ id: "e", type: "made.1", seq: 1, aggregateID: "a", data: { id: "a", n: 1 } })
    assert.deepEqual(
      projected.map((one) => one.data),
      [
        { id: "a", at: "1970-01-01T00:00:00.000Z" },
        { id: "a", n: 1 },
      ],
    )
    assert.notEqual(projected[0].data, data)
    assert.equal(calls, 0)
    refused(store, () => store.run(Made, { id: 1 }), coded("ERR_AGGREGATE_REQUIRED"))
  })

  test('rule 5: "never" stores and projects the same rows as "always"', () => {
    const run = (validate) => {
      const { store } = seeing(z.looseObject({ id: z.string() }), { validate, path: ":memory:" })
      store.replayAll([
        { id: "e0", type: "made.1", seq: 0, aggregateID: "a", data: { id: "a", b: 1, 2: 2 } },
        { id: "e1", type: "kept.1", seq: 1, aggregateID: "a", data: { id: "a", b: [1], 1: "x" } },
      ])
      return rows(store, "SELECT seq, data FROM event UNION ALL SELECT seq, data FROM kept")
    }
    assert.deepEqual(run("never"), run("always"))
  })

  test("another mode is refused", () => {
    const { registry } = notes()
    for (const validate of ["sometimes", true, null, 1]) {
      assert.throws(() => kept(file(), { registry, validate }), coded("ERR_INVALID_ARGUMENT", /validate/))
    }
  })
})
