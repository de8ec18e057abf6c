"use strict"

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const fc = require("fast-check")
const { SyncError, createRegistry, define, open, sql } = require("syncline")
const { coded, dump, openNotes, temporaryFolder, written } = require("./notes")

const folder = temporaryFolder()
const LEVELS = 100_000
let files = 0
let store, Written

beforeEach(() => {
  ;({ store, Written } = openNotes(join(folder, `${files++}.db`)))
  store.run(Written, { noteID: "kept", text: "before" })
})

afterEach(() => store.close())

/** The call must be refused so, leave the database as it was, and leave the store usable. */
function refused(call, check) {
  const before = dump(store.db)
  assert.throws(call, check)
  assert.deepEqual(dump(store.db), before)
  assert.equal(store.db.inTransaction, false)
  const seq = store.sequence("kept")
  assert.equal(store.run(Written, { noteID: "kept", text: "after" }).seq, seq + 1)
}

const invalidEvent = (fields) => coded("ERR_INVALID_EVENT", { index: 0, ...fields })

describe("malformed and truncated JSON", () => {
  const line = JSON.stringify(written("a", 0, { metadata: { by: "é" }, created: 5 }))

  test("every cut of an event is refused, as text and as bytes, on its own, in an array and after a whole line", () => {
    const bytes = Buffer.from(line)
    for (let end = 1; end < bytes.length; end++) {
      const cut = bytes.subarray(0, end)
      refused(() => store.replayAll(cut), invalidEvent())
      refused(() => store.replayAll(Buffer.concat([Buffer.from("["), cut])), invalidEvent())
      refused(() => store.replayAll(Buffer.concat([bytes, Buffer.from("\n"), cut])), invalidEvent({ index: 1 }))
    }
    for (let end = 1; end < line.length; end++) refused(() => store.replayAll(line.slice(0, end)), invalidEvent())
  })

  test("text that is not JSON is refused, with the index of the item", () => {
    const array = (...items) => `[${items.join(",")}]`
    for (const [text, index] of [
      ["nonsense", 0],
      ["undefined", 0],
      ["{'id': 1}", 0],
      [`${line}}`, 0],
      [`${line},`, 0],
      [`${line}\n${line}x`, 1],
      [`${line} ${line}`, 0],
      [array(line, ""), 1],
      [array(line, "x"), 1],
      [`${array(line)}]`, 1],
      [`${array(line)} x`, 1],
      [`[${line} ${line}]`, 1],
      ["[,]", 0],
      ["[nul]", 0],
      ['{"id":"\u0001"}', 0],
      ['{"id":"\\x"}', 0],
      ['{"id":"\\ud800"}', 0],
      ['{"id":01}', 0],
      ["{}{}", 0],
      ["\0", 0],
      ["true", 0],
      ["null\n", 0],
      ["5", 0],
      ['"text"', 0],
    ]) {
      refused(() => store.replayAll(text), invalidEvent({ index }))
      refused(() => store.replayAll(Buffer.from(text)), invalidEvent({ index }))
    }
  })

  test("bytes that are not UTF-8 are refused", () => {
    const at = line.indexOf("evt_")
    for (const bytes of [[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80]]) {
      const spoilt = Buffer.concat([Buffer.from(line.slice(0, at)), Buffer.from(bytes), Buffer.from(line.slice(at))])
      refused(() => store.replayAll(spoilt), invalidEvent({ field: "json", message: /UTF-8/ }))
    }
    refused(() => store.replayAll(Buffer.from(line, "utf16le")), invalidEvent())
  })

  test("nothing at all is nothing to do, with and without a byte order mark", () => {
    const before = dump(store.db)
    for (const nothing of ["", " \n\t\r\n", "[]", " [ ] ", "\ufeff", "\ufeff[]", []]) {
      assert.deepEqual(store.replayAll(nothing), [])
      if (typeof nothing === "string") assert.deepEqual(store.replayAll(Buffer.from(nothing)), [])
    }
    assert.deepEqual(dump(store.db), before)
    assert.equal(store.replayAll(`\ufeff${line}\r\n`)[0].applied, 1)
  })

  test("spoilt bytes give a coded error or an event, and never anything else", () => {
    const source = Buffer.from(`${line}\n${JSON.stringify(written("b", 0))}\n`)
    const change = fc.record({ at: fc.nat(source.length - 1), byte: fc.nat(255), drop: fc.boolean() })
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = [...source]
        for (const { at, byte, drop } of changes) bytes.splice(at, 1, ...(drop ? [] : [byte]))
        const before = dump(store.db)
        try {
          store.replayAll(Uint8Array.from(bytes))
        } catch (error) {
          assert.ok(error instanceof SyncError, error?.stack)
          assert.deepEqual(dump(store.db), before)
        }
      }),
      { numRuns: 400, verbose: 1 },
    )
  })
})

describe(`${LEVELS.toLocaleString("en-US")} levels of nesting`, () => {
  const arrays = "[".repeat(LEVELS) + "]".repeat(LEVELS)
  const objects = '{"a":'.repeat(LEVELS) + "1" + "}".repeat(LEVELS)
  const event = (fields) =>
    `{"id":"e","type":"note.written.1","seq":0,"aggregateID":"a","data":{"noteID":"a"}${fields}}`
  const deepValue = () => {
    let value = 1
    for (let level = 0; level < LEVELS; level++) value = level % 2 ? [value] : { value }
    return value
  }

  test("in text: data and metadata are refused, a field of no meaning is passed over", () => {
    for (const deep of [arrays, objects]) {
      for (const [text, field] of [
        [event(`,"metadata":{"deep":${deep}}`), "metadata"],
        [event(`,"data":{"noteID":"a","deep":${deep}}`), "data"],
      ]) {
        refused(() => store.replayAll(text), invalidEvent({ field, message: /the limit is 1000/ }))
        refused(() => store.replayAll(Buffer.from(`[${text}]`)), invalidEvent({ field }))
      }
      for (const field of ["id", "type", "seq", "aggregateID", "created", "kind"]) {
        refused(() => store.replayAll(event(`,"${field}":${deep}`)), invalidEvent({ field }))
      }
    }
    assert.equal(store.replayAll(event(`,"other":${arrays}`))[0].applied, 1)
  })

  test("in text: where an event should be", () => {
    for (const text of [arrays, objects, "[".repeat(LEVELS), '{"a":'.repeat(LEVELS), `[${objects}]`]) {
      refused(() => store.replayAll(text), invalidEvent())
      refused(() => store.replayAll(Buffer.from(text)), invalidEvent())
    }
  })

  test("in objects: refused in run, in metadata and in replay", () => {
    const data = { noteID: "a", deep: deepValue() }
    refused(() => store.run(Written, data), coded("ERR_INVALID_DATA", { type: "note.written.1", aggregateID: "a" }))
    refused(
      () => store.run(Written, { noteID: "a" }, { metadata: data }),
      coded("ERR_INVALID_DATA", { type: "note.written.1", aggregateID: "a" }),
    )
    refused(() => store.replay(written("a", 0, { data })), invalidEvent())
    refused(() => store.replay(written("a", 0, { metadata: data })), invalidEvent())
    refused(() => store.replay({ kind: "event", event: written("a", 0, { data }) }), invalidEvent())
    refused(() => store.runAll([[Written, data]]), coded("ERR_INVALID_DATA"))
    refused(() => store.remove("kept", { event: [Written, { ...data, noteID: "kept" }] }), coded("ERR_INVALID_DATA"))
  })
})

describe("wrongly typed input", () => {
  test("what is no event", () => {
    for (const item of [null, undefined, 5, "text", true, 5n, Symbol("s"), () => {}, [], new Date(), new Map(), /x/]) {
      refused(() => store.replay(item), invalidEvent())
    }
    const cyclic = written("a", 0)
    cyclic.data.self = cyclic
    refused(() => store.replay(cyclic), invalidEvent())
    refused(() => store.replay({ toJSON: () => undefined }), invalidEvent())
    refused(() => store.replay(written("a", 0, { data: { noteID: "a", big: 5n } })), invalidEvent())
  })

  test("each field of an event, missing or of another type", () => {
    const wrong = {
      id: [undefined, null, 5, true, [], {}, ""],
      type: [undefined, null, 5, [], {}, ""],
      aggregateID: [undefined, null, 5, [], {}, ""],
      seq: [undefined, null, true, "0", [], {}, -1, 0.5, NaN, Infinity, 2 ** 32, -0.5, 1e300],
      data: [undefined, null, 5, "{}", [], true],
      created: [null, true, "5", [], {}, 0.5, 2 ** 53],
      metadata: [null, 5, "{}", [], true],
      kind: [null, 5, "", "events", {}],
    }
    for (const [field, values] of Object.entries(wrong)) {
      for (const value of values)
        refused(() => store.replay(written("a", 0, { [field]: value })), invalidEvent({ field }))
    }
    for (const seq of ["-1", "0.5", "1e400", "-1e400", "4294967296", "9007199254740993", '"0"', "1e-1"]) {
      const text = JSON.stringify(written("a", 0)).replace('"seq":0', `"seq":${seq}`)
      refused(() => store.replayAll(text), invalidEvent({ field: "seq" }))
    }
  })

  test("each field of the other log items", () => {
    const gap = { kind: "gap", aggregateID: "kept", after: 0, through: 1 }
    const removed = { kind: "removed", aggregateID: "kept", seq: 0 }
    const event = written("kept", 0)
    for (const [item, field] of [
      [{ ...gap, after: -2 }, "after"],
      [{ ...gap, through: "1" }, "through"],
      [{ ...gap, through: 0 }, "through"],
      [{ ...gap, aggregateID: 5 }, "aggregateID"],
      [{ ...removed, seq: undefined }, "seq"],
      [{ ...removed, seq: 0.5 }, "seq"],
      [{ ...removed, event: 5 }, "event"],
      [{ ...removed, event: { ...event, seq: 1 } }, "event"],
      [{ ...removed, event: { ...event, aggregateID: "b" } }, "event"],
      [{ kind: "event" }, "event"],
      [{ kind: "event", event: null }, "event"],
      [{ kind: "synced" }, "aggregateID"],
    ]) {
      refused(() => store.replay(item), invalidEvent({ field }))
    }
  })

  test("arguments of every call", () => {
    const invalid = coded("ERR_INVALID_ARGUMENT")
    for (const input of [null, undefined, 5, {}, true, () => {}]) refused(() => store.replayAll(input), invalid)
    for (const seq of [-2, 0.5, NaN, Infinity, "0", null, 2n, 2 ** 53]) {
      refused(() => store.run(Written, { noteID: "a" }, { expectedSeq: seq }), invalid)
      refused(() => store.get("kept", seq), invalid)
      refused(() => store.read("kept", { after: seq }), invalid)
      refused(() => store.read("kept", { before: seq }), invalid)
      refused(() => store.read("kept", { limit: seq }), invalid)
      refused(() => store.log({ aggregateID: "kept", after: seq }), invalid)
      refused(() => store.readAll({ limit: seq }), invalid)
      refused(() => store.claim("kept", "me", { expectedEpoch: seq }), invalid)
      refused(() => store.replay(written("a", 0), { epoch: seq }), invalid)
    }
    for (const id of [undefined, null, 5, "", "\ud800", {}, ["kept"]]) {
      for (const call of ["read", "sequence", "owner", "remove", "claim"]) refused(() => store[call](id, "me"), invalid)
      if (id !== undefined) refused(() => store.run(Written, { noteID: id }), coded("ERR_AGGREGATE_REQUIRED"))
    }
    for (const definition of [null, undefined, {}, "note.written", { ...Written, registry: null }]) {
      for (const call of ["run", "subscribe"]) refused(() => store[call](definition, () => {}), invalid)
    }
    for (const options of [null, 5, [], "x", { unknown: 1 }]) {
      refused(() => store.run(Written, { noteID: "a" }, options), invalid)
      refused(() => store.read("kept", options), invalid)
    }
    for (const data of [null, undefined, 5, "text", true, Symbol("s")]) {
      refused(() => store.run(Written, data), coded("ERR_AGGREGATE_REQUIRED"))
    }
  })

  test("an iterable that throws midway, or closes nothing, changes nothing", () => {
    const thrown = new Error("mine")
    function* broken() {
      yield written("a", 0)
      throw thrown
    }
    refused(
      () => store.replayAll(broken()),
      (error) => error === thrown,
    )
  })
})

describe("names that mean something to JavaScript", () => {
  const keys = '"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1,"then":1,"toJSON":1'
  const text = `{"noteID":"a",${keys}}`

  afterEach(() => assert.equal({}.polluted, undefined))

  test("__proto__, constructor and their like are keys of data and metadata like any others", () => {
    const data = JSON.parse(text)
    const seen = []
    store.subscribe(Written, (event) => seen.push(JSON.stringify(event.properties)))
    assert.equal(JSON.stringify(store.run(Written, data, { metadata: data }).data), text)
    const envelope = (seq) => `{"id":"e${seq}","type":"note.written.1","seq":${seq},"aggregateID":"a","data":${text}}`
    store.replayAll(envelope(1), { publish: true })
    store.replay(JSON.parse(envelope(2)), { publish: true })
    assert.deepEqual(seen, [text, text, text])
    for (const event of store.read("a")) {
      assert.equal(JSON.stringify(event.data), text)
      assert.ok(Object.hasOwn(event.data, "__proto__"))
      assert.equal(Object.getPrototypeOf(event.data), Object.prototype)
    }
    assert.equal(JSON.stringify(store.get("a", 0).metadata), text)
    assert.equal(store.replay(store.get("a", 0)).duplicate, 1)
  })

  test("an envelope's own __proto__ is passed over", () => {
    const hostile = `{"__proto__":{"seq":5,"polluted":1},"id":"e","type":"note.written.1","seq":0,"aggregateID":"b","data":{"noteID":"b"}}`
    assert.equal(store.replayAll(hostile)[0].seq, 0)
    assert.equal(store.replay(JSON.parse(hostile)).duplicate, 1)
    const inherited = Object.create(written("c", 0))
    refused(() => store.replay(inherited), invalidEvent())
  })

  test("they are aggregate ids, types and aggregate fields like any others", () => {
    for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }
      const registry = createRegistry()
      const Named = define({ type: name, version: 1, aggregate: name, schema, projector: "none", registry })
      const named = open(":memory:", { registry })
      const data = JSON.parse(`{"${name}":"${name}"}`)
      assert.throws(() => named.run(Named, {}), coded("ERR_AGGREGATE_REQUIRED", { field: name }))
      const heard = []
      named.subscribe(Named, (event) => heard.push(event.aggregateID))
      assert.equal(named.run(Named, data).seq, 0)
      assert.equal(named.replay({ ...written(name, 1), type: `${name}.1`, data }).seq, 1)
      assert.deepEqual(heard, [name])
      assert.deepEqual([...named.sequences()], [[name, 1]])
      named.close()
    }
  })

  test("they are columns of rows and names of parameters like any others", () => {
    const statement = store.db.prepare(`SELECT 1 AS "__proto__", 2 AS "constructor", 3 AS "a'\\""", 4 AS "${"\u2028"}"`)
    const row = statement.get()
    assert.deepEqual(Object.entries(row), [
      ["__proto__", 1],
      ["constructor", 2],
      [`a'\\"`, 3],
      ["\u2028", 4],
    ])
    assert.equal(Object.getPrototypeOf(row), Object.prototype)
    assert.deepEqual(Object.keys(statement.expand().get()), ["$"])
    const named = store.db.prepare("SELECT :constructor AS it")
    refused(() => named.get({}), coded("ERR_INVALID_ARGUMENT", { message: /"constructor"/ }))
    assert.deepEqual(named.get({ constructor: 5 }), { it: 5 })
    assert.deepEqual(store.db.prepare("SELECT :__proto__ AS it").get(JSON.parse('{"__proto__":6}')), { it: 6 })
  })
})

describe("NUL and lone surrogates", () => {
  const strange = ["\0", "a\0b", "\ud800", "\udc00x", "x\ud83d", "😀", "\u2028", "\ufeff", "\u007f\u0080", "\uffff"]

  test("are data like any other, through run, object, text and bytes", () => {
    for (const text of strange) {
      const data = { noteID: "a", text, [text]: 1 }
      const { seq } = store.run(Written, data, { metadata: { text } })
      const inputs = [
        (event) => [event],
        (event) => JSON.stringify(event),
        // What another program may send: not escaped, which as text JavaScript allows.
        (event) =>
          JSON.stringify(event).replaceAll(/\\u(d[89a-f][0-9a-f]{2})/g, (_, hex) =>
            String.fromCharCode(parseInt(hex, 16)),
          ),
        (event) => Buffer.from(JSON.stringify(event)),
      ]
      inputs.forEach((input, n) => store.replayAll(input(written("a", seq + 1 + n, { data, metadata: { text } }))))
      const texts = store.db
        .prepare("SELECT DISTINCT data, metadata FROM event WHERE seq >= ? AND aggregate = 2")
        .raw()
        .all(seq)
      assert.deepEqual(texts, [[JSON.stringify(data), JSON.stringify({ text })]])
      assert.deepEqual(store.get("a", seq).data, data)
    }
  })

  test("in ids and names: NUL is a character, a lone surrogate is refused", () => {
    for (const text of strange) {
      if (text.isWellFormed()) {
        assert.equal(store.run(Written, { noteID: text }).seq, 0)
        assert.equal(store.replay(written(text, 1, { id: text })).seq, 1)
        assert.equal(store.get(text, 1).id, text)
        assert.equal(store.claim(text, text).owner, text)
        assert.equal(store.aggregates({ prefix: text }).find((each) => each.aggregateID === text).owner, text)
      } else {
        refused(() => store.run(Written, { noteID: text }), coded("ERR_AGGREGATE_REQUIRED"))
        refused(() => store.claim("a", text), coded("ERR_INVALID_ARGUMENT"))
        for (const field of ["id", "type", "aggregateID"]) {
          refused(() => store.replay(written("a", 9, { [field]: text })), invalidEvent({ field }))
        }
      }
    }
    assert.equal(store.sequence("a"), -1, '"a\\0b" is another aggregate than "a"')
  })

  test("in SQL and paths: refused", () => {
    for (const sql of ["SELECT 1\0", "SELECT '\0'", "\0", "SELECT 1;\0nonsense"]) {
      refused(() => store.db.prepare(sql), coded("ERR_INVALID_ARGUMENT"))
      refused(() => store.db.exec(sql), coded("ERR_INVALID_ARGUMENT"))
    }
    refused(() => store.db.prepare("SELECT '\ud800'"), coded("ERR_INVALID_ARGUMENT"))
    refused(() => store.db.pragma("user_version\0"), coded("ERR_INVALID_ARGUMENT"))
    refused(() => store.db.function("f\0", () => 1), coded("ERR_INVALID_ARGUMENT"))
    refused(() => sql`SELECT 1\0`, coded("ERR_INVALID_ARGUMENT"))
    for (const path of ["", "a\0b.db", "\ud800.db", 5, null]) refused(() => open(path), coded("ERR_INVALID_ARGUMENT"))
  })
})
