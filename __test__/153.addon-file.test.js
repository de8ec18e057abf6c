"use strict"

// What lies where the addon should: files that are none, are cut short, or are for others; and what the environment names.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const { basename, join } = require("node:path")
const { describe, test } = require("node:test")
const { addonOf, binary, emptyFolder, laidOut, load, platform, refused, root, version } = require("./laid-out.js")

const REINSTALL = "rm -rf node_modules && npm install"
const whole = fs.readFileSync(binary)
const isElf = process.platform === "linux"
const here = `${process.platform}/${process.arch}`

/** Loads with a file in the addon's place, which is an edited copy of it, or this content. */
function loadWith(content) {
  const edited = typeof content === "function" ? Buffer.from(whole) : content
  if (typeof content === "function") content(edited)
  const folder = laidOut({ content: edited })
  return { answer: load(folder), path: addonOf(folder) }
}

describe("a file that was cut short", () => {
  for (const length of [0, 3, 100, 5_000, Math.floor(whole.length / 2), whole.length - 1]) {
    test(`after ${length} bytes is refused before the system maps it, which can end the process`, () => {
      const { answer, path } = loadWith(whole.subarray(0, length))
      refused(answer, "damaged", { path }, path, REINSTALL)
    })
  }
})

describe("a file of another kind", () => {
  test("is refused: text, as where large files were not fetched", () => {
    const { answer, path } = loadWith("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 4000000\n")
    refused(answer, "damaged", { path }, "no machine code", REINSTALL)
  })

  test("is refused: Linux's for arm64", { skip: !isElf }, () => {
    const other = process.arch === "arm64" ? ["x64", 62] : ["arm64", 183]
    const { answer, path } = loadWith((bytes) => bytes.writeUInt16LE(other[1], 18))
    refused(answer, "wrong-platform", { path, expected: here, got: `linux/${other[0]}` }, REINSTALL)
  })

  test("is refused: one of 32 bits", { skip: !isElf }, () => {
    const { answer, path } = loadWith((bytes) => (bytes[4] = 1))
    refused(answer, "wrong-platform", { path, expected: here, got: "another platform" }, REINSTALL)
  })

  for (const [what, got, head] of [
    ["macOS's for arm64", "darwin/arm64", machO(0x0100000c)],
    ["macOS's for both", "darwin/x64+arm64", universal(0x01000007, 0x0100000c)],
    ["Windows's for arm64", "win32/arm64", portableExecutable(0xaa64)],
  ]) {
    test(`is refused: ${what}`, { skip: got.includes(here) && "it is this platform's" }, () => {
      const { answer, path } = loadWith(head)
      refused(answer, "wrong-platform", { path, expected: here, got }, REINSTALL)
    })
  }

  test("is refused: one that needs a newer glibc", { skip: !platform.endsWith("gnu") }, () => {
    // The version that a symbol is wanted of, by name: here one that no system has.
    const { answer, path } = loadWith((bytes) => {
      const at = bytes.indexOf(/GLIBC_2\.1\d\0/.exec(bytes.toString("latin1"))[0])
      bytes.write("GLIBC_2.99", at)
    })
    const { glibcVersionRuntime } = process.report.getReport().header
    refused(answer, "glibc-too-old", { path, expected: "2.99", got: glibcVersionRuntime, caused: true }, "2.17")
    refused(answer, "glibc-too-old", {}, `npm install --save-optional syncline-${platform}@${version}`)
  })

  function machO(machine) {
    const head = Buffer.alloc(64)
    head.writeUInt32LE(0xfeedfacf, 0)
    head.writeUInt32LE(machine, 4)
    return head
  }

  function universal(...machines) {
    const head = Buffer.alloc(64)
    head.writeUInt32BE(0xcafebabe, 0)
    head.writeUInt32BE(machines.length, 4)
    machines.forEach((machine, index) => head.writeUInt32BE(machine, 8 + index * 20))
    return head
  }

  function portableExecutable(machine) {
    const head = Buffer.alloc(128)
    head.write("MZ", 0)
    head.writeUInt32LE(64, 60)
    head.write("PE\0\0", 64)
    head.writeUInt16LE(machine, 68)
    return head
  }
})

describe("the addon's version", () => {
  test("must be the JavaScript's: the root was updated, and the platform's package was not", () => {
    const folder = laidOut({ manifest: { version: "7.8.9" } })
    const answer = load(folder)
    refused(answer, "version-mismatch", { expected: "7.8.9", got: version, path: addonOf(folder) }, "7.8.9", version)
    refused(answer, "version-mismatch", {}, REINSTALL, `npm install --save-optional syncline-${platform}@7.8.9`)
  })

  test("is that of the crate, which is that of the package", () => {
    const [, crate] = /^version = "([^"]+)"/m.exec(fs.readFileSync(join(root, "Cargo.toml"), "utf8"))
    assert.equal(crate, version)
  })
})

describe("SYNCLINE_ADDON_PATH", () => {
  const named = (folder, path) => load(folder, { env: { SYNCLINE_ADDON_PATH: path } })
  const without = process.platform === "win32" ? "set SYNCLINE_ADDON_PATH=" : "unset SYNCLINE_ADDON_PATH"
  const installed = laidOut()
  const bare = laidOut({ packages: [] })

  test("names the binary, absolute or relative to the working directory, whatever its ending", () => {
    fs.copyFileSync(binary, join(bare, "built.so"))
    assert.deepEqual(named(bare, binary), { loaded: true })
    assert.deepEqual(named(bare, "built.so"), { loaded: true })
  })

  test("empty is as if it were not set", () => {
    assert.deepEqual(named(installed, ""), { loaded: true })
  })

  test("that leads nowhere is refused, though an addon is installed", () => {
    const path = join(installed, "not-there.node")
    refused(named(installed, "not-there.node"), "missing", { path }, "SYNCLINE_ADDON_PATH", path, without)
    refused(named(installed, installed), "damaged", { path: installed }, "SYNCLINE_ADDON_PATH", "is a folder", without)
  })

  test("that leads to a file cut short, or to one of another program, is refused", () => {
    const path = join(installed, "cut.node")
    fs.writeFileSync(path, whole.subarray(0, 100_000))
    refused(named(installed, path), "damaged", { path }, "SYNCLINE_ADDON_PATH", without)
    refused(named(installed, otherAddon()), "foreign", { path: otherAddon() }, "SYNCLINE_ADDON_PATH", without)
  })

  test("goes before the variable of all packages made with napi", () => {
    const env = { SYNCLINE_ADDON_PATH: binary, NAPI_RS_NATIVE_LIBRARY_PATH: otherAddon() }
    assert.deepEqual(load(bare, { env }), { loaded: true })
  })

  test("to another version's binary is refused", () => {
    const folder = laidOut({ packages: [], manifest: { version: "7.8.9" } })
    refused(named(folder, binary), "version-mismatch", { path: binary }, "SYNCLINE_ADDON_PATH", without)
  })
})

describe("the variables of every package made with napi", () => {
  const installed = laidOut()

  test("NAPI_RS_NATIVE_LIBRARY_PATH that names another package's addon is noticed", () => {
    const path = otherAddon()
    const answer = load(installed, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: path } })
    refused(answer, "foreign", { path }, "NAPI_RS_NATIVE_LIBRARY_PATH", "unset", "SYNCLINE_ADDON_PATH")
  })

  test("NAPI_RS_NATIVE_LIBRARY_PATH that leads nowhere is named", () => {
    const gone = join(emptyFolder(), "gone.node")
    for (const path of [gone, "no-such-package"]) {
      const answer = load(installed, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: path } })
      refused(answer, "missing", {}, path, "NAPI_RS_NATIVE_LIBRARY_PATH")
    }
  })

  test("NAPI_RS_NATIVE_LIBRARY_PATH may name Syncline's own", () => {
    const bare = laidOut({ packages: [] })
    assert.deepEqual(load(bare, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: binary } }), { loaded: true })
  })

  test("NAPI_RS_FORCE_WASI and NAPI_RS_WASI_FLAVOR ask for what there is not", () => {
    for (const [name, value] of [
      ["NAPI_RS_FORCE_WASI", "error"],
      ["NAPI_RS_WASI_FLAVOR", "wasm32-wasi"],
      ["NAPI_RS_WASI_FLAVOR", "another"],
    ]) {
      refused(load(installed, { env: { [name]: value } }), "refused", {}, name, "WebAssembly")
    }
    assert.deepEqual(load(installed, { env: { NAPI_RS_FORCE_WASI: "true" } }), { loaded: true })
  })
})

/** One that is here in any case: a tool of this repository is made with napi, too. */
function otherAddon() {
  const folder = join(fs.realpathSync(join(root, "node_modules")), "@oxlint")
  const found = fs.readdirSync(folder, { recursive: true }).find((file) => file.endsWith(".node"))
  assert.ok(found, basename(folder))
  return join(folder, found)
}
