// `npm run bench [-- name…]`: installs the rivals on first use, asks all questions or the named ones, each in a process
// of its own, and prints their tables and then one in Markdown.
//   --rivals   leaves Syncline out, so that no built package is needed
//   --table    measures nothing and prints the Markdown table of what was measured last
//   --help     lists the questions
import { execSync, spawnSync } from "node:child_process"
import fs from "node:fs"
import { createRequire } from "node:module"
import path from "node:path"
import { fileURLToPath } from "node:url"
import { machine, markdownTable, resultsDirectory, temporaryDirectory } from "./harness.mjs"

const folder = fileURLToPath(new URL(".", import.meta.url))
const questions = [
  "run",
  "run-sql",
  "run-all",
  "replay-all",
  "file-size",
  "read-latest",
  "read-log",
  "rows",
  "tail-latency",
  "replay-memory",
  "wal-pages",
  "deliver",
  "catch-up",
  "watched-run",
  "foreign-latency",
  "idle-cpu",
  "packed-size",
  "packed-growth",
  "packing-latency",
  "lock-hold",
  "packed-read",
  "packed-latest",
  "million-open",
  "compacted-export",
  "export",
  "import",
  "sync-catch-up",
  "sync-fanout",
  "sync-encoding",
  "cluster-relay",
  "cluster-replicate",
  "cluster-latency",
  "cluster-wire",
  "cluster-sizing",
]

const words = process.argv.slice(2)
const flags = words.filter((word) => word.startsWith("--"))
const named = words.filter((word) => !word.startsWith("--")).map((word) => path.basename(word, ".mjs"))
const unknown = [
  ...flags.filter((flag) => !["--rivals", "--table", "--help"].includes(flag)),
  ...named.filter((name) => !questions.includes(name)),
]
const asked = named.length ? questions.filter((question) => named.includes(question)) : questions

if (unknown.length || flags.includes("--help")) {
  if (unknown.length) console.error(`Unknown: ${unknown.join(", ")}`)
  console.log(`npm run bench [-- [--rivals] [--table] name…]\n\nQuestions: ${questions.join(" ")}`)
  process.exitCode = unknown.length ? 2 : 0
} else if (flags.includes("--table")) {
  printTable(asked)
} else if (!flags.includes("--rivals") && !isBuilt()) {
  console.error("The package is not built yet: npm run build, or measure the rivals alone: npm run bench -- --rivals")
  process.exitCode = 1
} else {
  installRivals()
  measureAll(asked)
}

function isBuilt() {
  try {
    createRequire(new URL("../package.json", import.meta.url)).resolve("syncline")
    return true
  } catch {
    return false
  }
}

function installRivals() {
  const installed = path.join(folder, "node_modules", ".package-lock.json")
  const wanted = path.join(folder, "package-lock.json")
  if (fs.existsSync(installed) && fs.statSync(installed).mtimeMs >= fs.statSync(wanted).mtimeMs) return
  console.log(
    "Installing the rivals into bench/node_modules; two of them may have to be compiled, which takes minutes.\n",
  )
  // Through a shell, which finds npm under the name that it has on Windows too.
  execSync("npm ci --no-audit --no-fund", { cwd: folder, stdio: "inherit" })
}

function measureAll(asked) {
  console.log(`${machine()}\n`)
  const shared = temporaryDirectory()
  const env = { ...process.env, SYNCLINE_BENCH_SHARED: shared }
  if (flags.includes("--rivals")) env.SYNCLINE_BENCH_RIVALS = "1"
  const failed = []
  try {
    for (const question of asked) {
      const script = path.join(folder, `${question}.mjs`)
      fs.rmSync(path.join(resultsDirectory, `${question}.json`), { force: true })
      const { status } = spawnSync(process.execPath, ["--expose-gc", script], { stdio: "inherit", env })
      if (status !== 0) failed.push(question)
    }
  } finally {
    fs.rmSync(shared, { recursive: true, force: true })
  }
  printTable(asked)
  if (failed.length) {
    console.error(`\nFailed: ${failed.join(", ")}`)
    process.exitCode = 1
  }
}

function printTable(asked) {
  const files = asked.map((question) => path.join(resultsDirectory, `${question}.json`)).filter(fs.existsSync)
  if (files.length === 0) return console.log("Nothing was measured yet: npm run bench")
  console.log(markdownTable(files.map((file) => JSON.parse(fs.readFileSync(file, "utf8")))))
}
