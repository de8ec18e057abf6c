"use strict"

// What the suites of the stream share: notes with an ephemeral definition, several stores on one file, and ways to wait
// for what comes by itself.

const assert = require("node:assert/strict")
const { readFileSync, readdirSync } = require("node:fs")
const v8 = require("node:v8")
const vm = require("node:vm")
const { z } = require("zod")
const { define } = require("syncline")
const { file, notes, openNotes } = require("./stores.js")

/** The definitions of `notes()` and one of deltas, which are published and never stored. */
function deltas() {
  const given = notes()
  const Delta = define({
    type: "note.delta",
    version: 1,
    aggregate: "noteID",
    schema: z.looseObject({ noteID: z.string(), text: z.string().optional() }),
    ephemeral: true,
    registry: given.registry,
  })
  return { ...given, Delta }
}

let files = 0

/** A path that no other call has been given: a test may need many files. */
const newFile = () => file(`stream ${files++}.db`)

/** Stores of the same definitions on one file. */
function openTogether(count, options = {}, path = newFile()) {
  const given = deltas()
  return { given, path, stores: Array.from({ length: count }, () => openNotes(given, { path, ...options })) }
}

/** How the suites name an event: a0 is recorded, a(0) is ephemeral and builds on a0. */
function named(event) {
  return "after" in event ? `${event.aggregateID}(${event.after})` : `${event.aggregateID}${event.seq}`
}

/** Waits for what comes by itself. Nothing but a hang reaches the deadline. */
async function until(condition, what = () => "") {
  for (const start = performance.now(); !condition();) {
    if (performance.now() - start > 30_000) assert.fail(`waited in vain for ${condition}: ${what()}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** What a log gives, shortened: the seqs of its events, and the kinds of all other items. */
const logged = ({ kind, event }) => (kind === "event" ? event.seq : kind)

/** Reads an async iterable in the background: what it has given so far, and a promise of its end. */
function reading(iterable, show = (item) => item) {
  const items = []
  const ended = (async () => {
    for await (const item of iterable) items.push(show(item))
  })()
  return { items, ended }
}

/** The numbers from 0 on, as many as there are. */
const counted = (count, from = 0) => Array.from({ length: count }, (_, n) => from + n)

/** Numbers from 0 below `bound` that look random and are the same at each start. */
function dice(seed) {
  let state = seed
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * bound)
  }
}

/** How many MiB JavaScript holds, once all garbage is gone. */
function heldMiB() {
  collectGarbage()
  return process.memoryUsage().heapUsed / 2 ** 20
}

/** Bun has a call of its own; Deno listens to the flags of V8. */
function collectGarbage() {
  if (globalThis.Bun !== undefined) return globalThis.Bun.gc(true)
  v8.setFlagsFromString("--expose-gc")
  vm.runInNewContext("gc")()
}

/** How many threads of this process watch a file; only Linux tells. */
function watchThreads() {
  const tasks = "/proc/self/task"
  return readdirSync(tasks).filter((task) => threadName(`${tasks}/${task}/comm`) === "syncline-watch").length
}

function threadName(comm) {
  try {
    return readFileSync(comm, "utf8").trim()
  } catch {
    // A thread that has ended since the folder was read.
    return undefined
  }
}

module.exports = { counted, deltas, dice, heldMiB, logged, named, newFile, openTogether, reading, until, watchThreads }
