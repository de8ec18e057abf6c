// npm start [-- recording.jsonl] [database.db]: sets up a fresh clone and runs the example. Called in the folder of another
// example, that one.
import { existsSync } from "node:fs"
import { join, relative, sep } from "node:path"
import { root, run } from "./process.mjs"
import { setUp } from "./setup.mjs"

try {
  await setUp()
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
// Paths in the arguments are meant from where npm was called, which need not be the root.
const cwd = process.env["INIT_CWD"] ?? process.cwd()
const called = join("examples", relative(join(root, "examples"), cwd).split(sep)[0])
const example = existsSync(join(root, called, "main.ts")) ? called : "examples/agent-session"
const { ok } = await run([process.execPath, join(root, example, "dist/main.js"), ...process.argv.slice(2)], {
  cwd,
  show: true,
})
process.exitCode = ok ? 0 : 1
