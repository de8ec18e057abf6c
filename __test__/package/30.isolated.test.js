"use strict"

// The published package under clients that let a package find only what it names itself: pnpm, and Yarn with and without its
// Plug'n'Play.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const { after, before, describe, test } = require("node:test")
const { clients } = require("./clients.js")
const { answer, commonJS, drizzled, esm } = require("./programs.js")
const { startWithRelease } = require("./registry.js")

const programs = { "program.cjs": commonJS, "program.mjs": esm, "drizzled.mjs": drizzled }
const dependencies = { "drizzle-orm": "^0.45.4", syncline: "*" }

let registry
let client

before(async () => {
  registry = await startWithRelease()
  client = await clients()
})
after(() => registry.stop())

/** Both programs, each on new files, and the one with drizzle. `run` runs one. */
function bothRun(project, run) {
  for (const program of ["program.cjs", "program.mjs"]) {
    for (const file of ["laptop.db", "phone.db"]) fs.rmSync(project.path(file), { force: true })
    assert.deepEqual(JSON.parse(run(program)), answer, program)
  }
  assert.equal(run("drizzled.mjs"), "true")
}

describe("pnpm", () => {
  const pnpm = (project, ...args) => project.run(client("pnpm", ...args))

  test("installs into isolated folders, and again from its lockfile", () => {
    const project = registry.machine.project("pnpm", { "package.json": { private: true, dependencies }, ...programs })
    pnpm(project, "install", "--ignore-scripts")
    assert.ok(fs.lstatSync(project.path("node_modules", "syncline")).isSymbolicLink())
    assert.equal(project.has("node_modules/hono"), false, "hono is no dependency of the project")
    bothRun(project, (program) => project.node(program))
    assert.match(pnpm(project, "exec", "syncline", "--version"), /^\d+\.\d+\.\d+/)

    const other = registry.machine.project("pnpm-again", programs)
    for (const name of ["package.json", "pnpm-lock.yaml"]) other.write(name, project.read(name))
    assert.match(other.read("pnpm-lock.yaml"), /syncline-darwin-arm64@/, "the lockfile is good on other platforms, too")
    pnpm(other, "install", "--frozen-lockfile", "--offline", "--ignore-scripts")
    bothRun(other, (program) => other.node(program))
  })
})

describe("Yarn", () => {
  /** A project of Yarn's with this linker, and a function that runs Yarn in it. */
  function yarnProject(name, linker) {
    const { url } = registry.machine
    const configuration = [
      `nodeLinker: ${linker}`,
      `npmRegistryServer: "${url}"`,
      `unsafeHttpWhitelist: ["${new URL(url).hostname}"]`,
      "enableTelemetry: false",
      // Yarn waits a day before it trusts a version.
      "npmMinimalAgeGate: 0",
      "enableImmutableInstalls: false",
      "enableScripts: false",
    ]
    const project = registry.machine.project(name, {
      "package.json": { name, private: true, dependencies },
      ".yarnrc.yml": `${configuration.join("\n")}\n`,
      "yarn.lock": "",
      ...programs,
    })
    return { project, yarn: (...args) => project.run(client("@yarnpkg/cli-dist", ...args)) }
  }

  test("Plug'n'Play: the addon is unplugged from its archive by itself, the rest stays inside", () => {
    const { project, yarn } = yarnProject("yarn-pnp", "pnp")
    yarn("install")
    assert.equal(project.has("node_modules"), false)
    const unplugged = fs.readdirSync(project.path(".yarn", "unplugged"))
    assert.deepEqual(
      unplugged.filter((name) => !/^syncline-\w+-\w+(-\w+)?-npm-/.test(name)),
      [],
    )
    bothRun(project, (program) => yarn("node", program))
    assert.match(yarn("syncline", "--version"), /^\d+\.\d+\.\d+/)
  })

  test("with node_modules", () => {
    const { project, yarn } = yarnProject("yarn-modules", "node-modules")
    yarn("install")
    bothRun(project, (program) => project.node(program))
  })
})
