"use strict"

// What export and import hold in memory, whatever the length of the log: each in a process of its own, with a small heap.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { endOf, start } = require("./children.js")
const { temporaryFolder } = require("./notes.js")
const { extent, figures } = require("./soak.js")

const EVENTS = extent(50_000, 1_000_000)
/** A heap that could not hold what is read. */
const FLAGS = ["--expose-gc", "--max-old-space-size=64"]
const folder = temporaryFolder()

/** Small events of 1,000 notes, which take turns. */
const WRITER = `
  const text = "The build finished with two warnings, and the tests of the parser passed. ".repeat(2)
  for (let n = 0; n < settings.events; n += 1_000) {
    store.runAll(Array.from({ length: 1_000 }, (_, k) => [Written, { noteID: "n" + k, text: text + (n + k) }]))
  }
  store.close()
`

/** Does it, and tells what the process held before and at most, in bytes. */
const measuring = (work) => `
  const { readFileSync } = require("node:fs")
  // The system's own figure for this program; what \`resourceUsage\` says may be that of the one that started it.
  const peak = () => process.platform === "linux"
    ? 1024 * Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1])
    : 1024 * process.resourceUsage().maxRSS
  const work = async () => { ${work} }
  gc()
  const idle = process.memoryUsage.rss()
  const began = performance.now()
  work().then((told) => {
    tell({ ...told, more: peak() - idle, seconds: (performance.now() - began) / 1000 })
    store.close()
  })
`
const ITERATED = measuring(
  "let events; for await (const _ of store.export({ onProgress: (sum) => ({ events } = sum) })); return { events }",
)
const WRITTEN = measuring("const { events } = await store.export().toFile(settings.file); return { events }")
const IMPORTED = measuring(
  "const { applied: events, complete } = await store.import(settings.file); return { events, complete }",
)

describe(`issue 6: ${EVENTS.toLocaleString("en")} events, under 100 MB over idle`, () => {
  const path = join(folder, "app.db")
  let made
  const make = () => (made ??= endOf(start(WRITER, { path, events: EVENTS })))

  async function measured(name, program, settings) {
    await make()
    const [{ events, complete, more, seconds }] = await endOf(start(program, { path, ...settings }, FLAGS))
    const mb = (more / 1e6).toFixed(1)
    figures(name, { events, "more than idle": `${mb} MB`, "µs an event": ((1e6 * seconds) / events).toFixed(1) })
    assert.equal(events, EVENTS)
    assert.notEqual(complete, false)
    assert.ok(more < 100e6, `${mb} MB more than idle`)
  }

  test("export to whoever reads it", () => measured("export", ITERATED))

  for (const suffix of ["", ".zst", ".gz"]) {
    test(`export into a file and import${suffix && `, ${suffix}`}`, async () => {
      const file = join(folder, `notes.jsonl${suffix}`)
      await measured(`export to ${suffix || ".jsonl"}`, WRITTEN, { file })
      await measured(`import of ${suffix || ".jsonl"}`, IMPORTED, { file, path: join(folder, `copy${suffix}.db`) })
    })
  }
})
