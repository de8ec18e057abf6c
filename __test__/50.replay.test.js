"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { project } = require("syncline")
const { coded, dump, history, noteRows, notes, openNotes, refused, serialized, tagRows } = require("./stores.js")

const bytes = (text) => new TextEncoder().encode(text)
const lines = (items) => items.map((item) => JSON.stringify(item)).join("\n")

/** The same items in every form that replayAll takes. */
const forms = {
  objects: (items) => items,
  "an iterator": (items) => items.values(),
  "a generator": (items) =>
    (function* () {
      yield* items
    })(),
  "log items": (items) => items.map((event) => ({ kind: "event", event })),
  "JSON array text": (items) => JSON.stringify(items),
  "indented JSON array text": (items) => JSON.stringify(items, null, 2),
  "JSON array bytes": (items) => bytes(JSON.stringify(items)),
  "JSONL text": lines,
  "JSONL text with CRLF and empty lines": (items) => `\r\n${lines(items).replaceAll("\n", "\r\n\r\n")}\r\n`,
  "JSONL text with a byte order mark": (items) => `\ufeff${lines(items)}`,
  "JSONL bytes": (items) => bytes(lines(items)),
  "a Buffer": (items) => Buffer.from(lines(items)),
  "a part of a larger buffer": (items) => Buffer.from(`####${lines(items)}####`).subarray(4, -4),
}

describe("rule 16: a batch", () => {
  for (const [form, make] of Object.entries(forms)) {
    test(`rule 17: ${form} gives the same tables`, () => {
      const items = [...history("a", 5), ...history("b", 3), ...history("a", 3, 5)]
      const store = openNotes(notes())
      assert.deepEqual(store.replayAll(make(items)), [
        { aggregateID: "a", applied: 8, duplicate: 0, seq: 7 },
        { aggregateID: "b", applied: 3, duplicate: 0, seq: 2 },
      ])
      const single = openNotes(notes(), { path: ":memory:" })
      for (const item of items) single.replay(item)
      assert.deepEqual(dump(store), dump(single))
      assert.deepEqual(noteRows(store), [
        ["a", "text 6", 6],
        ["b", "text 0", 0],
      ])
      const before = dump(store)
      assert.deepEqual(
        store.replayAll(make(items)).map(({ applied, duplicate }) => [applied, duplicate]),
        [
          [0, 8],
          [0, 3],
        ],
      )
      assert.deepEqual(dump(store), before)
    })
  }

  test("rule 16: ids, seqs, times and metadata are stored as they came", () => {
    const store = openNotes(notes())
    const metadata = { b: 1, a: [null] }
    const items = [
      serialized("written", 0, { noteID: "a" }, { id: "any id ☃", created: -1, metadata }),
      serialized("written", 1, { noteID: "a" }, { created: 2 ** 53 - 1, unknown: "dropped" }),
      serialized("written", 2, { noteID: "a" }),
    ]
    store.replayAll(items)
    delete items[1].unknown
    assert.deepEqual(store.read("a"), items)
    assert.deepEqual(Object.keys(store.get("a", 2)).toSorted(), ["aggregateID", "data", "id", "seq", "type"])
  })

  test("rule 16: what another store reads, logs or returns can be replayed as it is", async () => {
    const given = notes()
    const writer = openNotes(given)
    writer.run(given.Written, { noteID: "a", text: "x" }, { metadata: { m: 1 } })
    writer.run(given.Tagged, { noteID: "a", tag: "t" })
    const reader = openNotes(notes(), { path: ":memory:" })
    const events = writer.read("a")
    assert.equal(events[0].data.text, "x")
    reader.replayAll(events)
    const viaLog = openNotes(notes(), { path: ":memory:" })
    for await (const item of writer.log({ aggregateID: "a" })) viaLog.replay(item)
    const viaAll = openNotes(notes(), { path: ":memory:" })
    viaAll.replayAll(writer.readAll({ limit: 10 }))
    for (const store of [reader, viaLog, viaAll]) assert.deepEqual(dump(store), dump(writer))
  })

  test("rule 16: data that a caller changed after reading is sent as it was changed", () => {
    const source = openNotes(notes())
    source.replayAll(history("a", 1))
    const [read, replaced] = [source.read("a")[0], source.read("a")[0]]
    read.data.text = "changed"
    replaced.data = { noteID: "a", text: "replaced" }
    for (const [event, text] of [
      [read, "changed"],
      [replaced, "replaced"],
    ]) {
      const store = openNotes(notes(), { path: ":memory:" })
      store.replay(event)
      assert.equal(store.get("a", 0).data.text, text)
    }
  })

  test("rule 16: nothing at all, in each form", () => {
    const store = openNotes(notes())
    const before = dump(store)
    for (const nothing of [[], "", "\n\n", "[]", " [ ] ", new Uint8Array(), bytes("[]"), new Set(), "\ufeff"]) {
      assert.deepEqual(store.replayAll(nothing), [])
    }
    assert.deepEqual(dump(store), before)
  })

  test("rule 16: replay gives one result, for a synced item too", () => {
    const store = openNotes(notes())
    assert.deepEqual(store.replay(serialized("written", 0, { noteID: "a" })), {
      aggregateID: "a",
      applied: 1,
      duplicate: 0,
      seq: 0,
    })
    assert.deepEqual(store.replay({ kind: "synced", aggregateID: "a", seq: 0 }), {
      aggregateID: "a",
      applied: 0,
      duplicate: 0,
      seq: 0,
    })
    assert.deepEqual(store.replay({ kind: "synced", aggregateID: "b", seq: -1 }), {
      aggregateID: "b",
      applied: 0,
      duplicate: 0,
      seq: -1,
    })
    assert.equal(store.owner("b"), undefined)
  })

  test("rule 16: the whole input is read before anything is locked", () => {
    const store = openNotes(notes())
    const other = store.connect()
    const read = []
    const items = (function* () {
      for (const item of history("a", 3)) {
        other.exec("BEGIN IMMEDIATE; ROLLBACK")
        assert.equal(store.db.inTransaction, false)
        read.push(item)
        yield item
      }
    })()
    store.replayAll(items)
    assert.equal(read.length, 3)
    other.close()
    const failure = new Error("source")
    const failing = (function* () {
      yield* history("b", 2)
      throw failure
    })()
    refused(
      store,
      () => store.replayAll(failing),
      (error) => error === failure,
    )
    const closing = (function* () {
      yield* history("b", 2)
      store.close()
    })()
    assert.throws(() => store.replayAll(closing), coded("ERR_CLOSED"))
  })

  test("rule 16: an argument that is no batch, and wrong options, are refused", () => {
    const store = openNotes(notes())
    const refuse = (fn) => refused(store, fn, coded("ERR_INVALID_ARGUMENT"))
    for (const input of [undefined, null, 1, true, {}, () => {}, new ArrayBuffer(8)])
      refuse(() => store.replayAll(input))
    for (const options of [
      null,
      1,
      { publish: 1 },
      { owner: "" },
      { owner: 1 },
      { epoch: -1 },
      { epoch: 0.5 },
      { other: 1 },
    ]) {
      refuse(() => store.replayAll([], options))
    }
  })
})

describe("rule 16: the order of checks", () => {
  // Each item fails at its own check and at all later ones; the code tells which came first.
  const twisted = {
    shape: [{ id: "", type: "unknown.1", seq: 7, aggregateID: "a", data: { noteID: "b" } }, "ERR_INVALID_EVENT"],
    type: [{ id: "x", type: "note.unknown.1", seq: 7, aggregateID: "a", data: { noteID: "b" } }, "ERR_UNKNOWN_EVENT"],
    aggregate: [serialized("tagged", 7, { noteID: "b", tag: 1 }, { aggregateID: "a" }), "ERR_AGGREGATE_MISMATCH"],
    schema: [serialized("tagged", 7, { noteID: "a", tag: 1 }), "ERR_INVALID_DATA"],
    owner: [serialized("tagged", 7, { noteID: "a", tag: "t" }), "ERR_NOT_OWNER"],
    sequence: [serialized("tagged", 7, { noteID: "free", tag: "t" }), "ERR_SEQUENCE_MISMATCH"],
    diverged: [serialized("tagged", 0, { noteID: "free", tag: "t" }), "ERR_REPLAY_DIVERGED"],
  }
  for (const [check, [item, code]] of Object.entries(twisted)) {
    test(`rule 16: ${check} comes before what follows it`, () => {
      const store = openNotes(notes())
      store.replayAll(history("free", 2))
      store.claim("a", "somebody")
      refused(store, () => store.replay(item, { owner: "another" }), coded(code))
    })
  }

  test("rule 16: all shapes are checked before the first item is applied; the rest item by item", () => {
    const given = notes()
    const projected = []
    given.projectors[0] = project(given.Written, (_tx, { text }) => void projected.push(text))
    const store = openNotes(given)
    const items = history("a", 1)
    const shapeless = { ...serialized("written", 1, { noteID: "a" }), seq: "1" }
    refused(
      store,
      () => store.replayAll([...items, shapeless]),
      coded("ERR_INVALID_EVENT", /index 1.*seq/, { index: 1, field: "seq" }),
    )
    assert.deepEqual(projected, [])
    const late = serialized("written", 5, { noteID: "a" })
    const unknown = { ...late, type: "note.unknown.1", seq: 1 }
    refused(
      store,
      () => store.replayAll([...items, unknown]),
      coded("ERR_UNKNOWN_EVENT", /Unknown event type/, { index: 1 }),
    )
    assert.deepEqual(projected, ["text 0"])
    refused(store, () => store.replayAll([...items, late, unknown]), coded("ERR_SEQUENCE_MISMATCH", /./, { index: 1 }))
  })

  test("rule 16: the first bad item is the one that is named, whatever the second one's failure", () => {
    const store = openNotes(notes())
    const bad = [
      serialized("tagged", 3, { noteID: "a", tag: "gap" }),
      serialized("tagged", 1, { noteID: "a", tag: 5 }),
      { ...serialized("tagged", 1, { noteID: "a", tag: "t" }), type: "note.unknown.1" },
      serialized("tagged", 1, { noteID: "b", tag: "t" }, { aggregateID: "a" }),
    ]
    const codes = ["ERR_SEQUENCE_MISMATCH", "ERR_INVALID_DATA", "ERR_UNKNOWN_EVENT", "ERR_AGGREGATE_MISMATCH"]
    const start = serialized("tagged", 0, { noteID: "a", tag: "t" })
    bad.forEach((first, one) => {
      for (const second of bad)
        refused(store, () => store.replayAll([start, first, second]), coded(codes[one], /./, { index: 1 }))
    })
  })

  test("rule 8: a JavaScript projector has run before the next item's is asked for", () => {
    const given = notes()
    given.projectors[0] = project(given.Written, (tx, { noteID, text }) => {
      tx.prepare("INSERT INTO tag VALUES (?, ?, (SELECT count(*) FROM tag))").run(noteID, text)
    })
    const store = openNotes(given, {
      migrate: (db) =>
        db.exec(
          "CREATE TRIGGER tell AFTER INSERT ON tag BEGIN UPDATE tag SET seq = (SELECT count(*) FROM tag) WHERE rowid = NEW.rowid; END",
        ),
    })
    store.replayAll(history("a", 9))
    assert.deepEqual(
      tagRows(store).map(([, tag, seq]) => [seq, tag]),
      [
        [1, "text 0"],
        [2, "tag 1"],
        [3, "text 3"],
        [4, "tag 4"],
        [5, "text 6"],
        [6, "tag 7"],
      ],
    )
  })
})
