"use strict"

// What suite 16 does to a store, step by step, on whichever thread that stands: steps are data, and so is what they come to.
// As a worker thread it carries out what it is sent, one thing after the other.

const { parentPort, workerData } = require("node:worker_threads")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")

/** The stores, all but one of one file: who writes in whose name, and how. */
const KINDS = {
  plain: {},
  // These two hear their own events only, which takes another way.
  owned: { owner: "o", database: false },
  memory: { database: false },
  // On a thread of its own, and packing all the time. It knows no keys: what goes is left to `maintain` in the others.
  thread: { owner: "t", keys: false, packing: { keepEvents: 2, keepBytes: 200, atBytes: 600, idle: 5 } },
  reading: { readonly: true },
  unrecorded: { record: false },
}

const deliberate = Object.assign(new Error("deliberate"), { code: "DELIBERATE" })

/** A store of such a kind, with its listeners. */
function begin(path, kind) {
  const { keys = true, packing = false, database = true, ...options } = KINDS[kind]
  const registry = createRegistry()
  const shape = { version: 1, aggregate: "id", registry }
  const schema = z.object({ id: z.string(), n: z.number(), throws: z.boolean().optional() })
  const stateSchema = z.object({ id: z.string(), n: z.number(), key: z.string(), text: z.string() })
  const types = {
    noted: define({ ...shape, schema, type: "noted" }),
    tagged: define({ ...shape, schema, type: "tagged" }),
    seen: define({ ...shape, schema, type: "seen", projector: "none" }),
    state: define({ ...shape, schema: stateSchema, type: "state", ...(keys && { compactKey: "key", dedupe: ["n"] }) }),
    told: define({ ...shape, schema, type: "told", ephemeral: true }),
  }
  const upsert =
    "INSERT INTO row VALUES (:id, :n, 1) ON CONFLICT (id) DO UPDATE SET n = excluded.n, writes = writes + 1"
  const inSql = sql`INSERT INTO row VALUES (:aggregateID, :data ->> '$.n', 1)
    ON CONFLICT (id) DO UPDATE SET n = excluded.n, writes = writes + 1`
  const note = (tx, { id, n, throws }) => {
    tx.prepare(upsert).run({ id, n: BigInt(n) })
    if (throws) throw deliberate
  }
  const projectors = [project(types.noted, note), project(types.tagged, inSql), project(types.state, inSql)]
  const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS row (id TEXT PRIMARY KEY, n INTEGER, writes INTEGER)")
  const store = open(path, { registry, projectors, packing, ...(options.readonly ? {} : { migrate }), ...options })
  const heard = { own: [], database: [] }
  const hear = (list) => (event) => list.push([event.aggregateID, event.seq ?? `after ${event.after}`, event.data.n])
  store.subscribeAll(hear(heard.own))
  if (database) store.subscribeAll(hear(heard.database), { scope: "database" })
  else heard.database = undefined
  return { store, types, heard, inside: 0 }
}

/** Does one step. Resolves to what it came to: `{ok}`, or the code of what was thrown; of a transaction also its steps. */
async function perform(at, step) {
  if (step.do === "async") {
    const { store, types } = at
    const pairs = step.events.map((event) => [types[event.type], dataOf(event)])
    return outcome(async () => (await store.runAllAsync(pairs)).map(eventOutcome))
  }
  if (step.do === "replay async") {
    return outcome(async () => at.store.replayAllAsync(itemsOf(at.store, step.items), step.options))
  }
  if (step.do === "maintain") return outcome(async () => (await at.store.maintain()).complete)
  return write(at, step)
}

async function outcome(work) {
  try {
    return { ok: await work() }
  } catch (error) {
    return { code: error.code ?? error.stack }
  }
}

const WRITING = {
  run({ store, types }, { event, expected, publish, created, metadata }) {
    const expectedSeq = expected === null ? undefined : Math.max(-1, store.sequence(event.id) + expected)
    const options = { expectedSeq, publish, created: created ?? undefined, metadata: metadata ?? undefined }
    return eventOutcome(store.run(types[event.type], dataOf(event), options))
  },
  "run all": ({ store, types }, { events }) =>
    store.runAll(events.map((event) => [types[event.type], dataOf(event)])).map(eventOutcome),
  publish: ({ store, types }, { event }) => void store.publish(types.told, dataOf(event)),
  replay: ({ store }, { items, options }) => store.replayAll(itemsOf(store, items), options),
  claim({ store }, { id, owner, expected }) {
    const expectedEpoch = expected === null ? undefined : Math.max(0, (store.owner(id)?.epoch ?? 0) + expected)
    return store.claim(id, owner, { expectedEpoch })
  },
  remove: ({ store, types }, { id, event }) =>
    void store.remove(id, event === null ? {} : { event: [types[event.type], dataOf({ ...event, id })] }),
}

/** The same for what may stand in a transaction. */
function write(at, step) {
  if (step.do === "transaction") return transaction(at, step)
  try {
    return { ok: WRITING[step.do](at, step) ?? null }
  } catch (error) {
    return { code: error.code ?? error.stack }
  }
}

function transaction(at, { steps, fails, via }) {
  const outcomes = []
  const { store } = at
  const work = () => {
    at.inside++
    try {
      for (const step of steps) outcomes.push(write(at, step))
      if (fails) throw deliberate
    } finally {
      at.inside--
    }
  }
  try {
    if (via === "savepoint" && at.inside > 0) savepoint(store, work)
    else if (via === "database") store.db.transaction(work)()
    else store.transaction(work)
    return { ok: null, steps: outcomes }
  } catch (error) {
    return { code: error.code ?? error.stack, steps: outcomes }
  }
}

function savepoint({ db }, work) {
  db.exec("SAVEPOINT point")
  try {
    work()
  } catch (error) {
    db.exec("ROLLBACK TO point; RELEASE point")
    throw error
  }
  db.exec("RELEASE point")
}

const dataOf = ({ type, id, n, throws, key, text }) =>
  type === "state" ? { id, n, key, text } : { id, n, ...(throws && { throws }) }

const eventOutcome = ({ seq, unchanged = false }) => ({ seq, unchanged })

/** What another device sends, made from what this store holds. */
function itemsOf(store, items) {
  const start = new Map()
  const last = new Map()
  return items.map(({ what, event, back }) => {
    const { id, n } = event
    if (!start.has(id)) start.set(id, store.sequence(id))
    const held = start.get(id)
    const end = last.get(id) ?? held
    const made = (seq) => ({ id: `made ${n}`, type: `${event.type}.1`, seq, aggregateID: id, data: dataOf(event) })
    const of = Math.max(0, held - back)
    if ((what === "held" || what === "diverged") && held >= 0) {
      const stored = store.get(id, of) ?? made(of)
      return what === "held" ? stored : { ...stored, data: { ...stored.data, n: -1 - n } }
    }
    if (what === "far") return made(end + 2 + back)
    if (what === "gap") {
      last.set(id, end + 1 + back)
      return { kind: "gap", aggregateID: id, after: end, through: end + 1 + back }
    }
    if (what === "removed") {
      const seq = Math.max(0, end + 1 - back)
      last.set(id, Math.max(end, seq))
      return { kind: "removed", aggregateID: id, seq }
    }
    const seq = end + 1
    last.set(id, seq)
    if (what === "removed with event") return { kind: "removed", aggregateID: id, seq, event: made(seq) }
    if (what === "unknown") return { ...made(seq), type: "unheard.1" }
    if (what === "mismatch") return { ...made(seq), aggregateID: `not ${id}` }
    if (what === "invalid") return { ...made(seq), data: { ...dataOf(event), n: "none" } }
    return made(seq)
  })
}

/** All that can be read of a store, as data. */
async function snapshot({ store }) {
  const aggregates = {}
  for (const { aggregateID, seq, owner, epoch } of store.aggregates()) {
    const log = []
    for await (const item of store.log({ aggregateID })) {
      if (item.kind === "event") log.push([item.event.seq, item.event.type, item.event.data.n, item.event.metadata?.m])
      else if (item.kind === "gap") log.push(["gap", item.after, item.through])
      else if (item.kind === "removed") log.push(["removed", item.seq, item.event?.data.n])
      else log.push(["synced", item.seq])
    }
    const events = store.read(aggregateID).map(({ seq, type, data, metadata }) => [seq, type, data.n, metadata?.m])
    const middle = events[events.length >> 1]?.[0] ?? 0
    aggregates[aggregateID] = {
      known: [seq, owner, epoch],
      asked: [store.sequence(aggregateID), store.owner(aggregateID)],
      log,
      events,
      middle: store.get(aggregateID, middle)?.data.n,
      before: store.read(aggregateID, { before: middle, order: "desc", limit: 3 }).map((event) => event.seq),
      after: store.read(aggregateID, { after: middle, limit: 3 }).map((event) => event.seq),
    }
  }
  const all = store.readAll({ limit: 1_000_000 })
  return {
    aggregates,
    sequences: Object.fromEntries(store.sequences()),
    all: all.map(({ data }) => data.n).toSorted((a, b) => a - b),
    positions: all.every(({ position }, index) => index === 0 || position > all[index - 1].position),
    stats: [store.stats().events, store.stats().aggregateCount],
    rows: store.db.prepare("SELECT id, n, writes FROM row ORDER BY id").raw().all(),
  }
}

/** Resolves to all that was heard, once the event of that number has been. Hearing it takes as long as it takes. */
async function heardThrough({ heard }, n) {
  const there = () => heard.database === undefined || heard.database.findLastIndex((event) => event[2] === n) >= 0
  for (const start = performance.now(); !there();) {
    if (performance.now() - start > 30_000) break
    await new Promise((resume) => setTimeout(resume, 1))
  }
  return heard
}

const OPERATIONS = {
  begin: (path, kind) => void (OPERATIONS.at = begin(path, kind)),
  perform: (step) => perform(OPERATIONS.at, step),
  snapshot: () => snapshot(OPERATIONS.at),
  heardThrough: (n) => heardThrough(OPERATIONS.at, n),
  close: () => OPERATIONS.at.store.close(),
}

if (workerData === "store-steps") {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads has no origin
  const answer = (message) => parentPort.postMessage(message)
  parentPort.on("message", async ([operation, ...given]) => {
    try {
      answer({ answer: await OPERATIONS[operation](...given) })
    } catch (error) {
      answer({ failure: error.stack })
    }
  })
}

module.exports = { KINDS, begin, heardThrough, perform, snapshot }
