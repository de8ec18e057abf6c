"use strict"

// A worker thread that writes to a file, or reads what others write, until it is ended: what suite 86 terminates. It tells
// "ready" once it is at it, and then what it was given.

const { isMainThread, parentPort, workerData } = require("node:worker_threads")
const { createRegistry, define, open } = require("syncline")

/** A schema by hand: loading a validator would take longer than most of these threads live. */
const schema = { "~standard": { version: 1, vendor: "syncline", validate: (value) => ({ value }) } }

/** A store of notes that nothing projects. */
function openPlain(path) {
  const registry = createRegistry()
  const shape = { version: 1, aggregate: "noteID", schema, registry }
  const Written = define({ ...shape, type: "note.written", projector: "none" })
  const Delta = define({ ...shape, type: "note.delta", ephemeral: true })
  return { store: open(path, { registry }), Written, Delta }
}

/** Whoever falls behind shall be ended by the suite, not by an overflow. */
const AMPLE = { events: 10_000_000, bytes: 2 ** 30 }

const nameOf = ({ aggregateID, seq, after }) => `${aggregateID}${seq ?? `(${after})`}`

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads has no origin
const tell = (message) => parentPort.postMessage(message)

/** Blocks this thread for good: only `terminate` ends it. */
function hang() {
  tell("hangs")
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 120_000)
}

/** Keeps the thread alive, as a server would be. */
const stay = () => setInterval(() => {}, 1_000)

async function each(iterable, hear) {
  tell("ready")
  for await (const item of iterable) hear(item)
}

const acts = {
  async write({ store, Written, Delta }, { noteID, until }) {
    tell("ready")
    // One turn each: whoever writes without a pause hears nothing itself, and cannot be told to stop.
    while (Atomics.load(until, 0) === 0) {
      store.run(Written, { noteID, text: "x".repeat(200) })
      store.publish(Delta, { noteID })
      await new Promise(setImmediate)
    }
    store.close()
    tell("done")
  },
  run({ store, Written }) {
    tell("ready")
    for (;;) store.run(Written, { noteID: "thread" })
  },
  async "run async"({ store, Written }) {
    tell("ready")
    for (;;) await Promise.all([1, 2, 3].map(() => store.runAsync(Written, { noteID: "thread" })))
  },
  transaction({ store, Written, Delta }) {
    tell("ready")
    for (;;) {
      store.transaction(() => {
        for (let n = 0; n < 20; n++) store.run(Written, { noteID: "thread" })
        store.publish(Delta, { noteID: "thread" })
      })
    }
  },
  "an open transaction"({ store, Written }) {
    stay()
    tell("ready")
    store.transaction(() => {
      store.run(Written, { noteID: "held" })
      hang()
    })
  },
  replay({ store }) {
    tell("ready")
    for (let seq = store.sequence("replayed") + 1; ; seq += 50) {
      const events = Array.from({ length: 50 }, (_, n) => ({
        id: `evt_${seq + n}`,
        type: "note.written.1",
        seq: seq + n,
        aggregateID: "replayed",
        data: { noteID: "replayed" },
      }))
      store.replayAll(events, { publish: true })
    }
  },
  follow: ({ store }) => each(store.log({ aggregateID: "busy", follow: true }), () => {}),
  "follow what never comes": ({ store }) => each(store.log({ aggregateID: "nobody", follow: true }), () => {}),
  stream: ({ store }) => each(store.stream({ capacity: AMPLE }), () => {}),
  changes: ({ store }) => each(store.changes(), () => {}),
  waitFor({ store }) {
    tell("ready")
    return store.waitFor({ busy: 4_000_000_000, nobody: 0 })
  },
  listeners({ store }) {
    stay()
    tell("ready")
    store.subscribeAll(() => {}, { scope: "database" })
  },
  "a listener that hangs"({ store }) {
    stay()
    store.subscribeAll(hang, { scope: "database" })
    tell("ready")
  },
  "a listener that spins"({ store }) {
    stay()
    store.subscribeAll(
      () => {
        tell("hangs")
        for (;;);
      },
      { scope: "database" },
    )
    tell("ready")
  },
  "a stream that hangs": ({ store }) => each(store.stream({ capacity: AMPLE }), hang),
  "a log that hangs": ({ store }) => each(store.log({ aggregateID: "busy", follow: true }), hang),
  opening({ store, path }) {
    store.close()
    tell("ready")
    for (;;) {
      const { store } = openPlain(path)
      store.subscribeAll(() => {}, { scope: "database" })
      store.close()
    }
  },
  everything: (given) => readAtOnce(given),
  async "process.exit"(given) {
    readAtOnce(given)
    given.store.subscribeAll(() => process.exit(0), { scope: "database" })
  },
  async "process.exit at once"(given) {
    readAtOnce(given)
    process.exit(0)
  },
  async "an error that nobody catches"(given) {
    readAtOnce(given)
    await given.store.waitFor({ busy: given.store.sequence("busy") + 1 })
    throw new Error("mine")
  },
  "only listeners"({ store, Written }) {
    store.subscribe(Written, () => {})
    store.subscribeAll(() => {}, { scope: "database" })
    store.changes()
    store.log({ aggregateID: "busy", follow: true })
    globalThis.kept = [store, store.stream({ capacity: AMPLE })]
    tell("ready")
  },
  async "what was aborted"(given) {
    const controller = new AbortController()
    readAtOnce(given, controller.signal)
    await given.store.waitFor({ busy: given.store.sequence("busy") + 3 })
    controller.abort()
  },
  /** Writes so many notes beside the others, reads everything in every way, and tells it once it has seen so many. */
  async "write and read"(given, { name, runs, total }) {
    const { store, Written } = given
    const controller = new AbortController()
    const heard = { log: [], database: [], stream: [], changes: {} }
    const { signal } = controller
    const follow = async () => {
      for await (const { kind, event } of store.log({ aggregateID: "shared", follow: true, signal })) {
        if (kind === "event") heard.log.push(event.seq)
      }
    }
    const listen = async () => {
      for await (const event of store.stream({ signal })) heard.stream.push(nameOf(event))
    }
    const learn = async () => {
      for await (const { kind, aggregateID, seq } of store.changes({ signal })) {
        if (kind === "hint") heard.changes[aggregateID] = seq
        else Object.assign(heard.changes, Object.fromEntries(store.sequences()))
      }
    }
    store.subscribeAll((event) => heard.database.push(nameOf(event)), { scope: "database" })
    const reads = [follow(), listen(), learn()]
    tell("ready")
    await store.waitFor({ go: 0 })
    for (let n = 0; n < runs; n++) {
      store.run(Written, { noteID: n % 2 ? "shared" : name })
      if (n % 5 === 0) await new Promise(setImmediate)
    }
    await store.waitFor(total)
    store.run(Written, { noteID: "seen" })
    // What is last in the file is last for every reader.
    await store.waitFor({ end: 0 })
    while (heard.database.at(-1) !== "end0" || heard.stream.at(-1) !== "end0" || heard.changes.end !== 0) {
      await new Promise(setImmediate)
    }
    while (heard.log.at(-1) !== total.shared) await new Promise(setImmediate)
    controller.abort()
    await Promise.all(reads)
    tell(heard)
    store.close()
  },
}

/** Reads in every way there is at once, and tells "ready" when all of it has begun. */
function readAtOnce({ store }, signal) {
  const options = { signal }
  store.subscribeAll(() => {}, { scope: "database" })
  const aborted = (error) => {
    if (error.code !== "ERR_ABORTED") throw error
  }
  for (const iterable of [
    store.log({ aggregateID: "busy", follow: true, ...options }),
    store.log({ aggregateID: "nobody", follow: true, ...options }),
    store.stream({ capacity: AMPLE, ...options }),
    store.changes(options),
  ]) {
    void (async () => {
      for await (const item of iterable) void item
    })()
  }
  store.waitFor({ nobody: 0 }, options).catch(aborted)
  tell("ready")
}

if (!isMainThread) {
  const { act, path } = workerData
  const given = { ...openPlain(path), path }
  void acts[act](given, workerData)
}

module.exports = { AMPLE, nameOf, openPlain }
