"use strict"

const assert = require("node:assert/strict")
const { readFileSync } = require("node:fs")
const { join } = require("node:path")
const { afterEach, describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")
const { coded, openNotes, temporaryFolder, written } = require("./notes")

const root = join(__dirname, "..")
const folder = temporaryFolder()
const opened = []
let files = 0
let store, Written

const reopen = (options) => {
  const log = openNotes(join(folder, `${files++}.db`), options)
  opened.push(log.store)
  ;({ store, Written } = log)
  return log
}
const nested = (levels) => JSON.parse("[".repeat(levels) + "]".repeat(levels))
const defineType = (type) =>
  define({
    type,
    version: 1,
    aggregate: "noteID",
    schema: z.object({ noteID: z.string() }),
    registry: createRegistry(),
  })

/** Data whose JSON text has exactly so many bytes, of which each character of the filling has three. */
function dataOf(bytes, noteID = "a") {
  const missing = bytes - Buffer.byteLength(JSON.stringify({ noteID, text: "" }))
  return { noteID, text: "€".repeat(Math.floor(missing / 3)) + "x".repeat(missing % 3) }
}

afterEach(() => {
  for (const each of opened.splice(0)) each.close()
})

describe("names", () => {
  test("a type with its version has at most 255 bytes, in UTF-8", () => {
    for (const type of ["t".repeat(253), "é".repeat(126) + "t"]) assert.equal(defineType(type).name, `${type}.1`)
    const tooLarge = coded("ERR_TOO_LARGE", { size: 256, limit: 255 })
    assert.throws(() => defineType("t".repeat(254)), tooLarge)
    assert.throws(() => defineType("é".repeat(127)), tooLarge)

    reopen()
    const named = (type) => written("a", 0, { type })
    assert.throws(() => store.replay(named("t".repeat(255))), coded("ERR_UNKNOWN_EVENT"))
    assert.throws(
      () => store.replay(named("t".repeat(256))),
      coded("ERR_TOO_LARGE", { index: 0, size: 256, limit: 255 }),
    )
  })

  test("an aggregate id has at most 8 KiB, wherever it is given", () => {
    reopen()
    for (const [atBound, over] of [
      ["a".repeat(8192), "a".repeat(8193)],
      ["é".repeat(4096), "é".repeat(4096) + "a"],
    ]) {
      assert.equal(store.run(Written, { noteID: atBound }).seq, 0)
      assert.equal(store.replay(written(atBound, 1)).seq, 1)
      assert.equal(store.sequence(atBound), 1)
      assert.throws(() => store.run(Written, { noteID: over }), coded("ERR_TOO_LARGE"))
      assert.throws(() => store.replay(written(over, 0)), coded("ERR_TOO_LARGE", { size: 8193, limit: 8192, index: 0 }))
      for (const call of ["read", "sequence", "owner", "remove"]) {
        assert.throws(() => store[call](over), coded("ERR_TOO_LARGE", { message: /8192 bytes/ }))
      }
      assert.throws(() => store.get(over, 0), coded("ERR_TOO_LARGE"))
      assert.throws(() => store.claim(over, "me"), coded("ERR_TOO_LARGE"))
      assert.throws(() => store.sequences([over]), coded("ERR_TOO_LARGE"))
      assert.throws(() => store.log({ aggregateID: over }), coded("ERR_TOO_LARGE"))
    }
  })

  test("an owner has at most 255 bytes", () => {
    reopen({ owner: "é".repeat(127) + "o" })
    assert.equal(store.claim("a", "o".repeat(255)).owner.length, 255)
    assert.equal(store.replay(written("b", 0), { owner: "o".repeat(255) }).seq, 0)
    const over = coded("ERR_TOO_LARGE", { message: /255 bytes/ })
    assert.throws(() => store.claim("a", "o".repeat(256)), over)
    assert.throws(() => store.replay(written("b", 1), { owner: "é".repeat(128) }), over)
    assert.throws(() => openNotes(join(folder, "owner.db"), { owner: "o".repeat(256) }), over)
  })

  test("the id of a replayed event has at most 255 bytes", () => {
    reopen()
    store.replay(written("a", 0, { id: "i".repeat(255) }))
    assert.equal(store.get("a", 0).id.length, 255)
    const over = coded("ERR_TOO_LARGE", { index: 0, size: 256, limit: 255 })
    assert.throws(() => store.replay(written("a", 1, { id: "é".repeat(128) })), over)
  })
})

describe("the size of an event", () => {
  test("is at most 16 MiB of data, in UTF-8, run and replayed", () => {
    reopen()
    const bound = 16 * 1024 * 1024
    store.run(Written, dataOf(bound))
    assert.equal(Buffer.byteLength(JSON.stringify(store.get("a", 0).data)), bound)
    const over = { size: bound + 1, limit: bound }
    assert.throws(() => store.run(Written, dataOf(bound + 1)), coded("ERR_TOO_LARGE", over))
    assert.equal(store.sequence("a"), 0)

    assert.equal(store.replay(written("a", 1, { data: dataOf(bound) })).seq, 1)
    const replayed = coded("ERR_TOO_LARGE", { ...over, index: 0 })
    assert.throws(() => store.replay(written("a", 2, { data: dataOf(bound + 1) })), replayed)
    const bytes = Buffer.from(JSON.stringify(written("a", 2, { data: dataOf(bound + 1) })))
    assert.throws(() => store.replayAll(bytes), replayed)
  })

  test("is what maxEventBytes says, for data and metadata each", () => {
    reopen({ maxEventBytes: 50 })
    const metadata = dataOf(50)
    assert.equal(store.run(Written, dataOf(50), { metadata }).seq, 0)
    const over = { size: 51, limit: 50 }
    assert.throws(() => store.run(Written, dataOf(51)), coded("ERR_TOO_LARGE", over))
    assert.throws(() => store.run(Written, dataOf(50), { metadata: dataOf(51) }), coded("ERR_TOO_LARGE", over))
    assert.equal(store.replay(written("a", 1, { data: dataOf(50), metadata })).seq, 1)
    const replayed = (more) => () => store.replay(written("a", 2, { data: dataOf(50), ...more }))
    assert.throws(replayed({ data: dataOf(51) }), coded("ERR_TOO_LARGE", { ...over, index: 0 }))
    assert.throws(replayed({ metadata: dataOf(51) }), coded("ERR_TOO_LARGE", { ...over, index: 0 }))
    assert.equal(store.sequence("a"), 1)
  })

  test("maxEventBytes itself is an integer from 1 through 1,000,000,000, SQLite's own bound", () => {
    reopen({ maxEventBytes: 1 })
    reopen({ maxEventBytes: 1_000_000_000 })
    for (const maxEventBytes of [0, -1, 1_000_000_001, 1.5, NaN, Infinity, "9", null]) {
      assert.throws(() => reopen({ maxEventBytes }), coded("ERR_INVALID_ARGUMENT", { message: /maxEventBytes/ }))
    }
  })

  test("data and metadata nest at most 1,000 levels", () => {
    for (const validate of ["always", "strict", "never"]) {
      reopen({ validate })
      const deep = (levels) => ({ noteID: "a", body: nested(levels - 1) })
      const tooDeep = coded("ERR_INVALID_DATA", { type: "note.written.1", aggregateID: "a", message: /1000 levels/ })
      assert.equal(store.run(Written, deep(1000), { metadata: { deep: nested(999) } }).seq, 0)
      assert.throws(() => store.run(Written, deep(1001)), tooDeep)
      assert.throws(() => store.run(Written, { noteID: "a" }, { metadata: { deep: nested(1000) } }), tooDeep)

      const metadata = { deep: nested(999) }
      assert.equal(store.replay(written("a", 1, { data: deep(1000), metadata })).applied, 1)
      assert.equal(store.replay(written("a", 1, { data: deep(1000), metadata })).duplicate, 1)
      for (const more of [{ data: deep(1001) }, { metadata: { deep: nested(1000) } }]) {
        const refused = coded("ERR_INVALID_EVENT", { index: 0, field: Object.keys(more)[0], message: /1001 levels/ })
        assert.throws(() => store.replay(written("a", 2, more)), refused)
      }
      assert.equal(store.sequence("a"), 1)
      assert.deepEqual(store.get("a", 1).data, deep(1000))
    }
  })

  test("what an upcast returns nests at most 1,000 levels", () => {
    const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }
    for (const [levels, projector] of [1000, 1001].flatMap((levels) => [
      [levels, sql`INSERT INTO seen VALUES (:data)`],
      [levels, (tx, data) => tx.prepare("INSERT INTO seen VALUES (?)").run(JSON.stringify(data))],
    ])) {
      const registry = createRegistry()
      const upcast = { 1: ({ noteID }) => ({ noteID, body: nested(levels - 1) }) }
      const shape = { type: "note.written", aggregate: "noteID", schema, registry }
      define({ ...shape, version: 1 })
      const projectors = [project(define({ ...shape, version: 2, upcast }), projector)]
      const upcasting = open(":memory:", { registry, projectors, migrate: (db) => db.exec("CREATE TABLE seen (data)") })
      const replayed = () => upcasting.replay(written("a", 0))
      if (levels === 1000) assert.equal(replayed().applied, 1)
      else assert.throws(replayed, coded("ERR_INVALID_DATA", { index: 0, aggregateID: "a", message: /1000 levels/ }))
      assert.equal(upcasting.db.prepare("SELECT count(*) FROM seen").pluck().get(), levels === 1000 ? 1 : 0)
      upcasting.close()
    }
  })
})

describe("numbers", () => {
  const MAX_SEQ = 2 ** 32 - 1

  test("a seq stays below 2^32", () => {
    reopen()
    store.replay({ kind: "gap", aggregateID: "a", after: -1, through: MAX_SEQ - 2 })
    assert.equal(store.replay(written("a", MAX_SEQ - 1)).seq, MAX_SEQ - 1)
    assert.equal(store.run(Written, { noteID: "a" }, { expectedSeq: MAX_SEQ - 1 }).seq, MAX_SEQ)
    assert.equal(store.get("a", MAX_SEQ).seq, MAX_SEQ)
    assert.deepEqual(
      store.read("a", { order: "desc" }).map((event) => event.seq),
      [MAX_SEQ, MAX_SEQ - 1],
    )
    const over = coded("ERR_TOO_LARGE", { size: 2 ** 32, limit: MAX_SEQ })
    assert.throws(() => store.run(Written, { noteID: "a" }), over)
    assert.throws(() => store.remove("a", { event: [Written, { noteID: "a" }] }), over)
    assert.throws(() => store.replay(written("a", 2 ** 32)), coded("ERR_INVALID_EVENT", { index: 0, field: "seq" }))
    const gap = { kind: "gap", aggregateID: "b", after: -1, through: 2 ** 32 }
    assert.throws(() => store.replay(gap), coded("ERR_INVALID_EVENT", { index: 0, field: "through" }))
    assert.throws(() => store.get("a", 2 ** 32), coded("ERR_INVALID_ARGUMENT"))
    assert.equal(store.sequence("a"), MAX_SEQ)
    store.remove("a")
    assert.equal(store.sequence("a"), MAX_SEQ)
  })

  test("a file holds fewer than 2^31 aggregates", () => {
    reopen()
    store.db.exec(`INSERT INTO event_sequence (key, aggregate_id, seq) VALUES (${2 ** 31 - 2}, 'late', -1)`)
    assert.equal(store.run(Written, { noteID: "last" }).seq, 0)
    const over = coded("ERR_TOO_LARGE", { size: 2 ** 31, limit: 2 ** 31 - 1 })
    assert.throws(() => store.run(Written, { noteID: "one more" }), over)
    assert.throws(() => store.replay(written("one more", 0)), over)
    assert.throws(() => store.claim("one more", "me"), over)
    assert.equal(store.sequence("one more"), -1)
    assert.equal(store.owner("one more"), undefined)
    assert.equal(store.run(Written, { noteID: "last" }).seq, 1)
  })

  test("created is a safe integer", () => {
    reopen()
    for (const created of [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 0, -1]) {
      const { seq } = store.run(Written, { noteID: "a" }, { created })
      assert.equal(store.get("a", seq).created, created)
      store.replay(written("b", seq, { created }))
      assert.equal(store.get("b", seq).created, created)
    }
    for (const created of [2 ** 53, -(2 ** 53), 1.5, NaN, Infinity, "1", null, 1n]) {
      assert.throws(() => store.run(Written, { noteID: "a" }, { created }), coded("ERR_INVALID_ARGUMENT"))
      if (typeof created === "bigint" || created === null) continue
      // JSON has no text for NaN and Infinity but null, which is not an integer either.
      const refused = coded("ERR_INVALID_EVENT", { index: 0, field: "created" })
      assert.throws(() => store.replay(written("b", 4, { created })), refused)
    }
  })

  test("busyTimeout is an integer below 2^31", () => {
    reopen({ busyTimeout: 0 })
    reopen({ busyTimeout: 2 ** 31 - 1 })
    for (const busyTimeout of [-1, 2 ** 31, 0.5, NaN, "1"]) {
      assert.throws(() => reopen({ busyTimeout }), coded("ERR_INVALID_ARGUMENT", { message: /busyTimeout/ }))
    }
  })
})

describe("bounds inside, which a caller never meets", () => {
  test("reading goes on past a page of 1,000 rows, and past a page of 1 MiB", () => {
    reopen()
    store.runAll(Array.from({ length: 2_001 }, () => [Written, { noteID: "rows" }]))
    store.runAll(Array.from({ length: 5 }, () => [Written, dataOf(600_000, "bytes")]))
    for (const order of ["asc", "desc"]) {
      assert.equal(new Set(store.read("rows", { order }).map((event) => event.seq)).size, 2_001)
      assert.equal(store.read("bytes", { order }).length, 5)
      assert.equal(store.read("rows", { order, limit: 1_001 }).length, 1_001)
    }
    assert.equal(store.readAll({ limit: 5_000 }).length, 2_006)
  })

  test("the list of aggregates goes on past 1,000", () => {
    reopen()
    store.runAll(Array.from({ length: 1_001 }, (_, n) => [Written, { noteID: `n${n}` }]))
    assert.equal(store.aggregates().length, 1_001)
    assert.equal(store.sequences().size, 1_001)
    assert.equal(store.sequences(store.aggregates().map((each) => each.aggregateID)).size, 1_001)
  })

  test("mistake 12: as many ids as there are may be asked for at once", () => {
    reopen()
    store.run(Written, { noteID: "n39999" })
    const ids = Array.from({ length: 40_000 }, (_, n) => `n${n}`)
    assert.deepEqual([...store.sequences(ids)], [["n39999", 0]])
  })

  test("a function for SQL takes at most 100 arguments, or any number", () => {
    reopen()
    const taking = (count) =>
      new Function(...Array.from({ length: count }, (_, n) => `a${n}`), "return arguments.length")
    const call = (count) =>
      store.db
        .prepare(`SELECT f(${Array(count).fill(1)})`)
        .pluck()
        .get()
    assert.equal(store.db.function("f", taking(100)) && call(100), 100)
    assert.throws(() => store.db.function("f", taking(101)), coded("ERR_INVALID_ARGUMENT", { message: /100/ }))
    assert.equal(store.db.function("f", { varargs: true }, taking(101)) && call(127), 127)
  })

  test("more statements than are kept compiled run all the same", () => {
    reopen()
    const statements = Array.from({ length: 1_300 }, (_, n) => store.db.prepare(`SELECT ${n} AS n`))
    statements.forEach((statement, n) => assert.deepEqual(statement.get(), { n }))
  })
})

describe("a refusal", () => {
  test("quotes at most a little of what it refuses", () => {
    reopen()
    const long = "x".repeat(1_000_000)
    for (const item of [
      written("a", 0, { data: { noteID: long } }),
      written("a", 0, { data: { noteID: Array(500_000).fill(1) } }),
      { kind: long },
      written("a", long),
      written(long, 0),
      written("a", 0, { id: long }),
      written("a", 0, { data: long }),
    ]) {
      try {
        store.replay(item)
        assert.fail("it was taken")
      } catch (error) {
        assert.match(error.code, /^ERR_(AGGREGATE_MISMATCH|INVALID_EVENT|TOO_LARGE)$/)
        assert.ok(error.message.length < 500, `${error.code} has a message of ${error.message.length} characters`)
        assert.ok(JSON.stringify(error).length < 10_000, `the fields of ${error.code} are long`)
      }
    }
  })
})

describe("docs/limits.md and the two layers", () => {
  const constants = (file) => {
    const found = readFileSync(join(root, file), "utf8").matchAll(/^(?:pub|export) const (\w+)(?:: \w+)? = (.+?);?$/gm)
    return Object.fromEntries([...found].map(([, name, value]) => [name, value]))
  }
  const KNOWN = { "u32::MAX as i64": 2 ** 32 - 1, "i32::MAX as i64": 2 ** 31 - 1, "(1 << 53) - 1": 2 ** 53 - 1 }
  // Arithmetic of integers in both languages: nothing else passes the pattern.
  const evaluated = (value) => KNOWN[value] ?? (/^[\d_ *+-]+$/.test(value) ? new Function(`return ${value}`)() : value)
  const core = constants("src/limits.rs")

  test("TypeScript checks the bounds that the core has", () => {
    for (const [name, value] of Object.entries(constants("lib/argument.ts"))) {
      if (name in core) assert.equal(evaluated(value), evaluated(core[name]), name)
      else assert.equal(name, "MAX_MAX_EVENT_BYTES", `${name} is not in src/limits.rs`)
    }
  })

  test("docs/limits.md names each", () => {
    const text = readFileSync(join(root, "docs/limits.md"), "utf8")
    assert.ok(Object.keys(core).length >= 12, "the constants were found")
    for (const [name, value] of Object.entries(core)) {
      const number = evaluated(core[value] ?? value)
      assert.equal(typeof number, "number", `${name} = ${value} is not understood`)
      const row = text.split("\n").find((line) => line.includes(`\`${name}\``))
      assert.ok(row !== undefined, `${name} is missing`)
      const found = spellings(number).some((spelling) => row.includes(spelling))
      assert.ok(found, `${name}: none of ${spellings(number).join(" | ")} in ${row}`)
    }
  })

  /** How a reader may find a number: 8 KiB, 8,192 or 8192. */
  function spellings(number) {
    const list = [String(number), number.toLocaleString("en-US")]
    if (number % 2 ** 20 === 0) list.push(`${number / 2 ** 20} MiB`)
    else if (number % 2 ** 10 === 0) list.push(`${number / 2 ** 10} KiB`)
    if (number === 2 ** 53 - 1) list.push("2^53 − 1")
    return list
  }
})
