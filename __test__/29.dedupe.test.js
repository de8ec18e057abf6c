"use strict"

// A run that says what the newest event of its key says already: it stores nothing, and returns that event.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { follow } = require("./dedupe-model.js")
const { opened, parts } = require("./parts.js")
const { coded, file, kept } = require("./stores.js")

const throwsCode = (fn, code) => assert.throws(fn, coded(code))

/** What an event says, without the mark. */
const plain = (event) => JSON.parse(JSON.stringify({ ...event, unchanged: undefined }))

for (const how of ["function", "sql", "none"]) {
  test(`a repeated run stores, projects and publishes nothing (projector: ${how})`, () => {
    const { store, heard, calls, update } = opened({ how })
    const first = update({ id: "a", text: "x", time: { start: 1 } }, { time: 1 })
    const again = update({ id: "a", text: "x", time: { start: 1, end: 9 } }, { time: 2 })
    assert.equal(first.unchanged, undefined)
    assert.equal(again.unchanged, true)
    assert.deepEqual(plain(again), plain(first))
    assert.deepEqual(again.data, { sessionID: "s", part: { id: "a", text: "x", time: { start: 1 } }, time: 1 })
    assert.equal(store.sequence("s"), 0)
    assert.equal(store.readAll({ limit: 9 }).length, 1)
    assert.equal(heard.length, 1)
    assert.equal(calls.length, how === "function" ? 1 : 0)
    if (how !== "none") assert.deepEqual(store.db.prepare("SELECT writes FROM part").pluck().all(), [1])
    assert.equal(store.db.inTransaction, false)
    // What follows takes the next seq and position, and is heard.
    const next = update({ id: "a", text: "y" })
    assert.deepEqual([next.seq, next.unchanged, heard.length], [1, undefined, 2])
    assert.deepEqual(
      store.readAll({ limit: 9 }).map((event) => event.position),
      [1, 2],
    )
  })
}

describe("equal", () => {
  test("is the text without the paths: a path may be missing, other keys and their order may not", () => {
    const { update } = opened({ how: "none" })
    const unchanged = (part, more) => update(part, more).unchanged === true
    assert.equal(unchanged({ id: "a", n: 1, time: { start: 1, end: 2 } }, { time: 5 }), false)
    assert.equal(unchanged({ id: "a", n: 1, time: { start: 1 } }), true)
    assert.equal(unchanged({ n: 1, id: "a", time: { start: 1 } }), false)
    assert.equal(unchanged({ n: 1, id: "a" }), false)
    assert.equal(unchanged({ n: 1, id: "a", time: {} }), false)
    assert.equal(unchanged({ n: 1, id: "a", time: { end: 1 } }), true)
    assert.equal(unchanged({ n: 1, id: "a", time: [{ end: 1 }] }), false)
    assert.equal(unchanged({ n: 1, id: "a", time: [{ end: 2 }] }), false)
    assert.equal(unchanged({ n: 1, id: "a", '\u00e9"': "\ud800" }), false)
    assert.equal(unchanged({ n: 1, id: "a", '\u00e9"': "\ud800" }), true)
    assert.equal(unchanged({ n: 1, id: "a", '\u00e9"': "\ud801" }), false)
  })

  test("with no paths, is all of the data", () => {
    const { update } = opened({ how: "none", dedupe: [] })
    update({ id: "a" }, { time: 1 })
    assert.equal(update({ id: "a" }, { time: 1 }).unchanged, true)
    assert.equal(update({ id: "a" }, { time: 2 }).unchanged, undefined)
  })

  test("is to the newest event of the key, not to an earlier one, and not to another key's", () => {
    const { update, store, Updated } = opened({ how: "none" })
    const told = []
    for (const id of ["a", "b", "a", "a2", "a", "b", "1", 1]) {
      const part = id === "a2" ? { id: "a", n: 2 } : { id, n: 1 }
      told.push(update(part).unchanged === true)
    }
    assert.deepEqual(told, [false, false, true, false, false, true, false, false])
    assert.equal(store.run(Updated, { sessionID: "t", part: { id: "a", n: 1 } }).seq, 0)
  })

  test("cannot be what has no key", () => {
    const { update } = opened({ how: "none" })
    for (const part of [undefined, {}, { id: null }, { id: { x: 1 } }]) {
      assert.equal(update(part).unchanged, undefined)
      assert.equal(update(part).unchanged, undefined)
    }
  })

  test("a key that is itself a path that may differ stays a key", () => {
    const { update } = opened({ how: "none", dedupe: ["part.id"] })
    update({ id: "a" })
    assert.equal(update({ id: "b" }).unchanged, undefined)
    assert.equal(update({ id: "a" }).unchanged, true)
  })
})

describe("a barrier", () => {
  test("begins the key anew", () => {
    const { store, Removed, update } = opened()
    update({ id: "a", text: "x" })
    store.run(Removed, { sessionID: "s", id: "a" })
    const anew = update({ id: "a", text: "x" })
    assert.deepEqual([anew.unchanged, anew.seq], [undefined, 2])
    assert.equal(store.db.prepare("SELECT count(*) FROM part").pluck().get(), 1)
    assert.equal(update({ id: "a", text: "x" }).unchanged, true)
  })

  test("that is rolled back does not", () => {
    const { store, Removed, update } = opened()
    update({ id: "a", text: "x" })
    assert.throws(() =>
      store.transaction(() => {
        store.run(Removed, { sessionID: "s", id: "a" })
        assert.equal(update({ id: "a", text: "x" }).unchanged, undefined)
        throw new Error("no")
      }),
    )
    assert.equal(update({ id: "a", text: "x" }).unchanged, true)
    assert.equal(store.sequence("s"), 0)
  })

  test("is any version of its definition, and so is another version of the type itself", () => {
    const path = file()
    const { store, update } = opened({ path, how: "none" })
    const replayed = (type, data) => {
      const seq = store.sequence("s") + 1
      const { registry, make } = parts({ how: "none", version: 2 })
      make("part.removed", { version: 2, projector: "none" })
      const other = kept(path, { registry, packing: false })
      other.replay({ id: `evt_${seq}`, type, seq, aggregateID: "s", data: { sessionID: "s", ...data } })
      other.close()
    }
    update({ id: "a", n: 1 })
    replayed("part.removed.2", { id: "a" })
    assert.equal(update({ id: "a", n: 1 }).unchanged, undefined)
    replayed("part.updated.2", { part: { id: "a", n: 2 } })
    assert.equal(update({ id: "a", n: 1 }).unchanged, undefined)
    assert.equal(update({ id: "a", n: 1 }).unchanged, true)
  })
})

describe("the checks of a run", () => {
  test("still apply: expectedSeq, owner, schema, projector", () => {
    const path = file()
    const { store, update, Updated } = opened({ path, options: { owner: "one" } })
    update({ id: "a", text: "x" })
    throwsCode(() => update({ id: "a", text: "x" }, {}, { expectedSeq: 7 }), "ERR_CONFLICT")
    assert.equal(update({ id: "a", text: "x" }, {}, { expectedSeq: 0 }).unchanged, true)
    throwsCode(() => store.run(Updated, { sessionID: 1 }), "ERR_AGGREGATE_REQUIRED")
    store.claim("s", "two")
    throwsCode(() => update({ id: "a", text: "x" }), "ERR_NOT_OWNER")
    store.claim("s", "one")
    assert.equal(update({ id: "a", text: "x" }).unchanged, true)
    assert.equal(store.db.inTransaction, false)
    assert.equal(store.sequence("s"), 0)
  })

  test("a store that does not record runs every event", () => {
    const { heard, update } = opened({ options: { record: false } })
    for (const _ of [1, 2]) assert.deepEqual(plain(update({ id: "a" })).seq, -1)
    assert.equal(heard.length, 2)
  })

  test("define refuses dedupe without a key, and paths that are none", () => {
    const define1 = (more) => () =>
      define({
        type: "t",
        version: 1,
        aggregate: "id",
        schema: z.object({ id: z.string() }),
        registry: createRegistry(),
        ...more,
      })
    throwsCode(define1({ dedupe: [] }), "ERR_INVALID_ARGUMENT")
    for (const dedupe of ["time", [""], ["a..b"], [1], {}, null]) {
      throwsCode(define1({ compactKey: "id", dedupe }), "ERR_INVALID_ARGUMENT")
    }
    const definition = define1({ compactKey: "id", dedupe: ["a.b"] })()
    assert.deepEqual(definition.dedupe, ["a.b"])
    assert.ok(Object.isFrozen(definition.dedupe))
  })
})

describe("transactions", () => {
  test("what was recorded in one counts at once, and no more once it is rolled back", () => {
    const { store, heard, update } = opened()
    update({ id: "a", text: "1" })
    for (const nested of [false, true]) {
      const fails = () => {
        update({ id: "a", text: "2" })
        assert.equal(update({ id: "a", text: "2" }).unchanged, true)
        throw new Error("undo")
      }
      const attempt = () => assert.throws(() => store.transaction(fails), /undo/)
      if (nested) store.transaction(() => (attempt(), assert.equal(update({ id: "a", text: "1" }).unchanged, true)))
      else attempt()
      assert.equal(update({ id: "a", text: "1" }).unchanged, true)
    }
    assert.deepEqual([store.sequence("s"), heard.length], [0, 1])
    assert.equal(update({ id: "a", text: "2" }).seq, 1)
  })

  test("a projector that throws leaves nothing to equal", () => {
    const { store, update } = opened()
    update({ id: "a", text: "x" })
    for (const _ of [1, 2]) assert.throws(() => update({ id: "a", text: "refused" }), /refused/)
    assert.equal(update({ id: "a", text: "x" }).unchanged, true)
    assert.equal(store.sequence("s"), 0)
  })

  test("raw savepoints take back, too; a raw ROLLBACK ends nothing of it", () => {
    const { store, update } = opened()
    update({ id: "a", text: "1" })
    store.transaction(() => {
      store.db.exec("SAVEPOINT one")
      update({ id: "a", text: "2" })
      store.db.exec("ROLLBACK TO one; RELEASE one")
      assert.equal(update({ id: "a", text: "1" }).unchanged, true)
      assert.equal(update({ id: "a", text: "3" }).seq, 1)
    })
    store.db.exec("BEGIN; INSERT INTO part VALUES ('z', '', 0)")
    throwsCode(() => update({ id: "a", text: "3" }), "ERR_IN_TRANSACTION")
    store.db.exec("ROLLBACK")
    assert.equal(update({ id: "a", text: "3" }).unchanged, true)
    assert.equal(update({ id: "a", text: "2" }).seq, 2)
  })

  test("that SQLite ends by itself take it back", () => {
    const { store, update } = opened()
    store.db.exec(`CREATE TRIGGER lost BEFORE INSERT ON part WHEN NEW.text = 'lost'
      BEGIN SELECT RAISE(ROLLBACK, 'lost'); END`)
    update({ id: "a", text: "1" })
    throwsCode(
      () => store.transaction(() => (update({ id: "a", text: "2" }), update({ id: "b", text: "lost" }))),
      "ERR_SQLITE",
    )
    assert.equal(update({ id: "a", text: "1" }).unchanged, true)
    assert.equal(update({ id: "a", text: "2" }).seq, 1)
  })

  test("runAll and runAsync dedupe likewise", async () => {
    const { store, heard, Updated } = opened()
    const one = [Updated, { sessionID: "s", part: { id: "a", text: "1" } }]
    const two = [Updated, { sessionID: "s", part: { id: "a", text: "2" } }]
    const marks = (events) => events.map(({ seq, unchanged }) => `${seq}${unchanged ? "=" : ""}`).join(" ")
    assert.equal(marks(store.runAll([one, one, two, two, one])), "0 0= 1 1= 2")
    assert.equal(marks([await store.runAsync(...one)]), "2=")
    assert.equal(marks(await store.runAllAsync([one, two])), "2= 3")
    assert.equal(heard.length, 4)
  })
})

describe("what others wrote in between is seen", () => {
  test("another store of the process, which does not dedupe", () => {
    const path = file()
    const { update } = opened({ path })
    const other = opened({ path, dedupe: null })
    update({ id: "a", text: "1" })
    assert.equal(other.update({ id: "a", text: "1" }).seq, 1)
    other.update({ id: "a", text: "2" })
    assert.equal(update({ id: "a", text: "1" }).seq, 3)
    other.store.run(other.Removed, { sessionID: "s", id: "a" })
    assert.equal(update({ id: "a", text: "1" }).seq, 5)
    other.store.run(other.Renamed, { sessionID: "s", title: "t" })
    assert.equal(update({ id: "a", text: "1" }).unchanged, true)
  })

  test("a removal, with an event or without, and what came after it", () => {
    for (const told of [false, true]) {
      const path = file(`${told}.db`)
      const { store, update } = opened({ path })
      const other = opened({ path })
      update({ id: "a", text: "1" })
      const event = [other.Removed, { sessionID: "s", id: "a" }]
      other.store.remove("s", told ? { event } : {})
      const seq = store.sequence("s")
      assert.equal(update({ id: "a", text: "1" }).seq, seq + 1)
      assert.equal(update({ id: "a", text: "1" }).unchanged, true)
      // Taken back, it has never been.
      assert.throws(() =>
        store.transaction(
          () => (store.remove("s"), assert.equal(update({ id: "a", text: "1" }).seq, seq + 2), assert.fail("undo")),
        ),
      )
      assert.equal(update({ id: "a", text: "1" }).unchanged, true)
    }
  })

  test("another process that writes the same key at the same time", async () => {
    const path = file()
    const { store, update } = opened({ path, how: "none" })
    const PROGRAM = `
      const { z } = require("zod")
      const { createRegistry, define, open } = require("syncline")
      const registry = createRegistry()
      const schema = z.looseObject({ sessionID: z.string() })
      const Updated = define({ type: "part.updated", version: 1, aggregate: "sessionID", schema, projector: "none", registry })
      const store = open(process.argv.at(-1), { registry })
      for (let n = 0; n < 300; n++) store.run(Updated, { sessionID: "s", part: { id: "a", n: n % 3 } })
      store.close()
    `
    const cwd = join(__dirname, "..")
    const writer = spawn(process.execPath, ["-e", PROGRAM, path], { cwd, stdio: ["ignore", "ignore", "inherit"] })
    const ended = once(writer, "exit")
    // Each answer must be what the log says: the newest event of the key at that seq.
    for (let n = 0; writer.exitCode === null; n++) {
      const { seq, unchanged } = update({ id: "a", n: n % 3 })
      if (unchanged) assert.equal(store.get("s", seq).data.part.n, n % 3)
      if (n % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    assert.deepEqual(await ended, [0, null])
    const events = store.read("s")
    assert.ok(events.length > 300)
    assert.deepEqual(
      events.map(({ seq }) => seq),
      [...events.keys()],
    )
    const last = events.at(-1).data.part
    assert.equal(update(last).unchanged, true)
    assert.equal(update({ id: "a", n: 7 }).unchanged, undefined)
  })
})

describe("history", () => {
  test("16,074 runs of 6 distinct payloads leave six events", () => {
    const { store, heard, update } = opened({ path: file(), how: "sql" })
    for (let n = 0; n < 16_074; n++) update({ id: "a", text: `payload ${Math.floor(n / 2_679)}` }, { time: n })
    assert.equal(store.sequence("s"), 5)
    assert.equal(heard.length, 6)
  })

  test("counts wherever it is: packed, compacted, read anew by the next store", async () => {
    const path = file()
    const first = opened({ path, how: "none" })
    for (let n = 0; n < 3_000; n++) first.update({ id: `p${n % 50}`, n })
    await first.store.maintain()
    for (let n = 2_950; n < 3_000; n++) assert.equal(first.update({ id: `p${n % 50}`, n }).unchanged, true)
    first.store.close()
    const second = opened({ path, how: "none" })
    for (let n = 2_950; n < 3_000; n++) assert.equal(second.update({ id: `p${n % 50}`, n }).unchanged, true)
    assert.equal(second.update({ id: "p1", n: 1 }).seq, 3_000)
    assert.equal(second.update({ id: "p1", n: 2_951 }).seq, 3_001)
  })

  test("that cannot be read keeps nobody from running", async () => {
    const path = file()
    const first = opened({ path, how: "none" })
    for (let n = 0; n < 3_000; n++) first.update({ id: `p${n}`, n: 1 })
    await first.store.maintain()
    for (let n = 0; n < 3_000; n += 100) first.update({ id: `p${n}`, n: 2 })
    first.store.db.exec("UPDATE event_segment SET body = x'00' WHERE first_seq > 0 AND first_seq < 2000")
    first.store.close()
    const { store, update } = opened({ path, how: "none" })
    throwsCode(() => store.read("s"), "ERR_CORRUPT")
    assert.equal(update({ id: "p1500", n: 2 }).unchanged, true)
    assert.equal(update({ id: "p1501", n: 1 }).seq, store.sequence("s"))
    assert.equal(update({ id: "p2999", n: 1 }).unchanged, true)
  })

  test("a gap that is replayed, and taken back, hides nothing that others write in its place", () => {
    const path = file()
    const { store, update } = opened({ path, how: "none" })
    const other = opened({ path, how: "none" })
    update({ id: "a", n: 1 })
    const attempt = () =>
      store.transaction(() => {
        store.replay({ kind: "gap", aggregateID: "s", after: 0, through: 2 })
        assert.equal(update({ id: "a", n: 1 }).unchanged, true)
        assert.fail("undo")
      })
    assert.throws(attempt, /undo/)
    for (const n of [2, 3]) other.update({ id: "a", n })
    assert.equal(update({ id: "a", n: 1 }).seq, 3)
  })

  test("of many aggregates is remembered as far as it goes, and read again beyond", () => {
    const { store, Updated } = opened({ path: file(), how: "none" })
    const all = Array.from({ length: 200 }, (_, n) => [Updated, { sessionID: `s${n}`, part: { id: "a" } }])
    store.runAll(all)
    for (const [, data] of all) assert.equal(store.run(Updated, data).unchanged, true)
  })

  test("is applied whole by a replay", () => {
    const { store, update, calls } = opened()
    update({ id: "a", text: "x" })
    const [event] = store.read("s")
    store.replay({ ...event, id: "evt_1", seq: 1 })
    assert.deepEqual([store.sequence("s"), calls.length], [1, 2])
    const again = update({ id: "a", text: "x" })
    assert.deepEqual([again.id, again.seq, again.unchanged], ["evt_1", 1, true])
  })

  test("what a replay left without a time, or with metadata, comes back so", () => {
    const { store, update } = opened({ how: "none" })
    const data = { sessionID: "s", part: { id: "a" } }
    store.replay({ id: "evt_0", type: "part.updated.1", seq: 0, aggregateID: "s", data, metadata: { by: "me" } })
    const event = update({ id: "a" }, {}, { metadata: { by: "you" }, created: 5 })
    assert.deepEqual(plain(event).metadata, { by: "me" })
    assert.ok(!("created" in event))
  })
})

test("whatever several stores do, the answer is what the log says", async () => {
  for (let seed = 1; seed <= 12; seed++) await follow(seed)
})
