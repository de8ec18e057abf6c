"use strict"

// Events of types that a program does not know yet: a replay with `unknown: "record"` stores them.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { coded, collected, dump, file, history, kept, noteRows, openNotes, refused, rows } = require("./stores.js")
const { serialized, tagRows } = require("./stores.js")
const { anotherFile, older, openNewer, openOlder, recording, tagged, written } = require("./older-notes.js")

describe("rule 16: an event of an unknown type", () => {
  test("is refused by default, and nothing is changed", () => {
    const store = openOlder(file())
    for (const options of [undefined, {}, { unknown: "error" }]) {
      refused(store, () => store.replayAll(history("a", 4), options), coded("ERR_UNKNOWN_EVENT", /note\.tagged\.1/))
      refused(store, () => store.replay(tagged("a", 0), options), coded("ERR_UNKNOWN_EVENT"))
    }
    assert.throws(() => store.replayAll([], { unknown: "skip" }), coded("ERR_INVALID_ARGUMENT", /unknown/))
  })

  test("is stored with `record`, and from it on its aggregate is stored and not projected", async () => {
    const store = openOlder(file())
    const heard = []
    store.subscribeAll(({ type, version, aggregateID, seq, data }) =>
      heard.push([type, version, aggregateID, seq, data]),
    )
    const items = [...history("a", 7), written("b", 0)]
    assert.deepEqual(store.replayAll(items, { ...recording, publish: true }), [
      { aggregateID: "a", applied: 7, duplicate: 0, seq: 6, projected: 0 },
      { aggregateID: "b", applied: 1, duplicate: 0, seq: 0 },
    ])
    // The event at 3 is of a known type, and would be the newest text.
    assert.deepEqual(noteRows(store), [
      ["a", "text 0", 0],
      ["b", "text 0", 0],
    ])
    assert.deepEqual(store.stats().unprojected, [{ aggregateID: "a", seq: 6, projected: 0, type: "note.tagged.1" }])
    assert.deepEqual(store.aggregates(), [
      { aggregateID: "a", seq: 6, owner: null, epoch: 0, projected: 0 },
      { aggregateID: "b", seq: 0, owner: null, epoch: 0 },
    ])
    // They are events as any other.
    assert.deepEqual(store.read("a"), items.slice(0, 7))
    assert.deepEqual(store.readAll({ limit: 10 }).length, 8)
    const log = await collected(store.log({ aggregateID: "a" }))
    assert.deepEqual(
      log.map(({ kind }) => kind),
      [...Array(7).fill("event"), "synced"],
    )
    assert.deepEqual(
      heard.map(([, , id, seq]) => [id, seq]),
      items.map(({ aggregateID, seq }) => [aggregateID, seq]),
    )
    assert.deepEqual(heard[1], ["note.tagged", 1, "a", 1, { noteID: "a", tag: "tag 1" }])
    assert.deepEqual(await store.verify(), [])
    assert.deepEqual(store.replayAll(items, recording), [
      { aggregateID: "a", applied: 0, duplicate: 7, seq: 6, projected: 0 },
      { aggregateID: "b", applied: 0, duplicate: 1, seq: 0 },
    ])
    const other = { ...tagged("a", 1), data: { noteID: "a", tag: "other" } }
    refused(store, () => store.replay(other, recording), coded("ERR_REPLAY_DIVERGED"))
  })

  test("the one that begins an aggregate leaves nothing projected: -1", () => {
    const store = openOlder(file())
    assert.deepEqual(store.replay(tagged("a", 0), recording), {
      aggregateID: "a",
      applied: 1,
      duplicate: 0,
      seq: 0,
      projected: -1,
    })
  })

  test("its data are stored as JSON.stringify writes them, whatever they hold", () => {
    const store = openOlder(file())
    const data = '{ "b" : 1.0, "2": [ ], "a": "\\u0041", "1": {"noteID" : 7}, "b": 2 }'
    const metadata = '{ "m" : 1e0 }'
    const line = `{"id":"e","type":"note.new.7","seq":0,"aggregateID":"a","data":${data},"metadata":${metadata}}`
    store.replayAll(line, { ...recording, publish: true })
    assert.deepEqual(rows(store, "SELECT data, metadata FROM event"), [
      [JSON.stringify(JSON.parse(data)), JSON.stringify(JSON.parse(metadata))],
    ])
    assert.equal(store.replayAll(line, recording)[0].duplicate, 1)
  })

  test("a type without a version can never be known", () => {
    const store = openOlder(file())
    for (const type of ["note", "note.", ".1", "note.0", "note.01", "note.1.5x", "note.-1", "note.9007199254740993"]) {
      const item = { ...tagged("a", 0), type }
      refused(store, () => store.replay(item, recording), coded("ERR_UNKNOWN_EVENT", /ends in its version/, { type }))
    }
    store.replay({ ...tagged("a", 0), type: "note.x.9007199254740991" }, recording)
  })

  test("later events of its aggregate are checked, and stored in order", () => {
    const store = openOlder(file())
    store.replay(tagged("a", 0), recording)
    refused(store, () => store.replay(written("a", 1, 7), recording), coded("ERR_INVALID_DATA"))
    refused(store, () => store.replay(written("a", 2), recording), coded("ERR_SEQUENCE_MISMATCH"))
    refused(
      store,
      () => store.replay({ ...written("a", 1), data: { noteID: "b" } }, recording),
      coded("ERR_AGGREGATE_MISMATCH", /index 0/, { seq: 1, index: 0 }),
    )
    // Also where unknown types are refused: what is known is stored, not projected.
    assert.deepEqual(store.replay(written("a", 1)), {
      aggregateID: "a",
      applied: 1,
      duplicate: 0,
      seq: 1,
      projected: -1,
    })
    refused(store, () => store.replay(tagged("a", 2)), coded("ERR_UNKNOWN_EVENT"))
    assert.deepEqual(noteRows(store), [])
  })

  test("nothing new is run or removed with an event before it is projected", () => {
    const given = older()
    const store = openNotes(given)
    store.replayAll(history("a", 4), recording)
    const expected = coded(
      "ERR_UNKNOWN_EVENT",
      /Unknown event type "note.tagged.1".*seq 1.*"a".*seq 0 only.*reproject/,
      {
        aggregateID: "a",
        type: "note.tagged.1",
        seq: 1,
        projected: 0,
      },
    )
    const data = { noteID: "a", text: "new" }
    refused(store, () => store.run(given.Written, data), expected)
    refused(
      store,
      () =>
        store.runAll([
          [given.Written, { noteID: "b" }],
          [given.Written, data],
        ]),
      expected,
    )
    refused(store, () => store.remove("a", { event: [given.Written, data] }), expected)
    assert.deepEqual(store.claim("a", "me"), { owner: "me", epoch: 1 })
    // Without an event nothing is projected, and nothing is left that could be.
    store.remove("a")
    assert.deepEqual(store.stats().unprojected, [])
    assert.equal(store.run(given.Written, data).seq, 4)
    assert.deepEqual(noteRows(store), [["a", "new", 4]])
  })
})

describe("rule 18: a removal", () => {
  const removed = (seq, event) => ({ kind: "removed", aggregateID: "a", seq, ...(event && { event }) })
  const state = (store) => [
    store.stats().unprojected.map(({ projected, type }) => [projected, type]),
    noteRows(store),
    tagRows(store),
  ]

  test("whose deletion event is of an unknown type: the tombstone keeps it for reproject", async () => {
    const items = [written("a", 0), written("a", 1), removed(2, tagged("a", 2, "deleted")), written("a", 3)]
    const path = file()
    const store = openOlder(path)
    assert.deepEqual(store.replayAll(items, recording), [
      { aggregateID: "a", applied: 4, duplicate: 0, seq: 3, projected: 1 },
    ])
    assert.deepEqual(state(store), [[[1, "note.tagged.1"]], [["a", "text 1", 1]], []])
    assert.deepEqual(await store.verify(), [])
    assert.equal(store.reproject("a").applied, 0)
    assert.deepEqual(store.replayAll(items.slice(2), recording), [
      { aggregateID: "a", applied: 0, duplicate: 2, seq: 3, projected: 1 },
    ])
    store.close()
    const newer = openNewer(path)
    assert.deepEqual(newer.reproject("a"), { aggregateID: "a", applied: 2, seq: 3, projected: 3 })
    assert.deepEqual(state(newer), [[], [["a", "text 3", 3]], [["a", "deleted", 2]]])
    const whole = openNewer(":memory:")
    whole.replayAll(items)
    assert.deepEqual(dump(newer), dump(whole))
  })

  test("of all that waits ends the waiting, and its own event is projected where its type is known", () => {
    for (const [item, after, notesAfter] of [
      [removed(4), [], [["a", "text 0", 0]]],
      [removed(4, written("a", 4, "deleted")), [], [["a", "deleted", 4]]],
      [removed(4, tagged("a", 4)), [[3, "note.tagged.1"]], [["a", "text 0", 0]]],
    ]) {
      const store = openOlder(anotherFile())
      store.replayAll([...history("a", 3), item], recording)
      assert.deepEqual(state(store), [after, notesAfter, []])
      store.remove("a")
      assert.deepEqual(store.stats().unprojected, [])
    }
  })

  test("of a part of what waits leaves the rest waiting, in order", () => {
    const items = [written("a", 0), tagged("a", 1), written("a", 2, "gone"), tagged("a", 3), written("a", 4)]
    for (const item of [removed(2), removed(2, written("a", 2, "gone"))]) {
      const path = anotherFile()
      const store = openOlder(path)
      store.replayAll(items, recording)
      assert.deepEqual(store.replay(item, recording).projected, 2)
      const text = "event" in item ? ["a", "gone", 2] : ["a", "text 0", 0]
      assert.deepEqual(state(store), [[[2, "note.tagged.1"]], [text], []])
      store.close()
      const newer = openNewer(path)
      assert.deepEqual(newer.reproject("a").applied, 2)
      assert.deepEqual(state(newer), [[], [["a", "text 4", 4]], [["a", "tag 3", 3]]])
    }
  })

  test("whose event came by itself, and waits, is projected from the tombstone, once", () => {
    const path = file()
    const store = openOlder(path)
    store.replayAll([written("a", 0), tagged("a", 1), written("a", 2)], recording)
    const heard = []
    store.subscribeAll(({ seq }) => heard.push(seq))
    store.replay(removed(1, tagged("a", 1)), { ...recording, publish: true })
    assert.deepEqual(heard, [], "it was told when it came")
    assert.deepEqual(state(store), [[[0, "note.tagged.1"]], [["a", "text 0", 0]], []])
    store.close()
    const newer = openNewer(path)
    assert.equal(newer.reproject("a").applied, 2)
    assert.deepEqual(state(newer), [[], [["a", "text 2", 2]], [["a", "tag 1", 1]]])
  })

  test("that would put an unknown deletion event before what is projected is refused", () => {
    const store = openOlder(file())
    store.replayAll([written("a", 0), { kind: "gap", aggregateID: "a", after: 0, through: 1 }, written("a", 2)])
    refused(store, () => store.replay(removed(1, tagged("a", 1)), recording), coded("ERR_UNKNOWN_EVENT"))
  })
})

describe("beside what else becomes of items", () => {
  const item = (noteID, seq, text, type = "written") => serialized(type, seq, { noteID, text }, { id: noteID + seq })
  const ways = {
    JavaScript: (tx, { text }) => {
      if (text === "fails") throw new Error("own")
      tx.prepare("INSERT INTO line VALUES (?)").run(text)
    },
    SQL: sql`INSERT INTO line SELECT CASE :data ->> '$.text' WHEN 'fails' THEN (SELECT json('{')) ELSE :data ->> '$.text' END`,
  }

  /** A text may be there once: what writes it again is skipped. `later` is known to a newer program alone. */
  function openLines(path, apply, knowsLater) {
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string(), text: z.string() })
    const types = ["note.written", ...(knowsLater ? ["note.later"] : [])]
    const projectors = types.map((type) =>
      project(define({ type, version: 1, aggregate: "noteID", schema, registry }), apply, { onConstraint: "skip" }),
    )
    const [skipped, heard] = [[], []]
    const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS line (text UNIQUE)")
    const store = kept(path, { registry, projectors, migrate, onSkipped: (_error, { id }) => skipped.push(id) })
    store.subscribeAll(({ id }) => heard.push(id))
    return { store, skipped, heard }
  }

  for (const [way, apply] of Object.entries(ways)) {
    test(`one batch may park, skip and record: listeners and onSkipped hear of what stays, once (${way})`, () => {
      const path = anotherFile()
      const options = { onError: "park", ...recording, publish: true }
      const { store, skipped, heard } = openLines(path, apply, false)
      const items = [item("a", 0, "x"), item("b", 0, "x"), item("c", 0, "fails"), item("b", 1, "y"), item("a", 1, "y")]
      items.push(item("d", 0, "z", "later"), item("d", 1, "x"), item("c", 1, "z"), item("e", 0, "x"))
      const results = store.replayAll(items, options)
      assert.deepEqual(
        results.map(({ aggregateID, applied, projected, index }) => [aggregateID, applied, projected, index]),
        [
          ["a", 2, undefined, undefined],
          ["b", 2, undefined, undefined],
          ["c", 0, undefined, 2],
          ["d", 2, -1, undefined],
          ["e", 1, undefined, undefined],
        ],
      )
      assert.deepEqual([skipped.splice(0), heard.splice(0)], [["b0", "a1", "e0"], "a0 b0 b1 a1 d0 d1 e0".split(" ")])
      // What an inner transaction takes back is told to nobody.
      store.transaction(() => {
        assert.throws(() =>
          store.transaction(() => {
            store.replayAll([item("f", 0, "x"), item("g", 0, "fails")], options)
            throw new Error("inner")
          }),
        )
        store.replayAll([item("h", 0, "fails"), item("i", 0, "x")], options)
      })
      assert.deepEqual([skipped, heard], [["i0"], ["i0"]])
      store.close()
      const newer = openLines(path, apply, true)
      assert.equal(newer.store.reproject("d").applied, 2)
      assert.deepEqual([newer.skipped, newer.heard], [["d1"], []])
      assert.deepEqual(rows(newer.store, "SELECT text FROM line ORDER BY text"), [["x"], ["y"], ["z"]])
    })
  }
})

describe("what it costs", () => {
  test("a run touches no index for it, and stats name at most 100 of those that wait", () => {
    const store = openOlder(file())
    const touched = rows(store, "EXPLAIN UPDATE event_sequence SET seq = 1 WHERE key = 1").map(([, opcode]) => opcode)
    assert.equal(touched.filter((opcode) => opcode === "OpenWrite").length, 1)
    const plan = rows(
      store,
      `EXPLAIN QUERY PLAN SELECT key FROM event_sequence INDEXED BY event_sequence_unprojected
       WHERE projected_seq IS NOT NULL ORDER BY key LIMIT 100`,
    )
    assert.match(String(plan), /USING (COVERING )?INDEX event_sequence_unprojected/)
    assert.doesNotMatch(String(plan), /TEMP B-TREE/)
    store.replayAll(
      Array.from({ length: 101 }, (_, n) => tagged(`note ${n}`, 0)),
      recording,
    )
    const { unprojected } = store.stats()
    assert.equal(unprojected.length, 100)
    assert.deepEqual(unprojected.at(-1), { aggregateID: "note 99", seq: 0, projected: -1, type: "note.tagged.1" })
    store.remove("note 0")
    assert.equal(store.stats().unprojected.at(-1).aggregateID, "note 100")
  })
})
