"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")
const { coded, dump, file, noteRows, notes, openNotes, refused, serialized } = require("./stores.js")

const TRAPS = `
  CREATE TRIGGER bang BEFORE INSERT ON note WHEN NEW.text = 'bang' BEGIN SELECT RAISE(ROLLBACK, 'bang'); END;
  CREATE TRIGGER pop BEFORE INSERT ON tag WHEN NEW.tag = 'bang' BEGIN SELECT RAISE(ROLLBACK, 'pop'); END;
  CREATE TABLE parent (id TEXT PRIMARY KEY);
  CREATE TABLE child (parent TEXT REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
  INSERT INTO note VALUES ('before', '', 0);
`

/** A store whose database ends transactions by itself, with one type that catches what its projector meets. */
function trapped(options) {
  const given = notes()
  const { registry } = given
  const schema = z.object({ noteID: z.string(), parent: z.string().optional() })
  const options_ = { version: 1, aggregate: "noteID", schema, registry }
  const Stubborn = define({ ...options_, type: "note.stubborn" })
  const Orphaned = define({ ...options_, type: "note.orphaned" })
  const OrphanedInSql = define({ ...options_, type: "note.orphaned-in-sql" })
  const caught = []
  given.projectors.push(
    project(Stubborn, (tx) => {
      for (let attempt = 0; attempt < 3; attempt++) {
        try {
          tx.exec(`INSERT INTO note VALUES ('stubborn ${attempt}', '${attempt === 0 ? "bang" : ""}', 0)`)
        } catch (error) {
          caught.push(error)
        }
      }
    }),
    project(Orphaned, (tx, { parent }) => void tx.prepare("INSERT INTO child VALUES (?)").run(parent)),
    project(OrphanedInSql, sql`INSERT INTO child VALUES (:data ->> '$.parent')`),
  )
  const store = openNotes(given, { migrate: (db) => db.exec(TRAPS), ...options })
  const heard = []
  store.subscribeAll(({ data, seq }) => heard.push(`${data.noteID}${seq}`))
  const bang = () => store.run(given.Written, { noteID: "n", text: "bang" })
  return { given, store, heard, caught, bang, Stubborn, Orphaned, OrphanedInSql }
}

const lost = (pattern) => coded("ERR_SQLITE", pattern, { sqliteCode: "SQLITE_CONSTRAINT_TRIGGER" })

describe("rule 11: SQLite ends the transaction by itself", () => {
  test("rule 11: RAISE(ROLLBACK) in a projector, in JavaScript and in SQL", () => {
    const { given, store, heard, bang } = trapped()
    refused(store, bang, lost(/bang/))
    refused(store, () => store.run(given.Tagged, { noteID: "n", tag: "bang" }), lost(/pop/))
    assert.deepEqual(heard, [])
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
    assert.deepEqual(heard, ["n0"])
  })

  test("rule 11: a projector that catches it and goes on autocommits nothing", () => {
    const { store, heard, caught, Stubborn } = trapped()
    refused(store, () => store.run(Stubborn, { noteID: "n" }), lost(/bang/))
    assert.equal(caught.length, 3)
    assert.ok(caught.every(lost(/bang/)))
    refused(store, () => store.replay(serialized("stubborn", 0, { noteID: "n" })), lost(/bang/))
    assert.deepEqual(heard, [])
  })

  test("rule 11: a transaction that goes on after it is refused every statement, and then fails", () => {
    const { given, store, heard, bang } = trapped()
    const statement = store.db.prepare("INSERT INTO note VALUES (?, '', 0)")
    const reader = store.db.prepare("SELECT count(*) FROM note")
    const attempts = [
      () => statement.run("autocommitted"),
      () => store.db.exec("INSERT INTO note VALUES ('autocommitted', '', 0)"),
      () => store.db.prepare("INSERT INTO note VALUES ('autocommitted', '', 0) RETURNING id").get(),
      () => reader.get(),
      () => reader.all(),
      () => [...reader.iterate()],
      () => store.db.exec("BEGIN"),
      () => store.db.exec("COMMIT"),
      () => store.db.exec("ROLLBACK"),
      () => store.db.exec("SAVEPOINT s"),
      () => store.db.pragma("foreign_keys = OFF"),
      () => store.run(given.Written, { noteID: "later" }),
      () => store.run(given.Tagged, { noteID: "later", tag: "t" }),
      () => store.runAll([[given.Written, { noteID: "later" }]]),
      () => store.replay(serialized("written", 0, { noteID: "later" })),
      () => store.claim("later", "me"),
      () => store.remove("n"),
      () => store.transaction(() => {}),
      () => store.db.transaction(() => {})(),
    ]
    let refusals = 0
    const fn = () => {
      store.run(given.Written, { noteID: "n" })
      assert.throws(bang, lost(/bang/))
      assert.equal(store.db.inTransaction, false)
      for (const attempt of attempts) assert.throws(attempt, lost(/bang/), String(attempt))
      refusals++
      return "as if nothing had happened"
    }
    refused(store, () => store.transaction(fn), lost(/bang/))
    refused(store, () => store.db.transaction(fn)(), lost(/bang/))
    refused(store, () => store.db.transaction(fn).deferred(), lost(/bang/))
    assert.equal(refusals, 3)
    assert.deepEqual(heard, [])
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
  })

  test("rule 11: what fn throws after it is what the caller gets", () => {
    const { store, bang } = trapped()
    const own = new Error("own")
    const fn = () => {
      assert.throws(bang)
      throw own
    }
    refused(
      store,
      () => store.transaction(fn),
      (error) => error === own,
    )
  })

  test("rule 11: in a nested transaction it ends all of them", () => {
    const { given, store, heard, bang } = trapped()
    const fn = () => {
      store.run(given.Written, { noteID: "a" })
      store.db.exec("SAVEPOINT raw")
      assert.throws(() =>
        store.transaction(() => {
          store.run(given.Written, { noteID: "b" })
          assert.throws(bang, lost(/bang/))
        }),
      )
      assert.throws(() => store.db.exec("ROLLBACK TO raw"), lost(/bang/))
      assert.throws(() => store.run(given.Written, { noteID: "c" }), lost(/bang/))
    }
    refused(store, () => store.transaction(fn), lost(/bang/))
    assert.deepEqual(heard, [])
  })

  test("rule 11: INSERT OR ROLLBACK of the transaction's own is the same", () => {
    const { given, store, heard } = trapped()
    const fn = () => {
      store.run(given.Written, { noteID: "a" })
      assert.throws(() => store.db.exec("INSERT OR ROLLBACK INTO note VALUES ('before', '', 0)"), coded("ERR_SQLITE"))
      assert.throws(() => store.run(given.Written, { noteID: "b" }), coded("ERR_SQLITE"))
    }
    refused(store, () => store.transaction(fn), coded("ERR_SQLITE", /UNIQUE/))
    assert.deepEqual(heard, [])
  })

  test("rule 11: in a batch that is replayed, it takes the whole batch", () => {
    const { store } = trapped()
    const items = [0, 1, 2].map((seq) => serialized("written", seq, { noteID: "n", text: seq === 1 ? "bang" : "" }))
    const more = [serialized("tagged", 0, { noteID: "m", tag: "t" })]
    refused(store, () => store.replayAll([...more, ...items]), lost(/bang/))
    const tags = [0, 1, 2].map((seq) => serialized("tagged", seq, { noteID: "n", tag: seq === 1 ? "bang" : "" }))
    refused(store, () => store.replayAll([...items.slice(0, 1), ...tags.slice(1)], { publish: true }), lost(/pop/))
  })

  test("rule 11: in a raw transaction of the caller's own it is the caller's own matter", () => {
    const { given, store } = trapped()
    store.db.exec("BEGIN; INSERT INTO note VALUES ('raw', '', 0)")
    assert.throws(() => store.db.exec("INSERT INTO note VALUES ('n', 'bang', 0)"), lost(/bang/))
    assert.equal(store.db.inTransaction, false)
    assert.deepEqual(noteRows(store), [["before", "", 0]])
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
  })

  test("rule 11: a full disk leaves the database as it was", () => {
    const { given, store, heard } = trapped()
    store.run(given.Written, { noteID: "n" })
    const pages = store.db.pragma("page_count", { simple: true })
    store.db.pragma(`max_page_count = ${pages + 2}`)
    const full = coded("ERR_DISK_FULL", /full/, { sqliteCode: "SQLITE_FULL" })
    const text = "x".repeat(100_000)
    refused(store, () => store.run(given.Written, { noteID: "n", text }), full)
    refused(store, () => store.run(given.Tagged, { noteID: "n", tag: text }), full)
    const items = [1, 2].map((seq) => serialized("written", seq, { noteID: "n", text }))
    refused(store, () => store.replayAll(items), full)
    const fn = () => {
      store.run(given.Seen, { noteID: "n" })
      assert.throws(() => store.run(given.Written, { noteID: "n", text }), full)
      throw new Error("enough")
    }
    refused(store, () => store.transaction(fn), /enough/)
    store.db.pragma("max_page_count = 100000")
    assert.equal(store.run(given.Written, { noteID: "n", text }).seq, 1)
    assert.deepEqual(heard, ["n0", "n1"])
  })

  test("a full disk that ends one statement alone parks no aggregate", () => {
    const registry = createRegistry()
    const Filled = define({
      type: "filled",
      version: 1,
      aggregate: "id",
      schema: z.object({ id: z.string() }),
      registry,
    })
    // Several rows under a constraint: SQLite takes back such a statement, and leaves the transaction open.
    const fill = sql`INSERT INTO blob SELECT :aggregateID || value, zeroblob(100000) FROM json_each('[1, 2, 3]')`
    const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS blob (id UNIQUE, bytes)")
    const store = open(file(), { registry, projectors: [project(Filled, fill)], migrate })
    const items = ["a", "b"].map((id) => ({ id: `evt_${id}`, type: "filled.1", seq: 0, aggregateID: id, data: { id } }))
    const pages = store.db.pragma("page_count", { simple: true })
    store.db.pragma(`max_page_count = ${pages + 10}`)
    const full = coded("ERR_DISK_FULL", /full/, { sqliteCode: "SQLITE_FULL" })
    assert.throws(() => store.replayAll(items, { onError: "park" }), full)
    assert.equal(store.aggregates().length, 0)
    store.db.pragma("max_page_count = 100000")
    assert.equal(store.replayAll(items, { onError: "park" }).filter(({ applied }) => applied === 1).length, 2)
    store.close()
  })
})

describe("rule 11: COMMIT fails on a deferred constraint", () => {
  const foreign = coded("ERR_SQLITE", /FOREIGN KEY/, { sqliteCode: "SQLITE_CONSTRAINT_FOREIGNKEY" })

  test("rule 11: a run is rolled back, and its event is not published, then or later", () => {
    const { given, store, heard, Orphaned, OrphanedInSql } = trapped()
    refused(store, () => store.run(Orphaned, { noteID: "n", parent: "none" }), foreign)
    refused(store, () => store.run(OrphanedInSql, { noteID: "n", parent: "none" }), foreign)
    refused(
      store,
      () =>
        store.runAll([
          [given.Written, { noteID: "n" }],
          [Orphaned, { noteID: "n", parent: "x" }],
        ]),
      foreign,
    )
    assert.deepEqual(heard, [])
    store.db.exec("INSERT INTO parent VALUES ('there')")
    assert.equal(store.run(Orphaned, { noteID: "n", parent: "there" }).seq, 0)
    assert.equal(store.run(OrphanedInSql, { noteID: "n", parent: "there" }).seq, 1)
    assert.deepEqual(heard, ["n0", "n1"])
  })

  test("rule 11: so are a transaction, a replay, a claim inside and an asynchronous run", async () => {
    const { given, store, heard, Orphaned } = trapped()
    const orphan = () => store.run(Orphaned, { noteID: "n", parent: "none" })
    refused(
      store,
      () =>
        store.transaction(() => {
          store.run(given.Written, { noteID: "a" })
          store.claim("b", "me")
          orphan()
        }),
      foreign,
    )
    refused(store, () => store.db.transaction(orphan)(), foreign)
    const items = [serialized("written", 0, { noteID: "n" }), serialized("orphaned", 1, { noteID: "n", parent: "x" })]
    refused(store, () => store.replayAll(items, { publish: true }), foreign)
    const before = dump(store)
    await assert.rejects(store.runAsync(Orphaned, { noteID: "n", parent: "none" }), foreign)
    await assert.rejects(store.replayAllAsync(items, { publish: true }), foreign)
    assert.deepEqual(dump(store), before)
    assert.deepEqual(heard, [])
  })

  test("rule 11: what is mended before the COMMIT commits", () => {
    const { store, heard, Orphaned } = trapped()
    store.transaction(() => {
      store.run(Orphaned, { noteID: "n", parent: "late" })
      store.db.exec("INSERT INTO parent VALUES ('late')")
    })
    assert.deepEqual(heard, ["n0"])
  })
})
