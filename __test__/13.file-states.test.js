"use strict"

// What can be wrong with a file and with what is around it: whose it is, why it cannot be opened, and that it is gone while a
// store has it open. The states that a full disk makes are in 96.full-disk.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} = require("node:fs")
const { tmpdir } = require("node:os")
const { basename, join } = require("node:path")
const { after, afterEach, describe, test } = require("node:test")
const { setTimeout: sleep } = require("node:timers/promises")
const { endOf, kill, start, untilTold } = require("./children")
const { coded, dump, openNotes, temporaryFolder, written } = require("./notes")

const folder = temporaryFolder()
const windows =
  process.platform === "win32" && "Windows lets nobody move or delete an open file, and has other permissions"
const notes = JSON.stringify(join(__dirname, "notes.js"))
const opened = new Set()
let files = 0

afterEach(() => {
  for (const store of opened) store.close()
  opened.clear()
})

/** A path of its own, in a folder of its own. */
function newPath() {
  const own = join(folder, String(files++))
  mkdirSync(own)
  return join(own, "app.db")
}

/** A store that is closed after its test. */
function kept(path, options) {
  const log = openNotes(path, options)
  opened.add(log.store)
  return { ...log, write: (noteID, more) => log.store.run(log.Written, { noteID, ...more }) }
}

const mode = (path) => (statSync(path).mode & 0o777).toString(8)
const sides = (path) => [path, `${path}-wal`, `${path}-shm`]
const gone = (message = /no longer at/) => coded("ERR_FILE_GONE", { sqliteCode: "SQLITE_READONLY_DBMOVED", message })

/** Opens in a process of its own, and tells what was thrown as `code sqliteCode message`, or "ran". */
const ATTEMPT = `
  const { openNotes } = require(${notes})
  try {
    const { store, Written } = openNotes(process.argv[1], JSON.parse(process.argv[2]))
    store.sequence("a")
    if (process.argv[2] === "{}") store.run(Written, { noteID: "a" })
    console.log("ran")
  } catch (error) { console.log(error.code, error.sqliteCode, error.message) }
`

describe("whose the files are", { skip: windows }, () => {
  test("a new database and what is beside it are its owner's alone, whatever the umask", () => {
    for (const umask of [0, 0o22, 0o77, 0o377]) {
      const path = newPath()
      const before = process.umask(umask)
      try {
        const { write } = kept(path)
        write("a")
        assert.deepEqual(sides(path).map(mode), ["600", "600", "600"], umask.toString(8))
      } finally {
        process.umask(before)
      }
    }
  })

  test("a file that exists keeps its mode, also an empty one, and gives it to what is beside it", () => {
    for (const permissions of [0o640, 0o666, 0o600]) {
      const path = newPath()
      writeFileSync(path, "")
      chmodSync(path, permissions)
      for (let round = 0; round < 2; round++) {
        const { store, write } = kept(path)
        write("a")
        assert.deepEqual(sides(path).map(mode), Array(3).fill(permissions.toString(8)))
        store.close()
      }
    }
  })

  test("where a link leads to nothing yet, the file is made there, for its owner alone", () => {
    const path = newPath()
    const real = join(path, "..", "real.db")
    symlinkSync("real.db", path)
    const before = process.umask(0)
    try {
      kept(path).write("a")
    } finally {
      process.umask(before)
    }
    assert.deepEqual(sides(real).map(mode), ["600", "600", "600"])
  })

  test("a backup of what is in memory is its owner's alone, and one of a file has the file's mode", async () => {
    const before = process.umask(0)
    try {
      const target = newPath()
      const memory = kept(":memory:")
      memory.write("a")
      await memory.store.backup(target)
      assert.equal(mode(target), "600")
      const { store } = kept(newPath())
      await store.backup(`${target}2`)
      assert.equal(mode(`${target}2`), "600")
    } finally {
      process.umask(before)
    }
  })

  test("many processes that make it at once: one makes it, and all write", async () => {
    for (let round = 0; round < 3; round++) {
      const path = newPath()
      const program = `for (let n = 0; n < 5; n++) tell(store.run(Written, { noteID: "a" }).seq)`
      const children = Array.from({ length: 6 }, () => start(program, { path }))
      const told = (await Promise.all(children.map(endOf))).flat()
      assert.deepEqual(
        told.toSorted((one, other) => one - other),
        Array.from({ length: 30 }, (_, n) => n),
      )
      assert.equal(mode(path), "600")
    }
  })

  test("to make a file, to look for it and to refuse it drops no lock that this process has on it", async () => {
    const path = newPath()
    const first = kept(path)
    first.write("a")
    kept(path).write("a")
    first.store.stats()
    await first.store.verify()
    await first.store.backup(`${path}.copy`)
    renameSync(path, `${path}.away`)
    assert.throws(() => first.write("a"), gone())
    assert.throws(() => openNotes(path), gone(/is not there/))
    renameSync(`${path}.away`, path)
    // Whoever leaves WAL mode needs the file for himself.
    const program = `
      const { store } = require(${notes}).openNotes(process.argv[1], { busyTimeout: 20, migrate: undefined })
      try { console.log(store.db.pragma("journal_mode = DELETE", { simple: true })) } catch (error) { console.log(error.code) }
    `
    const { stdout, stderr } = spawnSync(process.execPath, ["-e", program, path], { encoding: "utf8" })
    assert.match(stdout.trim(), /^(wal|ERR_BUSY)$/, stderr)
  })
})

describe("what cannot be opened says why, and what to do", () => {
  const cannot = (message) => coded("ERR_SQLITE", { sqliteCode: (code) => code.startsWith("SQLITE_CANTOPEN"), message })

  test("a folder that does not exist", () => {
    const path = join(folder, "no", "such", "app.db")
    for (const options of [{}, { readonly: true }]) {
      assert.throws(() => openNotes(path, options), cannot(/the folder ".*[\\/]no" does not exist: make it first/))
    }
  })

  test("a file in the place of a folder", () => {
    const file = newPath()
    writeFileSync(file, "a letter")
    assert.throws(() => openNotes(join(file, "app.db")), cannot(/app\.db" is a file, not a folder/))
    assert.equal(readFileSync(file, "utf8"), "a letter")
  })

  test("a read-only store of a file that does not exist", () => {
    assert.throws(
      () => openNotes(newPath(), { readonly: true }),
      cannot(/no such file, and a read-only store makes none/),
    )
  })

  test("a path that SQLite does not take: nothing is made", { skip: windows }, () => {
    let path = newPath()
    const start = join(path, "..")
    while (path.length < 500) {
      mkdirSync(join(path, "..", "n".repeat(60)))
      path = join(path, "..", "n".repeat(60), "app.db")
    }
    assert.throws(() => openNotes(path), cannot(/paths of at most 504 bytes/))
    assert.deepEqual(readdirSync(start), ["n".repeat(60)])
    assert.deepEqual(readdirSync(join(path, "..")), [])
  })

  test("links that lead in a circle", { skip: windows }, () => {
    const path = newPath()
    symlinkSync("app.db", path)
    assert.throws(() => openNotes(path), coded("ERR_SQLITE", { message: /app\.db/ }))
  })

  test("a folder in the place of -shm or -wal: nothing is lost, and without it all is there", () => {
    for (const suffix of ["-shm", "-wal"]) {
      const path = newPath()
      const first = kept(path)
      first.write("a")
      first.store.close()
      const before = readFileSync(path)
      mkdirSync(path + suffix)
      const message = new RegExp(`app\\.db${suffix}".* is no file: move it away`)
      assert.throws(() => openNotes(path), coded("ERR_SQLITE", { sqliteCode: /^SQLITE_(CANTOPEN|READONLY)/, message }))
      assert.deepEqual(readFileSync(path), before)
      rmdirSync(path + suffix)
      assert.equal(kept(path).write("a").seq, 1)
    }
  })

  test("file systems of the kernel's own", { skip: process.platform !== "linux" && "only on Linux" }, () => {
    for (const path of ["/proc/app.db", "/sys/app.db", "/dev/null/app.db"]) {
      assert.throws(
        () => openNotes(path),
        (error) => {
          assert.match(error.code, /^ERR_(SQLITE|READONLY)$/)
          return coded(error.code, { message: (text) => text.includes(path) && text.length > path.length + 60 })(error)
        },
      )
    }
  })

  test("more files than the process may have open: said so, and the others go on", { skip: windows }, () => {
    const program = `
      const { openNotes } = require(${notes})
      const stores = []
      let failed
      while (failed === undefined && stores.length < 200) {
        try { stores.push(openNotes(process.argv[1] + stores.length)) } catch (error) { failed = error }
      }
      for (const { store } of stores.splice(0, 5)) store.close()
      const counts = stores.map(({ store, Written }) => store.run(Written, { noteID: "a" }).seq)
      console.log(JSON.stringify([failed.code, failed.sqliteCode, failed.message, counts.every((seq) => seq === 0)]))
    `
    const limited = `ulimit -n 100; exec "$0" -e "$1" "$2"`
    const { stdout, stderr } = spawnSync("sh", ["-c", limited, process.execPath, program, newPath()], {
      encoding: "utf8",
    })
    const [code, sqliteCode, message, all] = JSON.parse(stdout || `[${JSON.stringify(stderr)}]`)
    assert.equal(code, "ERR_SQLITE")
    assert.match(sqliteCode, /^SQLITE_(CANTOPEN|IOERR)/)
    assert.match(message, /Too many open files/)
    assert.equal(all, true)
  })
})

describe("what may not be written", { skip: windows }, () => {
  const own = mkdtempSync(join(tmpdir(), "syncline-states-"))
  chmodSync(own, 0o755)
  after(() => rmSync(own, { recursive: true, force: true }))

  const asRoot = process.getuid?.() === 0
  const nobody = asRoot ? { uid: 65_534, gid: 65_534 } : {}
  const spawned = (path, options = {}) =>
    spawnSync(process.execPath, ["-e", ATTEMPT, path, JSON.stringify(options)], { ...nobody, encoding: "utf8" })
  const attempt = (path, options) => {
    const { stdout, stderr } = spawned(path, options)
    return stdout.trim() || stderr
  }
  const trial = attempt(":memory:")
  const skip = trial !== "ran" && "SKIPPED: root may write everything, and nobody cannot read this folder"
  if (skip) console.error(skip, trial)

  /** A folder of the user who tries, with a closed database in it. */
  function scene(permissions, filePermissions = 0o600) {
    const inner = mkdtempSync(join(own, "scene-"))
    const path = join(inner, "app.db")
    const log = openNotes(path)
    log.store.run(log.Written, { noteID: "a" })
    log.store.close()
    chmodSync(path, filePermissions)
    if (asRoot) for (const each of [path, inner]) spawnSync("chown", ["65534:65534", each])
    chmodSync(inner, permissions)
    return { path, inner, before: readFileSync(path) }
  }

  test("a folder that may not be written: named, and the file is as it was", { skip }, () => {
    const { path, inner, before } = scene(0o555)
    assert.match(
      attempt(join(inner, "new.db")),
      /^ERR_READONLY SQLITE_CANTOPEN .*the folder ".*" may not be written: its perm/,
    )
    assert.match(
      attempt(path),
      /^ERR_(READONLY|SQLITE) SQLITE_(CANTOPEN|READONLY\w*) .*the folder ".*may not be written: its p/,
    )
    assert.match(
      attempt(path, { readonly: true, migrate: undefined }),
      /the folder ".*also for a read-only store.*may not be/,
    )
    assert.deepEqual([readdirSync(inner), readFileSync(path)], [["app.db"], before])
    chmodSync(inner, 0o755)
    assert.equal(attempt(path), "ran")
  })

  test("a folder that may not be searched", { skip }, () => {
    const { path, inner } = scene(0o600)
    const reason =
      /^ERR_SQLITE SQLITE_CANTOPEN .*may not look into the folder ".*scene-\w+" \(it lacks the x permission\)/
    assert.match(attempt(path), reason)
    assert.match(attempt(join(path, "..", "new.db")), reason)
    chmodSync(inner, 0o755)
    assert.equal(attempt(path), "ran")
  })

  test("a file that may not be read, and one that may not be written", { skip }, () => {
    const hidden = scene(0o755, 0o000)
    assert.match(attempt(hidden.path), /^ERR_SQLITE SQLITE_CANTOPEN .*may not read the file: Permission denied/)
    const readonly = scene(0o755, 0o444)
    assert.match(
      attempt(readonly.path),
      /^ERR_READONLY SQLITE_READONLY\w* .*the file may not be written: its permissions/,
    )
    assert.equal(attempt(readonly.path, { readonly: true }), "ran")
    for (const { path, before } of [hidden, readonly]) {
      assert.deepEqual(readFileSync(path), before)
      chmodSync(path, 0o600)
      // What a reader has left there has the mode that the file had then.
      for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true })
      assert.equal(attempt(path), "ran")
    }
  })

  test("a file system that is mounted read-only", (t) => {
    const path = newPath()
    const { store, write } = kept(path)
    write("a")
    store.close()
    const before = readFileSync(path)
    const at = join(own, "mounted")
    mkdirSync(at)
    const script = `mount -t tmpfs -o size=1m tmpfs "$1" && cp "$2" "$1/app.db" && mount -o remount,ro "$1" || exit 99
      "$0" -e "$3" "$1/app.db" "{}"; "$0" -e "$3" "$1/new.db" "{}"`
    const words = ["-rm", "sh", "-c", script, process.execPath, at, path, ATTEMPT]
    const { stdout, stderr, status, error } = spawnSync("unshare", words, { encoding: "utf8" })
    if (error !== undefined || status === 99 || /^unshare/.test(stderr))
      return t.skip(`nothing can be mounted: ${stderr}`)
    const [existing, made] = stdout.trim().split("\n")
    assert.match(existing, /^ERR_READONLY SQLITE_READONLY.*mounted read-only/, stderr)
    assert.match(made, /^ERR_READONLY SQLITE_CANTOPEN.*mounted read-only/)
    assert.deepEqual(readFileSync(path), before)
  })

  test("a file system without shared memory is said to be one", (t) => {
    // As NFS and shared folders of virtual machines do it: the file can be made, and mmap refuses.
    const library = join(own, "no-shared-memory.so")
    const source = `
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <stdio.h>
      #include <string.h>
      #include <sys/mman.h>
      #include <sys/types.h>
      #include <unistd.h>
      void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
        static void *(*next)(void *, size_t, int, int, int, off_t);
        char link[64], path[4096];
        if (next == 0) next = dlsym(RTLD_NEXT, "mmap64");
        if (fd >= 0 && (flags & MAP_SHARED)) {
          snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
          ssize_t length = readlink(link, path, sizeof path);
          if (length > 4 && memcmp(path + length - 4, "-shm", 4) == 0) { errno = ENODEV; return MAP_FAILED; }
        }
        return next(at, size, protection, flags, fd, offset);
      }
      void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
        return mmap64(at, size, protection, flags, fd, offset);
      }
    `
    if (process.platform !== "linux") return t.skip("only on Linux")
    const compiled = spawnSync("cc", ["-shared", "-fPIC", "-o", library, "-x", "c", "-", "-ldl"], { input: source })
    if (compiled.status !== 0) return t.skip("there is no C compiler")
    const { path, before } = scene(0o755)
    const env = { ...process.env, LD_PRELOAD: library }
    const { stdout, stderr } = spawnSync(process.execPath, ["-e", ATTEMPT, path, "{}"], { env, encoding: "utf8" })
    assert.match(
      stdout,
      /^ERR_SQLITE SQLITE_IOERR_SHMMAP .*No such device.*no memory that processes share.*local disk/,
      stderr,
    )
    assert.deepEqual(readFileSync(path), before)
    assert.equal(kept(path).write("a").seq, 1)
  })
})

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
  maintain: ({ store }) => store.maintain(),
  rewrite: ({ store }) => store.maintain({ rewrite: true }),
  verify: ({ store }) => store.verify(),
}

/** Every write is refused, every read answers, and a backup has all of it. */
async function standsStill(log, message) {
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
    assert.deepEqual(readdirSync(join(log.path, "..")), ["app.db-shm", "app.db-wal", "app.db.away"])
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
  /** The WAL is looked for at most every millisecond. */
  const lookedAgain = () => sleep(5)

  test("deleted: noticed, and closing the store copies into the database what was committed", async () => {
    const path = newPath()
    const log = { ...kept(path, { packing: false }), path }
    for (let n = 0; n < 3; n++) log.write("a")
    for (const suffix of ["-wal", "-shm"]) unlinkSync(path + suffix)
    await lookedAgain()
    await standsStill(log, /app\.db-wal": it was moved or deleted/)
    log.store.close()
    const again = kept(path)
    assert.equal(again.write("a").seq, 3)
  })

  test("moved, and back: the store writes on", async () => {
    const path = newPath()
    const log = { ...kept(path, { packing: false }), path }
    log.write("a")
    renameSync(`${path}-wal`, `${path}-wal.away`)
    await lookedAgain()
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

  test("a program that leaves WAL mode, and comes back, is not refused", () => {
    const path = newPath()
    const { store, write } = kept(path, { packing: false })
    write("a")
    assert.equal(store.db.pragma("journal_mode = DELETE", { simple: true }), "delete")
    assert.equal(existsSync(`${path}-wal`), false)
    assert.equal(write("a").seq, 1)
    renameSync(path, `${path}.away`)
    assert.throws(() => write("a"), gone())
    renameSync(`${path}.away`, path)
    assert.equal(store.db.pragma("journal_mode = WAL", { simple: true }), "wal")
    assert.equal(write("a").seq, 2)
  })
})
