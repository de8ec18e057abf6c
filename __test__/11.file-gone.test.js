"use strict"

// A file that is moved, deleted or replaced while a store has it open: nothing is written that nobody would find, nothing of
// another file is touched, and once it is back the store goes on.

const assert = require("node:assert/strict")
const {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
} = require("node:fs")
const { basename, join } = require("node:path")
const { describe, test } = require("node:test")
const { setTimeout: sleep } = require("node:timers/promises")
const { kill, start, untilTold } = require("./children")
const { gone, kept, newPath, sides, windows } = require("./file-scenes")
const { dump, openNotes, written } = require("./notes")

/** What writes; each must be refused while the file is gone. */
const writes = {
  run: ({ write }) => write("a"),
  runAsync: ({ store, Written }) => store.runAsync(Written, { noteID: "a" }),
  runAll: ({ store, Written }) => store.runAll([[Written, { noteID: "a" }]]),
  transaction: ({ store }) => store.transaction(() => 0),
  replay: ({ store }) => store.replay(written("new", 0)),
  claim: ({ store }) => store.claim("a", "me"),
  remove: ({ store }) => store.remove("a"),
  exec: ({ store }) => store.db.exec("DELETE FROM note"),
  statement: ({ store }) => store.db.prepare("DELETE FROM note").run(),
  iterated: ({ store }) => [...store.db.prepare("DELETE FROM note RETURNING id").iterate()],
  begin: ({ store }) => store.db.exec("BEGIN IMMEDIATE; DELETE FROM note; COMMIT"),
  "begin, deferred": ({ store, write }) => store.db.transaction(() => write("a")).deferred(),
  "raw, deferred": ({ store }) => inRaw(store, "BEGIN", "COMMIT"),
  "raw savepoint": ({ store }) => inRaw(store, "SAVEPOINT mine", "RELEASE mine"),
  maintain: ({ store }) => store.maintain(),
  rewrite: ({ store }) => store.maintain({ rewrite: true }),
  verify: ({ store }) => store.verify(),
}

/** The files are looked for at most every millisecond. */
const lookedAgain = () => sleep(5)

/** What is refused at its end alone is left for the caller to roll back. */
function inRaw({ db }, begin, end) {
  db.exec(`${begin}; DELETE FROM note`)
  try {
    db.prepare(end).run()
  } finally {
    db.exec("ROLLBACK")
  }
}

/** Every write is refused, every read answers, and a backup has all of it. */
async function standsStill(log, message) {
  await lookedAgain()
  const before = dump(log.store.db)
  for (const [name, write] of Object.entries(writes)) {
    await assert.rejects(async () => write(log), gone(message), name)
    assert.equal(log.store.db.inTransaction, false, name)
  }
  assert.deepEqual(dump(log.store.db), before)
  assert.equal(log.store.read("a").length, log.store.sequence("a") + 1)
  assert.ok(log.store.stats().aggregateCount > 0)
  const target = newPath()
  await log.store.backup(target)
  assert.deepEqual(dump(kept(target, { migrate: undefined }).store.db), before)
}

/** The store writes on, with everything that it had. */
async function goesOn(log) {
  const seq = log.store.sequence("a")
  assert.equal(log.write("a").seq, seq + 1)
  assert.deepEqual(await log.store.verify(), [])
  log.store.close()
  const again = kept(log.path)
  assert.equal(again.store.sequence("a"), seq + 1)
  assert.equal(again.write("a").seq, seq + 2)
}

describe("a file that is gone while a store has it open", { skip: windows }, () => {
  function scene(options) {
    const path = newPath()
    const log = kept(path, { packing: false, ...options })
    for (let n = 0; n < 3; n++) log.write("a")
    const plain = log.store.connect()
    return { ...log, path, plain }
  }

  test("moved: nothing is written, and once it is back the store writes on", async () => {
    const log = scene()
    renameSync(log.path, `${log.path}.away`)
    await standsStill(log, /app\.db": it was moved or deleted/)
    assert.throws(() => log.plain.exec("DELETE FROM note"), gone())
    assert.deepEqual(readdirSync(join(log.path, "..")).toSorted(), ["app.db-shm", "app.db-wal", "app.db.away"])
    renameSync(`${log.path}.away`, log.path)
    log.plain.exec("CREATE TABLE mine (a)")
    await goesOn(log)
  })

  test("in a folder that is moved", async () => {
    const log = scene()
    const inner = join(log.path, "..")
    renameSync(inner, `${inner}.away`)
    await standsStill(log)
    renameSync(`${inner}.away`, inner)
    await goesOn(log)
  })

  test("deleted: what was committed can be read and saved", async () => {
    const log = scene()
    for (const file of sides(log.path)) unlinkSync(file)
    await standsStill(log, /it was moved or deleted/)
    log.store.close()
    assert.deepEqual(readdirSync(join(log.path, "..")), [])
    assert.equal(kept(log.path).write("a").seq, 0)
  })

  test("replaced: nothing of the other file changes, not even when this store closes, and it goes on when it is back", async () => {
    const log = scene()
    const heard = []
    log.store.subscribeAll(({ aggregateID }) => heard.push(aggregateID), { scope: "database" })
    const away = join(log.path, "..", "away")
    mkdirSync(away)
    const move = (from, to) => sides(from).forEach((file) => renameSync(file, join(to, basename(file))))
    move(log.path, away)
    const other = start(`tell(store.run(Written, { noteID: "other" }).seq); setInterval(() => {}, 1000)`, {
      path: log.path,
    })
    await untilTold(other, 1)
    const before = sides(log.path).map((file) => readFileSync(file).toString("base64"))
    await standsStill(log, /app\.db": another file is there now/)
    await kill(other)
    log.store.close()
    assert.deepEqual(
      sides(log.path).map((file) => readFileSync(file).toString("base64")),
      before,
      "what a killed process has left in its WAL is there",
    )
    assert.deepEqual(heard, [])
    const reopened = kept(log.path)
    assert.deepEqual([reopened.store.sequence("other"), reopened.store.sequence("a")], [0, -1])
    reopened.store.close()
    for (const file of sides(log.path)) rmSync(file, { force: true })
    for (const name of readdirSync(away)) renameSync(join(away, name), join(log.path, "..", name))
    const back = kept(log.path)
    assert.equal(back.write("a").seq, 3)
  })

  test("replaced while threads of the store pack and copy back: they leave the other file alone", async () => {
    const log = scene({ packing: { atBytes: 20_000, idle: 30, keepEvents: 0 } })
    const away = join(log.path, "..", "away")
    mkdirSync(away)
    for (const file of sides(log.path)) renameSync(file, join(away, basename(file)))
    const other = openNotes(log.path, { packing: false })
    for (let n = 0; n < 300; n++) other.store.run(other.Written, { noteID: "b", text: "x".repeat(1_000) })
    other.store.close()
    const before = readFileSync(log.path)
    for (let round = 0; round < 10; round++) {
      assert.throws(() => log.write("a"), gone())
      await sleep(20)
    }
    assert.deepEqual(readFileSync(log.path), before)
    assert.deepEqual(readdirSync(join(log.path, "..")).toSorted(), ["app.db", "away"])
    const { store } = kept(log.path, { packing: false })
    assert.equal(store.stats({ aggregates: 1 }).aggregates[0].packedShare, 0)
  })

  test("who begins to follow then is told", async () => {
    const log = scene()
    renameSync(log.path, `${log.path}.away`)
    assert.throws(() => log.store.subscribeAll(() => {}, { scope: "database" }), gone())
    const following = log.store.log({ aggregateID: "a", after: 2, follow: true })[Symbol.asyncIterator]()
    await assert.rejects(async () => following.next(), gone())
  })

  test("moved in the middle of a transaction: what was committed is there when it is back", async () => {
    const log = scene()
    log.store.transaction(() => {
      renameSync(log.path, `${log.path}.away`)
      log.write("a")
    })
    await lookedAgain()
    assert.throws(() => log.write("a"), gone())
    renameSync(`${log.path}.away`, log.path)
    assert.equal(log.store.sequence("a"), 3)
    await goesOn(log)
  })

  test("a link that leads elsewhere now: the store and its jobs stay with the file that they have", async () => {
    const path = newPath()
    const [first, second] = ["first.db", "second.db"].map((name) => join(path, "..", name))
    symlinkSync(first, path)
    const log = kept(path)
    log.write("a")
    unlinkSync(path)
    symlinkSync(second, path)
    assert.equal(log.write("a").seq, 1)
    await log.store.maintain()
    assert.deepEqual(await log.store.verify(), [])
    assert.equal(existsSync(second), false)
    log.store.close()
    assert.equal(kept(first).store.sequence("a"), 1)
  })
})

describe("a WAL that is gone while a store has it open", { skip: windows }, () => {
  test("deleted: noticed, and closing the store copies into the database what was committed", async () => {
    const path = newPath()
    const log = kept(path, { packing: false })
    for (let n = 0; n < 3; n++) log.write("a")
    for (const suffix of ["-wal", "-shm"]) unlinkSync(path + suffix)
    await standsStill(log, /app\.db-wal": it was moved or deleted/)
    log.store.close()
    const again = kept(path)
    assert.equal(again.write("a").seq, 3)
  })

  test("moved, and back: the store writes on", async () => {
    const path = newPath()
    const log = kept(path, { packing: false })
    log.write("a")
    renameSync(`${path}-wal`, `${path}-wal.away`)
    await standsStill(log, /app\.db-wal": it was moved or deleted/)
    renameSync(`${path}-wal.away`, `${path}-wal`)
    await goesOn(log)
  })

  test("replaced: closing this store deletes no commit of another", async () => {
    const path = newPath()
    const { store, write } = kept(path, { packing: false })
    write("a")
    for (const suffix of ["-wal", "-shm"]) unlinkSync(path + suffix)
    const other = start(`tell(store.run(Written, { noteID: "b" }).seq); setInterval(() => {}, 1000)`, { path })
    await untilTold(other, 1)
    await kill(other)
    assert.throws(() => write("a"), gone(/app\.db-wal": another file is there now/))
    store.close()
    assert.ok(statSync(`${path}-wal`).size > 0)
    assert.equal(kept(path).store.sequence("b"), 0)
  })

  test("without its database it is not deleted: open refuses, and with the database all commits are there", async () => {
    const path = newPath()
    const child = start(
      `for (let n = 0; n < 9; n++) tell(store.run(Written, { noteID: "a" }).seq); setInterval(() => {}, 1000)`,
      {
        path,
      },
    )
    await untilTold(child, 9)
    await kill(child)
    renameSync(path, `${path}.away`)
    const wal = readFileSync(`${path}-wal`)
    assert.throws(() => openNotes(path), gone(/is not there, but ".*app\.db-wal" is/))
    assert.deepEqual([existsSync(path), readFileSync(`${path}-wal`)], [false, wal])
    renameSync(`${path}.away`, path)
    assert.equal(kept(path).store.sequence("a"), 8)
  })

  test("one without a commit is a leftover, as it always was", () => {
    const path = newPath()
    appendFileSync(`${path}-wal`, "")
    assert.equal(kept(path).write("a").seq, 0)
  })

  test("a program that leaves WAL mode, and comes back, is not refused", async () => {
    const path = newPath()
    const { store, write } = kept(path, { packing: false })
    write("a")
    assert.equal(store.db.pragma("journal_mode = DELETE", { simple: true }), "delete")
    assert.equal(existsSync(`${path}-wal`), false)
    assert.equal(write("a").seq, 1)
    renameSync(path, `${path}.away`)
    await lookedAgain()
    assert.throws(() => write("a"), gone())
    renameSync(`${path}.away`, path)
    assert.equal(store.db.pragma("journal_mode = WAL", { simple: true }), "wal")
    assert.equal(write("a").seq, 2)
  })
})
