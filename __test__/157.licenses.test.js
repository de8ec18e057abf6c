"use strict"

// The licences of what is compiled into the addon: listed for the crates of Cargo.lock, and part of every platform package.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, describe, test } = require("node:test")

const root = join(__dirname, "..")
const listed = readFileSync(join(root, "THIRD_PARTY_LICENSES"), "utf8")
// A machine that only tests a binary made elsewhere has no cargo, and no sources of crates.
const hasCargo = spawnSync("cargo", ["--version"]).status === 0

describe("THIRD_PARTY_LICENSES", { skip: !hasCargo && "cargo is not here" }, () => {
  const folder = mkdtempSync(join(tmpdir(), "syncline-licenses-"))
  after(() => rmSync(folder, { recursive: true, force: true }))

  test("lists the crates of this platform's binary, in the versions of Cargo.lock, each with its notice", () => {
    assert.deepEqual(checked(listed), { status: 0, says: "" })
  })

  const forgeries = [
    ["a crate that is missing", /^- rusqlite .*\n/m, "", /rusqlite \S+ is missing/],
    ["another version", /^(- zstd) [^:]+/m, "$1 0.0.1", /zstd 0\.0\.1 is not in Cargo\.lock, zstd \S+ is missing/],
    ["a notice that is missing", /^Copyright .*rusqlite developers$/m, "", /the notice of rusqlite \S+ is missing/],
  ]
  for (const [what, pattern, replacement, complaint] of forgeries) {
    test(`${what} is found, and the command that mends it named`, () => {
      assert.match(listed, pattern)
      const { status, says } = checked(listed.replace(pattern, replacement))
      assert.equal(status, 1)
      assert.match(says, complaint)
      assert.match(says, /Run: node scripts\/licenses\.mjs/)
    })
  }

  function checked(text) {
    const file = join(folder, "THIRD_PARTY_LICENSES")
    writeFileSync(file, text)
    const command = [join(root, "scripts/licenses.mjs"), "--check", file]
    const { status, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" })
    return { status, says: stderr }
  }
})

describe("the texts", () => {
  test("are there for SQLite, Zstandard and Rust, and small enough for each platform package", () => {
    assert.match(listed, /contains SQLite \d+\.\d+\.\d+, which is in the public domain/)
    assert.match(listed, /contains Zstandard \d/)
    assert.match(listed, /Copyright \(c\) Meta Platforms/)
    assert.match(listed, /Rust's standard library:\nCopyright \(c\) The Rust Project Developers/)
    assert.ok(listed.length < 30_000, `${listed.length} bytes`)
  })

  test("go into every platform package", () => {
    for (const platform of readdirSync(join(root, "npm"))) {
      const { files } = JSON.parse(readFileSync(join(root, "npm", platform, "package.json"), "utf8"))
      assert.ok(files.includes("THIRD_PARTY_LICENSES"), platform)
    }
  })
})
