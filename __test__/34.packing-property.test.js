"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { collected, file, notes, openNotes, serialized, tagRows } = require("./stores.js")

// Programs are data: steps on two stores of one file, each compared with a plain list of what was committed.

const NOTES = ["a", "b", "c"]
const noteID = fc.constantFrom(...NOTES)
const within = fc.constantFrom(0, 1)
const doing = (name, more) => fc.record({ do: fc.constant(name), in: within, ...more })
const often = (weight, arbitrary) => ({ weight, arbitrary })
// Small ones, the usual half page, and one past what stays a row.
const size = fc.oneof(often(8, fc.nat(40)), often(2, fc.nat(3_000)), often(1, fc.constant(70_000)))
const event = fc.record({ noteID, tagged: fc.boolean(), size, metadata: fc.boolean() })

const writing = [
  often(8, doing("run", { events: fc.array(event, { minLength: 1, maxLength: 3 }) })),
  // More than stay rows, more than a page, more than a segment.
  often(3, doing("many", { noteID, count: fc.constantFrom(5, 30, 260, 1_100) })),
  often(3, doing("replay", { events: fc.array(event, { minLength: 1, maxLength: 6 }) })),
  often(2, doing("replay again", { noteID, from: fc.nat(2_000) })),
  often(1, doing("diverge", { noteID, at: fc.nat(2_000) })),
  often(1, doing("gap", { noteID, length: fc.integer({ min: 1, max: 5 }) })),
  often(2, doing("remove", { noteID, event: fc.boolean() })),
  often(2, doing("removed", { noteID, back: fc.integer({ min: -2, max: 40 }) })),
]

const { step } = fc.letrec((tie) => ({
  inside: fc.oneof({ maxDepth: 2 }, ...writing, often(2, tie("transaction"))),
  transaction: doing("transaction", { fails: fc.boolean(), steps: fc.array(tie("inside"), { maxLength: 4 }) }),
  step: fc.oneof(
    ...writing,
    often(4, tie("transaction")),
    often(5, doing("maintain")),
    often(5, doing("maintain a little", { budget: fc.constantFrom(1, 20) })),
    often(1, doing("both maintain")),
    often(1, doing("reopen")),
  ),
}))

/** Two stores of one file, and what they must hold. */
class World {
  given = notes()
  path
  stores = []
  /** By note: its events by seq, the ranges that are gone, through where it was removed. */
  notes = new Map()
  count = 0

  constructor(path) {
    this.path = path
    this.open(0)
    this.open(1)
  }

  open(index) {
    this.stores[index]?.close()
    const packing = { keepEvents: 8, keepBytes: 4_000, atBytes: 20_000, idle: 1 }
    this.stores[index] = openNotes(this.given, {
      path: this.path,
      packing: index === 0 ? packing : { ...packing, idle: 60_000 },
    })
  }

  note(id) {
    if (!this.notes.has(id)) this.notes.set(id, { seq: -1, events: new Map(), gaps: [], removed: -1, told: false })
    return this.notes.get(id)
  }

  copy() {
    return new Map(
      [...this.notes].map(([id, note]) => [id, { ...note, events: new Map(note.events), gaps: [...note.gaps] }]),
    )
  }

  data({ noteID, tagged, size }) {
    const text = `${this.count} é\u{1F600}`.padEnd(size, `${this.count * 7} `)
    return tagged ? { noteID, tag: `#${this.count}` } : { noteID, text }
  }

  add(id, seq, event) {
    const note = this.note(id)
    note.seq = seq
    note.events.set(seq, event)
  }

  async perform(step) {
    if (step.do === "maintain") return this.stores[step.in].maintain()
    if (step.do === "maintain a little") return this.stores[step.in].maintain({ budget: step.budget })
    if (step.do === "both maintain") return Promise.all(this.stores.map((store) => store.maintain()))
    if (step.do === "reopen") return this.open(step.in)
    return this.write(this.stores[step.in], step)
  }

  write(store, step) {
    if (step.do === "transaction") return this.transaction(store, step)
    if (step.do === "run") for (const event of step.events) this.run(store, event)
    if (step.do === "many") {
      const events = Array.from({ length: step.count }, () => ({ noteID: step.noteID, size: 0 }))
      store.transaction(() => events.forEach((event) => this.run(store, event)))
    }
    if (step.do === "replay") return this.replay(store, step.events)
    if (step.do === "replay again") return this.again(store, step)
    if (step.do === "diverge") return this.diverge(store, step)
    if (step.do === "gap") {
      const note = this.note(step.noteID)
      const gap = { after: note.seq, through: note.seq + step.length }
      store.replay({ kind: "gap", aggregateID: step.noteID, ...gap })
      note.gaps.push(gap)
      note.seq = gap.through
    }
    if (step.do === "remove") return this.remove(store, step)
    if (step.do === "removed") {
      const seq = this.note(step.noteID).seq - step.back
      if (seq < 0) return
      store.replay({ kind: "removed", aggregateID: step.noteID, seq })
      this.erase(step.noteID, seq)
    }
  }

  transaction(store, { fails, steps }) {
    const before = this.copy()
    const failure = new Error("taken back")
    const work = () => {
      for (const step of steps) this.write(store, step)
      this.checkNotes(store)
      if (fails) throw failure
    }
    if (!fails) return store.transaction(work)
    assert.throws(
      () => store.transaction(work),
      (error) => error === failure,
    )
    this.notes = before
  }

  run(store, { noteID, tagged = false, size, metadata = false }) {
    this.count++
    const data = this.data({ noteID, tagged, size })
    const more = {
      created: this.count % 3 ? this.count : -this.count,
      ...(metadata && { metadata: { n: this.count } }),
    }
    const { id, seq } = store.run(tagged ? this.given.Tagged : this.given.Seen, data, more)
    assert.equal(seq, this.note(noteID).seq + 1)
    this.add(noteID, seq, { ...serialized(tagged ? "tagged" : "seen", seq, data), id, ...more })
  }

  replay(store, events) {
    const last = new Map(NOTES.map((id) => [id, this.note(id).seq]))
    const items = events.map(({ noteID, tagged, size, metadata }) => {
      this.count++
      last.set(noteID, last.get(noteID) + 1)
      const item = serialized(tagged ? "tagged" : "seen", last.get(noteID), this.data({ noteID, tagged, size }))
      return { ...item, id: `é${this.count}`, ...(metadata && { metadata: { n: this.count } }) }
    })
    store.replayAll(items)
    for (const item of items) this.add(item.aggregateID, item.seq, item)
  }

  again(store, { noteID, from }) {
    const items = [...this.note(noteID).events.values()].slice(from % 1_200)
    if (items.length === 0) return
    const [{ applied, duplicate }] = store.replayAll(items)
    assert.deepEqual([applied, duplicate], [0, items.length])
  }

  diverge(store, { noteID, at }) {
    const items = [...this.note(noteID).events.values()]
    if (items.length === 0) return
    const item = items[at % items.length]
    assert.throws(() => store.replay({ ...item, id: "other" }), { code: "ERR_REPLAY_DIVERGED" })
  }

  remove(store, { noteID, event }) {
    const note = this.note(noteID)
    if (!event) {
      store.remove(noteID)
      if (note.seq > note.removed) this.erase(noteID, note.seq)
      return
    }
    this.count++
    store.remove(noteID, { event: [this.given.Tagged, { noteID, tag: `#${this.count}` }] })
    note.seq++
    this.erase(noteID, note.seq)
    note.told = true
  }

  erase(id, seq) {
    const note = this.note(id)
    if (seq <= note.removed) return
    note.told = false
    note.removed = seq
    note.seq = Math.max(note.seq, seq)
    for (const held of note.events.keys()) if (held <= seq) note.events.delete(held)
    note.gaps = note.gaps
      .filter(({ through }) => through > seq)
      .map(({ after, through }) => ({ after: Math.max(after, seq), through }))
  }

  /** Reads each note, from either end and in the middle, and all in the order of commits. */
  checkNotes(store) {
    for (const id of NOTES) {
      const note = this.note(id)
      assert.equal(store.sequence(id), note.seq, id)
      const wanted = [...note.events.values()].map((item) => JSON.stringify(ordered(item)))
      const texts = (options) => store.read(id, options).map((item) => JSON.stringify(ordered(item)))
      assert.deepEqual(texts(), wanted)
      assert.deepEqual(texts({ order: "desc", limit: 5 }), wanted.toReversed().slice(0, 5))
      const middle = [...note.events.keys()][wanted.length >> 1] ?? 0
      assert.deepEqual(texts({ after: middle, limit: 3 }), wanted.slice((wanted.length >> 1) + 1).slice(0, 3))
      assert.deepEqual(
        texts({ before: middle, limit: 3, order: "desc" }),
        wanted
          .slice(0, wanted.length >> 1)
          .toReversed()
          .slice(0, 3),
      )
      assert.equal(store.get(id, middle)?.id, note.events.get(middle)?.id)
    }
  }

  async check() {
    const orders = []
    for (const store of this.stores) {
      this.checkNotes(store)
      for (const id of NOTES) {
        const note = this.note(id)
        let last = -1
        let events = 0
        for (const { kind, event, seq, after, through } of await collected(store.log({ aggregateID: id }))) {
          if (kind === "removed") assert.deepEqual([seq, event !== undefined], [note.removed, note.told], id)
          if (kind === "event") assert.equal(event.seq, last + 1, id)
          if (kind === "event") events++
          if (kind === "gap") assert.equal(after, last, id)
          last = event?.seq ?? seq ?? through
        }
        assert.equal(last, note.seq, id)
        assert.equal(events, note.events.size, id)
      }
      orders.push(store.readAll({ limit: 1_000_000 }).map(({ position, id }) => [position, id]))
    }
    assert.deepEqual(orders[0], orders[1])
    // What was read once keeps its position, and positions are never given again.
    const positions = new Map(orders[0])
    assert.equal(positions.size, orders[0].length)
    for (const [position, id] of orders[0]) {
      assert.equal(this.positions.get(position) ?? id, id)
      this.positions.set(position, id)
    }
    const twice = `SELECT count(*) FROM event JOIN event_segment s ON s.aggregate = event.aggregate AND event.seq <= s.seq`
    assert.equal(this.stores[0].db.prepare(twice).pluck().get(), 0)
  }

  positions = new Map()

  close() {
    for (const store of this.stores) store.close()
  }
}

/** An item with its fields in one order. */
function ordered({ id, type, seq, aggregateID, data, created, metadata }) {
  return { id, type, seq, aggregateID, data, created, metadata }
}

describe("packing and maintenance, whenever they come", () => {
  test("two stores of one file hold what a plain list holds, after every step", async () => {
    let files = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 14 }), async (steps) => {
        const world = new World(file(`${files++}.db`))
        try {
          for (const step of steps) {
            await world.perform(step)
            await world.check()
          }
          // Tables are as if each event had been projected once.
          const [one, other] = world.stores.map((store) => tagRows(store))
          assert.deepEqual(one, other)
          assert.equal(world.stores[0].db.pragma("integrity_check", { simple: true }), "ok")
        } finally {
          world.close()
        }
      }),
      { numRuns: Number(process.env.SYNCLINE_RUNS ?? 25), includeErrorInReport: true },
    )
  })
})
