"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const {
  coded,
  collected,
  dump,
  history,
  noteRows,
  notes,
  openNotes,
  refused,
  rows,
  serialized,
} = require("./stores.js")

const gap = (aggregateID, after, through) => ({ kind: "gap", aggregateID, after, through })
const removed = (aggregateID, seq, event) => ({ kind: "removed", aggregateID, seq, ...(event && { event }) })
const event = (item) => ({ kind: "event", event: item })
const synced = (aggregateID, seq) => ({ kind: "synced", aggregateID, seq })
const logged = (store, aggregateID, after) => collected(store.log({ aggregateID, after }))

describe("rule 18: gap", () => {
  test("rule 18: a gap raises last to through, and the log says so again", async () => {
    const store = openNotes(notes())
    const items = [...history("a", 2), gap("a", 1, 4), ...history("a", 2, 5)]
    assert.deepEqual(store.replayAll(items), [{ aggregateID: "a", applied: 5, duplicate: 0, seq: 6 }])
    const wanted = [...history("a", 2).map(event), gap("a", 1, 4), ...history("a", 2, 5).map(event), synced("a", 6)]
    assert.deepEqual(await logged(store, "a"), wanted)
    const reader = openNotes(notes(), { path: ":memory:" })
    reader.replayAll(wanted)
    assert.deepEqual(await logged(reader, "a"), wanted)
    assert.deepEqual(dump(reader), dump(store))
  })

  test("rule 18: at the start, at the end, and of an aggregate that nobody knows", async () => {
    const store = openNotes(notes())
    store.replay(gap("a", -1, 3))
    assert.equal(store.sequence("a"), 3)
    assert.deepEqual(await logged(store, "a"), [gap("a", -1, 3), synced("a", 3)])
    store.replayAll([...history("a", 1, 4), gap("a", 4, 6)])
    assert.deepEqual(await logged(store, "a"), [
      gap("a", -1, 3),
      ...history("a", 1, 4).map(event),
      gap("a", 4, 6),
      synced("a", 6),
    ])
    assert.deepEqual(
      store.read("a").map(({ seq }) => seq),
      [4],
    )
  })

  test("rule 18: a reader in the middle of a gap gets the rest of it", async () => {
    const store = openNotes(notes())
    store.replayAll([gap("a", -1, 9), ...history("a", 1, 10)])
    assert.deepEqual(await logged(store, "a", 5), [gap("a", 5, 9), ...history("a", 1, 10).map(event), synced("a", 10)])
    assert.deepEqual(await logged(store, "a", 9), [...history("a", 1, 10).map(event), synced("a", 10)])
  })

  test("rule 18: a gap that begins before last counts from last; one that ends there is a duplicate", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    assert.deepEqual(store.replay(gap("a", 2, 4)), { aggregateID: "a", applied: 0, duplicate: 1, seq: 4 })
    assert.deepEqual(store.replay(gap("a", -1, 7)), { aggregateID: "a", applied: 1, duplicate: 0, seq: 7 })
    assert.deepEqual((await logged(store, "a", 3)).slice(1), [gap("a", 4, 7), synced("a", 7)])
    assert.equal(store.read("a").length, 5)
  })

  test("rule 16: a gap that begins after last is a mismatch", () => {
    const store = openNotes(notes())
    refused(store, () => store.replay(gap("a", 0, 4)), coded("ERR_SEQUENCE_MISMATCH", /./, { expected: 0, got: 1 }))
    store.replayAll(history("a", 2))
    refused(store, () => store.replay(gap("a", 2, 4)), coded("ERR_SEQUENCE_MISMATCH", /./, { expected: 2, got: 3 }))
  })

  test("rule 16: an event in a known gap is a duplicate, whatever it holds", () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 2), gap("a", 1, 4)])
    const result = store.replayAll([...history("a", 6), serialized("seen", 3, { noteID: "a" }, { id: "other" })])
    assert.deepEqual(result, [{ aggregateID: "a", applied: 1, duplicate: 6, seq: 5 }])
    assert.deepEqual(
      store.read("a").map(({ seq }) => seq),
      [0, 1, 5],
    )
  })

  test("rule 18: a run goes on after a gap", () => {
    const given = notes()
    const store = openNotes(given)
    store.replay(gap("a", -1, 3))
    assert.equal(store.run(given.Written, { noteID: "a" }, { expectedSeq: 3 }).seq, 4)
  })
})

describe("rule 18: removed", () => {
  test("rule 18: erases what is held up to its seq, keeps what is later", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 6))
    assert.deepEqual(store.replay(removed("a", 3)), { aggregateID: "a", applied: 1, duplicate: 0, seq: 5 })
    assert.deepEqual(store.read("a"), history("a", 2, 4))
    assert.deepEqual(await logged(store, "a"), [removed("a", 3), ...history("a", 2, 4).map(event), synced("a", 5)])
  })

  test("rule 18: raises last to at least its seq", () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll([...history("a", 2), removed("a", 7), removed("b", 3)])
    assert.deepEqual(
      [...store.sequences()],
      [
        ["a", 7],
        ["b", 3],
      ],
    )
    assert.deepEqual(store.read("a"), [])
    assert.equal(store.run(given.Seen, { noteID: "a" }).seq, 8)
    assert.equal(store.run(given.Seen, { noteID: "b" }).seq, 4)
  })

  test("rule 18: runs its event's projector once, and keeps the event for readers", async () => {
    const store = openNotes(notes())
    const heard = []
    store.subscribeAll(({ seq, data }) => heard.push([seq, data.text]))
    const last = serialized("written", 4, { noteID: "a", text: "gone" }, { metadata: { why: "asked" }, created: 3 })
    const items = [...history("a", 3), removed("a", 4, last)]
    store.replayAll(items, { publish: true })
    assert.deepEqual(noteRows(store), [["a", "gone", 4]])
    assert.deepEqual(heard.at(-1), [4, "gone"])
    store.db.exec("DELETE FROM note")
    assert.deepEqual(store.replayAll([items[3], items[3]]), [{ aggregateID: "a", applied: 0, duplicate: 2, seq: 4 }])
    assert.deepEqual(noteRows(store), [])
    assert.deepEqual(await logged(store, "a"), [removed("a", 4, last), synced("a", 4)])
    assert.deepEqual(store.read("a"), [])
  })

  test("rule 18: so does a SQL projector, and a tombstone's text is canonical", () => {
    const store = openNotes(notes())
    const tag = '{"id":"e","type":"note.tagged.1","seq":2,"aggregateID":"a","data":{ "tag":"\\u0078", "noteID":"a" } }'
    store.replayAll(`{"kind":"removed","aggregateID":"a","seq":2,"event":${tag}}`)
    assert.deepEqual(rows(store, "SELECT * FROM tag"), [["a", "x", 2]])
    const kept = JSON.parse(rows(store, "SELECT removed_event FROM event_sequence")[0][0])
    assert.deepEqual(kept, JSON.parse(tag))
    assert.ok(rows(store, "SELECT removed_event FROM event_sequence")[0][0].includes('{"tag":"x","noteID":"a"}'))
  })

  test("rule 16: an event that was removed is a duplicate", () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 6), removed("a", 3)])
    const other = serialized("seen", 2, { noteID: "a" }, { id: "other" })
    assert.deepEqual(store.replayAll([...history("a", 6), other]), [
      { aggregateID: "a", applied: 0, duplicate: 7, seq: 5 },
    ])
    refused(store, () => store.replay({ ...other, seq: 4 }), coded("ERR_REPLAY_DIVERGED"))
  })

  test("rule 18: a later removal replaces an earlier one, an earlier one is a duplicate", async () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 6), removed("a", 2)])
    assert.equal(store.replay(removed("a", 1)).duplicate, 1)
    assert.equal(store.replay(removed("a", 4)).applied, 1)
    assert.deepEqual(await logged(store, "a"), [removed("a", 4), ...history("a", 1, 5).map(event), synced("a", 5)])
  })

  test("rule 18: removal and gaps together", async () => {
    const store = openNotes(notes())
    store.replayAll([gap("a", -1, 1), ...history("a", 2, 2), gap("a", 3, 8), ...history("a", 1, 9), removed("a", 5)])
    const wanted = [removed("a", 5), gap("a", 5, 8), ...history("a", 1, 9).map(event), synced("a", 9)]
    assert.deepEqual(await logged(store, "a"), wanted)
    const reader = openNotes(notes(), { path: ":memory:" })
    reader.replayAll(wanted)
    assert.deepEqual(await logged(reader, "a"), wanted)
  })

  test("rule 16: gap, removed and synced have shapes of their own", () => {
    const store = openNotes(notes())
    const wrong = [
      [{ kind: "other", aggregateID: "a" }, "kind"],
      [{ kind: null, aggregateID: "a" }, "kind"],
      [{ kind: "event" }, "event"],
      [{ kind: "event", event: null }, "event"],
      [{ kind: "event", event: 1 }, "event"],
      [{ kind: "gap", after: 0, through: 1 }, "aggregateID"],
      [gap("", -1, 1), "aggregateID"],
      [gap("a", -2, 1), "after"],
      [gap("a", "0", 1), "after"],
      [gap("a", 0, 0), "through"],
      [gap("a", 0, 2 ** 32), "through"],
      [gap("a", 0, 1.5), "through"],
      [removed("a", -2), "seq"],
      [removed("a", 2 ** 32), "seq"],
      [removed("a", undefined), "seq"],
      [removed(1, 1), "aggregateID"],
      [removed("a", 1, serialized("seen", 2, { noteID: "a" })), "event"],
      [removed("a", 1, serialized("seen", 1, { noteID: "b" })), "event"],
      [removed("a", 1, { id: "e" }), "type"],
      [{ kind: "synced" }, "aggregateID"],
    ]
    for (const [item, field] of wrong) {
      refused(
        store,
        () => store.replayAll([...history("a", 1), item]),
        coded("ERR_INVALID_EVENT", /index 1/, { index: 1, field }),
      )
    }
  })
})

test("rule 17: any log with gaps and removals, in any cut, any number of times, gives the same tables", () => {
  const step = fc.record({
    aggregateID: fc.constantFrom("a", "b"),
    what: fc.constantFrom("event", "event", "event", "gap", "removed", "removed with event"),
    size: fc.integer({ min: 1, max: 3 }),
  })
  const asLog = (steps) => {
    const last = { a: -1, b: -1 }
    return steps.flatMap(({ aggregateID, what, size }) => {
      const after = last[aggregateID]
      last[aggregateID] += what === "event" ? 1 : what === "gap" ? size : what === "removed" ? 0 : 1
      const seq = last[aggregateID]
      if (what === "event") return history(aggregateID, 1, seq)
      if (what === "gap") return [gap(aggregateID, after, seq)]
      return seq < 0
        ? []
        : [removed(aggregateID, seq, what === "removed" ? undefined : history(aggregateID, 1, seq)[0])]
    })
  }
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), fc.array(fc.nat(25), { maxLength: 4 }), (steps, cuts) => {
      const items = asLog(steps)
      const whole = openNotes(notes(), { path: ":memory:" })
      whole.replayAll(items)
      const cut = openNotes(notes(), { path: ":memory:" })
      const at = [0, ...cuts.filter((cut) => cut < items.length).toSorted((a, b) => a - b), items.length]
      at.slice(1).forEach((end, index) => {
        cut.replayAll(items.slice(at[index], end))
        cut.replayAll(JSON.stringify(items.slice(at[index], end)))
      })
      assert.deepEqual(dump(cut), dump(whole))
      whole.replayAll(items)
      assert.deepEqual(dump(whole), dump(cut))
      whole.close()
      cut.close()
    }),
    { numRuns: 60 },
  )
})
