"use strict"

// What suites 72, 73 and 75 leave: data, names, bytes, schemas and functions of the caller that do what nobody would. After
// each the store goes on, verify finds nothing, and what had been run is there.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { Worker } = require("node:worker_threads")
const { SyncError, createRegistry, define, open, project, sql } = require("syncline")
const { ACTS, NAMES, PLACES, schemaOf, strangeValues } = require("./hostile-values")
const { coded, dump, noteLog, openNotes, temporaryFolder, written } = require("./notes")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)

const prototypes = [Object, Array, Function, String, Number, Uint8Array, Promise, Map, Error, SyncError]
const untouched = prototypes.map(({ prototype }) => Reflect.ownKeys(prototype))

let store, Written, errors

/** Opens the notes anew; "kept" has been run. */
function begin(options, path = ":memory:") {
  errors = []
  const onListenerError = (error) => errors.push(error)
  const { Written: given, ...settings } = options ?? {}
  const opened = openNotes(path, { onListenerError, ...settings })
  store = opened.store
  Written = given ?? opened.Written
  store.run(Written, { noteID: "kept" })
}

beforeEach(() => begin())
afterEach(() => {
  store.close()
  assert.deepEqual(
    prototypes.map(({ prototype }) => Reflect.ownKeys(prototype)),
    untouched,
    "a prototype was polluted",
  )
})

/** The store goes on, is sound, and holds what was run. */
async function sound(of = store, definition = Written) {
  assert.equal(of.db.inTransaction, false)
  const seq = of.sequence("kept")
  assert.equal(of.run(definition, { noteID: "kept" }).seq, seq + 1)
  assert.deepEqual(await of.verify(), [])
  for (const { aggregateID, seq: last } of of.aggregates()) {
    // All of them, or those after a removal.
    const seqs = of.read(aggregateID).map((event) => event.seq)
    assert.deepEqual(
      seqs,
      seqs.map((_, n) => last + 1 - seqs.length + n),
    )
    if (aggregateID === "kept") assert.equal(seqs[0], 0)
  }
}

/** What was thrown, boxed: null may have been. */
function thrownBy(call) {
  try {
    call()
  } catch (error) {
    return { error }
  }
  return assert.fail("nothing was thrown")
}

describe("a schema", () => {
  const storeOf = (validate) => {
    const registry = createRegistry()
    const schema = schemaOf(validate)
    const Note = define({ type: "note.written", version: 1, aggregate: "noteID", schema, projector: "none", registry })
    store = open(":memory:", { registry })
    return Note
  }
  const both = (Note, check) => {
    assert.throws(() => store.run(Note, { noteID: "a" }), check)
    assert.throws(() => store.replay(written("a", 0)), check)
    assert.equal(store.sequence("a"), -1)
    assert.deepEqual(store.aggregates(), [])
  }

  test("that answers with what is no result is refused, at run and at replay", () => {
    for (const answer of [
      undefined,
      null,
      5,
      "text",
      true,
      { issues: "x" },
      { issues: 5 },
      { issues: { length: 1 } },
    ]) {
      both(
        storeOf(() => answer),
        coded("ERR_INVALID_ARGUMENT", { message: /schema of note\.written\.1/ }),
      )
    }
  })

  test("whose issues are none is heard as far as they tell something", () => {
    for (const [issue, message] of [
      [null, /null/],
      [undefined, /undefined/],
      [5, /5/],
      [{ message: Symbol("why") }, /Symbol\(why\)/],
      [{ message: "why", path: 5 }, /why/],
      [{ message: "why", path: [null, { key: Symbol("k") }, 1] }, /null\.Symbol\(k\)\.1: why/],
      [{ path: [] }, /an object/],
    ]) {
      both(
        storeOf(() => ({ issues: [issue] })),
        coded("ERR_INVALID_DATA", { message }),
      )
    }
  })

  test("that throws anything: the very value comes out, and nothing is half done", () => {
    for (const [name, value] of Object.entries(strangeValues())) {
      let calm = false
      const Note = storeOf((input) => {
        if (calm) return { value: input }
        throw value
      })
      for (const call of [() => store.run(Note, { noteID: "a" }), () => store.replay(written("a", 0))]) {
        assert.ok(Object.is(thrownBy(call).error, value), name)
        assert.equal(store.db.inTransaction, false)
      }
      calm = true
      assert.equal(store.run(Note, { noteID: "a" }).seq, 0)
    }
  })

  test("that uses raw SQL under the lock of a replay neither ends its transaction nor loses its events", () => {
    for (const statement of ["COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "VACUUM"]) {
      let seen = 0
      const Note = storeOf((value) => {
        if (seen++ === 0) {
          try {
            store.db.exec(statement)
          } catch (error) {
            assert.ok(error instanceof SyncError, error?.stack)
          }
        }
        return { value }
      })
      assert.equal(store.replayAll([written("a", 0), written("a", 1)], { publish: true })[0].applied, 2, statement)
      assert.equal(store.db.inTransaction, false, statement)
      assert.equal(store.run(Note, { noteID: "a" }).seq, 2, statement)
    }
  })
})

describe("an upcast", () => {
  function upcasting(upcast, kind, validate = "always") {
    const registry = createRegistry()
    const schema = schemaOf((value) => ({ value }))
    const shape = { type: "note.written", aggregate: "noteID", schema, registry }
    define({ ...shape, version: 1 })
    const Second = define({ ...shape, version: 2, upcast: { 1: upcast } })
    const insert = (tx, data) => tx.prepare("INSERT INTO seen VALUES (?)").run(JSON.stringify(data))
    const projectors = [project(Second, kind === "sql" ? sql`INSERT INTO seen VALUES (:data)` : insert)]
    store = open(":memory:", { registry, validate, projectors, migrate: (db) => db.exec("CREATE TABLE seen (data)") })
    return Second
  }

  test("that returns what JSON cannot carry is ERR_INVALID_DATA, whatever projects", () => {
    const cyclic = { noteID: "a" }
    cyclic.self = cyclic
    let deep = {}
    for (let level = 0; level < 100_000; level++) deep = { deep }
    const toJSON = () => undefined
    for (const value of [undefined, () => {}, Symbol("s"), { toJSON }, { noteID: "a", big: 5n }, cyclic, deep]) {
      for (const [kind, validate] of [
        ["sql", "always"],
        ["sql", "never"],
        ["function", "always"],
        ["function", "never"],
      ]) {
        const Second = upcasting(() => value, kind, validate)
        const failed = coded("ERR_INVALID_DATA", { type: "note.written.1", index: 0, aggregateID: "a" })
        assert.throws(() => store.replay(written("a", 0)), failed)
        assert.deepEqual([store.sequence("a"), store.db.prepare("SELECT * FROM seen").all()], [-1, []])
        assert.equal(store.run(Second, { noteID: "b" }).seq, 0)
      }
    }
  })

  test("that changes what it was given changes neither the log nor what is delivered", () => {
    upcasting((data) => Object.assign(data, { noteID: "other", evil: true }), "function")
    const heard = []
    store.subscribeAll((event) => heard.push(event.aggregateID, event.data))
    store.replay(written("a", 0), { publish: true })
    assert.deepEqual(heard, ["a", { noteID: "a" }])
    assert.deepEqual(store.get("a", 0).data, { noteID: "a" })
  })
})

describe("a projector", () => {
  let act
  const via = {
    run: () => store.run(Written, { noteID: "kept", act: true }),
    runAll: () => store.runAll([["x"], ["kept", true]].map(([noteID, acts]) => [Written, { noteID, act: acts }])),
    transaction: () => store.transaction(() => via.run(store.run(Written, { noteID: "x" }))),
    replay: () => store.replay(written("kept", 1, { data: { noteID: "kept", act: true } }), { publish: true }),
    remove: () => store.remove("kept", { event: [Written, { noteID: "kept", act: true }] }),
  }

  beforeEach(() => {
    store.close()
    const log = noteLog()
    const acting = (tx, data, event) => {
      log.write.apply(tx, data, event)
      return data.act ? act(tx, event) : undefined
    }
    begin({ registry: log.registry, projectors: [project(log.Written, acting)], Written: log.Written })
  })

  test("that throws anything: the very value comes out of every call, and the tables are as before", async () => {
    for (const [name, value] of Object.entries(strangeValues())) {
      act = () => {
        throw value
      }
      for (const [call, fn] of Object.entries(via)) {
        const before = dump(store.db)
        assert.ok(Object.is(thrownBy(fn).error, value), `${name} out of ${call}`)
        assert.deepEqual(dump(store.db), before, `${name} out of ${call}`)
      }
      const { error } = await store
        .runAsync(Written, { noteID: "kept", act: true })
        .then(assert.fail, (error) => ({ error }))
      assert.ok(Object.is(error, value), name)
    }
    await sound()
  })

  test("that closes its connection or its store is refused by every call", async () => {
    for (const close of [
      (tx) => tx.close(),
      () => store.close(),
      () => store[Symbol.dispose ?? Symbol.for("Symbol.dispose")](),
    ]) {
      act = close
      for (const fn of Object.values(via)) {
        const before = dump(store.db)
        assert.throws(fn, coded("ERR_IN_PROJECTOR"))
        assert.deepEqual(dump(store.db), before)
      }
    }
    await sound()
  })

  test("that changes the event it was given changes nothing of what listeners hear", async () => {
    const heard = []
    const metadata = { by: "me", deep: { n: 1 } }
    act = (_tx, event) => {
      if (event.metadata) Object.assign(event.metadata, { by: "evil" }).deep.n = 2
      Object.assign(event, { id: "evil", seq: 99, aggregateID: "evil", version: 7, created: 5, data: {}, type: "evil" })
    }
    store.subscribe(Written, ({ id, seq, aggregateID, type, metadata }) =>
      heard.push([id, seq, aggregateID, type, metadata]),
    )
    const stream = store.stream()
    store.run(Written, { noteID: "kept", act: true }, { metadata })
    store.replay(written("kept", 2, { data: { noteID: "kept", act: true }, metadata }), { publish: true })
    const stored = store.read("kept", { after: 0 })
    assert.deepEqual(
      heard,
      stored.map(({ id, seq, aggregateID }) => [id, seq, aggregateID, "note.written", metadata]),
    )
    assert.deepEqual(
      stored.map((event) => event.metadata),
      [metadata, metadata],
    )
    assert.deepEqual([(await stream.next()).value.seq, (await stream.next()).value.aggregateID], [1, "kept"])
    await stream.return()
    await sound()
  })

  test("that is a generator function is refused: nothing in it would run", () => {
    for (const generator of [function* () {}, async function* () {}]) {
      assert.throws(() => project(Written, generator), coded("ERR_ASYNC_PROJECTOR", { type: "note.written.1" }))
    }
  })
})

describe("convertEvent", () => {
  const later = () => new Promise((resume) => setTimeout(resume, 5))
  // oxlint-disable-next-line unicorn/no-thenable -- what is no promise may still be one to whoever awaits it.
  const ANSWERS = [(act) => act(), (act) => ({ then: (resolve) => resolve(act()) })]

  test("that throws, answers twice, or whose answer cannot be looked at: told, and nobody else is kept waiting", async () => {
    const refuse = () => {
      throw null
    }
    // oxlint-disable-next-line unicorn/no-thenable -- what is no promise may still be one to whoever awaits it.
    const thenable = (then) => () => ({ then })
    const cases = [
      [refuse, 0],
      [() => new Proxy({}, { get: refuse }), 0],
      [thenable(refuse), 0],
      [thenable((resolve, reject) => (resolve(1), resolve(2), reject(3))), 1],
      [(_type, data) => Object.setPrototypeOf(Object.assign(data, { noteID: "evil" }), null), 1],
    ]
    for (const [convertEvent, delivered] of cases) {
      store.close()
      begin({ convertEvent })
      const heard = []
      store.subscribeAll((event) => heard.push(event.aggregateID))
      for (const noteID of ["a", "b"]) assert.equal(store.run(Written, { noteID }).seq, 0)
      await later()
      assert.deepEqual(heard, delivered ? ["a", "b"] : [])
      assert.deepEqual(errors, delivered ? [] : [null, null])
      assert.deepEqual(store.get("a", 0).data, { noteID: "a" })
      await sound()
    }
  })

  test("that runs events, also from within `then`, delays them and loses none", async () => {
    for (const answer of ANSWERS) {
      let left = 3
      const act = () => left-- > 0 && store.run(Written, { noteID: "inner" }).seq
      store.close()
      begin({ convertEvent: () => answer(act) })
      left = 3
      const heard = []
      store.subscribeAll((event) => heard.push(`${event.aggregateID}${event.seq}`))
      store.run(Written, { noteID: "outer" })
      await later()
      assert.deepEqual(heard, ["outer0", "inner0", "inner1", "inner2"])
      await sound()
    }
  })

  test("that closes the store ends the delivery, and the run has succeeded", async () => {
    for (const answer of ANSWERS) {
      store.close()
      begin({ convertEvent: () => answer(() => store.close()) })
      store.subscribeAll(() => assert.fail())
      assert.equal(store.run(Written, { noteID: "a" }).seq, 0)
      await later()
      assert.throws(() => store.sequence("a"), coded("ERR_CLOSED"))
    }
  })
})

describe("the caller's code in the middle of a call", () => {
  for (const [place, call] of Object.entries(PLACES)) {
    test(`${place}: runs, replays, removes, opens transactions, and closes`, async () => {
      for (const act of Object.values(ACTS)) {
        await call(store, Written, () => void act(store, Written))
        // What waits has its turn.
        await store.runAsync(Written, { noteID: "last" })
        assert.ok(store.sequence("kept") >= 0)
        await sound()
      }
      store.close()
      const path = newPath()
      begin({}, path)
      try {
        await call(store, Written, () => void store.close())
      } catch (error) {
        assert.ok(coded("ERR_CLOSED")(error))
      }
      assert.equal(store.db.open, false)
      begin({}, path)
      assert.equal(store.sequence("kept"), 1)
      assert.deepEqual(
        store.read("kept").map((event) => event.data),
        [{ noteID: "kept" }, { noteID: "kept" }],
      )
      await sound()
    })
  }

  test("a list that changes while it is made into text is run as it was given; a hole is no pair", async () => {
    const list = [
      [Written, { toJSON: () => ((list.length = 0), { noteID: "x" }) }],
      [Written, { noteID: "y" }],
    ]
    assert.deepEqual(
      store.runAll(list).map((event) => event.aggregateID),
      ["x", "y"],
    )
    // oxlint-disable-next-line no-sparse-arrays -- the hole is the point.
    for (const sparse of [[,], [, [Written, { noteID: "z" }]], { length: 1, 0: [Written, { noteID: "z" }] }]) {
      assert.throws(() => store.runAll(sparse), coded("ERR_INVALID_ARGUMENT"))
      await assert.rejects(store.runAllAsync(sparse), coded("ERR_INVALID_ARGUMENT"))
    }
    assert.equal(store.sequence("z"), -1)
    await sound()
  })

  test("what only looks like a signal is refused before anything has begun", async () => {
    const signal = Object.create(AbortSignal.prototype)
    const invalid = coded("ERR_INVALID_ARGUMENT", { message: /signal/ })
    for (const call of [
      () => store.stream({ signal }),
      () => store.changes({ signal }),
      () => store.log({ aggregateID: "kept", signal }),
    ]) {
      assert.throws(call, invalid)
    }
    for (const promise of [
      store.runAsync(Written, { noteID: "a" }, { signal }),
      store.replayAllAsync("[]", { signal }),
      store.waitFor({ kept: 0 }, { signal }),
      store.verify({ signal }),
      store.maintain({ signal }),
    ]) {
      await assert.rejects(promise, invalid)
    }
    await sound()
  })
})

describe("bytes", () => {
  const bytes = Buffer.from(JSON.stringify(written("a", 0)))
  const filled = (buffer) => (new Uint8Array(buffer).set(bytes), new Uint8Array(buffer))
  const resizable = (length) => filled(new ArrayBuffer(length, { maxByteLength: 10_000 }))
  const transferred = (view) => (structuredClone(view.buffer, { transfer: [view.buffer] }), view)

  test("shared, or of a buffer that can grow, are read as they are", () => {
    for (const input of [
      filled(new SharedArrayBuffer(bytes.length)),
      filled(new SharedArrayBuffer(bytes.length, { maxByteLength: 10_000 })),
      resizable(bytes.length),
    ]) {
      const { applied, duplicate } = store.replayAll(input)[0]
      assert.equal(applied + duplicate, 1)
      assert.deepEqual(store.db.prepare("SELECT ? AS v").pluck().get(input), bytes)
    }
  })

  test("of a buffer that is gone are refused, and not taken for nothing", async () => {
    const cut = new Uint8Array(resizable(bytes.length).buffer, 5, 20)
    cut.buffer.resize(3)
    const invalid = coded("ERR_INVALID_ARGUMENT")
    for (const gone of [transferred(Uint8Array.from(bytes)), cut]) {
      assert.throws(() => store.replayAll(gone), invalid)
      await assert.rejects(store.replayAllAsync(gone), invalid)
      assert.throws(() => store.db.prepare("SELECT ?").bind(gone), invalid)
    }
    const view = transferred(new DataView(new ArrayBuffer(8)))
    assert.throws(() => store.db.prepare("SELECT ?").get(view), invalid)
    store.db.function("view", () => view)
    assert.throws(() => store.db.prepare("SELECT view()").get(), invalid)
    await sound()
  })

  test("that another thread changes meanwhile give an event or a coded error, and what is stored is whole", async () => {
    const text = `${JSON.stringify(written("a", 0, { data: { noteID: "a", text: "é".repeat(20_000) } }))}\n`
    const shared = new Uint8Array(new SharedArrayBuffer(Buffer.byteLength(text)))
    const whole = Buffer.from(text)
    shared.set(whole)
    // One byte of a character comes and goes, so that the text is UTF-8 at one moment and not at the next.
    const program = `
      const { workerData } = require("node:worker_threads")
      const bytes = new Uint8Array(workerData.buffer)
      for (let at = 0; ; at = (at + 2) % 20000) { bytes[workerData.from + at] ^= 0x40; bytes[workerData.from + at] ^= 0x40 }
    `
    const worker = new Worker(program, { eval: true, workerData: { buffer: shared.buffer, from: text.indexOf("é") } })
    await once(worker, "online")
    const outcomes = { whole: 0, refused: 0 }
    // And on, where the other thread has not had its turn yet.
    for (let round = 0; round < 400 || (outcomes.refused === 0 && round < 100_000); round++) {
      try {
        store.replayAll(shared)
        outcomes.whole++
      } catch (error) {
        assert.ok(error instanceof SyncError, error?.stack)
        outcomes.refused++
      }
      assert.ok(store.read("a").every((event) => Buffer.from(event.data.text).length === 40_000))
    }
    await worker.terminate()
    assert.ok(outcomes.refused > 0, "the thread changed nothing")
    await sound()
  })
})

describe("names that mean something elsewhere", () => {
  test("are ids of aggregates, owners, keys of data and metadata like any others, in rows and in segments", async () => {
    store.close()
    const path = newPath()
    begin({ owner: "\u202e'; --" }, path)
    for (const noteID of NAMES) {
      const metadata = JSON.parse(`{${JSON.stringify(noteID)}:1}`)
      const data = JSON.parse(`{"noteID":${JSON.stringify(noteID)},${JSON.stringify(`${noteID}!`)}:1}`)
      for (let seq = 0; seq < 3; seq++) assert.equal(store.run(Written, data, { metadata }).seq, seq)
      assert.equal(store.replay({ ...store.get(noteID, 2), seq: 3, id: "again" }).seq, 3)
    }
    const check = async () => {
      assert.deepEqual(new Set(store.sequences().keys()), new Set(["kept", ...NAMES]))
      for (const noteID of NAMES) {
        assert.deepEqual(
          store
            .aggregates({ prefix: noteID })
            .map((one) => one.aggregateID)
            .toSorted(),
          NAMES.filter((other) => other.startsWith(noteID)).toSorted(),
        )
        assert.deepEqual(store.owner(noteID), { owner: "\u202e'; --", epoch: 1 })
        const events = store.read(noteID)
        assert.deepEqual(
          events.map(({ seq }) => seq),
          [0, 1, 2, 3],
        )
        for (const { data, metadata } of events) {
          assert.deepEqual([data.noteID, Object.keys(metadata)], [noteID, [noteID]])
        }
        const kinds = []
        for await (const { kind } of store.log({ aggregateID: noteID, after: 1 })) kinds.push(kind)
        assert.deepEqual(kinds, ["event", "event", "synced"])
        await store.waitFor(new Map([[noteID, 3]]))
        assert.equal(store.db.prepare("SELECT writes FROM note WHERE id = ?").pluck().get(noteID), 4)
      }
      assert.deepEqual(await store.verify(), [])
    }
    await check()
    await store.maintain()
    await check()
    const dumped = dump(store.db).note
    assert.deepEqual(dumped.map(([id]) => id).toSorted(), ["kept", ...NAMES].toSorted())
    for (const noteID of NAMES.slice(0, 8)) {
      store.remove(noteID)
      assert.deepEqual([store.read(noteID), store.sequence(noteID)], [[], 3])
    }
    assert.deepEqual(await store.verify(), [])
  })

  test("are types, versions, fields of aggregates and paths of keys like any others", async () => {
    for (const name of NAMES.filter((name) => Buffer.byteLength(name) < 250 && !name.includes("."))) {
      const registry = createRegistry()
      const schema = schemaOf((value) => ({ value }))
      const shape = { type: name, version: 1, aggregate: name, schema, registry, projector: "none" }
      const Named = define({ ...shape, compactKey: name, dedupe: [] })
      store.close()
      store = open(":memory:", { registry })
      const data = JSON.parse(`{${JSON.stringify(name)}:"a"}`)
      const heard = []
      store.subscribe(Named, ({ type, data }) => heard.push(type, JSON.stringify(data)))
      assert.deepEqual([store.run(Named, data).seq, store.run(Named, data).unchanged], [0, true])
      for (let seq = 1; seq < 4; seq++) store.replay({ ...store.get("a", 0), seq, id: `${seq}` }, { publish: true })
      assert.equal(store.get("a", 3).type, `${name}.1`)
      assert.deepEqual(
        heard,
        [0, 1, 2, 3].flatMap(() => [name, JSON.stringify(data)]),
      )
      await store.maintain()
      assert.deepEqual(
        store.read("a").map(({ seq }) => seq),
        [0, 3],
      )
      assert.deepEqual(
        store.stats().types.map(({ type }) => type),
        [`${name}.1`],
      )
      assert.deepEqual(await store.verify(), [])
    }
  })

  test("are columns, and tables of rows that are expanded", () => {
    for (const name of NAMES.filter((name) => !name.includes("\0") && name !== "$")) {
      const quoted = `"${name.replaceAll('"', '""')}"`
      store.db.exec(`CREATE TABLE IF NOT EXISTS ${quoted.replace('"', '"t')} (${quoted})`)
      store.db.prepare(`INSERT INTO ${quoted.replace('"', '"t')} VALUES (1)`).run()
      const expanded = store.db
        .prepare(`SELECT * FROM ${quoted.replace('"', '"t')}`)
        .expand()
        .get()
      assert.deepEqual(Object.keys(expanded), [`t${name}`])
      assert.deepEqual(Object.entries(expanded[`t${name}`]), [[name, 1]])
    }
    store.db.exec('CREATE TABLE "__proto__" ("__proto__"); INSERT INTO "__proto__" VALUES (1)')
    const row = store.db.prepare('SELECT * FROM "__proto__"').expand().get()
    assert.deepEqual([Object.keys(row), Object.getPrototypeOf(row)], [["__proto__"], Object.prototype])
  })
})

describe("sizes", () => {
  const MiB16 = 16 * 1024 * 1024

  test("a name or a statement of 16 MiB is refused with a code, and takes nothing with it", async () => {
    const long = "x".repeat(MiB16)
    const large = coded("ERR_TOO_LARGE")
    for (const [call, check] of [
      [() => store.run(Written, { noteID: long }), large],
      [() => store.replay(written(long, 0)), large],
      [() => store.read(long), large],
      [() => store.claim("kept", long), large],
      [() => store.sequences([long]), large],
      [() => store.log({ aggregateID: long }), large],
      [
        () =>
          define({ type: long, version: 1, aggregate: "a", schema: schemaOf(() => {}), registry: createRegistry() }),
        large,
      ],
      [() => open(":memory:", { owner: long }), large],
      [() => store.replay(written("a", 0, { id: long })), large],
      [() => store.replay(written("a", 0, { type: long })), large],
      [() => store.db.prepare(long), coded("ERR_SQLITE")],
    ]) {
      const { error } = thrownBy(call)
      assert.ok(error instanceof SyncError, error?.stack)
      assert.ok(error.message.length < 1_000, `${call} gives a message of ${error.message.length} characters`)
      check(error)
    }
    assert.deepEqual(store.aggregates({ prefix: long }), [])
    assert.equal(store.db.prepare("SELECT ? AS v").pluck().get(long).length, MiB16)
    await sound()
  })

  test("metadata, keys and characters of any width: 16 MiB at the bound are kept, one byte more is not", async () => {
    const rest = JSON.stringify({ noteID: "a", text: "" }).length
    for (const [character, bytes] of [
      ["é", 2],
      ["中", 3],
      ["\u{1f600}", 4],
      ["\0", 6],
      ["\ud800", 6],
      ['"', 2],
    ]) {
      const count = Math.floor((MiB16 - rest) / bytes)
      const filling = "x".repeat(MiB16 - rest - count * bytes)
      const data = { noteID: "a", text: character.repeat(count) + filling }
      const seq = store.sequence("a") + 1
      assert.equal(store.run(Written, data).seq, seq)
      assert.equal(store.get("a", seq).data.text, data.text)
      assert.throws(
        () => store.run(Written, { ...data, text: `${data.text}x` }),
        coded("ERR_TOO_LARGE", { size: MiB16 + 1 }),
      )
      const wide = { ["k".repeat(MiB16 - '{"":1}'.length)]: 1 }
      if (seq > 0) continue
      store.run(Written, { noteID: "m" }, { metadata: wide })
      assert.deepEqual(store.get("m", 0).metadata, wide)
      assert.throws(() => store.run(Written, { noteID: "m" }, { metadata: { ...wide, a: 1 } }), coded("ERR_TOO_LARGE"))
    }
    await sound()
  })
})
