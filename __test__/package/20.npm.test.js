"use strict"

// The published package, installed by npm into empty projects: what is installed, that a program of each module system runs,
// the command, and what the lockfile says to other platforms.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")
const { root } = require("./kept.js")
const { answer, commonJS, esm } = require("./programs.js")
const { startWithRelease } = require("./registry.js")

const manifest = require("../../package.json")
const platforms = fs.readdirSync(path.join(root, "npm")).toSorted()
const packages = platforms.map((platform) => `syncline-${platform}`)

describe("npm", () => {
  let registry
  let project
  let asked

  before(async () => {
    registry = await startWithRelease()
    const { npm } = registry.machine
    project = registry.machine.project("npm", { "program.cjs": commonJS, "program.mjs": esm })
    const started = performance.now()
    const { status, stderr } = project.try(npm("install", "--ignore-scripts", "--loglevel=http", "syncline"))
    assert.equal(status, 0, stderr)
    asked = [...stderr.matchAll(/^npm http (?:fetch|cache) .*?http:\/\/[^/]+\/(@[^/%]+(?:\/|%2f)[^/@ ]+|[^/@ ]+)/gim)]
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(`figures package: npm install syncline: ${installed(project)}, ${seconds} s`)
  })
  after(() => registry.stop())

  test("installs the root, this platform's addon and the dependencies, without a script", () => {
    assert.deepEqual(platformPackages(project).length, 1)
    const locked = Object.values(project.json("package-lock.json").packages)
    assert.deepEqual(
      locked.filter(({ hasInstallScript }) => hasInstallScript),
      [],
    )
    assert.equal(project.has("node_modules/syncline/node_modules"), false)
  })

  test("asks the registry about nothing but what it may install", () => {
    const names = new Set(asked.map(([, name]) => decodeURIComponent(name)))
    const locked = Object.keys(project.json("package-lock.json").packages).map((key) =>
      key.slice(key.lastIndexOf("node_modules/") + "node_modules/".length),
    )
    assert.ok(names.has("syncline") && names.has("hono"))
    assert.deepEqual(
      [...names].filter((name) => !locked.includes(name)),
      [],
    )
  })

  test("the lockfile names every platform's package, so that it is good on all of them", () => {
    const locked = project.json("package-lock.json").packages
    for (const name of packages) {
      const { version, optional } = locked[`node_modules/${name}`] ?? {}
      assert.deepEqual({ name, version, optional }, { name, version: manifest.version, optional: true })
    }
  })

  test("a CommonJS program and an ESM program run", () => {
    assert.deepEqual(JSON.parse(project.node("program.cjs")), answer)
    for (const file of ["laptop.db", "phone.db"]) fs.rmSync(project.path(file))
    assert.deepEqual(JSON.parse(project.node("program.mjs")), answer)
  })

  test("npx syncline looks into what the program wrote", () => {
    const npx = (...args) => project.npm("exec", "--offline", "--", "syncline", ...args)
    assert.match(npx("--help"), /^Usage: syncline/)
    assert.equal(npx("--version"), manifest.version)
    const { events } = JSON.parse(npx("stats", "laptop.db", "--json"))
    assert.equal(events, 2)
  })

  test("npm ci installs the same from the lockfile alone", () => {
    const other = registry.machine.project("ci", { "program.cjs": commonJS })
    for (const name of ["package.json", "package-lock.json"]) other.write(name, project.read(name))
    other.npm("ci", "--ignore-scripts", "--prefer-offline")
    assert.deepEqual(platformPackages(other), platformPackages(project))
    assert.deepEqual(JSON.parse(other.node("program.cjs")), answer)
  })

  test("isolated node_modules (--install-strategy=linked) will do", () => {
    const linked = registry.machine.project("linked", { "program.cjs": commonJS, "program.mjs": esm })
    linked.npm("install", "--ignore-scripts", "--prefer-offline", "--install-strategy=linked", "syncline")
    assert.ok(fs.lstatSync(linked.path("node_modules", "syncline")).isSymbolicLink())
    assert.deepEqual(JSON.parse(linked.node("program.cjs")), answer)
    for (const file of ["laptop.db", "phone.db"]) fs.rmSync(linked.path(file))
    assert.deepEqual(JSON.parse(linked.node("program.mjs")), answer)
  })
})

function platformPackages(project) {
  return fs.readdirSync(project.path("node_modules")).filter((name) => packages.includes(name))
}

/** What lies in node_modules, in words. */
function installed(project) {
  const folders = Object.keys(project.json("node_modules/.package-lock.json").packages)
  const ours = folders.filter((name) => name.startsWith("node_modules/syncline"))
  const words = ours.map(
    (name) =>
      `${path.basename(name)} ${project.json(`${name}/package.json`).version} (${megabytes(project.path(name))})`,
  )
  return `${words.join(", ")} and ${folders.length - ours.length} dependencies, ${megabytes(project.path("node_modules"))} in all`
}

function megabytes(folder) {
  const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const bytes = files.reduce(
    (sum, file) => sum + fs.statSync(path.join(file.parentPath ?? file.path, file.name)).size,
    0,
  )
  return `${(bytes / 1_000_000).toFixed(1)} MB`
}
