// npm test [-- word …]: sets up, runs every step, prints the totals. With words only the steps of those names run, and of
// the JavaScript suite only the files whose names contain one: `npm test -- 20 run`, `npm test -- clippy`.
// npm run test:cluster, test:package, test:runtimes: the suites that start servers, one file after the other, that install
// what was packed, and that run under other runtimes; words choose among their files. npm run test:all: everything.
// npm run soak [-- word …]: the long form of those tests that have one, one file after the other. Both print their figures.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { stripVTControlCharacters } from "node:util"
import { root, run, tool } from "./process.mjs"
import { setUp } from "./setup.mjs"

const soak = process.env["npm_lifecycle_event"] === "soak"
if (soak) process.env["SYNCLINE_SOAK"] = "1"

/** Milliseconds that one step may take: a test that hangs must fail, not keep waiting whoever started it. */
const STEP_TIMEOUT = (soak ? 12 * 60 : 20) * 60_000
/** The suites that install packages and take minutes: `npm test` leaves them to commands of their own. */
const INSTALLING = ["package", "runtimes"]
/** All suites that have a folder of their own. */
const SUITES = ["cluster", ...INSTALLING]
/** The same for one file of the JavaScript suite. */
const FILE_TIMEOUT = (soak ? 3 * 60 : 5) * 60_000

// A check counts as one test; runners bring their own counts. Clippy and the Rust tests share the dev profile, where the
// model test runs with overflow checks and assertions; only the addon pays for link-time optimisation.
const steps = {
  format: () => check(tool("prettier", "--check", "--log-level", "warn", ".")),
  rustfmt: () => check(["cargo", "fmt", "--check"]),
  lint: () => check(tool("oxlint", "--deny-warnings")),
  types: () => check(tool("typescript", "-p", "__test__/types")),
  clippy: () => check(["cargo", "clippy", "--quiet", "--locked", "--all-targets", "--", "--deny", "warnings"]),
  rust: rustTests,
  node: () => nodeTests("__test__"),
  cluster: () => nodeTests("__test__/cluster"),
  package: () => nodeTests("__test__/package"),
  runtimes: () => nodeTests("__test__/runtimes"),
}

const words = process.argv.slice(2)
const everything = words.includes("all")
const fileWords = words.filter((word) => word !== "all" && !(word in steps))
const totals = { passed: 0, failed: 0, skipped: 0 }

if (await perform("set-up", async () => ({ ...(await attempt(setUp)), passed: 0 }))) {
  for (const name of Object.keys(steps).filter(isWanted)) await perform(name, steps[name])
}
if (totals.skipped > 0) console.log(`${totals.skipped} skipped`)
console.log(`${totals.passed} passed, ${totals.failed} failed`)
process.exitCode = totals.failed === 0 ? 0 : 1

function isWanted(name) {
  if (everything || words.includes(name)) return true
  if (INSTALLING.includes(name)) return false
  if (words.length === 0) return !soak || name === "rust" || name === "node"
  return name === "node" && fileWords.length > 0 && !SUITES.some((suite) => words.includes(suite))
}

/** Runs one step, adds its counts to the totals and prints one line, or everything when something failed. */
async function perform(name, step) {
  const started = performance.now()
  const { ok, output, passed, failed = 0, skipped = 0 } = await step()
  // A runner that failed without naming a test has crashed, and one that ran nothing has proved nothing.
  const failures = failed === 0 && !ok ? 1 : failed
  totals.passed += passed
  totals.failed += failures
  totals.skipped += skipped
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6)
  const counts = passed + failures > 1 ? `  ${passed} passed, ${failures} failed` : ""
  if (failures > 0) console.log(`\n${output.trimEnd()}\n`)
  else for (const [line] of stripVTControlCharacters(output).matchAll(/^figures .*/gm)) console.log(`  ${line}`)
  console.log(`${failures > 0 ? "✗" : "✓"} ${name.padEnd(9)}${seconds} s${counts}`)
  return failures === 0
}

async function attempt(fn) {
  try {
    await fn()
    return { ok: true, output: "" }
  } catch (error) {
    return { ok: false, output: error.message }
  }
}

async function check(command) {
  const { ok, output } = await run(command, { timeout: STEP_TIMEOUT })
  return { ok, output, passed: ok ? 1 : 0 }
}

async function rustTests() {
  const command = ["cargo", "test", "--locked", "--no-fail-fast", "--", "--show-output"]
  const { ok, output } = await run(command, { timeout: STEP_TIMEOUT })
  const counts = { passed: 0, failed: 0, skipped: 0 }
  const lines = stripVTControlCharacters(output).matchAll(
    /^test result: .* (\d+) passed; (\d+) failed; (\d+) ignored/gm,
  )
  for (const [, passed, failed, ignored] of lines) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
    counts.skipped += Number(ignored)
  }
  return withTests({ ok, output, ...counts })
}

async function nodeTests(suite) {
  const files = readdirSync(join(root, suite)).filter((name) => name.endsWith(".test.js") && matches(suite, name))
  // Without a file node --test would look for tests by itself.
  if (files.length === 0) return withTests({ ok: false, output: "", passed: 0 })
  const folder = mkdtempSync(join(tmpdir(), "syncline-test-"))
  try {
    const totalsFile = join(folder, "totals.json")
    const reporters = [
      ["spec", "stdout"],
      [pathToFileURL(join(root, "scripts/test-totals.mjs")).href, totalsFile],
    ].flatMap(([reporter, destination]) => [
      `--test-reporter=${reporter}`,
      `--test-reporter-destination=${destination}`,
    ])
    // Three servers each, whose elections need their time.
    const alone = soak || suite.endsWith("cluster") ? ["--test-concurrency=1"] : []
    const patience = INSTALLING.some((name) => suite.endsWith(name)) ? 4 : 1
    const timeout = `--test-timeout=${FILE_TIMEOUT * patience}`
    const command = [process.execPath, "--test", timeout, ...alone, ...reporters]
    const paths = files.toSorted().map((name) => `${suite}/${name}`)
    const { ok, output } = await run([...command, ...paths], { timeout: STEP_TIMEOUT * patience })
    const text = existsSync(totalsFile) ? readFileSync(totalsFile, "utf8") : ""
    if (text === "") return { ok: false, output: `${output}\nThe test runner ended without its totals.`, passed: 0 }
    const { empty, ...counts } = JSON.parse(text)
    const failed = counts.failed + empty.length
    const complaints = empty.map((file) => `\nNo test in ${file}`).join("")
    return withTests({ ok: ok && empty.length === 0, output: output + complaints, ...counts, failed })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function matches(suite, name) {
  if (soak && !readFileSync(join(root, suite, name), "utf8").includes('require("./soak')) return false
  return fileWords.length === 0 || fileWords.some((word) => name.includes(word))
}

function withTests(result) {
  // What was skipped has said why.
  if (result.passed + (result.failed ?? 0) + (result.skipped ?? 0) > 0) return result
  return { ...result, ok: false, output: `${result.output}\nNo test was run.` }
}
