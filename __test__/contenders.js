"use strict"

// Many processes that do something at the same moment, again and again: starting one takes longer than what it does.

const assert = require("node:assert/strict")
const { fork } = require("node:child_process")
const { once } = require("node:events")
const { join } = require("node:path")
const { after, before } = require("node:test")

/** As many as people were seen to run on one file. */
const PROCESSES = 43

/** How long everybody has to hear what is to be done, in milliseconds, before it begins. */
const HEARING = 200

/** Starts processes before the tests of a file, and ends them after those. */
function contenders(count = PROCESSES) {
  const processes = []
  before(async () => {
    for (let n = 0; n < count; n++) processes.push(fork(join(__dirname, "contender.js")))
    await Promise.all(processes.map((child) => once(child, "message")))
  })
  after(async () => {
    await Promise.all(processes.map((child) => (child.kill("SIGKILL"), once(child, "exit"))))
  })

  /** Lets each process do one of these works at the same moment, and resolves to what they did. None may fail. */
  return async function together(works) {
    const at = Date.now() + HEARING
    const answers = await Promise.all(
      works.map(async (settings, writer) => {
        const child = processes[writer]
        // A process that has ended answers with its code, which is no answer.
        const heard = new AbortController()
        const { signal } = heard
        const answer = Promise.race([once(child, "message", { signal }), once(child, "exit", { signal })])
        child.send({ at, writer, ...settings })
        const [done] = await answer
        heard.abort()
        return done ?? { failed: "it was killed" }
      }),
    )
    for (const answer of answers) assert.ok(answer.done, answer.failed ?? `it ended with ${answer}`)
    return answers.map((answer) => answer.done)
  }
}

/** Percentiles of numbers, in their order. */
function percentiles(numbers, ...parts) {
  const sorted = Float64Array.from(numbers).toSorted()
  return parts.map((part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))])
}

module.exports = { PROCESSES, contenders, percentiles }
