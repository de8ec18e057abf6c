"use strict"

// A copy of the file while it is in use: of one moment, sound, and under its name only once it is complete.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} = require("node:fs")
const { basename, dirname, join } = require("node:path")
const { describe, test } = require("node:test")
const { kill, start, untilTold } = require("./children.js")
const { assertSound, coded, openNotes, temporaryFolder } = require("./notes.js")

/** More than is copied between two reports, however fast the disk is. */
const LARGE = { notes: 40, bytes: 1_000_000 }

/** A store in a folder of its own, with so many notes of so many bytes, and a path for its copy. */
function scene(t, { notes = 10, bytes = 10, path, ...options } = {}) {
  const folder = temporaryFolder()
  const opened = openNotes(path ?? join(folder, "app.db"), { packing: false, ...options })
  t.after(() => opened.store.close())
  const { store, Written } = opened
  store.runAll(Array.from({ length: notes }, (_, n) => [Written, { noteID: `n${n % 7}`, text: "x".repeat(bytes) }]))
  return { ...opened, folder, target: join(folder, "copy.db") }
}

/** Opens a copy, looks that all in it fits together, and returns the number of its events. */
function assertCopy(path, told = []) {
  assert.deepEqual(
    readdirSync(dirname(path)).filter((name) => name.startsWith(basename(path))),
    [basename(path)],
  )
  const { store } = openNotes(path)
  assertSound(store, told)
  const { store: again } = openNotes(":memory:")
  const rows = ({ db }) => db.prepare("SELECT * FROM note ORDER BY id").all()
  let events = 0
  for (const { aggregateID } of store.aggregates()) {
    const history = store.read(aggregateID)
    events += history.length
    again.replayAll(history)
  }
  assert.deepEqual(rows(store), rows(again))
  store.close()
  again.close()
  return events
}

/** What is in a folder beside the store's own files. */
const left = (folder) => readdirSync(folder).filter((name) => !name.startsWith("app.db"))

describe("a copy", () => {
  test("is a store with everything that was committed, and is told of", async (t) => {
    const { store, Written, target } = scene(t, { notes: 50 })
    store.db.exec("CREATE TABLE mine (x); INSERT INTO mine VALUES (7)")
    const result = await store.backup(target)
    assert.deepEqual(result, { bytes: statSync(target).size, pages: store.db.pragma("page_count", { simple: true }) })
    assert.equal(assertCopy(target), 50)
    const copy = openNotes(target)
    assert.equal(copy.store.db.prepare("SELECT x FROM mine").pluck().get(), 7)
    assert.equal(copy.store.run(copy.Written, { noteID: "n0" }).seq, store.sequence("n0") + 1)
    copy.store.close()
    assert.equal(store.run(Written, { noteID: "n1" }).seq, store.read("n1").length - 1)
  })

  test("of packed history is one of packed history", async (t) => {
    const { store, target } = scene(t, { notes: 3_000 })
    await store.maintain()
    await store.backup(target)
    assert.equal(assertCopy(target), 3_000)
  })

  test("is as of one moment, while another process writes at full speed", async (t) => {
    const { store, folder, target } = scene(t, { notes: 2_000, bytes: 2_000 })
    const runs = { path: store.db.name, runs: 1e6, aggregates: 20, textBytes: 300 }
    const writer = start("note-writer.js", { ...runs, writer: "w" })
    await untilTold(writer, 50)
    for (const round of [1, 2]) {
      const path = `${target}.${round}`
      const told = writer.told.slice()
      await store.backup(path)
      const after = writer.told.length
      assert.ok(after > told.length, "it went on meanwhile")
      const events = assertCopy(path, told)
      assert.ok(events >= 2_000 + told.length)
    }
    await kill(writer)
    assert.equal(left(folder).length, 2)
  })

  test("has nothing of what is written while it is made, and keeps nobody from writing", async (t) => {
    const { store, Written, target } = scene(t, LARGE)
    const progress = []
    const result = await store.backup(target, {
      onProgress: (report) => {
        progress.push(report)
        store.run(Written, { noteID: "late", text: "y".repeat(9_000) })
      },
    })
    assert.ok(progress.length > 1, "one call did all of it")
    progress.reduce(
      (before, report) => {
        assert.deepEqual(Object.keys(report), ["bytes", "pages", "totalPages"])
        assert.ok(report.pages > before.pages && report.totalPages === progress[0].totalPages)
        return report
      },
      { pages: 0 },
    )
    const { pages, bytes } = progress.at(-1)
    assert.deepEqual(result, { bytes, pages })
    assert.equal(store.sequence("late"), progress.length - 1)
    assert.equal(assertCopy(target), LARGE.notes)
  })

  test("has what was committed, not what a transaction has done so far", async (t) => {
    const { store, Written, target } = scene(t)
    let copied
    store.transaction(() => {
      store.run(Written, { noteID: "open" })
      copied = store.backup(target)
    })
    await copied
    assert.ok(assertCopy(target) >= 10)
  })

  test("is made of a database in memory, but not inside a transaction", async (t) => {
    const { store, Written, target } = scene(t, { path: ":memory:", notes: 500 })
    const progress = []
    const result = await store.backup(target, { onProgress: (report) => progress.push(report) })
    assert.equal(result.bytes, statSync(target).size)
    assert.equal(progress.length, 1)
    assert.equal(assertCopy(target), 500)
    let refused
    store.transaction(() => {
      refused = assert.rejects(store.backup(`${target}2`), coded("ERR_IN_TRANSACTION"))
    })
    await refused
    assert.equal(existsSync(`${target}2`), false)
    assert.equal(store.run(Written, { noteID: "n0" }).seq, store.read("n0").length - 1)
  })

  test("may be read by those who may read the database", { skip: process.platform === "win32" }, async (t) => {
    const { store, target } = scene(t)
    for (const mode of [0o600, 0o640]) {
      chmodSync(store.db.name, mode)
      await store.backup(`${target}${mode}`)
      assert.equal(statSync(`${target}${mode}`).mode & 0o777, mode)
    }
  })

  test("is made of a store that only reads", async (t) => {
    const { store, target } = scene(t)
    const reader = openNotes(store.db.name, { readonly: true, projectors: [] })
    t.after(() => reader.store.close())
    await reader.store.backup(target)
    assert.equal(assertCopy(target), 10)
  })

  test("leaves the store's WAL as it was: it is cut once nobody reads", async (t) => {
    const { store, target } = scene(t, { notes: 2_000, bytes: 1_000 })
    await store.backup(target)
    assert.equal((await store.maintain()).truncated, true)
  })
})

describe("a target", () => {
  test("that is there already stays as it is", async (t) => {
    const { store, folder, target } = scene(t)
    writeFileSync(target, "mine")
    mkdirSync(join(folder, "folder"))
    symlinkSync("nowhere", join(folder, "link"))
    copyFileSync(target, join(folder, "old.db-wal"))
    const before = readdirSync(folder)
    for (const path of [
      target,
      folder,
      join(folder, "folder"),
      join(folder, "link"),
      join(folder, "old.db"),
      store.db.name,
    ]) {
      await assert.rejects(store.backup(path), coded("ERR_INVALID_ARGUMENT", { message: /exists already/ }))
    }
    assert.deepEqual(readdirSync(folder), before)
  })

  test("may not be a name that SQLite uses beside the database", async (t) => {
    const { store } = scene(t)
    await assert.rejects(store.backup(`${store.db.name}-journal`), coded("ERR_INVALID_ARGUMENT"))
  })

  test("must be a path, in a folder that is there", async (t) => {
    const { store, folder, target } = scene(t)
    for (const path of [undefined, "", 7, ":memory:", "a\0b"]) {
      await assert.rejects(store.backup(path), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const options of [{ pages: 7 }, { onProgress: 1 }, { signal: {} }]) {
      await assert.rejects(store.backup(target, options), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const path of [join(folder, "missing/copy.db"), join(store.db.name, "copy.db")]) {
      await assert.rejects(
        store.backup(path),
        coded("ERR_SQLITE", { sqliteCode: "SQLITE_CANTOPEN", message: /copy\.db/ }),
      )
    }
    assert.deepEqual(left(folder), [])
  })

  test("that appears while the copy is made is not replaced", async (t) => {
    const { store, folder, target } = scene(t, LARGE)
    const copied = store.backup(target, { onProgress: () => writeFileSync(target, "mine") })
    await assert.rejects(copied, coded("ERR_INVALID_ARGUMENT"))
    assert.deepEqual(left(folder), ["copy.db"])
    assert.equal(statSync(target).size, 4)
  })
})

describe("a backup that does not come to its end leaves nothing", () => {
  test("aborted, or with a callback that throws", async (t) => {
    const { store, folder, target } = scene(t, LARGE)
    const controller = new AbortController()
    const onProgress = ({ pages, totalPages }) => {
      assert.ok(pages < totalPages)
      assert.equal(left(folder).length, 1)
      assert.match(left(folder)[0], /^copy\.db-backup-\w{26}$/)
      controller.abort("enough")
    }
    const aborted = store.backup(target, { signal: controller.signal, onProgress })
    await assert.rejects(aborted, coded("ERR_ABORTED", { cause: "enough" }))
    assert.deepEqual(left(folder), [])
    await assert.rejects(store.backup(target, { signal: AbortSignal.abort() }), coded("ERR_ABORTED"))
    const thrown = new Error("mine")
    const onThrow = () => {
      throw thrown
    }
    await assert.rejects(store.backup(target, { onProgress: onThrow }), (error) => error === thrown)
    assert.deepEqual(left(folder), [])
  })

  test("the store closed meanwhile", async (t) => {
    const { store, folder, target } = scene(t, LARGE)
    await assert.rejects(store.backup(target, { onProgress: () => store.close() }), coded("ERR_CLOSED"))
    assert.deepEqual(left(folder), [])
    assert.deepEqual(readdirSync(folder), ["app.db"], "the last connection has cleaned up")
    await assert.rejects(store.backup(target), coded("ERR_CLOSED"))
  })

  test("a disk that takes no more", { skip: process.platform === "win32" }, (t) => {
    const { store, folder, target } = scene(t, { notes: 1_000, bytes: 4_000 })
    // A file may have 512 kB here, and a write past that fails instead of ending the process.
    const program = `
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      const { store } = openNotes(${JSON.stringify(store.db.name)}, { readonly: true, projectors: [] })
      store.backup(${JSON.stringify(target)}).then(() => console.error("done"), (error) => console.error(error.code))
        .finally(() => store.close())
    `
    const limited = `trap '' XFSZ; ulimit -f 1024; exec "$0" -e "$1"`
    const { stderr, status } = spawnSync("sh", ["-c", limited, process.execPath, program], { encoding: "utf8" })
    assert.deepEqual([stderr.trim(), status], ["ERR_DISK_FULL", 0])
    assert.deepEqual(left(folder), [])
  })

  test("killed: no file under its name, and one that says what it is", async (t) => {
    const { store, folder, target } = scene(t, LARGE)
    const program = `
      store.backup(settings.target, { onProgress: () => { tell("half"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) } })
    `
    const child = start(program, { path: store.db.name, target })
    await untilTold(child, 1)
    await kill(child)
    assert.equal(existsSync(target), false)
    assert.ok(left(folder).every((name) => /^copy\.db-backup-\w{26}$/.test(name)))
  })
})
