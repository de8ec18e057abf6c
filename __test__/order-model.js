"use strict"

// What suite 45 runs its programs on: a store A and others of the same file, their readers, and a model. The model is a
// list of what was committed and published, in order, which the projectors write. It says what each reader must have heard.

const assert = require("node:assert/strict")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { kept, turns } = require("./stores.js")
const { reading } = require("./streaming.js")

/** What hears events: the store it belongs to, and what it asks for. */
const EARS = ["A all", "A database", "A stream", "A written", "A delta", "B all", "B database", "B stream"]
const LOGS = ["A log a", "A log b", "A log r", "B log a", "B log r"]
const READERS = [...EARS, ...LOGS, "A changes", "B changes"]

const deliberate = new Error("deliberate")

/** For how long a reader may stay behind. Once one has, the shrinking need not be as patient. */
let patience = 20_000

class World {
  /** What was committed or published, in order; of an open transaction what it has recorded so far. */
  items = []
  /** Everything that was tried, by the number in its data. */
  facts = []
  /** Readers, those that have left too: an ear hears events, a log or changes are read. */
  ears = []
  logs = []
  changes = []
  asyncRuns = []
  errors = []
  removed = new Set()
  /** How many items were there when the open transaction began. */
  base = undefined
  reacting = 0

  constructor({ converting, readers, flood, path }) {
    this.converting = converting
    this.delayed = converting || flood !== null
    this.path = path
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string(), n: z.number() })
    const shape = { version: 1, aggregate: "noteID", schema, registry }
    this.registry = registry
    this.Written = define({ ...shape, type: "note.written" })
    this.Tagged = define({ ...shape, type: "note.tagged" })
    this.Delta = define({ ...shape, type: "note.delta", ephemeral: true })
    this.projectors = [
      project(this.Written, (_tx, { n }, { seq }) => void this.recorded(n, seq)),
      project(this.Tagged, sql`INSERT INTO model VALUES (recorded(:data, :seq))`),
    ]
    this.stores = { A: this.open("A"), B: this.open("B") }
    for (const reader of readers) this.read(reader)
  }

  open(name) {
    const { registry, projectors } = this
    const convertEvent = name === "A" && this.converting ? (_type, { n }) => this.convert(n) : undefined
    const onListenerError = (error) => this.errors.push(error)
    const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS model (value)")
    const store = kept(this.path, { registry, projectors, convertEvent, onListenerError, migrate })
    store.db.function("recorded", (data, seq) => this.recorded(JSON.parse(data).n, seq))
    return store
  }

  convert(n) {
    const { convert: how } = this.facts[n]
    this.facts[n].conversions++
    if (how === 0) return `converted ${n}`
    if (how === "throws") throw deliberate
    return turns(how === "rejects" ? 1 : how).then(() => {
      if (how === "rejects") throw deliberate
      return `converted ${n}`
    })
  }

  /** Called by the projectors, and so in the order of commits, whoever carries out what and when. */
  recorded(n, seq) {
    const fact = this.facts[n]
    if (fact.refused) throw deliberate
    assert.equal(seq, this.last(fact.noteID) + 1)
    this.items.push(Object.assign(fact, { seq, name: `${fact.noteID}${seq}#${n}` }))
    return null
  }

  last(noteID) {
    return this.items.findLast((item) => item.noteID === noteID && !item.delta)?.seq ?? -1
  }

  /** How many items no rollback can take back any more. */
  get committed() {
    return this.base ?? this.items.length
  }

  /** Whether all that is committed has been delivered to the listeners that hear their own store only. */
  get delivered() {
    return !this.converting && this.reacting === 0
  }

  // --- readers ---

  read(reader) {
    const [name, kind, noteID] = reader.split(" ")
    const store = this.stores[name]
    const keep = (list, items) => {
      const { ended, ...rest } = reading(...items)
      // Without a listener of its own, a failure that comes before the end would be nobody's.
      const read = { reader, store, noteID, ended: ended.catch((error) => this.errors.push(error)), ...rest }
      list.push(read)
      return read
    }
    if (kind === "log") keep(this.logs, [store.log({ aggregateID: noteID, follow: true })])
    else if (kind === "changes") this.readChanges(keep, store)
    else this.listen(reader, name, kind, keep)
  }

  readChanges(keep, store) {
    const known = new Map()
    const see = ({ kind, aggregateID, seq }) => {
      if (kind === "sweep") for (const each of store.sequences()) known.set(...each)
      else assert.ok(seq >= (known.get(aggregateID) ?? -1), `a hint goes back: ${aggregateID} ${seq}`)
      if (kind === "hint") known.set(aggregateID, seq)
      return kind
    }
    keep(this.changes, [store.changes(), see]).known = known
  }

  listen(reader, name, kind, keep) {
    const store = this.stores[name]
    const ear = { reader, in: name, kind, heard: [], positions: [], from: this.committed, exact: this.delivered }
    const hear = (event) => this.hear(ear, event)
    if (kind === "all") ear.undo = store.subscribeAll(hear)
    else if (kind === "database") ear.undo = store.subscribeAll(hear, { scope: "database" })
    else if (kind === "stream") {
      const controller = new AbortController()
      ear.undo = () => controller.abort()
      ear.ended = keep([], [store.stream({ capacity: { events: 10_000 }, signal: controller.signal }), hear]).ended
    } else ear.undo = store.subscribe(kind === "delta" ? this.Delta : this.Written, hear)
    this.ears.push(ear)
  }

  hear(ear, event) {
    const fact = this.facts[event.data.n]
    const { name, noteID, seq, after, delta = false, answers, n } = fact
    // A stream may have handed out what it gave when it was aborted.
    if (ear.kind !== "stream") assert.equal(ear.to, undefined, `${ear.reader} heard ${name} after it had gone`)
    ear.heard.push(name)
    const told = [event.aggregateID, event.seq, event.after, "position" in event]
    assert.deepEqual(told, [noteID, seq, after, !delta], `what ${ear.reader} was told of ${name}`)
    assert.deepEqual(event.properties, ear.in === "A" && this.converting ? `converted ${n}` : { noteID, n })
    if (!delta) ear.positions.push([name, event.position])
    // Each event is answered once, by whoever hears it first.
    fact.answers = []
    this.reacting++
    try {
      for (const step of answers) this.perform(step)
    } finally {
      this.reacting--
    }
  }

  // --- steps ---

  /** What an event's data stands for, and the pairs that runAll takes. */
  fact(given) {
    const fact = { convert: 0, answers: [], conversions: 0, ...given, n: this.facts.length }
    this.facts.push(fact)
    return fact
  }

  pairs(events, more) {
    return events.map((event) => {
      const { noteID, n } = this.fact({ ...event, ...more })
      return [event.sql ? this.Tagged : this.Written, { noteID, n }]
    })
  }

  run(name, events, publish = true) {
    const pairs = this.pairs(events, { in: name, publish })
    if (pairs.length === 1) this.stores[name].run(...pairs[0], { publish })
    else this.stores[name].runAll(pairs, { publish })
  }

  /** `inside` is the store whose transaction is open: what others write would wait for its lock in vain. */
  perform(step, inside) {
    const name = inside ?? step.in
    const store = this.stores[name]
    switch (step.do) {
      case "run":
        return this.run(name, step.events, step.events[0].publish)
      case "delta":
        return inside === "B" ? undefined : this.publish(step)
      case "transaction":
        return this.transaction(store, name, step)
      case "run async": {
        if (inside !== undefined) return
        const pairs = this.pairs(step.events, { in: name, publish: true })
        return void this.asyncRuns.push(pairs.length === 1 ? store.runAsync(...pairs[0]) : store.runAllAsync(pairs))
      }
      case "replay":
        return inside === "B" ? undefined : this.replay(step)
      case "remove":
        return this.remove(name, step)
      case "refused":
        return this.refused(store, this.pairs(step.events, { in: name, publish: true }))
      case "visit": {
        if (inside !== undefined) return
        this.stores.C = this.open("C")
        this.run("C", step.events)
        return this.stores.C.close()
      }
      case "subscribe":
        return this.read(step.ear)
      case "unsubscribe": {
        const open = this.ears.filter((ear) => ear.to === undefined)
        const ear = open[step.which % open.length]
        if (ear === undefined) return
        ear.undo()
        Object.assign(ear, { to: this.committed, exactly: this.delivered })
      }
    }
  }

  publish({ noteID, convert, answers }) {
    const fact = this.fact({ noteID, convert, answers, delta: true, in: "A", publish: true, after: this.last(noteID) })
    fact.name = `${noteID}(${fact.after})#${fact.n}`
    this.items.push(fact)
    this.stores.A.publish(this.Delta, { noteID, n: fact.n })
  }

  transaction(store, name, { steps, fails }) {
    const outermost = this.base === undefined
    const act = () =>
      store.transaction(() => {
        // Async writes that waited went before it: from here on everything that comes is its own.
        const before = this.items.length
        if (outermost) this.base = before
        for (const step of steps) this.perform(step, name)
        if (fails) this.items.length = before
        if (outermost) this.base = undefined
        if (fails) throw deliberate
      })
    if (fails) assert.throws(act, deliberate)
    else act()
  }

  replay({ events }) {
    // What a listener replays has a history of its own, so that it does not come before one that is being replayed.
    const noteID = this.reacting > 0 ? `r${this.facts.length}` : "r"
    const next = this.last(noteID) + 1
    const { publish } = events[0]
    const items = events.map((event, index) => {
      const { n, sql } = this.fact({ ...event, noteID, publish, in: "A" })
      const type = sql ? "note.tagged.1" : "note.written.1"
      return { id: `evt_${n}`, type, seq: next + index, aggregateID: noteID, data: { noteID, n } }
    })
    assert.equal(this.stores.A.replayAll(items, { publish })[0].applied, items.length)
    assert.equal(this.stores.A.replayAll(items, { publish })[0].duplicate, items.length)
  }

  remove(name, { noteID: wanted, event }) {
    const noteID = this.reacting > 0 && wanted === "r" ? "a" : wanted
    this.removed.add(noteID)
    const options = event === null ? {} : { event: this.pairs([{ ...event, noteID }], { in: name, publish: true })[0] }
    this.stores[name].remove(noteID, options)
  }

  refused(store, pairs) {
    const { n } = this.fact({ refused: true })
    assert.throws(() => store.runAll([...pairs, [this.Written, { noteID: "a", n }]]), deliberate)
    const taken = new Set(pairs.map(([, data]) => data.n))
    this.items = this.items.filter((item) => !taken.has(item.n))
  }

  // --- the end ---

  async arrives(isTrue, story) {
    for (const start = performance.now(); !isTrue();) {
      this.checkErrors()
      if (performance.now() - start > patience) {
        patience = 1_000
        assert.fail(`${story()} waits in vain`)
      }
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }

  /** Resolves once every reader has been given all there is. */
  async settle() {
    for (let before; before !== this.items.length;) {
      for (let done = 0; done < this.asyncRuns.length;) await this.asyncRuns[done++]
      before = this.items.length + 3
      // First without a commit of its own that would bring the others along.
      for (const end of [() => this.run("B", [{ noteID: "end" }]), () => this.run("A", [{ noteID: "end" }])]) {
        end()
        await this.caughtUp()
      }
      this.publish({ noteID: "end", convert: 0, answers: [] })
      await this.caughtUp()
      await turns(2)
    }
  }

  async caughtUp() {
    await this.heardLast()
    for (const log of this.logs) {
      const tombstone = log.store.db.prepare("SELECT removed_seq FROM event_sequence WHERE aggregate_id = ?").pluck()
      await this.arrives(
        () => lastOf(log) === this.last(log.noteID) && removalOf(log) === (tombstone.get(log.noteID) ?? undefined),
        () => `${log.reader}, which gave ${JSON.stringify(log.items)},`,
      )
    }
    for (const { reader, store, known } of this.changes) {
      const behind = () => [...store.sequences()].filter(([id, seq]) => known.get(id) !== seq)
      await this.arrives(
        () => behind().length === 0,
        () => `${reader}, behind by ${behind()},`,
      )
    }
  }

  async heardLast() {
    for (const ear of this.ears) {
      const since = this.items.slice(ear.from)
      const end = since.findLast((item) => item.noteID === "end" && this.hears(ear, item))
      if (end === undefined) continue
      await this.arrives(
        () => ear.to !== undefined || ear.heard.includes(end.name),
        () => `${ear.reader}, which heard ${ear.heard.slice(-50)}, for ${end.name}`,
      )
    }
  }

  async close() {
    for (const store of Object.values(this.stores)) store.close()
    await Promise.all([...this.ears, ...this.logs, ...this.changes].map(({ ended }) => ended))
  }

  checkErrors() {
    for (const error of this.errors) if (error !== deliberate) throw error
  }

  // --- what must have been heard ---

  hears({ in: name, kind }, item) {
    if (name === "A" && this.converting && typeof item.convert === "string") return false
    if (item.delta) return name === "A" && kind !== "written"
    if (kind === "database" || kind === "stream") return true
    return item.in === name && item.publish && (kind === "all" || (kind === "written" && !item.sql))
  }
}

/** How far a log has been given, and the last removal that it told of. */
function lastOf({ items }) {
  return items.reduce((last, { kind, event, seq }) => (kind === "event" ? event.seq : (seq ?? last)), -1)
}

function removalOf({ items }) {
  return items.findLast(({ kind }) => kind === "removed")?.seq
}

module.exports = { EARS, READERS, World }
