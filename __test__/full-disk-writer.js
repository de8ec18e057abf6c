"use strict"

// A process on a disk of a few megabytes, or under a limit on file sizes: every operation meets the full disk at each of its
// writes in turn, and must leave everything as it was; then there is room again, and the same store goes on. What it found it
// prints as JSON.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { appendFileSync, existsSync, rmSync, statSync, statfsSync, truncateSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { setTimeout: sleep } = require("node:timers/promises")
const { SyncError } = require("syncline")
const { noteLog, openNotes, written } = require("./notes")

const { folder, by, step, rounds } = JSON.parse(process.argv.at(-1))
const found = { failures: {}, cpu: undefined }
let files = 0

/** How much room there is. */
const room = {
  tmpfs: {
    ballast: join(folder, "ballast"),
    /** So many bytes are left, to the page. */
    leave(bytes) {
      if (!existsSync(this.ballast)) writeFileSync(this.ballast, "")
      const { bavail, bsize } = statfsSync(folder)
      const excess = bavail * bsize - Math.ceil(bytes / bsize) * bsize
      if (excess > 0) appendFileSync(this.ballast, Buffer.alloc(excess))
      else truncateSync(this.ballast, statSync(this.ballast).size + excess)
    },
    free() {
      rmSync(this.ballast, { force: true })
    },
  },
  limit: {
    /** No file may grow past so many bytes. */
    leave: (bytes, from) => limit(from + bytes),
    free: () => limit("unlimited"),
  },
}[by]

function limit(bytes) {
  const { status, stderr } = spawnSync("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:`], {
    encoding: "utf8",
  })
  assert.equal(status, 0, stderr)
}

const newPath = () => join(folder, `${files++}.db`)
const remove = (path) => {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true })
}

/** All that a reader can see. */
const state = (store) =>
  JSON.stringify([
    store.readAll({ limit: 10_000 }),
    [...store.sequences()],
    store.db.prepare("SELECT * FROM note ORDER BY id").raw().all(),
  ])

function assertFull(error, name) {
  assert.ok(error instanceof SyncError, error.stack)
  assert.equal(error.code, "ERR_DISK_FULL", `${name}: ${error.stack}`)
  assert.match(error.sqliteCode, /^SQLITE_(FULL|IOERR|CANTOPEN)/)
  assert.match(error.message, /There is no room.*Free some space/)
}

/**
 * Lets an operation meet the full disk with nothing left, then with a little more, until it succeeds. After each failure
 * everything is as before, can be read while the disk is still full, and is written on once there is room.
 */
async function atEveryWrite(name, log, { prepare, act, from = () => 0, grain = 1 }) {
  const { store } = log
  for (let left = 0, failed = 0; ; left += step * grain) {
    assert.ok(left < 16 * 1024 * 1024, `${name} never succeeds`)
    // Each write from here on is at the end of a file.
    store.db.pragma("wal_checkpoint(TRUNCATE)")
    prepare?.(log)
    const before = state(store)
    room.leave(left, from(log))
    let error
    try {
      await act(log)
    } catch (thrown) {
      error = thrown
    }
    if (error === undefined) {
      room.free()
      assert.ok(failed > 0, `${name} has met no full disk`)
      found.failures[name] = (found.failures[name] ?? 0) + failed
      return
    }
    assertFull(error, name)
    failed++
    assert.equal(store.db.inTransaction, false)
    assert.equal(state(store), before, `${name}, with ${left} bytes left`)
    room.free()
    store.db.exec("UPDATE note SET writes = writes")
    assert.equal(state(store), before, `${name}, once there is room`)
  }
}

const text = "x".repeat(1_500)
const batch = (noteID) => Array.from({ length: 20 }, (_, seq) => written(noteID, seq, { data: { noteID, text } }))
const fill = ({ store, Written }) =>
  store.runAll(Array.from({ length: 20 }, () => [Written, { noteID: "filled", text }]))

const operations = {
  run: { act: ({ store, Written }) => store.run(Written, { noteID: "run", text }) },
  runAsync: { act: ({ store, Written }) => store.runAsync(Written, { noteID: "async", text }) },
  runAll: {
    act: ({ store, Written }) => store.runAll(Array.from({ length: 20 }, () => [Written, { noteID: "all", text }])),
  },
  transaction: {
    act: ({ store, Written }) =>
      store.transaction((tx) => {
        for (let n = 0; n < 3; n++) store.run(Written, { noteID: "nested", text })
        tx.prepare("INSERT INTO note VALUES (?, ?, 0)").run(`own ${files++}`, text)
      }),
  },
  // The cache does not hold it, so that SQLite writes, and fails, before the commit; who goes on is refused every statement.
  spilled: {
    grain: 8,
    act: ({ store }) =>
      store.transaction((tx) => {
        tx.pragma("cache_size = 10")
        const insert = tx.prepare("INSERT OR REPLACE INTO note VALUES (?, ?, 0)")
        try {
          for (let n = 0; n < 200; n++) insert.run(`spilled ${n}`, text)
        } catch (error) {
          assertFull(error, "spilled")
          assert.throws(
            () => insert.run("too late", ""),
            (later) => (assertFull(later, "spilled, later"), true),
          )
        }
      }),
  },
  replayAll: { act: ({ store }) => store.replayAll(batch(`replayed ${files++}`)) },
  replayAllAsync: { act: ({ store }) => store.replayAllAsync(batch(`replayed ${files++}`)) },
  claim: { act: ({ store }) => store.claim("run", `owner ${files++}`) },
  exec: { act: ({ store }) => store.db.exec("INSERT INTO mine VALUES (zeroblob(20000))") },
  remove: { prepare: fill, act: ({ store }) => store.remove("filled") },
  maintain: { prepare: fill, act: ({ store }) => store.maintain() },
  rewrite: { grain: 8, act: ({ store }) => store.maintain({ rewrite: true }) },
  checkpoint: {
    prepare: fill,
    from: ({ store }) => statSync(store.db.name).size,
    act: ({ store }) => store.db.pragma("wal_checkpoint(TRUNCATE)"),
  },
  backup: {
    grain: 16,
    act: async ({ store }) => {
      const target = newPath()
      try {
        await store.backup(target)
      } catch (error) {
        assert.equal(existsSync(target), false)
        throw error
      }
      remove(target)
    },
  },
}

/** Opening a new file, and one whose WAL a killed process has left. */
function opening() {
  for (const readonly of [false, true]) {
    let failed = 0
    for (let left = 0; ; left += step) {
      const path = newPath()
      if (readonly) {
        const { store, Written } = openNotes(path)
        store.run(Written, { noteID: "a" })
        store.close()
      }
      room.leave(left, 0)
      let error
      try {
        openNotes(path, { readonly }).store.close()
      } catch (thrown) {
        error = thrown
      }
      room.free()
      if (error !== undefined) {
        assertFull(error, "open")
        failed++
      }
      const { store, Written } = openNotes(path)
      assert.equal(store.run(Written, { noteID: "a" }).seq, readonly ? 1 : 0)
      store.close()
      remove(path)
      if (error === undefined) break
    }
    found.failures[readonly ? "open read-only" : "open"] = failed
  }
}

/** The threads of a store meet the full disk by themselves: they neither end it nor spin, and go on once there is room. */
async function threads() {
  const path = newPath()
  const { store, Written } = openNotes(path, { packing: { atBytes: 100_000, keepEvents: 10, idle: 40 } })
  const write = () => store.run(Written, { noteID: "a", text })
  let confirmed = 0
  const packedShare = () => store.stats({ aggregates: 1 }).aggregates[0].packedShare
  for (let n = 0; n < 30; n++) confirmed = write().seq
  store.db.pragma("wal_checkpoint(TRUNCATE)")
  room.leave(40_000, 0)
  let refused = 0
  for (let n = 0; n < 200; n++) {
    try {
      confirmed = write().seq
    } catch (error) {
      assertFull(error, "beside the threads")
      refused++
    }
  }
  assert.ok(refused > 0)
  const [start, cpu] = [performance.now(), process.cpuUsage()]
  await sleep(500)
  const { user, system } = process.cpuUsage(cpu)
  found.cpu = (user + system) / 1_000 / (performance.now() - start)
  assert.equal(store.sequence("a"), confirmed)
  room.free()
  for (let n = 0; n < 100; n++) assert.equal(write().seq, ++confirmed)
  while (packedShare() < 0.5) await sleep(10)
  assert.deepEqual(await store.verify(), [])
  store.close()
  remove(path)
}

/** The thread that copies the WAL back has no room for that, while the WAL still has some. */
async function copyingBack() {
  const path = newPath()
  const { store, Written } = openNotes(path, { packing: false })
  const large = "x".repeat(100_000)
  const size = () => statSync(path).size
  const write = () => store.run(Written, { noteID: "a", text: large })
  let confirmed = write().seq
  store.db.pragma("wal_checkpoint(TRUNCATE)")
  const before = size()
  // The thread is called when the WAL has 4 MiB.
  room.leave(4.4 * 1024 * 1024, 0)
  for (let error; error === undefined;) {
    try {
      confirmed = write().seq
    } catch (thrown) {
      assertFull((error = thrown), "copying back")
    }
  }
  assert.ok(statSync(`${path}-wal`).size > 4 * 1024 * 1024, "the thread was called")
  await sleep(50)
  assert.equal(store.sequence("a"), confirmed)
  room.free()
  // It tries again when the WAL has grown by as much once more.
  while (size() < before + 4_000_000) {
    assert.equal(write().seq, ++confirmed)
    assert.ok(confirmed < 300, "the WAL is never copied back")
    await sleep(1)
  }
  assert.equal(store.read("a").length, confirmed + 1)
  store.close()
  remove(path)
}

async function main() {
  room.free()
  const path = newPath()
  for (let round = 0; round < rounds; round++) {
    remove(path)
    const options = { packing: false, durability: round % 2 === 0 ? "normal" : "full" }
    const { registry, Written, write, writeInSql } = noteLog()
    const projectors = [round % 3 === 2 ? writeInSql : write]
    const log = { ...openNotes(path, { ...options, registry, projectors }), Written, path }
    log.store.db.exec("CREATE TABLE mine (a)")
    for (const [name, operation] of Object.entries(operations)) await atEveryWrite(name, log, operation)
    assert.deepEqual(await log.store.verify(), [])
    const last = state(log.store)
    log.store.close()
    const again = openNotes(path, { packing: false })
    assert.equal(state(again.store), last)
    assert.equal(again.store.run(again.Written, { noteID: "run" }).seq, Object.fromEntries(JSON.parse(last)[1]).run + 1)
    again.store.close()
  }
  remove(path)
  opening()
  await threads()
  if (by === "tmpfs") await copyingBack()
  console.log(JSON.stringify(found))
}

main()
