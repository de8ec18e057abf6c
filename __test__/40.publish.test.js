"use strict"

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { describe, test } = require("node:test")
const { coded, history, notes, openNotes, serialized, turns } = require("./stores.js")

/** A store, what `onListenerError` received, and a shorthand that writes a note. */
function publishing(options) {
  const given = notes()
  const errors = []
  const onListenerError = (error, event) => errors.push([error, `${event.aggregateID}${event.seq}`])
  const store = openNotes(given, { onListenerError, ...options })
  const write = (noteID, more) => store.run(given.Written, { noteID, ...more })
  return { given, store, errors, write }
}

const name = ({ aggregateID, seq }) => `${aggregateID}${seq}`

describe("rule 13: delivery", () => {
  test("rule 13: listeners hear committed events before run returns, typed ones first", () => {
    const { given, store, write } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push(["all", event.type]))
    store.subscribe(given.Written, (event) => heard.push(["written", event.type]))
    store.subscribe(given.Tagged, (event) => heard.push(["tagged", event.type]))
    write("a")
    assert.deepEqual(heard, [
      ["written", "note.written"],
      ["all", "note.written"],
    ])
    store.run(given.Tagged, { noteID: "a", tag: "t" })
    assert.deepEqual(heard.slice(2), [
      ["tagged", "note.tagged"],
      ["all", "note.tagged"],
    ])
  })

  test("rule 13: an event holds what run returned, its position, and properties that are the data", () => {
    const { store, given } = publishing()
    let heard
    store.subscribeAll((event) => (heard = event))
    const event = store.run(given.Written, { noteID: "a" }, { metadata: { m: 1 } })
    assert.notEqual(heard, event)
    const { properties, position, ...rest } = heard
    assert.equal(position, 1)
    assert.deepEqual({ ...rest, data: heard.data }, { ...event, data: event.data })
    assert.equal(properties, heard.data)
    assert.deepEqual(JSON.parse(JSON.stringify(heard)).properties, { noteID: "a" })
  })

  test("rule 13: a transaction's events come in commit order, one after the other", () => {
    const { given, store, write } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push(`1:${name(event)}`))
    store.subscribeAll((event) => heard.push(`2:${name(event)}`))
    store.transaction(() => {
      write("a")
      store.run(given.Tagged, { noteID: "b", tag: "t" })
    })
    assert.deepEqual(heard, ["1:a0", "2:a0", "1:b0", "2:b0"])
  })

  test("rule 13: a listener that runs an event does not overtake", () => {
    const { given, store, write } = publishing()
    const heard = []
    store.subscribe(given.Written, (event) => {
      heard.push(`first ${name(event)}`)
      if (event.aggregateID.length < 4) write(`${event.aggregateID}x`)
      assert.equal(store.db.inTransaction, false)
    })
    store.subscribeAll((event) => heard.push(`second ${name(event)}`))
    store.transaction(() => {
      write("a")
      write("b")
    })
    assert.deepEqual(
      heard,
      ["a0", "b0", "ax0", "bx0", "axx0", "bxx0", "axxx0", "bxxx0"].flatMap((one) => [`first ${one}`, `second ${one}`]),
    )
  })

  test("rule 13: a long chain of events run by listeners needs no stack", () => {
    const { store, given } = publishing({ path: ":memory:" })
    let last
    store.subscribeAll(({ seq }) => {
      last = seq
      if (seq < 3_000) store.run(given.Seen, { noteID: "n" })
    })
    store.run(given.Seen, { noteID: "n" })
    assert.equal(last, 3_000)
  })

  test("rule 13: inside a transaction of a listener nothing is published before its commit", () => {
    const { store, write } = publishing()
    const heard = []
    store.subscribeAll((event) => {
      heard.push(name(event))
      if (name(event) !== "a0") return
      store.transaction(() => {
        write("b")
        write("c")
        assert.deepEqual(heard, ["a0"])
      })
      assert.deepEqual(heard, ["a0"])
    })
    write("a")
    assert.deepEqual(heard, ["a0", "b0", "c0"])
  })

  test("rule 13: listeners share one event; what they change in it, run's caller and the log do not see", () => {
    const { store, write } = publishing()
    const events = []
    store.subscribeAll((event) => events.push(event))
    store.subscribeAll((event) => {
      event.data.noteID = "spoiled"
    })
    store.subscribeAll((event) => events.push(event))
    const event = write("a")
    assert.deepEqual(event.data, { noteID: "a" })
    assert.deepEqual(store.get("a", 0).data, { noteID: "a" })
    assert.equal(events.length, 2)
    assert.equal(events[0], events[1])
    assert.deepEqual(events[1].data, { noteID: "spoiled" })
  })

  test("rule 13: publish: false is not delivered, publish: true is", () => {
    const { given, store } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push(name(event)))
    store.run(given.Written, { noteID: "a" }, { publish: false })
    store.run(given.Tagged, { noteID: "a", tag: "t" }, { publish: false })
    store.runAll([[given.Written, { noteID: "a" }]], { publish: false })
    store.run(given.Written, { noteID: "a" }, { publish: true })
    assert.deepEqual(heard, ["a3"])
  })

  test("rule 13: a failed run publishes nothing, and neither does the next one on its behalf", () => {
    const { store, write } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push(name(event)))
    store.db.exec("CREATE TRIGGER no BEFORE INSERT ON note WHEN NEW.text = 'no' BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert.throws(() => write("a", { text: "no" }))
    assert.throws(() => store.transaction(() => (write("b"), write("c", { text: "no" }))))
    write("d")
    assert.deepEqual(heard, ["d0"])
  })
})

describe("rule 13: listeners come and go", () => {
  test("rule 13: one added during a delivery hears the next event, not this one", () => {
    const { given, store, write } = publishing()
    const heard = []
    let added = false
    store.subscribe(given.Written, () => {
      if (added) return
      added = true
      store.subscribe(given.Written, (event) => heard.push(`typed ${name(event)}`))
      store.subscribeAll((event) => heard.push(`all ${name(event)}`))
    })
    store.transaction(() => {
      write("a")
      write("b")
    })
    assert.deepEqual(heard, ["typed b0", "all b0"])
  })

  test("rule 13: one removed during a delivery hears no more, also not this event", () => {
    const { given, store, write } = publishing()
    const heard = []
    const undos = []
    store.subscribe(given.Written, () => undos.forEach((undo) => undo()))
    undos.push(store.subscribe(given.Written, () => heard.push("typed")))
    undos.push(store.subscribeAll(() => heard.push("all")))
    store.subscribeAll(() => heard.push("stays"))
    write("a")
    write("b")
    assert.deepEqual(heard, ["stays", "stays"])
  })

  test("rule 13: one that removes itself leaves the others alone; undoing twice is nothing", () => {
    const { store, write } = publishing()
    const heard = []
    const undo = store.subscribeAll((event) => {
      heard.push(`once ${name(event)}`)
      undo()
      undo()
    })
    store.subscribeAll((event) => heard.push(name(event)))
    write("a")
    write("b")
    undo()
    write("c")
    assert.deepEqual(heard, ["once a0", "a0", "b0", "c0"])
  })

  test("rule 13: the same function subscribed twice hears twice, and each undo is its own", () => {
    const { given, store, write } = publishing()
    let calls = 0
    const listener = () => void calls++
    const undo = store.subscribe(given.Written, listener)
    store.subscribe(given.Written, listener)
    write("a")
    assert.equal(calls, 2)
    undo()
    undo()
    write("a")
    assert.equal(calls, 3)
  })

  test("rule 13: closing in a listener ends the delivery", () => {
    const { store, write } = publishing()
    const heard = []
    store.subscribeAll((event) => {
      heard.push(name(event))
      store.close()
    })
    store.subscribeAll((event) => heard.push(`second ${name(event)}`))
    const event = store.transaction(() => {
      const event = write("a")
      write("b")
      return event
    })
    assert.equal(event.seq, 0)
    assert.deepEqual(heard, ["a0"])
    assert.throws(() => write("c"), coded("ERR_CLOSED"))
    assert.throws(() => store.subscribeAll(() => {}), coded("ERR_CLOSED"))
  })

  test("what is no listener, or no definition, is refused", () => {
    const { given, store } = publishing()
    for (const listener of [undefined, null, {}, "x"]) {
      assert.throws(() => store.subscribeAll(listener), coded("ERR_INVALID_ARGUMENT"))
      assert.throws(() => store.subscribe(given.Written, listener), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const definition of [undefined, null, "note.written", {}]) {
      assert.throws(() => store.subscribe(definition, () => {}), coded("ERR_INVALID_ARGUMENT"))
    }
  })
})

describe("rule 13: listeners that fail", () => {
  test("rule 13, mistake 4: a throw reaches onListenerError, stops nobody else, and never fails run", () => {
    const { store, errors, write } = publishing()
    const heard = []
    const failure = new Error("listener")
    store.subscribeAll(() => {
      throw failure
    })
    store.subscribeAll((event) => heard.push(name(event)))
    assert.equal(write("a").seq, 0)
    store.transaction(() => {
      write("a")
      write("a")
    })
    assert.deepEqual(heard, ["a0", "a1", "a2"])
    assert.deepEqual(
      errors,
      ["a0", "a1", "a2"].map((one) => [failure, one]),
    )
    assert.equal(store.sequence("a"), 2)
  })

  test("rule 13: any value may be thrown, and a rejected promise is reported too", async () => {
    const { store, errors, write } = publishing()
    const thrown = [undefined, null, "text", Symbol.iterator]
    for (const value of thrown) {
      store.subscribeAll(() => {
        throw value
      })
      store.subscribeAll(async () => {
        throw value
      })
    }
    write("a")
    await turns()
    assert.deepEqual(
      errors.map(([error]) => error),
      [...thrown, ...thrown],
    )
  })

  test("rule 13: an onListenerError that throws is a warning, and stops nothing", async () => {
    const { store, write } = publishing({
      onListenerError() {
        throw new Error("the handler itself")
      },
    })
    const heard = []
    store.subscribeAll(() => {
      throw new Error("listener")
    })
    store.subscribeAll((event) => heard.push(name(event)))
    const warned = once(process, "warning")
    write("a")
    assert.match((await warned)[0].message, /the handler itself/)
    assert.deepEqual(heard, ["a0"])
  })

  test("rule 13: an onListenerError whose promise is rejected is a warning too", async () => {
    const { store, write } = publishing({
      async onListenerError() {
        throw new Error("the async handler itself")
      },
    })
    store.subscribeAll(() => {
      throw new Error("listener")
    })
    const warned = once(process, "warning")
    write("a")
    assert.match((await warned)[0].message, /the async handler itself/)
  })

  test("rule 13: a thrown value that throws when it is looked at fails no run", async () => {
    const { store, write } = publishing({ onListenerError: undefined })
    const hostile = Object.defineProperty(new Error("hidden"), "stack", {
      get() {
        throw new Error("hostile")
      },
    })
    let heard = 0
    store.subscribeAll(() => {
      heard++
      throw hostile
    })
    const warned = once(process, "warning")
    write("a")
    write("a")
    assert.equal(heard, 2)
    assert.match((await warned)[0].message, /throws when it is looked at/)
  })

  test("rule 13: without onListenerError it is a process warning that names the event", async () => {
    const { store, write } = publishing({ onListenerError: undefined })
    store.subscribeAll(() => {
      throw new Error("the listener")
    })
    const warned = once(process, "warning")
    write("a")
    const [warning] = await warned
    assert.equal(warning.name, "SynclineWarning")
    assert.match(warning.message, /note\.written.*"a".*seq 0.*the listener/s)
  })

  test("rule 13: an error handler may run events itself", () => {
    const given = notes()
    const heard = []
    const store = openNotes(given, {
      onListenerError: (_error, { aggregateID }) => store.run(given.Seen, { noteID: `${aggregateID}!` }),
    })
    store.subscribe(given.Written, () => {
      throw new Error("no")
    })
    store.subscribeAll((event) => heard.push(name(event)))
    store.run(given.Written, { noteID: "a" })
    assert.deepEqual(heard, ["a0", "a!0"])
  })
})

describe("rule 15: what is replayed", () => {
  test("rule 15: replay publishes only with publish: true, and only what it applied", () => {
    const { store } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push([event.type, event.version, name(event), event.data.text]))
    const events = history("a", 6)
    store.replayAll(events.slice(0, 2))
    store.replay(events[2], {})
    assert.deepEqual(heard, [])
    store.replayAll(events, { publish: true })
    assert.deepEqual(heard, [
      ["note.written", 1, "a3", "text 3"],
      ["note.tagged", 1, "a4", undefined],
      ["note.seen", 1, "a5", "text 5"],
    ])
    store.replayAll(events, { publish: true })
    assert.equal(heard.length, 3)
  })

  test("rule 15: nothing of a failed batch is published, and a gap is no event", () => {
    const { store } = publishing()
    const heard = []
    store.subscribeAll((event) => heard.push(name(event)))
    const events = history("a", 3)
    const bad = serialized("written", 9, { noteID: "a" })
    assert.throws(() => store.replayAll([...events, bad], { publish: true }), coded("ERR_SEQUENCE_MISMATCH"))
    assert.deepEqual(heard, [])
    store.replayAll(
      [
        { kind: "gap", aggregateID: "a", after: -1, through: 8 },
        { kind: "event", event: bad },
      ],
      { publish: true },
    )
    assert.deepEqual(heard, ["a9"])
  })

  test("rule 15: an event without created and with metadata arrives as it was sent", () => {
    const { store } = publishing()
    let heard
    store.subscribeAll((event) => (heard = event))
    const metadata = { by: "x", nested: [1] }
    store.replay(serialized("seen", 0, { noteID: "a", n: 1 }, { metadata }), { publish: true })
    assert.equal("created" in heard, false)
    assert.deepEqual(heard.metadata, metadata)
    assert.deepEqual(heard.properties, { noteID: "a", n: 1 })
    store.replay(serialized("seen", 1, { noteID: "a" }, { created: 5 }), { publish: true })
    assert.equal(heard.created, 5)
    assert.equal("metadata" in heard, false)
  })
})
