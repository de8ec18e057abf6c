"use strict"

// One bad event does not stop the others: `replayAll` with `onError: "park"`.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")
const { coded, dump, file, history, kept, noteRows, notes, openNotes, refused, rows } = require("./stores.js")
const { serialized, tagRows } = require("./stores.js")
const { cutAt, tagged, written } = require("./older-notes.js")
const { openSessions, sessionsText } = require("./sessions.js")
const { extent, figures, seeds } = require("./soak.js")

const parking = { onError: "park" }
const byID = (results) => new Map(results.map((result) => [result.aggregateID, result]))

/** A projector in JavaScript that writes, and then fails for the texts that `failing` names. */
function failingNotes(failing = new Map()) {
  const given = notes()
  const [note, tag] = given.projectors
  const write = (tx, data, event) => {
    note.apply(tx, data, event)
    if (failing.has(data.text)) throw failing.get(data.text)
  }
  return { ...given, failing, projectors: [project(given.Written, write), tag] }
}

describe("design 8, number 7: one bad event does not stop the catch-up of the others", () => {
  /** Each kind of bad item, after one good event of its aggregate, and the error that it gives. */
  const thrown = new Error("the projector's own")
  const bad = {
    "an unknown type": [(id) => serialized("forgotten", 1, { noteID: id }), "ERR_UNKNOWN_EVENT"],
    "another aggregate in its data": [(id) => ({ ...written(id, 1), data: { noteID: "x" } }), "ERR_AGGREGATE_MISMATCH"],
    "data that the schema refuses": [(id) => written(id, 1, 7), "ERR_INVALID_DATA"],
    "a seq that is too high": [(id) => written(id, 2), "ERR_SEQUENCE_MISMATCH"],
    "other content at a known seq": [(id) => written(id, 0, "other"), "ERR_REPLAY_DIVERGED"],
    "a projector that throws": [(id) => written(id, 1, "fails"), thrown],
    "a SQL projector that fails": [(id) => tagged(id, 1, "double"), "ERR_SQLITE"],
  }

  test("every other aggregate goes on, and the result says what stopped where", () => {
    const given = failingNotes(new Map([["fails", thrown]]))
    const store = openNotes(given, {
      migrate: (db) => db.exec("CREATE UNIQUE INDEX no_double ON tag (tag) WHERE tag = 'double'"),
    })
    store.replayAll([tagged("first", 0, "double")])
    const items = [...history("before", 4)]
    const expected = new Map()
    for (const [name, [make, error]] of Object.entries(bad)) {
      items.push(written(name, 0), ...history(`beside ${name}`, 3))
      expected.set(name, { error, index: items.length })
      // What follows would be fine by itself.
      items.push(make(name), written(name, 2), written("between", expected.size - 1))
    }
    const results = byID(store.replayAll(items, parking))
    for (const [name, { error, index }] of expected) {
      const result = results.get(name)
      assert.deepEqual([result.applied, result.duplicate, result.seq, result.index], [1, 0, 0, index], name)
      if (error instanceof Error) assert.equal(result.error, error)
      else assert.ok(coded(error)(result.error), name)
      assert.deepEqual(
        noteRows(store).find(([id]) => id === name),
        [name, "text 0", 0],
      )
      assert.equal(results.get(`beside ${name}`).applied, 3)
    }
    assert.deepEqual({ ...results.get("between") }, { aggregateID: "between", applied: 7, duplicate: 0, seq: 6 })
    assert.equal(results.get("before").applied, 4)
    const count = rows(store, "SELECT count(*) FROM event")[0][0]
    assert.equal(count, 1 + 4 + 7 * (1 + 3 + 1))
    // By default the first of them takes everything back.
    const other = openNotes(failingNotes(), { path: ":memory:" })
    refused(other, () => other.replayAll(items), coded("ERR_UNKNOWN_EVENT", /./, { index: 8 }))
  })

  test("an owner's aggregates are left, the others applied", () => {
    const store = openNotes(notes())
    store.claim("b", "somebody")
    const results = store.replayAll([...history("a", 2), ...history("b", 2), ...history("c", 2)], {
      ...parking,
      owner: "me",
    })
    const seqs = results.map(({ applied, seq }) => `${applied} ${seq}`)
    assert.deepEqual(seqs, ["2 1", "0 -1", "2 1"])
    assert.ok(coded("ERR_NOT_OWNER", /./, { aggregateID: "b", expected: "somebody", got: "me" })(results[1].error))
    assert.equal(results[1].index, 2)
    assert.deepEqual(store.owner("b"), { owner: "somebody", epoch: 1 })
  })

  test("a later replay goes on: the same batch again is duplicates and the rest", () => {
    const given = failingNotes(new Map([["text 3", new Error("not now")]]))
    const store = openNotes(given)
    const items = [...history("a", 8), ...history("b", 2)]
    const [first] = store.replayAll(items, parking)
    assert.deepEqual([first.applied, first.seq, first.index], [3, 2, 3])
    given.failing.clear()
    assert.deepEqual(store.replayAll(items, parking), [
      { aggregateID: "a", applied: 5, duplicate: 3, seq: 7 },
      { aggregateID: "b", applied: 0, duplicate: 2, seq: 1 },
    ])
    const whole = openNotes(notes(), { path: ":memory:" })
    whole.replayAll([...items.slice(0, 3), ...items.slice(8), ...items.slice(3, 8)])
    assert.deepEqual(dump(store), dump(whole))
  })

  test("the seq of an aggregate that could not even begin is the one that it holds", () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    const [known, unknown] = store.replayAll(
      [serialized("forgotten", 5, { noteID: "a" }), serialized("forgotten", 0, { noteID: "b" })],
      parking,
    )
    assert.deepEqual([known.seq, unknown.seq], [4, -1])
    assert.deepEqual([...store.sequences()], [["a", 4]])
  })
})

describe("rule 17: nothing of a parked event stays", () => {
  /** Whoever asks what it is, is thrown at. */
  const unreadable = new Proxy(new Error("unreadable"), { getPrototypeOf: () => assert.fail() })
  for (const thrown of [new Error("own"), unreadable, Object.freeze({ not: "an error" }), "text", null, undefined]) {
    test(`what its projector wrote is gone, and ${String(thrown)} is the very value that it threw`, () => {
      const store = openNotes(failingNotes(new Map([["fails", thrown]])))
      const items = [written("a", 0), written("b", 0), written("a", 1, "fails"), written("b", 1), tagged("b", 2)]
      const [a, b] = store.replayAll(items, parking)
      assert.ok("error" in a && !("error" in b) && !("index" in b))
      assert.equal(a.error, thrown)
      assert.deepEqual([a.applied, a.seq, a.index, b.applied], [1, 0, 2, 3])
      assert.deepEqual(noteRows(store), [
        ["a", "text 0", 0],
        ["b", "text 1", 1],
      ])
      assert.deepEqual(
        store.readAll({ limit: 10 }).map(({ aggregateID, seq, position }) => [position, aggregateID, seq]),
        [
          [1, "a", 0],
          [2, "b", 0],
          [3, "b", 1],
          [4, "b", 2],
        ],
      )
    })
  }

  test("nor of an aggregate that began with it, nor its type, nor its claim", () => {
    const store = openNotes(failingNotes(new Map([["fails", new Error("own")]])))
    const untouched = dump(store)
    store.replayAll([written("a", 0, "fails"), written("a", 1)], { ...parking, owner: "me", epoch: 4 })
    assert.deepEqual(dump(store), untouched)
  })

  test("the second statement of a SQL projector takes back the first", () => {
    const given = notes()
    const both = project(given.Tagged, [
      sql`INSERT INTO tag VALUES (:aggregateID, :data ->> '$.tag', :seq)`,
      sql`INSERT INTO note SELECT :aggregateID, NULL, :seq WHERE :data ->> '$.tag' = 'bad'`,
    ])
    const store = openNotes({ ...given, projectors: [given.projectors[0], both] })
    const results = store.replayAll([tagged("a", 0), tagged("b", 0), tagged("a", 1, "bad"), tagged("b", 1)], parking)
    assert.ok(coded("ERR_SQLITE", /./, { sqliteCode: "SQLITE_CONSTRAINT_NOTNULL", seq: 1 })(results[0].error))
    assert.deepEqual(tagRows(store), [
      ["a", "tag 0", 0],
      ["b", "tag 0", 0],
      ["b", "tag 1", 1],
    ])
  })

  test("listeners hear what was applied, in order, and nothing of what was left", () => {
    const store = openNotes(failingNotes(new Map([["fails", new Error("own")]])))
    const heard = []
    store.subscribeAll(({ aggregateID, seq }) => heard.push([aggregateID, seq]))
    const items = [written("a", 0), written("b", 0), written("a", 1, "fails"), tagged("b", 1), written("a", 2)]
    store.replayAll(items, { ...parking, publish: true })
    assert.deepEqual(heard, [
      ["a", 0],
      ["b", 0],
      ["b", 1],
    ])
  })

  test("a projector is not asked again for what it has failed on, and for others only with what was taken back", () => {
    const asked = []
    const given = notes()
    const write = project(given.Written, (tx, { noteID, text }) => {
      asked.push(`${noteID} ${text}`)
      if (text === "fails") throw new Error("own")
    })
    const store = openNotes({ ...given, projectors: [write, given.projectors[1]] })
    store.replayAll([written("a", 0), written("b", 0, "fails"), written("c", 0), written("b", 1)], parking)
    assert.deepEqual(asked, ["a text 0", "b fails", "a text 0", "c text 0"])
  })

  test("what was applied before stays where an outer transaction goes on, and goes where it does not", () => {
    const store = openNotes(failingNotes(new Map([["fails", new Error("own")]])))
    const items = [written("a", 0), written("a", 1, "fails"), written("b", 0)]
    const before = dump(store)
    assert.throws(() =>
      store.transaction(() => {
        store.replayAll(items, parking)
        throw new Error("outer")
      }),
    )
    assert.deepEqual(dump(store), before)
    store.transaction(() => store.replayAll(items, parking))
    assert.deepEqual(
      noteRows(store).map(([id]) => id),
      ["a", "b"],
    )
  })

  test("replayAllAsync parks, too", async () => {
    const store = openNotes(notes())
    const [a, b] = await store.replayAllAsync([serialized("forgotten", 0, { noteID: "a" }), written("b", 0)], parking)
    assert.equal(a.error.code, "ERR_UNKNOWN_EVENT")
    assert.equal(b.applied, 1)
  })
})

describe("what concerns the whole batch throws, and changes nothing", () => {
  const good = written("a", 0)

  for (const [name, code, input] of [
    ["an item without the shape of one", "ERR_INVALID_EVENT", [good, { ...good, seq: "1" }]],
    ["malformed JSON", "ERR_INVALID_EVENT", `${JSON.stringify(good)}\n{"id":`],
    ["an event that is too large", "ERR_TOO_LARGE", [good, written("b", 0, "x".repeat(2_000))]],
    [
      "the same, told by its stored form",
      "ERR_TOO_LARGE",
      JSON.stringify([good, written("b", 0, "x".repeat(2_000))], null, 1),
    ],
  ]) {
    test(name, () => {
      const store = openNotes(notes(), { maxEventBytes: 1_000 })
      refused(store, () => store.replayAll(input, parking), coded(code))
    })
  }

  test("an asynchronous schema", () => {
    const registry = createRegistry()
    const schema = z.object({ noteID: z.string() }).refine(async () => true)
    define({ type: "note.written", version: 1, aggregate: "noteID", schema, projector: "none", registry })
    const store = kept(file(), { registry })
    refused(store, () => store.replayAll([good], parking), coded("ERR_ASYNC_SCHEMA"))
  })

  test("a transaction that SQLite has ended by itself: what was thrown then comes through", () => {
    const own = new Error("own")
    const given = failingNotes()
    const write = project(given.Written, (tx, { noteID }) => {
      if (noteID !== "b") return
      assert.throws(() => tx.prepare("INSERT INTO note VALUES ('end', '', 0)").run(), coded("ERR_SQLITE", /gone/))
      throw own
    })
    const migrate = (db) =>
      db.exec("CREATE TRIGGER gone BEFORE INSERT ON note BEGIN SELECT RAISE(ROLLBACK, 'gone'); END")
    const store = openNotes({ ...given, projectors: [write, given.projectors[1]] }, { migrate })
    refused(
      store,
      () => store.replayAll([good, written("b", 0), written("c", 0)], parking),
      (error) => error === own,
    )
    assert.deepEqual(store.replayAll([good], parking), [{ aggregateID: "a", applied: 1, duplicate: 0, seq: 0 }])
  })

  test("a full disk, also where SQLite takes back the failing statement alone", () => {
    const given = notes()
    const twice = project(given.Tagged, sql`INSERT INTO copy SELECT :data UNION ALL SELECT :data || ' again'`)
    const migrate = (db) => db.exec("CREATE TABLE copy (text TEXT UNIQUE)")
    const store = openNotes({ ...given, projectors: [given.projectors[0], twice] }, { migrate })
    store.db.pragma(`max_page_count = ${store.db.pragma("page_count", { simple: true }) + 30}`)
    const items = [good, tagged("b", 0, "x".repeat(60_000)), written("c", 0)]
    refused(store, () => store.replayAll(items, parking), coded("ERR_DISK_FULL"))
  })

  test("a constraint that the commit finds", () => {
    const given = notes()
    const refer = project(given.Tagged, sql`INSERT INTO refers VALUES (:data ->> '$.tag')`)
    const migrate = (db) =>
      db.exec("CREATE TABLE refers (note TEXT REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)")
    const store = openNotes({ ...given, projectors: [given.projectors[0], refer] }, { migrate })
    store.db.pragma("foreign_keys = ON")
    refused(store, () => store.replayAll([good, tagged("b", 0, "nobody")], parking), coded("ERR_SQLITE", /FOREIGN KEY/))
  })

  test("a database that is locked", () => {
    const store = openNotes(notes(), { busyTimeout: 1 })
    const other = store.connect()
    other.exec("BEGIN IMMEDIATE")
    assert.throws(() => store.replayAll([good], parking), coded("ERR_BUSY"))
    other.exec("ROLLBACK")
    other.close()
  })

  test("wrong options, and the wrong call", () => {
    const store = openNotes(notes())
    for (const onError of ["skip", null, true]) {
      assert.throws(() => store.replayAll([], { onError }), coded("ERR_INVALID_ARGUMENT", /onError/))
    }
    assert.throws(() => store.replay(good, parking), coded("ERR_INVALID_ARGUMENT", /replay has no option "onError"/))
  })
})

/** Batches of good and bad items of a few notes, cut anywhere. */
const NOTES = ["a", "b", "c", "d"]
const KINDS = "written written written tagged seen fails refused double forgotten skips".split(" ")
const step = fc.record({ noteID: fc.constantFrom(...NOTES), kind: fc.constantFrom(...KINDS) })

test("rule 17: whatever fails where, in any cut, the tables are those of the items before it", () => {
  const make = ({ noteID, kind }, seq) => {
    if (kind === "written") return written(noteID, seq)
    if (kind === "tagged") return tagged(noteID, seq, `${noteID} ${seq}`)
    if (kind === "fails") return written(noteID, seq, "fails")
    if (kind === "refused") return written(noteID, seq, 7)
    if (kind === "double") return tagged(noteID, seq, "double")
    if (kind === "skips") return written(noteID, seq + 1)
    return serialized(kind, seq, { noteID })
  }
  const openOne = () => {
    const migrate = (db) =>
      db.exec("CREATE UNIQUE INDEX no_double ON tag (tag); INSERT INTO tag VALUES ('', 'double', 0)")
    return openNotes(failingNotes(new Map([["fails", new Error("own")]])), { path: ":memory:", migrate })
  }
  const property = fc.property(
    fc.array(step, { minLength: 1, maxLength: 60 }),
    fc.array(fc.nat(60), { maxLength: 4 }),
    fc.boolean(),
    (steps, cuts, published) => {
      const seqs = new Map(NOTES.map((id) => [id, 0]))
      const stopped = new Set()
      const items = []
      const good = []
      for (const each of steps) {
        const seq = seqs.get(each.noteID)
        seqs.set(each.noteID, seq + 1)
        items.push(make(each, seq))
        if (!["written", "tagged", "seen"].includes(each.kind)) stopped.add(each.noteID)
        if (!stopped.has(each.noteID)) good.push(items.at(-1))
      }
      const [parked, plain] = [openOne(), openOne()]
      const heard = []
      parked.subscribeAll(({ id }) => heard.push(id))
      for (const batch of cutAt(items, cuts)) {
        const results = parked.replayAll(batch, { ...parking, publish: published })
        for (const { aggregateID, seq, index } of results) {
          assert.equal(seq, parked.sequence(aggregateID))
          // The first that is not applied is the one that is named.
          const left = (item) => item.aggregateID === aggregateID && !good.includes(item)
          assert.equal(index ?? -1, batch.findIndex(left))
        }
      }
      plain.replayAll(good)
      assert.deepEqual(dump(parked), dump(plain))
      assert.deepEqual(heard, published ? good.map(({ id }) => id) : [])
      // Again it changes nothing.
      parked.replayAll(items, parking)
      assert.deepEqual(dump(parked), dump(plain))
      for (const store of [parked, plain]) store.close()
    },
  )
  fc.assert(property, { numRuns: extent(150, 3_000), seed: seeds(1, 1)[0] })
})

test("where nothing fails, parking costs hardly anything", () => {
  const text = sessionsText()
  const events = text.trimEnd().split("\n").length
  const times = { throw: [], park: [] }
  for (let round = 0; round < extent(7, 41); round++) {
    for (const onError of round % 2 === 0 ? ["throw", "park"] : ["park", "throw"]) {
      const store = openSessions(":memory:")
      const before = process.cpuUsage()
      const results = store.replayAll(text, { onError })
      const { user, system } = process.cpuUsage(before)
      times[onError].push((user + system) / events)
      assert.equal(results.length, 14)
      assert.ok(results.every((result) => !("error" in result)))
      store.close()
    }
  }
  const least = (list) => `${Math.min(...list).toFixed(2)} us an event`
  figures("parking (processor time)", { throw: least(times.throw), park: least(times.park) })
  // A savepoint of 500 events is nothing beside them; one an event would show even here.
  assert.ok(Math.min(...times.park) < Math.min(...times.throw) * 3)
})

test("one aggregate that fails in each batch costs its page twice, not every page", () => {
  let calls = 0
  const registry = createRegistry()
  const schema = z.object({ noteID: z.string(), fails: z.boolean() })
  const Counted = define({ type: "note.counted", version: 1, aggregate: "noteID", schema, registry })
  const count = project(Counted, (tx, { fails }) => {
    calls++
    if (fails) throw new Error("own")
  })
  const store = open(":memory:", { registry, projectors: [count] })
  const items = Array.from({ length: 5_000 }, (_, n) => {
    // Each fails at its first event: 50 a page.
    const noteID = n % 10 === 0 ? `bad ${n % 500}` : `good ${n % 7}`
    return { noteID, fails: noteID.startsWith("bad") }
  })
  const seqs = new Map()
  const batch = items.map((data) => {
    const seq = seqs.get(data.noteID) ?? 0
    seqs.set(data.noteID, seq + 1)
    return { id: `evt_${data.noteID}_${seq}`, type: "note.counted.1", seq, aggregateID: data.noteID, data }
  })
  const results = store.replayAll(batch, parking)
  assert.equal(results.filter((result) => "error" in result).length, 50)
  assert.equal(
    results.reduce((sum, { applied }) => sum + applied, 0),
    4_500,
  )
  assert.ok(calls <= 4_500 + 500 + 50, `${calls} calls`)
  store.close()
})
