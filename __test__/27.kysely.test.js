"use strict"

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach, beforeEach, test } = require("node:test")
const { DummyDriver, Kysely, SqliteAdapter, SqliteDialect, SqliteIntrospector, SqliteQueryCompiler } = require("kysely")
const { createRegistry, define, open, project } = require("syncline")

/** Compiles only: what a projector may do with kysely. */
const compiler = new Kysely({
  dialect: {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  },
})

const schema = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) => (typeof value?.title === "string" ? { value } : { issues: [{ message: "no title" }] }),
  },
}

let folder, store, kysely

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-kysely-"))
})

afterEach(async () => {
  try {
    await kysely?.destroy()
    store?.close()
  } finally {
    kysely = store = undefined
    rmSync(folder, { recursive: true, force: true })
  }
})

const opened = (options) =>
  open(join(folder, "app.db"), {
    migrate: (db) => db.exec("CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, title TEXT)"),
    ...options,
  })

test("a projector runs what kysely compiles, in the event's transaction", () => {
  const registry = createRegistry()
  const Renamed = define({ type: "session.renamed", version: 1, aggregate: "sessionID", schema, registry })
  const projector = project(Renamed, (tx, { sessionID, title }) => {
    const upsert = compiler
      .insertInto("session")
      .values({ id: sessionID, title })
      .onConflict((conflict) => conflict.column("id").doUpdateSet({ title }))
    assert.equal(tx.run(upsert.compile()).changes, 1)
    if (title === "refused") throw new Error("refused")
  })
  store = opened({ registry, projectors: [projector] })
  store.run(Renamed, { sessionID: "s", title: "first" })
  store.run(Renamed, { sessionID: "s", title: "second" })
  assert.throws(() => store.run(Renamed, { sessionID: "s", title: "refused" }), /refused/)
  const select = compiler.selectFrom("session").selectAll().where("id", "=", "s").compile()
  assert.deepEqual(store.db.all(select), [{ id: "s", title: "second" }])
  assert.deepEqual(store.db.get(select), { id: "s", title: "second" })
  assert.equal(store.sequence("s"), 1)
})

test("store.transaction runs compiled statements too", () => {
  store = opened()
  store.transaction((tx) => tx.run(compiler.insertInto("session").values({ id: "a", title: "A" }).compile()))
  assert.throws(() =>
    store.transaction((tx) => {
      tx.run(compiler.deleteFrom("session").compile())
      throw new Error("undone")
    }),
  )
  assert.deepEqual(store.db.all(compiler.selectFrom("session").select("id").compile()), [{ id: "a" }])
})

test("kysely with its own SqliteDialect owns a second connection: queries, transactions, streams, destroy", async () => {
  store = opened()
  const connection = store.connect()
  kysely = new Kysely({ dialect: new SqliteDialect({ database: connection }) })

  const inserted = await kysely.insertInto("session").values({ id: "a", title: "A" }).executeTakeFirst()
  assert.equal(inserted.numInsertedOrUpdatedRows, 1n)
  const returned = await kysely.insertInto("session").values({ id: "b", title: "B" }).returning("id").execute()
  assert.deepEqual(returned, [{ id: "b" }])
  await kysely
    .transaction()
    .execute((tx) => tx.updateTable("session").set({ title: "AA" }).where("id", "=", "a").execute())
  await assert.rejects(
    kysely.transaction().execute(async (tx) => {
      await tx.deleteFrom("session").execute()
      throw new Error("undone")
    }),
    /undone/,
  )
  assert.deepEqual(await kysely.selectFrom("session").selectAll().orderBy("id").execute(), [
    { id: "a", title: "AA" },
    { id: "b", title: "B" },
  ])
  const streamed = []
  for await (const row of kysely.selectFrom("session").select("id").orderBy("id").stream()) streamed.push(row.id)
  assert.deepEqual(streamed, ["a", "b"])
  assert.deepEqual(
    (await kysely.introspection.getTables()).map(({ name }) => name).filter((name) => name === "session"),
    ["session"],
  )

  // What kysely commits, the store reads at once, and its own connection is left alone.
  assert.equal(store.db.prepare("SELECT count(*) FROM session").pluck().get(), 2)
  await kysely.destroy()
  kysely = undefined
  assert.equal(connection.open, false)
  assert.equal(store.db.open, true)
})
