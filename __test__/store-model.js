"use strict"

// What the stores of a file must hold and tell, as plainly as possible: maps and lists, copied before whatever may fail.

const { KINDS } = require("./store-steps")

class Refusal extends Error {
  constructor(code) {
    super(code)
    this.code = code
  }
}

const refuse = (code) => {
  throw new Refusal(code)
}

/** One file: its aggregates, the rows that were projected, and what the step at hand has made public. */
class FileModel {
  aggregates = new Map()
  rows = new Map()
  /** Of the step at hand: what becomes public once it commits. */
  pending = []

  /** How many events maintenance has taken, and how many runs were spared. */
  taken = 0
  spared = 0

  of(id) {
    return this.aggregates.get(id)
  }

  last(id) {
    return this.of(id)?.seq ?? -1
  }

  made(id, owner, epoch = owner === null ? 0 : 1) {
    if (!this.of(id))
      this.aggregates.set(id, { seq: -1, owner, epoch, events: new Map(), removed: -1, told: undefined })
    return this.of(id)
  }

  /** Does `work`, or leaves everything as it was. */
  whole(work) {
    const [aggregates, rows, pending] = [this.aggregates, this.rows, this.pending]
    this.aggregates = new Map([...aggregates].map(([id, one]) => [id, { ...one, events: new Map(one.events) }]))
    this.rows = new Map(rows)
    this.pending = [...pending]
    try {
      return work()
    } catch (error) {
      Object.assign(this, { aggregates, rows, pending })
      throw error
    }
  }

  /** What a step must come to. `got` decides only what may be either: whether a run that repeats was spared. */
  predict(kind, step, got) {
    if (step.do === "transaction") return this.transaction(kind, step, got)
    try {
      return { ok: this.whole(() => this.apply(kind, step, got)) ?? null }
    } catch (error) {
      if (error instanceof Refusal) return { code: error.code }
      throw error
    }
  }

  transaction(kind, { steps, fails }, got) {
    const outcomes = []
    try {
      this.whole(() => {
        for (const [n, step] of steps.entries()) outcomes.push(this.predict(kind, step, got.steps?.[n] ?? {}))
        if (fails) refuse("DELIBERATE")
      })
    } catch (error) {
      if (error instanceof Refusal) return { code: error.code, steps: outcomes }
      throw error
    }
    return { ok: null, steps: outcomes }
  }

  apply(kind, step, got) {
    const by = { readonly: false, record: true, owner: null, keys: true, ...KINDS[kind] }
    if (step.do === "maintain") return by.readonly ? refuse("ERR_READONLY") : true
    if (step.do === "publish") return void this.tell(step.event, `after ${this.last(step.event.id)}`, true, false)
    if (step.do === "claim") return this.claim(by, step)
    if (step.do === "remove") return this.remove(by, step)
    if (step.do === "replay" || step.do === "replay async") return this.replay(by, step)
    if (step.do === "run") return this.run(by, step, got.ok ?? {})
    return step.events.map((event, n) => this.run(by, { event, expected: null, publish: true }, got.ok?.[n] ?? {}))
  }

  run({ readonly, record, owner, keys }, { event, expected, publish, metadata }, got) {
    const { id } = event
    if (!record && expected !== null) refuse("ERR_INVALID_ARGUMENT")
    if (readonly) refuse("ERR_READONLY")
    if (!record) {
      this.project(event)
      this.tell(event, -1, publish, false)
      return { seq: -1, unchanged: false }
    }
    this.checkWriter(id, owner)
    const last = this.last(id)
    if (expected !== null && Math.max(-1, last + expected) !== last) refuse("ERR_CONFLICT")
    const repeated = keys && got.unchanged ? this.repeated(event) : undefined
    if (repeated !== undefined) {
      this.spared++
      return { seq: repeated, unchanged: true }
    }
    const aggregate = this.made(id, owner)
    this.record(aggregate, last + 1, event, metadata ?? undefined)
    this.tell(event, last + 1, publish, true)
    this.project(event)
    return { seq: last + 1, unchanged: false }
  }

  checkWriter(id, writer) {
    const owner = this.of(id)?.owner ?? null
    if (owner !== null && writer !== null && owner !== writer) refuse("ERR_NOT_OWNER")
  }

  /** The seq of the newest event of its key, where that says the same. */
  repeated({ id, type, key, text }) {
    if (type !== "state") return undefined
    const newest = [...(this.of(id)?.events ?? [])].findLast(([, one]) => one.type === "state" && one.key === key)
    return newest !== undefined && newest[1].text === text ? newest[0] : undefined
  }

  record(aggregate, seq, event, metadata) {
    aggregate.seq = seq
    aggregate.events.set(seq, { ...event, m: metadata?.m })
  }

  project({ id, type, n, throws }) {
    if (type === "seen") return
    this.rows.set(id, [id, n, (this.rows.get(id)?.[2] ?? 0) + 1])
    if (type === "noted" && throws) refuse("DELIBERATE")
  }

  tell({ id, n }, seq, publish, recorded) {
    this.pending.push({ heard: [id, seq, n], publish, recorded })
  }

  claim({ readonly }, { id, owner, expected }) {
    const held = this.of(id)
    const epoch = held?.epoch ?? 0
    if (readonly) refuse("ERR_READONLY")
    if (expected !== null && Math.max(0, epoch + expected) !== epoch) refuse("ERR_CONFLICT")
    if (held === undefined && owner === null) return { owner: null, epoch: 0 }
    const claimed = held ?? this.made(id, null)
    if (claimed.owner !== owner) Object.assign(claimed, { owner, epoch: epoch + 1 })
    return { owner: claimed.owner, epoch: claimed.epoch }
  }

  remove({ readonly, record, owner }, { id, event }) {
    if (!record) refuse("ERR_INVALID_ARGUMENT")
    if (readonly) refuse("ERR_READONLY")
    this.checkWriter(id, owner)
    if (event === null) {
      const held = this.of(id)
      if (held !== undefined && held.seq > held.removed) this.erase(held, held.seq, undefined)
      return
    }
    const held = this.made(id, owner)
    held.seq++
    this.erase(held, held.seq, event.n)
    this.tell({ ...event, id }, held.seq, true, true)
    this.project({ ...event, id })
  }

  erase(held, through, told) {
    for (const [seq, { n }] of held.events) {
      if (seq > through) continue
      held.events.delete(seq)
      // Whoever reads the log after this commit does not find it any more.
      for (const one of this.pending) if (one.heard[2] === n) one.erased = true
    }
    // A tombstone has one event: the one before it is told of by nobody any more.
    for (const one of this.pending) if (one.heard[2] === held.told) one.erased = true
    Object.assign(held, { removed: through, told, seq: Math.max(held.seq, through) })
  }

  replay({ readonly, record }, { items, options }) {
    if (!record) refuse("ERR_INVALID_ARGUMENT")
    const results = new Map()
    const start = new Map()
    for (const { what, event, back } of items) {
      const { id } = event
      const named = what === "mismatch" ? `not ${id}` : id
      if (!start.has(id)) start.set(id, this.last(id))
      if (!results.has(named)) results.set(named, { aggregateID: named, applied: 0, duplicate: 0, seq: -1 })
      const applied = this.replayOne(readonly, what, event, back, start.get(id), options)
      results.get(named)[applied ? "applied" : "duplicate"]++
      results.get(named).seq = this.last(id)
    }
    return [...results.values()].map((one) => ({ ...one, seq: this.last(one.aggregateID) }))
  }

  /** Whether it was new. */
  replayOne(readonly, what, event, back, start, { publish, owner, epoch }) {
    const { id, n } = event
    if (what === "unknown") refuse("ERR_UNKNOWN_EVENT")
    if (what === "mismatch") refuse("ERR_AGGREGATE_MISMATCH")
    if (what === "invalid") refuse("ERR_INVALID_DATA")
    if (readonly) refuse("ERR_READONLY")
    const known = this.of(id)
    const adopted = known && this.authority(known, owner ?? null, epoch)
    const last = this.last(id)
    if (what === "far") refuse("ERR_SEQUENCE_MISMATCH")
    const seq = Math.max(0, start - back)
    const compared = (what === "held" || what === "diverged") && start >= 0
    if (compared && what === "diverged" && known.events.has(seq)) refuse("ERR_REPLAY_DIVERGED")
    const made = known ?? this.made(id, owner ?? null, epoch ?? (owner === undefined ? 0 : 1))
    Object.assign(made, adopted)
    if (compared) return false
    if (what === "gap") {
      made.seq = last + 1 + back
      return true
    }
    if (what === "removed") {
      const through = Math.max(0, last + 1 - back)
      if (through <= made.removed) return false
      this.erase(made, through, undefined)
      return true
    }
    if (what === "removed with event") {
      made.seq = last + 1
      this.erase(made, last + 1, n)
    } else {
      this.record(made, last + 1, event, undefined)
    }
    this.tell(event, last + 1, publish, true)
    this.project(event)
    return true
  }

  /** Owner and epoch that a replay leaves. */
  authority(held, owner, epoch) {
    if (epoch !== undefined && epoch < held.epoch) refuse("ERR_NOT_OWNER")
    if (epoch !== undefined && epoch > held.epoch) return { epoch, owner: owner ?? held.owner }
    if (owner === null || held.owner === owner) return {}
    if (held.owner !== null) refuse("ERR_NOT_OWNER")
    return { owner, epoch: epoch ?? held.epoch + 1 }
  }

  /** After maintenance: of what a later event supersedes, what is not there any more is gone for good. */
  compacted(snapshot) {
    for (const [id, { events }] of this.aggregates) {
      const there = new Set((snapshot.aggregates[id]?.events ?? []).map(([seq]) => seq))
      for (const key of new Set([...events.values()].map((event) => event.key))) {
        if (key === undefined) continue
        const seqs = [...events.keys()].filter((seq) => events.get(seq).type === "state" && events.get(seq).key === key)
        for (const seq of seqs.slice(1, -1)) {
          if (there.has(seq)) continue
          events.delete(seq)
          this.taken++
        }
      }
    }
  }

  /** All that can be read, in the form of the store's own. */
  snapshot() {
    const sorted = [...this.aggregates].toSorted(([a], [b]) => (a < b ? -1 : 1))
    const aggregates = Object.fromEntries(sorted.map(([id, one]) => [id, this.read(one)]))
    const all = sorted.flatMap(([, { events }]) => [...events.values()].map(({ n }) => n))
    return {
      aggregates,
      sequences: Object.fromEntries(sorted.map(([id, { seq }]) => [id, seq])),
      all: all.toSorted((a, b) => a - b),
      positions: true,
      stats: [all.length, sorted.length],
      rows: [...this.rows.values()].toSorted(([a], [b]) => (a < b ? -1 : 1)),
    }
  }

  read({ seq, owner, epoch, events, removed, told }) {
    const list = [...events].map(([at, { type, n, m }]) => [at, `${type}.1`, n, m])
    const log = removed >= 0 ? [["removed", removed, told]] : []
    let last = removed
    for (const event of list) {
      if (event[0] > last + 1) log.push(["gap", last, event[0] - 1])
      log.push(event)
      last = event[0]
    }
    if (last < seq) log.push(["gap", last, seq])
    log.push(["synced", seq])
    const middle = list[list.length >> 1]?.[0] ?? 0
    const seqs = list.map(([at]) => at)
    return {
      known: [seq, owner, epoch],
      asked: [seq, { owner, epoch }],
      log,
      events: list,
      middle: events.get(middle)?.n,
      before: seqs
        .filter((at) => at < middle)
        .slice(-3)
        .toReversed(),
      after: seqs.filter((at) => at > middle).slice(0, 3),
    }
  }
}

module.exports = { FileModel }
