"use strict"

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { z } = require("zod")
const { SyncError, open } = require("syncline")
const { SyncEvent, ...named } = require("syncline/sync-event")

const coded = (code, pattern = /./) => {
  return (error) => {
    assert.ok(error instanceof SyncError, `${error} is a SyncError`)
    assert.equal(error.code, code)
    assert.match(error.message, pattern)
    return true
  }
}

const TABLE = "CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, title TEXT)"

let folder, Renamed, projectors

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-sync-event-"))
  Renamed = SyncEvent.define({
    type: "session.renamed",
    version: 1,
    aggregate: "sessionID",
    schema: z.object({ sessionID: z.string(), title: z.string().default("untitled") }),
    busSchema: z.object({ title: z.string() }),
  })
  projectors = [
    SyncEvent.project(Renamed, (tx, data) => {
      tx.prepare("INSERT INTO session VALUES (:sessionID, :title) ON CONFLICT DO UPDATE SET title = :title").run(data)
    }),
  ]
})

afterEach(() => {
  try {
    SyncEvent.reset()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const init = (options = {}) =>
  SyncEvent.init({ path: join(folder, "app.db"), migrate: (db) => db.exec(TABLE), projectors, ...options })
const serialized = (seq, sessionID = "s", title = `t${seq}`) => ({
  id: `evt_${sessionID}${seq}`,
  type: "session.renamed.1",
  seq,
  aggregateID: sessionID,
  data: { sessionID, title },
})
const titles = (store) => store.db.prepare("SELECT id, title FROM session ORDER BY id").raw().all()

describe("defining", () => {
  test("gives type, version, aggregate, schema and properties, and fills the registry by type.version", () => {
    assert.deepEqual(Object.keys(Renamed), ["type", "version", "aggregate", "schema", "properties"])
    assert.equal(Renamed.type, "session.renamed")
    assert.notEqual(Renamed.properties, Renamed.schema)
    const Plain = SyncEvent.define({ type: "plain", version: 2, aggregate: "id", schema: z.object({ id: z.string() }) })
    assert.equal(Plain.properties, Plain.schema)
    assert.ok(SyncEvent.registry instanceof Map)
    assert.deepEqual([...SyncEvent.registry.keys()], ["session.renamed.1", "plain.2"])
    assert.equal(SyncEvent.registry.get("plain.2"), Plain)
  })

  test("twice, or after init, is refused", () => {
    const again = () => SyncEvent.define({ ...Renamed, properties: undefined })
    const { type, version, aggregate, schema } = Renamed
    assert.throws(again, coded("ERR_INVALID_ARGUMENT", /properties/))
    assert.throws(() => SyncEvent.define({ type, version, aggregate, schema }), coded("ERR_DUPLICATE_DEFINITION"))
    init()
    assert.throws(
      () => SyncEvent.define({ type, version: 2, aggregate, schema }),
      coded("ERR_FROZEN", /has been frozen/),
    )
    assert.throws(() => init(), coded("ERR_FROZEN", /has been frozen/))
    assert.equal(SyncEvent.registry.size, 1)
  })

  test("project gives the pair, and versionedType joins by a dot", () => {
    const apply = () => {}
    assert.deepEqual(SyncEvent.project(Renamed, apply), [Renamed, apply])
    assert.equal(SyncEvent.versionedType("session.renamed"), "session.renamed")
    assert.equal(SyncEvent.versionedType("session.renamed", 2), "session.renamed.2")
  })

  test("the namespace and the named exports are the same functions", () => {
    for (const [name, value] of Object.entries(SyncEvent)) assert.equal(named[name], value, name)
  })
})

describe("running", () => {
  test("before init is ERR_CLOSED, and of what is not defined ERR_UNKNOWN_EVENT", () => {
    assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }), coded("ERR_CLOSED", /init/))
    assert.throws(() => SyncEvent.replay(serialized(0)), coded("ERR_CLOSED"))
    assert.throws(() => SyncEvent.remove("s"), coded("ERR_CLOSED"))
    assert.throws(() => SyncEvent.claim("s", "me"), coded("ERR_CLOSED"))
    init()
    assert.throws(
      () => SyncEvent.run({ ...Renamed }, { sessionID: "s" }),
      coded("ERR_UNKNOWN_EVENT", /session.renamed.1/),
    )
  })

  test("projects the schema's output, returns the event and publishes the input", () => {
    const store = init()
    const heard = []
    const undo = SyncEvent.subscribeAll((delivery) => heard.push(delivery))
    const event = SyncEvent.run(Renamed, { sessionID: "s" })
    assert.equal(event.type, "session.renamed")
    assert.equal(event.version, 1)
    assert.equal(event.seq, 0)
    assert.equal(event.aggregateID, "s")
    assert.deepEqual(event.data, { sessionID: "s" })
    assert.deepEqual(titles(store), [["s", "untitled"]])
    assert.equal(heard.length, 1)
    assert.equal(heard[0].def, Renamed)
    assert.equal(heard[0].event.id, event.id)
    assert.deepEqual(heard[0].event.properties, { sessionID: "s" })
    SyncEvent.run(Renamed, { sessionID: "s" }, { publish: false })
    undo()
    SyncEvent.run(Renamed, { sessionID: "s" })
    assert.equal(heard.length, 1)
    assert.equal(store.sequence("s"), 2)
  })

  test("convertEvent makes the properties; a listener from before init hears too", () => {
    const heard = []
    SyncEvent.subscribeAll(({ event }) => heard.push(event.properties))
    init({ convertEvent: (type, data) => ({ type, title: data.title }) })
    SyncEvent.run(Renamed, { sessionID: "s", title: "t" })
    assert.deepEqual(heard, [{ type: "session.renamed", title: "t" }])
  })

  test("a failing listener reaches onListenerError, a rejected promise from one too", async () => {
    const errors = []
    init({ onListenerError: (error) => errors.push(error.message) })
    SyncEvent.subscribeAll(() => {
      throw new Error("thrown")
    })
    SyncEvent.subscribeAll(async () => {
      throw new Error("rejected")
    })
    SyncEvent.run(Renamed, { sessionID: "s" })
    await new Promise(setImmediate)
    assert.deepEqual(errors, ["thrown", "rejected"])
  })

  test("older versions with an upcast stay replayable", () => {
    const Second = SyncEvent.define({
      type: "session.renamed",
      version: 2,
      aggregate: "sessionID",
      schema: z.object({ sessionID: z.string(), name: z.string() }),
      upcast: { 1: (data) => ({ sessionID: data.sessionID, name: data.title }) },
    })
    const store = init({
      projectors: [
        SyncEvent.project(Second, (tx, data) =>
          tx.prepare("INSERT INTO session VALUES (?, ?)").run(data.sessionID, data.name),
        ),
      ],
    })
    assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }), coded("ERR_STALE_VERSION"))
    SyncEvent.replay(serialized(0))
    assert.deepEqual(titles(store), [["s", "t0"]])
  })
})

describe("replaying", () => {
  test("one event or many, published only when asked", () => {
    const store = init()
    const heard = []
    SyncEvent.subscribeAll(({ event }) => heard.push(event.seq))
    assert.deepEqual(SyncEvent.replay(serialized(0)), { aggregateID: "s", applied: 1, duplicate: 0, seq: 0 })
    const results = SyncEvent.replayAll([serialized(0), serialized(1), serialized(0, "z")], { publish: true })
    assert.deepEqual(results, [
      { aggregateID: "s", applied: 1, duplicate: 1, seq: 1 },
      { aggregateID: "z", applied: 1, duplicate: 0, seq: 0 },
    ])
    assert.deepEqual(heard, [1, 0])
    assert.deepEqual(titles(store), [
      ["s", "t1"],
      ["z", "t0"],
    ])
  })

  test("a foreign owner is skipped and reported, the others are applied and claimed", () => {
    const store = init()
    SyncEvent.replay(serialized(0), { ownerID: "one" })
    assert.deepEqual(store.owner("s").owner, "one")
    const events = [serialized(1), serialized(0, "z"), serialized(2)]
    assert.deepEqual(SyncEvent.replayAll(events, { ownerID: "two" }), [
      { aggregateID: "s", applied: 0, duplicate: 0, seq: 0, skipped: 2, owner: "one" },
      { aggregateID: "z", applied: 1, duplicate: 0, seq: 0 },
    ])
    assert.equal(store.owner("z").owner, "two")
    assert.equal(store.sequence("s"), 0)
    const alone = SyncEvent.replay(serialized(1), { ownerID: "two" })
    assert.deepEqual(alone, { aggregateID: "s", applied: 0, duplicate: 0, seq: 0, skipped: 1, owner: "one" })
    assert.deepEqual(SyncEvent.replayAll(events.slice(0, 1), { ownerID: "one" })[0].applied, 1)
    assert.deepEqual(SyncEvent.replayAll([], { ownerID: "one" }), [])
  })

  test("anything else that is wrong throws, and changes nothing", () => {
    const store = init()
    for (const options of [{}, { ownerID: "me" }]) {
      assert.throws(() => SyncEvent.replayAll([serialized(0), serialized(2)], options), coded("ERR_SEQUENCE_MISMATCH"))
      assert.throws(() => SyncEvent.replayAll([serialized(0), {}], options), coded("ERR_INVALID_EVENT"))
      assert.throws(() => SyncEvent.replayAll([serialized(0), null], options), coded("ERR_INVALID_EVENT"))
    }
    assert.equal(store.sequence("s"), -1)
    assert.deepEqual(titles(store), [])
  })

  test("claim and remove", () => {
    const store = init()
    SyncEvent.run(Renamed, { sessionID: "s" })
    assert.equal(SyncEvent.claim("s", "me").owner, "me")
    assert.equal(SyncEvent.claim("s", null).owner, null)
    SyncEvent.remove("s")
    assert.deepEqual(store.read("s"), [])
    assert.equal(store.sequence("s"), 0)
  })
})

describe("a store of the caller's own", () => {
  test("that was opened with openOptions is used, and stays open after reset", () => {
    const store = open(join(folder, "own.db"), {
      ...SyncEvent.openOptions({ projectors }),
      migrate: (db) => db.exec(TABLE),
    })
    try {
      assert.equal(SyncEvent.init({ store, projectors }), store)
      SyncEvent.run(Renamed, { sessionID: "s", title: "t" })
      assert.deepEqual(titles(store), [["s", "t"]])
      const heard = []
      SyncEvent.subscribeAll(({ event }) => heard.push(event.seq))
      SyncEvent.reset()
      assert.equal(store.db.open, true)
      assert.deepEqual(heard, [])
    } finally {
      store.close()
    }
  })

  test("that does not know the projectors is refused", () => {
    const store = open(join(folder, "own.db"))
    try {
      assert.throws(() => SyncEvent.init({ store, projectors }), coded("ERR_INVALID_ARGUMENT", /openOptions/))
      SyncEvent.openOptions({ projectors })
      const [[, apply]] = projectors
      const skipping = SyncEvent.project(Renamed, apply, { onConstraint: "skip" })
      for (const other of [SyncEvent.project(Renamed, () => {}), skipping]) {
        const init = () => SyncEvent.init({ store, projectors: [other] })
        assert.throws(init, coded("ERR_INVALID_ARGUMENT", /session.renamed.1/))
      }
    } finally {
      store.close()
    }
  })

  test("that has another registry is refused, whatever openOptions was asked for", () => {
    SyncEvent.openOptions({ projectors })
    const store = open(join(folder, "own.db"))
    try {
      for (const options of [{ store }, { store, projectors }, { store: {} }, { store: null }]) {
        assert.throws(() => SyncEvent.init(options), coded("ERR_INVALID_ARGUMENT", /registry/))
      }
      assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }), coded("ERR_CLOSED"))
    } finally {
      store.close()
    }
  })
})

describe("payloads", () => {
  test("describe each event's serialized form, data included where the schema's library offers it", () => {
    const validate = (value) => ({ value })
    const schema = { "~standard": { version: 1, vendor: "plain", validate } }
    SyncEvent.define({ type: "plain", version: 1, aggregate: "id", schema })
    const [renamed, plain] = SyncEvent.payloads()
    assert.equal(renamed.title, "session.renamed.1")
    assert.deepEqual(renamed.properties.type, { const: "session.renamed.1" })
    assert.deepEqual(renamed.required, ["id", "type", "seq", "aggregateID", "data"])
    assert.deepEqual(renamed.properties.data.properties.sessionID, { type: "string" })
    assert.deepEqual(renamed.properties.data.required, ["sessionID"])
    assert.deepEqual(plain.properties.data, { type: "object" })
    assert.doesNotThrow(() => JSON.stringify([...SyncEvent.payloads()]))
  })
})

describe("reset", () => {
  test("really resets: the store is closed, definitions, projectors and listeners are gone", () => {
    const store = init()
    const heard = []
    SyncEvent.subscribeAll(({ event }) => heard.push(event.seq))
    SyncEvent.reset()
    assert.throws(() => store.read("s"), coded("ERR_CLOSED"))
    assert.equal(SyncEvent.registry.size, 0)
    assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }), coded("ERR_CLOSED"))
    const { type, version, aggregate, schema } = Renamed
    const Again = SyncEvent.define({ type, version, aggregate, schema })
    init({ projectors: [SyncEvent.project(Again, () => {})] })
    SyncEvent.run(Again, { sessionID: "s" })
    assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }), coded("ERR_UNKNOWN_EVENT"))
    assert.deepEqual(heard, [])
  })

  test("definitions of module level are taken up again by the projectors that name them", () => {
    init()
    SyncEvent.reset()
    const store = init()
    assert.equal(SyncEvent.registry.get("session.renamed.1"), Renamed)
    SyncEvent.run(Renamed, { sessionID: "s", title: "t" })
    assert.deepEqual(titles(store), [["s", "t"]])
  })

  test("with a definition the other versions of its type come back, and none of another time", () => {
    const { type, aggregate, schema } = Renamed
    const second = {
      type,
      version: 2,
      aggregate,
      schema: z.object({ sessionID: z.string(), name: z.string() }),
      upcast: { 1: (data) => ({ sessionID: data.sessionID, name: data.title }) },
    }
    const Second = SyncEvent.define(second)
    const Other = SyncEvent.define({ type: "other", version: 1, aggregate, schema })
    const again = [
      SyncEvent.project(Second, (tx, data) => {
        tx.prepare("INSERT INTO session VALUES (?, ?)").run(data.sessionID, data.name)
      }),
    ]
    for (const id of ["a", "b"]) {
      SyncEvent.reset()
      const store = init({ projectors: again, path: join(folder, `${id}.db`) })
      assert.deepEqual([...SyncEvent.registry.values()], [Second, Renamed])
      SyncEvent.replay(serialized(0, id))
      assert.deepEqual(titles(store), [[id, "t0"]])
      assert.throws(() => SyncEvent.run(Other, { sessionID: "s" }), coded("ERR_UNKNOWN_EVENT"))
    }
    SyncEvent.reset()
    const First = SyncEvent.define({ type, version: 1, aggregate, schema })
    init({ projectors: [SyncEvent.project(First, () => {})], path: join(folder, "c.db") })
    assert.deepEqual([...SyncEvent.registry.values()], [First])
    assert.equal(SyncEvent.run(First, { sessionID: "s" }).version, 1)
  })

  test("a failed init leaves nothing behind", () => {
    assert.throws(() => init({ path: folder }), SyncError)
    assert.throws(() => init({ unknown: 1 }), coded("ERR_INVALID_ARGUMENT"))
    const { aggregate, schema } = Renamed
    SyncEvent.define({ type: "later", version: 1, aggregate, schema })
    init()
    SyncEvent.run(Renamed, { sessionID: "s" })
  })
})

describe("what is wrongly called", () => {
  const invalid = (fn) => assert.throws(fn, coded("ERR_INVALID_ARGUMENT"), String(fn))

  test("is refused before init", () => {
    const definition = { type: "t", version: 1, aggregate: "id", schema: z.object({ id: z.string() }) }
    invalid(() => SyncEvent.define())
    invalid(() => SyncEvent.define(null))
    invalid(() => SyncEvent.define({ ...definition, ephemeral: true }))
    invalid(() => SyncEvent.define({ ...definition, type: "" }))
    invalid(() => SyncEvent.project())
    invalid(() => SyncEvent.project(Renamed))
    invalid(() => SyncEvent.project({ ...Renamed }, () => {}))
    for (const options of [undefined, null, 1, {}, { path: "x" }, { path: "x", projectors: [[]] }]) {
      invalid(() => SyncEvent.init(options))
    }
    invalid(() => SyncEvent.init({ projectors }))
    invalid(() => SyncEvent.openOptions())
    invalid(() => SyncEvent.openOptions({ projectors, migrate: () => {} }))
    for (const listener of [undefined, null, {}]) invalid(() => SyncEvent.subscribeAll(listener))
  })

  test("is refused after it", () => {
    init()
    for (const options of [null, 1, { owner: "me" }]) {
      invalid(() => SyncEvent.replay(serialized(0), options))
      invalid(() => SyncEvent.replayAll([serialized(0)], options))
    }
    for (const ownerID of [undefined, "me"]) {
      for (const events of [undefined, null, 1, {}]) invalid(() => SyncEvent.replayAll(events, { ownerID }))
    }
    invalid(() => SyncEvent.replayAll([serialized(0)], { ownerID: 1 }))
    invalid(() => SyncEvent.run(Renamed, { sessionID: "s" }, null))
    invalid(() => SyncEvent.run(Renamed, { sessionID: "s" }, { ownerID: "me" }))
    const options = { expectedSeq: -1, created: 5, metadata: { by: "me" } }
    assert.equal(SyncEvent.run(Renamed, { sessionID: "s" }, options).created, 5)
    assert.throws(() => SyncEvent.run(Renamed, { sessionID: "s" }, options), coded("ERR_CONFLICT"))
  })
})
