"use strict"

// What is installed, or is not: each way in which the addon's package can be missing is told apart, with what mends it.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { addonOf, laidOut, load, manifest, MODULE, platform, refused, root, TOLD, version } = require("./laid-out.js")

const [system, arch, abi] = platform.split("-")
const name = `syncline-${platform}`

/** Runs before everything else: the process takes itself for one of another platform. */
const pretending = (system, arch) => `
  Object.defineProperty(process, "platform", { value: ${JSON.stringify(system)} })
  Object.defineProperty(process, "arch", { value: ${JSON.stringify(arch)} })
`
/** The same for a Linux with musl: what it is known by, to the loader too, are \`ldd\` and the process's own report. */
const pretendingMusl = `
  ${pretending("linux", "x64")}
  const fs = require("fs")
  const { readFileSync } = fs
  fs.readFileSync = (file, ...rest) => (file === "/usr/bin/ldd" ? "musl libc (x86_64)" : readFileSync(file, ...rest))
  process.report.getReport = () => ({ header: {}, sharedObjects: ["/lib/ld-musl-x86_64.so.1"] })
`

describe("a package that is whole", () => {
  const folder = laidOut()

  test("loads by require and by import", () => {
    assert.deepEqual(load(folder), { loaded: true })
    assert.deepEqual(load(folder, { program: MODULE }), { loaded: true })
  })

  test("loads from a folder that its package is found from, however far above", () => {
    const program = join(folder, "packages", "app")
    fs.mkdirSync(program, { recursive: true })
    assert.deepEqual(load(program), { loaded: true })
  })
})

describe("the package of this platform is not installed", () => {
  const lock = (...packages) => {
    const folder = laidOut({ packages: [] })
    const entries = packages.map((name) => [`node_modules/${name}`, {}])
    fs.writeFileSync(join(folder, "package-lock.json"), JSON.stringify({ packages: Object.fromEntries(entries) }))
    return folder
  }
  const alone = `npm install --save-optional ${name}@${version}`
  const including = "npm install --include=optional"
  const anew = "rm -rf node_modules package-lock.json && npm install"

  test("and no lockfile tells why: both remedies are named, and the package", () => {
    const folder = laidOut({ packages: [] })
    for (const program of [undefined, MODULE]) {
      refused(load(folder, { program }), "missing", { expected: platform, caused: false }, name, including, anew, alone)
    }
  })

  test("and the lockfile has it: it was left out with all that is optional", () => {
    const answer = load(lock("syncline", name))
    refused(answer, "missing", { expected: platform }, "--omit=optional", including, alone)
    assert.ok(!answer.message.includes(anew))
  })

  test("and the lockfile lacks it: that was made on another platform", () => {
    const answer = load(lock("syncline", "syncline-something-else"))
    refused(answer, "missing", { expected: platform }, "package-lock.json does not list it", anew, alone)
    assert.ok(!answer.message.includes(including))
  })

  test("but others' packages are: node_modules was copied", () => {
    const other = system === "darwin" ? "linux-arm64-gnu" : "darwin-arm64"
    const answer = load(laidOut({ packages: [other] }))
    refused(answer, "wrong-platform", { expected: platform, got: other }, `syncline-${other}`)
    refused(
      answer,
      "wrong-platform",
      {},
      "rm -rf node_modules && npm install",
      `npm install --os=${system} --cpu=${arch}`,
    )
  })

  test("but its folder is, without the file", () => {
    const folder = laidOut()
    fs.rmSync(addonOf(folder))
    refused(load(folder), "missing", { path: addonOf(folder) }, "is not there", "rm -rf node_modules && npm install")
  })

  test("of glibc, but that of musl is, or the other way round", { skip: system !== "linux" }, () => {
    const other = abi === "gnu" ? "musl" : "gnu"
    const answer = load(laidOut({ packages: [`${system}-${arch}-${other}`] }))
    refused(answer, "wrong-libc", { expected: platform, got: `${system}-${arch}-${other}` }, "rm -rf node_modules")
    refused(answer, "wrong-libc", {}, `--libc=${abi === "gnu" ? "glibc" : "musl"}`)
  })

  test("of this architecture, but that of another is", { skip: system === "win32" }, () => {
    const other = [system, arch === "x64" ? "arm64" : "x64", abi].filter(Boolean).join("-")
    const answer = load(laidOut({ packages: [other] }))
    refused(answer, "wrong-platform", { expected: platform, got: other }, `built for ${arch}`, "node -p process.arch")
  })

  test("since this is a checkout that was not built", () => {
    const folder = laidOut({ packages: [] })
    fs.writeFileSync(join(folder, "node_modules", "syncline", "Cargo.toml"), "")
    refused(load(folder), "missing", { expected: platform }, "checkout", "npm run build")
  })
})

describe("with a process that takes itself for another platform", () => {
  for (const [system, arch, named] of [
    ["freebsd", "x64", "freebsd-x64"],
    ["win32", "arm64", "win32-arm64-msvc"],
    ["linux", "ia32", "linux-ia32"],
    ["darwin", "ppc", "darwin-ppc"],
  ]) {
    test(`${system} on ${arch} has no package, and the error lists those that there are`, () => {
      const answer = load(laidOut(), { preset: pretending(system, arch) })
      refused(answer, "unsupported-platform", {}, `there is none for ${named}`)
      const [, listed] = /only for (.*)\.$/m.exec(answer.message)
      assert.deepEqual(listed.split(", ").toSorted(), fs.readdirSync(join(root, "npm")).toSorted())
      refused(answer, "unsupported-platform", {}, "npm run build", "SYNCLINE_ADDON_PATH=")
    })
  }

  test("a Node for x64 that Rosetta runs finds the package for arm64", () => {
    const answer = load(laidOut({ packages: ["darwin-arm64"] }), { preset: pretending("darwin", "x64") })
    refused(
      answer,
      "wrong-platform",
      { expected: "darwin-x64", got: "darwin-arm64" },
      "Rosetta",
      "node -p process.arch",
    )
    refused(answer, "wrong-platform", {}, "npm install --os=darwin --cpu=x64")
  })

  test("musl finds the package for glibc", () => {
    const answer = load(laidOut({ packages: ["linux-x64-gnu"] }), { preset: pretendingMusl })
    refused(
      answer,
      "wrong-libc",
      { expected: "linux-x64-musl", got: "linux-x64-gnu" },
      "this system's C library is musl",
    )
    refused(answer, "wrong-libc", {}, "npm install --os=linux --cpu=x64 --libc=musl")
  })
})

describe("wherever it is loaded", () => {
  const folder = laidOut({ packages: [], dependencies: Object.keys(manifest.dependencies) })

  test("in a worker thread the error is the same, inside and outside", () => {
    const program = `
      const { Worker } = require("node:worker_threads")
      ${TOLD}
      const inside = 'try { require("syncline") } catch (error) { throw error }'
      new Worker(inside, { eval: true }).on("error", (error) => console.log(JSON.stringify({ ...told(error), kind: "SyncError" })))
    `
    refused(load(folder, { program }), "missing", { expected: platform }, name)
  })

  test("a second attempt fails as the first, and works once it is mended", () => {
    const mended = laidOut()
    const [from, to] = [addonOf(mended), join(mended, "away.node")]
    const program = `
      const { renameSync } = require("node:fs")
      const attempt = () => { try { require("syncline"); return "loaded" } catch (error) { return error.reason } }
      const [from, to] = ${JSON.stringify([from, to])}
      renameSync(from, to)
      const reasons = [attempt(), attempt()]
      renameSync(to, from)
      console.log(JSON.stringify([...reasons, attempt()]))
    `
    assert.deepEqual(load(mended, { program }), ["missing", "missing", "loaded"])
  })

  test("the command says it as it says other errors, and exits with 1", () => {
    const main = join(folder, "node_modules", "syncline", "dist", "cli", "main.js")
    const command = (...args) => spawnSync(process.execPath, [main, ...args], { cwd: folder, encoding: "utf8" })
    const text = command("ls", "app.db")
    assert.deepEqual([text.status, text.stdout], [1, ""])
    assert.match(text.stderr, /^error: Cannot load Syncline's native addon: .* \(ERR_ADDON_NOT_LOADED\)\n/)
    assert.ok(text.stderr.includes("npm install --include=optional"))
    assert.doesNotMatch(text.stderr, /^\s+at /m)
    const json = command("ls", "app.db", "--json")
    const { code, reason } = JSON.parse(json.stderr)
    assert.deepEqual([json.status, code, reason], [1, "ERR_ADDON_NOT_LOADED", "missing"])
  })
})

test("docs/errors.md has every reason, with what mends it", () => {
  const read = (file) => fs.readFileSync(join(root, file), "utf8")
  const [, union] = /^export type AddonFailure =((?:\s+\| "[\w-]+")+)/m.exec(read("lib/errors.ts"))
  const reasons = new Set(union.match(/[\w-]+/g))
  const [, section] = /^## When the addon cannot be loaded$(.*?)^## /ms.exec(read("docs/errors.md"))
  const documented = new Set([...section.matchAll(/^\| `(?!reason`)([a-z-]+)`/gm)].map(([, reason]) => reason))
  assert.deepEqual(documented, reasons)
})
