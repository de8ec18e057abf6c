"use strict"

// What somebody with a Node that is too old is told: the first thing is that it is, whichever way Syncline is loaded.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { join } = require("node:path")
const { before, describe, test } = require("node:test")
const { laidOut, manifest } = require("../laid-out.js")
const { installed, platform } = require("./installed.js")
const versions = require("./versions.json")

/** One with a Node-API level that is too low, which would crash; one that reads no newer syntax; two just too old. */
const TOO_OLD = ["node-12", "node-14", "node-18", "node-20-older"]
const ENTRIES = Object.keys(manifest.exports)
  .filter((entry) => entry !== "./package.json")
  .map((entry) => entry.replace(".", "syncline"))

for (const name of TOO_OLD) {
  const version = versions[platform]?.[name]?.split("@").at(-1)
  const skip = version === undefined && `npm has none for ${platform}`
  describe(`Node ${version ?? name}`, { skip }, () => {
    const folder = laidOut({ dependencies: Object.keys(manifest.dependencies) })
    let node
    before(async () => (node = (await installed(name)).binary))

    function run(...args) {
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
