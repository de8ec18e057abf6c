// Brings a clone to where the library can be required: dependencies, native addon, JavaScript. Each part is skipped when
// nothing that it is made of has changed, so every command starts with it.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { npm, root, run, tool } from "./process.mjs"
import { addonOf } from "./targets.mjs"

/** Where a C compiler comes from. */
const COMPILERS = {
  linux: "apt-get install gcc libc6-dev, dnf install gcc, or apk add gcc musl-dev",
  darwin: "xcode-select --install",
}

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
  checkNode()
  checkDependencies()
  if (!addonIsCurrent()) {
    await checkCompilers()
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
  if (major > 20 || (major === 20 && minor >= 19)) return
  throw new Error(`Building and testing Syncline takes Node 20.19 or later; this is ${process.version}.`)
}

function checkDependencies() {
  const missing = ["@napi-rs/cli", "typescript"].filter((name) => !existsSync(join(root, "node_modules", name)))
  if (missing.length === 0) return
  throw new Error(`${missing.join(" and ")} are missing, which build Syncline: run \`npm install --include=dev\`.`)
}

/** What a build of the addon needs: a Rust that is new enough, and a C compiler for SQLite and zstd. */
export async function checkCompilers() {
  const needed = /^rust-version = "(.*)"$/m.exec(readFileSync(join(root, "Cargo.toml"), "utf8"))[1]
  const building =
    "The published package is built already (npm install syncline). " +
    `Building Syncline from its sources takes Rust ${needed} or later and a C compiler`
  const rustc = await run(["rustc", "--version"])
  const found = /^rustc (\d+\.\d+)/m.exec(rustc.output)?.[1]
  if (!rustc.ok || !(await run(["cargo", "--version"])).ok) {
    throw new Error(`${building}, and no Rust was found: install it from https://rustup.rs`)
  }
  // Cargo would say so too, but an older one fails earlier, at what it cannot read in Cargo.toml.
  if (found === undefined || found.localeCompare(needed, "en", { numeric: true }) < 0) {
    throw new Error(`${building}; this is ${rustc.output.trim()}. With rustup: rustup update stable`)
  }
  // By this name Rust links, whatever CC says. On Windows rustup sees to it.
  if (process.platform !== "win32" && !(await run(["cc", "--version"])).ok) {
    throw new Error(`${building}, and no cc was found: ${COMPILERS[process.platform] ?? "install gcc or clang"}`)
  }
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
  const binary = oldest([`native/${addonOf(platformName())}`])
  return (
    existsSync(join(root, "native/index.js")) &&
    binary >= newest(["src", "Cargo.toml", "Cargo.lock", "build.rs", ".cargo"])
  )
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
