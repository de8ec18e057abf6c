"use strict"

// Writes that come too late: a message for a session that is gone. What a constraint refuses is named, and a definition may
// have it skipped.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { SyncError, createRegistry, define, open, project, sql } = require("syncline")
const { SyncEvent } = require("syncline/sync-event")
const { TABLES, kept, newPath, removed, sessions, statementOf, types, ways } = require("./late-sessions")
const { coded, dump } = require("./notes")

const late = { sessionID: "gone", messageID: "m1", text: "late" }
/** What the refusal of the late message must say, by field and in its message. */
const named = (more = {}) =>
  coded("ERR_SQLITE", {
    sqliteCode: "SQLITE_CONSTRAINT_FOREIGNKEY",
    table: "message",
    constraint: "message(sessionID) → session(id)",
    type: "message.updated.1",
    aggregateID: "gone",
    seq: 3,
    message:
      /^FOREIGN KEY constraint failed: message\(sessionID\) → session\(id\): in the (SQL )?projector of message\.updated\.1 \(aggregate "gone", seq 3\)$/,
    stack: /^SyncError: FOREIGN KEY constraint failed: message.*seq 3\)\n +at /,
    ...more,
  })

describe("a message for a session that was removed", () => {
  for (const way of [...Object.keys(ways), "SyncEvent"]) {
    test(`is refused with a name for everything, and leaves nothing (${way})`, () => {
      const { store, skipped, run, Written } = removed(way)
      const before = dump(store.db)
      const heard = []
      store.subscribeAll((event) => heard.push(event.seq))
      assert.throws(() => run(Written, late), named())
      assert.deepEqual(dump(store.db), before)
      assert.deepEqual([heard, skipped], [[], []])
      assert.equal(run(Written, { sessionID: "other", messageID: "m2" }).seq, 1)
    })

    test(`is recorded, published and told of where the definition skips (${way})`, () => {
      const { store, skipped, run, Written } = removed(way, { onConstraint: "skip" })
      const rows = () => ["session", "message"].map((table) => store.db.prepare(`SELECT * FROM ${table}`).all())
      const before = rows()
      const heard = []
      store.subscribeAll((event) => heard.push([event.seq, event.data.text]))
      const event = run(Written, late)
      assert.equal(event.seq, 3)
      assert.deepEqual(rows(), before, "what the projector did before the failure is taken back, too")
      assert.deepEqual(store.get("gone", 3).data, late)
      assert.deepEqual(heard, [[3, "late"]])
      assert.equal(skipped.length, 1)
      assert.ok(named()(skipped[0].error))
      assert.equal(skipped[0].event.id, event.id)
      assert.deepEqual(skipped[0].event.data, late)
      // The next one is in time.
      run(Written, { sessionID: "other", messageID: "m2" })
      assert.equal(skipped.length, 1)
      assert.equal(store.db.prepare("SELECT count(*) FROM message").pluck().get(), 1)
    })
  }

  test("is skipped by every call that projects, and by every reader alike", async () => {
    for (const way of ["JavaScript", "SQL"]) {
      const options = { onConstraint: "skip" }
      const { store, skipped, Created, Written } = removed(way, options)
      const inTime = { sessionID: "other", messageID: "m2" }
      store.runAll([
        [Written, late],
        [Written, { sessionID: "other", messageID: "m3" }],
        [Written, { ...late, messageID: "m4" }],
      ])
      await store.runAsync(Written, late)
      await store.runAllAsync([
        [Written, late],
        [Written, inTime],
      ])
      store.transaction(() => store.run(Written, late))
      store.run(Created, { sessionID: "new" })
      store.remove("gone", { event: [Written, late] })
      const seqs = (list) => list.map(({ error, event }) => (assert.equal(error.seq, event.seq), event.seq))
      assert.deepEqual(seqs(skipped), [3, 4, 5, 6, 7, 8])
      const items = []
      for (const aggregateID of ["gone", "other", "new"]) {
        for await (const item of store.log({ aggregateID })) items.push(item)
      }
      for (const publish of [false, true]) {
        const reader = sessions(way, options)
        const heard = []
        reader.store.subscribeAll((event) => heard.push(event.seq))
        reader.store.replayAll(items, { publish })
        assert.deepEqual(seqs(reader.skipped), [8], "what was removed is not replayed; the deletion event is skipped")
        assert.ok(heard.length === (publish ? 5 : 0))
        const [{ message, session }, read] = [dump(store.db), dump(reader.store.db)]
        assert.deepEqual([read.message, read.session], [message, session])
      }
    }
  })

  test("is skipped by replays of every kind, in the order of the events, once for each", async () => {
    for (const way of ["JavaScript", "SQL"]) {
      // Over several pages, in both languages by turns.
      const lines = Array.from({ length: 510 }, (_, seq) => ({
        id: `evt_${seq}`,
        type: seq % 3 === 0 ? "message.streamed.1" : "message.updated.1",
        seq,
        aggregateID: "gone",
        data: { sessionID: "gone", messageID: `m${seq}`, text: "" },
      }))
      const options = { onConstraint: "skip" }
      const replays = {
        replay: (store) => lines.slice(0, 50).forEach((line) => store.replay(line)),
        replayAll: (store) => store.replayAll(lines),
        published: (store) => store.replayAll(lines, { publish: true }),
        text: (store) => store.replayAll(JSON.stringify(lines)),
        spaced: (store) => store.replayAll(JSON.stringify(lines, null, 1)),
        async: (store) => store.replayAllAsync(lines),
      }
      for (const validate of ["always", "never"]) {
        for (const [name, replay] of Object.entries(replays)) {
          const { store, skipped } = sessions(way, options, { validate })
          await replay(store)
          const last = name === "replay" ? 49 : 509
          assert.equal(store.sequence("gone"), last)
          assert.deepEqual(
            skipped.map(({ error, event }) => [error.type, event.seq, event.id, event.data.messageID]),
            lines.slice(0, last + 1).map(({ type, seq, id, data }) => [type, seq, id, data.messageID]),
            `${way}, ${name}, ${validate}`,
          )
          assert.deepEqual(store.db.prepare("SELECT * FROM message").all(), [])
          store.replayAll(lines.slice(0, last + 1))
          assert.equal(skipped.length, last + 1, "a duplicate is not projected, and so not skipped")
        }
      }
    }
  })

  test("is skipped where nothing is recorded", () => {
    for (const way of ["JavaScript", "SQL"]) {
      const { store, skipped, Written } = sessions(way, { onConstraint: "skip" }, { record: false })
      const heard = []
      store.subscribeAll((event) => heard.push(event.seq))
      store.run(Written, late)
      assert.deepEqual(heard, [-1])
      assert.equal(skipped.length, 1)
      assert.equal(skipped[0].error.seq, -1)
    }
  })

  test("is skipped by the rule of the newest version, to which an older one is upcast", () => {
    for (const apply of [ways.JavaScript.Written, ways.SQL.Written]) {
      const registry = createRegistry()
      const shape = { type: "message.updated", aggregate: "sessionID", registry }
      define({ ...shape, version: 1, schema: z.object({ sessionID: z.string(), id: z.string() }) })
      const upcast = { 1: ({ sessionID, id }) => ({ sessionID, messageID: id, text: "old" }) }
      const Second = define({ ...shape, version: 2, schema: z.object(types.Written[1]), upcast })
      const skipped = []
      const options = { registry, migrate: (db) => db.exec(TABLES), onSkipped: (error) => skipped.push(error.type) }
      const projectors = [project(Second, apply, { onConstraint: "skip" })]
      const store = kept(open(newPath(), { ...options, projectors }))
      const first = { id: "evt_0", type: "message.updated.1", seq: 0, aggregateID: "gone" }
      store.replay({ ...first, data: { sessionID: "gone", id: "m" } })
      store.run(Second, late)
      assert.deepEqual(skipped, ["message.updated.1", "message.updated.2"])
      assert.equal(store.sequence("gone"), 1)
    }
  })
})

describe("onSkipped", () => {
  const skipping = (given, way = "JavaScript") => removed(way, { onConstraint: "skip" }, given)

  test("hears only of what is committed, after the outermost commit, in order", () => {
    for (const way of ["JavaScript", "SQL"]) {
      const { store, skipped, Written } = skipping({}, way)
      const ids = () => skipped.map(({ event }) => event.data.messageID)
      const run = (messageID) => store.run(Written, { ...late, messageID })
      store.transaction(() => {
        run("a")
        assert.throws(() =>
          store.transaction(() => {
            run("taken back")
            throw new Error("changed my mind")
          }),
        )
        store.transaction(() => run("b"))
        store.db.exec("SAVEPOINT raw")
        store.db.exec("ROLLBACK TO raw; RELEASE raw")
        run("c")
        assert.deepEqual(ids(), [])
      })
      assert.deepEqual(ids(), ["a", "b", "c"])
      assert.throws(() =>
        store.transaction(() => {
          run("d")
          throw new Error("all of it")
        }),
      )
      run("e")
      assert.deepEqual(ids(), ["a", "b", "c", "e"])
      assert.equal(store.sequence("gone"), 6)
    }
  })

  test("hears in the order of commits, whoever commits: a listener, or itself", () => {
    const told = []
    const heard = []
    const log = skipping({
      onSkipped: (_error, event) => {
        told.push(event.data.messageID)
        if (event.data.messageID === "first") log.store.run(log.Written, { ...late, messageID: "by onSkipped" })
      },
    })
    const { store, Written } = log
    store.subscribe(Written, ({ data }) => {
      heard.push(data.messageID)
      if (data.messageID === "first") store.run(Written, { ...late, messageID: "by a listener" })
    })
    store.run(Written, { ...late, messageID: "first" })
    assert.deepEqual(told, ["first", "by a listener", "by onSkipped"])
    assert.deepEqual(heard, told)
  })

  test("never makes a run look failed", async () => {
    const warnings = []
    // Of ours: a runtime has warnings of its own.
    const onWarning = ({ name, code, message }) => name === "SynclineWarning" && warnings.push([code, message])
    process.on("warning", onWarning)
    const throwing = () => {
      throw new SyncError("ERR_CLOSED", "no")
    }
    const hostile = [throwing, () => Promise.reject(new Error("later")), () => Promise.resolve()]
    for (const onSkipped of hostile) {
      const { store, Written } = skipping({ onSkipped })
      const events = store.runAll([
        [Written, late],
        [Written, late],
      ])
      assert.deepEqual([events[0].seq, events[1].seq], [3, 4])
    }
    const closing = skipping({ onSkipped: () => closing.store.close() })
    assert.equal(closing.store.run(closing.Written, late).seq, 3)
    await new Promise(setImmediate)
    process.off("warning", onWarning)
    assert.deepEqual(
      warnings.map(([code]) => code),
      ["ERR_CLOSED", "ERR_CLOSED", "LISTENER_FAILED", "LISTENER_FAILED"],
    )
    for (const [, text] of warnings)
      assert.match(text, /onSkipped failed.*"message\.updated" \(aggregate "gone", seq [34]\)/)
  })

  test("is a process warning by default, since nobody misses what is skipped in silence", async () => {
    const warnings = []
    const onWarning = (warning) => warnings.push(warning)
    process.on("warning", onWarning)
    const { store, Written } = skipping({ onSkipped: undefined })
    store.run(Written, late)
    await new Promise(setImmediate)
    process.off("warning", onWarning)
    assert.equal(warnings.length, 1)
    assert.equal(warnings[0].code, "PROJECTOR_SKIPPED")
    assert.match(warnings[0].message, /"message\.updated".*"gone".*seq 3.*message\(sessionID\) → session\(id\)/)
  })
})

describe("what is not skipped", () => {
  /** A store with one definition that skips, projected by `apply`. */
  function skipper(apply, tables = TABLES) {
    const registry = createRegistry()
    const schema = z.looseObject({ sessionID: z.string() })
    const Noted = define({ type: "session.noted", version: 1, aggregate: "sessionID", schema, registry })
    const skipped = []
    const projectors = [project(Noted, apply, { onConstraint: "skip" })]
    const onSkipped = (error, event) => skipped.push([error.message, event.seq])
    const store = kept(open(newPath(), { registry, projectors, migrate: (db) => db.exec(tables), onSkipped }))
    const before = dump(store.db)
    /** Nothing of a failed run is left, and the store goes on. */
    const untouched = () => {
      assert.deepEqual(dump(store.db), before)
      assert.deepEqual(skipped, [])
      assert.equal(store.db.inTransaction, false)
    }
    return { store, Noted, skipped, untouched, run: () => store.run(Noted, { sessionID: "s" }) }
  }

  test("a throw that is no constraint's, whatever it is", () => {
    const cyclic = new Error("cyclic")
    cyclic.cause = cyclic
    const unreadable = new Proxy(new Error("proxy"), {
      get() {
        throw new Error("trapped")
      },
    })
    for (const thrown of [new Error("mine"), null, undefined, "text", cyclic, unreadable, Object.create(null)]) {
      const { run, untouched } = skipper((tx) => {
        tx.prepare("INSERT INTO session VALUES ('s', '')").run()
        throw thrown
      })
      let got = "nothing"
      try {
        run()
      } catch (error) {
        got = error
      }
      assert.ok(Object.is(got, thrown))
      untouched()
    }
    const failing = [
      ["ERR_SQLITE", (tx) => tx.exec("INSERT INTO missing VALUES (1)")],
      ["ERR_IN_PROJECTOR", (tx) => tx.exec("SAVEPOINT mine")],
      ["ERR_IN_PROJECTOR", (tx) => tx.exec("RELEASE syncline_projector")],
      ["ERR_ASYNC_PROJECTOR", () => Promise.resolve()],
      ["ERR_SQLITE", sql`INSERT INTO missing VALUES (1)`],
    ]
    for (const [code, apply] of failing) {
      const { run, untouched } = skipper(apply)
      assert.throws(run, coded(code))
      untouched()
    }
  })

  test("what ends the whole transaction", () => {
    const tables = `${TABLES}
      CREATE TRIGGER ends BEFORE INSERT ON part WHEN NEW.id = 'ends' BEGIN SELECT RAISE(ROLLBACK, 'ended'); END;
      CREATE TRIGGER aborts BEFORE INSERT ON part WHEN NEW.id = 'aborts' BEGIN SELECT RAISE(ABORT, 'aborted'); END;
      INSERT INTO session VALUES ('s', '');
    `
    const ending = ["INSERT INTO part (id) VALUES ('ends')", "INSERT OR ROLLBACK INTO session VALUES ('s', '')"]
    for (const statement of ending) {
      const text = statementOf(statement)
      const applies = [
        (tx) => tx.exec(statement),
        (tx) => void tx.prepare(statement).run(),
        text,
        (tx) => {
          assert.throws(() => tx.exec(statement))
          // It goes on as if nothing had happened: each further statement is refused, and so is the commit.
          assert.throws(() => tx.exec("INSERT INTO session VALUES ('autocommitted', '')"), coded("ERR_SQLITE"))
        },
      ]
      for (const apply of applies) {
        const { store, run, untouched } = skipper(apply, tables)
        assert.throws(run, coded("ERR_SQLITE", { sqliteCode: /^SQLITE_CONSTRAINT_/ }))
        untouched()
        assert.throws(() => store.transaction(() => void assert.throws(run)), coded("ERR_SQLITE"))
        untouched()
      }
    }
    const { run, skipped } = skipper((tx) => tx.exec("INSERT INTO part (id) VALUES ('aborts')"), tables)
    assert.equal(run().seq, 0)
    assert.deepEqual(skipped, [['aborted: in the projector of session.noted.1 (aggregate "s", seq 0)', 0]])
  })

  test("a constraint that only COMMIT checks: it is named, with the one event of its transaction", () => {
    const tables =
      "CREATE TABLE child (a TEXT REFERENCES parent DEFERRABLE INITIALLY DEFERRED); CREATE TABLE parent (id TEXT PRIMARY KEY);"
    const text = sql`INSERT INTO child VALUES (:aggregateID)`
    const place = { type: "session.noted.1", aggregateID: "s", seq: 0 }
    const foreign = {
      sqliteCode: "SQLITE_CONSTRAINT_FOREIGNKEY",
      table: "child",
      constraint: "child(a) → parent(id)",
      message: /^FOREIGN KEY constraint failed: child\(a\) → parent\(id\), which is deferred until COMMIT/,
    }
    for (const apply of [(tx) => void tx.prepare("INSERT INTO child VALUES ('s')").run(), text]) {
      const { store, Noted, run, untouched } = skipper(apply, tables)
      assert.throws(run, coded("ERR_SQLITE", { ...foreign, ...place }))
      untouched()
      const two = [1, 2].map(() => [Noted, { sessionID: "s" }])
      assert.throws(() => store.runAll(two), coded("ERR_SQLITE", { ...foreign, type: undefined, seq: undefined }))
      untouched()
      assert.throws(() => store.db.exec("BEGIN; INSERT INTO child VALUES ('s'); COMMIT"), coded("ERR_SQLITE", foreign))
      store.db.exec("ROLLBACK")
    }
    const registry = createRegistry()
    const schema = z.object({ sessionID: z.string() })
    const Noted = define({ type: "session.noted", version: 1, aggregate: "sessionID", schema, registry })
    const projectors = [project(Noted, text)]
    const store = kept(open(newPath(), { registry, projectors, migrate: (db) => db.exec(tables) }))
    const insideRust = {
      ...foreign,
      ...place,
      message: /COMMIT: in the SQL projector of session\.noted\.1 \(aggregate "s", seq 0\)$/,
    }
    assert.throws(() => store.run(Noted, { sessionID: "s" }), coded("ERR_SQLITE", insideRust))
  })
})

describe("options", () => {
  test("that do not exist are refused", () => {
    const registry = createRegistry()
    const schema = z.object({ sessionID: z.string() })
    const Noted = define({ type: "session.noted", version: 1, aggregate: "sessionID", schema, registry })
    const invalid = coded("ERR_INVALID_ARGUMENT", { message: /onConstraint|options of project/ })
    for (const options of [
      { onConstraint: "ignore" },
      { onConstraint: true },
      { onConflict: "skip" },
      "skip",
      null,
      [],
    ]) {
      assert.throws(() => project(Noted, () => {}, options), invalid)
      assert.throws(() => project(Noted, sql`SELECT 1`, options), invalid)
      const Own = SyncEvent.define({ type: "session.noted", version: 1, aggregate: "sessionID", schema })
      assert.throws(() => SyncEvent.project(Own, () => {}, options), invalid)
      SyncEvent.reset()
    }
    assert.equal(project(Noted, () => {}, { onConstraint: undefined }).onConstraint, "throw")
    assert.equal(project(Noted, sql`SELECT 1`, { onConstraint: "skip" }).onConstraint, "skip")
    assert.throws(
      () => open(":memory:", { onSkipped: "warn" }),
      coded("ERR_INVALID_ARGUMENT", { message: /onSkipped/ }),
    )
  })
})
