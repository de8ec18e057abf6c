// Brings a clone to where the library can be required: dependencies, native addon, JavaScript. Each part is skipped when
// nothing that it is made of has changed, so every command starts with it.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { npm, root, run, tool } from "./process.mjs"

/** Sets up what is missing or stale. Throws an `Error` whose message is meant for the person at the terminal. */
export async function setUp() {
  checkNode()
  if (!dependenciesAreCurrent()) await step("Installing dependencies", npm(...installCommand()))
  await build()
  for (const folder of examples()) {
    if (!exampleIsCurrent(folder)) await step(`Compiling ${folder}`, tool("typescript", "-p", folder))
  }
}

/** Builds the addon and the JavaScript, each where it is missing or stale. The dependencies must be there. */
export async function build() {
  checkDependencies()
  if (!addonIsCurrent()) {
    await checkRust()
    await step("Building the native addon (a few minutes the first time)", npm("run", "--silent", "build:native"))
  }
  if (!javaScriptIsCurrent()) await step("Compiling TypeScript", [process.execPath, "scripts/build-ts.mjs"])
}

async function step(title, command) {
  const started = performance.now()
  const { ok, output } = await run(command, { show: process.stdout.isTTY })
  if (!ok) throw new Error(`${title} failed.\n${output}`)
  console.log(`${title}: ${((performance.now() - started) / 1000).toFixed(1)} s`)
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number)
  if (major > 20 || (major === 20 && minor >= 3)) return
  throw new Error(`Syncline needs Node 20.3 or later; this is ${process.version}.`)
}

function checkDependencies() {
  const missing = ["@napi-rs/cli", "typescript"].filter((name) => !existsSync(join(root, "node_modules", name)))
  if (missing.length === 0) return
  throw new Error(`${missing.join(" and ")} are missing, which build Syncline: run \`npm install --include=dev\`.`)
}

async function checkRust() {
  const { ok } = await run(["cargo", "--version"])
  if (ok) return
  throw new Error(
    "Building Syncline from its sources takes Rust, and cargo was not found: install it as https://rustup.rs says, or install\n" +
      "the published package, which is built already: npm install syncline",
  )
}

// npm keeps a second lockfile of what it really installed. Comparing contents survives clones and branch switches, where
// times of files say nothing. Optional packages for other platforms are rightly absent.
function dependenciesAreCurrent() {
  const installed = readPackages("node_modules/.package-lock.json")
  const locked = readPackages("package-lock.json")
  return (
    installed !== undefined &&
    locked !== undefined &&
    lockfileMatchesManifest() &&
    Object.entries(locked).every(
      ([path, { version, optional }]) =>
        path === "" || (path in installed ? installed[path].version === version : optional === true),
    )
  )
}

// Not npm ci: it refuses a lockfile that lacks the optional packages of some other platform, which a registry that does not
// mirror those leaves out. An install that saves nothing takes the same locked versions and checks the same hashes. Its
// scripts are left out, since they would build what is built here.
function installCommand() {
  const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
  return lockfileMatchesManifest() ? ["install", "--no-save", ...quiet] : ["install", ...quiet]
}

function lockfileMatchesManifest() {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  const locked = readPackages("package-lock.json")?.[""]
  return ["dependencies", "devDependencies"].every(
    (kind) => JSON.stringify(sorted(manifest[kind])) === JSON.stringify(sorted(locked?.[kind])),
  )
}

function readPackages(path) {
  const file = join(root, path)
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).packages : undefined
}

function sorted(record = {}) {
  return Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1))
}

function addonIsCurrent() {
  const binary = oldest([`native/syncline.${platformName()}.node`])
  return existsSync(join(root, "native/index.js")) && binary >= newest(["src", "Cargo.toml", "Cargo.lock", "build.rs"])
}

function javaScriptIsCurrent() {
  const made = ["index.cjs", "index.mjs", "drizzle.mjs", "sync-event.mjs", "http.mjs", "cli/main.js"].map(
    (name) => `dist/${name}`,
  )
  return (
    oldest(made) >=
    newest([
      "lib",
      "native/index.d.ts",
      "tsconfig.json",
      "package-lock.json",
      "scripts/entries.mjs",
      "scripts/build-ts.mjs",
    ])
  )
}

function exampleIsCurrent(folder) {
  const sources = readdirSync(join(root, folder)).filter((name) => /\.ts$|^tsconfig\.json$/.test(name))
  return (
    oldest([`${folder}/dist/main.js`]) >= newest([...sources.map((name) => `${folder}/${name}`), "dist/index.d.ts"])
  )
}

function examples() {
  const folders = readdirSync(join(root, "examples"), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return folders
    .map(({ name }) => `examples/${name}`)
    .filter((folder) => existsSync(join(root, folder, "tsconfig.json")))
}

/** This platform as napi names it in the addon's file name. */
function platformName() {
  const { platform, arch } = process
  if (platform === "win32") return `win32-${arch}-msvc`
  if (platform !== "linux") return `${platform}-${arch}`
  // Only glibc reports its version; asking the report to leave out the network keeps it quick.
  process.report.excludeNetwork = true
  return `linux-${arch}-${process.report.getReport().header.glibcVersionRuntime ? "gnu" : "musl"}`
}

/** The time of the oldest of these files; minus infinity when one is missing. */
function oldest(paths) {
  return Math.min(...paths.map((path) => modified(path) ?? -Infinity))
}

/** The time of the newest of these files, and of the files in these folders. A folder's own time tells of deletions. */
function newest(paths) {
  return Math.max(
    ...paths.flatMap((path) => [modified(path) ?? -Infinity, ...children(path).map((name) => newest([name]))]),
  )
}

function children(path) {
  const file = join(root, path)
  if (!statSync(file, { throwIfNoEntry: false })?.isDirectory()) return []
  return readdirSync(file).map((name) => `${path}/${name}`)
}

function modified(path) {
  return statSync(join(root, path), { throwIfNoEntry: false })?.mtimeMs
}
