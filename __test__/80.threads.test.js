"use strict"

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { Worker } = require("node:worker_threads")
const { assertSound, coded, openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)

/** A worker thread that writes notes; `told` grows as it tells of them. */
function startWriter(settings) {
  const worker = new Worker(join(__dirname, "note-writer.js"), { workerData: settings })
  const told = []
  worker.on("message", (message) => told.push(message))
  return { worker, told }
}

/** Resolves once the worker has told of so many things. */
async function toldOf({ worker, told }, count) {
  while (told.length < count) await once(worker, "message")
}

describe("worker threads", () => {
  test("a store in each of four on one file, which begin at the same moment: sequences have no hole and no double", async () => {
    const path = newPath()
    const gate = new SharedArrayBuffer(4)
    const settings = (writer) => ({ path, writer, runs: 100, aggregates: 3, wait: true, gate })
    const writers = [1, 2, 3, 4].map((writer) => startWriter(settings(writer)))
    await Promise.all(writers.map((writer) => toldOf(writer, 1)))
    const ends = writers.map(({ worker }) => once(worker, "exit"))
    Atomics.store(new Int32Array(gate), 0, 1)
    Atomics.notify(new Int32Array(gate), 0)
    for (const [code] of await Promise.all(ends)) assert.equal(code, 0)

    const { store } = openNotes(path)
    const told = writers.flatMap((writer) => writer.told)
    assert.equal(told.filter(Array.isArray).length, 400)
    assert.equal(store.readAll({ limit: 1_000 }).length, 400)
    assertSound(store, told)
    store.close()
  })

  test("terminate in the middle of runs loses nothing that was returned, and the process stays sound", async () => {
    const path = newPath()
    const { store, Written } = openNotes(path)
    const told = []
    for (const count of [1, 5, 20, 60, 150]) {
      const writer = startWriter({ path, writer: count, runs: Infinity, aggregates: 7, textBytes: 2_000 })
      await toldOf(writer, count)
      await writer.worker.terminate()
      told.push(...writer.told)
      store.run(Written, { noteID: "main" })
      assertSound(store, told)
    }
    store.close()
  })

  test("terminate before anything was opened, and while opening", async () => {
    const path = newPath()
    for (let n = 0; n < 4; n++) {
      const { worker } = startWriter({ path, writer: n, runs: 1, aggregates: 1 })
      if (n % 2) await once(worker, "online")
      await worker.terminate()
    }
    const { store, Written } = openNotes(path)
    store.run(Written, { noteID: "main" })
    assertSound(store, [])
    store.close()
  })

  test("terminate inside a transaction gives the lock back and takes back the rows", async () => {
    const path = newPath()
    const main = openNotes(path, { busyTimeout: 20 })
    const writer = startWriter({ path, writer: 1, runs: 2, aggregates: 1, hold: true })
    await toldOf(writer, 3)
    assert.throws(() => main.store.run(main.Written, { noteID: "main" }), coded("ERR_BUSY"))
    await writer.worker.terminate()
    assert.equal(main.store.run(main.Written, { noteID: "main" }).seq, 0)
    assert.equal(main.store.sequence("held"), -1)
    assertSound(main.store, writer.told)
    main.store.close()
  })

  test("an error that nobody catches ends its worker alone", async () => {
    const path = newPath()
    const program = `
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      const { store, Written } = openNotes(${JSON.stringify(path)})
      store.db.function("refuse", () => { throw new Error("mine") })
      store.transaction(() => {
        store.run(Written, { noteID: "lost" })
        store.db.prepare("SELECT refuse()").get()
      })
    `
    const worker = new Worker(program, { eval: true })
    const [error] = await once(worker, "error")
    assert.equal(error.message, "mine")
    const { store, Written } = openNotes(path)
    assert.equal(store.sequence("lost"), -1)
    assert.equal(store.run(Written, { noteID: "a" }).seq, 0)
    store.close()
  })

  test("many stores on many threads, closed and not, leave the process to end", async () => {
    const program = `
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      for (const path of require("node:worker_threads").workerData) {
        const { store, Written } = openNotes(path)
        store.subscribeAll(() => {})
        store.run(Written, { noteID: "a" })
        globalThis.iterator = store.db.prepare("SELECT * FROM note").iterate()
        globalThis.iterator.next()
      }
    `
    const paths = Array.from({ length: 6 }, newPath)
    const workers = Array.from({ length: 4 }, () => new Worker(program, { eval: true, workerData: paths }))
    for (const [code] of await Promise.all(workers.map((worker) => once(worker, "exit")))) assert.equal(code, 0)
    for (const path of paths) {
      const { store } = openNotes(path)
      assert.equal(store.sequence("a"), 3)
      store.close()
    }
  })
})
