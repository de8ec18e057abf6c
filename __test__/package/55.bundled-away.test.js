"use strict"

// Programs that esbuild has bundled, run where nothing is installed: what they are told, and that what they are told helps.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { join } = require("node:path")
const { before, describe, test } = require("node:test")
const { clients } = require("./clients.js")
const { emptyFolder, laidOut, platform, version } = require("../laid-out.js")

let client

before(async () => {
  client = await clients()
})

const PROGRAM = `
  import { open } from "syncline"
  open(":memory:").close()
  console.log("works")
`
/** Catches what loading throws, and prints it. */
const CATCHING = `
  try {
    require("syncline")
  } catch ({ name, code, reason, message, expected }) {
    console.log(JSON.stringify({ name, code, reason, message, expected }))
  }
`

/** Bundles a program of a project in which syncline is installed, and returns the folder of what came out. */
function bundle(program, ...flags) {
  const project = laidOut()
  const out = emptyFolder()
  fs.writeFileSync(join(project, "app.js"), program)
  const common = ["app.js", "--bundle", "--platform=node", "--log-level=error", `--outdir=${out}`]
  const [command, ...args] = client("esbuild", ...common, ...flags)
  const { status, stderr } = spawnSync(command, args, { cwd: project, encoding: "utf8" })
  return { project, out, status, stderr }
}

function run(folder) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ["app.js"], { cwd: folder, encoding: "utf8" })
  assert.deepEqual({ signal, stderr, status }, { signal: null, stderr: "", status: 0 })
  return stdout.trim()
}

describe("a bundle without its addon", () => {
  for (const [how, flag] of [
    ["since the platform's package is external, and not there", "--external:syncline-*"],
    ["since a path stands in its place", "--loader:.node=file"],
    ["since nothing stands in its place", "--loader:.node=empty"],
  ]) {
    test(`${how}, says that it is one`, () => {
      const error = JSON.parse(run(bundle(CATCHING, flag).out))
      const { name, code, reason, expected, message } = error
      const known = { name: "SyncError", code: "ERR_ADDON_NOT_LOADED", reason: "bundled", expected: platform }
      assert.deepEqual({ name, code, reason, expected }, known, message)
      for (const phrase of [
        "--external:syncline",
        'externals: { syncline: "commonjs syncline" }',
        'serverExternalPackages: ["syncline"]',
        `npm install syncline@${version}`,
      ]) {
        assert.ok(message.includes(phrase), message)
      }
    })
  }

  test("is not made unnoticed: esbuild itself asks what to do with the addon", () => {
    const { status, stderr } = bundle(PROGRAM)
    assert.equal(status, 1)
    assert.match(stderr, /No loader is configured for ".node" files/)
  })
})

describe("a bundle that does as it was told", () => {
  for (const format of ["cjs", "esm"]) {
    test(`works with syncline external, beside what is installed (${format})`, () => {
      const { project, out } = bundle(PROGRAM, "--external:syncline", `--format=${format}`)
      // Somewhere else, where syncline was installed again.
      fs.cpSync(join(project, "node_modules"), join(out, "node_modules"), { recursive: true })
      fs.writeFileSync(join(out, "package.json"), JSON.stringify({ type: format === "esm" ? "module" : "commonjs" }))
      assert.equal(run(out), "works")
    })
  }

  test("works with the addon copied beside it", () => {
    const { project, out } = bundle(PROGRAM, "--loader:.node=copy")
    fs.rmSync(project, { recursive: true })
    assert.equal(run(out), "works")
  })
})
