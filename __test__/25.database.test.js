"use strict"

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { SyncError, open } = require("syncline")

const coded = (code, pattern = /./) => {
  return (error) => {
    assert.ok(error instanceof SyncError, `${error} is a SyncError`)
    assert.equal(error.code, code)
    assert.match(error.message, pattern)
    return true
  }
}
const invalid = (pattern) => coded("ERR_INVALID_ARGUMENT", pattern)

let folder, store, db

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-database-"))
  store = open(join(folder, "app.db"))
  db = store.db
  db.exec("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, size REAL, body BLOB)")
})

afterEach(() => {
  try {
    store.close()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

describe("the connection", () => {
  test("tells its name, openness and kind", () => {
    assert.equal(db.name, join(folder, "app.db"))
    assert.equal(db.open, true)
    assert.equal(db.memory, false)
    assert.equal(db.readonly, false)
    assert.equal(db.inTransaction, false)
    const memory = open(":memory:")
    assert.equal(memory.db.memory, true)
    memory.close()
    assert.equal(memory.db.open, false)
  })

  test("exec runs every statement of a text and returns the database", () => {
    assert.equal(db.exec("INSERT INTO item (name) VALUES ('a'); INSERT INTO item (name) VALUES ('b')"), db)
    assert.equal(db.prepare("SELECT count(*) FROM item").pluck().get(), 2)
    assert.throws(() => db.exec("INSERT INTO item (name) VALUES ('c'); nonsense"), coded("ERR_SQLITE", /nonsense/))
    assert.equal(db.prepare("SELECT count(*) FROM item").pluck().get(), 3)
    assert.throws(() => db.exec(5), invalid(/must be a string, not 5/))
  })

  test("pragma gives rows, or with simple the first value", () => {
    assert.deepEqual(db.pragma("user_version"), [{ user_version: 0 }])
    assert.equal(db.pragma("user_version", { simple: true }), 0)
    assert.deepEqual(db.pragma("user_version = 7"), [])
    assert.equal(db.pragma("user_version", { simple: true }), 7)
    assert.equal(db.pragma("user_version = 8", { simple: true }), undefined)
    assert.throws(() => db.pragma("user_version", { simple: 1 }), invalid(/simple must be a boolean/))
  })

  test("a pragma that acts when it is compiled acts each time, prepared twice or not", () => {
    for (const on of [1, 0, 1, 0]) {
      db.prepare(on ? "PRAGMA foreign_keys = ON" : "PRAGMA foreign_keys = OFF").run()
      assert.equal(db.pragma("foreign_keys", { simple: true }), on)
    }
  })

  test("what is no compiled query, or no options of pragma, is refused", () => {
    for (const query of [undefined, null, {}, "SELECT 1", { sql: "SELECT 1" }, { sql: 1, parameters: [] }]) {
      for (const call of ["run", "get", "all"]) {
        assert.throws(() => db[call](query), coded("ERR_INVALID_ARGUMENT", /compiled query/))
      }
    }
    for (const options of [null, 1, true, { simpel: true }, { simple: 1 }]) {
      assert.throws(() => db.pragma("user_version", options), coded("ERR_INVALID_ARGUMENT"))
    }
  })

  test("a compiled query of a builder runs as { sql, parameters }", () => {
    const insert = { sql: "INSERT INTO item (id, name) VALUES (?, ?)", parameters: [4, "d"] }
    assert.deepEqual(db.run(insert), { changes: 1, lastInsertRowid: 4 })
    const select = { sql: "SELECT name FROM item WHERE id = ?", parameters: [4] }
    assert.deepEqual(db.get(select), { name: "d" })
    assert.deepEqual(db.all(select), [{ name: "d" }])
    assert.equal(db.get({ ...select, parameters: [5] }), undefined)
  })

  test("use after close is ERR_CLOSED, for statements made before too, whether their text is cached or not", () => {
    const insert = db.prepare("INSERT INTO item (name) VALUES (?)")
    const select = db.prepare("SELECT * FROM item")
    store.close()
    assert.equal(db.open, false)
    assert.equal(db.inTransaction, false)
    const calls = [
      () => insert.run("a"),
      () => select.get(),
      () => select.all(),
      () => select.iterate(),
      () => select.columns(),
      () => db.prepare("SELECT * FROM item"),
      () => db.prepare("SELECT 1"),
      () => db.exec("SELECT 1"),
      () => db.pragma("user_version"),
      () => db.function("f", () => 1),
      () => db.transaction(() => {})(),
    ]
    for (const call of calls) assert.throws(call, coded("ERR_CLOSED"), String(call))
  })

  test("a second connection from connect() is its owner's to close", () => {
    const other = store.connect()
    other.prepare("INSERT INTO item (name) VALUES ('other')").run()
    assert.deepEqual(db.prepare("SELECT name FROM item").all(), [{ name: "other" }])
    assert.equal(other.close(), other)
    assert.equal(other.close(), other)
    assert.equal(other.open, false)
    assert.throws(() => other.prepare("SELECT 1"), coded("ERR_CLOSED"))
    assert.equal(db.open, true)
  })
})

describe("statements", () => {
  test("know their source, kind and database", () => {
    const select = db.prepare("SELECT * FROM item")
    assert.equal(select.source, "SELECT * FROM item")
    assert.equal(select.reader, true)
    assert.equal(select.readonly, true)
    assert.equal(select.database, db)
    const insert = db.prepare("INSERT INTO item (name) VALUES ('a')")
    assert.equal(insert.reader, false)
    assert.equal(insert.readonly, false)
    assert.equal(db.prepare("INSERT INTO item (name) VALUES ('a') RETURNING id").reader, true)
  })

  test("run tells changes and the rowid", () => {
    const insert = db.prepare("INSERT INTO item (name) VALUES (?)")
    assert.deepEqual(insert.run("a"), { changes: 1, lastInsertRowid: 1 })
    assert.deepEqual(insert.run("b"), { changes: 1, lastInsertRowid: 2 })
    assert.deepEqual(db.prepare("UPDATE item SET size = 1").run(), { changes: 2, lastInsertRowid: 2 })
    assert.equal(db.prepare("CREATE TABLE other (x)").run().changes, 0)
    assert.equal(insert.safeIntegers().run("c").lastInsertRowid, 3n)
  })

  test("get, all and iterate give rows, and undefined or nothing where there are none", () => {
    assert.equal(db.prepare("SELECT * FROM item").get(), undefined)
    assert.deepEqual(db.prepare("SELECT * FROM item").all(), [])
    assert.deepEqual([...db.prepare("SELECT * FROM item").iterate()], [])
    db.exec("INSERT INTO item (name) VALUES ('a'), ('b')")
    const select = db.prepare("SELECT id, name FROM item ORDER BY id")
    const rows = [
      { id: 1, name: "a" },
      { id: 2, name: "b" },
    ]
    assert.deepEqual(select.get(), rows[0])
    assert.deepEqual(select.all(), rows)
    assert.deepEqual([...select.iterate()], rows)
    assert.equal(Object.getPrototypeOf(select.get()), Object.prototype)
  })

  test("run steps a statement with rows to its end", () => {
    const insert = db.prepare("INSERT INTO item (name) VALUES ('a'), ('b') RETURNING id")
    assert.equal(insert.run().changes, 2)
    assert.deepEqual(insert.all(), [{ id: 3 }, { id: 4 }])
    assert.equal(db.prepare("SELECT count(*) FROM item").pluck().get(), 4)
  })

  test("get, all, iterate, pluck, raw, expand and columns of a statement without rows are refused", () => {
    const insert = db.prepare("INSERT INTO item (name) VALUES ('a')")
    for (const method of ["get", "all", "iterate", "pluck", "raw", "expand", "columns"]) {
      assert.throws(() => insert[method](), invalid(/return/), method)
    }
    assert.equal(db.prepare("SELECT count(*) FROM item").pluck().get(), 0)
  })

  test("no statement, two statements, or bad SQL are refused", () => {
    assert.throws(() => db.prepare(""), coded("ERR_INVALID_ARGUMENT"))
    assert.throws(() => db.prepare("-- nothing"), coded("ERR_INVALID_ARGUMENT"))
    assert.throws(() => db.prepare("SELECT 1; SELECT 2"), coded("ERR_INVALID_ARGUMENT"))
    assert.equal(db.prepare("SELECT 1; -- and a comment").pluck().get(), 1)
    assert.throws(
      () => db.prepare("SELECT * FROM missing"),
      (error) => coded("ERR_SQLITE", /missing/)(error) && error.sqliteCode.startsWith("SQLITE_ERROR"),
    )
    assert.throws(() => db.prepare(null), invalid(/must be a string/))
  })

  test("SQLite's own code is on the error", () => {
    db.exec("INSERT INTO item (id) VALUES (1)")
    assert.throws(
      () => db.prepare("INSERT INTO item (id) VALUES (1)").run(),
      (error) => coded("ERR_SQLITE", /UNIQUE/)(error) && error.sqliteCode === "SQLITE_CONSTRAINT_PRIMARYKEY",
    )
  })

  test("raw, pluck and expand shape the rows; the last one asked for counts, and false takes back only itself", () => {
    db.exec("INSERT INTO item (name) VALUES ('a')")
    const select = db.prepare("SELECT id, name, 1 + 1 AS two FROM item")
    assert.deepEqual(select.raw().get(), [1, "a", 2])
    assert.deepEqual(select.all(), [[1, "a", 2]])
    assert.equal(select.pluck().get(), 1)
    assert.deepEqual([...select.iterate()], [1])
    assert.deepEqual(select.expand().get(), { item: { id: 1, name: "a" }, $: { two: 2 } })
    assert.deepEqual(select.raw(false).get(), { item: { id: 1, name: "a" }, $: { two: 2 } })
    assert.deepEqual(select.expand(false).get(), { id: 1, name: "a", two: 2 })
    assert.throws(() => select.raw("yes"), invalid(/boolean/))
  })

  test("columns tell where they come from", () => {
    assert.deepEqual(db.prepare("SELECT name AS label, 1 FROM item").columns(), [
      { name: "label", column: "name", table: "item", database: "main", type: "TEXT" },
      { name: "1", column: null, table: null, database: null, type: null },
    ])
  })

  test("rows with __proto__, constructor and equal names: plain keys, and the last column counts", () => {
    const row = db.prepare(`SELECT 1 AS "__proto__", 2 AS "constructor", 3 AS a, 4 AS a, 5 AS "it's ""q""\n\\"`).get()
    assert.equal(Object.getPrototypeOf(row), Object.prototype)
    assert.deepEqual(Object.keys(row), ["__proto__", "constructor", "a", `it's "q"\n\\`])
    assert.equal(Object.getOwnPropertyDescriptor(row, "__proto__").value, 1)
    assert.equal(row.constructor, 2)
    assert.equal(row.a, 4)
    const expanded = db.prepare(`SELECT 1 AS "__proto__", 2 AS b`).expand().get()
    assert.deepEqual(Object.keys(expanded.$), ["__proto__", "b"])
  })

  test("SELECT * follows a changed table, from a cached statement too", () => {
    db.exec("INSERT INTO item (name) VALUES ('a')")
    const select = db.prepare("SELECT * FROM item")
    assert.deepEqual(Object.keys(select.get()), ["id", "name", "size", "body"])
    db.exec("ALTER TABLE item ADD COLUMN extra DEFAULT 9")
    for (const statement of [select, db.prepare("SELECT * FROM item")]) {
      assert.equal(statement.get().extra, 9)
      assert.equal(statement.all()[0].extra, 9)
      assert.equal([...statement.iterate()][0].extra, 9)
      assert.equal(statement.columns().length, 5)
    }
  })

  test("each prepare of the same text has its own modes and its own bound parameters", () => {
    const sql = "SELECT ? AS value"
    const raw = db.prepare(sql).raw().bind(1)
    const plain = db.prepare(sql)
    assert.deepEqual(plain.get(2), { value: 2 })
    assert.deepEqual(raw.get(), [1])
    assert.deepEqual(db.prepare(sql).safeIntegers().get(3n), { value: 3n })
    assert.deepEqual(plain.get(3), { value: 3 })
  })

  test("the cache of 1,000 texts forgets without harm to statements in use", () => {
    const first = db.prepare("SELECT 'first'").pluck()
    for (let i = 0; i < 1_200; i++) assert.equal(db.prepare(`SELECT ${i}`).pluck().get(), i)
    assert.equal(first.get(), "first")
    assert.equal(db.prepare("SELECT 'first'").pluck().get(), "first")
  })
})

describe("parameters", () => {
  const echo = (sql, ...params) =>
    db
      .prepare(sql)
      .raw()
      .get(...params)

  test("positional: as arguments, as arrays, or mixed", () => {
    assert.deepEqual(echo("SELECT ?, ?, ?", 1, 2, 3), [1, 2, 3])
    assert.deepEqual(echo("SELECT ?, ?, ?", [1, 2, 3]), [1, 2, 3])
    assert.deepEqual(echo("SELECT ?, ?, ?", 1, [2], [], [3]), [1, 2, 3])
    assert.throws(() => echo("SELECT ?, ?", 1), invalid(/Too few/))
    assert.throws(() => echo("SELECT ?, ?", 1, 2, 3), invalid(/Too many/))
    assert.throws(() => echo("SELECT 1", 1), invalid(/Too many/))
  })

  test("named: by one plain object, with any of the three prefixes, alone or mixed with positional ones", () => {
    assert.deepEqual(echo("SELECT :a, @b, $c", { a: 1, b: 2, c: 3, unused: true }), [1, 2, 3])
    assert.deepEqual(echo("SELECT :a, :a, @a", { a: 1 }), [1, 1, 1])
    assert.deepEqual(echo("SELECT ?, :a, ?", 1, { a: 2 }, [3]), [1, 2, 3])
    assert.deepEqual(echo("SELECT :a", Object.assign(Object.create(null), { a: 1 })), [1])
    assert.throws(() => echo("SELECT :a, :b", { a: 1 }), invalid(/Missing named parameter "b"/))
    assert.throws(() => echo("SELECT :a"), invalid(/Missing named parameters/))
    assert.throws(() => echo("SELECT :toString", {}), invalid(/Missing named parameter "toString"/))
    assert.throws(() => echo("SELECT :a, :b", { a: 1 }, { b: 2 }), invalid(/two different objects|Missing/))
    assert.throws(
      () =>
        echo(
          "SELECT :a",
          new (class {
            a = 1
          })(),
        ),
      invalid(/plain objects/),
    )
    assert.throws(() => echo("SELECT ?", {}), invalid(/Too few/))
  })

  test("numbers are REAL, bigints INTEGER, bytes BLOB, null and undefined NULL", () => {
    const types = "SELECT typeof(?), typeof(?), typeof(?), typeof(?), typeof(?), typeof(?)"
    const found = echo(types, 1, 1n, "1", new Uint8Array(1), null, undefined)
    assert.deepEqual(found, ["real", "integer", "text", "blob", "null", "null"])
    assert.deepEqual(echo("SELECT typeof(?), typeof(?)", -0, NaN), ["real", "null"])
  })

  test("bytes come back as a Buffer, whatever view they were bound from", () => {
    const bytes = Uint8Array.of(9, 1, 2, 3, 9)
    for (const view of [Buffer.from([1, 2, 3]), bytes.subarray(1, 4), new DataView(bytes.buffer, 1, 3)]) {
      const [blob] = echo("SELECT ?", view)
      assert.ok(Buffer.isBuffer(blob))
      assert.deepEqual([...blob], [1, 2, 3])
    }
    const [empty] = echo("SELECT ?", new Uint8Array(0))
    assert.ok(Buffer.isBuffer(empty))
    assert.equal(empty.length, 0)
  })

  test("integers: exact as bigints, numbers otherwise", () => {
    const big = 2n ** 63n - 1n
    assert.deepEqual(db.prepare("SELECT ?").pluck().safeIntegers().get(big), big)
    assert.deepEqual(
      db
        .prepare("SELECT ?")
        .pluck()
        .safeIntegers()
        .get(-(2n ** 63n)),
      -(2n ** 63n),
    )
    assert.deepEqual(db.prepare("SELECT ?").pluck().safeIntegers().safeIntegers(false).get(5n), 5)
    assert.equal(
      db
        .prepare("SELECT ?")
        .pluck()
        .get(2n ** 53n),
      2 ** 53,
    )
    assert.throws(() => echo("SELECT ?", 2n ** 63n), invalid(/too big/))
  })

  test("text keeps NUL and everything beyond ASCII; a lone surrogate becomes U+FFFD", () => {
    for (const text of ["", "a\0b", "żółć 🙂 \u2028", "'; DROP TABLE item"])
      assert.deepEqual(echo("SELECT ?", text), [text])
    assert.deepEqual(echo("SELECT ?", "a\ud800b"), ["a\ufffdb"])
  })

  test("booleans, functions, symbols, dates and nested arrays are refused", () => {
    for (const value of [true, false, () => {}, Symbol("s"), new Date(), [[1]], new Map()]) {
      assert.throws(() => echo("SELECT ?", value), invalid(/can only bind/))
      assert.throws(() => echo("SELECT :a", { a: value }), invalid(/can only bind/))
    }
  })

  test("bind binds for good, once, and copies bytes", () => {
    const bytes = Uint8Array.of(1)
    const select = db.prepare("SELECT ?, ?").raw().bind(bytes, "b")
    bytes[0] = 2
    assert.deepEqual(select.get(), [Buffer.of(1), "b"])
    assert.deepEqual(select.all(), [[Buffer.of(1), "b"]])
    assert.throws(() => select.get(1), invalid(/already has bound parameters/))
    assert.throws(() => select.bind(1, 2), invalid(/only be invoked once/))
  })

  test("a getter among the parameters that throws passes through", () => {
    const mine = new Error("mine")
    const params = {
      get a() {
        throw mine
      },
    }
    assert.throws(
      () => echo("SELECT :a", params),
      (error) => error === mine,
    )
  })
})

describe("iterating", () => {
  beforeEach(() => db.exec("INSERT INTO item (name) VALUES ('a'), ('b'), ('c')"))

  test("break, return and a throw in the loop close the cursor: writing works again", () => {
    const select = db.prepare("SELECT name FROM item").pluck()
    const insert = db.prepare("INSERT INTO item (name) VALUES ('d')")
    for (const name of select.iterate()) {
      assert.equal(name, "a")
      break
    }
    insert.run()
    assert.throws(() => {
      for (const name of select.iterate()) throw new Error(name)
    }, /^Error: a$/)
    insert.run()
    const unstarted = select.iterate()
    unstarted.return()
    insert.run()
    assert.deepEqual(unstarted.next(), { done: true, value: undefined })
    assert.equal(select.all().length, 6)
  })

  test("while one is open, writes and transactions are ERR_BUSY, reading works, the statement itself is busy", () => {
    const select = db.prepare("SELECT name FROM item").pluck()
    const rows = select.iterate()
    assert.equal(rows.next().value, "a")
    assert.throws(() => db.prepare("DELETE FROM item").run(), coded("ERR_BUSY"))
    assert.throws(() => db.exec("DELETE FROM item"), coded("ERR_BUSY"))
    assert.throws(() => db.transaction(() => {})(), coded("ERR_BUSY"))
    assert.throws(() => select.get(), coded("ERR_BUSY"))
    assert.throws(() => select.raw(), coded("ERR_BUSY"))
    assert.equal(db.prepare("SELECT count(*) FROM item").pluck().get(), 3)
    assert.equal(rows.next().value, "b")
    rows.return()
    assert.equal(select.get(), "a")
  })

  test("closing the store ends it: ERR_CLOSED, then done", () => {
    const rows = db.prepare("SELECT name FROM item").pluck().iterate()
    assert.equal(rows.next().value, "a")
    store.close()
    assert.throws(() => rows.next(), coded("ERR_CLOSED"))
    assert.deepEqual(rows.next(), { done: true, value: undefined })
    assert.deepEqual(rows.return(), { done: true, value: undefined })
  })

  test("two statements of one text iterate side by side, though they share a compiled one", () => {
    const sql = "SELECT name FROM item ORDER BY name"
    const early = db.prepare(sql).pluck()
    const pairs = []
    for (const a of db.prepare(sql).pluck().iterate()) {
      assert.equal(early.get(), "a")
      for (const b of db.prepare(sql).pluck().iterate()) pairs.push(a + b)
    }
    assert.equal(pairs.join(" "), "aa ab ac ba bb bc ca cb cc")
  })

  test("an error in the middle ends the iterator", () => {
    const rows = db
      .prepare("SELECT abs(CASE id WHEN 2 THEN -9223372036854775808 ELSE id END) FROM item")
      .pluck()
      .iterate()
    assert.equal(rows.next().value, 1)
    assert.throws(() => rows.next(), coded("ERR_SQLITE", /overflow/))
    assert.deepEqual(rows.next(), { done: true, value: undefined })
    db.exec("DELETE FROM item")
  })
})

describe("transactions of the connection", () => {
  const names = () => db.prepare("SELECT name FROM item ORDER BY id").pluck().all().join("")
  const insert = (name) => db.prepare("INSERT INTO item (name) VALUES (?)").run(name)

  test("commit what returns, roll back what throws, and pass the very value on", () => {
    const add = db.transaction((name, mine) => {
      assert.equal(db.inTransaction, true)
      insert(name)
      if (mine) throw mine
      return name.toUpperCase()
    })
    assert.equal(add("a"), "A")
    const mine = { not: "an error" }
    assert.throws(
      () => add("b", mine),
      (thrown) => thrown === mine,
    )
    assert.equal(db.inTransaction, false)
    assert.equal(names(), "a")
  })

  test("pass this and arguments, and offer every mode from every mode", () => {
    const receiver = {
      add: db.transaction(function (...args) {
        return [this, ...args]
      }),
    }
    assert.deepEqual(receiver.add(1, 2), [receiver, 1, 2])
    for (const mode of ["default", "deferred", "immediate", "exclusive"]) {
      assert.deepEqual(receiver.add[mode].call(receiver, 3), [receiver, 3])
      assert.equal(receiver.add.deferred[mode], receiver.add[mode])
    }
    assert.equal(receiver.add.database, db)
  })

  test("nest as savepoints: an inner failure that is caught takes back its rows alone", () => {
    const inner = db.transaction((name) => {
      insert(name)
      if (name === "x") throw new Error("inner")
    })
    db.transaction(() => {
      insert("a")
      assert.throws(() => inner("x"), /inner/)
      inner("b")
    })()
    assert.equal(names(), "ab")
  })

  test("are immediate by default: a second writer is refused at once, unless deferred is asked for", () => {
    const other = open(db.name, { busyTimeout: 0 })
    try {
      db.transaction(() => {
        assert.throws(() => other.db.transaction(() => {})(), coded("ERR_BUSY"))
        other.db.transaction(() => other.db.prepare("SELECT * FROM item").all()).deferred()
      })()
    } finally {
      other.close()
    }
  })

  test("refuse async functions before calling them, and promises after", async () => {
    assert.throws(() => db.transaction(async () => insert("a"))(), coded("ERR_ASYNC_TRANSACTION"))
    assert.throws(
      () =>
        db.transaction(() => {
          insert("b")
          return Promise.reject(new Error("nobody sees this"))
        })(),
      coded("ERR_ASYNC_TRANSACTION"),
    )
    await new Promise(setImmediate)
    assert.equal(names(), "")
    assert.throws(() => db.transaction("x"), invalid(/function/))
  })

  test("raw BEGIN and COMMIT work through prepare and exec", () => {
    db.prepare("BEGIN").run()
    assert.equal(db.inTransaction, true)
    insert("a")
    db.prepare(" /* end */ commit").run()
    assert.equal(db.inTransaction, false)
    db.exec("BEGIN; INSERT INTO item (name) VALUES ('b'); ROLLBACK")
    assert.equal(names(), "a")
  })

  test("that SQLite ended by itself refuse each further statement, and nothing autocommits", () => {
    db.exec(
      "CREATE TRIGGER stop BEFORE INSERT ON item WHEN new.name = 'stop' BEGIN SELECT RAISE(ROLLBACK, 'stopped'); END",
    )
    assert.throws(
      () =>
        db.transaction(() => {
          insert("a")
          assert.throws(() => insert("stop"), coded("ERR_SQLITE", /stopped/))
          assert.equal(db.inTransaction, false)
          assert.throws(() => insert("b"), coded("ERR_SQLITE"))
        })(),
      coded("ERR_SQLITE"),
    )
    assert.equal(names(), "")
    insert("c")
    assert.equal(names(), "c")
  })

  test("whose COMMIT fails on a deferred constraint roll back", () => {
    db.exec("CREATE TABLE child (item INTEGER REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED)")
    const orphan = db.transaction(() => db.prepare("INSERT INTO child VALUES (99)").run())
    assert.throws(() => orphan(), coded("ERR_SQLITE", /FOREIGN KEY/))
    assert.equal(db.inTransaction, false)
    assert.equal(db.prepare("SELECT count(*) FROM child").pluck().get(), 0)
  })
})

describe("functions for SQL", () => {
  test("take their arguments and give their results in every type", () => {
    assert.equal(
      db.function("add2", (a, b) => a + b),
      db,
    )
    assert.equal(db.prepare("SELECT add2(?, 3)").pluck().get(4), 7)
    assert.throws(() => db.prepare("SELECT add2(1)").get(), coded("ERR_SQLITE", /wrong number/))
    db.function("count_args", { varargs: true }, (...args) => args.length)
    assert.deepEqual(db.prepare("SELECT count_args(), count_args(1, 2, 3)").raw().get(), [0, 3])
    db.function("kind", { safeIntegers: true }, (value) => typeof value)
    assert.equal(db.prepare("SELECT kind(1)").pluck().get(), "bigint")
    db.function("pass", (value) => value)
    for (const value of [1.5, "text", null]) assert.equal(db.prepare("SELECT pass(?)").pluck().get(value), value)
    assert.deepEqual(db.prepare("SELECT pass(?)").pluck().get(Buffer.from("x")), Buffer.from("x"))
    db.function("no_value", () => undefined)
    assert.equal(db.prepare("SELECT no_value()").pluck().get(), null)
  })

  test("throw the very value through run, get, all, iterate and exec", () => {
    const mine = { mine: true }
    db.function("fail", () => {
      throw mine
    })
    const same = (thrown) => thrown === mine
    assert.throws(() => db.prepare("INSERT INTO item (name) VALUES (fail())").run(), same)
    assert.throws(() => db.prepare("SELECT fail()").get(), same)
    assert.throws(() => db.prepare("SELECT fail()").all(), same)
    assert.throws(() => [...db.prepare("SELECT fail()").iterate()], same)
    assert.throws(() => db.exec("SELECT fail()"), same)
    db.function("fail_with_nothing", () => {
      throw undefined
    })
    assert.throws(
      () => db.prepare("SELECT fail_with_nothing()").get(),
      (thrown) => thrown === undefined,
    )
    assert.throws(() => db.prepare("SELECT abs(-9223372036854775808)").get(), coded("ERR_SQLITE", /overflow/))
  })

  test("may not use the connection while it steps, nor close it", () => {
    const attempts = []
    db.function("reenter", () => {
      for (const call of [
        () => db.prepare("SELECT 1").get(),
        () => db.exec("DELETE FROM item"),
        () => db.transaction(() => {})(),
        () => db.close(),
      ]) {
        try {
          call()
          attempts.push("went through")
        } catch (error) {
          attempts.push(error.code)
        }
      }
      return 1
    })
    assert.equal(db.prepare("SELECT reenter()").pluck().get(), 1)
    assert.deepEqual(attempts, ["ERR_BUSY", "ERR_BUSY", "ERR_BUSY", "ERR_BUSY"])
    assert.equal(db.open, true)
  })

  test("may not return what SQLite cannot hold; names and arguments are checked", () => {
    db.function("object", () => ({}))
    assert.throws(() => db.prepare("SELECT object()").get(), invalid(/object\(\) returned/))
    assert.throws(() => db.function("", () => 1), invalid(/empty/))
    assert.throws(() => db.function("f"), invalid(/function/))
    assert.throws(() => db.function("f", { varargs: 1 }, () => 1), invalid(/varargs must be a boolean/))
  })
})

test("the loop that replaces generated code gives the same rows where code generation is refused", () => {
  const { execFileSync } = require("node:child_process")
  const script = `
    const { open } = require("syncline")
    const db = open(":memory:").db
    const row = db.prepare('SELECT 1 AS a, 2 AS "__proto__", 3 AS a').get()
    process.stdout.write(JSON.stringify(Object.entries(row)))`
  const args = ["--disallow-code-generation-from-strings", "-e", script]
  const output = execFileSync(process.execPath, args, { cwd: __dirname, encoding: "utf8" })
  assert.deepEqual(JSON.parse(output), [
    ["a", 3],
    ["__proto__", 2],
  ])
})
