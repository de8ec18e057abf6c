"use strict"

// Files that an earlier program made, as they lie in `fixtures`: each must open, with everything that was in it.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { assertSound, fixture: copy, olderEvents, olderTables } = require("./older-tables.js")
const { collected, file, kept, notes, openNotes, rows } = require("./stores.js")

const fixture = (name) => copy(name, file(`${name}.db`))
const adopted = (path) => kept(path, { adopt: true, packing: false })
const names = (store) => rows(store, "SELECT name FROM sqlite_schema ORDER BY name").flat()

describe("the older tables, sound", () => {
  for (const name of ["older", "older-bare"]) {
    test(`${name}: every event is there, in the order in which they were inserted`, async () => {
      const path = fixture(name)
      const events = olderEvents(path)
      const bytes = olderEvents(path, "octet_length(data)").reduce((sum, [length]) => sum + length, 0)
      const store = adopted(path)
      const aggregates = new Set(events.map(([, aggregateID]) => aggregateID)).size
      assert.deepEqual(store.adopted, { aggregates, events: events.length, bytes, findings: [], findingCount: 0 })
      const found = store.readAll({ limit: 10_000 })
      assert.deepEqual(
        found.map(({ id, aggregateID, seq, type, data }) => [id, aggregateID, seq, type, JSON.stringify(data)]),
        events,
      )
      assert.equal(rows(store, "SELECT count(*) FROM event")[0][0], 0, "all of it is packed")
      assert.ok(!names(store).some((object) => /older|adopt/.test(object)))
      await assertSound(store)
    })
  }

  test("times and owners are kept, where there are any", () => {
    const path = fixture("older")
    const times = olderEvents(path, "created").flat()
    const store = adopted(path)
    assert.deepEqual(
      store.readAll({ limit: 10_000 }).map((event) => event.created ?? null),
      times,
    )
    const [first, second] = rows(store, "SELECT aggregate_id FROM event_sequence ORDER BY key").flat()
    assert.deepEqual(store.owner(first), { owner: "somebody", epoch: 1 })
    assert.deepEqual(store.owner(second), { owner: null, epoch: 0 })
    store.close()
    const bare = adopted(fixture("older-bare"))
    assert.ok(bare.readAll({ limit: 10_000 }).every((event) => !("created" in event)))
  })
})

describe("the older tables, damaged", () => {
  test("nothing is lost, everything is told", async () => {
    const path = fixture("older-damaged")
    const before = olderEvents(path, "aggregate_id, seq, id, type, created, data")
    const store = adopted(path)
    const { findings, findingCount } = store.adopted
    const of = (aggregateID) =>
      findings
        .filter((finding) => finding.aggregateID === aggregateID)
        .map(({ kind, seq, through }) => [kind, seq, ...(through === undefined ? [] : [through])])
    assert.equal(findings.length, findingCount)
    assert.equal(rows(store, "SELECT count(*) FROM event_adoption_finding")[0][0], findingCount)
    assert.deepEqual(of("orphan"), [["orphan", undefined]])
    assert.deepEqual(of("empty"), [["empty", 0, 4]])
    assert.deepEqual(of("new"), [])
    assert.deepEqual(of("gappy"), [
      ["gap", 0, 2],
      ["gap", 5, 5],
      ["gap", 8, 9],
    ])
    assert.deepEqual(of("twice"), [
      ["duplicate", 1],
      ["event", 2],
    ])
    assert.deepEqual(
      findings.filter(({ kind, aggregateID }) => kind === "event" && aggregateID === "bad").map(({ seq }) => seq),
      [-1, 1, 3, 5, 7, 9, 11, 13, 15, 17, 2 ** 32, undefined],
    )
    assert.deepEqual(of("odd"), [
      ["created", 4],
      ["sequence", 6, 6],
      ["owner", 3],
    ])
    assert.deepEqual(of("uncounted"), [["sequence", undefined]])
    assert.deepEqual(
      findings.filter(({ kind }) => kind === "type").map(({ type, events }) => [type, events]),
      [
        ["note.unversioned.1", 1],
        ["plain.1", 1],
      ],
    )
    assert.equal(findings.filter(({ kind }) => kind === "aggregate").length, 6)
    for (const { message, aggregateID = "" } of findings) assert.ok(message.length > 10 && aggregateID.length < 8_000)

    // Each event is in the log or beside it, as it was.
    const aside = rows(
      store,
      `SELECT aggregate_id, seq, id, type, created, data FROM event_adoption_finding
       WHERE kind IN ('duplicate', 'event') OR (kind = 'aggregate' AND data IS NOT NULL)`,
    )
    const text = (value) => (Buffer.isBuffer(value) ? value.toString("latin1") : value)
    const left = new Set(aside.map((values) => JSON.stringify(values.map(text))))
    let [inLog, beside] = [0, 0]
    for (const event of before) {
      const [aggregateID, seq, id, , , data] = event
      if (left.delete(JSON.stringify(event.map(text)))) beside++
      else {
        const found = store.get(aggregateID, seq)
        assert.equal(found.id, id)
        assert.deepEqual(found.data, JSON.parse(data.toString()))
        inLog++
      }
    }
    assert.deepEqual([inLog, beside, left.size], [store.adopted.events, before.length - inLog, 0])
    await assertSound(store)
  })

  test("what stands in the log in place of what is missing", async () => {
    const store = adopted(fixture("older-damaged"))
    const items = async (aggregateID) =>
      (await collected(store.log({ aggregateID }))).map((item) =>
        item.kind === "gap" ? [item.after, item.through] : item.kind === "event" ? item.event.seq : `to ${item.seq}`,
      )
    assert.deepEqual(await items("gappy"), [[-1, 2], 3, 4, [4, 5], 6, 7, [7, 9], "to 9"])
    assert.deepEqual(await items("empty"), [[-1, 4], "to 4"])
    assert.deepEqual(await items("orphan"), [0, 1, 2, "to 2"])
    assert.deepEqual(await items("twice"), [0, 1, 2, "to 2"])
    assert.deepEqual(store.owner("new"), { owner: "somebody", epoch: 1 })
    assert.equal(store.sequence("new"), -1)
    assert.equal(store.get("twice", 1).id, "evt_first")
    assert.equal(store.get("twice", 2).id, "evt_mended")
    assert.equal(store.get("odd", 2).type, "note.unversioned.1")
    assert.deepEqual(Object.keys(store.get("odd", 0).data), ["spaced", "__proto__", "a"])
    assert.deepEqual(store.get("odd", 1).data, { in: "a BLOB" })
    assert.equal(store.get("odd", 4).created, undefined)
    assert.equal(store.get("odd", 6).created, 5)
    assert.deepEqual(store.owner("odd"), { owner: null, epoch: 0 })
  })

  test("the table of findings may be dropped", () => {
    const path = fixture("older-damaged")
    const store = adopted(path)
    store.db.exec("DROP TABLE event_adoption_finding")
    store.close()
    assert.equal(kept(path).sequence("orphan"), 2)
  })

  test("a list of findings is bounded, the table is not", () => {
    const path = file("holes.db")
    olderTables(
      path,
      Array.from({ length: 1_200 }, (_, n) => ({
        id: `evt_${n}`,
        aggregateID: "a",
        seq: n * 2 + 1,
        type: "a.1",
        data: {},
      })),
    )
    const { findings, findingCount } = adopted(path).adopted
    assert.deepEqual([findings.length, findingCount], [1_000, 1_200])
  })
})

describe("format 1", () => {
  test("opens, with rows, segments, a gap, a tombstone, owners and metadata", async () => {
    const path = fixture("format-1")
    const store = kept(path, { packing: false })
    assert.equal(store.adopted, undefined)
    assert.equal(rows(store, "SELECT format FROM event_meta")[0][0], 1)
    assert.ok(rows(store, "SELECT count(*) FROM event_segment")[0][0] > 0)
    assert.ok(rows(store, "SELECT count(*) FROM event")[0][0] > 0)
    assert.deepEqual(
      store.aggregates().map(({ aggregateID, seq, owner, epoch }) => [aggregateID, seq, owner, epoch]),
      [
        ["gappy", 11, null, 0],
        ["gone", 3, null, 0],
        ["packed", 319, null, 0],
        ["rows", 0, "somebody", 1],
      ],
    )
    store.read("packed").forEach((event, seq) => {
      const data = { noteID: "packed", text: `text ${seq}` }
      const { position, ...rest } = event
      assert.ok(position === undefined || position > 0)
      const created = 1_700_000_000_000 + seq
      assert.deepEqual(
        { ...rest },
        { id: `evt_packed_${seq}`, type: "note.written.1", seq, aggregateID: "packed", data, created },
      )
    })
    assert.equal(store.read("packed").length, 320)
    const gappy = await collected(store.log({ aggregateID: "gappy" }))
    assert.deepEqual(
      gappy.filter(({ kind }) => kind === "gap"),
      [{ kind: "gap", aggregateID: "gappy", after: 4, through: 8 }],
    )
    const [removed] = await collected(store.log({ aggregateID: "gone" }))
    assert.deepEqual([removed.kind, removed.seq, removed.event.type], ["removed", 3, "note.removed.1"])
    assert.deepEqual(store.get("rows", 0).metadata, { by: "somebody" })
    await assertSound(store)
  })

  test("and goes on", async () => {
    const given = notes()
    const store = openNotes(given, { path: fixture("format-1"), packing: false })
    assert.equal(store.run(given.Written, { noteID: "packed", text: "more" }).seq, 320)
    await store.maintain()
    assert.equal(store.read("packed").length, 321)
    await assertSound(store)
  })
})
