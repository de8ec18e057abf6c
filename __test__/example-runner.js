"use strict"

// Runs compiled examples one after the other, each with the library loaded anew, as its definitions and what SyncEvent holds
// belong to the process, and in an empty folder. Prints one line of JSON for each: its name, and what went wrong.

const { mkdirSync, readFileSync, realpathSync } = require("node:fs")
const { createRequire } = require("node:module")
const { dirname, join, sep } = require("node:path")
const { format, inspect, isDeepStrictEqual } = require("node:util")
const { compileFunction } = require("node:vm")

/** Milliseconds that an example may take. */
const PATIENCE = 10_000
/** Stands among the properties of an object, or the items of a list, for others. */
const OTHERS = Symbol("others")
const others = {
  [OTHERS]: true,
  *[Symbol.iterator]() {
    yield OTHERS
  },
}

const library = `${realpathSync(join(__dirname, "..", "dist"))}${sep}`
const [folder, ...names] = process.argv.slice(2)
const sources = new Map()
let failures
const fail = (line, message) => failures.push({ line, message })

process.on("warning", (warning) => fail(0, `a process warning: ${warning.message}`))
process.on("unhandledRejection", (error) => fail(0, `an unhandled rejection: ${inspect(error)}`))

void main()

async function main() {
  for (const name of names) {
    failures = []
    await runOne(name)
    process.stdout.write(`${JSON.stringify({ name, failures })}\n`)
  }
  process.exit(0)
}

async function runOne(name) {
  const own = join(folder, `run-${name}`)
  mkdirSync(own)
  process.chdir(own)
  process.env["NATS_USER"] = `user${name}`
  const printed = []
  const announced = []
  const promised = new Set()
  const check = checks(announced, promised)
  const console = { log: (...values) => printed.push(...format(...values).split("\n")) }
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it is not done after ${PATIENCE} ms`)), PATIENCE)
  })
  try {
    await Promise.race([freshly(join(folder, "out", `${name}.js`))(check, console), late])
  } catch (error) {
    fail(0, inspect(error))
  }
  clearTimeout(timer)
  // Warnings come with the next tick.
  await new Promise((resolve) => setImmediate(resolve))
  for (const line of promised) fail(line, "it is never reached")
  const texts = announced.map(({ text }) => text)
  if (!isDeepStrictEqual(printed.map(alike), texts.map(alike))) {
    fail(announced[0]?.line ?? 0, `it should print ${inspect(texts)}, and prints ${inspect(printed)}`)
  }
}

/** Requires an example with modules of the library of its own. They are compiled once, or most of the time would go there. */
function freshly(example) {
  const modules = new Map()
  const load = (path) => {
    const known = modules.get(path)
    if (known !== undefined) return known.exports
    const module = { exports: {} }
    modules.set(path, module)
    const { run, outer, resolved } = compiled(path)
    const require = (name) => {
      if (!resolved.has(name)) resolved.set(name, outer.resolve(name))
      const found = resolved.get(name)
      return found.startsWith(library) ? load(found) : outer(name)
    }
    run.call(module.exports, module.exports, require, module, path, dirname(path))
    return module.exports
  }
  return load(example)
}

function compiled(path) {
  if (!sources.has(path)) {
    const names = ["exports", "require", "module", "__filename", "__dirname"]
    const run = compileFunction(readFileSync(path, "utf8"), names, { filename: path })
    sources.set(path, { run, outer: createRequire(path), resolved: new Map() })
  }
  return sources.get(path)
}

/** What the checks in an example's program call. */
function checks(announced, promised) {
  return {
    others,
    promised: (lines) => lines.forEach((line) => promised.add(line)),
    announce(line, text) {
      promised.delete(line)
      announced.push({ line, text })
    },
    gives(line, actual, expected) {
      promised.delete(line)
      if (!matches(actual, expected)) fail(line, `it gives ${inspect(actual, { depth: 6 })}`)
    },
    async throws(line, run, code) {
      promised.delete(line)
      try {
        await run()
      } catch (error) {
        if (error?.code !== code) fail(line, `it throws ${inspect(error)}`)
        return
      }
      fail(line, "it throws nothing")
    },
    close(values) {
      for (const value of values) if (typeof value?.close === "function") value.close()
    },
  }
}

function alike(text) {
  return text.replaceAll('"', "'").trim()
}

/** Whether a value is what an example says. Getters count, as they do for whoever reads the value. */
function matches(actual, expected) {
  if (typeof expected === "string" && expected.includes("…") && typeof actual === "string") {
    const parts = expected.split("…").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
    return new RegExp(`^${parts.join("[^]*")}$`).test(actual)
  }
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual)) return false
    const open = expected.at(-1) === OTHERS
    const wanted = open ? expected.slice(0, -1) : expected
    if (open ? actual.length < wanted.length : actual.length !== wanted.length) return false
    return wanted.every((item, index) => matches(actual[index], item))
  }
  if (isPlain(expected)) {
    if (typeof actual !== "object" || actual === null || actual instanceof Map || actual instanceof Set) return false
    const wanted = Object.keys(expected)
    if (expected[OTHERS] !== true && !isDeepStrictEqual(Object.keys(actual).toSorted(), wanted.toSorted())) return false
    return wanted.every((key) => matches(actual[key], expected[key]))
  }
  return isDeepStrictEqual(actual, expected)
}

function isPlain(value) {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype
}
