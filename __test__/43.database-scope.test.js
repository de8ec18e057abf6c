"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { coded, history, kept, openNotes, turns } = require("./stores.js")
const { counted, deltas, logged, named, newFile, reading, until } = require("./streaming.js")

const DATABASE = { scope: "database" }

/** Two stores on one file, what listeners of either scope of the first one hear, and a shorthand that records an event. */
function together(options) {
  const given = deltas()
  const path = newFile()
  const errors = []
  const store = openNotes(given, { path, onListenerError: (...args) => errors.push(args), ...options })
  const other = openNotes(given, { path })
  const heard = []
  const own = []
  store.subscribeAll((event) => own.push(named(event)))
  const undo = store.subscribeAll((event) => heard.push(named(event)), DATABASE)
  const see = (by, noteID = "a", more = {}) => by.run(given.Seen, { noteID, ...more })
  return { given, path, store, other, errors, heard, own, undo, see }
}

/** All recorded events of the file in the order of their commits, as the suites name them. */
const recorded = (store) => store.readAll({ limit: 100_000 }).map(({ aggregateID, seq }) => `${aggregateID}${seq}`)

describe("issue 3: scope database", () => {
  test("hears what another store commits, as that store's own listeners hear it", async () => {
    const { given, store, other } = together()
    const [here, there] = [[], []]
    store.subscribeAll((event) => here.push(event), DATABASE)
    other.subscribeAll((event) => there.push(event))
    other.run(given.Written, { noteID: "a" }, { metadata: { m: [1] }, created: 5 })
    other.run(given.Tagged, { noteID: "a", tag: "t" })
    await until(() => here.length === 2)
    for (const [index, event] of here.entries()) {
      assert.notEqual(event, there[index])
      assert.deepEqual(JSON.parse(JSON.stringify(event)), JSON.parse(JSON.stringify(there[index])))
      assert.deepEqual(Object.keys(event).toSorted(), Object.keys(there[index]).toSorted())
    }
    assert.deepEqual([here[0].type, here[0].version, here[0].position], ["note.written", 1, 1])
  })

  test("what was committed below a local event comes before it, and before run returns", () => {
    const { store, other, heard, own, see } = together()
    see(other)
    see(other, "b")
    see(store, "c")
    assert.deepEqual(heard, ["a0", "b0", "c0"])
    see(other)
    store.transaction(() => (see(store, "c"), see(store, "d")))
    assert.deepEqual(heard.slice(3), ["a1", "c1", "d0"])
    const deferred = store.db.transaction(() => (see(other), see(store, "c"))).deferred
    deferred()
    assert.deepEqual(heard.slice(6), ["a2", "c2"])
    assert.deepEqual(own, ["c0", "c1", "d0", "c2"])
  })

  test("comes by itself where nothing happens here, and each once", async () => {
    const { store, other, heard, see } = together()
    for (let n = 0; n < 30; n++) {
      see(other, `${"abc"[n % 3]}`)
      if (n % 7 === 0) see(store, "local")
      if (n % 5 === 0) await turns()
    }
    await until(() => heard.length >= 35)
    see(store, "end")
    assert.deepEqual(heard, recorded(store))
  })

  test("delivers every event that is committed, whatever its publish said; the default scope does not", async () => {
    const { given, store, other, heard, own } = together()
    const explicit = []
    store.subscribeAll((event) => explicit.push(named(event)), { scope: "process" })
    const typed = []
    store.subscribe(given.Seen, (event) => typed.push(named(event)))
    for (const by of [store, other]) {
      const noteID = by === store ? "own" : "foreign"
      by.run(given.Seen, { noteID }, { publish: false })
      by.run(given.Seen, { noteID })
      by.replayAll(history(noteID, 1, 2))
      by.replayAll(history(noteID, 2, 3), { publish: true })
      await by.runAsync(given.Seen, { noteID }, { publish: false })
    }
    await until(() => heard.length >= 12)
    assert.deepEqual(heard, recorded(store))
    assert.deepEqual(own, ["own1", "own3", "own4"])
    assert.deepEqual(explicit, own)
    assert.deepEqual(typed, ["own1"])
  })

  test("hears this store's ephemeral events in their place, and no other store's", () => {
    const { given, store, other, heard, see } = together()
    const delta = (by, noteID) => by.publish(given.Delta, { noteID })
    see(other)
    delta(store, "a")
    delta(other, "a")
    see(store, "b")
    delta(store, "b")
    see(other)
    store.transaction(() => (delta(store, "a"), see(store, "b"), delta(store, "b")))
    assert.deepEqual(heard, ["a0", "a(0)", "b0", "b(0)", "a1", "a(1)", "b1", "b(1)"])
  })

  test("begins with what is committed after the call", async () => {
    const { store, other, see } = together()
    const late = [[], []]
    see(other)
    see(store, "b")
    store.subscribeAll((event) => late[0].push(named(event)), DATABASE)
    see(other)
    store.subscribeAll((event) => late[1].push(named(event)), DATABASE)
    await turns(20)
    see(other)
    see(store, "b")
    assert.deepEqual(late, [
      ["a1", "a2", "b1"],
      ["a2", "b1"],
    ])
  })

  test("begins so also inside a transaction, whose events are committed after the call", () => {
    const { store, see } = together()
    const late = []
    store.transaction(() => {
      see(store)
      store.subscribeAll((event) => late.push(`process ${named(event)}`))
      store.subscribeAll((event) => late.push(`database ${named(event)}`), DATABASE)
      see(store)
    })
    assert.deepEqual(
      late.filter((name) => name.startsWith("process")),
      ["process a0", "process a1"],
    )
    assert.deepEqual(
      late.filter((name) => name.startsWith("database")),
      ["database a0", "database a1"],
    )
  })

  test("begins so also inside a transaction that is rolled back, or that others have committed before", () => {
    for (const act of ["run", "publish"]) {
      const { given, store, other, see } = together()
      const late = []
      const listen = () => store.subscribeAll((event) => late.push(named(event)), DATABASE)
      see(other)
      assert.throws(() => store.transaction(() => (see(store, "x"), listen(), assert.fail())))
      see(other)
      if (act === "run") see(store, "b")
      else store.publish(given.Delta, { noteID: "a" })
      assert.deepEqual(late.splice(0), act === "run" ? ["a1", "b0"] : ["a1", "a(1)"])
      see(other)
      store.transaction(() => {
        listen()
        see(store, "c")
      })
      assert.deepEqual(late, ["a2", "c0", "c0"])
    }
  })

  test("the first listener of all begins so inside a transaction, too", () => {
    for (const outcome of ["commits", "is rolled back", "is rolled back to a savepoint"]) {
      const given = deltas()
      const path = newFile()
      const [store, other] = [openNotes(given, { path }), openNotes(given, { path })]
      const heard = []
      const see = (by, noteID) => by.run(given.Seen, { noteID })
      const fn = () => {
        see(store, "x")
        store.subscribeAll((event) => heard.push(named(event)), DATABASE)
        if (outcome !== "commits") assert.fail()
      }
      see(other, "before")
      if (outcome === "commits") store.transaction(fn)
      else if (outcome === "is rolled back") assert.throws(() => store.transaction(fn))
      else store.transaction(() => assert.throws(() => store.transaction(fn)))
      see(other, "a")
      see(store, "b")
      assert.deepEqual(heard, outcome === "commits" ? ["x0", "a0", "b0"] : ["a0", "b0"], outcome)
    }
  })

  test("rule 13: the last one to leave in the midst of a delivery leaves nothing foreign to the process's listeners", async () => {
    for (const converting of [false, true]) {
      const pending = []
      const convertEvent = () => (converting ? new Promise((resolve) => pending.push(resolve)) : undefined)
      const { store, other, own, heard, undo, see } = together({ convertEvent })
      const leave = store.subscribeAll(() => (leave(), undo()), DATABASE)
      for (let n = 0; n < 4; n++) see(other)
      see(store, "b")
      for (let n = 0; own.length === 0; n++) {
        await until(() => pending.length > n || own.length > 0)
        pending[n]?.()
        await turns(1)
      }
      see(other)
      store.subscribeAll(() => {}, DATABASE)
      await turns(20)
      assert.deepEqual(own, ["b0"])
      assert.deepEqual(heard, ["a0"])
    }
  })

  test("rule 13: who undoes it hears no more, also in the midst of a delivery; the others go on", async () => {
    const { store, other, heard, undo, see } = together()
    const stays = []
    const once = []
    const leave = store.subscribeAll((event) => (once.push(named(event)), leave(), undo()), DATABASE)
    store.subscribeAll((event) => stays.push(named(event)), DATABASE)
    see(other)
    see(other)
    await until(() => stays.length === 2)
    undo()
    see(store, "b")
    assert.deepEqual(stays, ["a0", "a1", "b0"])
    assert.deepEqual(once, ["a0"])
    assert.deepEqual(heard, ["a0"])
  })

  test("what stores elsewhere define this one need not know", async () => {
    const { path, store, heard } = together()
    const registry = createRegistry()
    const schema = z.object({ id: z.string() })
    const settings = { type: "elsewhere.some.1", version: 12, aggregate: "id", schema, projector: "none", registry }
    const Elsewhere = define(settings)
    const events = []
    store.subscribeAll((event) => events.push([event.type, event.version, event.data]), DATABASE)
    kept(path, { registry }).run(Elsewhere, { id: "x" })
    await until(() => heard.length === 1)
    assert.deepEqual(events, [["elsewhere.some.1", 12, { id: "x" }]])
  })

  test("a scope or an option that does not exist is refused", () => {
    const { store } = together()
    for (const scope of [null, "", "all", 5, {}]) {
      assert.throws(() => store.subscribeAll(() => {}, { scope }), coded("ERR_INVALID_ARGUMENT", /scope/))
    }
    for (const options of [null, "database", [], { scopes: "database" }]) {
      assert.throws(() => store.subscribeAll(() => {}, options), coded("ERR_INVALID_ARGUMENT"))
    }
    assert.throws(() => store.subscribeAll(undefined, DATABASE), coded("ERR_INVALID_ARGUMENT"))
    for (const options of [undefined, {}, { scope: undefined }]) store.subscribeAll(() => {}, options)()
    store.close()
    assert.throws(() => store.subscribeAll(() => {}, DATABASE), coded("ERR_CLOSED"))
  })

  test("in memory, read-only, and with record: false", async () => {
    const { given, path, other, see } = together()
    const scoped = (options) => {
      const store = openNotes(given, { path, ...options })
      const heard = []
      store.subscribeAll((event) => heard.push(named(event)), DATABASE)
      return { store, heard }
    }
    const memory = scoped({ path: ":memory:" })
    see(memory.store)
    memory.store.run(given.Seen, { noteID: "a" }, { publish: false })
    memory.store.publish(given.Delta, { noteID: "a" })
    assert.deepEqual(memory.heard, ["a0", "a1", "a(1)"])
    const reader = scoped({ readonly: true })
    const unrecorded = scoped({ record: false })
    see(other)
    see(unrecorded.store, "b")
    assert.deepEqual(unrecorded.heard, ["a0", "b-1"])
    see(other)
    await until(() => reader.heard.length === 2 && unrecorded.heard.length === 3)
    reader.store.publish(given.Delta, { noteID: "a" })
    assert.deepEqual(reader.heard, ["a0", "a1", "a(1)"])
    assert.deepEqual(unrecorded.heard, ["a0", "b-1", "a1"])
  })
})

describe("issue 3: scope database in one order with everything else", () => {
  test("an aggregate removed elsewhere: the deletion event of the last removal arrives, and what follows it", async () => {
    const { given, store, other, heard, own, see } = together()
    const remove = (by) => by.remove("a", { event: [given.Seen, { noteID: "a", removed: true }] })
    for (let n = 0; n < 3; n++) see(other)
    remove(other)
    see(store, "b")
    assert.deepEqual(heard, ["a3", "b0"])
    remove(other)
    remove(other)
    see(other)
    other.remove("a")
    see(other)
    remove(store)
    see(store, "b")
    assert.deepEqual(heard.slice(2), ["a8", "b1"])
    remove(other)
    await until(() => heard.length === 5)
    assert.deepEqual(heard.at(-1), "a9")
    assert.deepEqual(own, ["b0", "a8", "b1"])
  })

  test("rule 14: foreign and local events wait behind a pending conversion in the order of their commits", async () => {
    const convertEvent = (_type, { n }) => {
      if (n % 3 === 0) return n
      return new Promise((resolve) => (n % 3 === 1 ? setImmediate(resolve, n) : resolve(n)))
    }
    const { given, store, other, heard, see } = together({ convertEvent })
    const properties = []
    store.subscribeAll((event) => properties.push(event.properties), DATABASE)
    for (let n = 0; n < 60; n++) {
      if (n % 5 === 4) store.publish(given.Delta, { noteID: "b", n })
      else see(n % 2 ? store : other, n % 2 ? "a" : "b", { n })
      if (n % 11 === 0) await turns(2)
    }
    await until(() => properties.length === 60)
    assert.deepEqual(properties, counted(60))
    const seqs = heard.filter((name) => !name.includes("("))
    assert.deepEqual(seqs, recorded(store))
    for (const [index, name] of heard.entries()) {
      if (!name.includes("(") || name === "b(-1)") continue
      assert.ok(heard.indexOf(name.replace(/\((\d+)\)/, "$1")) < index, name)
    }
  })

  test("rule 13: listeners that run events, here and there, overtake nobody", async () => {
    const { given, store, other, heard, see } = together()
    store.subscribeAll(({ aggregateID, seq }) => {
      if (aggregateID !== "a" || seq > 3) return
      see(other, "there")
      see(store, "here")
      assert.equal(heard.includes(`here${seq}`), false)
    }, DATABASE)
    other.runAll(counted(6).map(() => [given.Seen, { noteID: "a" }]))
    await until(() => heard.includes("here3"))
    assert.deepEqual(heard, recorded(store))
    assert.equal(heard.length, 14)
  })

  test("rules 13 and 14: what a listener or convertEvent throws reaches onListenerError, with the foreign event", async () => {
    const failure = new Error("listener")
    const convertEvent = (_type, { n }) => {
      if (n === "throw") throw failure
      return n === "reject" ? Promise.reject(failure) : n
    }
    const { store, other, errors, heard, see } = together({ convertEvent })
    store.subscribeAll(({ seq }) => {
      if (seq === 0) throw failure
    }, DATABASE)
    store.subscribeAll(async ({ seq }) => {
      if (seq === 4) throw failure
    }, DATABASE)
    for (const n of [0, "throw", "reject", 3, 4]) see(other, "a", { n })
    await until(() => heard.length === 3 && errors.length === 4)
    assert.deepEqual(heard, ["a0", "a3", "a4"])
    assert.deepEqual(
      errors.map(([error, event]) => [error, named(event), Number.isInteger(event.position)]),
      [0, 1, 2, 4].map((seq) => [failure, `a${seq}`, true]),
    )
  })

  test("a raw transaction on this connection delays what is foreign, and loses nothing", async () => {
    const { store, other, heard, see } = together()
    store.db.exec("BEGIN; SELECT count(*) FROM note")
    store.db.prepare("SELECT count(*) FROM note").get()
    see(other)
    await turns(50)
    see(other)
    store.db.exec("COMMIT")
    await until(() => heard.length === 2)
    const rows = store.db.prepare("SELECT 1 UNION SELECT 2").iterate()
    rows.next()
    see(other)
    await turns(50)
    rows.return()
    await until(() => heard.length === 3)
    see(store, "b")
    assert.deepEqual(heard, ["a0", "a1", "a2", "b0"])
  })

  test("beside followers and listeners of the process on both stores everything is heard once", async () => {
    const { given, store, other, heard, see } = together()
    const foreign = []
    other.subscribeAll((event) => foreign.push(named(event)), DATABASE)
    const log = store.log({ aggregateID: "a", follow: true })
    const followed = reading(log, logged)
    for (let n = 0; n < 40; n++) {
      see(n % 3 ? store : other, n % 2 ? "a" : "b")
      if (n % 6 === 0) await turns()
      if (n % 13 === 0) assert.throws(() => store.transaction(() => (see(store), assert.fail())))
    }
    other.replayAll(history("c", 5))
    await until(() => heard.length >= 45 && foreign.length >= 45 && followed.items.length >= 21)
    assert.deepEqual(heard, recorded(store))
    assert.deepEqual(foreign, heard)
    assert.deepEqual(
      followed.items.filter((item) => item !== "synced"),
      counted(20),
    )
    await log.return()
    await followed.ended
    assert.equal(given.registry.frozen, true)
  })
})
