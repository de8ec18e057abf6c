"use strict"

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { once } = require("node:events")
const { join } = require("node:path")
const { afterEach, describe, test } = require("node:test")
const { Worker } = require("node:worker_threads")
const { file } = require("./stores.js")
const { AMPLE, nameOf, openPlain } = require("./stream-thread.js")
const { counted, dice, reading, until, watchThreads } = require("./streaming.js")

const THREAD = join(__dirname, "stream-thread.js")
const onLinux = process.platform === "linux"
const running = new Set()
const opened = new Set()

afterEach(async () => {
  for (const { worker } of running) await worker.terminate()
  // One that a failed test left open would keep the process alive.
  for (const store of opened) store.close()
})

function openHere(path) {
  const given = openPlain(path)
  opened.add(given.store)
  return given
}

/** A thread that does one of the acts of `stream-thread.js`; `told` grows as it tells. */
function start(act, settings) {
  const worker = new Worker(THREAD, { workerData: { act, ...settings } })
  const thread = { worker, told: [], errors: [] }
  worker.on("message", (message) => thread.told.push(message))
  worker.on("error", (error) => thread.errors.push(error))
  thread.ended = new Promise((resolve) => {
    worker.on("exit", (code) => {
      running.delete(thread)
      resolve(code)
    })
  })
  running.add(thread)
  return thread
}

async function toldOf({ worker, told, errors }, message) {
  while (!told.includes(message)) {
    assert.deepEqual(errors, [])
    await once(worker, "message")
  }
}

/** Threads that write until they are stopped, a turn between two runs. */
async function startWriters(path, noteIDs) {
  const stop = new Int32Array(new SharedArrayBuffer(4))
  const writers = noteIDs.map((noteID) => start("write", { path, noteID, until: stop }))
  await Promise.all(writers.map((writer) => toldOf(writer, "ready")))
  return async () => {
    Atomics.store(stop, 0, 1)
    for (const { ended, told, errors } of writers) {
      assert.equal(await ended, 0)
      assert.deepEqual([told.at(-1), errors], ["done", []])
    }
  }
}

/** A store of this thread, with readers that must hear everything to the end. */
function openMain(path) {
  const { store, Written } = openHere(path)
  const heard = []
  store.subscribeAll((event) => heard.push(nameOf(event)), { scope: "database" })
  const log = reading(store.log({ aggregateID: "busy", follow: true }), ({ event }) => event?.seq)
  const own = reading(store.log({ aggregateID: "main", follow: true }), ({ event }) => event?.seq)
  const stream = reading(store.stream({ types: [Written], capacity: AMPLE }), nameOf)
  const run = () => store.run(Written, { noteID: "main" })
  return { store, Written, heard, log, own, stream, run }
}

/** A write of this thread succeeds and is heard, and so is one of the writers' from after it. */
async function assertAlive({ store, heard, log, own, stream, run }) {
  const { seq } = run()
  const busy = store.sequence("busy") + 1
  await until(
    () =>
      heard.lastIndexOf(`main${seq}`) >= 0 && stream.items.lastIndexOf(`main${seq}`) >= 0 && own.items.at(-1) === seq,
    () => `main${seq} after ${heard.length}, ${stream.items.length} and ${own.items.length} events`,
  )
  await until(
    () =>
      heard.lastIndexOf(`busy${busy}`) >= 0 && stream.items.lastIndexOf(`busy${busy}`) >= 0 && log.items.at(-1) >= busy,
    () => `busy${busy} after ${heard.length}, ${stream.items.length} and ${log.items.length} events`,
  )
}

/** After the writers have ended: each reader has heard each event once, in order, and the file is sound. */
async function assertWhole({ store, heard, log, stream }, names) {
  const all = store.readAll({ limit: 1_000_000 }).map(nameOf)
  await until(() => heard.at(-1) === all.at(-1) && stream.items.at(-1) === all.at(-1))
  await until(() => log.items.at(-1) === store.sequence("busy"))
  const ofThese = (list) => list.filter((name) => names.some((noteID) => name.startsWith(noteID)))
  assert.deepEqual(ofThese(heard), ofThese(all))
  assert.deepEqual(ofThese(stream.items), ofThese(all))
  assert.deepEqual(
    log.items.filter((seq) => seq !== undefined),
    counted(store.sequence("busy") + 1),
  )
  for (const { aggregateID, seq } of store.aggregates()) {
    const events = store.read(aggregateID)
    assert.deepEqual(
      events.map((event) => event.seq),
      counted(seq + 1),
    )
  }
  assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
}

/** For a test that waits for threads: nothing but a hang reaches it. */
const timeout = 60_000

describe("issue 3: worker threads", () => {
  test(
    "each of four, with a store of its own, sees what all write, in every way there is, in the file's order",
    { timeout },
    async () => {
      const path = file()
      const { store, Written } = openHere(path)
      const runs = 60
      const names = ["w1.", "w2.", "w3.", "w4."]
      const total = { shared: (runs / 2) * names.length - 1 }
      for (const name of names) total[name] = runs / 2 - 1
      const threads = names.map((name) => start("write and read", { path, name, runs, total }))
      await Promise.all(threads.map((thread) => toldOf(thread, "ready")))
      const stream = reading(store.stream(), nameOf)
      store.run(Written, { noteID: "go" })
      await store.waitFor({ ...total, seen: names.length - 1 }, { timeout: 60_000 })
      store.run(Written, { noteID: "end" })
      for (const { ended } of threads) assert.equal(await ended, 0)

      const all = store.readAll({ limit: 1_000 }).map(nameOf)
      assert.equal(all.length, runs * names.length + names.length + 2)
      await until(() => stream.items.length === all.length)
      assert.deepEqual(stream.items, all)
      for (const { told, errors } of threads) {
        assert.deepEqual(errors, [])
        const { log, database, stream, changes } = told.at(-1)
        assert.deepEqual(log, counted(total.shared + 1))
        assert.deepEqual(database, all)
        assert.deepEqual(stream, all)
        assert.deepEqual(changes, Object.fromEntries(store.sequences()))
      }
      assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
      store.close()
    },
  )

  // What the thread is in the middle of, and what it tells when it is.
  const acts = {
    run: "ready",
    "run async": "ready",
    transaction: "ready",
    "an open transaction": "hangs",
    replay: "ready",
    follow: "ready",
    "follow what never comes": "ready",
    stream: "ready",
    changes: "ready",
    waitFor: "ready",
    listeners: "ready",
    "a listener that hangs": "hangs",
    "a listener that spins": "hangs",
    "a stream that hangs": "hangs",
    "a log that hangs": "hangs",
    opening: "ready",
    everything: "ready",
  }

  test(
    "terminate in the middle of each call leaves the process, the file and the other readers sound",
    { timeout },
    async () => {
      const path = file()
      const main = openMain(path)
      const stopWriters = await startWriters(path, ["busy"])
      const roll = dice(1)
      for (const [act, message] of Object.entries(acts)) {
        const thread = start(act, { path })
        await toldOf(thread, message)
        for (let turn = roll(20); turn > 0; turn--) await new Promise(setImmediate)
        await thread.worker.terminate()
        assert.deepEqual(thread.errors, [], act)
        assert.equal(main.store.sequence("held"), -1)
        await assertAlive(main)
      }
      await stopWriters()
      await assertWhole(main, ["busy", "main", "thread", "replayed"])
      if (onLinux) await until(() => watchThreads() === 1)
      main.store.close()
      // Closing waits for the thread's connection; the thread itself ends a moment later.
      if (onLinux) await until(() => watchThreads() === 0)
    },
  )

  test(
    "forty that read everything, terminated at any moment while two write without a pause",
    { timeout },
    async () => {
      const path = file()
      const main = openMain(path)
      const stopWriters = await startWriters(path, ["busy", "other"])
      const roll = dice(2)
      for (let round = 0; round < 8; round++) {
        const threads = counted(5).map(() => start(roll(4) === 0 ? "opening" : "everything", { path }))
        // Some are not there yet, some begin, some are at it.
        if (roll(3) > 0) await Promise.race(threads.map((thread) => toldOf(thread, "ready")))
        for (const { worker } of threads) {
          for (let turn = roll(30); turn > 0; turn--) await new Promise(setImmediate)
          if (roll(2) === 0) await worker.terminate()
          else void worker.terminate()
        }
        await Promise.all(threads.map(({ ended }) => ended))
        assert.deepEqual(
          threads.flatMap(({ errors }) => errors),
          [],
        )
      }
      await assertAlive(main)
      await stopWriters()
      await assertWhole(main, ["busy", "other", "main"])
      if (onLinux) await until(() => watchThreads() === 1)
      main.store.close()
    },
  )

  const ends = {
    "process.exit": "process.exit in a listener that hears another thread",
    "process.exit at once": "process.exit while it reads in every way",
    "an error that nobody catches": "an error that nobody catches",
    "only listeners": "by itself, since listeners and what nobody iterates keep nothing alive",
    "what was aborted": "by itself, once all that it read was aborted",
  }
  for (const [act, how] of Object.entries(ends)) {
    test(`one that ends beside a busy writer: ${how}`, { timeout }, async () => {
      const path = file()
      const main = openMain(path)
      const stopWriters = await startWriters(path, ["busy"])
      for (let round = 0; round < 2; round++) {
        const thread = start(act, { path })
        const fails = act.startsWith("an error")
        assert.equal(await thread.ended, fails ? 1 : 0)
        assert.deepEqual(
          thread.errors.map(({ message }) => message),
          fails ? ["mine"] : [],
        )
        await assertAlive(main)
      }
      await stopWriters()
      await assertWhole(main, ["busy", "main"])
      if (onLinux) await until(() => watchThreads() === 1)
      main.store.close()
    })
  }

  test("process.exit of the main thread while others write and read ends the process well", { timeout }, () => {
    const program = `
      const { Worker } = require("node:worker_threads")
      const [thread, path, turns] = process.argv.slice(-3)
      const { openPlain } = require(thread)
      const { store } = openPlain(path)
      store.subscribeAll(() => {}, { scope: "database" })
      const follower = store.log({ aggregateID: "busy", follow: true })
      void (async () => { for await (const item of follower) void item })()
      const until = new Int32Array(new SharedArrayBuffer(4))
      let ready = 0
      for (const act of ["write", "everything", "everything", "transaction"]) {
        const worker = new Worker(thread, { workerData: { act, path, noteID: "busy", until } })
        worker.on("message", () => ++ready === 4 && end(Number(turns)))
      }
      const end = (left) => (left === 0 ? process.exit(7) : setImmediate(end, left - 1))
    `
    const path = file()
    for (const turns of ["0", "1", "20", "100"]) {
      const { status, signal, stderr } = spawnSync(process.execPath, ["-e", program, THREAD, path, turns], {
        encoding: "utf8",
        timeout: 60_000,
      })
      assert.deepEqual({ status, signal, stderr }, { status: 7, signal: null, stderr: "" })
    }
    const { store, Written } = openHere(path)
    assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
    assert.equal(store.run(Written, { noteID: "main" }).seq, 0)
    store.close()
  })
})
