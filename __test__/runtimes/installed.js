"use strict"

// The runtimes themselves, whose binaries npm has as packages: each is installed on first use into a folder of its own under
// target/, where a second run finds it.

const { execFileSync } = require("node:child_process")
const { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const versions = require("./versions.json")

const root = join(__dirname, "..", "..")
const cache = join(root, "target", "runtimes")

/** npm has no binaries for musl. */
const isMusl = process.platform === "linux" && process.report.getReport().header.glibcVersionRuntime === undefined
const platform = isMusl ? "linux-musl" : `${process.platform}-${process.arch}`

/** `{name, kind, version, binary}`, or undefined where npm has no such package for this platform. */
async function installed(name) {
  const specifier = versions[platform]?.[name]
  if (specifier === undefined) return undefined
  const [, packageName, version] = /^(.+)@(.+)$/.exec(specifier)
  const folder = join(cache, specifier.replaceAll(/[@/]+/g, "-").replace(/^-/, ""))
  const isNew = !existsSync(folder)
  if (isNew) await install(specifier, folder)
  const kind = name.replace(/-.*/, "")
  const binary = ["bin/", ""]
    .flatMap((directory) => [`${directory}${kind}`, `${directory}${kind}.exe`])
    .map((path) => join(folder, "node_modules", packageName, path))
    .find((path) => existsSync(path))
  const told = execFileSync(binary, ["--version"], { encoding: "utf8" })
  if (!told.includes(version)) throw new Error(`${binary} says that it is ${told}`)
  console.log(`figures runtimes: ${name}: ${specifier} ${isNew ? "installed into" : "found in"} ${relative(folder)}`)
  return { name, kind, version, binary }
}

/** Beside its place first, so that an install which was cut short is not taken for one. */
async function install(specifier, folder) {
  const { npm, run } = await import("../../scripts/process.mjs")
  mkdirSync(cache, { recursive: true })
  const place = mkdtempSync(join(cache, "installing-"))
  writeFileSync(join(place, "package.json"), '{ "private": true }\n')
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
  // A download that stalls is tried again within the time that there is: by itself npm waits for as long as all of it may take.
  options.push("--fetch-timeout=60000")
  try {
    const { ok, output } = await run(npm("install", ...options, specifier), { cwd: place, timeout: 5 * 60_000 })
    if (!ok) throw new Error(`${specifier} cannot be installed: ${output}`)
    renameSync(place, folder)
  } catch (error) {
    // Another process may have been quicker.
    if (!existsSync(folder)) throw error
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

const relative = (path) => path.slice(root.length + 1).replaceAll("\\", "/")

module.exports = { installed, platform, root }
