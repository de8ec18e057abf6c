"use strict"

// Processes that a suite starts, listens to and speaks to; none is left when its test ends. What one tells is a line of
// JSON, written unbuffered: what was told cannot be lost with the process, and a line that a kill cut short was not told.
// It is told on a pipe of its own, since node:test makes stdout one that refuses to be written when it is full.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { EventEmitter, once } = require("node:events")
const { join } = require("node:path")
const { afterEach } = require("node:test")

const running = new Set()

afterEach(async () => {
  for (const { child } of running) child.kill("SIGKILL")
  await Promise.all([...running].map(({ ended }) => ended))
})

/** Before a program that is given as text. It may hear words without being kept alive by that, or live until the first. */
const PRELUDE = `
  const { writeSync } = require("node:fs")
  const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
  const { path, readonly = false, ...settings } = JSON.parse(process.argv.at(-1))
  const tell = (message) => writeSync(3, JSON.stringify(message) + "\\n")
  const onWord = (listener) => process.stdin.on("data", listener).unref()
  const untilWord = (listener) => process.stdin.once("data", () => (process.stdin.unref(), listener()))
  const { store, Written } = openNotes(path, { readonly })
`

/** Starts a file of this folder, or a program after the prelude. */
function start(program, settings, flags = []) {
  const what = program.endsWith(".js") ? [join(__dirname, program)] : ["-e", `${PRELUDE};${program}`]
  const stdio = ["pipe", "ignore", "pipe", "pipe"]
  const child = spawn(process.execPath, [...flags, ...what, JSON.stringify(settings)], { stdio })
  const one = { child, told: [], errors: "", code: undefined, news: new EventEmitter() }
  let rest = ""
  child.stdio[3].setEncoding("utf8").on("data", (chunk) => {
    const lines = (rest + chunk).split("\n")
    rest = lines.pop()
    for (const line of lines) one.told.push(JSON.parse(line))
    one.news.emit("news")
  })
  child.stderr.setEncoding("utf8").on("data", (chunk) => (one.errors += chunk))
  // It may be gone before it has read a word.
  child.stdin.on("error", () => {})
  one.ended = once(child, "close").then(([code, signal]) => {
    running.delete(one)
    one.code = code ?? signal
    one.news.emit("news")
    return one.code
  })
  running.add(one)
  return one
}

/** Says so many words to a process: it reads a byte for each. */
const say = ({ child }, words = 1) => child.stdin.write("x".repeat(words))

/** Resolves once `isTold` holds for what a process has told, or once it has told so many things. It must not end before. */
async function untilTold(one, isTold) {
  const enough = typeof isTold === "number" ? (told) => told.length >= isTold : isTold
  while (!enough(one.told)) {
    assert.equal(
      one.code,
      undefined,
      `it ended early, with ${one.code}, after ${one.told.length} things: ${one.errors}`,
    )
    await once(one.news, "news")
  }
}

/** A process that must end by itself, and well. Resolves to what it told. */
async function endOf(one) {
  assert.equal(await one.ended, 0, one.errors)
  assert.equal(one.errors, "")
  return one.told
}

/** Ends a process without giving it any chance. */
async function kill(one) {
  one.child.kill("SIGKILL")
  assert.equal(await one.ended, "SIGKILL", one.errors)
}

module.exports = { endOf, kill, say, start, untilTold }
