"use strict"

// What every addon for Linux that is published has to be, and that scripts/check-binary.mjs finds the ones that are not.

const assert = require("node:assert/strict")
const { execFileSync, spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { tmpdir } = require("node:os")
const path = require("node:path")
const { after, describe, test } = require("node:test")

const root = path.resolve(__dirname, "..")
const folder = fs.mkdtempSync(path.join(tmpdir(), "syncline-binary-"))
const built = fs.readdirSync(path.join(root, "native")).find((name) => /\.linux-.*\.node$/.test(name))
const skip = built === undefined && "no addon for Linux is built here"

after(() => fs.rmSync(folder, { recursive: true, force: true }))

function check(file, ...options) {
  const args = [path.join(root, "scripts", "check-binary.mjs"), file, ...options]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" })
  return { status, stdout, stderr }
}

/** A copy of the addon that `change` has changed. */
function changed(name, change) {
  const file = path.join(folder, name)
  fs.writeFileSync(file, change(fs.readFileSync(path.join(root, "native", built))))
  return file
}

describe("the addon", { skip }, () => {
  test("is stripped, made for its platform, and within its bound", () => {
    const { status, stdout, stderr } = check(path.join(root, "native", built))
    assert.equal(stderr, "")
    assert.equal(status, 0)
    assert.match(stdout, /^syncline\.linux-\S+: \d+ bytes, (x64|arm64), (no glibc|glibc 2\.\d+)$/m)
    console.log(`figures binary: ${stdout.trim()}`)
  })
})

describe("the check refuses", { skip }, () => {
  test("one that is too large", () => {
    const large = changed(built, (bytes) => Buffer.concat([bytes, Buffer.alloc(4_000_000 - bytes.length)]))
    assert.match(check(large).stderr, /has 4000000 bytes, and must have fewer than 4000000/)
    assert.equal(check(large).status, 1)
  })

  test("one that asks for a newer glibc, with the command that builds one that does not", () => {
    const { status, stderr } = check(path.join(root, "native", built), "--glibc", "2.1")
    assert.equal(status, 1)
    assert.match(stderr, /needs glibc 2\.\d+, and should load with 2\.1: build it with scripts\/build-target\.mjs/)
  })

  test("one that asks for any, where it is for musl", () => {
    assert.match(check(path.join(root, "native", built), "--glibc", "none").stderr, /needs glibc, and should need none/)
  })

  test("one whose name is another processor's", () => {
    const other = built.includes("x64") ? "arm64" : "x64"
    const renamed = changed(`syncline.linux-${other}-gnu.node`, (bytes) => bytes)
    assert.match(check(renamed).stderr, /is made for (x64|arm64)/)
  })

  test("one that has its symbols", { skip: !hasCompiler() && "no C compiler" }, () => {
    const [source, file] = [path.join(folder, "empty.c"), path.join(folder, "unstripped.node")]
    fs.writeFileSync(source, "int empty(void) { return 0; }\n")
    execFileSync("cc", ["-shared", "-o", file, source])
    assert.match(check(file).stderr, /still has its symbol table/)
  })

  test("one that was cut off, what is no addon at all, and what is not there", () => {
    const cut = changed("cut.node", (bytes) => bytes.subarray(0, 100_000))
    assert.match(check(cut).stderr, /is cut off or damaged/)
    const text = changed("text.node", () => Buffer.from("not found"))
    assert.match(check(text).stderr, /is no addon for Linux/)
    assert.match(check(path.join(folder, "missing.node")).stderr, /cannot be read: ENOENT/)
    assert.match(check("a", "b").stderr, /^Usage:/)
  })

  function hasCompiler() {
    return spawnSync("cc", ["--version"]).error === undefined
  }
})

test("only the targets of package.json are built", () => {
  const args = [path.join(root, "scripts", "build-target.mjs"), "riscv64gc-unknown-linux-gnu"]
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" })
  assert.equal(status, 1)
  assert.match(
    stderr,
    /^No addon is published for riscv64gc-unknown-linux-gnu\. There are:\nx86_64-unknown-linux-gnu\n/,
  )
})
