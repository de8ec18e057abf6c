"use strict"

// Building from source, where Rust or a C compiler is missing or too old: said before anything is built, with what helps.
// What is "installed" here are scripts of a few lines, in a path that has nothing else.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { chmodSync, mkdirSync, readFileSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { pathToFileURL } = require("node:url")
const { describe, test } = require("node:test")
const { temporaryFolder } = require("./notes")

const root = join(__dirname, "..")
const folder = temporaryFolder()
const needed = /^rust-version = "(\d+)\.(\d+)"$/m.exec(readFileSync(join(root, "Cargo.toml"), "utf8"))
const [major, minor] = needed.slice(1).map(Number)
const skip = process.platform === "win32" ? "a script of the shell is no program there" : false
let paths = 0

/** Checks the compilers of a path with these programs alone, each of which prints a line; the message, or undefined. */
function complaint(programs) {
  const path = join(folder, String(paths++))
  mkdirSync(path)
  for (const [name, line] of Object.entries(programs)) {
    writeFileSync(join(path, name), `#!/bin/sh\necho '${line}'\n`)
    chmodSync(join(path, name), 0o755)
  }
  const setup = pathToFileURL(join(root, "scripts/setup.mjs")).href
  const script = `import { checkCompilers } from ${JSON.stringify(setup)}
    await checkCompilers().catch((error) => { console.log(error.message) })`
  const env = { ...process.env, PATH: path }
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", script], {
    env,
    encoding: "utf8",
  })
  assert.deepEqual({ status, stderr }, { status: 0, stderr: "" })
  return stdout.trimEnd() || undefined
}

const rust = (version) => ({ rustc: `rustc ${version} (0a1b2c3d4 2026-01-01)`, cargo: `cargo ${version}` })
const cc = { cc: "cc (GCC) 12.2.0" }

describe("before the addon is built", { skip }, () => {
  test("the Rust that Cargo.toml names, a later one, and a nightly one are enough", () => {
    for (const version of [
      `${major}.${minor}.0`,
      `${major}.${minor + 1}.1`,
      `${major}.${minor + 100}.0-nightly`,
      "2.0.0",
    ]) {
      assert.equal(complaint({ ...rust(version), ...cc }), undefined, version)
    }
  })

  test("an older Rust is refused: what is needed, what was found, and how to get it", () => {
    for (const version of [`${major}.${minor - 1}.1`, `${major}.9.0`, "0.99.0"]) {
      const message = complaint({ ...rust(version), ...cc })
      assert.ok(message?.includes(`Rust ${major}.${minor} or later`), message)
      assert.ok(message.includes(`rustc ${version} `), message)
      assert.ok(message.includes("rustup update"), message)
    }
  })

  test("no Rust, or one without cargo, is refused with where to get it", () => {
    const { rustc } = rust(`${major}.${minor}.0`)
    for (const programs of [cc, { ...cc, rustc }]) {
      assert.match(
        complaint(programs),
        /Rust \d\.\d+ or later and a C compiler, and no Rust was found: .*https:\/\/rustup\.rs/,
      )
    }
  })

  test("no C compiler is refused with the packages that have one", () => {
    const install = process.platform === "linux" ? /apt-get install gcc libc6-dev/ : /install/
    const message = complaint(rust(`${major}.${minor}.0`))
    assert.match(message, /and a C compiler, and no cc was found: /)
    assert.match(message, install)
  })
})
