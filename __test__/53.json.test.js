"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { coded, dump, notes, openNotes, refused, rows, serialized } = require("./stores.js")

const stored = (store) => rows(store, "SELECT data, metadata FROM event ORDER BY position")
const envelope = (data, more = "") =>
  `{"id":"e","type":"note.seen.1","seq":0,"aggregateID":"n"${more && `,${more}`},"data":${data}}`
const ownText = (data) => JSON.stringify(JSON.parse(data))

/** Replays the same item as an object, as text and as bytes, and gives what each of them stored. */
function everyWay(item) {
  const inputs = [[JSON.parse(item)], item, new TextEncoder().encode(item), `[${item}]`, `${item}\n`]
  return inputs.map((input) => {
    const store = openNotes(notes(), { path: ":memory:" })
    store.replayAll(input)
    const result = stored(store)
    const tables = dump(store)
    assert.deepEqual(
      store.replayAll(input).map(({ duplicate }) => duplicate),
      [1],
    )
    assert.deepEqual(dump(store), tables)
    store.close()
    return result[0]
  })
}

const texts = {
  "spaces, tabs and line ends": ' {\t"noteID" :\r "n" , "a" : [ 1 , 2 ] , "o" : { } } ',
  "duplicate keys": '{"noteID":"n","a":1,"b":2,"a":3}',
  "duplicate keys in depth": '{"noteID":"n","o":{"x":{"y":1},"z":0,"x":[2]}}',
  "the aggregate twice, the last one counts": '{"noteID":"other","noteID":"n"}',
  "keys that differ only in their escapes": '{"noteID":"n","a":1,"\\u0061":2}',
  "an aggregate field with an escaped key": '{"note\\u0049D":"n"}',
  "an aggregate with escapes": '{"noteID":"\\u006e"}',
  "integer-like keys": '{"b":1,"10":1,"9":1,"a":1,"-1":1,"01":1,"4294967295":1,"4294967294":1,"noteID":"n"}',
  "integer-like keys in order": '{"1":1,"2":2,"noteID":"n"}',
  "empty keys": '{"":1,"noteID":"n","a":{"":{"":[]}}}',
  "escapes that need none": '{"noteID":"n","a":"\\/\\u0041\\u00e9\\u2028\\ud83d\\ude00"}',
  "control characters": '{"noteID":"n","a":"\\u0000\\u0008\\b\\f\\n\\r\\t\\u000b\\u001f\\u007f\\"\\\\"}',
  "escapes in capitals": '{"noteID":"n","a":"\\u001F\\u00E9\\uD83D\\uDE00"}',
  "lone surrogates as escapes": '{"noteID":"n","a":"\\ud800","b":"x\\udc00\\ud800y","\\udfff":1}',
  "a pair with one half escaped twice": '{"noteID":"n","a":"\\\\ud800\\\\udc00"}',
  "separators and characters beyond the BMP as they are": '{"noteID":"n","a":"\u2028\u2029😀\u007f\u0080\ufeff"}',
  "numbers with needless digits": '{"noteID":"n","a":[1.0,1.50,0.10,100e-2,1E2,1e+2,1e0,-0.0,0e5,10.0e1]}',
  "large numbers": '{"noteID":"n","a":[1e21,1e20,123456789012345680000,12345678901234567890,9007199254740993,1e300]}',
  "numbers beyond doubles": '{"noteID":"n","a":[1e400,-1e400,1e-400,5e-324,1.7976931348623157e308]}',
  "negative zero": '{"noteID":"n","a":-0,"b":[-0.0,0]}',
  "small numbers": '{"noteID":"n","a":[0.000001,1e-6,1e-7,0.0000001,0.1,0.30000000000000004,1.10]}',
  "__proto__ and constructor":
    '{"noteID":"n","__proto__":{"polluted":1},"constructor":{"prototype":{"x":1}},"toString":1}',
  "__proto__ twice": '{"noteID":"n","__proto__":1,"__proto__":{"a":2}}',
  "literals and empties": '{"noteID":"n","a":[true,false,null,"",{},[],[[]],{"a":{}}]}',
  "brackets and quotes inside strings": '{"noteID":"n","a":"{[\\"]}","b":"\\\\","c":"\\\\\\""}',
  "seventy keys": `{"noteID":"n",${Array.from({ length: 70 }, (_, n) => `"k${n}":${n}`)}}`,
  "nesting to the limit": `{"noteID":"n","a":${"[".repeat(999)}${"]".repeat(999)}}`,
}

describe("rule 17: the stored text is JSON.stringify's, whatever the input's form", () => {
  for (const [name, data] of Object.entries(texts)) {
    test(`rule 17: ${name}`, () => {
      for (const way of everyWay(envelope(data))) assert.deepEqual(way, [ownText(data), null])
    })
  }

  test("rule 17: a run of the same data stores the same text", () => {
    for (const [name, data] of Object.entries(texts)) {
      const given = notes()
      const store = openNotes(given, { path: ":memory:" })
      store.run(given.Seen, JSON.parse(data))
      assert.equal(stored(store)[0][0], ownText(data), name)
      store.close()
    }
  })

  test("rule 17: metadata likewise", () => {
    for (const [name, text] of Object.entries(texts)) {
      for (const way of everyWay(envelope('{"noteID":"n"}', `"metadata":${text}`))) {
        assert.deepEqual(way, ['{"noteID":"n"}', ownText(text)], name)
      }
    }
  })

  test("rule 17: envelopes with keys repeated, escaped or in another order are read as JavaScript reads them", () => {
    const items = [
      '{"data":{"noteID":"n"},"aggregateID":"n","seq":0,"type":"note.seen.1","id":"e"}',
      '{"id":"x","id":"e","seq":5,"seq":0,"type":"no.1","type":"note.seen.1","aggregateID":"n","data":1,"data":{"noteID":"n"}}',
      '{"\\u0069d":"e","type":"note\\u002eseen.1","seq":0,"aggregateID":"\\u006e","data":{"noteID":"n"}}',
      ' { "id" : "e" , "type" : "note.seen.1" , "seq" : 0 , "aggregateID" : "n" , "data" : { "noteID" : "n" } , "x":[] } ',
      '{"id":"e","type":"note.seen.1","seq":0,"aggregateID":"n","data":{"noteID":"n"},"__proto__":{"seq":1}}',
      '{"kind":"gap","kind":"event","event":{"id":"e","type":"note.seen.1","seq":0,"aggregateID":"n","data":{"noteID":"n"}}}',
      '{"id":"e","type":"note.seen.1","seq":0.0,"aggregateID":"n","data":{"noteID":"n"}}',
      '{"id":"e","type":"note.seen.1","seq":-0,"aggregateID":"n","data":{"noteID":"n"}}',
      '{"id":"e","type":"note.seen.1","seq":0e3,"aggregateID":"n","data":{"noteID":"n"}}',
    ]
    for (const item of items) {
      const results = everyWay(item)
      for (const way of results) assert.deepEqual(way, ['{"noteID":"n"}', null], item)
    }
  })

  test("rule 17: raw lone surrogates in objects and text are stored as escapes", () => {
    const item = serialized("seen", 0, { noteID: "n", a: "x\ud800", b: "\udc00\ud800", "k\udfff": 1 })
    for (const input of [
      [item],
      `[{"id":"${item.id}","type":"note.seen.1","seq":0,"aggregateID":"n","data":{"noteID":"n","a":"x\ud800","b":"\udc00\ud800","k\udfff":1}}]`,
    ]) {
      const store = openNotes(notes(), { path: ":memory:" })
      store.replayAll(input)
      assert.equal(stored(store)[0][0], '{"noteID":"n","a":"x\\ud800","b":"\\udc00\\ud800","k\\udfff":1}')
      assert.deepEqual(store.get("n", 0), item)
    }
  })

  test("rule 17: lone surrogates where no JSON text carries them are refused", () => {
    const store = openNotes(notes())
    for (const field of ["id", "type", "aggregateID"]) {
      const item = { ...serialized("seen", 0, { noteID: "n" }), [field]: "\ud800" }
      for (const input of [[item], JSON.stringify([item]), Buffer.from(JSON.stringify(item))]) {
        refused(store, () => store.replayAll(input), coded("ERR_INVALID_EVENT", new RegExp(field), { index: 0, field }))
      }
    }
  })

  test("rule 17: any JSON gives the same bytes in every way, and compares equal to itself", () => {
    // An item of JSON lines stands on one line, so what an indented text has for line ends becomes other white space.
    const space = fc.constantFrom(" ", "\t", " \t ")
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(2), space, (data, indent, space) => {
        const text = JSON.stringify({ ...data, noteID: "n" }, null, indent).replaceAll("\n", space)
        for (const way of everyWay(envelope(text))) assert.equal(way[0], ownText(text))
      }),
      { numRuns: 60 },
    )
  })

  test("rule 5: readers' projectors see __proto__ as a key, and nothing is polluted", () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(
      envelope('{"noteID":"n","__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'),
    )
    const { data } = store.get("n", 0)
    assert.ok(Object.hasOwn(data, "__proto__"))
    assert.equal(Object.getPrototypeOf(data), Object.prototype)
    assert.equal({}.polluted, undefined)
    refused(
      store,
      () => store.replayAll('{"__proto__":{"id":"e"},"type":"note.seen.1","seq":1,"aggregateID":"n","data":{}}'),
      coded("ERR_INVALID_EVENT", /id/),
    )
    refused(
      store,
      () => store.run(given.Seen, JSON.parse('{"__proto__":{"noteID":"n"}}')),
      coded("ERR_AGGREGATE_REQUIRED"),
    )
  })
})

describe("rule 16: the shape of an item", () => {
  const good = serialized("seen", 0, { noteID: "n" })
  const wrong = {
    id: [undefined, null, "", 1, {}, [], true],
    type: [undefined, null, "", 1, ["note.seen.1"]],
    seq: [undefined, null, -1, 0.5, "0", 2 ** 32, 1e300, true, []],
    aggregateID: [undefined, null, "", 1, {}],
    data: [undefined, null, 1, "{}", [], true],
    created: [null, "0", 0.5, 2 ** 53, {}],
    metadata: [null, 1, "{}", []],
  }
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      test(`rule 16: ${field} ${JSON.stringify(value)} is refused, with index and field, in every form`, () => {
        const store = openNotes(notes())
        const items = [good, { ...good, [field]: value }]
        const expected = coded("ERR_INVALID_EVENT", new RegExp(`index 1.*${field}`), { index: 1, field })
        const event = items.map((event) => ({ kind: "event", event }))
        for (const input of [
          items,
          event,
          JSON.stringify(items),
          items.map((item) => JSON.stringify(item)).join("\n"),
        ]) {
          refused(store, () => store.replayAll(input), expected)
        }
      })
    }
  }

  test("rule 16: what is no item at all is refused with its index", () => {
    const store = openNotes(notes())
    for (const item of [undefined, null, 1, "text", [], true, () => {}, Symbol("s"), 1n, {}, new Date(), new Map()]) {
      refused(store, () => store.replayAll([good, item]), coded("ERR_INVALID_EVENT", /index 1/, { index: 1 }))
      refused(store, () => store.replay(item), coded("ERR_INVALID_EVENT", /index 0/, { index: 0 }))
    }
    const cyclic = { ...good, data: {} }
    cyclic.data.self = cyclic
    refused(store, () => store.replayAll([good, cyclic]), coded("ERR_INVALID_EVENT", /index 1/, { index: 1 }))
  })

  test("rule 16: broken text is refused with the index of its item", () => {
    const store = openNotes(notes())
    const line = JSON.stringify(good)
    const broken = [
      [`${line}\n${line.slice(0, -1)}`, 1],
      [`${line}\n\n${line}}`, 1],
      [`[${line},]`, 1],
      [`[${line}`, 1],
      [`[${line}] x`, 1],
      [`[${line},1]`, 1],
      ["{", 0],
      ["null", 0],
      ["x", 0],
      [line.replace('"n"', "'n'"), 0],
      [line.replace('"seq":0', '"seq":00'), 0],
      [line.replace('"seq":0', '"seq":NaN'), 0],
    ]
    for (const [text, index] of broken) {
      refused(store, () => store.replayAll(text), coded("ERR_INVALID_EVENT", /./, { index }))
      refused(store, () => store.replayAll(Buffer.from(text)), coded("ERR_INVALID_EVENT", /./, { index }))
    }
    const latin = Buffer.from(`${line}\n${line.replace("note.seen", "n\u00f6te.seen")}`, "latin1")
    refused(store, () => store.replayAll(latin), coded("ERR_INVALID_EVENT", /UTF-8/, { index: 1 }))
  })
})
