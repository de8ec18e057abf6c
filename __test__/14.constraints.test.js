"use strict"

// What the error of a failed constraint names, in projectors and outside, and what finding that out must not change.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, open, project } = require("syncline")
const { kept, statementOf } = require("./late-sessions")
const { coded, dump } = require("./notes")

describe("the error of a constraint", () => {
  /** A store whose one event runs `apply`. */
  function projecting(apply, options = {}) {
    const registry = createRegistry()
    const schema = z.looseObject({ id: z.string() })
    const Noted = define({ type: "noted", version: 2, aggregate: "id", schema, registry })
    const projectors = [project(Noted, apply)]
    const store = kept(open(":memory:", { registry, projectors, migrate: (db) => db.exec(MANY), ...options }))
    return { store, run: () => store.run(Noted, { id: "a" }) }
  }

  const MANY = `
    CREATE TABLE project (id TEXT PRIMARY KEY);
    CREATE UNIQUE INDEX lowered ON project (lower(id));
    CREATE TABLE session (id TEXT PRIMARY KEY, projectID TEXT REFERENCES project,
      title TEXT NOT NULL CONSTRAINT titled CHECK (title <> ''), slug TEXT UNIQUE, n INTEGER CHECK (n > 0));
    CREATE TABLE message (id TEXT PRIMARY KEY, sessionID TEXT NOT NULL REFERENCES session(id),
      parentID TEXT REFERENCES message(id));
    CREATE TABLE part (id INTEGER PRIMARY KEY, messageID TEXT REFERENCES message(id) ON DELETE RESTRICT,
      sessionID TEXT REFERENCES session(id));
    CREATE TABLE "it's odd" ("a b" TEXT, "c.d" TEXT, FOREIGN KEY ("a b", "c.d") REFERENCES pair ("x y", z));
    CREATE TABLE pair ("x y" TEXT, z TEXT, UNIQUE ("x y", z));
    CREATE TABLE "without" (a TEXT PRIMARY KEY, b TEXT REFERENCES session, c TEXT REFERENCES project) WITHOUT ROWID;
    CREATE TABLE typed (a INTEGER) STRICT;
    CREATE TABLE "log.of" (a TEXT UNIQUE);
    CREATE TRIGGER copies AFTER INSERT ON "log.of" BEGIN INSERT INTO message VALUES (NEW.a, 'gone', NULL); END;
    INSERT INTO project VALUES ('p');
    INSERT INTO session VALUES ('s', 'p', 't', 'slug', 1);
    INSERT INTO message VALUES ('m', 's', NULL);
    INSERT INTO part VALUES (1, 'm', NULL);
  `
  /** Statement, code, table, constraint. */
  const failures = [
    ["INSERT INTO session VALUES ('s', 'p', 't', 'x', 1)", "PRIMARYKEY", "session", "session.id"],
    ["INSERT INTO session VALUES ('s2', 'p', 't', 'slug', 1)", "UNIQUE", "session", "session.slug"],
    ["INSERT INTO session VALUES ('s2', 'p', NULL, 'x', 1)", "NOTNULL", "session", "session.title"],
    ["INSERT INTO session VALUES ('s2', 'p', '', 'x', 1)", "CHECK", "session", "titled"],
    ["UPDATE session SET n = 0", "CHECK", "session", "n > 0"],
    ["INSERT INTO pair VALUES ('x', 'y'), ('x', 'y')", "UNIQUE", "pair", "pair.x y, pair.z"],
    ["INSERT INTO project VALUES ('P')", "UNIQUE", "project", "index 'lowered'"],
    ["INSERT INTO typed VALUES ('text')", "DATATYPE", "typed", "typed.a"],
    [
      "INSERT INTO session VALUES ('s2', 'gone', 't', 'x', 1)",
      "FOREIGNKEY",
      "session",
      "session(projectID) → project(id)",
    ],
    ["INSERT INTO message VALUES ('m2', 'gone', NULL)", "FOREIGNKEY", "message", "message(sessionID) → session(id)"],
    ["INSERT INTO message VALUES ('m2', 's', 'gone')", "FOREIGNKEY", "message", "message(parentID) → message(id)"],
    ["UPDATE message SET sessionID = 'gone'", "FOREIGNKEY", "message", "message(sessionID) → session(id)"],
    [
      "INSERT INTO part VALUES (1, 'm', 's') ON CONFLICT DO UPDATE SET sessionID = 'gone'",
      "FOREIGNKEY",
      "part",
      "part(sessionID) → session(id)",
    ],
    [
      "INSERT INTO part VALUES (2, 'x', 'y') RETURNING id",
      "FOREIGNKEY",
      "part",
      "part(messageID) → message(id) and part(sessionID) → session(id)",
    ],
    ["DELETE FROM session", "FOREIGNKEY", "message", "message(sessionID) → session(id)"],
    ["UPDATE message SET id = 'z'", "FOREIGNKEY", "part", "part(messageID) → message(id)"],
    // What SQLite gives the code of a trigger.
    ["DELETE FROM message", "TRIGGER", "part", "part(messageID) → message(id)"],
    [
      "INSERT OR REPLACE INTO session VALUES ('s9', 'p', 't', 'slug', 1)",
      "FOREIGNKEY",
      "message",
      "message(sessionID) → session(id)",
    ],
    [`INSERT INTO "it's odd" VALUES ('a', 'b')`, "FOREIGNKEY", `it's odd`, `it's odd(a b, c.d) → pair(x y, z)`],
    [`INSERT INTO "without" VALUES ('a', 's', 'gone')`, "FOREIGNKEY", "without", "without(c) → project(id)"],
    [`INSERT INTO "log.of" VALUES ('m3')`, "FOREIGNKEY", "message", "message(sessionID) → session(id)"],
    [`INSERT INTO "log.of" VALUES ('m3'), ('m3')`, "UNIQUE", "log.of", "log.of.a"],
  ]
  for (const [statement, code, table, constraint] of failures) {
    test(`names table and constraint of ${statement}`, () => {
      const expected = { sqliteCode: `SQLITE_CONSTRAINT_${code}`, table, constraint }
      const place = { type: "noted.2", aggregateID: "a", seq: 0 }
      const inProjector = coded("ERR_SQLITE", {
        ...expected,
        ...place,
        message: (text) =>
          text.includes(table) && text.includes(constraint) && text.endsWith('noted.2 (aggregate "a", seq 0)'),
      })
      const before = dump(projecting(() => {}).store.db)
      for (const apply of [
        (tx) => void tx.prepare(statement).run(),
        (tx) => tx.exec(statement),
        statementOf(statement),
      ]) {
        const { store, run } = projecting(apply)
        assert.throws(run, inProjector)
        assert.deepEqual(dump(store.db), before)
      }
      const { store } = projecting(() => {})
      const nowhere = { type: undefined, aggregateID: undefined, seq: undefined }
      const outside = coded("ERR_SQLITE", { ...expected, ...nowhere })
      assert.throws(() => store.transaction(() => void store.db.prepare(statement).run()), outside)
      // By itself it is not run again to tell several keys apart: that would take the lock once more.
      const alone = coded("ERR_SQLITE", {
        constraint: (text) => constraint.split(" and ").every((key) => text.includes(key)),
      })
      assert.throws(() => store.db.prepare(statement).run(), alone)
      assert.deepEqual(dump(store.db), before)
    })
  }

  test("is the very one that the statement threw, completed", () => {
    let inside
    const { run } = projecting((tx) => {
      try {
        tx.exec("INSERT INTO message VALUES ('m', 's', NULL)")
      } catch (error) {
        inside = error
        assert.equal(error.type, undefined)
        throw error
      }
    })
    assert.throws(run, (error) => error === inside && error.type === "noted.2")
    assert.match(
      inside.message,
      /^UNIQUE constraint failed: message\.id: in the projector of noted\.2 \(aggregate "a", seq 0\)$/,
    )
    assert.deepEqual(Object.keys(inside).toSorted(), [
      "aggregateID",
      "code",
      "constraint",
      "seq",
      "sqliteCode",
      "table",
      "type",
    ])
  })

  test("is passed on as it is where it cannot be changed, and found behind what wraps it", () => {
    const failing = "INSERT INTO message VALUES ('m', 's', NULL)"
    const caught = (tx) => {
      try {
        tx.exec(failing)
      } catch (error) {
        return error
      }
    }
    const wrappers = {
      frozen: (error) => Object.freeze(error),
      sealed: (error) => Object.preventExtensions(error),
      wrapped: (error) => new Error("Failed query", { cause: error }),
      twice: (error) => new TypeError("outer", { cause: new Error("inner", { cause: error }) }),
    }
    for (const [name, wrap] of Object.entries(wrappers)) {
      const skipped = []
      let inner, outer
      const apply = (tx) => {
        inner = caught(tx)
        outer = wrap(inner)
        throw outer
      }
      const { run } = projecting(apply)
      assert.throws(run, (error) => error === outer, name)
      const changeable = Object.isExtensible(inner)
      assert.equal(inner.type, changeable ? "noted.2" : undefined)
      if (Object.isFrozen(inner)) assert.equal(inner.message, "UNIQUE constraint failed: message.id")
      else assert.match(inner.message, /in the projector of noted\.2/)

      const registry = createRegistry()
      const schema = z.object({ id: z.string() })
      const Noted = define({ type: "noted", version: 1, aggregate: "id", schema, registry })
      const projectors = [project(Noted, apply, { onConstraint: "skip" })]
      const onSkipped = (error) => skipped.push(error)
      const store = kept(open(":memory:", { registry, projectors, migrate: (db) => db.exec(MANY), onSkipped }))
      store.run(Noted, { id: "a" })
      assert.ok(skipped.length === 1 && skipped[0] === inner, name)
    }
  })

  test("a projector that catches it has dealt with it", () => {
    const { store, run } = projecting((tx) => {
      assert.throws(() => tx.exec("INSERT INTO message VALUES ('m2', 'gone', NULL)"))
      tx.exec("INSERT INTO message VALUES ('m2', 's', NULL)")
    })
    assert.equal(run().seq, 0)
    assert.equal(store.db.prepare("SELECT count(*) FROM message").pluck().get(), 2)
  })

  test("finding it out changes nothing: what is deferred still fails at COMMIT, and functions are not called again", () => {
    const tables = `
      CREATE TABLE parent (id TEXT PRIMARY KEY);
      CREATE TABLE deferred (a TEXT REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
      CREATE TABLE child (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT REFERENCES parent, b TEXT REFERENCES parent(id));
    `
    const store = kept(open(":memory:", { migrate: (db) => db.exec(tables) }))
    const before = dump(store.db)
    let calls = 0
    store.db.function("given", (value) => (calls++, value))
    const twoKeys = () => store.db.prepare("INSERT INTO child (a, b) VALUES (NULL, 'gone')").run()
    const narrowed = coded("ERR_SQLITE", { constraint: "child(b) → parent(id)" })
    const either = coded("ERR_SQLITE", { constraint: "child(a) → parent(id) or child(b) → parent(id)" })
    assert.throws(
      () =>
        store.transaction(() => {
          store.db.exec("INSERT INTO deferred VALUES ('nowhere')")
          assert.throws(twoKeys, narrowed)
        }),
      coded("ERR_SQLITE", { constraint: "deferred(a) → parent(id)" }),
    )
    assert.deepEqual(dump(store.db), before)
    store.transaction(() => {
      assert.throws(() => store.db.prepare("INSERT INTO child (a, b) VALUES (NULL, given('gone'))").run(), either)
      assert.equal(calls, 1)
      assert.equal(store.db.pragma("defer_foreign_keys", { simple: true }), 0)
      assert.throws(twoKeys, narrowed)
      store.db.exec("INSERT INTO parent VALUES ('p'); INSERT INTO child (a, b) VALUES ('p', 'p')")
    })
    assert.deepEqual(store.db.prepare("SELECT * FROM child").raw().all(), [[1, "p", "p"]])
  })
})
