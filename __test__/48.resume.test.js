"use strict"

// A stream that overflows says so, and the log has what is missing: whatever its reader does, nothing is lost in silence.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, collected, openNotes, turns } = require("./stores.js")
const { counted, deltas, dice, named, newFile, reading, until } = require("./streaming.js")

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

/** Reads a stream in the background until the store is closed, or the stream says that it has overflowed. */
function readingOn(stream, show) {
  const reader = reading(stream, show)
  reader.ended = reader.ended.catch((error) => (reader.overflowed = coded("ERR_OVERFLOW")(error)))
  return reader
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

describe("issue 3, mistake 14: after ERR_OVERFLOW the log goes on", () => {
  test("the log after what was delivered has exactly what is missing, also after foreign events", async () => {
    const { store, other, see, many } = together()
    const stream = store.stream({ capacity: { events: 40 } })
    const names = []
    for (let n = 0; n < 30; n++) see(n % 2 ? store : other, "abc"[n % 3])
    see(store)
    names.push(...(await taken(stream, 20)))
    many(other, "b", 3_000)
    see(store, "c")
    await turns(50)
    const error = await stream.next().catch((error) => error)
    coded("ERR_OVERFLOW", /40/, { limit: 40 })(error)
    const resumed = []
    for (const [aggregateID, after] of error.delivered) {
      const items = await collected(store.log({ aggregateID, after }))
      resumed.push(...items.filter(({ kind }) => kind === "event").map(({ event }) => named(event)))
    }
    const all = store.readAll({ limit: 10_000 }).map(named)
    assert.deepEqual([...names, ...resumed].toSorted(), all.toSorted())
    assert.deepEqual([...names, ...store.readAll({ afterPosition: error.position, limit: 10_000 }).map(named)], all)
  })

  test("also where it was opened while the store was behind with what others had committed", async () => {
    const { store, other, see, many } = together()
    store.subscribeAll(() => {}, { scope: "database" })
    many(other, "far", 3_000)
    see(store)
    const { position } = store.readAll({ afterPosition: 3_000, limit: 10 }).at(-1)
    const stream = store.stream({ capacity: { events: 1 } })
    const pending = stream.next()
    see(store)
    assert.equal(named((await pending).value), "a1")
    const unread = store.stream({ capacity: { events: 1 } })
    see(store)
    see(store)
    see(store)
    await turns(20)
    const missed = (error) => store.readAll({ afterPosition: error.position, limit: 10 }).map(named)
    await assert.rejects(stream.next(), (error) => {
      coded("ERR_OVERFLOW", /./, { position: position + 1, delivered: new Map([["a", 1]]) })(error)
      return assert.deepEqual(missed(error), ["a2", "a3", "a4"]) ?? true
    })
    await assert.rejects(unread.next(), coded("ERR_OVERFLOW", /./, { position: position + 1, delivered: new Map() }))
  })

  test("never a silent drop, also where more than 10,000 events wait for convertEvent", async () => {
    let held = true
    const pending = []
    const convertEvent = () => (held ? new Promise((resolve) => pending.push(resolve)) : undefined)
    const { store, other, many, see } = together({ convertEvent, onListenerError: () => {} })
    store.subscribeAll(() => {})
    const reader = readingOn(store.stream({ capacity: { events: 100_000 } }), named)
    for (let n = 0; n < 12; n++) many(n === 5 ? other : store, "a", 1_000)
    held = false
    pending[0]()
    see(store, "b")
    // Either it has everything, or it ends with the error that says so.
    await until(() => reader.overflowed || reader.items.includes("b0"))
    const all = [...counted(12_000).map((seq) => `a${seq}`), "b0"]
    assert.deepEqual(reader.items, reader.overflowed ? all.slice(0, reader.items.length) : all)
  })

  test("nor of ephemeral events, which no log brings back", async () => {
    let held = true
    const pending = []
    const convertEvent = () => (held ? new Promise((resolve) => pending.push(resolve)) : undefined)
    const { given, store } = together({ convertEvent, onListenerError: () => {} })
    const reader = readingOn(store.stream({ capacity: { events: 100_000 } }), ({ data }) => data.n)
    for (let n = 0; n < 12_000; n++) store.publish(given.Delta, { noteID: "a", n })
    held = false
    pending[0]()
    await turns(20)
    store.publish(given.Delta, { noteID: "a", n: 12_000 })
    await until(() => reader.overflowed || reader.items.includes(12_000))
    assert.deepEqual(reader.items, counted(reader.overflowed ? reader.items.length : 12_001))
  })

  test("a reader of any pace that resumes through the log misses nothing and gets nothing twice", async () => {
    for (const seed of [1, 2, 3, 4]) {
      const roll = dice(seed)
      const { store, other, see, many, delta } = together()
      const ids = ["a", "b", "c"]
      const seen = { a: [], b: [], c: [] }
      let overflows = 0
      const read = (event) => {
        if (event.seq !== undefined && event.seq > (seen[event.aggregateID].at(-1) ?? -1))
          seen[event.aggregateID].push(event.seq)
      }
      let stream = store.stream({ capacity: { events: 8 } })
      const consumer = (async () => {
        for (;;) {
          try {
            for await (const event of stream) {
              read(event)
              if (roll(3) === 0) await turns(roll(4))
            }
            return
          } catch (error) {
            coded("ERR_OVERFLOW", /8/)(error)
            for (const id of ids) assert.ok((error.delivered.get(id) ?? -1) <= (seen[id].at(-1) ?? -1))
            overflows++
            // The new stream first: what is committed while the log is read is in one of them, or in both.
            stream = store.stream({ capacity: { events: 8 } })
            for (const id of ids) for (const event of store.read(id, { after: seen[id].at(-1) ?? -1 })) read(event)
          }
        }
      })()
      for (let n = 0; n < 150; n++) {
        const by = roll(2) ? store : other
        if (roll(5) === 0) many(by, ids[roll(3)], 1 + roll(20))
        else see(by, ids[roll(3)])
        if (roll(4) === 0) delta(ids[roll(3)])
        if (roll(3) === 0) await turns(1 + roll(3))
      }
      await until(() => ids.every((id) => seen[id].at(-1) === store.sequence(id)))
      for (const id of ids) assert.deepEqual(seen[id], counted(store.sequence(id) + 1), `seed ${seed}`)
      assert.ok(overflows > 0)
      store.close()
      await consumer
    }
  })
})
