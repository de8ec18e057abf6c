"use strict"

// How each runtime runs a file of the suite, and what it says of its tests.

const { spawn } = require("node:child_process")
const { mkdtempSync, readFileSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { pathToFileURL } = require("node:url")
const { root } = require("./installed.js")

/** Milliseconds that one file may take. */
const FILE_TIMEOUT = 150_000

const reporter = pathToFileURL(join(__dirname, "reporter.mjs")).href

/** What is started, and how its answer is read, from stdout or from the report that it writes. */
const RUNNERS = {
  node: (file) => [["--pending-deprecation", "--test", `--test-reporter=${reporter}`, file], fromLines],
  bun: (file, report) => [
    ["test", file, `--timeout=${FILE_TIMEOUT}`, "--reporter=junit", `--reporter-outfile=${report}`],
    fromReport,
  ],
  deno: (file, report) => [["test", "--allow-all", "--no-check", `--junit-path=${report}`, file], fromReport],
}

/** Runs a file: `{tests: [{name, outcome}], output, warnings}`. A run that broke off, or told of no test, is an error. */
async function testsOf({ kind, binary }, file) {
  const folder = mkdtempSync(join(tmpdir(), "syncline-runtime-"))
  try {
    const report = join(folder, "report.xml")
    const [args, read] = RUNNERS[kind](file, report)
    const { code, stdout, stderr } = await run(binary, args, root)
    const output = `${stdout}\n${stderr}`
    const { tests, warnings } = read(stdout, report, output)
    const failed = tests.filter(({ outcome }) => outcome === "fail")
    if (tests.every(({ outcome }) => outcome === "skipped")) throw new Error(`${file} ran no test:\n${output}`)
    if (code !== (failed.length > 0 ? 1 : 0)) throw new Error(`${file} ended with ${code}:\n${output}`)
    return { tests, warnings, output }
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Runs a program to its end. It is not told that it runs in a test, which node --test would take for its own. */
function run(binary, args, cwd = root) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env
  return new Promise((resolve, reject) => {
    const options = {
      cwd,
      env: { ...env, NO_COLOR: "1" },
      timeout: FILE_TIMEOUT,
      killSignal: "SIGKILL",
    }
    const child = spawn(binary, args, { ...options, stdio: ["ignore", "pipe", "pipe"] })
    const said = { stdout: "", stderr: "" }
    for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (said[name] += text))
    child.on("error", reject)
    child.on("close", (code, signal) => resolve({ code: code ?? signal, ...said }))
  })
}

function fromLines(stdout) {
  const lines = stdout.split("\n").filter((line) => line.startsWith("{"))
  const told = lines.map((line) => JSON.parse(line))
  return {
    tests: told.filter(({ name }) => name !== undefined),
    warnings: told.flatMap(({ warning }) => warning ?? []),
  }
}

/** JUnit's XML, as Bun and Deno write it: a suite of Deno's is a test, too, and the beginning of its tests' names. */
function fromReport(_, report, output) {
  let text
  try {
    text = readFileSync(report, "utf8")
  } catch (cause) {
    throw new Error(`There is no report:\n${output}`, { cause })
  }
  const cases = [...text.matchAll(/<testcase name="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g)]
  const all = cases.map(([, name, content = ""]) => ({
    name: unescaped(name),
    outcome: /<(failure|error)\b/.test(content) ? "fail" : /<skipped\b/.test(content) ? "skipped" : "pass",
  }))
  const tests = all.filter(({ name }) => !all.some((other) => other.name.startsWith(`${name} > `)))
  return { tests: tests.map((one) => ({ ...one, name: one.name.split(" > ").at(-1) })), warnings: [] }
}

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" }

function unescaped(text) {
  return text.replaceAll(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (all, decimal, hex, name) => {
    if (name !== undefined) return ENTITIES[name] ?? all
    return String.fromCodePoint(decimal === undefined ? Number.parseInt(hex, 16) : Number(decimal))
  })
}

module.exports = { run, testsOf }
