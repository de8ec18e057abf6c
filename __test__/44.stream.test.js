"use strict"

const assert = require("node:assert/strict")
const { getEventListeners } = require("node:events")
const { describe, test } = require("node:test")
const { project } = require("syncline")
const { coded, history, kept, openNotes } = require("./stores.js")
const { counted, deltas, heldMiB, named, newFile, reading, until, watchThreads } = require("./streaming.js")

const DONE = { done: true, value: undefined }

/** Two stores on one file, and shorthands that record an event and publish a delta. */
function together(options) {
  const given = deltas()
  const path = newFile()
  const store = openNotes(given, { path, ...options })
  const other = openNotes(given, { path })
  const see = (by, noteID = "a", more = {}) => by.run(given.Seen, { noteID, ...more })
  const many = (by, noteID, count) => by.runAll(counted(count).map(() => [given.Seen, { noteID }]))
  const delta = (noteID = "a") => store.publish(given.Delta, { noteID })
  return { given, store, other, see, many, delta }
}

/** What a stream has buffered: its first items, as many as asked for. */
async function taken(stream, count) {
  const names = []
  for (let n = 0; n < count; n++) {
    const { value, done } = await stream.next()
    names.push(done ? "done" : named(value))
  }
  return names
}

/** Data whose JSON text has so many bytes. */
const sized = (noteID, bytes) => ({ noteID, text: "x".repeat(bytes - `{"noteID":"${noteID}","text":""}`.length) })

describe("issue 3: store.stream", () => {
  test("gives the events that a listener of scope database hears, from the call on", async () => {
    const { store, other, see, delta } = together()
    see(store)
    see(other)
    const heard = []
    store.subscribeAll((event) => heard.push(event), { scope: "database" })
    const stream = store.stream()
    see(other)
    see(store, "b")
    delta("b")
    store.replayAll(history("c", 2))
    store.transaction(() => (delta("c"), see(store, "c"), delta("c")))
    see(other)
    see(store, "b")
    const names = ["a2", "b0", "b(0)", "c0", "c1", "c(1)", "c2", "c(2)", "a3", "b1"]
    assert.deepEqual(await taken(stream, names.length), names)
    const pending = stream.next()
    see(other, "d")
    assert.equal(named((await pending).value), "d0")
    await until(() => heard.length === 11)
    assert.deepEqual(heard.map(named), [...names, "d0"])
    assert.deepEqual(await stream.return(), DONE)
  })

  test("an item has what a listener's event has", async () => {
    const { given, store, see, delta } = together()
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    const stream = store.stream()
    store.run(given.Written, { noteID: "a", text: "t" }, { metadata: { m: 1 } })
    delta()
    see(store)
    for (const event of heard) {
      const { value } = await stream.next()
      assert.deepEqual(JSON.parse(JSON.stringify(value)), JSON.parse(JSON.stringify(event)))
    }
    await stream.return()
  })

  test("types are unversioned strings and definitions, aggregates are ids; both must fit", async () => {
    const { given, store, other, delta } = together()
    const all = {}
    const { Written, Tagged, Seen, Delta } = given
    const filters = {
      strings: { types: ["note.seen", "note.delta"] },
      definitions: { types: [Seen, Delta] },
      mixed: { types: ["note.written", Delta] },
      aggregates: { aggregates: ["a", "c"] },
      both: { types: [Tagged], aggregates: ["b"] },
      nothing: { types: ["note.unknown"], aggregates: ["z"] },
    }
    for (const [name, filter] of Object.entries(filters)) all[name] = store.stream(filter)
    for (const noteID of ["a", "b", "c"]) {
      store.run(Written, { noteID })
      other.run(Tagged, { noteID, tag: "t" })
      store.run(Seen, { noteID })
      delta(noteID)
    }
    const expected = {
      strings: ["a2", "a(2)", "b2", "b(2)", "c2", "c(2)"],
      definitions: ["a2", "a(2)", "b2", "b(2)", "c2", "c(2)"],
      mixed: ["a0", "a(2)", "b0", "b(2)", "c0", "c(2)"],
      aggregates: ["a0", "a1", "a2", "a(2)", "c0", "c1", "c2", "c(2)"],
      both: ["b1"],
      nothing: [],
    }
    for (const [name, stream] of Object.entries(all)) {
      assert.deepEqual(await taken(stream, expected[name].length), expected[name], name)
      const rest = stream.next()
      await stream.return()
      assert.deepEqual(await rest, DONE)
    }
  })

  test("concurrent next calls are answered in order, and what they wait for takes no room", async () => {
    const { store, see, many } = together()
    const stream = store.stream({ capacity: { events: 2 } })
    const answers = counted(3).map(() => stream.next())
    many(store, "a", 5)
    assert.deepEqual(
      (await Promise.all(answers)).map(({ value }) => named(value)),
      ["a0", "a1", "a2"],
    )
    assert.deepEqual(await taken(stream, 2), ["a3", "a4"])
    const more = [stream.next(), stream.next()]
    see(store)
    assert.equal(named((await more[0]).value), "a5")
    await stream.return()
    assert.deepEqual(await more[1], DONE)
  })

  test("a hundred at once, each at its own pace", async () => {
    const { store, other, see, delta } = together()
    const ids = counted(10).map((n) => `n${n}`)
    const streams = counted(100).map((n) => store.stream({ aggregates: [ids[n % 10]] }))
    const readers = streams.map((stream, n) => (n < 50 ? reading(stream, named) : undefined))
    for (const noteID of ids) {
      see(store, noteID)
      delta(noteID)
      see(other, noteID)
    }
    see(store, "end")
    await until(() => readers.every((reader) => reader === undefined || reader.items.length === 3))
    for (const [n, stream] of streams.entries()) {
      const noteID = ids[n % 10]
      const names = [`${noteID}0`, `${noteID}(0)`, `${noteID}1`]
      assert.deepEqual(readers[n]?.items ?? (await taken(stream, 3)), names)
      if (n % 3 === 0) await stream.return()
    }
    store.close()
    for (const stream of streams) assert.deepEqual(await stream.next(), DONE)
    await Promise.all(readers.map((reader) => reader?.ended))
  })

  test("rule 14: a pending conversion holds it up, and reorders nothing", async () => {
    const convertEvent = (_type, { n }) => (n % 2 ? new Promise((resolve) => setImmediate(resolve, n)) : n)
    const { store, other, see } = together({ convertEvent })
    const { items } = reading(store.stream(), ({ properties }) => properties)
    for (let n = 0; n < 20; n++) see(n % 3 ? store : other, "a", { n })
    await until(() => items.length === 20)
    assert.deepEqual(items, counted(20))
  })

  test("wrong arguments are refused at the call", () => {
    const { store } = together()
    const wrong = [
      null,
      5,
      [],
      { types: "note.seen" },
      { types: [5] },
      { types: [null] },
      { types: [{}] },
      { types: [""] },
      { aggregates: "a" },
      { aggregates: [5] },
      { aggregates: [""] },
      { capacity: 5 },
      { capacity: null },
      { capacity: { event: 5 } },
      { signal: {} },
      { type: ["note.seen"] },
    ]
    for (const bound of [0, -1, 1.5, NaN, Infinity, "5", null]) {
      wrong.push({ capacity: { events: bound } }, { capacity: { bytes: bound } })
    }
    for (const options of wrong) {
      assert.throws(() => store.stream(options), coded("ERR_INVALID_ARGUMENT"), JSON.stringify(options))
    }
    const controller = new AbortController()
    for (const options of [undefined, {}, { capacity: {} }, { signal: undefined, types: undefined }]) {
      store.stream(options).return()
    }
    store.close()
    assert.throws(() => store.stream({ signal: controller.signal }), coded("ERR_CLOSED"))
    assert.equal(getEventListeners(controller.signal, "abort").length, 0)
  })
})

describe("issue 3: a stream that cannot begin", () => {
  test("inside a projector it is refused, and leaves nothing behind", async () => {
    const given = deltas()
    let refused
    const projector = project(given.Written, () => {
      try {
        store.stream().return()
      } catch (error) {
        refused = error
      }
    })
    const store = kept(newFile(), { registry: given.registry, projectors: [projector] })
    store.run(given.Written, { noteID: "a" })
    if (refused !== undefined) coded("ERR_IN_PROJECTOR")(refused)
    const heard = []
    store.subscribeAll((event) => heard.push(named(event)))
    store.run(given.Seen, { noteID: "a" })
    assert.deepEqual(heard, ["a1"])
    if (process.platform === "linux") await until(() => watchThreads() === 0)
    store.close()
  })
})

describe("issue 3, mistake 14: a stream's buffer is bounded", () => {
  test("by events: at the bound all is there, over it ERR_OVERFLOW says from where the log resumes", async () => {
    const { store, see, many, delta } = together()
    see(store, "b")
    const start = store.readAll({ limit: 10 }).at(-1).position
    const stream = store.stream({ capacity: { events: 3 } })
    const unread = store.stream({ capacity: { events: 3 } })
    many(store, "a", 3)
    assert.deepEqual(await taken(stream, 2), ["a0", "a1"])
    see(store, "b")
    delta("c")
    assert.deepEqual(await taken(stream, 3), ["a2", "b1", "c(-1)"])
    const { position } = store.readAll({ limit: 10 }).at(-1)
    many(store, "a", 3)
    delta()
    const delivered = new Map(Object.entries({ a: 2, b: 1 }))
    await assert.rejects(stream.next(), coded("ERR_OVERFLOW", /3/, { delivered, position, limit: 3 }))
    assert.deepEqual(await stream.next(), DONE)
    assert.deepEqual(await stream.next(), DONE)
    await assert.rejects(unread.next(), coded("ERR_OVERFLOW", /3/, { delivered: new Map(), position: start, limit: 3 }))
    assert.deepEqual(await unread.next(), DONE)
  })

  test("by default 1,000 events", async () => {
    const { store, see, many } = together()
    const stream = store.stream()
    const full = store.stream()
    many(store, "a", 1_000)
    assert.deepEqual((await taken(full, 1_000)).at(-1), "a999")
    see(store)
    await assert.rejects(stream.next(), coded("ERR_OVERFLOW", /1,?000/, { limit: 1_000 }))
    assert.deepEqual(await taken(full, 1), ["a1000"])
    await full.return()
  })

  test("by bytes of the data's text: at the bound all is there; one event always fits", async () => {
    const { given, store, see } = together()
    const run = (bytes) => store.run(given.Seen, sized("a", bytes))
    const stream = store.stream({ capacity: { bytes: 100 } })
    run(5_000)
    assert.deepEqual(await taken(stream, 1), ["a0"])
    run(50)
    run(50)
    assert.deepEqual(await taken(stream, 2), ["a1", "a2"])
    run(50)
    run(51)
    await assert.rejects(stream.next(), coded("ERR_OVERFLOW", /100/, { delivered: new Map([["a", 2]]), limit: 100 }))
    const alone = store.stream({ capacity: { bytes: 100 } })
    run(5_000)
    see(store)
    await assert.rejects(alone.next(), coded("ERR_OVERFLOW", /100/, { delivered: new Map(), limit: 100 }))
    const wide = store.stream({ capacity: { bytes: 100 } })
    for (let n = 0; n < 2; n++) store.run(given.Seen, { noteID: "a", text: "é".repeat(30) })
    await assert.rejects(wide.next(), coded("ERR_OVERFLOW", /100/))
  })

  test("by default 8 MiB; what overflowed is dropped at once", async () => {
    const { given, store } = together({ path: ":memory:" })
    const run = () => store.run(given.Seen, sized("a", 2 ** 20))
    const stream = store.stream()
    const large = store.stream({ capacity: { bytes: 30 * 2 ** 20 } })
    const before = heldMiB()
    for (let n = 0; n < 8; n++) run()
    assert.deepEqual(await taken(stream, 1), ["a0"])
    run()
    run()
    for (let n = 10; n < 30; n++) run()
    assert.ok(heldMiB() - before > 25, `${heldMiB() - before} MiB are buffered`)
    run()
    assert.ok(heldMiB() - before < 8, `${heldMiB() - before} MiB are still held`)
    const bytes = 8 * 2 ** 20
    await assert.rejects(stream.next(), coded("ERR_OVERFLOW", /./, { limit: bytes, delivered: new Map([["a", 0]]) }))
    await assert.rejects(large.next(), coded("ERR_OVERFLOW", /./, { limit: 30 * 2 ** 20 }))
  })

  test("what a filter keeps out takes no room", async () => {
    const { given, store, many, delta } = together()
    const stream = store.stream({ types: [given.Delta], aggregates: ["a"], capacity: { events: 2, bytes: 100 } })
    many(store, "a", 50)
    for (let n = 0; n < 50; n++) delta("b")
    delta()
    delta()
    assert.deepEqual(await taken(stream, 2), ["a(49)", "a(49)"])
    for (let n = 0; n < 3; n++) delta()
    await assert.rejects(stream.next(), coded("ERR_OVERFLOW", /2/, { delivered: new Map(), limit: 2 }))
  })
})

describe("issue 3: the end of a stream", () => {
  test("abort ends it without an error and drops what is buffered", async () => {
    const { store, see } = together()
    const controller = new AbortController()
    const { signal } = controller
    const streams = counted(3).map(() => store.stream({ signal }))
    see(store)
    see(store)
    assert.deepEqual(await taken(streams[0], 2), ["a0", "a1"])
    const pending = streams[0].next()
    assert.deepEqual(await taken(streams[1], 1), ["a0"])
    controller.abort()
    assert.deepEqual(await pending, DONE)
    for (const stream of streams) assert.deepEqual(await stream.next(), DONE)
    assert.deepEqual(await store.stream({ signal }).next(), DONE)
    assert.equal(getEventListeners(signal, "abort").length, 0)
  })

  test("return, break, a throw of the loop, overflow and close end it, and leave nothing with the signal", async () => {
    const { store, see, many } = together()
    const { signal } = new AbortController()
    const streamed = () => {
      const stream = store.stream({ signal, capacity: { events: 4 } })
      see(store)
      return stream
    }
    const returned = streamed()
    assert.deepEqual(await returned.return(), DONE)
    assert.deepEqual(await returned.return(), DONE)
    assert.deepEqual(await returned.next(), DONE)
    const broken = streamed()
    for await (const _ of broken) break
    assert.deepEqual(await broken.next(), DONE)
    const thrown = streamed()
    const failing = async () => {
      for await (const event of thrown) throw new Error(named(event))
    }
    await assert.rejects(failing(), /^Error: a\d$/)
    assert.deepEqual(await thrown.next(), DONE)
    const overflowed = [streamed(), streamed()]
    many(store, "a", 5)
    assert.equal(getEventListeners(signal, "abort").length, 0)
    assert.deepEqual(await overflowed[0].return(), DONE)
    assert.deepEqual(await overflowed[0].next(), DONE)
    const both = [overflowed[1].next(), overflowed[1].next()]
    await assert.rejects(both[0], coded("ERR_OVERFLOW"))
    assert.deepEqual(await both[1], DONE)
    const closed = streamed()
    await closed.next()
    const pending = closed.next()
    store.close()
    assert.deepEqual(await pending, DONE)
    assert.deepEqual(await closed.next(), DONE)
    assert.equal(getEventListeners(signal, "abort").length, 0)
  })

  test("an iterator of its own, which can be left and gone on with", async () => {
    const { store, many } = together()
    const stream = store.stream()
    assert.equal(stream[Symbol.asyncIterator](), stream)
    many(store, "a", 3)
    assert.deepEqual(await taken(stream, 1), ["a0"])
    for await (const event of stream) if (event.seq === 2) break
    assert.deepEqual(await stream.next(), DONE)
  })
})
