"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { coded, collected, dump, file, kept, refused, rows, turns } = require("./stores.js")

const schemas = {
  1: z.object({ id: z.string(), name: z.string() }),
  2: z.object({ id: z.string(), names: z.array(z.string()) }),
  3: z.object({ id: z.string(), names: z.array(z.string()), count: z.number().default(0) }),
}
const upcasts = {
  2: { 1: ({ name, ...rest }) => ({ ...rest, names: [name] }) },
  3: { 2: (data) => ({ ...data, count: data.names.length }) },
}

/** Definitions of the given versions; each sees what `more` says of it. */
function versions(wanted, more = {}) {
  const registry = createRegistry()
  const defined = wanted.map((version) =>
    define({
      type: "list",
      version,
      aggregate: "id",
      schema: schemas[version],
      upcast: upcasts[version],
      registry,
      ...more[version],
    }),
  )
  return { registry, newest: defined.at(-1), defined }
}

const stored = (version, seq, data, id = "a") => ({
  id: `evt_${id}${seq}`,
  type: `list.${version}`,
  seq,
  aggregateID: id,
  data: { id, ...data },
})

const mixed = [
  stored(1, 0, { name: "x" }),
  stored(2, 1, { names: ["y", "z"] }),
  stored(3, 2, { names: [] }),
  stored(1, 3, { name: "w", extra: true }),
]

/** A store that writes down what its newest projector receives. */
function open(wanted, { more, projector = "function", ...options } = {}) {
  const { registry, newest, defined } = versions(wanted, more)
  const projected = []
  const apply = (_tx, data, { type, version, seq, data: raw }) => void projected.push({ data, type, version, seq, raw })
  const statement = sql`INSERT INTO seen VALUES (:seq, :version, :data)`
  const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS seen (seq, version, data)")
  const projectors = [project(newest, projector === "sql" ? statement : apply)]
  const store = kept(file(`${projector}.db`), { registry, projectors, migrate, ...options })
  return { store, newest, defined, projected }
}

describe("rule 7: upcasting", () => {
  test("rule 7: older versions go through the chain and the newest schema to the newest projector", () => {
    const { store, projected } = open([1, 2, 3])
    store.replayAll(mixed)
    assert.deepEqual(
      projected.map(({ data }) => data),
      [
        { id: "a", names: ["x"], count: 1 },
        { id: "a", names: ["y", "z"], count: 2 },
        { id: "a", names: [], count: 0 },
        { id: "a", names: ["w"], count: 1 },
      ],
    )
  })

  test("rule 7: the event, listeners, read and the log show what is stored", async () => {
    const { store, newest, projected } = open([1, 2, 3])
    const heard = []
    store.subscribe(newest, ({ version, data, properties }) => heard.push([version, data, properties]))
    store.replayAll(mixed, { publish: true })
    assert.deepEqual(
      projected.map(({ version, raw }) => [version, raw]),
      mixed.map(({ type, data }) => [+type.at(-1), data]),
    )
    assert.deepEqual(
      heard,
      mixed.map(({ type, data }) => [+type.at(-1), data, data]),
    )
    assert.deepEqual(store.read("a"), mixed)
    const items = await collected(store.log({ aggregateID: "a" }))
    assert.deepEqual(
      items.slice(0, -1),
      mixed.map((event) => ({ kind: "event", event })),
    )
  })

  for (const validate of ["always", "never", "strict"]) {
    test(`rule 7: a SQL projector gets the upcast input as :data (validate: "${validate}")`, () => {
      const { store } = open([1, 2, 3], { projector: "sql", validate })
      store.replayAll(mixed.map((event) => JSON.stringify(event)).join("\n"))
      assert.deepEqual(rows(store, "SELECT seq, version, data FROM seen ORDER BY seq"), [
        [0, 1, '{"id":"a","names":["x"],"count":1}'],
        [1, 2, '{"id":"a","names":["y","z"],"count":2}'],
        [2, 3, '{"id":"a","names":[]}'],
        [3, 1, '{"id":"a","extra":true,"names":["w"],"count":1}'],
      ])
      assert.deepEqual(rows(store, "SELECT data FROM event ORDER BY seq")[3], ['{"id":"a","name":"w","extra":true}'])
    })
  }

  test('rule 7: with validate: "never" the projector gets the upcast input, unparsed by the schema', () => {
    const { store, projected } = open([1, 2, 3], { validate: "never" })
    store.replayAll(mixed)
    assert.deepEqual(
      projected.map(({ data }) => data),
      [
        { id: "a", names: ["x"], count: 1 },
        { id: "a", names: ["y", "z"], count: 2 },
        { id: "a", names: [] },
        { id: "a", names: ["w"], count: 1, extra: true },
      ],
    )
  })

  test("rule 7: a version may skip others, and the chain takes the way there is", () => {
    const skipping = { 3: { upcast: { 1: ({ id, name }) => ({ id, names: [name, "skipped"] }), ...upcasts[3] } } }
    const { store, projected } = open([1, 3], { more: skipping })
    store.replay(mixed[0])
    assert.deepEqual(projected[0].data, { id: "a", names: ["x", "skipped"], count: 0 })
    refused(store, () => store.replay(stored(2, 1, { names: [] })), coded("ERR_UNKNOWN_EVENT", /list\.2/))
  })

  test("rule 7: definitions may come in any order", () => {
    const { registry } = versions([2, 1])
    const Three = define({
      type: "list",
      version: 3,
      aggregate: "id",
      schema: schemas[3],
      upcast: upcasts[3],
      registry,
    })
    const projected = []
    const store = kept(file(), { registry, projectors: [project(Three, (_tx, data) => void projected.push(data))] })
    store.replay(mixed[0])
    assert.deepEqual(projected, [{ id: "a", names: ["x"], count: 1 }])
  })

  test("rule 7: an older version with a projector of its own is not upcast", () => {
    const { registry, defined, newest } = versions([1, 2, 3])
    const seen = []
    const store = kept(file(), {
      registry,
      projectors: [
        project(defined[0], (_tx, data) => void seen.push(["one", data])),
        project(newest, (_tx, data) => void seen.push(["three", data])),
      ],
    })
    store.replayAll(mixed.slice(0, 2))
    assert.deepEqual(seen, [
      ["one", { id: "a", name: "x" }],
      ["three", { id: "a", names: ["y", "z"], count: 2 }],
    ])
  })

  test('rule 7: an older version with projector: "none" is not projected at all', () => {
    const { store, projected } = open([1, 2, 3], { more: { 1: { projector: "none" } } })
    store.replayAll(mixed)
    assert.deepEqual(
      projected.map(({ seq }) => seq),
      [1, 2],
    )
  })

  test("rule 8: an older version without a way to the newest has no projector", () => {
    const { store, projected } = open([1, 2, 3], { more: { 2: { upcast: undefined } } })
    refused(store, () => store.replayAll(mixed), coded("ERR_NO_PROJECTOR", /list\.1/, { type: "list.1" }))
    store.replay(stored(2, 0, { names: [] }))
    assert.equal(projected.length, 1)
  })

  test("rule 7: what the upcast gives must pass the newest schema", () => {
    const { store } = open([1, 2], { more: { 2: { upcast: { 1: (data) => data } } } })
    refused(store, () => store.replay(mixed[0]), coded("ERR_INVALID_DATA", /list\.1.*names/, { type: "list.1" }))
  })

  test("rule 7: the stored data is not checked by the schema of its own version", () => {
    const { store, projected } = open([1, 2])
    store.replay(stored(1, 0, { name: "x", more: 1 }))
    assert.deepEqual(projected[0].data, { id: "a", names: ["x"] })
  })

  test("rule 7: an upcast that throws, or returns a promise, refuses the batch", async () => {
    const failure = new Error("upcast")
    const throwing = () => {
      throw failure
    }
    const one = open([1, 2], { more: { 2: { upcast: { 1: throwing } } } })
    refused(
      one.store,
      () => one.store.replayAll(mixed),
      (error) => error === failure,
    )
    const rejecting = async () => Promise.reject(failure)
    const two = open([1, 2], { more: { 2: { upcast: { 1: rejecting } } }, projector: "sql" })
    refused(two.store, () => two.store.replayAll(mixed), coded("ERR_ASYNC_PROJECTOR", /list\.1/))
    await turns()
  })

  test("rule 7: what an upcast does to its argument is neither stored nor published", () => {
    const spoil = (data) => {
      data.names = [data.name]
      delete data.name
      return data
    }
    const { store, newest } = open([1, 2], { more: { 2: { upcast: { 1: spoil } } } })
    const heard = []
    store.subscribe(newest, ({ data }) => heard.push(data))
    store.replay(mixed[0], { publish: true })
    assert.deepEqual(heard, [{ id: "a", name: "x" }])
    assert.deepEqual(store.read("a"), [mixed[0]])
  })

  test("rule 7: a history is the same after a program that knows a newer version opened it", () => {
    const path = file("grown.db")
    const openWith = (wanted) => {
      const { registry, newest } = versions(wanted)
      return kept(path, { registry, projectors: [project(newest, () => {})] })
    }
    const first = openWith([1])
    first.replayAll([mixed[0]])
    const before = dump(first).find(([name]) => name === "event")
    first.close()
    const second = openWith([1, 2, 3])
    assert.deepEqual(second.replayAll([mixed[0]]), [{ aggregateID: "a", applied: 0, duplicate: 1, seq: 0 }])
    assert.deepEqual(
      dump(second).find(([name]) => name === "event"),
      before,
    )
  })

  test("rule 7: a removed item's event is upcast for its projector too", () => {
    const { store, projected } = open([1, 2, 3])
    const event = stored(1, 4, { name: "gone" })
    store.replayAll([{ kind: "removed", aggregateID: "a", seq: 4, event }])
    assert.deepEqual(
      projected.map(({ data, seq }) => [seq, data]),
      [[4, { id: "a", names: ["gone"], count: 1 }]],
    )
  })
})
