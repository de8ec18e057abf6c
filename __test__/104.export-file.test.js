"use strict"

// An export in a file: whole, on the disk and under its name, or not there at all.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { dirname, join } = require("node:path")
const { describe, test } = require("node:test")
const { gunzipSync } = require("node:zlib")
const { decompress } = require("fzstd")
const { kill, start, untilTold } = require("./children.js")
const { openNotes, temporaryFolder } = require("./notes.js")
const { coded } = require("./stores.js")

const READ = { "": (bytes) => bytes, ".gz": gunzipSync, ".zst": decompress }
const posix = { skip: process.platform === "win32" }

/** A store with more than one chunk of notes, in a folder of its own, and a path for its export. */
function scene(t, name = "notes.jsonl") {
  const folder = temporaryFolder()
  const { store, Written } = openNotes(join(folder, "app.db"), { packing: false })
  t.after(() => store.close())
  store.runAll(Array.from({ length: 1_000 }, (_, n) => [Written, { noteID: `n${n % 7}`, text: `${n} `.repeat(50) }]))
  return { folder, store, Written, target: join(folder, name) }
}
const left = (folder) => fs.readdirSync(folder).filter((name) => !name.startsWith("app.db"))

describe("toFile", () => {
  for (const [suffix, read] of Object.entries(READ)) {
    test(`writes what iterating gives${suffix && `, compressed, where the name ends in ${suffix}`}`, async (t) => {
      const { folder, store, target } = scene(t, `notes.jsonl${suffix}`)
      const told = []
      const totals = await store.export({ onProgress: (sum) => told.push(sum) }).toFile(target)
      assert.deepEqual(left(folder), [`notes.jsonl${suffix}`])
      const written = Buffer.from(read(fs.readFileSync(target))).toString()
      const changing = /"created":\d+|"sha256":"\w+"/g
      let text = ""
      for await (const chunk of store.export()) text += chunk
      assert.equal(written.replace(changing, ""), text.replace(changing, ""))
      assert.deepEqual(totals, { aggregates: 7, events: 1_000, gaps: 0, removed: 0, bytes: Buffer.byteLength(written) })
      assert.deepEqual(told.at(-1), totals)
    })
  }

  test("takes a path from where the process stands when it is called", async (t) => {
    const { folder, store } = scene(t)
    const before = process.cwd()
    process.chdir(folder)
    const written = store.export().toFile("here.jsonl")
    process.chdir(before)
    await written
    assert.deepEqual(left(folder), ["here.jsonl"])
  })

  test("makes files that their owner alone may read, before they have a name", posix, async (t) => {
    const { folder, store, target } = scene(t)
    const umask = process.umask(0)
    t.after(() => process.umask(umask))
    const modes = []
    await store
      .export({
        onProgress: () => modes.push(...left(folder).map((name) => fs.statSync(join(folder, name)).mode & 0o777)),
      })
      .toFile(target)
    assert.ok(modes.length > 0 && modes.every((mode) => mode === 0o600))
    assert.equal(fs.statSync(target).mode & 0o777, 0o600)
  })

  test("gives the name only to what is complete", async (t) => {
    const { folder, store, target } = scene(t)
    const names = new Set()
    await store.export({ onProgress: () => left(folder).forEach((name) => names.add(name)) }).toFile(target)
    assert.equal(names.size, 1)
    assert.match([...names][0], /^notes\.jsonl-export-[0-9a-f]{26}$/)
  })

  test("replaces nothing", async (t) => {
    const { folder, store, target } = scene(t)
    fs.writeFileSync(target, "mine")
    fs.mkdirSync(join(folder, "folder"))
    fs.symlinkSync("nowhere", join(folder, "link"))
    const before = fs.readdirSync(folder)
    for (const path of [target, folder, join(folder, "folder"), join(folder, "link"), store.db.name]) {
      await assert.rejects(store.export().toFile(path), coded("ERR_INVALID_ARGUMENT", /exists already/))
    }
    assert.deepEqual(fs.readdirSync(folder), before)
    assert.equal(fs.readFileSync(target, "utf8"), "mine")
  })

  test("nor what appears while it writes", async (t) => {
    const { folder, store, target } = scene(t)
    const written = store.export({ onProgress: () => fs.writeFileSync(target, "mine") }).toFile(target)
    await assert.rejects(written, coded("ERR_INVALID_ARGUMENT", /exists already/))
    assert.deepEqual(left(folder), ["notes.jsonl"])
    assert.equal(fs.readFileSync(target, "utf8"), "mine")
  })

  test("needs a path, in a folder that is there", async (t) => {
    const { folder, store } = scene(t)
    for (const path of [undefined, "", 7, "a\0b", "\ud800"]) {
      await assert.rejects(store.export().toFile(path), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const path of [join(folder, "missing/notes.jsonl"), join(store.db.name, "notes.jsonl")]) {
      const sqliteCode = "SQLITE_CANTOPEN"
      await assert.rejects(
        store.export().toFile(path),
        coded("ERR_SQLITE", /notes\.jsonl" cannot be written/, { sqliteCode }),
      )
    }
    assert.deepEqual(left(folder), [])
  })
})

describe("an export that does not come to its end leaves nothing", () => {
  for (const suffix of Object.keys(READ)) {
    test(`aborted${suffix && `, into ${suffix}`}`, async (t) => {
      const { folder, store, target } = scene(t, `notes.jsonl${suffix}`)
      const controller = new AbortController()
      const options = { signal: controller.signal, onProgress: () => controller.abort("enough") }
      const aborted = coded("ERR_ABORTED", /./, { cause: "enough" })
      await assert.rejects(store.export(options).toFile(target), aborted)
      await assert.rejects(store.export(options).toFile(target), aborted)
      assert.deepEqual(left(folder), [])
    })

    test(`what onProgress throws${suffix && `, into ${suffix}`}`, async (t) => {
      const { folder, store, target } = scene(t, `notes.jsonl${suffix}`)
      for (const thrown of [new Error("mine"), undefined]) {
        const onProgress = () => {
          throw thrown
        }
        const outcome = await store
          .export({ onProgress })
          .toFile(target)
          .then(
            () => "written",
            (error) => ({ error }),
          )
        assert.deepEqual(outcome, { error: thrown })
        assert.deepEqual(left(folder), [])
      }
    })

    test(`the store closed${suffix && `, into ${suffix}`}`, async (t) => {
      const { folder, store, target } = scene(t, `notes.jsonl${suffix}`)
      const written = store.export().toFile(target)
      store.close()
      await assert.rejects(written, coded("ERR_CLOSED"))
      assert.deepEqual(left(folder), [])
    })

    test(`a log that has lost events${suffix && `, into ${suffix}`}`, async (t) => {
      const { folder, store, target } = scene(t, `notes.jsonl${suffix}`)
      store.db.exec("DELETE FROM event WHERE position = 990")
      await assert.rejects(store.export().toFile(target), coded("ERR_CORRUPT", /has lost the events/))
      assert.deepEqual(left(folder), [])
    })
  }

  test("a disk that takes no more", posix, (t) => {
    const { folder, store, target } = scene(t)
    // A file may have 64 kB here, and a write past that fails instead of ending the process.
    const program = `
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      const { store } = openNotes(${JSON.stringify(store.db.name)}, { readonly: true, projectors: [] })
      store.export().toFile(${JSON.stringify(target)})
        .then(() => console.error("done"), (error) => console.error(error.code, error.cause?.code ?? error.message))
        .finally(() => store.close())
    `
    const limited = `trap '' XFSZ; ulimit -f 128; exec "$0" -e "$1"`
    const { stderr, status } = spawnSync("sh", ["-c", limited, process.execPath, program], { encoding: "utf8" })
    assert.equal(status, 0)
    // The second is what Node 20.3.0 can come to, whose writes do not always say that they were refused.
    assert.match(stderr, /^ERR_DISK_FULL (EFBIG|.* took 65536 of its \d+ bytes, and refused none)\n$/)
    assert.deepEqual(left(folder), [])
  })

  test("killed: no file under its name, and one that says what it is", async (t) => {
    const { folder, store, target } = scene(t)
    const program = `
      const wait = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
      store.export({ onProgress: () => { tell("half"); wait() } }).toFile(settings.target)
    `
    const child = start(program, { path: store.db.name, target })
    await untilTold(child, 1)
    await kill(child)
    assert.equal(fs.existsSync(target), false)
    assert.deepEqual(
      left(folder).map((name) => name.replace(/[0-9a-f]{26}$/, "…")),
      ["notes.jsonl-export-…"],
    )
    assert.equal(dirname(target), folder)
  })
})
