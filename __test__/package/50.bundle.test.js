"use strict"

// A program bundled by esbuild. What no bundle can hold is the addon: its packages stay external, and are installed where the
// bundle runs.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const { after, before, describe, test } = require("node:test")
const { clients } = require("./clients.js")
const { answer, esm } = require("./programs.js")
const { startWithRelease } = require("./registry.js")

describe("esbuild", () => {
  let registry
  let client
  let project

  before(async () => {
    client = await clients()
    registry = await startWithRelease()
    project = registry.machine.project("bundled", { "program.mjs": esm })
    project.npm("install", "--ignore-scripts", "syncline")
  })
  after(() => registry.stop())

  function bundle(outfile, ...options) {
    const fixed = ["--bundle", "--platform=node", "--target=node20", "--log-level=warning", `--outfile=${outfile}`]
    return project.run(client("esbuild", "program.mjs", ...fixed, ...options))
  }

  function runs(target) {
    for (const file of ["laptop.db", "phone.db"]) fs.rmSync(target.path(file), { force: true })
    assert.deepEqual(JSON.parse(target.node("bundle.js")), answer)
  }

  for (const format of ["cjs", "esm"]) {
    test(`--external:syncline leaves the library where it is installed (${format})`, () => {
      const outfile = { cjs: "bundle.js", esm: "bundle.mjs" }[format]
      bundle(outfile, `--format=${format}`, "--external:syncline")
      assert.ok(fs.statSync(project.path(outfile)).size < 10_000)
      for (const file of ["laptop.db", "phone.db"]) fs.rmSync(project.path(file), { force: true })
      assert.deepEqual(JSON.parse(project.node(outfile)), answer)
    })
  }

  test("--external:syncline-* bundles the library, and runs where the platform's package is all that is installed", () => {
    bundle("bundle.js", "--format=cjs", "--external:syncline-*")
    const target = registry.machine.project("deployed", { "bundle.js": project.read("bundle.js") })
    const [addon] = fs.readdirSync(project.path("node_modules")).filter((name) => name.startsWith("syncline-"))
    target.npm("install", "--ignore-scripts", addon)
    assert.deepEqual(
      fs.readdirSync(target.path("node_modules")).filter((name) => !name.startsWith(".")),
      [addon],
    )
    runs(target)
    console.log(
      `figures package: bundled by esbuild with the library inside: ${project.read("bundle.js").length} bytes`,
    )
  })
})
