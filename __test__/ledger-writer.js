"use strict"

// Does everything that writes, in an order that follows from a seed, until it is killed. Before each step it tells what it
// begins, and after it what was returned: whoever killed it knows what must be there, and what it was doing.

const { writeSync } = require("node:fs")
const { openLedger, refusal, removeQuietly } = require("./ledger.js")
const { random } = require("./soak.js")

/** Packs soon and all the time; only for the seeds that ask for it. */
const PACKING = { keepEvents: 10, keepBytes: 10_000, atBytes: 20_000, idle: 3 }

class Writer {
  batches = 0
  /** What each step is called, and how often it comes. */
  steps = [
    ...Array(4).fill("run"),
    ...Array(3).fill("runAll"),
    ...Array(3).fill("replayAll"),
    ...Array(3).fill("transaction"),
    "runAsync",
    "runAllAsync",
    "replayAllAsync",
    "claim",
    "release",
    "remove",
    "remove quietly",
  ]

  constructor({ path, seed, name }) {
    this.random = random(seed)
    this.name = name
    this.prefix = `${name}.${seed}`
    const packing = this.random.chance(0.3) && PACKING
    Object.assign(this, openLedger(path, { packing }))
  }

  tell(...message) {
    writeSync(3, `${JSON.stringify(message)}\n`)
  }

  async work() {
    for (;;) {
      const step = this.random.one(this.steps)
      this.tell("begin", step)
      await this[step]()
      if (this.random.chance(0.3)) await new Promise(setImmediate)
    }
  }

  get text() {
    return `${this.random.integer(1_000)} `.repeat(1 + this.random.integer(this.random.chance(0.1) ? 3_000 : 30))
  }

  shared() {
    return `shared ${this.random.integer(3)}`
  }

  /** An event for one account, as `runAll` takes it. */
  pair(account, more) {
    const { Added, Tagged, Noted } = this
    const type = this.random.one([Added, Added, Tagged, Noted])
    return [type, { account, text: this.text, tag: "tag", ...more }]
  }

  /** Data that all events of one batch carry: its name, and how many they are. */
  batch(of) {
    return { batch: `${this.prefix}.${this.batches++}`, of }
  }

  pairs(count, batch = this.batch(count)) {
    return Array.from({ length: count }, () => this.pair(this.shared(), batch))
  }

  returned(events) {
    this.tell("run", ...events.map(({ aggregateID, seq, id }) => [aggregateID, seq, id]))
  }

  run() {
    const account = this.random.chance(0.5) ? this.shared() : `doomed ${this.random.integer(2)}`
    this.returned([this.store.run(...this.pair(account))])
  }

  async runAsync() {
    this.returned([await this.store.runAsync(...this.pair(this.shared()))])
  }

  runAll() {
    this.returned(this.store.runAll(this.pairs(2 + this.random.integer(20))))
  }

  async runAllAsync() {
    this.returned(await this.store.runAllAsync(this.pairs(2 + this.random.integer(20))))
  }

  /** What another device is supposed to have written: nobody but this writer replays it. */
  history() {
    const account = `copy ${this.name} ${this.random.integer(2)}`
    const seq = this.store.sequence(account) + 1
    const count = 1 + this.random.integer(30)
    const batch = this.batch(count)
    const items = Array.from({ length: count }, (_, n) => {
      const [{ name }, data] = this.pair(account, batch)
      return { id: `evt ${account} ${seq + n}`, type: name, seq: seq + n, aggregateID: account, data }
    })
    // Now and then with what is there already.
    const known = this.random.chance(0.3) ? this.store.read(account, { after: Math.max(-1, seq - 5) }) : []
    return { items, input: [...known, ...items] }
  }

  replayAll() {
    const { items, input } = this.history()
    this.store.replayAll(this.random.chance(0.5) ? input : JSON.stringify(input))
    this.returned(items)
  }

  async replayAllAsync() {
    const { items, input } = this.history()
    await this.store.replayAllAsync(input)
    this.returned(items)
  }

  /** With one inside it that fails and is caught; one in four fails itself. */
  transaction() {
    const { store, random: numbers } = this
    const [before, after] = [1 + numbers.integer(5), 1 + numbers.integer(5)]
    const fails = numbers.chance(0.25)
    const batch = fails ? { never: true } : this.batch(before + after)
    try {
      const events = store.transaction(() => {
        const first = store.runAll(this.pairs(before, batch))
        try {
          store.transaction(() => {
            store.runAll(this.pairs(2, { never: true }))
            store.run(this.Added, { account: this.shared(), text: "", never: true, refused: true })
          })
        } catch (error) {
          if (error !== refusal) throw error
        }
        const second = this.pairs(after, batch).map((pair) => store.run(...pair))
        if (fails) throw refusal
        return [...first, ...second]
      })
      this.returned(events)
    } catch (error) {
      if (error !== refusal) throw error
    }
  }

  claim() {
    const lease = `lease ${this.random.integer(2)}`
    const owner = `${this.name} ${this.random.integer(2)}`
    const { epoch } = this.store.claim(lease, owner)
    this.tell("claimed", lease, owner, epoch)
  }

  release() {
    const lease = `lease ${this.random.integer(2)}`
    const { owner, epoch } = this.store.claim(lease, null)
    this.tell("claimed", lease, owner, epoch)
  }

  remove() {
    const account = `doomed ${this.random.integer(2)}`
    this.tell("removing", account)
    this.store.remove(account, { event: [this.Closed, { account }] })
    this.removed(account)
  }

  "remove quietly"() {
    const account = `doomed ${this.random.integer(2)}`
    this.tell("removing", account)
    removeQuietly(this.store, account)
    this.removed(account)
  }

  /** Others may have written since; what they wrote is not told of here. */
  removed(account) {
    const through = this.store.db.prepare("SELECT removed_seq FROM event_sequence WHERE aggregate_id = ?").pluck()
    this.tell("removed", account, through.get(account) ?? -1)
  }
}

if (require.main === module) void new Writer(JSON.parse(process.argv[2])).work()
