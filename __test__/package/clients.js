"use strict"

// The programs that the package is installed and checked with: other clients than npm, compilers, a bundler, a registry.
// They have a manifest and a lockfile of their own, since nothing else needs them, and are installed on first use.

const { execFileSync } = require("node:child_process")
const fs = require("node:fs")
const path = require("node:path")
const { kept, root } = require("./kept.js")

const manifests = ["package.json", "package-lock.json"].map((name) => `__test__/package/clients/${name}`)

/** Installs the clients where they are missing, and returns the folder. */
async function installClients() {
  const { npm } = await import("../../scripts/process.mjs")
  return kept("clients", manifests, (making) => {
    const started = performance.now()
    for (const file of manifests) fs.copyFileSync(path.join(root, file), path.join(making, path.basename(file)))
    // Not npm ci, for the reason that scripts/setup.mjs gives.
    const quiet = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    const [command, ...args] = npm("install", ...quiet)
    execFileSync(command, args, { cwd: making, stdio: ["ignore", "pipe", "pipe"] })
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    console.log(`figures package: installed other clients and checkers under target/ in ${seconds} s`)
  })
}

/** A function that gives the command line of a client: `client("esbuild", "app.js")`. */
async function clients() {
  const folder = await installClients()
  return (name, ...args) => [process.execPath, programOf(path.join(folder, "node_modules", name)), ...args]
}

function programOf(folder) {
  const { name, bin } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"))
  const first = typeof bin === "string" ? bin : (bin[name] ?? Object.values(bin)[0])
  return path.join(folder, first)
}

module.exports = { clients, installClients }
