"use strict"

const assert = require("node:assert/strict")
const { rmSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { PROCESSES, contenders, percentiles } = require("./contenders")
const { openNotes, temporaryFolder, written } = require("./notes")
const { olderTables } = require("./older-tables")
const { extent, figures } = require("./soak")

const folder = temporaryFolder()
let files = 0
const newPath = () => join(folder, `${files++}.db`)
const upTo = (count) => Array.from({ length: count }, (_, n) => n)

describe("many processes that open one file at the same moment", () => {
  const together = contenders()

  /** All open the file, and write; one of them has made the application's tables. */
  async function openTogether(path, options = {}) {
    const done = await together(upTo(PROCESSES).map(() => ({ work: "open", path, options })))
    assert.equal(done.filter(({ migrated }) => migrated).length, 1)
    const { store } = openNotes(path)
    const told = done.flatMap((one) => one.told)
    assert.deepEqual(
      told.map(([, seq]) => seq).toSorted((a, b) => a - b),
      upTo(PROCESSES),
    )
    for (const [noteID, seq, id] of told) assert.equal(store.get(noteID, seq).id, id)
    assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
    store.close()
    return done
  }

  function report(name, rounds, done) {
    const [median, max] = percentiles(
      done.map(({ lasted }) => lasted),
      0.5,
      1,
    )
    figures(`first open, ${name}`, { processes: PROCESSES, rounds, median: `${median} ms`, max: `${max} ms` })
  }

  test("a path where there is nothing: all succeed, and migrate runs once after the other", async () => {
    const done = []
    const rounds = extent(3, 50)
    for (let round = 0; round < rounds; round++) {
      const path = newPath()
      done.push(...(await openTogether(path)))
      rmSync(path)
    }
    report("nothing there", rounds, done)
  })

  test("older tables, which all adopt: all succeed, and each event is there once", async () => {
    const done = []
    const rounds = extent(1, 20)
    for (let round = 0; round < rounds; round++) {
      const path = newPath()
      const older = upTo(40).flatMap((n) =>
        upTo(60).map((seq) => written(`older ${n}`, seq, { id: `evt_${n}_${seq}` })),
      )
      olderTables(path, older)
      done.push(...(await openTogether(path, { adopt: true })))
      const { store } = openNotes(path)
      assert.deepEqual(
        upTo(40).map((n) => store.read(`older ${n}`).map(({ id, seq }) => [id, seq])),
        upTo(40).map((n) => upTo(60).map((seq) => [`evt_${n}_${seq}`, seq])),
      )
      store.close()
    }
    report("adopting", rounds, done)
  })
})
