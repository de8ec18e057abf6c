"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { integer, sqliteTable, text } = require("drizzle-orm/sqlite-core")
const { z } = require("zod")
const { define, project, sql } = require("syncline")
const { drizzle } = require("syncline/drizzle")
const { coded, dump, file, noteRows, notes, openNotes, refused, serialized, turns } = require("./stores.js")

/** A store whose `Poked` events are projected by `poke.now`, which each test sets. */
function poking(options) {
  const given = notes()
  const Poked = define({
    type: "note.poked",
    version: 1,
    aggregate: "noteID",
    schema: z.object({ noteID: z.string() }),
    registry: given.registry,
  })
  const poke = { now: () => {} }
  given.projectors.push(project(Poked, (tx, data, event) => poke.now(tx, data, event)))
  const store = openNotes(given, options)
  const run = () => store.run(Poked, { noteID: "n" })
  const replay = () => store.replay(serialized("poked", 0, { noteID: "n" }))
  return { given, store, Poked, poke, run, replay }
}

describe("rule 8: synchronous", () => {
  const rejecting = () => Promise.reject(new Error("late"))
  const thenables = {
    "an async function": async () => {},
    "a promise that rejects": rejecting,
    // oxlint-disable-next-line unicorn/no-thenable -- what is no promise may still be one to whoever awaits it.
    "a thenable": () => ({ then: () => {} }),
  }
  for (const [name, projector] of Object.entries(thenables)) {
    test(`rule 8: ${name} is refused at run and at replay, and leaves nothing`, async () => {
      const { store, poke, run, replay } = poking()
      poke.now = (tx) => {
        tx.exec("INSERT INTO note VALUES ('half', '', 0)")
        return projector()
      }
      refused(store, run, coded("ERR_ASYNC_PROJECTOR", /note\.poked\.1/, { type: "note.poked.1" }))
      refused(store, replay, coded("ERR_ASYNC_PROJECTOR", /note\.poked\.1/))
      await turns()
    })
  }

  test("rule 8: a drizzle query that nobody ran is refused, and does not run afterwards", async () => {
    const { store, poke, run, replay } = poking()
    const note = sqliteTable("note", { id: text(), text: text(), seq: integer() })
    const late = () => drizzle(store.db).insert(note).values({ id: "late", text: "", seq: 0 })
    poke.now = late
    refused(store, run, coded("ERR_ASYNC_PROJECTOR"))
    refused(store, replay, coded("ERR_ASYNC_PROJECTOR"))
    refused(store, () => store.transaction(late), coded("ERR_ASYNC_TRANSACTION"))
    await turns()
    assert.deepEqual(noteRows(store), [])
  })

  test("rule 8: any other result is ignored", () => {
    const { poke, run } = poking()
    for (const result of [null, 0, "x", {}, [], () => {}]) {
      poke.now = () => result
      run()
    }
  })
})

describe("rule 8: what a projector may not do", () => {
  const forbidden = {
    run: ({ store, given }) => store.run(given.Written, { noteID: "n" }),
    runAll: ({ store, given }) => store.runAll([[given.Written, { noteID: "n" }]]),
    replay: ({ store }) => store.replay(serialized("written", 0, { noteID: "other" })),
    replayAll: ({ store }) => store.replayAll([]),
    claim: ({ store }) => store.claim("other", "me"),
    remove: ({ store }) => store.remove("n"),
    transaction: ({ store }) => store.transaction(() => {}),
    "db.transaction": ({ store }) => store.db.transaction(() => {})(),
    "deferred db.transaction": ({ store }) => store.db.transaction(() => {}).deferred(),
    "raw BEGIN": ({ store }) => store.db.exec("BEGIN"),
    "raw COMMIT": ({ store }) => store.db.exec("COMMIT"),
    "raw ROLLBACK": ({ store }) => store.db.prepare("ROLLBACK").run(),
    "raw END": ({ store }) => store.db.exec("END TRANSACTION"),
    "raw SAVEPOINT": ({ store }) => store.db.exec("SAVEPOINT s"),
    "raw RELEASE": ({ store }) => store.db.exec("RELEASE syncline_1"),
    "a control statement behind another": ({ store }) => store.db.exec("SELECT 1; /* x */ COMMIT"),
    close: ({ store }) => store.close(),
    "reading Syncline's tables": ({ store }) => store.db.prepare("SELECT count(*) FROM event").get(),
    "reading Syncline's view": ({ store }) => store.db.prepare("SELECT count(*) FROM event_log").get(),
    "writing Syncline's tables": ({ store }) => store.db.exec("UPDATE event_sequence SET seq = 7"),
    "Syncline's tables in a subquery": ({ store }) =>
      store.db.exec("INSERT INTO note SELECT aggregate_id, '', seq FROM main.\"EVENT_SEQUENCE\""),
  }
  for (const [name, act] of Object.entries(forbidden)) {
    test(`rule 8: ${name}, uncaught or caught`, () => {
      const setting = poking()
      const { store, poke, run, replay } = setting
      store.run(setting.given.Written, { noteID: "before" })
      poke.now = () => act(setting)
      refused(store, run, coded("ERR_IN_PROJECTOR"))
      refused(store, replay, coded("ERR_IN_PROJECTOR"))
      const caught = []
      poke.now = (tx) => {
        try {
          act(setting)
        } catch (error) {
          caught.push(error)
        }
        tx.exec("INSERT INTO note VALUES ('kept', '', 0)")
      }
      assert.equal(run().seq, 0)
      assert.ok(caught.every(coded("ERR_IN_PROJECTOR")) && caught.length === 1)
      assert.deepEqual(
        store.read("n").map(({ seq }) => seq),
        [0],
      )
      assert.equal(noteRows(store).length, 2)
      assert.equal(store.db.inTransaction, false)
    })
  }

  test("rule 8: a statement prepared outside is refused inside just the same", () => {
    const { store, poke, run } = poking()
    const statements = ["SELECT seq FROM event_sequence", "COMMIT", "SAVEPOINT s"].map((text) => store.db.prepare(text))
    for (const statement of statements) {
      poke.now = () => (statement.reader ? statement.get() : statement.run())
      refused(store, run, coded("ERR_IN_PROJECTOR"))
    }
    assert.equal(statements[0].get(), undefined)
  })

  test("rule 8: asynchronous writes asked for inside are refused", async () => {
    const { store, given, poke, run } = poking()
    const asked = []
    poke.now = () => {
      asked.push(store.runAsync(given.Written, { noteID: "m" }))
      asked.push(store.runAllAsync([[given.Written, { noteID: "m" }]]))
      asked.push(store.replayAllAsync([serialized("written", 0, { noteID: "m" })]))
    }
    run()
    for (const promise of asked) await assert.rejects(promise, coded("ERR_IN_PROJECTOR"))
    assert.equal(store.sequence("m"), -1)
  })

  test("mistake 5: an event run inside a projector of its own aggregate never takes the same seq", () => {
    const { store, Poked, poke, run } = poking()
    let depth = 0
    poke.now = () => {
      if (depth++ < 3) store.run(Poked, { noteID: "n" })
    }
    refused(store, run, coded("ERR_IN_PROJECTOR", /note\.poked\.1/))
    poke.now = () => {}
    assert.equal(run().seq, 0)
  })

  test("rule 8: the ban ends with the projector, however it ends", () => {
    const { store, given, poke, run } = poking()
    poke.now = () => {
      throw new Error("no")
    }
    assert.throws(run, /no/)
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
    store.transaction(() => {
      assert.throws(run, /no/)
      assert.equal(store.run(given.Tagged, { noteID: "n", tag: "t" }).seq, 1)
      assert.equal(store.db.prepare("SELECT count(*) FROM event").pluck().get(), 2)
    })
  })

  test("rule 8: reading through another connection, and subscribing, are no concern of the rule", () => {
    const { store, poke, run } = poking()
    const heard = []
    poke.now = () => {
      store.subscribeAll((event) => heard.push(event.seq))
    }
    run()
    assert.equal(heard.length, 1)
  })
})

describe("rule 8: SQL projectors", () => {
  const failing = (...statements) => {
    const given = notes()
    given.projectors[1] = project(given.Tagged, statements)
    const store = openNotes(given, { path: file(`${Math.random()}.db`) })
    return { store, run: () => store.run(given.Tagged, { noteID: "n", tag: "t" }) }
  }

  test("rule 8: they may not end transactions, nor see Syncline's tables", () => {
    const statements = [
      sql`COMMIT`,
      sql`SAVEPOINT s`,
      sql`UPDATE event SET seq = seq + 1`,
      sql`INSERT INTO note SELECT id, data, seq FROM event_log WHERE seq < :seq`,
    ]
    for (const statement of statements) {
      const { store, run } = failing(sql`INSERT INTO tag VALUES ('half', '', 0)`, statement)
      refused(store, run, coded("ERR_IN_PROJECTOR"))
    }
  })

  test("rule 8: unknown and positional parameters, and nonsense, show at the first use", () => {
    const cases = [
      [sql`INSERT INTO tag VALUES (:noteID, '', 0)`, coded("ERR_INVALID_ARGUMENT", /:noteID.*:data/)],
      [sql`INSERT INTO tag VALUES (?, '', 0)`, coded("ERR_INVALID_ARGUMENT", /without a name/)],
      [sql`INSERT INTO tag VALUES (@data, '', 0)`, coded("ERR_INVALID_ARGUMENT", /@data/)],
      [sql`INSRT INTO tag`, coded("ERR_SQLITE", /note\.tagged\.1/)],
      [sql`INSERT INTO tag VALUES ('a', '', 0); DROP TABLE note`, coded("ERR_INVALID_ARGUMENT")],
    ]
    for (const [statement, expected] of cases) {
      const { store, run } = failing(statement)
      refused(store, run, expected)
    }
  })

  test("rule 8: statements that give rows are stepped to their end", () => {
    const { store, run } = failing(
      sql`INSERT INTO tag SELECT value, :aggregateID, :seq FROM json_each('[1,2,3]') RETURNING *`,
      sql`SELECT * FROM tag`,
    )
    run()
    assert.equal(store.db.prepare("SELECT count(*) FROM tag").pluck().get(), 3)
  })
})

describe("rule 8: no projector", () => {
  test("rule 8: a recorded type without one is refused at run and replay", () => {
    const given = notes()
    given.projectors.length = 0
    const store = openNotes(given)
    const missing = coded("ERR_NO_PROJECTOR", /note\.written\.1/, { type: "note.written.1" })
    refused(store, () => store.run(given.Written, { noteID: "n" }), missing)
    refused(store, () => store.replay(serialized("written", 0, { noteID: "n" })), missing)
    refused(store, () => store.remove("n", { event: [given.Written, { noteID: "n" }] }), missing)
  })

  test('rule 8: with projector: "none" it is recorded and published', () => {
    const given = notes()
    const store = openNotes(given)
    const heard = []
    store.subscribe(given.Seen, ({ seq }) => heard.push(seq))
    const before = dump(store).filter(([name]) => !name.startsWith("event"))
    store.run(given.Seen, { noteID: "n" })
    store.replay(serialized("seen", 1, { noteID: "n" }))
    assert.deepEqual(heard, [0])
    assert.equal(store.sequence("n"), 1)
    assert.deepEqual(
      dump(store).filter(([name]) => !name.startsWith("event")),
      before,
    )
  })
})
