// npm start [-- recording.jsonl] [database.db]: sets up a fresh clone and runs the example.
import { join } from "node:path"
import { root, run } from "./process.mjs"
import { setUp } from "./setup.mjs"

try {
  await setUp()
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
// Paths in the arguments are meant from where npm was called, which need not be the root.
const { ok } = await run(
  [process.execPath, join(root, "examples/agent-session/dist/main.js"), ...process.argv.slice(2)],
  {
    cwd: process.env["INIT_CWD"] ?? process.cwd(),
    show: true,
  },
)
process.exitCode = ok ? 0 : 1
