"use strict"

// Programs in processes of their own, with a garbage collector at hand, that see what they hold: memory, files and threads.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const { mkdirSync } = require("node:fs")
const { join } = require("node:path")
const { temporaryFolder } = require("./notes")
const { extent } = require("./soak")

const folder = temporaryFolder()
let programs = 0

/** Before each program: a folder and a number, stores that cost little to define, and ways to see what is held. */
const PRELUDE = `
  const assert = require("node:assert/strict")
  const { readFileSync, readdirSync } = require("node:fs")
  const { createRegistry, define, open, project } = require("syncline")
  const [folder, count] = [process.argv.at(-2), Number(process.argv.at(-1))]
  const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }
  function openStore(path, options = {}) {
    const registry = createRegistry()
    const Made = define({ type: "made", version: 1, aggregate: "id", schema, registry })
    const projectors = [project(Made, (tx, { id }) => tx.prepare("INSERT OR IGNORE INTO thing VALUES (?)").run(id))]
    const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS thing (id TEXT PRIMARY KEY)")
    return { registry, Made, store: open(path, { registry, projectors, migrate, ...options }) }
  }
  const linux = process.platform === "linux"
  const counted = (folder) => (linux ? readdirSync(folder).length : 0)
  const held = () => ({ files: counted("/proc/self/fd"), threads: counted("/proc/self/task") })
  const turn = (ms = 0) => new Promise((resume) => (ms > 0 ? setTimeout(resume, ms) : setImmediate(resume)))
  /** Collects garbage, and waits for what ends by itself, until something has come true. Never for ever. */
  async function until(isTrue, what) {
    const start = performance.now()
    do {
      assert.ok(performance.now() - start < 60_000, what + ": " + JSON.stringify(held()))
      gc()
      await turn(5)
    } while (!isTrue())
  }
  /** What is held once nothing has ended for a while. */
  async function settled() {
    for (let [last, since] = ["", performance.now()]; performance.now() - since < 150;) {
      gc()
      await turn(5)
      const now = JSON.stringify(held())
      if (now !== last) [last, since] = [now, performance.now()]
    }
    return held()
  }
  const noMoreThan = (before) => () => Object.entries(held()).every(([kind, number]) => number <= before[kind])
  const MiB = (bytes) => Math.round(bytes / 2 ** 18) / 4
  function memory() {
    gc()
    const { heapUsed, external, rss } = process.memoryUsage()
    return { heap: heapUsed + external, rss }
  }
  /** Does it a quarter as often first, so that whatever is made once has been made; then no more is held than \`slack\`. */
  async function cycles(cycle, slack = 0) {
    const repeat = async (from, to) => {
      for (let n = from; n < to; n++) {
        await cycle(n)
        if (n % 20 === 0) await turn()
      }
    }
    await repeat(0, Math.ceil(count / 4))
    const before = { ...(await settled()), ...memory() }
    await repeat(count, 2 * count)
    await until(noMoreThan({ ...before, files: before.files + slack }), "more is held than before")
    const after = { ...held(), ...memory() }
    const more = { heap: MiB(after.heap - before.heap), rss: MiB(after.rss - before.rss) }
    tell({ ...more, files: after.files, threads: after.threads })
  }
  const tell = (told) => console.log(JSON.stringify(told))
`

/** Runs a program in a process of its own, which must end by itself, and well. Answers the last thing that it told. */
async function outcomeOf(program, { count = 1, flags = [] } = {}) {
  const own = join(folder, `${programs++}`)
  mkdirSync(own)
  const env = { ...process.env, MALLOC_ARENA_MAX: "2" }
  const all = ["--expose-gc", "--max-semi-space-size=1", "--unhandled-rejections=strict", ...flags]
  const text = `${PRELUDE}; (async () => {${program}})()`
  const child = spawn(process.execPath, [...all, "-e", text, own, String(count)], {
    env,
    cwd: __dirname,
    timeout: extent(240_000, 3_600_000),
  })
  let [stdout, stderr] = ["", ""]
  child.stdout.on("data", (chunk) => (stdout += chunk))
  child.stderr.on("data", (chunk) => (stderr += chunk))
  const [code, signal] = await once(child, "close")
  assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: "" }, stdout)
  return stdout === "" ? undefined : JSON.parse(stdout.trim().split("\n").at(-1))
}

module.exports = { PRELUDE, outcomeOf }
