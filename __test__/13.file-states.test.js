"use strict"

// What can be wrong with a file and with what is around it: whose it is, and why it cannot be opened. That it is gone while a
// store has it open is in 11.file-gone, what a full disk does in 96.full-disk.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, describe, test } = require("node:test")
const { endOf, start } = require("./children")
const { folder, gone, kept, mode, newPath, sides, windows } = require("./file-scenes")
const { coded, openNotes } = require("./notes")

const notes = JSON.stringify(join(__dirname, "notes.js"))

/** Opens in a process of its own, and tells what was thrown as `code sqliteCode message`, or "ran". */
const ATTEMPT = `
  const { openNotes } = require(${notes})
  try {
    const { store, Written } = openNotes(process.argv.at(-2), JSON.parse(process.argv.at(-1)))
    store.sequence("a")
    if (process.argv.at(-1) === "{}") store.run(Written, { noteID: "a" })
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
      const { store } = require(${notes}).openNotes(process.argv.at(-1), { busyTimeout: 20, migrate: undefined })
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
        try { stores.push(openNotes(process.argv.at(-1) + stores.length)) } catch (error) { failed = error }
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
    if (error !== undefined || status === 99 || stderr.startsWith("unshare"))
      return t.skip(`nothing can be mounted: ${stderr}`)
    const [existing, made] = stdout.trim().split("\n")
    assert.match(existing, /^ERR_READONLY SQLITE_READONLY.*mounted read-only/, stderr)
    assert.match(made, /^ERR_READONLY SQLITE_CANTOPEN.*mounted read-only/)
    assert.deepEqual(readFileSync(path), before)
  })

  test("a file system without shared memory is said to be one", (t) => {
    // As NFS and shared folders of virtual machines do it: the file can be made, and mmap refuses.
    const library = join(own, "no-shared-memory.so")
    if (process.platform !== "linux") return t.skip("only on Linux")
    const source = join(__dirname, "no-shared-memory.c")
    const compiled = spawnSync("cc", ["-shared", "-fPIC", "-o", library, source, "-ldl"])
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
