"use strict"

// Packages that only a test needs, each installed into a folder of its own under target/, so that a second run finds it.

const { execFileSync } = require("node:child_process")
const fs = require("node:fs")
const { join, relative } = require("node:path")

const root = join(__dirname, "..")
const base = join(root, "target", "installed")
const places = new Map()

/** The folder of a package of the registry, of this very version. */
function installed(name, version) {
  const known = places.get(`${name}@${version}`)
  if (known !== undefined) return known
  const folder = join(base, `${name.replace("/", "-")}-${version}`)
  if (!fs.existsSync(folder)) install(`${name}@${version}`, folder)
  console.log(`figures installed ${name}@${version} in ${relative(root, folder)}`)
  const place = join(folder, "node_modules", name)
  places.set(`${name}@${version}`, place)
  return place
}

function install(spec, folder) {
  fs.mkdirSync(base, { recursive: true })
  // Whole or not there: what was cut short must not be found by the next run.
  const making = fs.mkdtempSync(`${folder}-`)
  try {
    fs.writeFileSync(join(making, "package.json"), JSON.stringify({ private: true }))
    const quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    // The shell finds npm under each of its names.
    const options = { cwd: making, shell: process.platform === "win32", stdio: ["ignore", "ignore", "inherit"] }
    execFileSync("npm", ["install", ...quiet, spec], options)
    fs.renameSync(making, folder)
  } catch (error) {
    // Another process may have been quicker.
    if (!fs.existsSync(folder)) throw error
  } finally {
    fs.rmSync(making, { recursive: true, force: true })
  }
}

module.exports = { installed }
