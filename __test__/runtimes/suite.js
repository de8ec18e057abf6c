"use strict"

// The core of the suite under one runtime, as tests of its own: one a file.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const { CORE, KNOWN_FAILURES, LEFT_OUT } = require("./core.js")
const { installed, platform, root } = require("./installed.js")
const { testsOf } = require("./running.js")

/** What canary.js holds: whoever counts it otherwise cannot be believed. */
const CANARY = {
  pass: [
    "can be told what to do at its end",
    'has a name with "quotes", <brackets> & more',
    "passes",
    "passes inside",
    "passes later",
    "what process.execPath starts is the same runtime",
  ],
  fail: ["fails", "fails inside", "fails later"],
  skipped: ["is skipped"],
}

/** Declares the tests of a runtime. `more` declares further ones, which are given what it answers. */
function runsOn(name, more = () => {}) {
  const totals = { pass: 0, fail: 0, skipped: 0, files: 0 }
  let runtime
  const began = performance.now()

  describe(name, { concurrency: 2 }, () => {
    before(async () => (runtime = await installed(name)))
    after(() => {
      if (runtime === undefined)
        return console.log(`figures runtimes: ${name} is skipped: npm has none for ${platform}`)
      const { files, pass, fail, skipped } = totals
      const seconds = ((performance.now() - began) / 1000).toFixed(0)
      const rest = `${fail} known to fail, ${skipped} skipped`
      console.log(
        `figures runtimes: ${name} ${runtime.version}: ${files} files, ${pass} tests passed, ${rest}, ${seconds} s`,
      )
    })
    /** A test that is skipped where the runtime is not to be had. */
    const here = (title, fn) =>
      test(title, (t) => (runtime === undefined ? t.skip(`npm has no ${name} for ${platform}`) : fn(runtime, t)))

    here("counts as it should", async () => {
      const { tests } = await testsOf(runtime, join(__dirname, "canary.js"))
      for (const [outcome, names] of Object.entries(CANARY)) assert.deepEqual(namesOf(tests, outcome), names, outcome)
    })

    for (const file of CORE.filter((each) => !(each in (LEFT_OUT[name] ?? {})))) {
      here(file, async () => {
        const { tests, warnings, output } = await testsOf(runtime, join(root, "__test__", `${file}.test.js`))
        assert.deepEqual(namesOf(tests, "fail"), (KNOWN_FAILURES[name]?.[file] ?? []).toSorted(), output)
        assert.deepEqual(warnings, [])
        totals.files++
        for (const { outcome } of tests) totals[outcome]++
      })
    }
    more(here)
  })
}

const namesOf = (tests, outcome) =>
  tests
    .filter((one) => one.outcome === outcome)
    .map(({ name }) => name)
    .toSorted()

module.exports = { runsOn }
