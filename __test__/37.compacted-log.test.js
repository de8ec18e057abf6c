"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { board, gaps, lists, openLists, replica, seqs, tables } = require("./boards.js")
const {
  buildOutputBytes,
  inOrder,
  openSessions,
  sessionState,
  sessionsExpected,
  sessionsText,
} = require("./sessions.js")
const { coded, collected, file, rows, turns } = require("./stores.js")

describe("compacted logs and their readers", () => {
  /** Eight of one key: 2 … 7 are gone. */
  async function compacted(name) {
    const given = lists()
    const store = openLists(given, file(name))
    board(given, store, Array(8).fill("a"))
    const events = store.read("b")
    await store.maintain()
    assert.deepEqual(seqs(store), [0, 1, 8])
    return { given, store, events }
  }

  test("a plain list of events with a hole that nothing explains is refused", async () => {
    const { given, store } = await compacted()
    const copy = openLists(given, file("copy.db"))
    assert.throws(
      () => copy.replayAll(store.read("b")),
      coded("ERR_SEQUENCE_MISMATCH", /Sequence mismatch/, { expected: 2, got: 8 }),
    )
    assert.equal(copy.sequence("b"), -1)
  })

  test("readers before, at, inside and behind the gap catch up, with and without follow", async () => {
    const { given, store, events } = await compacted()
    for (let last = -1; last < 9; last++) {
      const reader = openLists(given, file(`${last}.db`))
      reader.replayAll(events.slice(0, last + 1))
      const items = await collected(store.log({ aggregateID: "b", after: reader.sequence("b") }))
      assert.deepEqual(
        items.filter(({ kind }) => kind === "gap").map(({ after, through }) => [after, through]),
        last >= 7 ? [] : [[Math.max(1, last), 7]],
      )
      reader.replayAll(items)
      assert.deepEqual(tables(reader), tables(store), `from ${last}`)
      assert.equal(reader.sequence("b"), 8)
      // Everything again, from the whole log and from the compacted one.
      assert.deepEqual(reader.replayAll(events)[0].duplicate, 9)
      assert.deepEqual(reader.replayAll(await collected(store.log({ aggregateID: "b" })))[0].applied, 0)
      const following = []
      for await (const item of store.log({ aggregateID: "b", after: last, follow: true })) {
        following.push(JSON.stringify(item))
        if (item.kind === "synced") break
      }
      assert.deepEqual(
        following,
        items.map((item) => JSON.stringify(item)),
      )
    }
  })

  test("what lies in the gap is a duplicate, whatever it says; what is kept must be the same", async () => {
    const { store, events } = await compacted()
    assert.deepEqual(store.replayAll(events), [{ aggregateID: "b", applied: 0, duplicate: 9, seq: 8 }])
    assert.equal(store.replay({ ...events[4], id: "other" }).duplicate, 1)
    assert.throws(() => store.replay({ ...events[8], id: "other" }), coded("ERR_REPLAY_DIVERGED"))
    assert.equal(store.replay({ kind: "gap", aggregateID: "b", after: 1, through: 7 }).duplicate, 1)
  })

  test("a log is read while it is compacted: every seq is an event or in a gap", async () => {
    const given = lists()
    const store = openLists(given)
    const other = openLists(given, store.db.name)
    store.transaction(() =>
      board(
        given,
        store,
        Array.from({ length: 3_500 }, (_, n) => `i${n % 7}`),
      ),
    )
    let last = -1
    let count = 0
    for await (const item of store.log({ aggregateID: "b" })) {
      if (item.kind === "event") assert.equal(item.event.seq, last + 1)
      if (item.kind === "gap") assert.ok(item.after === last, `${item.after} follows on ${last}`)
      last = item.event?.seq ?? item.through ?? last
      if (count++ === 500) await other.maintain()
    }
    assert.equal(last, 3_500)
    assert.ok(count > 500 && count < 1_100, `${count} items`)
  })

  test("listeners of the database that are behind get what is left, in order", async () => {
    const given = lists()
    const writer = openLists(given)
    const reader = openLists(given, writer.db.name)
    const heard = []
    reader.subscribeAll(({ seq }) => heard.push(seq), { scope: "database" })
    for (let round = 0; round < 3; round++) {
      writer.transaction(() => board(given, writer, Array(1_000).fill("a")))
      await writer.maintain()
    }
    while (heard.at(-1) !== 3_002) await turns(1)
    assert.deepEqual(
      heard,
      heard.toSorted((a, b) => a - b),
    )
    assert.equal(new Set(heard).size, heard.length)
    for (const { seq } of reader.read("b")) assert.ok(heard.includes(seq), `seq ${seq} was heard`)
    reader.run(given.Item, { board: "b", item: { id: "z", text: "" } })
    assert.equal(heard.at(-1), 3_003)
  })

  test("removed after it was compacted, and the other way round", async () => {
    const { given, store, events } = await compacted()
    store.remove("b", { event: [given.ListRemoved, { board: "b", id: "l" }] })
    assert.deepEqual(await gaps(store), [])
    assert.equal(rows(store, "SELECT count(*) FROM event_gap")[0][0], 0)
    board(given, store, ["a", "a", "a"])
    await store.maintain()
    assert.deepEqual(seqs(store), [10, 11, 13])
    const copy = await replica(given, store)
    assert.deepEqual(
      rows(copy, "SELECT id, first_text, text FROM item"),
      rows(store, "SELECT id, first_text, text FROM item"),
    )
    assert.equal(copy.replayAll(events)[0].duplicate, 9)
    // A removal that ends inside a gap, as a reader replays it.
    for (const seq of [0, 1, 4, 7, 8]) {
      const { store: cut, events } = await compacted(`${seq}.db`)
      cut.replay({ kind: "removed", aggregateID: "b", seq })
      const [removed, ...rest] = await collected(cut.log({ aggregateID: "b" }))
      assert.deepEqual([removed.kind, removed.seq], ["removed", seq])
      assert.deepEqual(
        rest.map((item) => item.event?.seq ?? item.through ?? item.kind),
        [...(seq < 1 ? [1] : []), ...(seq < 7 ? [7] : []), ...(seq < 8 ? [8] : []), "synced"],
      )
      assert.equal(cut.replayAll(events)[0].duplicate, 9)
    }
  })

  test("gaps that were replayed, and those of compaction, join and stay apart", async () => {
    const { given, store } = await compacted()
    const copy = await replica(given, store, "copy.db")
    assert.deepEqual(await gaps(copy), [[1, 7]])
    assert.equal(copy.sequence("b"), 8)
    for (let n = 0; n < 5; n++) copy.run(given.Item, { board: "b", item: { id: "a", text: n } })
    copy.replay({ kind: "gap", aggregateID: "b", after: 13, through: 20 })
    copy.run(given.Item, { board: "b", item: { id: "a", text: "last" } })
    await copy.maintain()
    assert.deepEqual(seqs(copy), [0, 1, 21])
    assert.deepEqual(await gaps(copy), [[1, 20]])
    assert.equal((await replica(given, copy)).sequence("b"), 21)
  })

  test("gaps that touch, which verify finds sound, are not lost where one before them grows", async () => {
    const { given, store } = await compacted()
    const copy = openLists(given, file("copy.db"))
    copy.replayAll(store.read("b", { before: 2 }))
    for (let n = 0; n < 3; n++) copy.run(given.Item, { board: "b", item: { id: "a", text: n } })
    copy.replay({ kind: "gap", aggregateID: "b", after: 4, through: 8 })
    copy.run(given.Item, { board: "b", item: { id: "a", text: "last" } })
    copy.db.exec("UPDATE event_gap SET through = 6; INSERT INTO event_gap SELECT aggregate, 6, 8 FROM event_gap")
    await copy.maintain()
    assert.deepEqual(seqs(copy), [0, 1, 9])
    assert.deepEqual(await copy.verify(), [])
    assert.equal((await replica(given, copy)).sequence("b"), 9)
  })
})

describe("replaying the compacted log gives the same tables as the whole one", () => {
  const list = fc.constantFrom("l", "m")
  const item = fc.constantFrom("i", "j", "k")
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant("item"), item, list, text: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("list"), list, title: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("item removed"), item }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("list removed"), list }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("maintain", "maintain a little") }) },
  )

  test("for any upserts and removals, foreign keys and first-seen columns, from any reader's place", async () => {
    let files = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), fc.nat(60), async (steps, place) => {
        const given = lists()
        const store = openLists(given, file(`${files++}.db`), {
          packing: { keepEvents: 4, idle: 2 ** 31 - 1, atBytes: 2 ** 40 },
        })
        const whole = []
        const run = (definition, data) => {
          try {
            const { id, seq } = store.run(definition, { board: "b", ...data })
            whole.push(store.get("b", seq))
            assert.equal(whole.at(-1).id, id)
          } catch (error) {
            // An item without its list.
            assert.match(error.message, /FOREIGN KEY/)
          }
        }
        for (const step of steps) {
          if (step.do === "item") run(given.Item, { item: { id: step.item, list: step.list, text: step.text } })
          else if (step.do === "list") run(given.List, { list: { id: step.list, title: step.title } })
          else if (step.do === "item removed") run(given.ItemRemoved, { id: step.item })
          else if (step.do === "list removed") run(given.ListRemoved, { id: step.list })
          else await store.maintain(step.do === "maintain" ? {} : { budget: 1 })
        }
        const replayed = await replica(given, store, `${files++}.db`)
        assert.deepEqual(tables(replayed), tables(store))
        await store.maintain()
        const full = await replica(given, store, `${files++}.db`)
        assert.deepEqual(tables(full), tables(store))
        const behind = openLists(given, file(`${files++}.db`))
        behind.replayAll(whole.slice(0, place))
        behind.replayAll(await collected(store.log({ aggregateID: "b", after: behind.sequence("b") })))
        assert.deepEqual(tables(behind), tables(store))
        assert.equal(behind.sequence("b"), store.sequence("b"))
        for (const one of [replayed, full, behind, store]) one.close()
      }),
      { numRuns: 25, includeErrorInReport: true },
    )
  })
})

describe("the recordings, compacted", () => {
  async function assertSame(store, path) {
    const before = sessionState(store)
    const { dropped } = await store.maintain()
    assert.ok(dropped > 0)
    assert.deepEqual(sessionState(store), before)
    for (const language of ["js", "sql"]) {
      const copy = openSessions(file(`${path}-${language}.db`), { language, compact: true })
      for (const { aggregateID } of store.aggregates()) copy.replayAll(await collected(store.log({ aggregateID })))
      assert.deepEqual(sessionState(copy), before)
    }
    return { before, dropped }
  }

  test("sessions project to what the server held", async () => {
    const store = openSessions(file(), { compact: true, packing: false })
    store.replayAll(sessionsText())
    const { before } = await assertSame(store, "sessions")
    assert.deepEqual(before, inOrder(sessionsExpected()))
    // Whoever has seen any part of it goes on from there.
    const lines = sessionsText().trimEnd().split("\n")
    for (const count of [1, 500, 1_100, 2_000]) {
      const behind = openSessions(file(`${count}.db`), { compact: true })
      behind.replayAll(lines.slice(0, count).join("\n"))
      for (const { aggregateID } of store.aggregates()) {
        behind.replayAll(await collected(store.log({ aggregateID, after: behind.sequence(aggregateID) })))
      }
      assert.deepEqual(sessionState(behind), before)
    }
  })

  test("build-output projects to the same rows, from a part of its bytes", async () => {
    const store = openSessions(file(), { compact: true, packing: { keepEvents: 50, atBytes: 1_000_000, idle: 1_000 } })
    store.replayAll(buildOutputBytes())
    await assertSame(store, "build-output")
    const bytes = store.readAll({ limit: 10_000 }).reduce((sum, { data }) => sum + JSON.stringify(data).length, 0)
    assert.ok(bytes < 24e6 * 0.03, `${bytes} bytes are left`)
  })
})
