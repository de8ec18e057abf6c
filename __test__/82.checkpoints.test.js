"use strict"

const assert = require("node:assert/strict")
const { existsSync, statSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { noteLog, openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
const MIB = 2 ** 20
/** The writer checkpoints by itself at this size, before its next BEGIN. */
const HARD = 64 * MIB
const FRAME = 4096 + 24
let files = 0

/** Packing would leave little to checkpoint: the notes are alike. */
const UNPACKED = { packing: false }
const newPath = () => join(folder, `${files++}.db`)
const walBytes = (path) => statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0

/** Writes events of a quarter of a MiB until so many MiB have passed, and tells the largest size the WAL had on the way. */
function writeMiB(log, path, mib, between = () => {}) {
  const text = "x".repeat(MIB / 4)
  let largest = 0
  for (let n = 0; n < mib * 4; n++) {
    // A field that the projector leaves alone: projected, it would double what is written.
    log.store.run(log.Written, { noteID: `a${n % 10}`, body: text })
    largest = Math.max(largest, walBytes(path))
    between(n)
  }
  return largest
}

/** The thread and the writer may each find the other in its way; a busy writer is not kept from it for long. */
function assertBeginsAnew(log, path) {
  // The thread tries again after a pause of some seconds at most; the bound is a multiple, and nothing but a hang reaches it.
  for (const start = Date.now(); walBytes(path) > HARD;) {
    assert.ok(Date.now() - start < 60_000, `the WAL still has ${walBytes(path) / MIB} MiB`)
    writeMiB(log, path, 1)
  }
}

describe("checkpoints", () => {
  test("the WAL of a busy writer stays below its hard bound and one transaction", () => {
    const path = newPath()
    const log = openNotes(path, UNPACKED)
    const largest = writeMiB(log, path, 110)
    assert.ok(largest < HARD + 2 * MIB, `the WAL had ${largest / MIB} MiB`)
    log.store.close()
    assert.ok(statSync(path).size > 110 * MIB, "all of it reached the file")
  })

  test("the same with a second connection that reads and writes between", () => {
    const path = newPath()
    const log = openNotes(path, UNPACKED)
    const second = log.store.connect()
    const count = second.prepare("SELECT count(*) FROM event").pluck()
    const touch = second.prepare("UPDATE note SET writes = writes WHERE id = 'a0'")
    const largest = writeMiB(log, path, 90, (n) => {
      assert.equal(count.get(), n + 1)
      if (n % 10 === 0) touch.run()
    })
    assert.ok(largest < HARD + 2 * MIB, `the WAL had ${largest / MIB} MiB`)
    second.close()
    log.store.close()
  })

  test("a read transaction that is held lets the WAL grow, stops nobody, and the WAL begins anew after it", () => {
    const path = newPath()
    const log = openNotes(path, UNPACKED)
    writeMiB(log, path, 1)
    const second = log.store.connect()
    second.exec("BEGIN")
    assert.equal(second.prepare("SELECT count(*) FROM event").pluck().get(), 4)
    assert.ok(writeMiB(log, path, 80) > HARD, "frames that a reader needs stay")
    assert.equal(second.prepare("SELECT count(*) FROM event").pluck().get(), 4)
    second.exec("COMMIT")
    assertBeginsAnew(log, path)
    second.close()
    log.store.close()
  })

  test("the thread cuts a WAL that a reader made large once the reader is gone, without another write", async () => {
    const path = newPath()
    const log = openNotes(path, UNPACKED)
    const second = log.store.connect()
    second.exec("BEGIN")
    second.prepare("SELECT count(*) FROM event").get()
    assert.ok(writeMiB(log, path, 80) > HARD)
    second.exec("COMMIT")
    // It tries again after 30 s at the latest; the bound is twice that, and nothing but a hang reaches it.
    for (const start = Date.now(); walBytes(path) > 0;) {
      assert.ok(Date.now() - start < 60_000, `the WAL still has ${walBytes(path) / MIB} MiB`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    second.close()
    log.store.close()
  })

  test("one transaction may be larger than every bound", () => {
    const path = newPath()
    const log = openNotes(path, UNPACKED)
    log.store.transaction(() => writeMiB(log, path, 70))
    assert.equal(log.store.readAll({ limit: 1_000 }).length, 280)
    assertBeginsAnew(log, path)
    log.store.close()
  })

  test("the last connection to close removes the WAL, whichever it is", () => {
    const path = newPath()
    const [first, second] = [openNotes(path), openNotes(path)]
    const third = second.store.connect()
    first.store.run(first.Written, { noteID: "a" })
    for (const each of [first.store, second.store]) {
      each.close()
      assert.ok(walBytes(path) > 0)
    }
    third.close()
    for (const side of ["-wal", "-shm", "-journal"]) assert.equal(existsSync(path + side), false)
    const again = openNotes(path)
    assert.equal(again.store.sequence("a"), 0)
    again.store.close()
  })

  test("close while the checkpoint thread is at work waits for it, and removes the WAL", () => {
    for (let n = 0; n < 5; n++) {
      const path = newPath()
      const log = openNotes(path)
      writeMiB(log, path, 6)
      log.store.close()
      assert.equal(existsSync(`${path}-wal`), false)
    }
  })

  test("a store in memory has neither", () => {
    const { store, Written } = openNotes(":memory:")
    store.run(Written, { noteID: "a", text: "x".repeat(20 * MIB).slice(0, 10 * MIB) })
    assert.equal(store.db.pragma("journal_mode", { simple: true }), "memory")
    store.close()
  })
})

describe("WAL pages of a commit", () => {
  /** 200 bytes of JSON, over aggregates that are all known, in an order that jumps about: the workload of the benchmarks. */
  function payloads(count, aggregates) {
    let random = 1
    return Array.from({ length: count }, (_, n) => {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0
      const noteID = `ses_${String(Math.floor((random / 2 ** 32) * aggregates)).padStart(26, "0")}`
      const data = { noteID, title: `Session ${n}`, text: "" }
      data.text = "x".repeat(200 - JSON.stringify(data).length)
      assert.equal(JSON.stringify(data).length, 200)
      return data
    })
  }

  for (const kind of ["a JavaScript projector", "a SQL projector"]) {
    test(`are at most 4.4 with ${kind} of one upsert`, () => {
      const path = newPath()
      const { registry, Written, write, writeInSql } = noteLog()
      const projector = kind === "a SQL projector" ? writeInSql : write
      const { store } = openNotes(path, { registry, projectors: [projector] })
      const all = payloads(12_000, 1_000)
      store.runAll(all.slice(0, 11_000).map((data) => [Written, data]))
      store.db.pragma("wal_checkpoint(TRUNCATE)")
      assert.equal(walBytes(path), 0)
      const measured = all.slice(11_000, 11_800)
      for (const data of measured) store.run(Written, data)
      const pages = (walBytes(path) - 32) / FRAME
      assert.ok(Number.isInteger(pages), "the WAL has not begun anew")
      assert.ok(pages / measured.length <= 4.4, `${pages / measured.length} pages a commit`)
      store.close()
    })
  }
})
