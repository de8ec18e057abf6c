"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { inspect } = require("node:util")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { coded, file, kept, noteRows, notes, openNotes, refused, rows, tagRows } = require("./stores.js")

describe("rule 4: one event", () => {
  test("rule 4: run gives the event, and stores event, sequence and projected row together", () => {
    const given = notes()
    const store = openNotes(given)
    const before = Date.now()
    const event = store.run(given.Written, { noteID: "n", text: "first" })
    assert.match(event.id, /^evt_[0-9A-HJKMNP-TV-Z]{26}$/)
    assert.ok(event.created >= before && event.created <= Date.now())
    assert.deepEqual(Object.keys(event).toSorted(), ["aggregateID", "created", "data", "id", "seq", "type", "version"])
    const { id, created, ...rest } = event
    assert.deepEqual(
      { ...rest, data: event.data },
      {
        type: "note.written",
        version: 1,
        aggregateID: "n",
        seq: 0,
        data: { noteID: "n", text: "first" },
      },
    )
    assert.deepEqual(noteRows(store), [["n", "first", 0]])
    assert.deepEqual(rows(store, "SELECT * FROM event_log"), [
      [1, id, "n", 0, "note.written.1", created, '{"noteID":"n","text":"first"}'],
    ])
    assert.equal(store.sequence("n"), 0)
    store.close()
    const again = openNotes(notes())
    assert.deepEqual(again.get("n", 0), {
      id,
      type: "note.written.1",
      seq: 0,
      aggregateID: "n",
      data: event.data,
      created,
    })
  })

  test("rule 4: seqs are contiguous from 0 in each aggregate, and ids ascend", () => {
    const given = notes()
    const store = openNotes(given)
    const events = ["a", "b", "a", "a", "b"].map((noteID) => store.run(given.Tagged, { noteID, tag: "t" }))
    assert.deepEqual(
      events.map(({ seq }) => seq),
      [0, 0, 1, 2, 1],
    )
    const ids = events.map(({ id }) => id)
    assert.deepEqual(ids, ids.toSorted())
    assert.equal(new Set(ids).size, 5)
  })

  test("rule 4: event.data is parsed from the stored text, never the caller's object", () => {
    const given = notes()
    const store = openNotes(given)
    const data = { noteID: "n", text: "t", dropped: undefined, at: new Date(0), list: [undefined] }
    const event = store.run(given.Seen, data)
    data.text = "changed"
    assert.notEqual(event.data, data)
    assert.deepEqual(event.data, { noteID: "n", text: "t", at: "1970-01-01T00:00:00.000Z", list: [null] })
    assert.equal(event.data, event.data)
    event.data.text = "changed"
    assert.deepEqual(store.get("n", 0).data.text, "t")
    assert.equal(JSON.parse(JSON.stringify(event)).data.text, "changed")
  })

  test("rule 4: created and metadata travel with the event", () => {
    const given = notes()
    const store = openNotes(given)
    const metadata = { cause: "evt_1", nested: { n: [1, null] } }
    const event = store.run(given.Written, { noteID: "n" }, { created: -5, metadata })
    assert.equal(event.created, -5)
    assert.deepEqual(event.metadata, metadata)
    assert.notEqual(event.metadata, metadata)
    assert.deepEqual(store.get("n", 0).metadata, metadata)
    assert.equal(store.get("n", 0).created, -5)
    assert.equal("metadata" in store.run(given.Written, { noteID: "n" }), false)
  })

  test("rule 4: a projector's throw rolls everything back and is the very value thrown", () => {
    const given = notes()
    const thrown = [new Error("no"), "text", undefined, null, 0, Symbol("s"), Object.freeze({ code: "ERR_CLOSED" })]
    let value
    const Failing = define({
      type: "note.failed",
      version: 1,
      aggregate: "noteID",
      schema: z.object({ noteID: z.string() }),
      registry: given.registry,
    })
    given.projectors.push(
      project(Failing, (tx, { noteID }) => {
        tx.prepare("INSERT INTO note VALUES (?, 'half', 0)").run(`${noteID} half`)
        throw value
      }),
    )
    const store = openNotes(given)
    store.run(given.Written, { noteID: "n" })
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    for (value of thrown) {
      for (const noteID of ["n", "new"]) {
        refused(
          store,
          () => store.run(Failing, { noteID }),
          (error) => error === value,
        )
      }
    }
    assert.equal(store.sequence("n"), 0)
    assert.equal(store.sequence("new"), -1)
    assert.equal(heard.length, 0)
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 1)
  })

  test("rule 4: a SQL projector's failure rolls everything back and names the event", () => {
    const given = notes()
    const store = openNotes(given)
    store.db.exec("CREATE UNIQUE INDEX once ON tag (tag)")
    store.run(given.Tagged, { noteID: "n", tag: "t" })
    refused(
      store,
      () => store.run(given.Tagged, { noteID: "m", tag: "t" }),
      coded("ERR_SQLITE", /note\.tagged\.1 \(aggregate "m", seq 0\)/, { sqliteCode: "SQLITE_CONSTRAINT_UNIQUE" }),
    )
    assert.equal(store.run(given.Tagged, { noteID: "m", tag: "u" }).seq, 0)
  })

  test("rule 4: open looks at no application table; a missing one shows at run", () => {
    const given = notes()
    const store = kept(file(), { registry: given.registry, projectors: given.projectors })
    refused(store, () => store.run(given.Tagged, { noteID: "n", tag: "t" }), coded("ERR_SQLITE", /no such table: tag/))
    refused(store, () => store.run(given.Written, { noteID: "n" }), coded("ERR_SQLITE", /no such table: note/))
    store.db.exec("CREATE TABLE tag (note, tag, seq)")
    store.run(given.Tagged, { noteID: "n", tag: "t" })
    assert.deepEqual(tagRows(store), [["n", "t", 0]])
  })

  test("rule 4: every statement of a SQL projector runs, in order, with every parameter", () => {
    const given = notes()
    given.projectors.pop()
    given.projectors.push(
      project(given.Tagged, [
        sql`INSERT INTO tag VALUES (:aggregateID, :type || ' ' || :version || ' ' || :id, :created)`,
        sql`UPDATE tag SET tag = tag || ' ' || (:data ->> '$.tag') || ' ' || typeof(:seq) || ' ' || typeof(:created)`,
      ]),
    )
    const store = openNotes(given)
    const { id } = store.run(given.Tagged, { noteID: "n", tag: "t" }, { created: 12 })
    assert.deepEqual(tagRows(store), [["n", `note.tagged 1 ${id} t integer integer`, 12]])
  })

  test("rule 4: checks come before the transaction: nothing waits for the lock to be refused", () => {
    const given = notes()
    const store = openNotes(given, { busyTimeout: 0 })
    const other = store.connect()
    other.exec("BEGIN IMMEDIATE")
    assert.throws(() => store.run(given.Written, { noteID: 1 }), coded("ERR_AGGREGATE_REQUIRED"))
    assert.throws(() => store.run(given.Written, { noteID: "n", text: 1 }), coded("ERR_INVALID_DATA"))
    assert.throws(() => store.run(given.Written, { noteID: "n" }), coded("ERR_BUSY"))
    other.exec("COMMIT")
    other.close()
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
  })

  for (const value of [undefined, null, 1, true, "", "\ud800", {}, []]) {
    test(`rule 4: an aggregate field of ${JSON.stringify(value)?.slice(0, 12)} is refused`, () => {
      const given = notes()
      const store = openNotes(given)
      const run = () => store.run(given.Seen, { noteID: value })
      refused(store, run, coded("ERR_AGGREGATE_REQUIRED", /note\.seen\.1/, { type: "note.seen.1", field: "noteID" }))
    })
  }

  test("rule 4: the aggregate field must be the data's own, and the data an object", () => {
    const given = notes()
    const store = openNotes(given)
    for (const data of [undefined, null, "n", 1, () => {}, [], Object.create({ noteID: "n" })]) {
      refused(store, () => store.run(given.Seen, data), coded("ERR_AGGREGATE_REQUIRED"))
    }
    assert.equal(store.run(given.Seen, { toJSON: () => ({ noteID: "n" }) }).aggregateID, "n")
  })

  test("events that come one at a time print their data, those of pages a getter; both read alike", () => {
    const registry = createRegistry()
    const schema = z.object({ id: z.string() })
    const Made = define({ type: "made", version: 1, aggregate: "id", schema, registry })
    const projected = []
    const projectors = [project(Made, (_tx, _data, event) => void projected.push(event))]
    const store = openNotes({ registry, projectors }, { path: ":memory:" })
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    const event = store.run(Made, { id: "a" })
    for (const each of [event, projected[0], heard[0]]) assert.match(inspect(each), /data: \{ id: 'a' \}/)
    for (const each of [store.get("a", 0), ...store.read("a"), ...store.readAll({ limit: 1 })]) {
      assert.match(inspect(each), /data: \[Getter/)
      for (const plain of [{ ...each }, structuredClone(each), JSON.parse(JSON.stringify(each))]) {
        assert.deepEqual(plain.data, { id: "a" })
      }
    }
  })
})

describe("rules 6 and 9", () => {
  test("rule 6: only the newest version of a type may be run, older ones stay replayable", () => {
    const registry = createRegistry()
    const versioned = (version) =>
      define({
        type: "note.made",
        version,
        aggregate: "noteID",
        schema: z.object({ noteID: z.string() }),
        projector: "none",
        registry,
      })
    const [Three, One, Two] = [3, 1, 2].map(versioned)
    const store = kept(file(), { registry })
    for (const Stale of [One, Two]) {
      refused(
        store,
        () => store.run(Stale, { noteID: "n" }),
        coded("ERR_STALE_VERSION", /note\.made\.3/, { type: Stale.name, expected: 3, got: Stale.version }),
      )
    }
    assert.equal(store.run(Three, { noteID: "n" }).version, 3)
    store.replay({ id: "x", type: "note.made.1", seq: 1, aggregateID: "n", data: { noteID: "n" } })
    assert.deepEqual(
      store.read("n").map(({ type }) => type),
      ["note.made.3", "note.made.1"],
    )
  })

  test("rule 9: expectedSeq is the last seq, -1 for none; another one is a conflict", () => {
    const given = notes()
    const store = openNotes(given)
    const run = (expectedSeq) => store.run(given.Written, { noteID: "n" }, { expectedSeq })
    const conflict = (got) => coded("ERR_CONFLICT", /"n"/, { aggregateID: "n", got })
    refused(store, () => run(0), conflict(-1))
    assert.equal(run(-1).seq, 0)
    refused(store, () => run(-1), conflict(0))
    refused(store, () => run(1), conflict(0))
    assert.equal(run(0).seq, 1)
    assert.equal(store.run(given.Tagged, { noteID: "n", tag: "t" }, { expectedSeq: 1 }).seq, 2)
    refused(
      store,
      () => store.run(given.Tagged, { noteID: "n", tag: "t" }, { expectedSeq: 1 }),
      coded("ERR_CONFLICT", /./, { expected: 1, got: 2 }),
    )
    for (const wrong of [-2, 0.5, NaN, "0", null, 2 ** 53]) {
      refused(store, () => run(wrong), coded("ERR_INVALID_ARGUMENT", /expectedSeq/))
    }
  })

  test("rule 9, mistake 2: the check holds against a commit of another connection", () => {
    const one = notes()
    const two = notes()
    const first = openNotes(one)
    const second = openNotes(two)
    first.run(one.Written, { noteID: "n" })
    const seen = second.sequence("n")
    first.run(one.Written, { noteID: "n" })
    refused(
      second,
      () => second.run(two.Written, { noteID: "n" }, { expectedSeq: seen }),
      coded("ERR_CONFLICT", /./, { expected: 0, got: 1 }),
    )
    assert.equal(second.run(two.Written, { noteID: "n" }).seq, 2)
  })
})

describe("runAll", () => {
  test("rule 4: runs a list in one transaction", () => {
    const given = notes()
    const store = openNotes(given)
    const { Written, Tagged, Seen } = given
    const events = store.runAll(
      [
        [Written, { noteID: "a", text: "t" }],
        [Tagged, { noteID: "a", tag: "x" }],
        [Seen, { noteID: "b" }],
      ],
      { metadata: { m: 1 }, created: 3 },
    )
    assert.deepEqual(
      events.map(({ type, seq, aggregateID, created }) => [type, seq, aggregateID, created]),
      [
        ["note.written", 0, "a", 3],
        ["note.tagged", 1, "a", 3],
        ["note.seen", 0, "b", 3],
      ],
    )
    assert.deepEqual(store.read("b")[0].metadata, { m: 1 })
    assert.deepEqual(store.runAll([]), [])
  })

  test("rule 4: the last one failing takes back all of them", () => {
    const given = notes()
    const store = openNotes(given)
    const { Written, Tagged } = given
    store.db.exec("CREATE UNIQUE INDEX once ON tag (tag)")
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    const tag = [Tagged, { noteID: "a", tag: "x" }]
    refused(store, () => store.runAll([[Written, { noteID: "a" }], tag, tag]), coded("ERR_SQLITE"))
    refused(store, () => store.runAll([tag, [Written, { noteID: "a", text: 1 }]]), coded("ERR_INVALID_DATA"))
    assert.equal(heard.length, 0)
  })

  test("rule 9: expectedSeq is that before the first, and only for one aggregate", () => {
    const given = notes()
    const store = openNotes(given)
    const pair = (noteID) => [given.Written, { noteID }]
    store.runAll([pair("a"), pair("a")], { expectedSeq: -1 })
    store.runAll([pair("a"), pair("a")], { expectedSeq: 1 })
    refused(store, () => store.runAll([pair("a")], { expectedSeq: 1 }), coded("ERR_CONFLICT"))
    refused(
      store,
      () => store.runAll([pair("a"), pair("b")], { expectedSeq: 3 }),
      coded("ERR_INVALID_ARGUMENT", /one aggregate/),
    )
    assert.equal(store.sequence("a"), 3)
  })

  test("anything but pairs, and unknown options, are refused", () => {
    const given = notes()
    const store = openNotes(given)
    const { Written } = given
    for (const events of [undefined, null, Written, [Written], [[Written]], [[Written, {}, {}]], "ab", [{}]]) {
      refused(store, () => store.runAll(events), coded("ERR_INVALID_ARGUMENT", /pairs/))
    }
    const refuse = (options) =>
      refused(store, () => store.run(Written, { noteID: "n" }, options), coded("ERR_INVALID_ARGUMENT"))
    for (const options of [null, 1, [], { expectSeq: 1 }, { signal: undefined }, { publish: "no" }]) refuse(options)
    for (const created of [NaN, 1.5, "1", 2 ** 53, null, new Date()]) refuse({ created })
    for (const metadata of [null, [], "m", 1, () => {}, { toJSON: () => 1 }, { n: 1n }]) refuse({ metadata })
    for (const definition of [undefined, null, {}, "note.written"]) {
      refused(store, () => store.run(definition, { noteID: "n" }), coded("ERR_INVALID_ARGUMENT", /definition/))
    }
  })
})
