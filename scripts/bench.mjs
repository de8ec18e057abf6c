// npm run bench [-- name …]: sets up the library, then hands over to bench/, which installs its rivals by itself.
import { run } from "./process.mjs"
import { setUp } from "./setup.mjs"

const args = process.argv.slice(2)
const needsLibrary = !args.some((arg) => ["--rivals", "--table", "--help"].includes(arg))
try {
  if (needsLibrary) await setUp()
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
const { ok } = await run([process.execPath, "bench/main.mjs", ...args], { show: true })
process.exitCode = ok ? 0 : 1
