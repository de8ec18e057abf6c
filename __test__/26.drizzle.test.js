"use strict"

const assert = require("node:assert/strict")
const { execFileSync, spawnSync } = require("node:child_process")
const { mkdirSync, mkdtempSync, rmSync, writeFileSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { and, asc, count, eq, gt, relations, sql } = require("drizzle-orm")
const { blob, integer, sqliteTable, text } = require("drizzle-orm/sqlite-core")
const { SyncError, open } = require("syncline")
const { drizzle, migrate } = require("syncline/drizzle")

const session = sqliteTable("session", {
  id: text().primaryKey(),
  title: text().notNull(),
  archived: integer({ mode: "boolean" }),
  updated: integer({ mode: "timestamp_ms" }),
  info: text({ mode: "json" }),
  bytes: blob({ mode: "buffer" }),
})
const message = sqliteTable("message", {
  id: text().primaryKey(),
  sessionID: text("session_id").references(() => session.id),
  body: text(),
})
const sessionRelations = relations(session, ({ many }) => ({ messages: many(message) }))
const messageRelations = relations(message, ({ one }) => ({
  session: one(session, { fields: [message.sessionID], references: [session.id] }),
}))
const schema = { session, message, sessionRelations, messageRelations }

const TABLES = `
  CREATE TABLE session (id TEXT PRIMARY KEY, title TEXT NOT NULL, archived INTEGER, updated INTEGER, info TEXT, bytes BLOB);
  CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT REFERENCES session (id), body TEXT);`

const coded = (code, pattern = /./) => {
  return (error) => {
    assert.ok(error instanceof SyncError, `${error} is a SyncError`)
    assert.equal(error.code, code)
    assert.match(error.message, pattern)
    return true
  }
}

let folder, store, db

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-drizzle-"))
  store = open(join(folder, "app.db"))
  store.db.exec(TABLES)
  db = drizzle(store.db, { schema })
})

afterEach(() => {
  try {
    store.close()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const titles = () =>
  db
    .select({ title: session.title })
    .from(session)
    .orderBy(asc(session.id))
    .all()
    .map((row) => row.title)
    .join("")
const add = (tx, id) => tx.insert(session).values({ id, title: id }).run()

test("drizzle takes a store or a database, and no option that it has not", () => {
  for (const source of [undefined, null, {}, { db: {} }, "app.db"]) {
    assert.throws(() => drizzle(source), coded("ERR_INVALID_ARGUMENT", /a store, or a database/))
  }
  for (const options of [null, 1, { shema: schema }]) {
    assert.throws(() => drizzle(store.db, options), coded("ERR_INVALID_ARGUMENT", /drizzle/))
  }
  assert.equal(drizzle(store).$client, store.db)
})

describe("queries", () => {
  test("insert, select, update and delete, with every column mode", () => {
    const row = {
      id: "a",
      title: "A",
      archived: true,
      updated: new Date(5),
      info: { deep: [1, "two"] },
      bytes: Buffer.from("bytes"),
    }
    assert.deepEqual(db.insert(session).values(row).run(), { changes: 1, lastInsertRowid: 1 })
    assert.deepEqual(db.select().from(session).get(), row)
    assert.equal(db.select().from(session).where(eq(session.id, "none")).get(), undefined)
    assert.equal(db.update(session).set({ archived: false }).where(eq(session.id, "a")).run().changes, 1)
    assert.deepEqual(db.select({ archived: session.archived }).from(session).all(), [{ archived: false }])
    assert.deepEqual(
      db
        .select({ id: session.id, n: sql`1 + 1` })
        .from(session)
        .values(),
      [["a", 2]],
    )
    assert.equal(db.delete(session).run().changes, 1)
    assert.deepEqual(db.select().from(session).all(), [])
  })

  test("onConflictDoUpdate, onConflictDoNothing and returning", () => {
    const upsert = (title) =>
      db
        .insert(session)
        .values({ id: "a", title })
        .onConflictDoUpdate({ target: session.id, set: { title: sql`excluded.title` } })
    upsert("A").run()
    assert.deepEqual(upsert("B").returning({ title: session.title }).get(), { title: "B" })
    assert.deepEqual(db.insert(session).values({ id: "a", title: "C" }).onConflictDoNothing().returning().all(), [])
    assert.equal(titles(), "B")
    assert.deepEqual(db.update(session).set({ title: "D" }).returning({ id: session.id }).all(), [{ id: "a" }])
    assert.deepEqual(db.delete(session).returning({ title: session.title }).all(), [{ title: "D" }])
  })

  test("joins map each table, and null where the left join found none", () => {
    add(db, "a")
    add(db, "b")
    db.insert(message).values({ id: "m", sessionID: "a", body: "hello" }).run()
    const rows = db
      .select()
      .from(session)
      .leftJoin(message, eq(message.sessionID, session.id))
      .orderBy(asc(session.id))
      .all()
    assert.deepEqual(
      rows.map((row) => [row.session.id, row.message?.body ?? null]),
      [
        ["a", "hello"],
        ["b", null],
      ],
    )
    assert.equal(rows[1].message, null)
    const inner = db.select({ body: message.body }).from(session).innerJoin(message, eq(message.sessionID, session.id))
    assert.deepEqual(inner.all(), [{ body: "hello" }])
    const counted = db.select({ n: count() }).from(message).groupBy(message.sessionID).having(gt(count(), 0)).get()
    assert.deepEqual(counted, { n: 1 })
  })

  test("relational queries: many, first, and none", () => {
    add(db, "a")
    db.insert(message)
      .values([
        { id: "m", sessionID: "a" },
        { id: "n", sessionID: "a" },
      ])
      .run()
    const found = db.query.session.findFirst({ columns: { id: true }, with: { messages: { columns: { id: true } } } })
    assert.deepEqual(found.sync(), { id: "a", messages: [{ id: "m" }, { id: "n" }] })
    const all = db.query.message.findMany({ columns: { id: true }, with: { session: { columns: { title: true } } } })
    assert.deepEqual(all.sync()[1], { id: "n", session: { title: "a" } })
    assert.equal(db.query.session.findFirst({ where: eq(session.id, "none") }).sync(), undefined)
  })

  test("can be awaited, as drizzle's synchronous drivers can", async () => {
    await db.insert(session).values({ id: "a", title: "A" })
    assert.equal((await db.select().from(session)).length, 1)
    assert.equal((await db.query.session.findMany()).length, 1)
    assert.equal(await db.$count(session), 1)
  })

  test("prepared queries with placeholders, in any order of get, all, values and run", () => {
    add(db, "a")
    add(db, "b")
    const byID = db
      .select()
      .from(session)
      .where(and(eq(session.id, sql.placeholder("id"))))
      .prepare()
    assert.equal(byID.get({ id: "a" }).title, "a")
    assert.equal(byID.values({ id: "b" })[0][1], "b")
    assert.equal(byID.all({ id: "b" })[0].title, "b")
  })

  test("raw sql: run, all, get, values", () => {
    assert.equal(db.run(sql`INSERT INTO session (id, title) VALUES (${"a"}, ${"A"})`).changes, 1)
    assert.deepEqual(db.all(sql`SELECT id FROM session`), [{ id: "a" }])
    assert.deepEqual(db.get(sql`SELECT id FROM session`), { id: "a" })
    assert.deepEqual(db.values("SELECT id FROM session"), [["a"]])
  })

  test("logger and casing are drizzle's own", () => {
    const logged = []
    const snake = sqliteTable("message", { id: text(), sessionId: text() })
    const logging = drizzle(store.db, { casing: "snake_case", logger: { logQuery: (...args) => logged.push(args) } })
    add(db, "a")
    logging.insert(snake).values({ id: "m", sessionId: "a" }).run()
    assert.deepEqual(logged, [['insert into "message" ("id", "session_id") values (?, ?)', ["m", "a"]]])
  })

  test("every error is a plain SyncError, from raw sql too", () => {
    add(db, "a")
    assert.throws(() => add(db, "a"), coded("ERR_SQLITE", /UNIQUE/))
    assert.throws(() => db.run(sql`INSERT INTO session (id) VALUES ('b')`), coded("ERR_SQLITE", /NOT NULL/))
    assert.throws(() => db.all(sql`SELECT * FROM missing`), coded("ERR_SQLITE", /missing/))
  })

  test("takes the store as well as its connection, and knows the client", () => {
    assert.equal(db.$client, store.db)
    assert.equal(drizzle(store).$client, store.db)
  })
})

describe("transactions", () => {
  test("commit, roll back, and pass results and thrown values on", () => {
    assert.equal(
      db.transaction((tx) => {
        add(tx, "a")
        assert.equal(store.db.inTransaction, true)
        return 5
      }),
      5,
    )
    const mine = new Error("mine")
    assert.throws(
      () =>
        db.transaction((tx) => {
          add(tx, "b")
          throw mine
        }),
      (error) => error === mine,
    )
    assert.throws(() => db.transaction((tx) => tx.rollback()), /Rollback/)
    assert.equal(titles(), "a")
    assert.equal(store.db.inTransaction, false)
  })

  test("nested ones are savepoints, at any depth: a caught failure takes back its own rows only", () => {
    db.transaction((tx) => {
      add(tx, "a")
      assert.throws(
        () =>
          tx.transaction((inner) => {
            add(inner, "b")
            inner.transaction((innermost) => add(innermost, "c"))
            throw new Error("inner")
          }),
        /inner/,
      )
      tx.transaction((inner) => {
        add(inner, "d")
        assert.throws(() => inner.transaction((innermost) => [add(innermost, "e"), innermost.rollback()]), /Rollback/)
        add(inner, "f")
      })
      db.transaction((again) => add(again, "g"))
    })
    assert.equal(titles(), "adfg")
  })

  test("are immediate unless deferred is asked for", () => {
    const other = open(store.db.name, { busyTimeout: 0 })
    try {
      db.transaction(() => {
        assert.throws(() => drizzle(other.db).transaction(() => {}), coded("ERR_BUSY"))
        drizzle(other.db).transaction((tx) => tx.select().from(session).all(), { behavior: "deferred" })
      })
    } finally {
      other.close()
    }
  })

  test("refuse async functions and promises, nested ones too, and take back what they did", () => {
    assert.throws(() => db.transaction(async (tx) => add(tx, "a")), coded("ERR_ASYNC_TRANSACTION"))
    db.transaction((tx) => {
      assert.throws(() => tx.transaction(async (inner) => add(inner, "b")), coded("ERR_ASYNC_TRANSACTION"))
      const late = (inner) => {
        add(inner, "c")
        return Promise.reject(new Error("nobody sees this"))
      }
      assert.throws(() => tx.transaction(late), coded("ERR_ASYNC_TRANSACTION"))
      add(tx, "d")
    })
    assert.equal(titles(), "d")
  })

  test("a nested transaction that SQLite rolled back by itself keeps its own error", () => {
    store.db.exec(
      "CREATE TRIGGER stop BEFORE INSERT ON session WHEN new.id = 'stop' BEGIN SELECT RAISE(ROLLBACK, 'stopped'); END",
    )
    assert.throws(
      () =>
        db.transaction((tx) => {
          add(tx, "a")
          tx.transaction((inner) => add(inner, "stop"))
        }),
      coded("ERR_SQLITE", /stopped/),
    )
    assert.equal(titles(), "")
  })
})

describe("as the tx of a store", () => {
  test("query gives it to transaction", () => {
    const other = open(join(folder, "query.db"), {
      migrate: (connection) => connection.exec(TABLES),
      query: (connection) => drizzle(connection, { schema }),
    })
    try {
      other.transaction((tx) => {
        add(tx, "a")
        assert.throws(() => tx.transaction((inner) => [add(inner, "b"), inner.rollback()]), /Rollback/)
      })
      assert.deepEqual(
        other.transaction((tx) => tx.select({ id: session.id }).from(session).all()),
        [{ id: "a" }],
      )
    } finally {
      other.close()
    }
  })
})

describe("migrate", () => {
  const folderWith = (...migrations) => {
    const path = join(folder, "migrations")
    mkdirSync(join(path, "meta"), { recursive: true })
    const entries = migrations.map((text, index) => {
      writeFileSync(join(path, `${index}.sql`), text)
      return { idx: index, when: index + 1, tag: `${index}`, breakpoints: true }
    })
    writeFileSync(join(path, "meta", "_journal.json"), JSON.stringify({ entries }))
    return path
  }

  test("applies what is missing, once, inside the migrate hook of open", () => {
    const first = "CREATE TABLE a (x);\n--> statement-breakpoint\nCREATE INDEX a_x ON a (x);"
    const run = (migrationsFolder) => {
      const other = open(join(folder, "migrated.db"), {
        migrate: (connection) => migrate(drizzle(connection), { migrationsFolder }),
      })
      const names = other.db
        .prepare("SELECT name FROM sqlite_schema WHERE name IN ('a', 'a_x', 'b') ORDER BY name")
        .pluck()
        .all()
      const applied = other.db.prepare("SELECT count(*) FROM __drizzle_migrations").pluck().get()
      other.close()
      return [...names, applied]
    }
    assert.deepEqual(run(folderWith(first)), ["a", "a_x", 1])
    assert.deepEqual(run(folderWith(first)), ["a", "a_x", 1])
    assert.deepEqual(run(folderWith(first, "-- a comment\nCREATE TABLE b (y); -- only")), ["a", "a_x", "b", 2])
  })

  test("changes nothing when one of them fails", () => {
    const migrationsFolder = folderWith("CREATE TABLE a (x)", "nonsense")
    assert.throws(() => migrate(db, { migrationsFolder }), coded("ERR_SQLITE", /nonsense/))
    assert.equal(store.db.prepare("SELECT count(*) FROM sqlite_schema WHERE name = 'a'").pluck().get(), 0)
  })
})

describe("the package", () => {
  test("works with tables that an ES module made: drizzle-orm exists twice in such a process", async () => {
    const esm = await import("drizzle-orm/sqlite-core")
    assert.notEqual(esm.sqliteTable, sqliteTable)
    const { eq: equals } = await import("drizzle-orm")
    const table = esm.sqliteTable("session", {
      id: esm.text().primaryKey(),
      title: esm.text(),
      info: esm.text({ mode: "json" }),
    })
    const plain = drizzle(store.db, { schema: { table } })
    plain
      .insert(table)
      .values({ id: "a", title: "A", info: { b: 1 } })
      .run()
    plain.update(table).set({ title: "B" }).where(equals(table.id, "a")).run()
    const row = { id: "a", title: "B", info: { b: 1 } }
    assert.deepEqual(plain.select().from(table).where(equals(table.id, "a")).get(), row)
    assert.deepEqual(plain.query.table.findFirst().sync(), row)
  })

  test("its declarations compile without skipLibCheck: whatever fails lies in drizzle-orm's own", () => {
    const consumer = join(__dirname, "types", "drizzle.test-d.ts")
    const options = "--noEmit --strict --target es2022 --module node16 --moduleResolution node16 --types node"
    const tsc = join(__dirname, "..", "node_modules", "typescript", "bin", "tsc")
    const { stdout } = spawnSync(process.execPath, [tsc, ...options.split(" "), "--skipLibCheck", "false", consumer], {
      cwd: join(__dirname, ".."),
      encoding: "utf8",
    })
    const errors = stdout.split("\n").filter((line) => /^\S.*: error TS/.test(line))
    assert.deepEqual(
      errors.filter((line) => !line.startsWith("node_modules/drizzle-orm/")),
      [],
    )
  })

  test("loads no better-sqlite3, and neither drizzle's driver for it", () => {
    const script = `
      const Module = require("node:module")
      const load = Module._load
      Module._load = function (request, ...rest) {
        if (request.includes("better-sqlite3")) throw new Error("loaded " + request)
        return load.call(this, request, ...rest)
      }
      const { drizzle } = require("syncline/drizzle")
      process.stdout.write(typeof drizzle)`
    assert.equal(execFileSync(process.execPath, ["-e", script], { cwd: __dirname, encoding: "utf8" }), "function")
  })
})
