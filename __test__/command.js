"use strict"

// The command `syncline` as a shell starts it: the built file, in a process of its own, on real files. What a person would see
// on a terminal is seen on one that `script` makes.

const assert = require("node:assert/strict")
const { spawn, spawnSync } = require("node:child_process")
const { EventEmitter, once } = require("node:events")
const { join } = require("node:path")
const { afterEach } = require("node:test")
const { createRegistry, open } = require("syncline")
const { file } = require("./stores.js")

const binary = join(__dirname, "..", "dist", "cli", "main.js")
const running = new Set()

afterEach(async () => {
  for (const { child } of running) child.kill("SIGKILL")
  await Promise.all([...running].map(({ ended }) => ended))
})

/** Starts a command line. `input`: all of stdin, which is empty without it, and stays open with null. */
function start(args, { input = "", env = {}, cwd } = {}) {
  return follow(spawn(process.execPath, [binary, ...args], { cwd, env: environment(env) }), input)
}

/** Runs a command line to its end. */
async function syncline(args, options) {
  const one = start(args, options)
  const code = await one.ended
  return { code, stdout: one.stdout, stderr: one.stderr }
}

/** One that must end well, and say nothing but its result. Resolves to stdout. */
async function well(args, options) {
  const { code, stdout, stderr } = await syncline(args, options)
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" }, stdout)
  return stdout
}

/** The same with --json: the document. */
async function json(args, options) {
  return JSON.parse(await well([...args, "--json"], options))
}

/** The same for commands that print a document a line. */
async function jsonLines(args, options) {
  return linesOf(await well([...args, "--json"], options)).map((line) => JSON.parse(line))
}

/** One that must end with a code, in both forms: prints nothing, and says why for people and for programs. */
async function refused(args, code, message, fields = {}, options) {
  const both = [args, [...args, "--json"]].map((line) => syncline(line, options))
  const [forPeople, forPrograms] = await Promise.all(both)
  assert.deepEqual({ code: forPeople.code, stdout: forPeople.stdout }, { code, stdout: "" }, forPeople.stderr)
  assert.match(forPeople.stderr, message)
  assert.match(forPeople.stderr, /^error: /)
  assert.deepEqual({ code: forPrograms.code, stdout: forPrograms.stdout }, { code, stdout: "" }, forPrograms.stderr)
  const [line, ...others] = linesOf(forPrograms.stderr)
  assert.deepEqual(others, [])
  const error = JSON.parse(line)
  assert.match(error.message, message)
  for (const [name, value] of Object.entries(fields)) assert.deepEqual(error[name], value, name)
}

/** Whether there is a program that makes terminals. Without one, a few tests are skipped. */
const terminals = /util-linux/.test(spawnSync("script", ["--version"], { encoding: "utf8" }).stdout ?? "")

/** Starts a command line on a terminal of so many columns. What it prints, on stdout and stderr, is `stdout`; keys are `type`d. */
function startOnTerminal(args, { columns = 80, env = {} } = {}) {
  const line = [process.execPath, binary, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ")
  const set = `stty cols ${columns} rows 24; exec ${line}`
  const child = spawn("script", ["-q", "-e", "-c", set, "/dev/null"], { env: environment({ TERM: "xterm", ...env }) })
  const one = follow(child)
  return { ...one, type: (keys) => child.stdin.write(keys), screen: () => one.stdout.replaceAll("\r\n", "\n") }
}

/** Runs a command line to its end on a terminal; resolves to what it shows. */
async function onTerminal(args, options) {
  const one = startOnTerminal(args, options)
  await one.ended
  return one.screen()
}

/** A process with what it has said so far. */
function follow(child, input = null) {
  const news = new EventEmitter()
  const one = { child, stdout: "", stderr: "", code: undefined, ended: undefined, until: undefined }
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => {
      one[name] += text
      news.emit("news")
    })
  }
  // It may have ended without reading.
  child.stdin.on("error", () => {})
  if (input !== null) child.stdin.end(input)
  one.ended = once(child, "close").then(([code, signal]) => {
    running.delete(one)
    one.code = code ?? signal
    news.emit("news")
    return one.code
  })
  /** Resolves once a pattern stands in what it has said. It must not end before. */
  one.until = async (pattern, where = "stdout") => {
    while (!pattern.test(one[where])) {
      assert.equal(one.code, undefined, `it ended with ${one.code}: ${one.stdout}${one.stderr}`)
      await once(news, "news")
    }
  }
  running.add(one)
  return one
}

/** Nothing of whoever runs the tests decides about colours, tokens or widths. */
function environment(env) {
  const { PATH, HOME, TMPDIR } = process.env
  return { PATH, HOME, TMPDIR, LANG: "C.UTF-8", ...env }
}

function linesOf(text) {
  return text.split("\n").filter((line) => line !== "")
}

/** A file with such items in its log, stored as they are; none packed. */
function logFile(items, name) {
  const path = file(name)
  withLog(path, (store) => store.replayAll(items, { unknown: "record" }))
  return path
}

/** A log as a program without definitions sees it. */
function withLog(path, work) {
  const store = open(path, { registry: createRegistry(), packing: false })
  try {
    return work(store)
  } finally {
    store.close()
  }
}

/** Everything that a log tells of one aggregate after the other. */
async function told(path) {
  const items = []
  const store = open(path, { registry: createRegistry(), readonly: true })
  for (const { aggregateID } of store.aggregates()) {
    for await (const item of store.log({ aggregateID })) items.push(JSON.parse(JSON.stringify(item)))
  }
  store.close()
  return items
}

module.exports = {
  binary,
  json,
  jsonLines,
  linesOf,
  logFile,
  onTerminal,
  refused,
  start,
  startOnTerminal,
  syncline,
  terminals,
  told,
  well,
  withLog,
}
