"use strict"

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { describe, test } = require("node:test")
const { inspect } = require("node:util")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { coded, dump, file, history, kept, openNotes, serialized, turns } = require("./stores.js")
const { deltas, named, openTogether } = require("./streaming.js")

/** A store of notes and deltas, what its listeners heard, and shorthands that write a note and publish a delta. */
function publishing(options) {
  const given = deltas()
  const errors = []
  const heard = []
  const store = openNotes(given, { onListenerError: (...args) => errors.push(args), ...options })
  store.subscribeAll((event) => heard.push(named(event)))
  const write = (noteID = "a") => store.run(given.Written, { noteID })
  const delta = (noteID = "a", more = {}) => store.publish(given.Delta, { noteID, ...more })
  return { given, store, errors, heard, write, delta }
}

describe("issue 3: an ephemeral event", () => {
  test("has an id, no seq, and after, and its data and properties", () => {
    const { given, store, write, delta } = publishing()
    write()
    const events = []
    store.subscribeAll((event) => events.push(event))
    const before = Date.now()
    assert.equal(delta("a", { text: "t" }), undefined)
    delta("a", { text: "t" })
    const [{ id, created, ...rest }, second] = events
    assert.deepEqual(rest, {
      type: "note.delta",
      version: 1,
      aggregateID: "a",
      after: 0,
      data: { noteID: "a", text: "t" },
      properties: { noteID: "a", text: "t" },
    })
    assert.match(id, /^evt_/)
    assert.notEqual(second.id, id)
    assert.ok(created >= before && created <= Date.now())
    assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(events[0]))).toSorted(), Object.keys(events[0]).toSorted())
    assert.doesNotMatch(inspect(events[0]), /Getter/)
    assert.equal(given.Delta.ephemeral, true)
  })

  test("carries the input, not the schema's output, and nothing of the caller's object", () => {
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string(), text: z.string().default("untitled") })
    const Delta = define({ type: "note.delta", version: 1, aggregate: "noteID", schema, ephemeral: true, registry })
    const store = kept(file(), { registry })
    const heard = []
    store.subscribe(Delta, ({ data }) => {
      heard.push({ ...data })
      data.noteID = "spoiled"
    })
    const data = { noteID: "a", toJSON: undefined }
    store.transaction(() => {
      store.publish(Delta, data)
      data.noteID = "b"
      store.publish(Delta, { toJSON: () => ({ noteID: "c", text: "from toJSON" }) })
    })
    assert.deepEqual(heard, [{ noteID: "a" }, { noteID: "c", text: "from toJSON" }])
    assert.equal(data.noteID, "b")
  })

  test("leaves no trace in the database, the log or a sequence", async () => {
    const { given, store, write, delta } = publishing()
    write()
    const before = dump(store)
    const changes = store.db.prepare("SELECT total_changes()").pluck()
    const changed = changes.get()
    delta()
    delta("new")
    store.transaction(() => delta("new"))
    assert.equal(changes.get(), changed)
    assert.deepEqual(dump(store), before)
    assert.deepEqual([...store.sequences()], [["a", 0]])
    assert.equal(store.readAll({ limit: 10 }).length, 1)
    assert.equal(store.run(given.Written, { noteID: "new" }).seq, 0)
  })

  test("reaches typed listeners of any version first, then all others, and no listener of another type", () => {
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string() })
    const versions = [1, 2].map((version) =>
      define({ type: "note.delta", version, aggregate: "noteID", schema, ephemeral: true, registry }),
    )
    const Other = define({ type: "note.other", version: 1, aggregate: "noteID", schema, ephemeral: true, registry })
    const store = kept(file(), { registry })
    const heard = []
    store.subscribeAll(({ version }) => heard.push(`all ${version}`))
    store.subscribe(versions[0], ({ version }) => heard.push(`typed by 1 ${version}`))
    store.subscribe(versions[1], ({ version }) => heard.push(`typed by 2 ${version}`))
    store.subscribe(Other, () => heard.push("other"))
    store.publish(versions[1], { noteID: "a" })
    assert.deepEqual(heard, ["typed by 1 2", "typed by 2 2", "all 2"])
  })

  test("is converted by convertEvent like a recorded one", () => {
    const asked = []
    const { store, delta } = publishing({ convertEvent: (...args) => (asked.push(args), "converted") })
    const properties = []
    store.subscribeAll((event) => properties.push(event.properties))
    delta("a", { text: "t" })
    assert.deepEqual(asked, [["note.delta", { noteID: "a", text: "t" }]])
    assert.deepEqual(properties, ["converted"])
  })

  test("recorded events have a position and no after, run's return value has neither", () => {
    const { given, store, write, delta } = publishing()
    const events = []
    store.subscribeAll((event) => events.push(event))
    const returned = write()
    delta()
    write("b")
    store.replay(serialized("seen", 1, { noteID: "b" }), { publish: true })
    assert.deepEqual(
      events.map((event) => [Object.hasOwn(event, "position"), Object.hasOwn(event, "after"), "seq" in event]),
      [
        [true, false, true],
        [false, true, false],
        [true, false, true],
        [true, false, true],
      ],
    )
    const positions = store.readAll({ limit: 10 }).map(({ position }) => position)
    assert.deepEqual(events.map(({ position }) => position).filter(Number.isInteger), positions)
    assert.ok(Object.keys(events[0]).includes("position"))
    assert.equal("position" in returned, false)
    assert.equal(given.Written.ephemeral, false)
  })
})

describe("issue 3: after is the aggregate's last seq at that moment", () => {
  test("of an unknown aggregate -1, else whatever made its seq rise", () => {
    const { given, store, heard, write, delta } = publishing()
    store.claim("claimed", "me")
    for (const noteID of ["a", "claimed"]) delta(noteID)
    write()
    delta()
    store.run(given.Seen, { noteID: "a" }, { publish: false })
    delta()
    store.replayAll(history("a", 3, 2))
    delta()
    store.replay({ kind: "gap", aggregateID: "a", after: 4, through: 9 })
    delta()
    delta("b")
    store.remove("a")
    delta()
    store.remove("a", { event: [given.Seen, { noteID: "a" }] })
    delta()
    assert.deepEqual(
      heard.filter((name) => name.includes("(")),
      ["a(-1)", "claimed(-1)", "a(0)", "a(1)", "a(4)", "a(9)", "b(-1)", "a(9)", "a(10)"],
    )
  })

  test("also as another store on the file has made it", () => {
    const { given, stores } = openTogether(2)
    const heard = []
    stores[0].subscribeAll((event) => heard.push(named(event)))
    for (let n = 0; n < 3; n++) {
      stores[1].run(given.Written, { noteID: "a" })
      stores[0].publish(given.Delta, { noteID: "a" })
    }
    assert.deepEqual(heard, ["a(0)", "a(1)", "a(2)"])
  })

  test("within a transaction what it has recorded so far counts, and what was taken back does not", () => {
    const { store, heard, write, delta } = publishing()
    const failing = () => {
      write()
      delta()
      store.transaction(() => (write(), delta()))
      throw new Error("inner")
    }
    store.transaction(() => {
      delta()
      write()
      delta()
      assert.throws(() => store.transaction(failing), /inner/)
      delta()
      store.transaction(() => (write(), delta()))
      store.db.transaction(() => (write(), delta()))()
      delta("b")
      assert.deepEqual(heard, [])
    })
    assert.deepEqual(heard, ["a(-1)", "a0", "a(0)", "a(0)", "a1", "a(1)", "a2", "a(2)", "b(-1)"])
  })
})

describe("issue 3: ephemeral events in a transaction", () => {
  test("wait for the outermost commit in their place, and vanish with a rollback", () => {
    const { store, heard, write, delta } = publishing()
    for (const transaction of [store.transaction.bind(store), (fn) => store.db.transaction(fn)()]) {
      heard.length = 0
      const seq = store.sequence("a")
      transaction(() => (delta(), write(), delta(), transaction(() => delta("b")), assert.deepEqual(heard, [])))
      assert.deepEqual(heard, [`a(${seq})`, `a${seq + 1}`, `a(${seq + 1})`, "b(-1)"])
      assert.throws(() => transaction(() => (delta(), write(), delta(), assert.fail())))
      delta("c")
      assert.deepEqual(heard.slice(4), ["c(-1)"])
    }
  })

  test("alone in one, also in a deferred one that writes nothing", () => {
    const { store, heard, delta } = publishing()
    store.transaction(() => delta())
    store.transaction(() => store.transaction(() => delta("b")))
    store.db.transaction(() => delta("c")).deferred()
    assert.throws(() => store.transaction(() => (delta("d"), assert.fail())))
    assert.throws(() => store.db.transaction(() => (delta("d"), assert.fail())).deferred())
    store.transaction(() => {
      assert.throws(() => store.transaction(() => (delta("e"), assert.fail())))
    })
    delta("f")
    assert.deepEqual(heard, ["a(-1)", "b(-1)", "c(-1)", "f(-1)"])
  })

  test("a raw ROLLBACK TO takes back what was published since its savepoint, and nothing else", () => {
    const { store, heard, write, delta } = publishing()
    const sql = (text) => store.db.exec(text)
    store.transaction(() => {
      delta("kept")
      sql("SAVEPOINT one")
      delta("gone")
      sql("SAVEPOINT two")
      write("gone")
      delta("gone")
      sql("RELEASE two")
      sql("ROLLBACK TO one")
      delta("after")
      sql("RELEASE one")
      sql("SAVEPOINT three")
      delta("released")
      sql("RELEASE three")
      sql("SAVEPOINT four")
      delta("gone")
      sql("ROLLBACK TO four; RELEASE four")
    })
    assert.deepEqual(heard, ["kept(-1)", "after(-1)", "released(-1)"])
    store.transaction(() => {
      sql("SAVEPOINT one")
      for (let n = 0; n < 3; n++) delta("gone")
      sql("ROLLBACK TO one; RELEASE one")
      write("w")
    })
    assert.deepEqual(heard.slice(3), ["w0"])
  })

  test("rule 11: a transaction that SQLite ended, or whose commit failed, publishes none", () => {
    const { store, heard, write, delta } = publishing()
    store.db.exec(`
      CREATE TABLE parent (id INTEGER PRIMARY KEY);
      CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
      CREATE TRIGGER lost BEFORE INSERT ON tag BEGIN SELECT RAISE(ROLLBACK, 'lost'); END
    `)
    const failCommit = () => (delta(), store.db.exec("INSERT INTO child VALUES (5)"), delta())
    assert.throws(() => store.transaction(failCommit), coded("ERR_SQLITE", /FOREIGN KEY/))
    const lose = () => {
      delta()
      assert.throws(() => store.db.exec("INSERT INTO tag VALUES ('a', 't', 0)"), coded("ERR_SQLITE", /lost/))
      assert.throws(() => delta(), coded("ERR_SQLITE"))
    }
    assert.throws(() => store.transaction(lose), coded("ERR_SQLITE"))
    assert.equal(store.db.inTransaction, false)
    delta("next")
    write("next")
    assert.deepEqual(heard, ["next(-1)", "next0"])
  })
})

describe("rule 13, issue 3: one order for recorded and ephemeral events", () => {
  test("a delta published after a run is delivered after it, also from within listeners", () => {
    const { given, store, write, delta } = publishing()
    const heard = []
    store.subscribe(given.Written, (event) => {
      heard.push(`1:${named(event)}`)
      delta(event.aggregateID)
      if (event.seq === 0) write()
      delta(event.aggregateID)
      assert.equal(heard.at(-1), `1:${named(event)}`)
    })
    store.subscribeAll((event) => heard.push(`2:${named(event)}`))
    write()
    const order = ["1:a0", "2:a0", "2:a(0)", "1:a1", "2:a1", "2:a(1)", "2:a(1)", "2:a(1)"]
    assert.deepEqual(heard, order)
  })

  test("a long chain of deltas that listeners publish needs no stack", () => {
    const { given, store, delta } = publishing()
    let count = 0
    store.subscribe(given.Delta, () => count++ < 3_000 && delta())
    delta()
    assert.equal(count, 3_001)
  })

  test("rule 14: while a conversion is pending deltas wait behind it", async () => {
    const pending = []
    const { heard, write, delta } = publishing({ convertEvent: () => new Promise((resolve) => pending.push(resolve)) })
    write()
    delta()
    write()
    delta("b")
    const order = ["a0", "a(0)", "a1", "b(-1)"]
    for (let n = 0; n < order.length; n++) {
      assert.deepEqual(heard, order.slice(0, n))
      assert.equal(pending.length, n + 1)
      pending[n]()
      await turns(1)
    }
    assert.deepEqual(heard, order)
  })

  test("rule 14, mistake 14: at most 10,000 wait, also of ephemeral ones", () => {
    const { store, errors, write, delta } = publishing({ convertEvent: () => new Promise(() => {}) })
    write()
    store.transaction(() => {
      for (let n = 0; n < 10_000; n++) delta()
    })
    assert.deepEqual(errors, [])
    delta()
    delta()
    assert.equal(errors.length, 1)
    const [error, event] = errors[0]
    coded("ERR_OVERFLOW", /10000|10,000/, { aggregateID: "a", limit: 10_000 })(error)
    assert.doesNotMatch(error.message, /undefined|NaN/)
    assert.equal(named(event), "a(0)")
  })
})

describe("issue 3: ephemeral events and the kinds of stores", () => {
  test("rule 12: with record: false they are what they always are", () => {
    const recording = publishing()
    recording.write()
    recording.store.close()
    const { store, heard, write, delta } = publishing({ record: false })
    delta()
    store.transaction(() => (delta(), write(), delta(), delta("b")))
    assert.throws(() => store.transaction(() => (delta(), assert.fail())))
    assert.deepEqual(heard, ["a(0)", "a(0)", "a-1", "a(0)", "b(-1)"])
  })

  test("rule 12: an event that is not recorded has no position", () => {
    const { store, write } = publishing({ record: false })
    let heard
    store.subscribeAll((event) => (heard = event))
    write()
    assert.deepEqual([heard.seq, "position" in heard, "after" in heard], [-1, false, false])
  })

  test("a readonly store publishes, too, and sees what others have written", () => {
    const writer = publishing()
    const { store, heard, delta } = publishing({ readonly: true })
    writer.write()
    delta()
    store.transaction(() => (delta(), store.transaction(() => delta("b"))))
    assert.throws(() => store.transaction(() => (delta("c"), assert.fail())))
    writer.write()
    delta()
    assert.deepEqual(heard, ["a(0)", "a(0)", "b(-1)", "a(1)"])
    assert.deepEqual(writer.heard, ["a0", "a1"])
  })

  test("in memory", () => {
    const { heard, write, delta } = publishing({ path: ":memory:" })
    delta()
    write()
    delta()
    assert.deepEqual(heard, ["a(-1)", "a0", "a(0)"])
  })
})

describe("rule 13: listeners of ephemeral events that fail", () => {
  test("rule 13: a throw or a rejection reaches onListenerError with the event, and never publish's caller", async () => {
    const failure = new Error("listener")
    const { given, store, errors, heard, delta } = publishing()
    store.subscribe(given.Delta, () => {
      throw failure
    })
    store.subscribe(given.Delta, async () => {
      throw failure
    })
    delta()
    await turns()
    assert.deepEqual(
      errors.map(([error, event]) => [error, named(event)]),
      [
        [failure, "a(-1)"],
        [failure, "a(-1)"],
      ],
    )
    assert.deepEqual(heard, ["a(-1)"])
  })

  test("rule 13: without onListenerError the warning names what there is", async () => {
    const { store, delta } = publishing({ onListenerError: undefined })
    store.subscribeAll(() => {
      throw new Error("the listener")
    })
    const warned = once(process, "warning")
    delta("a")
    const [{ message }] = await warned
    assert.match(message, /note\.delta.*"a".*the listener/s)
    assert.doesNotMatch(message.split("\n")[0], /undefined|NaN/)
  })
})
