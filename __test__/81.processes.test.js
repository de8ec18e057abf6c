"use strict"

const assert = require("node:assert/strict")
const { spawn, spawnSync } = require("node:child_process")
const { once } = require("node:events")
const { existsSync } = require("node:fs")
const { join } = require("node:path")
const { createInterface } = require("node:readline")
const { describe, test } = require("node:test")
const { assertSound, coded, openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)

/** A process that writes notes; `told` grows as it tells of them. What it told before it was killed is complete. */
function startWriter(settings) {
  const stdio = ["pipe", "ignore", "pipe", "pipe"]
  const child = spawn(process.execPath, [join(__dirname, "note-writer.js"), JSON.stringify(settings)], { stdio })
  const writer = { child, told: [], errors: "", lines: createInterface(child.stdio[3]) }
  writer.lines.on("line", (line) => {
    // The line that a kill cut short was not told.
    if (/[\]"]$/.test(line)) writer.told.push(JSON.parse(line))
  })
  child.stderr.on("data", (chunk) => (writer.errors += chunk))
  writer.ended = once(child, "close")
  return writer
}

async function toldOf({ lines, told }, count) {
  while (told.length < count) await once(lines, "line")
}

/** Starts so many writers, lets them go at the same moment, and resolves to all that they told once all have ended well. */
async function runTogether(count, settings) {
  const writers = Array.from({ length: count }, (_, writer) => startWriter({ ...settings, writer, wait: true }))
  await Promise.all(writers.map((writer) => toldOf(writer, 1)))
  for (const { child } of writers) child.stdin.write("x")
  for (const writer of writers) {
    const [code] = await writer.ended
    assert.equal(code, 0, writer.errors)
    assert.equal(writer.told.at(-1), "done")
  }
  return writers.flatMap((writer) => writer.told.filter(Array.isArray))
}

const node = (program, ...args) =>
  spawnSync(process.execPath, ["-e", program, join(__dirname, "notes.js"), ...args], { encoding: "utf8" })

describe("processes", () => {
  test("mistake 10: twelve that open a path first, at the same moment, all succeed", async () => {
    const path = newPath()
    const told = await runTogether(12, { path, runs: 1, aggregates: 1 })
    assert.deepEqual(
      told.map(([, seq]) => seq).toSorted((a, b) => a - b),
      Array.from({ length: 12 }, (_, n) => n),
    )
    const { store } = openNotes(path)
    assertSound(store, told)
    store.close()
  })

  test("mistake 2: four with 200 runs each on shared aggregates give sequences with no hole and no double", async () => {
    const path = newPath()
    const told = await runTogether(4, { path, runs: 200, aggregates: 5 })
    assert.equal(told.length, 800)
    assert.equal(new Set(told.map(([noteID, seq]) => `${noteID} ${seq}`)).size, 800)
    assert.equal(new Set(told.map(([, , id]) => id)).size, 800)
    const { store } = openNotes(path)
    assert.deepEqual([...store.sequences().values()], Array(5).fill(159))
    const positions = store.readAll({ limit: 1_000 }).map((event) => event.position)
    assert.deepEqual(
      positions,
      Array.from({ length: 800 }, (_, n) => n + 1),
    )
    assertSound(store, told)
    store.close()
  })

  test("kill -9 in the middle of runs: everything that was returned is there, and the file is sound", async () => {
    const path = newPath()
    const told = []
    for (const count of [3, 40, 120, 200]) {
      const settings = { path, writer: count, runs: 1_000_000, aggregates: 4, textBytes: 5_000 }
      const writers = [startWriter(settings), startWriter(settings)]
      await Promise.all(writers.map((writer) => toldOf(writer, count)))
      for (const { child } of writers) child.kill("SIGKILL")
      for (const writer of writers) {
        assert.deepEqual(await writer.ended, [null, "SIGKILL"], writer.errors)
        told.push(...writer.told)
      }
      const { store, Written } = openNotes(path)
      assertSound(store, told)
      store.run(Written, { noteID: "after" })
      store.close()
      assert.equal(existsSync(`${path}-wal`), false, "the last to close removes the WAL of the killed")
    }
  })

  test("kill -9 inside a transaction: its rows were never there, and nobody waits for its lock", async () => {
    const path = newPath()
    const main = openNotes(path, { busyTimeout: 20 })
    const writer = startWriter({ path, writer: 1, runs: 2, aggregates: 1, hold: true })
    await toldOf(writer, 3)
    assert.throws(
      () => main.store.run(main.Written, { noteID: "main" }),
      coded("ERR_BUSY", { waited: (ms) => ms >= 20 }),
    )
    writer.child.kill("SIGKILL")
    await writer.ended
    assert.equal(main.store.run(main.Written, { noteID: "main" }).seq, 0)
    assert.equal(main.store.sequence("held"), -1)
    assertSound(main.store, writer.told)
    main.store.close()
  })

  test("process.exit without close loses nothing, and neither does an error that nobody catches", () => {
    const path = newPath()
    for (const end of ["process.exit(3)", "throw new Error('mine')", "store.transaction(() => process.exit(3))"]) {
      const program = `
        const { openNotes } = require(process.argv.at(-2))
        const { store, Written } = openNotes(process.argv.at(-1))
        store.runAll([[Written, { noteID: "a" }], [Written, { noteID: "a" }]])
        ${end}
      `
      const { status, stderr } = node(program, path)
      assert.ok(status === 3 || /[Ee]rror: mine/.test(stderr), stderr)
    }
    const { store } = openNotes(path)
    assert.equal(store.sequence("a"), 5)
    assertSound(store, [])
    store.close()
  })

  test("a program that does not close its store ends by itself, listeners, iterators and followers that nobody asks or not", () => {
    const program = `
      const { openNotes } = require(process.argv.at(-2))
      const { store, Written } = openNotes(process.argv.at(-1))
      store.subscribeAll(() => {})
      store.run(Written, { noteID: "a", text: "x".repeat(5_000_000) })
      globalThis.iterator = store.db.prepare("SELECT * FROM note").iterate()
      iterator.next()
      const follower = store.log({ aggregateID: "a", follow: true })
      follower.next().then(() => follower.next())
      globalThis.kept = [store, store.connect()]
    `
    const { status, signal, stderr } = spawnSync(
      process.execPath,
      ["-e", program, join(__dirname, "notes.js"), newPath()],
      { encoding: "utf8", timeout: 20_000 },
    )
    assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: "" })
  })

  test("a commit of another process is read at once, and its seq counts as seen", () => {
    const path = newPath()
    const { store, Written } = openNotes(path)
    store.run(Written, { noteID: "a" })
    const program = `
      const { openNotes } = require(process.argv.at(-2))
      const { store, Written } = openNotes(process.argv.at(-1))
      store.run(Written, { noteID: "a" }, { expectedSeq: 0 })
      store.close()
    `
    assert.equal(node(program, path).status, 0)
    assert.equal(store.sequence("a"), 1)
    assert.throws(() => store.run(Written, { noteID: "a" }, { expectedSeq: 0 }), coded("ERR_CONFLICT", { got: 1 }))
    assert.equal(store.run(Written, { noteID: "a" }, { expectedSeq: 1 }).seq, 2)
    store.close()
  })
})
