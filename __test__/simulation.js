"use strict"

// A writer, its readers and a network, all in one thread and driven by one seed: no clock but the count of steps, no thread
// but those that are awaited. The network drops, duplicates, reorders and delays; whoever is killed goes on from a copy of
// its files as they were at that moment.

const assert = require("node:assert/strict")
const { Device, killed } = require("./devices.js")
const { History } = require("./ledger-history.js")
const { apply, projected, refusal, removeQuietly, replayed } = require("./ledger.js")
const { random } = require("./soak.js")

const NAMES = ["A", "B", "C", "D"]
const ACCOUNTS = ["one", "two", "three"]

/** What one seed comes to. */
class Simulation {
  clock = 0
  /** What is on its way: when it arrives, and to whom. */
  messages = []
  sent = 0
  history = new History()
  trace = []
  counts = {}

  constructor(seed, folder) {
    this.random = random(seed)
    this.nodes = NAMES.map((name) => new Device(name, folder))
    this.writer = this.nodes[0]
    /** By reader and account, the seq through which the writer has sent. */
    this.told = new Map()
  }

  get readers() {
    return this.nodes.filter((node) => node !== this.writer)
  }

  /** Nothing that differs between two runs of a seed may be told here: no ids, no times. */
  tell(what, ...more) {
    this.counts[what] = (this.counts[what] ?? 0) + 1
    this.trace.push([this.clock, what, ...more].join(" "))
  }

  async play(steps) {
    const actions = [
      ...Array(6).fill("run"),
      ...Array(3).fill("runAll"),
      ...Array(3).fill("transaction"),
      ...Array(2).fill("restart"),
      ...Array(2).fill("idle"),
      "remove",
      "removeQuietly",
      "maintain",
      "handOver",
      "hint",
    ]
    for (let step = 0; step < steps; step++) {
      this.clock++
      const action = this.random.one(actions)
      await this[action]()
      await this.deliver()
      if (this.random.chance(0.05)) this.checkTables()
    }
    await this.heal()
  }

  checkTables() {
    for (const { name, store } of this.nodes) this.history.check(store, `${name}, step ${this.clock}`)
  }

  close() {
    for (const { store } of this.nodes) store.close()
  }

  // --- the writer ---

  account() {
    return this.random.one(ACCOUNTS)
  }

  pair(account = this.account()) {
    const { Added, Tagged, Noted, Labelled, Set, Closed } = this.writer
    const types = [Added, Added, Added, Tagged, Noted, Labelled, Labelled, Labelled, Set, Set]
    const type = this.random.chance(0.03) ? Closed : this.random.one(types)
    const data = { account, key: `k${this.random.integer(3)}`, tag: "tag", text: `t${this.random.integer(4)}` }
    // By which alone it does not differ from the last one.
    if (type === Set) return [type, { account, text: data.text, n: this.random.integer(100) }]
    return [type, data]
  }

  pairs() {
    return Array.from({ length: 1 + this.random.integer(5) }, () => this.pair())
  }

  /** Does what the writer does, unless it is killed in the middle; then nothing of it has happened. */
  async write(what, act) {
    const { writer } = this
    if (this.random.chance(0.08)) writer.fuse = 1 + this.random.integer(4)
    try {
      act(writer.store)
    } catch (error) {
      if (error !== killed) throw error
      this.tell("the writer is killed", writer.name, `in ${what}`)
      writer.revive()
      return
    }
    writer.fuse = undefined
    const touched = []
    for (const { aggregateID: account, seq } of writer.store.aggregates()) {
      const last = this.history.last(account)
      if (seq === last) continue
      touched.push(account)
      for (const event of writer.store.read(account, { after: last })) {
        const [, type, version] = /^(.*)\.(\d+)$/.exec(event.type)
        assert.equal(version, "1")
        this.history.add(account, event.seq, type, event.data)
      }
    }
    this.tell(what, ...touched.map((account) => `${account}@${this.history.last(account)}`))
    this.history.check(writer.store, `the writer ${writer.name}, step ${this.clock}`)
    for (const account of touched) for (const reader of this.readers) await this.push(reader, account)
  }

  async run() {
    const pair = this.pair()
    await this.write("run", (store) => store.run(...pair))
  }

  async runAll() {
    const pairs = this.pairs()
    await this.write("runAll", (store) => store.runAll(pairs))
  }

  /** One that is nested fails, by its projector or by a constraint, and is caught; at times all of it fails. */
  async transaction() {
    const [before, after] = [this.pairs(), this.pairs()]
    const account = this.account()
    const { Added, Tagged } = this.writer
    const [fails, byConstraint] = [this.random.chance(0.2), this.random.chance(0.5)]
    const inner = (store) => {
      store.runAll(before)
      if (byConstraint) store.run(Tagged, { account, tag: "refused" })
      else store.run(Added, { account, text: "", refused: true })
    }
    await this.write(fails ? "a transaction that fails" : "transaction", (store) => {
      const act = () =>
        store.transaction(() => {
          store.runAll(before)
          this.writer.burn()
          assert.throws(
            () => store.transaction(() => inner(store)),
            (error) => {
              if (error === killed) throw killed
              return byConstraint ? error.code === "ERR_SQLITE" : error === refusal
            },
          )
          this.writer.burn()
          store.runAll(after)
          if (fails) throw refusal
        })
      if (!fails) return act()
      try {
        act()
      } catch (error) {
        if (error !== refusal) throw error
      }
    })
  }

  async remove() {
    const account = this.account()
    await this.removing("remove", account, (store) =>
      store.remove(account, { event: [this.writer.Closed, { account }] }),
    )
  }

  async removeQuietly() {
    const account = this.account()
    await this.removing("remove quietly", account, (store) => removeQuietly(store, account))
  }

  async removing(what, account, act) {
    const last = this.history.last(account)
    if (last < 0) return
    await this.write(what, (store) => {
      act(store)
      const seq = store.sequence(account)
      // The deletion event stands in the tombstone alone.
      if (seq > last) this.history.add(account, seq, "account.closed", { account })
      this.history.removed(account, seq)
    })
    for (const reader of this.readers) await this.push(reader, account)
  }

  async maintain() {
    const { name, store } = this.random.one(this.nodes)
    const { dropped } = await store.maintain()
    this.tell("maintain", name, `lets ${dropped} go`)
  }

  /** Somebody is killed between two acts, or closes and opens again. */
  restart() {
    if (this.random.chance(0.5)) return
    const node = this.random.one(this.nodes)
    const before = projected(node.store)
    if (this.random.chance(0.7)) {
      node.copy()
      node.revive()
      this.tell("killed", node.name)
    } else {
      node.store.close()
      node.open()
      this.tell("opened again", node.name)
    }
    assert.deepEqual(projected(node.store), before)
  }

  idle() {
    this.clock += this.random.integer(10)
  }

  /** A reader has caught up and claims everything; whoever wrote before hears of it, the others when something comes. */
  async handOver() {
    const [old, next] = [this.writer, this.random.one(this.readers)]
    for (const account of ACCOUNTS) await this.fetch(next, account)
    for (const { aggregateID, epoch } of old.store.aggregates()) {
      if (next.store.sequence(aggregateID) < 0) continue
      const expectedEpoch = next.store.owner(aggregateID).epoch
      assert.equal(expectedEpoch, epoch)
      assert.deepEqual(next.store.claim(aggregateID, next.name, { expectedEpoch }), {
        owner: next.name,
        epoch: epoch + 1,
      })
    }
    this.writer = next
    this.told.clear()
    this.tell("hand over", old.name, next.name)
    for (const account of ACCOUNTS) {
      const seq = next.store.sequence(account)
      if (seq < 0) continue
      apply(old.store, await this.itemsOf(account, seq - 1), this.authority(account))
      const before = projected(old.store)
      assert.throws(() => old.store.run(old.Noted, { account }), { code: "ERR_NOT_OWNER" })
      assert.throws(() => old.store.remove(account), { code: "ERR_NOT_OWNER" })
      assert.deepEqual(projected(old.store), before)
    }
  }

  // --- the network ---

  async itemsOf(account, after) {
    const items = []
    for await (const item of this.writer.store.log({ aggregateID: account, after: Math.max(-1, after) }))
      items.push(item)
    return items
  }

  authority(account) {
    const { owner, epoch } = this.writer.store.owner(account)
    return { owner, epoch }
  }

  send(to, message) {
    const copies = this.random.chance(0.15) ? 0 : this.random.chance(0.15) ? 2 : 1
    if (copies !== 1) this.tell(copies === 0 ? "dropped" : "duplicated", message.kind, "to", to.name)
    for (let copy = 0; copy < copies; copy++) {
      const due = this.clock + this.random.integer(this.random.chance(0.1) ? 60 : 6)
      this.messages.push({ due, order: this.sent++, to, message })
    }
  }

  /** What a reader has not been sent, or from somewhere before; its end may be missing. */
  async push(reader, account) {
    if (this.writer.store.sequence(account) < 0) return
    const key = `${reader.name} ${account}`
    const through = this.told.get(key) ?? -1
    const after = this.random.chance(0.2) ? through - this.random.integer(5) : through
    const items = await this.itemsOf(account, after)
    if (this.random.chance(0.2)) items.length = 1 + this.random.integer(items.length)
    const last = items.findLast(({ kind }) => kind !== "synced")
    this.told.set(key, last?.seq ?? last?.through ?? last?.event.seq ?? through)
    // As text: what is sent is what it was when it was sent.
    this.send(reader, { kind: "items", account, items: JSON.stringify(items), ...this.authority(account) })
  }

  hint() {
    for (const account of ACCOUNTS) {
      const seq = this.history.last(account)
      if (seq >= 0) this.send(this.random.one(this.readers), { kind: "hint", account, seq })
    }
  }

  async deliver(all = false) {
    for (;;) {
      this.messages.sort((one, other) => one.due - other.due || one.order - other.order)
      if (this.messages.length === 0 || (this.messages[0].due > this.clock && !all)) return
      const { to, message } = this.messages.shift()
      if (message.kind === "items") await this.receive(to, message)
      else if (message.kind === "fetch") await this.answer(to, message)
      else if (to.store.sequence(message.account) < message.seq) this.ask(to, message.account)
    }
  }

  ask(reader, account) {
    if (reader === this.writer) return
    this.send(this.writer, { kind: "fetch", account, after: reader.store.sequence(account), reader })
  }

  async answer(node, { account, after, reader }) {
    // The one that was asked may have handed over since.
    if (node !== this.writer || reader === node || node.store.sequence(account) < 0) return
    const items = JSON.stringify(await this.itemsOf(account, after))
    this.send(reader, { kind: "items", account, items, ...this.authority(account) })
  }

  async receive(node, { account, items: text, owner, epoch }) {
    const items = JSON.parse(text)
    if (this.random.chance(0.1)) node.fuse = 1 + this.random.integer(4)
    const before = node.store.sequence(account)
    const held = node.store.owner(account)?.epoch ?? 0
    const story = `${account} to ${node.name}@${before}`
    try {
      this.replayInParts(node.store, items, { owner, epoch })
      // That all is read is said by nobody in particular.
      const says = items.some(({ kind }) => kind !== "synced")
      assert.ok(!says || epoch >= held, `${story}: epoch ${epoch} after ${held}`)
      this.tell("replayed", story, `now ${node.store.sequence(account)}`)
    } catch (error) {
      if (error === killed) {
        this.tell("a reader is killed", story)
        node.revive()
      } else if (error.code === "ERR_SEQUENCE_MISMATCH") {
        assert.equal(error.expected, node.store.sequence(account) + 1)
        assert.ok(error.got > error.expected, error.message)
        this.tell("something is missing", story)
        this.ask(node, account)
      } else if (error.code === "ERR_NOT_OWNER") {
        // It comes from a writer that has handed over.
        assert.ok(epoch < node.store.owner(account).epoch, error.message)
        assert.equal(node.store.sequence(account), before)
        this.tell("refused as of an older epoch", story)
      } else throw error
    }
    node.fuse = undefined
    this.history.check(node.store, `${node.name}, step ${this.clock}, after ${story}`)
    if (this.random.chance(0.1)) this.forge(node, items)
  }

  /** In any cut, and in any form that carries the same. */
  replayInParts(store, items, authority) {
    for (let from = 0; from < items.length;) {
      const count = this.random.chance(0.3) ? 1 + this.random.integer(items.length) : items.length
      const part = items.slice(from, from + count)
      from += count
      const form = this.random.integer(4)
      if (form < 2 || part.some(({ kind, event }) => kind === "removed" && event === undefined))
        apply(store, part, authority)
      else if (form === 2) store.replayAll(JSON.stringify(part), authority)
      else store.replayAll(Buffer.from(part.map((item) => JSON.stringify(item)).join("\n")), authority)
    }
  }

  /** The same seq with other data, of one that is held: two histories of one account. */
  forge(node, items) {
    const held = items.filter(({ event }) => event && node.store.get(event.aggregateID, event.seq) !== undefined)
    if (held.length === 0) return
    const { event } = this.random.one(held)
    const forged = { ...event, data: { ...event.data, text: "forged" } }
    assert.throws(() => node.store.replayAll([forged]), { code: "ERR_REPLAY_DIVERGED" })
    this.tell("forged", node.name, event.aggregateID, event.seq)
  }

  // --- the end ---

  /** What a reader lacks, without the network between; what it has last comes again, so that it hears who the writer is. */
  async fetch(reader, account) {
    if (this.writer.store.sequence(account) < 0) return
    const items = await this.itemsOf(account, reader.store.sequence(account) - 1)
    apply(reader.store, items, this.authority(account))
    assert.equal(reader.store.sequence(account), this.writer.store.sequence(account))
  }

  /** All that is still on its way arrives, and everybody fetches what is missing: then all say the same. */
  async heal() {
    await this.deliver(true)
    for (const reader of this.readers) for (const account of ACCOUNTS) await this.fetch(reader, account)
    this.checkTables()
    const { store } = this.writer
    const tables = projected(store)
    for (const reader of this.readers) {
      assert.deepEqual(projected(reader.store), tables, reader.name)
      assert.deepEqual(reader.store.aggregates(), store.aggregates(), reader.name)
    }
    assert.deepEqual(await replayed(store), tables)
    for (const node of this.nodes) assert.deepEqual(await node.store.verify(), [], node.name)
    this.tell("healed", JSON.stringify(tables))
  }
}

module.exports = { Simulation }
