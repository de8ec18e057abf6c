"use strict"

// Files that cannot serve are refused with a code, and not one byte of them, or beside them, changes.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, describe, test } = require("node:test")
const { open } = require("syncline")
const { coded, dump, noteLog, openNotes, temporaryFolder, written } = require("./notes")

const folder = temporaryFolder()
let files = 0

/** A path of its own, in a folder of its own, so that what lies beside the file can be compared, too. */
function newPath() {
  const own = join(folder, String(files++))
  mkdirSync(own)
  return join(own, "app.db")
}

/** A database made by these statements through a plain connection: no table of Syncline's, and no WAL left. */
function madeBy(sql) {
  const helper = open(newPath())
  const path = newPath()
  helper.db.exec(`ATTACH '${path}' AS made`)
  helper.db.exec(sql)
  helper.db.exec("DETACH made")
  helper.close()
  return path
}

/** A closed store's file, after `change` was done to it. */
function storeFile(change = () => {}) {
  const path = newPath()
  const { store, Written } = openNotes(path)
  store.run(Written, { noteID: "a" })
  change(store)
  store.close()
  return path
}

/** The file and what lies beside it. A read-only connection leaves SQLite's own empty WAL and its index behind. */
function snapshot(path, readonly = false) {
  const beside = join(path, "..")
  const names = readdirSync(beside)
  return (readonly ? names.filter((name) => !/-(wal|shm)$/.test(name)) : names).map((name) => {
    const file = join(beside, name)
    return [name, statSync(file).isDirectory() ? "folder" : readFileSync(file).toString("base64")]
  })
}

/** Each way of opening must be refused so, leave the folder as it was, and leave the registry thawed. */
function refused(path, check) {
  const before = snapshot(path)
  for (const options of [{}, { readonly: true }, { migrate: () => assert.fail("it was called") }]) {
    const { registry } = noteLog()
    assert.throws(() => open(path, { registry, ...options }), check)
    assert.equal(registry.frozen, false)
    assert.deepEqual(snapshot(path, options.readonly), before)
    if (options.readonly) for (const side of ["-wal", "-shm"]) rmSync(path + side, { force: true })
  }
}

describe("what is no database", () => {
  test("text, noise and pictures", () => {
    const png = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex")
    const contents = ["A letter. ".repeat(200), "xy", Buffer.alloc(4096, 0xa5), png, Buffer.alloc(8192)]
    for (const content of contents) {
      const path = newPath()
      writeFileSync(path, content)
      refused(path, (error) => {
        assert.ok(error.message.startsWith(`"${path}" is not a database`), error.message)
        return coded("ERR_NOT_A_DATABASE")(error)
      })
    }
  })

  test("a directory", () => {
    const path = newPath()
    mkdirSync(path)
    refused(path, coded("ERR_NOT_A_DATABASE", { message: /directory/ }))
  })

  test("a database that was cut, or whose pages were overwritten: a coded error, wherever it shows", () => {
    const whole = readFileSync(storeFile((store) => store.db.exec("CREATE TABLE more AS SELECT * FROM sqlite_schema")))
    const spoilt = [50, 100, 1000, 4096, 4097, 8192, whole.length - 4096].map((end) => whole.subarray(0, end))
    for (const page of [1, 2, 3, 4]) spoilt.push(Buffer.from(whole).fill(0xff, page * 4096, (page + 1) * 4096))
    spoilt.push(Buffer.from(whole).fill(0, 100, 4096))
    for (const content of spoilt) {
      const path = newPath()
      writeFileSync(path, content)
      try {
        const { store, Written } = openNotes(path)
        try {
          store.read("a")
          store.run(Written, { noteID: "a" })
        } finally {
          store.close()
        }
      } catch (error) {
        coded(error.code)(error)
        assert.match(error.code, /^ERR_(NOT_A_DATABASE|CORRUPT|SQLITE|FOREIGN_SCHEMA)$/)
      }
    }
  })

  test("an empty file, and one that does not exist, become one; readonly makes nothing", () => {
    const path = newPath()
    writeFileSync(path, "")
    assert.throws(() => openNotes(path, { readonly: true }), coded("ERR_READONLY"))
    assert.equal(statSync(path).size, 0)
    openNotes(path).store.close()
    assert.ok(statSync(path).size > 0)

    const missing = newPath()
    assert.throws(() => openNotes(missing, { readonly: true }), coded("ERR_SQLITE", { sqliteCode: "SQLITE_CANTOPEN" }))
    assert.equal(existsSync(missing), false)
    const nowhere = join(folder, "no", "such", "folder", "app.db")
    assert.throws(() => openNotes(nowhere), coded("ERR_SQLITE", { sqliteCode: "SQLITE_CANTOPEN", message: /no.such/ }))
  })
})

describe("a database of somebody else", () => {
  test("the older tables: told so, untouched", () => {
    const event = (columns) =>
      `CREATE TABLE made.event (id TEXT PRIMARY KEY, aggregate_id TEXT, seq INTEGER, type TEXT, data TEXT${columns})`
    const sequence = (columns) =>
      `CREATE TABLE made.event_sequence (aggregate_id TEXT PRIMARY KEY, seq INTEGER${columns})`
    for (const sql of [
      [event(""), sequence("")],
      [event(", created INTEGER"), sequence(", owner_id TEXT")],
      [sequence(", owner_id TEXT"), event("")],
    ]) {
      const path = madeBy(`${sql.join(";")}; INSERT INTO made.event_sequence (aggregate_id, seq) VALUES ('a', 0)`)
      refused(path, coded("ERR_FOREIGN_SCHEMA", { message: /older event log/ }))
    }
  })

  test("any table, view or index under one of our names, in any case", () => {
    for (const sql of [
      "CREATE TABLE made.event (at TEXT)",
      "CREATE TABLE made.EVENT (at TEXT)",
      "CREATE VIEW made.event_log AS SELECT 1",
      "CREATE TABLE made.event_type (key INTEGER PRIMARY KEY, name TEXT)",
      "CREATE TABLE made.event_meta (format INTEGER)",
      "CREATE TABLE made.event_meta (format TEXT); INSERT INTO made.event_meta VALUES ('1')",
      "CREATE TABLE made.x (a); CREATE INDEX made.event_aggregate_seq ON x (a)",
      "CREATE TABLE made.event_gap (a); CREATE TABLE made.event_meta (id, format); INSERT INTO made.event_meta VALUES (1, 1)",
    ]) {
      refused(madeBy(sql), coded("ERR_FOREIGN_SCHEMA", { message: /did not make/ }))
    }
  })

  test("tables of ours that somebody changed", () => {
    const changed = storeFile((store) => store.db.exec("ALTER TABLE event ADD COLUMN more TEXT"))
    refused(changed, coded("ERR_FOREIGN_SCHEMA", { message: /table "event"/ }))
    const dropped = storeFile((store) => store.db.exec("DROP TABLE event_gap"))
    refused(dropped, coded("ERR_CORRUPT", { message: /event_gap/ }))
  })

  test("tables of its own under other names stay, beside ours", () => {
    const path = madeBy(
      "CREATE TABLE made.events (a); INSERT INTO made.events VALUES (7); PRAGMA made.user_version = 5",
    )
    const before = snapshot(path)
    assert.throws(() => openNotes(path, { readonly: true }), coded("ERR_READONLY", { message: /no syncline tables/ }))
    assert.deepEqual(snapshot(path), before)
    const { store, Written } = openNotes(path)
    store.run(Written, { noteID: "a" })
    assert.equal(store.db.prepare("SELECT a FROM events").pluck().get(), 7)
    assert.equal(store.db.pragma("user_version", { simple: true }), 5)
    store.close()
  })

  test("a newer format: told which, untouched", () => {
    for (const format of [2, 3_000_000_000]) {
      const path = storeFile((store) => store.db.exec(`UPDATE event_meta SET format = ${format}`))
      refused(path, coded("ERR_SCHEMA_NEWER", { expected: 1, got: format }))
    }
  })
})

describe("a readonly store", () => {
  test("reads, refuses every write with ERR_READONLY, and leaves the file as it is", () => {
    const path = storeFile()
    const before = readFileSync(path)
    const { store, Written } = openNotes(path, { readonly: true })
    assert.equal(store.read("a").length, 1)
    const readonly = coded("ERR_READONLY")
    for (const call of [
      () => store.run(Written, { noteID: "a" }),
      () => store.replay(written("a", 1)),
      () => store.claim("a", "me"),
      () => store.remove("a"),
      () => store.transaction((tx) => tx.exec("DELETE FROM note")),
      () => store.db.exec("DELETE FROM note"),
      () => store.connect().exec("DELETE FROM note"),
    ]) {
      assert.throws(call, readonly, call.toString())
    }
    assert.deepEqual(dump(store.db).note, [["a", null, 1]])
    store.close()
    assert.deepEqual(readFileSync(path), before)
    const migrate = () => assert.fail()
    assert.throws(() => openNotes(path, { readonly: true, migrate }), coded("ERR_INVALID_ARGUMENT"))
  })

  test("of a file that a writer has open sees what was committed", () => {
    const path = newPath()
    const writer = openNotes(path)
    const reader = openNotes(path, { readonly: true })
    writer.store.run(writer.Written, { noteID: "a" })
    assert.equal(reader.store.sequence("a"), 0)
    writer.store.close()
    assert.equal(reader.store.sequence("a"), 0)
    reader.store.close()
  })
})

/** Root may write everything: there the tests run in a process of the user nobody. */
describe(
  "files that may not be written",
  { skip: process.platform === "win32" && "Windows has other permissions" },
  () => {
    const own = mkdtempSync(join(tmpdir(), "syncline-permissions-"))
    chmodSync(own, 0o755)
    after(() => rmSync(own, { recursive: true, force: true }))

    const root = process.getuid?.() === 0
    const nobody = root ? { uid: 65_534, gid: 65_534 } : {}
    const asNobody = (program) => spawnSync(process.execPath, ["-e", program], { ...nobody, encoding: "utf8" })
    const trial = asNobody(`require(${JSON.stringify(join(__dirname, "notes.js"))}); console.log("works")`)
    const skip = trial.stdout !== "works\n" && "SKIPPED: root may write everything, and nobody cannot read this folder"
    if (skip) console.error(skip)

    /** What opening and one run give, as nobody: "ran", or a code. */
    function attempt(path, options = "{}") {
      const { stdout, stderr } = asNobody(`
      const { openNotes } = require(${JSON.stringify(join(__dirname, "notes.js"))})
      try {
        const { store, Written } = openNotes(${JSON.stringify(path)}, { migrate: undefined, ...${options} })
        console.log("opened", store.sequence("a"))
        store.run(Written, { noteID: "a" })
        console.log("ran")
      } catch (error) { console.log(error.code ?? error) }
    `)
      return stdout.trim().split("\n").concat(stderr.split("\n")).filter(Boolean)
    }

    test("a file without the permission, in a folder without it: ERR_READONLY, untouched", { skip }, () => {
      const path = join(own, "app.db")
      writeFileSync(path, readFileSync(storeFile()))
      chmodSync(path, 0o444)
      const before = snapshot(path)
      assert.deepEqual(attempt(path), ["ERR_READONLY"])
      assert.deepEqual(snapshot(path), before)
    })

    test("a new file in a folder without the permission: a coded error, and nothing is made", { skip }, () => {
      assert.match(attempt(join(own, "new.db"))[0], /^ERR_(READONLY|SQLITE)$/)
      assert.equal(existsSync(join(own, "new.db")), false)
    })
  },
)
