"use strict"

// What a process with many stores, statements and cycles holds: memory, files and threads, all bounded and given back. And
// garbage collected at any moment, by hand and by V8's own flags for it.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { PRELUDE, outcomeOf } = require("./held")
const { extent, figures } = require("./soak")

/** The same, and prints what it told; memory has a bound in MiB. What the allocator keeps grows for some thousand cycles. */
async function measured(name, program, options, bounds = { heap: 1, rss: 24 }) {
  const told = await outcomeOf(program, options)
  const { heap, rss, files, threads } = told
  figures(name, { times: options.count, "heap more": `${heap} MiB`, "rss more": `${rss} MiB`, files, threads })
  for (const [kind, bound] of Object.entries(bounds)) assert.ok(told[kind] <= bound, `${kind}: ${told[kind]} MiB more`)
}

// Several at a time: much of what they take is waiting for disks, and for threads to end.
describe("issue 5: resources", { concurrency: 4 }, () => {
  const use = `
    store.run(Made, { id: "a" })
    store.transaction(() => store.run(Made, { id: "b" }))
    store.replay({ id: "e" + n, type: "made.1", seq: store.sequence("c") + 1, aggregateID: "c", data: { id: "c" } })
    store.db.prepare("SELECT " + n).get()
    store.db.function("f", () => n)
    store.subscribeAll(() => {})
    store.read("a")
    store.log({ aggregateID: "a" }).next()
    store.db.prepare("SELECT * FROM thing").iterate().next()
  `
  const closes = `[() => store.close(), () => store.db.close(), () => store[Symbol.dispose ?? Symbol.for("Symbol.dispose")]()]`

  test("open, use and close a file, each time the only one: nothing is left", () =>
    measured(
      "cycles of a file alone",
      `await cycles((n) => {
        const { store, Made } = openStore(folder + "/a.db")
        ${use};
        ${closes}[n % 3]()
      })`,
      { count: extent(100, 10_000) },
    ))

  test("open, use and close a file that another store has open, one in ten dropped instead: nothing is left", () =>
    measured(
      "cycles of a file in use",
      `const none = await settled()
      const first = openStore(folder + "/a.db")
      await cycles((n) => {
        const { store, Made } = openStore(folder + "/a.db")
        ${use};
        if (n % 10 > 0) return ${closes}[n % 3]()
        return until(() => true)
      // SQLite keeps the files of connections to a file for later ones: as many as there were at any one time.
      }, 20)
      first.store.close()
      await until(() => held().files <= none.files, "files of the last store")`,
      { count: extent(500, 10_000) },
    ))

  test('open, use and close ":memory:": nothing is left', () =>
    measured(
      "cycles in memory",
      `await cycles((n) => {
        const { store, Made } = openStore(":memory:")
        ${use};
        if (n % 10 > 0) ${closes}[n % 3]()
      })`,
      { count: extent(500, 10_000) },
      { heap: 1, rss: 32 },
    ))

  test("opening what cannot be opened, over and over: nothing is left", () =>
    measured(
      "cycles that fail",
      `require("node:fs").writeFileSync(folder + "/b.db", "no database".repeat(1000))
      await cycles((n) => {
        const fails = [
          () => openStore(folder + "/b.db"),
          () => openStore(folder + "/none/a.db"),
          () => openStore(folder + "/a.db", { migrate: () => { throw new Error("mine") } }),
          () => openStore(folder + "/a.db", { query: (db) => (db.close(), db) }),
        ]
        assert.throws(fails[n % fails.length])
      })`,
      { count: extent(200, 10_000) },
    ))

  test("a store that is dropped is collected, whatever it was given that mentions it", async () => {
    await outcomeOf(`
      const registers = new FinalizationRegistry((name) => left.delete(name))
      const left = new Set()
      function drop(name, use) {
        const { store, Made } = openStore(":memory:")
        store.run(Made, { id: "a" })
        use(store, Made)
        left.add(name)
        registers.register(store, name)
      }
      drop("a function for SQL", (store) => {
        store.db.function("f", () => store.sequence("a"))
        assert.throws(() => store.db.prepare("SELECT f()").get(), { code: "ERR_BUSY" })
        store.db.function("f", { varargs: true }, (...all) => (gc(), all.length + (store ? 0 : 1)))
        assert.equal(store.db.prepare("SELECT f(1, 2)").pluck().get(), 2)
      })
      drop("listeners", (store, Made) => (store.subscribe(Made, () => store), store.subscribeAll(() => store)))
      drop("a statement", (store) => (store.statement = store.db.prepare("SELECT 1")).get())
      drop("an iterator", (store) => (store.rows = store.db.prepare("SELECT 1").iterate()).next())
      drop("a log", (store) => (store.items = store.log({ aggregateID: "a", follow: true })))
      drop("a transaction", (store) => (store.later = store.db.transaction(() => store)))
      drop("a stream", (store) => (store.events = store.stream()))
      await until(() => left.size === 0, "a store")
      const { db } = openStore(":memory:").store
      db.function("g", () => (gc(), 5))
      for (let n = 0; n < 5; n++) (gc(), await turn(2), assert.equal(db.prepare("SELECT g() AS g").get().g, 5))
    `)
  })

  test("prepared statements, of equal and of different texts, dropped and left half-way: nothing is left", () =>
    measured(
      "prepared statements",
      `const { store, Made } = openStore(folder + "/a.db")
      for (let n = 0; n < 10; n++) store.run(Made, { id: "i" + n })
      const kept = new Set()
      const writes = (write) => {
        try {
          return write() !== undefined
        } catch (error) {
          assert.equal(error.code, "ERR_BUSY")
        }
      }
      await cycles(async (n) => {
        const same = store.db.prepare("SELECT id FROM thing WHERE id > ?")
        const other = store.db.prepare("SELECT id, " + n + " AS n FROM thing")
        assert.equal(other.get().n, n)
        if (n % 7 === 0) other.iterate().next()
        else if (n % 3 === 0) for (const row of same.iterate("i3")) break
        else assert.equal(same.all("i3").length, 6)
        kept.add(other)
        if (kept.size > 100) kept.clear()
        if (n % 1000 > 0) return
        // Iterators that were left half-way keep writes out until they are collected.
        await until(() => writes(() => store.db.exec("CREATE TABLE t" + n + " (a); DROP TABLE t" + n)), "iterators")
      })
      await until(() => writes(() => store.run(Made, { id: "end" })), "iterators")
      store.close()`,
      { count: extent(4_000, 100_000) },
      { heap: 2, rss: 24 },
    ))

  test("prepared statements that are kept cost what their texts cost, and are given back", async () => {
    const told = await outcomeOf(
      `const { store } = openStore(folder + "/a.db")
      const make = (length) => Array.from({ length }, (_, n) => store.db.prepare("SELECT id, " + n + " FROM thing"))
      make(2_000)
      const before = { ...(await settled()), ...memory() }
      let statements = make(count)
      const full = memory()
      for (let n = 0; n < count; n += 97) statements[n].all()
      statements = undefined
      await until(() => memory().heap - before.heap < 2 ** 20 && noMoreThan(before)(), "statements")
      tell({ kept: MiB(full.heap - before.heap), rss: MiB(full.rss - before.rss), left: MiB(memory().heap - before.heap) })
      store.close()`,
      { count: extent(10_000, 100_000) },
    )
    figures("statements kept", { statements: extent(10_000, 100_000), ...told })
  })

  test("stores in one process, each used: threads end with their work, and all is given back", async () => {
    const count = extent(200, 1_000)
    const told = await outcomeOf(
      `const limit = linux ? Number(/open files +(\\d+)/.exec(readFileSync("/proc/self/limits", "utf8"))[1]) : 1_024
      const before = { ...(await settled()), ...memory() }
      // A third in memory, a third on few files, a third on files of their own, as many as the process may have open.
      const own = Math.max(1, Math.min(count / 3, Math.floor((limit - 500) / 10 - count)))
      const path = (n) => (n % 3 === 0 ? ":memory:" : n % 3 === 1 ? folder + "/" + (n % 5) + ".db" : folder + "/own" + (n % own) + ".db")
      const packing = { idle: 200 }
      const start = performance.now()
      const stores = Array.from({ length: count }, (_, n) => openStore(path(n), { packing }))
      const opened = performance.now() - start
      const idle = held()
      assert.ok(idle.threads <= before.threads, "an open store has a thread: " + JSON.stringify(idle))
      let heard = 0
      for (const { store } of stores) store.subscribeAll(() => heard++)
      for (const [n, { store, Made }] of stores.entries()) assert.ok(store.run(Made, { id: "s" + n }).seq === 0)
      assert.equal(heard, count)
      const used = held()
      await until(() => held().threads <= before.threads, "threads of idle stores")
      const rested = { ...held(), ...memory() }
      // And again: what ended starts anew.
      for (const [n, { store, Made }] of stores.entries()) assert.ok(store.run(Made, { id: "s" + n }).seq === 1)
      await until(() => held().threads <= before.threads, "threads of idle stores, again")
      const again = held()
      // A file, its WAL, and what SQLite keeps of the thread's connection for the next one.
      assert.ok(again.files - before.files <= 4 * count, JSON.stringify([rested, again]))
      for (const [n, { store }] of stores.entries()) assert.equal(store.sequence("s" + n), 1)
      for (const { store } of stores) store.close()
      await until(noMoreThan(before), "closed stores")
      const per = (kind, at) => Math.round((at[kind] - before[kind]) / count * 100) / 100
      tell({
        "ms to open": Math.round(opened / count * 10) / 10,
        "files each": per("files", idle),
        "files each used": per("files", rested),
        "threads each": per("threads", idle),
        "threads at most": used.threads - before.threads,
        "threads left": again.threads - before.threads,
        "KiB each": Math.round((rested.rss - before.rss) / count / 1024),
      })`,
      { count },
    )
    figures("stores at once", { stores: count, ...told })
  })

  test("stores that listen to the database have a thread each while they listen, and no longer", async () => {
    const count = extent(150, 1_000)
    const told = await outcomeOf(
      `const before = await settled()
      const stores = Array.from({ length: count }, () => openStore(folder + "/a.db", { packing: false }))
      let heard = 0
      let undo = stores.map(({ store }) => store.subscribeAll(() => heard++, { scope: "database" }))
      const listening = held()
      assert.ok(!linux || listening.threads - before.threads <= count, JSON.stringify(listening))
      const [busy, start] = [process.cpuUsage(), performance.now()]
      await turn(500)
      const { user, system } = process.cpuUsage(busy)
      const load = (user + system) / 10 / (performance.now() - start)
      const written = performance.now()
      stores[0].store.run(stores[0].Made, { id: "a" })
      await until(() => heard === count, "listeners")
      const latency = performance.now() - written
      for (const each of undo) each()
      undo = undefined
      await until(() => held().threads <= before.threads, "threads of listeners")
      for (const { store } of stores) store.close()
      await until(noMoreThan(before), "closed stores")
      tell({ "threads at most": listening.threads - before.threads, "idle cpu": load.toFixed(1) + " %", "all heard after": Math.round(latency) + " ms" })`,
      { count },
    )
    figures("listening stores", { stores: count, ...told })
  })

  test("a thread that checkpoints ends when there is nothing more to do, and comes again", async () => {
    const told = await outcomeOf(
      `const { store, Made } = openStore(folder + "/a.db", { packing: false })
      const before = await settled()
      const seen = []
      for (let round = 0; round < 2; round++) {
        store.run(Made, { id: "a", text: "x".repeat(6_000_000) })
        seen.push(held().threads - before.threads)
        await until(() => held().threads <= before.threads, "the thread")
        seen.push(held().files - before.files)
      }
      store.close()
      tell(seen)`,
    )
    // One thread each time, and its connection's file at most once: SQLite closes that with the store's.
    if (process.platform === "linux") assert.deepEqual([told[0], told[2], told[3] <= told[1] + 1], [1, 1, true])
  })

  test("a store left open with everything begun keeps no process alive, also in a worker", async () => {
    const everything = `
      const { store, Made, registry } = openStore(path, { packing: { idle: 20, atBytes: 1_000 } })
      for (let n = 0; n < 20; n++) store.run(Made, { id: "a", text: "x".repeat(n % 5 ? 10 : 1_000_000) })
      globalThis.left = [
        store.subscribe(Made, () => {}), store.subscribeAll(() => {}), store.subscribeAll(() => {}, { scope: "database" }),
        store.db.prepare("SELECT * FROM thing"), store.connect(), store.stream(), store.changes(),
        store.log({ aggregateID: "a", follow: true }), store.log({ aggregateID: "a" }), store.connect().prepare("SELECT 1").iterate(),
      ]
      store.db.function("f", () => 1)
      const rows = store.db.prepare("SELECT * FROM event").iterate()
      rows.next()
      globalThis.left.push(rows, left[8].next())
      left[4].exec("BEGIN; SELECT * FROM event")
      await store.verify()
    `
    await outcomeOf(`const path = folder + "/a.db"; ${everything}`)
    await outcomeOf(`const path = folder + "/a.db"; ${everything}; store.db.prepare("SELECT 1").get(); process.exit(0)`)
    await outcomeOf(`
      const { Worker } = require("node:worker_threads")
      // The pool of libuv, which workers share, is there from its first work on.
      await Promise.all([1, 2, 3, 4].map(() => require("node:fs/promises").stat(folder)))
      const before = await settled()
      const program = ${JSON.stringify(PRELUDE)} + "; (async () => { const path = folder + '/w.db';" + ${JSON.stringify(everything)} + "})()"
      for (let n = 0; n < 4; n++) {
        const worker = new Worker(program.replace("process.argv.at(-2), ", JSON.stringify(folder) + ", "), { eval: true })
        const ended = new Promise((resume, reject) => worker.on("error", reject).on("exit", resume))
        if (n % 2) setTimeout(() => worker.terminate(), 30 * n)
        // One that is to be terminated may have ended before.
        assert.ok((await ended) <= n % 2)
      }
      await until(() => held().threads <= before.threads, "threads of workers")
    `)
  })
})

describe("issue 5: garbage collected at any moment", { concurrency: 4 }, () => {
  // Everything that a store does, with a collection wherever the program has the word.
  const everywhere = `
    const path = folder + "/a.db"
    const registry = createRegistry()
    const shape = { version: 1, aggregate: "id", schema: { "~standard": { version: 1, vendor: "test", validate: (value) => (collect(), { value }) } }, registry }
    const Made = define({ ...shape, type: "made", compactKey: "id", dedupe: ["n"] })
    const Told = define({ ...shape, type: "told", ephemeral: true })
    const Sql = define({ ...shape, type: "sql" })
    const projectors = [
      project(Made, (tx, { id }) => {
        collect()
        const insert = tx.prepare("INSERT INTO thing VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET n = n + collected(1)")
        collect()
        insert.run(id)
      }),
      project(Sql, sql\`INSERT INTO thing VALUES (:aggregateID || collected('s'), 1) ON CONFLICT (id) DO UPDATE SET n = n + 1\`),
    ]
    const migrate = (db) => (collect(), db.exec("CREATE TABLE IF NOT EXISTS thing (id TEXT PRIMARY KEY, n)"))
    // A function of its own: what is suspended keeps what it has seen.
    async function once(round) {
      const heard = []
      const store = open(path, { registry, projectors, migrate, convertEvent: (type, data) => (collect(), round % 2 ? data : Promise.resolve(data)), packing: { keepEvents: 2, keepBytes: 10, idle: 1 } })
      store.db.function("collected", (value) => (collect(), value))
      store.subscribe(Made, (event) => (collect(), heard.push(event.data.id)))
      const undo = store.subscribeAll(() => collect(), { scope: "database" })
      const stream = store.stream()
      const before = store.sequence("a")
      store.transaction(() => {
        store.run(Made, { id: "a", n: -1 })
        collect()
        try {
          store.transaction(() => {
            store.run(Made, { id: "a", toJSON: () => (collect(), { id: "a", other: round }) })
            collect()
            throw null
          })
        } catch {
          collect()
        }
        store.publish(Told, { id: "a" })
        store.run(Sql, { id: "a" })
      })
      assert.equal(store.sequence("a"), before + (round === 0 ? 2 : 1))
      await Promise.all([store.runAsync(Sql, { id: "b" }), store.runAllAsync([[Sql, { id: "c" }]]), (collect(), store.replayAllAsync((function* () {
        for (let n = 1; n < 4; n++) (collect(), yield { id: "r" + round + n, type: "sql.1", seq: store.sequence("d") + n, aggregateID: "d", data: { id: "d" } })
      })(), { publish: true }))])
      const bytes = Buffer.from(JSON.stringify({ id: "x" + round, type: "made.1", seq: store.sequence("e") + 1, aggregateID: "e", data: { id: "e", round } }))
      store.replayAll((collect(), bytes), { publish: true })
      store.claim("a", "me")
      if (round % 3 === 2) store.remove("c", { event: [Sql, { id: "c" }] })
      for (const row of store.db.prepare("SELECT collected(id) AS id FROM thing").iterate()) collect()
      for (const event of store.read("a").reverse()) (collect(), assert.equal(event.data.id, "a"))
      for await (const item of store.log({ aggregateID: "d" })) (collect(), assert.ok(item.kind))
      const seen = []
      while (seen.length < 4) seen.push((collect(), (await stream.next()).value.aggregateID))
      await store.maintain({ onProgress: collect })
      assert.deepEqual(await store.verify({ onProgress: collect }), [])
      collect()
      // Whoever listens to the database goes on hearing it: only a store that nobody hears is collected.
      if (round % 2) store.close()
      else undo(await stream.return())
    }
    for (let round = 0; round < count; round++) (await once(round), collect())
    await until(() => !registry.frozen, "the last store")
    const { store } = { store: open(path, { registry, projectors }) }
    assert.equal(store.sequence("b"), count - 1)
    store.close()
  `
  const withCollect = (collect) => `const { sql } = require("syncline"); const collect = ${collect};${everywhere}`

  test("in projectors, schemas, toJSON, listeners, conversions, functions, iterators, between begin and commit", () =>
    outcomeOf(withCollect("() => gc()"), { count: extent(3, 30) }))

  for (const flag of ["--gc-interval=150", "--random-gc-interval=300", "--stress-compaction", "--stress-scavenge=80"]) {
    test(`wherever V8 likes: ${flag}`, () =>
      outcomeOf(withCollect("() => {}"), { count: extent(3, 60), flags: [flag] }))
  }

  test("what is dropped in any order takes nothing with it that is still in use", async () => {
    await outcomeOf(
      `
      const uses = {
        store: (it) => it.store.run(it.Made, { id: "a" }),
        db: (it) => it.db.prepare("SELECT count(*) AS n FROM thing").get(),
        statement: (it) => assert.deepEqual(it.statement.all(), [{ id: "a" }]),
        iterator: (it) => it.iterator.next(),
        log: (it) => it.log.next(),
        function: (it) => assert.equal(it.call.get().f, 7),
        connection: (it) => it.connection.prepare("SELECT count(*) FROM thing").get(),
      }
      const fields = { function: ["call"], store: ["store", "Made", "registry"] }
      const names = Object.keys(uses)
      for (let order = 0; order < count; order++) {
        const it = openStore(folder + "/" + (order % 3) + ".db")
        it.store.run(it.Made, { id: "a" })
        it.db = it.store.db
        it.statement = it.db.prepare("SELECT id FROM thing")
        it.db.function("f", () => 7)
        it.call = it.db.prepare("SELECT f() AS f")
        it.iterator = it.db.prepare("SELECT id FROM thing UNION ALL SELECT 'b'").iterate()
        it.log = it.store.log({ aggregateID: "a" })
        it.connection = it.store.connect()
        const left = names.map((name, n) => [(order * 7919 * (n + 1)) % 101, name]).sort((a, b) => a[0] - b[0]).map(([, name]) => name)
        while (left.length > 0) {
          const dropped = left.shift()
          for (const field of fields[dropped] ?? [dropped]) it[field] = undefined
          gc()
          if (order % 2) await turn()
          for (const name of left) {
            try {
              await uses[name](it)
            } catch (error) {
              assert.equal(error.code, "ERR_BUSY", name + " after " + dropped + ": " + error.stack)
            }
          }
        }
      }
      `,
      { count: extent(60, 3_000) },
    )
  })
})
