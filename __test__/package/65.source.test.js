"use strict"

// The repository itself as a dependency: it is cloned, built with Rust, packed and installed, by whichever client.

const assert = require("node:assert/strict")
const { execFileSync } = require("node:child_process")
const fs = require("node:fs")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")
const { pathToFileURL } = require("node:url")
const { keptBy, root } = require("./kept.js")
const { Machine } = require("./machine.js")
const { answer, commonJS } = require("./programs.js")

/** Built as ever, but for the optimisation, which takes minutes. */
const building = {
  CARGO_TARGET_DIR: keptBy("cargo"),
  CARGO_PROFILE_RELEASE_LTO: "off",
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS: "16",
  CARGO_PROFILE_RELEASE_OPT_LEVEL: "0",
}

describe("from source", () => {
  let machine
  let repository

  before(async () => {
    const { npm } = await import("../../scripts/process.mjs")
    machine = new Machine(npm)
    repository = machine.project("repository")
    copyOfThis(repository)
  })
  after(() => fs.rmSync(machine.folder, { recursive: true, force: true }))

  /** A repository with one commit: what git would take of this one, with what is not committed yet. */
  function copyOfThis({ folder }) {
    const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    const files = execFileSync("git", list, { cwd: root, encoding: "utf8" }).split("\0")
    for (const file of files.filter((name) => name !== "" && fs.existsSync(path.join(root, name)))) {
      fs.cpSync(path.join(root, file), path.join(folder, file))
    }
    repository.run(["git", "init", "--quiet"])
    repository.run(["git", "add", "--all"])
    const author = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    repository.run(["git", ...author, "commit", "--quiet", "--message", "All"])
  }

  test("npm install git+… builds what is installed, which needs no sources any more", () => {
    const project = machine.project("npm-git", { "program.cjs": commonJS })
    const started = performance.now()
    const url = `git+${pathToFileURL(repository.folder)}`
    project.run(machine.npm("install", "--loglevel=error", url), building)
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    console.log(`figures package: npm install of the git repository, built without optimisation: ${seconds} s`)
    assert.equal(project.has("node_modules/syncline/src"), false)
    assert.equal(
      fs.readdirSync(project.path("node_modules/syncline/native")).filter((name) => name.endsWith(".node")).length,
      1,
    )
    assert.deepEqual(JSON.parse(project.node("program.cjs")), answer)
  })

  test("without Rust it says what is missing, and what needs none", () => {
    // Where npm has got to in the clone that it makes: the dependencies are there.
    fs.symlinkSync(path.join(root, "node_modules"), repository.path("node_modules"), "junction")
    const { status, stderr } = repository.try([process.execPath, "scripts/prepare.mjs"], {
      ...building,
      PATH: fs.mkdtempSync(repository.path("no-programs-")),
    })
    assert.notEqual(status, 0)
    assert.match(
      stderr,
      /^The published package is built already \(npm install syncline\)\. .* no Rust was found: .*rustup/m,
    )
  })

  test("without the development dependencies it says how to get them", () => {
    fs.rmSync(repository.path("node_modules"), { force: true })
    const { status, stderr } = repository.try(machine.npm("run", "prepare"))
    assert.notEqual(status, 0)
    assert.match(stderr, /typescript are missing, which build Syncline: run `npm install --include=dev`\.$/m)
  })
})
