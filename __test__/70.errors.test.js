"use strict"

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { existsSync, readFileSync, writeFileSync } = require("node:fs")
const { basename, join } = require("node:path")
const { afterEach, describe, test } = require("node:test")
const { z } = require("zod")
const { SyncError, createRegistry, define, errorCodes, open, project } = require("syncline")
const { answered } = require("./answered")
const { unanswered } = require("./unanswered")
const { coded, openNotes, temporaryFolder, written } = require("./notes")

const root = join(__dirname, "..")
const folder = temporaryFolder()
const codes = Object.keys(errorCodes)
const opened = []
let files = 0

const newPath = () => join(folder, `${files++}.db`)
const openOwn = (path, options) => {
  const store = open(path, options)
  opened.push(store)
  return store
}
const notes = (options = {}, path = newPath()) => {
  const log = openNotes(path, options)
  opened.push(log.store)
  return { ...log, path }
}
const note = (registry, options = {}) => {
  const schema = z.object({ noteID: z.string(), text: z.string().optional() })
  return define({ type: "note.written", version: 1, aggregate: "noteID", schema, registry, ...options })
}
/** A store over one definition made by these options, with a projector that does nothing. */
const storeOf = (defined, projector = () => {}) => {
  const registry = createRegistry()
  const Note = note(registry, defined)
  return { Note, registry, store: openOwn(newPath(), { registry, projectors: [project(Note, projector)] }) }
}
const asynchronous = (schema) => ({ "~standard": { version: 1, vendor: "test", validate: async () => schema } })

afterEach(() => {
  for (const store of opened.splice(0)) store.close()
})

/** By code: what throws it through the public API, with the fields that the error must then have. */
const cases = {
  ERR_DUPLICATE_DEFINITION: [
    { type: "note.written.1", message: /note\.written\.1 is defined already/ },
    () => {
      const registry = createRegistry()
      note(registry)
      note(registry)
    },
  ],
  ERR_FROZEN: [
    { type: "note.written.2", message: /has been frozen/ },
    () => {
      const { registry } = notes()
      note(registry, { version: 2 })
    },
  ],
  ERR_INVALID_ARGUMENT: [{ message: /afterPosition/ }, () => notes().store.readAll({ afterPosition: -1, limit: 1 })],
  ERR_STALE_VERSION: [
    { type: "note.written.1", expected: 2, got: 1 },
    () => {
      const registry = createRegistry()
      const First = note(registry)
      note(registry, { version: 2 })
      openOwn(newPath(), { registry }).run(First, { noteID: "a" })
    },
  ],
  ERR_WRONG_KIND: [
    { type: "note.written.1" },
    () => {
      const registry = createRegistry()
      const Note = note(registry, { ephemeral: true })
      openOwn(newPath(), { registry }).run(Note, { noteID: "a" })
    },
  ],
  ERR_AGGREGATE_REQUIRED: [
    { type: "note.written.1", field: "noteID", message: /note\.written\.1 .* data\.noteID, got 5/ },
    () => {
      const { store, Written } = notes()
      store.run(Written, { noteID: 5 })
    },
  ],
  ERR_INVALID_DATA: [
    { type: "note.written.1", aggregateID: "a", issues: (issues) => issues[0].path[0] === "text" },
    () => {
      const { store, Note } = storeOf()
      store.run(Note, { noteID: "a", text: 5 })
    },
  ],
  ERR_ASYNC_SCHEMA: [
    { type: "note.written.1" },
    () => {
      const { store, Note } = storeOf({ schema: asynchronous() })
      store.run(Note, { noteID: "a" })
    },
  ],
  ERR_TOO_LARGE: [
    { type: "note.written.1", limit: 20, size: 21 },
    () => {
      const { store, Written } = notes({ maxEventBytes: 20 })
      store.run(Written, { noteID: "12345678" })
    },
  ],
  ERR_NO_PROJECTOR: [
    { type: "note.written.1" },
    () => {
      const { store, Written } = notes({ projectors: [] })
      store.run(Written, { noteID: "a" })
    },
  ],
  ERR_ASYNC_PROJECTOR: [
    { type: "note.written.1" },
    () => {
      const { store, Note } = storeOf({}, async () => {})
      store.run(Note, { noteID: "a" })
    },
  ],
  ERR_IN_PROJECTOR: [
    { type: "note.written.1" },
    () => {
      const { store, Note } = storeOf({}, () => store.run(Note, { noteID: "b" }))
      store.run(Note, { noteID: "a" })
    },
  ],
  ERR_CONFLICT: [
    { aggregateID: "a", expected: 4, got: -1, message: /"a": expected seq 4, got -1/ },
    () => {
      const { store, Written } = notes()
      store.run(Written, { noteID: "a" }, { expectedSeq: 4 })
    },
  ],
  ERR_NOT_OWNER: [
    { aggregateID: "a", expected: "there", got: "here", epoch: 1 },
    () => {
      const { store, Written } = notes({ owner: "here" })
      store.claim("a", "there")
      store.run(Written, { noteID: "a" })
    },
  ],
  ERR_IN_TRANSACTION: [
    { message: /inside a transaction/ },
    () => {
      const { store } = notes()
      store.transaction(() => store.close())
    },
  ],
  ERR_ASYNC_TRANSACTION: [{ message: /synchronous/ }, () => notes().store.transaction(async () => {})],
  ERR_OVERFLOW: [
    { aggregateID: "a", seq: 10_000, limit: 10_000, type: "note.written" },
    async () => {
      const errors = []
      const { store, Written } = notes({
        convertEvent: () => new Promise(() => {}),
        onListenerError: (e) => errors.push(e),
      })
      store.subscribeAll(() => {})
      store.runAll(Array.from({ length: 10_001 }, () => [Written, { noteID: "a" }]))
      assert.equal(errors.length, 0, "10,000 may wait behind the one that is converted")
      store.run(Written, { noteID: "a" })
      assert.equal(errors.length, 1)
      throw errors[0]
    },
  ],
  ERR_INVALID_EVENT: [{ index: 1, field: "seq" }, () => notes().store.replayAll([written("a", 0), written("a", -1)])],
  ERR_UNKNOWN_EVENT: [
    { type: "note.burnt.1", aggregateID: "a", seq: 0, index: 0, message: /Unknown event type "note\.burnt\.1"/ },
    () => notes().store.replay(written("a", 0, { type: "note.burnt.1" })),
  ],
  ERR_AGGREGATE_MISMATCH: [
    { type: "note.written.1", aggregateID: "a", expected: "a", got: "b", index: 0, field: "noteID" },
    () => notes().store.replay(written("a", 0, { data: { noteID: "b" } })),
  ],
  ERR_REPLAY_DIVERGED: [
    { aggregateID: "a", seq: 0, type: "note.written.1", index: 0 },
    () => {
      const { store } = notes()
      store.replay(written("a", 0))
      store.replay(written("a", 0, { id: "evt_other" }))
    },
  ],
  ERR_SEQUENCE_MISMATCH: [
    { aggregateID: "a", expected: 1, got: 2, index: 1, message: /Sequence mismatch/ },
    () => notes().store.replayAll([written("a", 0), written("a", 2)]),
  ],
  ERR_INVALID_EXPORT: [
    { line: 1, expected: 1, got: 2, message: /line 1 has version 2/ },
    () => notes().store.import(['{"syncline":"export","version":2}\n']),
  ],
  ERR_BUSY: [
    // Nobody waits for what the same thread holds; what waiting in vain looks like is in 81 and 94.
    { waited: 0, sqliteCode: "SQLITE_BUSY", message: /locked: another connection of this thread.*waited 0 ms/ },
    () => {
      const { store, path } = notes()
      const other = notes({ migrate: undefined }, path)
      store.transaction(() => other.store.run(other.Written, { noteID: "a" }))
    },
  ],
  ERR_TIMEOUT: [
    { aggregateID: "a", expected: 3, got: 0, waited: (ms) => ms >= 19, message: /"a".*seq 0.*not 3/ },
    () => {
      const { store, Written } = notes()
      store.run(Written, { noteID: "a" })
      return store.waitFor({ a: 3 }, { timeout: 20 })
    },
  ],
  ERR_ABORTED: [
    { cause: "enough" },
    () => {
      const { store, Written } = notes()
      return store.runAsync(Written, { noteID: "a" }, { signal: AbortSignal.abort("enough") })
    },
  ],
  ERR_CLOSED: [
    {},
    () => {
      const { store, Written } = notes()
      store.close()
      store.run(Written, { noteID: "a" })
    },
  ],
  ERR_READONLY: [
    { sqliteCode: "SQLITE_READONLY", message: /opened read-only/ },
    () => {
      const { store, path } = notes()
      store.close()
      const reader = notes({ readonly: true }, path)
      reader.store.run(reader.Written, { noteID: "a" })
    },
  ],
  ERR_DISK_FULL: [
    { sqliteCode: "SQLITE_FULL", message: /\.db": .*nothing of the transaction was stored.*Free some space/ },
    () => {
      const { store, Written } = notes()
      store.db.pragma(`max_page_count = ${store.db.pragma("page_count", { simple: true })}`)
      store.run(Written, { noteID: "a", text: "x".repeat(100_000) })
    },
  ],
  ERR_FILE_GONE: [
    {
      sqliteCode: "SQLITE_READONLY_DBMOVED",
      message: /\.db" is not there, but ".*\.db-wal" is.*Put the database back/,
    },
    () => {
      const path = newPath()
      writeFileSync(`${path}-wal`, Buffer.alloc(4096))
      notes({}, path)
    },
  ],
  ERR_SQLITE: [
    { sqliteCode: "SQLITE_CONSTRAINT_NOTNULL", table: "note", constraint: "note.writes", message: /note\.writes/ },
    () => notes().store.db.exec("INSERT INTO note VALUES ('a', 'b', NULL)"),
  ],
  ERR_NOT_A_DATABASE: [
    { sqliteCode: "SQLITE_NOTADB", message: /is not a database/ },
    () => {
      const path = newPath()
      writeFileSync(
        path,
        "This is a letter, and it is long enough to be looked at as if it were a database. ".repeat(20),
      )
      notes({}, path)
    },
  ],
  ERR_CORRUPT: [
    { message: /"a" has lost the events after seq 0 and before 2/ },
    async () => {
      const { store, Written } = notes()
      store.runAll(Array.from({ length: 3 }, () => [Written, { noteID: "a" }]))
      store.db.exec("DELETE FROM event WHERE seq = 1")
      for await (const _ of store.log({ aggregateID: "a" }));
    },
  ],
  ERR_SCHEMA_NEWER: [
    { expected: 1, got: 2, message: /has format 2/ },
    () => {
      const { store, path } = notes()
      store.db.exec("UPDATE event_meta SET format = 2")
      store.close()
      notes({}, path)
    },
  ],
  ERR_FOREIGN_SCHEMA: [
    { message: /a table "event" that syncline did not make/ },
    () => {
      const { store, path } = notes()
      store.db.exec("DROP VIEW event_log; DROP TABLE event; CREATE TABLE event (at TEXT)")
      store.close()
      notes({}, path)
    },
  ],
}

/** Codes that a server answers with. */
const ofServers = answered(() => notes().store)

/** Codes that clients find out themselves. */
const ofClients = unanswered(() => notes().store)

/** Codes that no call can be made to throw, with the reason. */
const elsewhere = {
  // The module is refused while it loads: see the test of a process of its own below.
  ERR_UNSUPPORTED_RUNTIME: "thrown by require",
  // The same, of what is installed: see 152.loading and 153.addon-file.
  ERR_ADDON_NOT_LOADED: "thrown by require",
  // Only a bug in the core can make it panic, and none is known.
  ERR_POISONED: "a panic",
}

/** Codes that mean the same for calls of another kind, with the fields that they have there. */
const again = {
  "ERR_WRONG_KIND of publish": [
    { type: "note.written.1", message: /note\.written\.1/ },
    () => {
      const { store, Written } = notes()
      store.publish(Written, { noteID: "a" })
    },
  ],
  "ERR_OVERFLOW of a stream": [
    { delivered: new Map([["a", 0]]), position: 1, limit: 2, message: /2/ },
    async () => {
      const { store, Written } = notes()
      const stream = store.stream({ capacity: { events: 2 } })
      store.run(Written, { noteID: "a" })
      await stream.next()
      store.runAll(Array.from({ length: 3 }, () => [Written, { noteID: "a" }]))
      await stream.next()
    },
  ],
  "ERR_ABORTED of waitFor": [
    { cause: "enough" },
    () => notes().store.waitFor({ a: 0 }, { signal: AbortSignal.abort("enough") }),
  ],
  "ERR_CLOSED of waitFor": [
    {},
    () => {
      const { store } = notes()
      const waited = store.waitFor({ a: 0 })
      store.close()
      return waited
    },
  ],
}

describe("error codes", () => {
  for (const [name, [fields, act]] of Object.entries({ ...cases, ...ofServers, ...ofClients, ...again })) {
    const [code] = name.split(" ")
    test(`${name} is thrown through the public API, with its fields`, async () => {
      await assert.rejects(
        async () => act(),
        (error) => {
          coded(code, fields)(error)
          assert.equal(error.name, "SyncError")
          // What JSON is made of: under Bun an error has a hidden line of its own.
          const shown = Object.keys(fields).filter((field) => field !== "message" && field !== "cause")
          assert.deepEqual(
            Object.keys(error)
              .filter((field) => shown.includes(field))
              .toSorted(),
            shown.toSorted(),
          )
          assert.ok(error.message.length > 10, error.message)
          assert.doesNotMatch(error.message, /undefined|\[object|NaN/)
          return true
        },
      )
    })
  }

  test("every code of lib/errors.ts has a case here, and there is no case without a code", () => {
    const known = [cases, ofServers, ofClients, elsewhere].flatMap((list) => Object.keys(list))
    assert.deepEqual(known.toSorted(), codes.toSorted())
  })

  test("every code of the core is one of lib/errors.ts", () => {
    const core = new Set(
      read("src/error.rs")
        .match(/"ERR_[A-Z_]+"/g)
        .map((code) => code.slice(1, -1)),
    )
    assert.ok(core.size > 15)
    assert.deepEqual(
      [...core].filter((code) => !codes.includes(code)),
      [],
    )
  })

  test("docs/errors.md names every code and no other", () => {
    const documented = new Set(read("docs/errors.md").match(/\bERR_[A-Z_]+\b/g))
    assert.deepEqual([...documented].toSorted(), codes.toSorted())
  })

  test("ERR_UNSUPPORTED_RUNTIME is thrown before an addon is loaded that would crash", () => {
    const program = `
      Object.defineProperty(process, "versions", { value: { ...process.versions, napi: "7" } })
      try { require("syncline") } catch (error) { console.log(error.name, error.code) }
    `
    const { stdout, status } = spawnSync(process.execPath, ["-e", program], { cwd: root, encoding: "utf8" })
    assert.deepEqual({ stdout, status }, { stdout: "SyncError ERR_UNSUPPORTED_RUNTIME\n", status: 0 })
  })
})

describe("a SyncError", () => {
  test("is an Error whose stack begins at the caller, though Rust refused", () => {
    const { store, Written } = notes()
    try {
      store.run(Written, { noteID: "a" }, { expectedSeq: 4 })
      assert.fail()
    } catch (error) {
      assert.ok(error instanceof SyncError && error instanceof Error)
      assert.match(error.stack.split("\n")[0], /^SyncError: Conflict on aggregate "a"/)
      assert.ok(error.stack.includes(basename(__filename)), error.stack)
      assert.doesNotMatch(error.stack, /at call .*native/)
      assert.deepEqual(Object.keys(error).toSorted(), ["aggregateID", "code", "expected", "got"])
    }
  })

  test("never wraps what the caller's own code throws", () => {
    for (const thrown of [new TypeError("mine"), "text", null, undefined, 0, { code: "ERR_BUSY", fields: "{}" }]) {
      const { store, Note } = storeOf({}, () => {
        throw thrown
      })
      try {
        store.run(Note, { noteID: "a" })
        assert.fail("it was thrown")
      } catch (error) {
        assert.equal(error, thrown)
      }
      assert.equal(store.sequence("a"), -1)
    }
  })

  test("an error of the caller that looks like one of the core is not translated", () => {
    const lookalike = Object.assign(new Error("mine"), { code: "ERR_BUSY", fields: "{}" })
    const { store } = notes()
    store.db.function("refuse", () => {
      throw lookalike
    })
    assert.throws(
      () => store.db.prepare("SELECT refuse()").get(),
      (error) => error === lookalike,
    )
  })
})

function read(file) {
  const path = join(root, file)
  assert.ok(existsSync(path), `${file} is missing`)
  return readFileSync(path, "utf8")
}
