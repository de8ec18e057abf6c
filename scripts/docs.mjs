// npm run docs: makes the reference of every entry point from the doc comments, in target/reference. Warnings, such as links
// to what is not there, are errors. typedoc and the compiler that it needs are installed into target/reference-tools, when
// they are missing or others are asked for.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { npm, root, run } from "./process.mjs"
import { setUp } from "./setup.mjs"

const tools = join(root, "target/reference-tools")
const lockfile = "package-lock.json"

try {
  await setUp()
  await install()
  await generate()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function install() {
  const wanted = readFileSync(join(root, "scripts/reference", lockfile), "utf8")
  const complete = join(tools, "installed.json")
  if (existsSync(complete) && readFileSync(complete, "utf8") === wanted) return
  mkdirSync(tools, { recursive: true })
  rmSync(complete, { force: true })
  for (const name of ["package.json", lockfile]) cpSync(join(root, "scripts/reference", name), join(tools, name))
  const { ok, output } = await run(npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"), {
    cwd: tools,
  })
  if (!ok) throw new Error(`Installing typedoc failed.\n${output}`)
  // Last, so that what was interrupted is begun anew.
  cpSync(join(root, "scripts/reference", lockfile), complete)
}

async function generate() {
  const started = performance.now()
  rmSync(join(root, "target/reference"), { recursive: true, force: true })
  const typedoc = join(tools, "node_modules/typedoc/bin/typedoc")
  const options = ["--options", join(root, "scripts/reference/typedoc.json"), "--logLevel", "Warn"]
  const { ok, output } = await run([process.execPath, typedoc, ...options])
  if (!ok) throw new Error(`The reference could not be made.\n${output}`)
  console.log(`target/reference/index.html: ${((performance.now() - started) / 1000).toFixed(1)} s`)
}
