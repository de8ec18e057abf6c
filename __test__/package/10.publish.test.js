"use strict"

// What a release publishes, and that publishing it may break off anywhere and be run again.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")
const { root } = require("./kept.js")
const { artifacts, publish, release, stage, startRegistry } = require("./registry.js")

const manifest = require("../../package.json")
const platforms = fs.readdirSync(path.join(root, "npm")).toSorted()
const names = [...platforms.map((platform) => `syncline-${platform}`), "syncline"]
const readJSON = (...names) => JSON.parse(fs.readFileSync(path.join(...names), "utf8"))

describe("staging a release", () => {
  let folder
  let packages

  before(async () => {
    folder = await release()
    packages = readJSON(folder, "packages.json")
  })

  test("makes a package for each platform, and the root last", () => {
    assert.deepEqual(
      packages
        .slice(0, -1)
        .map(({ name }) => name)
        .toSorted(),
      names.slice(0, -1),
    )
    assert.equal(packages.at(-1).name, "syncline")
    for (const { name, version, packed, addon } of packages) {
      assert.equal(version, manifest.version)
      if (addon === undefined || addon > 1000)
        console.log(
          `figures package: ${name} ${version} ${size(packed)} packed${addon ? `, the addon ${size(addon)}` : ""}`,
        )
    }
  })

  test("the root names each platform's package in its own version, and holds no binary", () => {
    const { optionalDependencies, dependencies, devDependencies } = readJSON(folder, "syncline", "package.json")
    const expected = names.slice(0, -1).map((name) => [name, manifest.version])
    assert.deepEqual(Object.entries(optionalDependencies).toSorted(), expected)
    assert.deepEqual(dependencies, manifest.dependencies)
    assert.equal(devDependencies, undefined)
    const files = fs.readdirSync(path.join(folder, "syncline"), { recursive: true })
    assert.deepEqual(
      files.filter((name) => name.endsWith(".node")),
      [],
    )
  })

  test("nothing runs where a package is installed", () => {
    for (const name of names) assert.equal(readJSON(folder, name, "package.json").scripts, undefined, name)
  })

  test("each platform's package holds its addon, no other, and the licences of what is in it, and installs there alone", () => {
    for (const platform of platforms) {
      const name = `syncline-${platform}`
      const { os, cpu, libc, main } = readJSON(folder, name, "package.json")
      assert.deepEqual(fs.readdirSync(path.join(folder, name)).toSorted(), [
        "LICENSE",
        "README.md",
        "THIRD_PARTY_LICENSES",
        "package.json",
        `syncline.${platform}.node`,
      ])
      assert.equal(main, `syncline.${platform}.node`)
      const abi = { gnu: ["glibc"], musl: ["musl"] }[platform.split("-")[2]]
      assert.deepEqual([os, cpu, libc], [[platform.split("-")[0]], [platform.split("-")[1]], abi])
    }
  })
})

describe("staging", () => {
  let registry
  let project

  before(async () => {
    registry = await startRegistry()
    project = registry.machine.project("staging")
  })
  after(() => registry.stop())

  /** A folder with the addons of these platforms only. */
  function some(name, ...wanted) {
    const folder = artifacts(project.path(name))
    const others = platforms.filter((platform) => !wanted.includes(platform))
    for (const platform of others) fs.rmSync(path.join(folder, `syncline.${platform}.node`))
    return folder
  }

  test("takes the addons that are there, unless all are wanted", () => {
    const two = ["--artifacts", some("two", "linux-x64-gnu", "darwin-x64"), "--out", project.path("out")]
    assert.throws(() => stage("--all", ...two), /lacks the addons of 5 targets: .*musl/)
    stage(...two)
    const { optionalDependencies } = readJSON(project.path("out", "syncline", "package.json"))
    assert.deepEqual(Object.keys(optionalDependencies).toSorted(), ["syncline-darwin-x64", "syncline-linux-x64-gnu"])
    const none = ["--artifacts", project.path("none"), "--out", project.path("out")]
    assert.throws(() => stage(...none), /holds no addon/)
  })

  test("takes the place of an earlier one, and names the repository that the workflow runs in", () => {
    const environment = { GITHUB_SERVER_URL: "https://forge.example", GITHUB_REPOSITORY: "some/where" }
    const command = [process.execPath, path.join(root, "scripts/stage.mjs"), "--out", project.path("out")]
    project.run([...command, "--artifacts", some("one", "darwin-x64")], environment)
    assert.equal(project.has("out/syncline-linux-x64-gnu"), false)
    for (const name of ["syncline", "syncline-darwin-x64"]) {
      const { repository } = readJSON(project.path("out", name, "package.json"))
      assert.deepEqual(repository, { type: "git", url: "git+https://forge.example/some/where.git" })
    }
  })

  test("leaves alone a folder that it has not made", () => {
    project.write("mine/notes.txt", "mine")
    const args = ["--artifacts", some("other", "darwin-x64"), "--out", project.path("mine")]
    assert.throws(() => stage(...args), /holds files that staging has not made/)
    assert.equal(project.read("mine/notes.txt"), "mine")
  })

  test("is the only way: a clone is not published, not even by accident", () => {
    const { status, stderr } = project.try(registry.machine.npm("publish", root, "--dry-run"))
    assert.notEqual(status, 0)
    assert.match(stderr, /A clone is not published.*scripts\/stage\.mjs/s)
  })
})

describe("publishing", () => {
  let registry
  let staged
  let list

  before(async () => {
    registry = await startRegistry()
    staged = await release()
    // Two platforms and the root: the others are published in the same way.
    list = readJSON(staged, "packages.json").filter(({ name }) => !/musl|arm64|win32/.test(name))
  })
  after(() => registry.stop())

  /** A staged folder with these packages. */
  function folderOf(name, packages) {
    const { folder } = registry.machine.project(name, { "packages.json": packages })
    for (const { tarball } of packages) fs.copyFileSync(path.join(staged, tarball), path.join(folder, tarball))
    return folder
  }

  function publishes(folder, ...options) {
    const { status, stdout, stderr } = publish(registry.machine, folder, ...options)
    assert.equal(status, 0, stderr)
    return stdout.trim().split("\n")
  }

  const lines = (what, packages) => packages.map(({ name, version }) => `${name} ${version} ${what}`)

  test("goes platform by platform, then the root; what an earlier try has published is skipped", () => {
    assert.equal(list.length, 3)
    const all = folderOf("all", list)
    assert.deepEqual(publishes(all, "--dry-run"), lines("would be published", list))
    // What an interruption leaves: a platform's package is there, the root is not.
    assert.deepEqual(
      publishes(folderOf("half", list.slice(0, 1)), "--tag", "next"),
      lines("published", list.slice(0, 1)),
    )
    assert.deepEqual(publishes(all, "--tag", "next"), [
      ...lines("is published already", list.slice(0, 1)),
      ...lines("published", list.slice(1)),
    ])
    assert.deepEqual(publishes(all), lines("is published already", list))
    const project = registry.machine.project("asking")
    assert.equal(JSON.parse(project.npm("view", "syncline", "dist-tags", "--json")).next, manifest.version)
  })

  test("a version that was published with other content is refused before anything is published", () => {
    const [first, , last] = list
    const changed = folderOf("changed", [
      { ...first, version: "9.9.9" },
      { ...last, integrity: "sha512-other" },
    ])
    const { status, stdout, stderr } = publish(registry.machine, changed)
    assert.deepEqual([status, stdout], [1, ""])
    assert.match(stderr, /^syncline \S+ is published already, with other content: raise the version\.$/m)
  })

  test("without anything staged it says what to do", () => {
    const { status, stderr } = publish(registry.machine, registry.machine.project("nothing").folder)
    assert.equal(status, 1)
    assert.match(stderr, /holds nothing staged: run `node scripts\/stage\.mjs` first/)
  })
})

function size(bytes) {
  return bytes < 1_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(2)} MB`
}
