"use strict"

// Claims, runs, replays and releases notes that others claim and run at the same moment. Each event says in whose name it was
// written and in which epoch, as far as its writer knew. `held …` are never released: who has claimed one owns it until
// another claims it. `free …` are: there the epoch is asked inside the transaction that writes.

const { writeSync } = require("node:fs")
const { openNotes } = require("./notes.js")
const { random } = require("./soak.js")

class Racer {
  /** The epoch of each note that this one has claimed, until it hears that it has lost it. */
  held = new Map()

  constructor({ path, name, seed, notes, steps, prizes }) {
    Object.assign(this, { name, notes, steps, prizes, random: random(seed) }, openNotes(path, { owner: name }))
  }

  tell(...message) {
    writeSync(3, `${JSON.stringify(message)}\n`)
  }

  async race() {
    for (let step = 0; step < this.steps; step++) {
      const noteID = `held ${this.random.integer(this.notes)}`
      const acts = this.held.has(noteID)
        ? ["claim", "run", "run", "run", "runAll", "transaction", "runAsync", "replay", "replay"]
        : ["claim", "claimSeen", "free", "release"]
      const act = this.random.one(acts)
      try {
        await this[act](noteID)
      } catch (error) {
        this.lost(act, noteID, error)
      }
      if (step % Math.ceil(this.steps / this.prizes) === 0) this.prize(step)
      if (this.random.chance(0.1)) await new Promise(setImmediate)
    }
    this.store.close()
  }

  /** What a race may end with: another was quicker. */
  lost(act, noteID, { code, stack, expected, epoch }) {
    const mayFail = {
      ERR_NOT_OWNER: true,
      ERR_CONFLICT: act === "claimSeen",
      ERR_SEQUENCE_MISMATCH: act === "replay",
      ERR_REPLAY_DIVERGED: act === "replay",
    }
    if (!mayFail[code]) throw new Error(`${act} of ${noteID} as ${this.name}: ${stack}`)
    if (code === "ERR_NOT_OWNER") this.tell("refused", noteID, this.held.get(noteID) ?? null, expected, epoch)
    else this.tell("late", act, code)
    if (code !== "ERR_REPLAY_DIVERGED" && code !== "ERR_SEQUENCE_MISMATCH") this.held.delete(noteID)
  }

  data(noteID) {
    return { noteID, text: "raced", by: this.name, epoch: this.held.get(noteID) }
  }

  claimed(noteID, { epoch }, expected = null) {
    this.held.set(noteID, epoch)
    this.tell("claimed", noteID, this.name, epoch, expected)
  }

  claim(noteID) {
    this.claimed(noteID, this.store.claim(noteID, this.name))
  }

  /** Of all that have seen the same epoch one may have it. */
  claimSeen(noteID) {
    const { owner, epoch } = this.store.owner(noteID) ?? { owner: null, epoch: 0 }
    const taken = this.store.claim(noteID, this.name, { expectedEpoch: epoch })
    this.claimed(noteID, taken, owner === this.name ? null : epoch)
  }

  run(noteID) {
    this.ran([this.store.run(this.Written, this.data(noteID))])
  }

  async runAsync(noteID) {
    this.ran([await this.store.runAsync(this.Written, this.data(noteID))])
  }

  runAll(noteID) {
    const count = 2 + this.random.integer(5)
    this.ran(this.store.runAll(Array.from({ length: count }, () => [this.Written, this.data(noteID)])))
  }

  /** A claim that is taken back with its transaction, and runs around it. */
  transaction(noteID) {
    const events = this.store.transaction(() => {
      const before = this.store.run(this.Written, this.data(noteID))
      try {
        this.store.transaction(() => {
          this.store.claim(noteID, `nobody ${this.name}`)
          throw this
        })
      } catch (error) {
        if (error !== this) throw error
      }
      return [before, this.store.run(this.Written, this.data(noteID))]
    })
    this.ran(events)
  }

  ran(events) {
    this.tell("ran", ...events.map(({ aggregateID, seq, id }) => [aggregateID, seq, id]))
  }

  /** What it would have sent from another device of its own, in its name and epoch. */
  replay(noteID) {
    const seq = this.store.sequence(noteID) + 1
    const id = `evt ${this.name} ${noteID} ${seq} ${this.random.integer(2 ** 30)}`
    const event = { id, type: "note.written.1", seq, aggregateID: noteID, data: this.data(noteID) }
    this.store.replayAll([event], { owner: this.name, epoch: this.held.get(noteID) })
    this.ran([event])
  }

  /** Whoever owns it, or anybody while nobody does; the epoch is that of the moment. */
  free() {
    const noteID = `free ${this.random.integer(this.notes)}`
    this.store.transaction(() => {
      if (this.random.chance(0.3)) this.store.claim(noteID, this.name)
      const { owner, epoch } = this.store.owner(noteID) ?? { owner: this.name, epoch: 1 }
      this.ran([this.store.run(this.Written, { noteID, text: "free", by: this.name, owner, epoch })])
    })
  }

  /** Anybody may. A note that was released is written in the epoch that it was owned in, too, as if it came late. */
  release() {
    const noteID = `free ${this.random.integer(this.notes)}`
    const before = this.store.owner(noteID)
    if (before === undefined) return
    this.store.claim(noteID, null)
    if (before.owner === null) return
    const seq = this.store.sequence(noteID) + 1
    const data = { noteID, text: "late", by: before.owner, ...before }
    const event = { id: `late ${this.name} ${seq}`, type: "note.written.1", seq, aggregateID: noteID, data }
    this.store.replayAll([event], before)
    throw new Error(`${noteID} was written in epoch ${before.epoch}, which was over`)
  }

  /** New notes: all claim the one at once, and all create the other. */
  prize(step) {
    try {
      this.tell("won", this.store.claim(`prize ${step}`, this.name, { expectedEpoch: 0 }).epoch, `prize ${step}`)
    } catch (error) {
      if (error.code !== "ERR_CONFLICT") throw error
    }
    try {
      const { seq } = this.store.run(this.Written, { noteID: `born ${step}` }, { expectedSeq: -1 })
      this.tell("won", seq + 1, `born ${step}`)
    } catch (error) {
      if (error.code !== "ERR_NOT_OWNER") throw error
    }
  }
}

if (require.main === module) {
  const racer = new Racer(JSON.parse(process.argv[2]))
  racer.tell("ready")
  // Nobody begins before all are there.
  process.stdin.once("data", () => {
    process.stdin.unref()
    void racer.race()
  })
}
