"use strict"

// What releases the package: one version in all files and the changelog, and workflows that build what package.json names.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, describe, test } = require("node:test")
const { parse } = require("yaml")

const root = join(__dirname, "..")
const read = (file) => readFileSync(join(root, file), "utf8")
const manifest = JSON.parse(read("package.json"))
const { version } = manifest

describe("scripts/changelog.mjs", () => {
  const clone = mkdtempSync(join(tmpdir(), "syncline-release-"))
  after(() => rmSync(clone, { recursive: true, force: true }))
  const manifests = readdirSync(join(root, "npm")).map((folder) => `npm/${folder}/package.json`)
  const files = ["package.json", "package-lock.json", "Cargo.toml", "Cargo.lock", "CHANGELOG.md", ...manifests]
  for (const file of [...files, "scripts/changelog.mjs", "scripts/process.mjs"])
    cpSync(join(root, file), join(clone, file))
  const dated = `# Changelog\n\n## [Unreleased]\n\n## [${version}] - 2026-01-31\n\n### Added\n\n- This.\n\n## [0.0.1] - 2025-01-31\n\nThat.\n`

  /** What the script says in a clone in which one file has another text. */
  function says(args, changes = {}) {
    for (const [file, text] of Object.entries(changes)) writeFileSync(join(clone, file), text)
    const command = [join(clone, "scripts/changelog.mjs"), ...args]
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" })
    for (const file of Object.keys(changes)) cpSync(join(root, file), join(clone, file))
    return { status, stdout, stderr }
  }

  test("every file has the version of package.json, and the changelog a section for it", () => {
    const { status, stdout, stderr } = says([version])
    assert.equal(stderr, "")
    assert.equal(status, 0)
    assert.ok(stdout.trim().length > 0)
  })

  test("prints that section alone, without its heading", () => {
    assert.equal(says(["--tag", `v${version}`], { "CHANGELOG.md": dated }).stdout, "### Added\n\n- This.\n")
  })

  for (const file of files.filter((name) => name !== "CHANGELOG.md")) {
    test(`fails when ${file} has another version`, () => {
      const { status, stderr } = says([version], { [file]: read(file).replaceAll(`"${version}"`, `"9.9.9"`) })
      assert.equal(status, 1)
      assert.ok(stderr.includes(`${file} has 9.9.9`), stderr)
    })
  }

  const refused = [
    ["a tag of another version", ["--tag", "v9.9.9"], dated, /package\.json has/],
    ["what is no tag of a version", ["--tag", "main"], dated, /a tag like v1\.2\.3, and not main/],
    ["no section", [version], "# Changelog\n", /needs a section "## \[/],
    ["an empty section", [version], `## [${version}] - 2026-01-31\n\n## [0.0.1]\n\nThat.\n`, /says nothing of/],
    ["a release without a date", ["--tag", `v${version}`], dated.replace("2026-01-31", "unreleased"), /has no date/],
    [
      "changes that are left unreleased",
      ["--tag", `v${version}`],
      dated.replace("## [Unreleased]\n", "## [Unreleased]\n\n- More.\n"),
      /under \[Unreleased\] belongs to/,
    ],
    ["no argument", [], dated, /Usage/],
  ]
  for (const [what, args, changelog, complaint] of refused) {
    test(`refuses ${what}`, () => {
      const { status, stdout, stderr } = says(args, { "CHANGELOG.md": changelog })
      assert.deepEqual({ status, stdout }, { status: 1, stdout: "" })
      assert.match(stderr, complaint)
    })
  }
})

describe("the workflows", () => {
  const workflows = Object.fromEntries(
    ["ci", "release"].map((name) => [name, parse(read(`.github/workflows/${name}.yml`))]),
  )
  const jobs = Object.entries(workflows).flatMap(([name, workflow]) =>
    Object.entries(workflow.jobs).map(([job, body]) => ({ name: `${name}.yml: ${job}`, job, ...body })),
  )
  const steps = jobs.flatMap(({ name, steps }) => steps.map((step) => ({ job: name, ...step })))
  const commands = steps.map(({ run }) => run ?? "").join("\n")

  test("are all that there are", () => {
    assert.deepEqual(readdirSync(join(root, ".github/workflows")).toSorted(), ["ci.yml", "release.yml"])
  })

  for (const job of ["build", "test"]) {
    test(`release.yml has to ${job} every target of package.json, and no other`, () => {
      const targets = workflows.release.jobs[job].strategy.matrix.include.map(({ target }) => target)
      assert.deepEqual(targets.toSorted(), manifest.napi.targets.toSorted())
    })
  }

  test("cargo deny looks at every target of package.json", () => {
    const [, list] = /^targets = \[([^\]]*)\]/m.exec(read("deny.toml"))
    assert.deepEqual(
      [...list.matchAll(/"([^"]+)"/g)].map(([, target]) => target).toSorted(),
      manifest.napi.targets.toSorted(),
    )
  })

  test("ci.yml runs .ci/run on every system that a binary is released for, and on the oldest Node that package.json admits", () => {
    const { strategy, steps } = workflows.ci.jobs.test
    assert.ok(steps.some(({ run }) => run === ".ci/run"))
    const runners = [...strategy.matrix.os, ...strategy.matrix.include.map(({ os }) => os)].join(" ")
    for (const system of ["ubuntu", "ubuntu-.*-arm", "macos", "macos-.*-intel", "windows"])
      assert.match(runners, new RegExp(system))
    const [, floor] = /^>=(\d+)/.exec(manifest.engines.node)
    assert.equal(Math.min(...strategy.matrix.node), Number(floor))
  })

  test("every action is pinned to a commit, and says of which version it is", () => {
    const lines = Object.keys(workflows).flatMap((name) =>
      read(`.github/workflows/${name}.yml`).match(/^.*\buses:.*$/gm),
    )
    assert.ok(lines.length > 0)
    assert.equal(lines.length, steps.filter(({ uses }) => uses !== undefined).length)
    const versions = new Map()
    for (const line of lines) {
      const [, action, commit, tag] = /uses: (\S+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$/.exec(line) ?? []
      assert.ok(action, line)
      assert.equal(
        versions.get(action) ?? `${commit} ${tag}`,
        `${commit} ${tag}`,
        `${action} has one version everywhere`,
      )
      versions.set(action, `${commit} ${tag}`)
    }
  })

  test("every script that they run exists", () => {
    const scripts = [...commands.matchAll(/\bscripts\/[\w-]+\.mjs/g), ...commands.matchAll(/^\.ci\/\w+/gm)].map(
      ([file]) => file,
    )
    for (const file of new Set(scripts)) assert.ok(existsSync(join(root, file)), file)
    const named = [...commands.matchAll(/\bnpm (?:run ([\w:]+)|(test))/g)].map(([, script, test]) => script ?? test)
    assert.ok(named.includes("test") && named.includes("build:ts"))
    for (const name of named) assert.ok(manifest.scripts[name], `npm run ${name}`)
  })

  test("every job has a limit of time, and only the ones that publish may write anything", () => {
    for (const { name, "timeout-minutes": minutes } of jobs) assert.ok(minutes > 0 && minutes <= 90, name)
    const writing = jobs.flatMap(({ job, permissions = {} }) =>
      Object.entries(permissions).flatMap(([what, access]) => (access === "read" ? [] : `${job}: ${what}`)),
    )
    assert.deepEqual(writing, ["publish: id-token", "announce: contents"])
    assert.deepEqual([workflows.ci.permissions, workflows.release.permissions], [{ contents: "read" }, {}])
    for (const { job, uses, with: options } of steps)
      if (uses?.startsWith("actions/checkout")) assert.equal(options?.["persist-credentials"], false, job)
  })

  test("nothing is published unless a tag says so, and all that is has been tested", () => {
    const { on, jobs } = workflows.release
    assert.deepEqual(Object.keys(on), ["push", "workflow_dispatch"])
    assert.deepEqual(on.push, { tags: ["v*"] })
    assert.equal(on.workflow_dispatch.inputs["dry-run"].default, true)
    assert.match(jobs.publish.if, /needs\.notes\.outputs\.publishing == 'true'/)
    const waitsFor = (job) => [jobs[job].needs ?? []].flat().flatMap((needed) => [needed, ...waitsFor(needed)])
    for (const needed of ["notes", "build", "test", "stage"]) assert.ok(waitsFor("publish").includes(needed), needed)
    assert.ok(waitsFor("announce").includes("publish"))
  })
})

describe("the format of the file", () => {
  test("has a fixture of each number that was given", () => {
    const [, newest] = /^pub const FORMAT: i64 = (\d+);$/m.exec(read("src/schema.rs"))
    for (let format = 1; format <= Number(newest); format++)
      assert.ok(existsSync(join(root, `__test__/fixtures/format-${format}.db.gz`)), `format ${format}`)
  })
})

describe("the documents for contributors", () => {
  const documents = ["CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"].map((file) => [
    file,
    read(file),
  ])

  test("name commands that exist", () => {
    for (const [file, text] of documents) {
      const named = [...text.matchAll(/`npm (?:run ([\w:]+)|(test|start))/g)].map(([, script, own]) => script ?? own)
      for (const name of named) assert.ok(manifest.scripts[name], `${file}: npm run ${name}`)
      for (const [script] of text.matchAll(/\bscripts\/[\w-]+\.mjs/g))
        assert.ok(existsSync(join(root, script)), `${file}: ${script}`)
    }
  })

  test("link to what exists", () => {
    for (const [file, text] of documents) {
      for (const [, link] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g))
        assert.ok(existsSync(join(root, link)), `${file} links to ${link}`)
    }
  })

  test("tell of every script of package.json", () => {
    const [[, text]] = documents
    const told = Object.keys(manifest.scripts).filter(
      (name) => !/^(build:|prepare$|prepublishOnly$|test$|start$)/.test(name),
    )
    for (const name of told) assert.ok(text.includes(`npm run ${name}`), name)
  })
})
