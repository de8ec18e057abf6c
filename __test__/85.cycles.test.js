"use strict"

// What is begun and ended many times: it leaves nothing behind, neither memory nor a file nor a thread, and a process in
// which nothing is pending any more ends by itself.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0

/** Before each program: a store's file, and a way to do something many times and to compare what is there before and after. */
const PRELUDE = `
  const assert = require("node:assert/strict")
  const { readdirSync } = require("node:fs")
  const { openPlain } = require(${JSON.stringify(join(__dirname, "stream-thread.js"))})
  const [path, count] = [process.argv.at(-2), Number(process.argv.at(-1))]
  const counted = (folder) => (process.platform === "linux" ? readdirSync(folder).length : 0)
  const there = () => ({
    files: counted("/proc/self/fd"),
    threads: counted("/proc/self/task"),
    resources: process.getActiveResourcesInfo().filter((name) => name !== "Timeout").length,
  })
  /** Finalizers run between turns of the event loop; what was told to end may take a moment for it. */
  async function settled(isSettled = () => true) {
    for (const start = performance.now(); ;) {
      for (let round = 0; round < 3; round++) {
        gc()
        await new Promise((resume) => setTimeout(resume, 2))
      }
      const { heapUsed, external, rss } = process.memoryUsage()
      const handles = there()
      if (isSettled(handles) || performance.now() - start > giveUp) return { handles, heap: heapUsed + external, rss }
    }
  }
  const giveUp = 10_000
  /** Whether nothing has ended for a tenth of a second: a thread that was told to end may still be there. */
  function unchanged(last = "", since = 0) {
    return (handles) => {
      const now = JSON.stringify(handles)
      if (now !== last) [last, since] = [now, performance.now()]
      return performance.now() - since > 100
    }
  }
  /** Waits for what comes by itself. */
  async function until(isTrue, what) {
    for (const start = performance.now(); !isTrue();) {
      assert.ok(performance.now() - start < giveUp, what())
      await new Promise((resume) => setTimeout(resume, 1))
    }
  }
  /** A first commit that is long enough for the thread that checkpoints to be there, which stays from then on. */
  const begin = ({ store, Written }) => store.run(Written, { noteID: "long", text: "x".repeat(6_000_000) })
  /** Does it as often as asked for, after so many times that whatever is made once has been made. */
  async function cycles(cycle) {
    async function repeat(times) {
      for (let n = 0; n < times; n++) {
        await cycle(n)
        if (n % 20 === 0) await new Promise(setImmediate)
      }
    }
    await repeat(Math.min(500, count / 4))
    const before = await settled(unchanged())
    await repeat(count)
    const same = (handles) => Object.keys(handles).every((kind) => handles[kind] <= before.handles[kind])
    const after = await settled(same)
    const MiB = (kind) => Math.round((after[kind] - before[kind]) / 2 ** 18) / 4
    console.log(JSON.stringify({ before: before.handles, after: after.handles, heap: MiB("heap"), rss: MiB("rss") }))
  }
`

/** How often where each time a thread begins to watch the file and ends: the end of one may take ten milliseconds. */
const WATCHED = 10_000

/** What may be more after all of them, in MiB. It grows for the first thousand times, and no more. */
const HEAP_SLACK = 1
const RSS_SLACK = 16

/** Runs a program in a process with a garbage collector at hand. It must end by itself, and leave nothing. */
async function assertLeavesNothing(program, count = 10_000) {
  const path = join(folder, `${files++}.db`)
  // Small spaces for what is young, and few for what is allocated natively: else they grow for thousands of times.
  const flags = ["--expose-gc", "--max-semi-space-size=1", "--unhandled-rejections=strict"]
  const env = { ...process.env, MALLOC_ARENA_MAX: "2" }
  const text = `${PRELUDE}; (async () => {${program}})()`
  const child = spawn(process.execPath, [...flags, "-e", text, path, String(count)], { env, timeout: 120_000 })
  let [stdout, stderr] = ["", ""]
  child.stdout.on("data", (chunk) => (stdout += chunk))
  child.stderr.on("data", (chunk) => (stderr += chunk))
  const [code, signal] = await once(child, "close")
  assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: "" }, stdout)
  const { before, after, heap, rss } = JSON.parse(stdout)
  // Fewer is no leak: on a machine that is busy a thread that was ending may have been counted before.
  for (const kind of Object.keys(before)) assert.ok(after[kind] <= before[kind], stdout)
  assert.ok(heap <= HEAP_SLACK, `${heap} MiB more on the heap`)
  assert.ok(rss <= RSS_SLACK, `${rss} MiB more of memory`)
}

// Several at a time: much of what they take is waiting for threads to end.
describe("issue 3: ten thousand times", { concurrency: 4 }, () => {
  test("subscribe and unsubscribe, the store's own events", () =>
    assertLeavesNothing(`
      const { store, Written } = openPlain(path)
      begin({ store, Written })
      await cycles((n) => {
        const undo = [store.subscribe(Written, () => {}), store.subscribeAll(() => {})]
        if (n % 100 === 0) store.run(Written, { noteID: "a" })
        for (const each of undo) each()
      })
    `))

  test("subscribe and unsubscribe, the whole database, each time the only one", () =>
    assertLeavesNothing(
      `
      const { store, Written } = openPlain(path)
      begin({ store, Written })
      await cycles((n) => {
        const undo = store.subscribeAll(() => {}, { scope: "database" })
        if (n % 100 === 0) store.run(Written, { noteID: "a" })
        undo()
      })
    `,
      WATCHED,
    ))

  test("subscribe and unsubscribe, the whole database, beside one that stays, and others' commits", () =>
    assertLeavesNothing(`
      const { store } = openPlain(path)
      const other = openPlain(path)
      begin(other)
      let heard = 0
      store.subscribeAll(() => heard++, { scope: "database" })
      await cycles(async (n) => {
        const undo = [1, 2].map(() => store.subscribeAll(() => {}, { scope: "database" }))
        if (n % 10 === 0) {
          other.store.run(other.Written, { noteID: "a" })
          await new Promise(setImmediate)
        }
        for (const each of undo) each()
      })
      const { length } = other.store.read("a")
      await until(() => heard === length, () => heard + " of " + length)
    `))

  test("follow, changes, stream and waitFor in one store that watches, begun and ended in every way", () =>
    assertLeavesNothing(`
      const { store, Written } = openPlain(path)
      begin({ store, Written })
      store.run(Written, { noteID: "a" })
      store.subscribeAll(() => {}, { scope: "database" })
      const shared = new AbortController()
      const ends = [
        (iterator, controller) => controller.abort(),
        (iterator) => iterator.return(),
        (iterator, controller) => (iterator.return(), controller.abort()),
      ]
      await cycles(async (n) => {
        const controller = new AbortController()
        // A signal that outlives them all must not keep what has ended.
        const { signal } = n % 3 === 1 ? shared : controller
        const begin = [
          () => store.log({ aggregateID: "a", follow: true, after: 0, signal }),
          () => store.changes({ signal }),
          () => store.stream({ signal }),
        ][n % 4]
        if (begin === undefined) {
          const waiting = store.waitFor({ a: 1_000_000 }, { signal: controller.signal, timeout: 100_000 })
          await null
          controller.abort()
          return assert.rejects(waiting, { code: "ERR_ABORTED" })
        }
        const iterator = begin()
        if (n % 4 < 2) await iterator.next()
        const pending = iterator.next()
        if (n % 5 > 0) await new Promise(setImmediate)
        ends[n % 3](iterator, controller)
        assert.equal((await pending).done, true)
      })
    `))

  const opened = {
    "a log, followed to synced": `
      const log = store.log({ aggregateID: "a", follow: true, signal })
      for (let kind; kind !== "synced";) kind = (await log.next()).value.kind
      const pending = log.next()
      controller.abort()
      assert.equal((await pending).done, true)
    `,
    changes: `
      const changes = store.changes({ signal })
      assert.equal((await changes.next()).value.kind, "sweep")
      const pending = changes.next()
      controller.abort()
      assert.equal((await pending).done, true)
    `,
    "a stream": `
      const pending = store.stream({ signal }).next()
      controller.abort()
      assert.equal((await pending).done, true)
    `,
    waitFor: `
      const waiting = store.waitFor({ a: 1_000_000 }, { signal })
      await null
      controller.abort()
      await assert.rejects(waiting, { code: "ERR_ABORTED" })
    `,
  }
  for (const [what, body] of Object.entries(opened)) {
    test(`open, ${what}, abort, close`, () =>
      assertLeavesNothing(
        `
        const first = openPlain(path)
        begin(first)
        first.store.run(first.Written, { noteID: "a" })
        await cycles(async () => {
          const { store } = openPlain(path)
          const controller = new AbortController()
          const { signal } = controller
          ${body}
          store.close()
        })
        first.store.close()
      `,
        WATCHED,
      ))
  }
})
