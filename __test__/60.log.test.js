"use strict"

const assert = require("node:assert/strict")
const { getEventListeners } = require("node:events")
const { describe, test } = require("node:test")
const { coded, collected, history, notes, openNotes, rows, serialized } = require("./stores.js")

const seqs = (events) => events.map(({ seq }) => seq)
const through = (last) => Array.from({ length: last + 1 }, (_, seq) => seq)

describe("read", () => {
  test("gives the stored events, between after and before, in either order, up to limit", () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 10), ...history("b", 3)])
    assert.deepEqual(store.read("a"), history("a", 10))
    assert.deepEqual(seqs(store.read("a", { after: 6 })), [7, 8, 9])
    assert.deepEqual(seqs(store.read("a", { before: 3 })), [0, 1, 2])
    assert.deepEqual(seqs(store.read("a", { after: 3, before: 6 })), [4, 5])
    assert.deepEqual(seqs(store.read("a", { limit: 2 })), [0, 1])
    assert.deepEqual(seqs(store.read("a", { order: "desc", limit: 2 })), [9, 8])
    assert.deepEqual(seqs(store.read("a", { order: "desc", after: 6 })), [9, 8, 7])
    assert.deepEqual(seqs(store.read("a", { order: "desc", before: 2 })), [1, 0])
    assert.deepEqual(seqs(store.read("a", { order: "desc", after: 3, before: 7, limit: 2 })), [6, 5])
    for (const options of [
      { limit: 0 },
      { after: 9 },
      { before: 0 },
      { before: 0, order: "desc" },
      { after: 5, before: 5 },
      { after: 2 ** 40 },
    ]) {
      assert.deepEqual(store.read("a", options), [], JSON.stringify(options))
    }
    assert.deepEqual(store.read("nobody"), [])
  })

  for (const order of ["asc", "desc"]) {
    test(`pages by rows and by bytes without losing or doubling any (${order})`, () => {
      const given = notes()
      const store = openNotes(given, { path: ":memory:" })
      const small = Array.from({ length: 2_500 }, () => [given.Seen, { noteID: "small" }])
      const large = Array.from({ length: 9 }, (_, n) => [
        given.Seen,
        { noteID: "large", n, text: "x".repeat(400_000 * (n % 4)) },
      ])
      store.runAll([...small, ...large])
      const wanted = (last) => (order === "asc" ? through(last) : through(last).toReversed())
      assert.deepEqual(seqs(store.read("small", { order })), wanted(2_499))
      assert.deepEqual(seqs(store.read("small", { order, limit: 1_001 })), wanted(2_499).slice(0, 1_001))
      assert.deepEqual(seqs(store.read("large", { order })), wanted(8))
    })
  }

  test("wrong arguments are refused", () => {
    const store = openNotes(notes())
    const refuse = (fn) => assert.throws(fn, coded("ERR_INVALID_ARGUMENT"))
    for (const id of [undefined, null, "", 1, "\ud800", {}]) {
      for (const call of ["read", "sequence", "owner"]) refuse(() => store[call](id))
      refuse(() => store.get(id, 0))
      refuse(() => store.log({ aggregateID: id }))
    }
    for (const options of [
      null,
      { after: -2 },
      { after: 0.5 },
      { before: -1 },
      { limit: -1 },
      { limit: NaN },
      { order: "up" },
      { from: 1 },
    ]) {
      refuse(() => store.read("a", options))
    }
    for (const options of [undefined, {}, { limit: "1" }, { limit: 1, afterPosition: -1 }, { limit: 1, after: 1 }]) {
      refuse(() => store.readAll(options))
    }
    for (const seq of [undefined, -1, 0.5, 2 ** 32, "0"]) refuse(() => store.get("a", seq))
    for (const options of [null, { prefix: 1 }, { after: "\ud800" }, { limit: -1 }, { order: "asc" }]) {
      refuse(() => store.aggregates(options))
    }
    for (const ids of [null, 1, "ab", {}, [1], [""]]) refuse(() => store.sequences(ids))
    for (const more of [{ after: -2 }, { after: "0" }, { follow: 1 }, { signal: {} }, { limit: 1 }]) {
      refuse(() => store.log({ aggregateID: "a", ...more }))
    }
    refuse(() => store.log())
  })
})

describe("readAll, get, sequence, sequences, aggregates", () => {
  test("readAll gives all events in the order of commits, with position, page by page", () => {
    const store = openNotes(notes())
    const items = [...history("b", 2), ...history("a", 3), ...history("b", 2, 2)]
    store.replayAll(items)
    const all = store.readAll({ limit: 100 })
    assert.deepEqual(
      all,
      items.map((event, index) => ({ ...event, position: index + 1 })),
    )
    const paged = []
    for (let page, afterPosition = 0; (page = store.readAll({ afterPosition, limit: 2 })).length > 0;) {
      paged.push(...page)
      afterPosition = page.at(-1).position
    }
    assert.deepEqual(paged, all)
    assert.deepEqual(store.readAll({ limit: 0 }), [])
    assert.deepEqual(store.readAll({ limit: 5, afterPosition: 7 }), [])
  })

  test("readAll: a position is never used again, whatever is removed", () => {
    const given = notes()
    const store = openNotes(given)
    const run = () => store.run(given.Seen, { noteID: "a" })
    const last = () => store.readAll({ limit: 100 }).at(-1).position
    run()
    run()
    const before = last()
    store.remove("a")
    run()
    assert.ok(last() > before)
    const floor = last()
    store.remove("a", { event: [given.Seen, { noteID: "a" }] })
    store.close()
    const again = openNotes(given)
    again.run(given.Seen, { noteID: "a" })
    assert.ok(again.readAll({ limit: 1 })[0].position > floor + 1)
  })

  test("get gives one event or undefined", () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 3))
    assert.deepEqual(store.get("a", 1), history("a", 3)[1])
    assert.equal(store.get("a", 3), undefined)
    assert.equal(store.get("a", 2 ** 32 - 1), undefined)
    assert.equal(store.get("b", 0), undefined)
  })

  test("an event's data is parsed when first read, belongs to its reader, and may be replaced", () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 1))
    const event = store.get("a", 0)
    assert.deepEqual(Object.keys(event), ["id", "type", "seq", "aggregateID", "data"])
    assert.equal(event.data, event.data)
    assert.notEqual(event.data, store.get("a", 0).data)
    assert.deepEqual({ ...event }, history("a", 1)[0])
    assert.deepEqual(structuredClone({ ...event }), history("a", 1)[0])
    event.data = 7
    assert.equal(event.data, 7)
    assert.equal(JSON.parse(JSON.stringify(event)).data, 7)
  })

  test("mistake 12: sequences of many thousand aggregates are one question", () => {
    const store = openNotes(notes(), { path: ":memory:" })
    const ids = Array.from({ length: 5_000 }, (_, n) => `n${n}`)
    store.replayAll(ids.map((noteID) => serialized("seen", 0, { noteID })))
    assert.equal(store.sequences().size, 5_000)
    const asked = store.sequences([...ids, "unknown", ids[0]])
    assert.equal(asked.size, 5_000)
    assert.equal(asked.get("n4999"), 0)
    assert.equal(asked.has("unknown"), false)
    assert.deepEqual(store.sequences([]), new Map())
    assert.deepEqual(store.sequences(new Set(["n7"])), new Map([["n7", 0]]))
    assert.equal(store.sequence("unknown"), -1)
    assert.equal(store.aggregates().length, 5_000)
  })

  test("aggregates lists by id, from a prefix, after an id, up to a limit", () => {
    const store = openNotes(notes())
    const ids = ["a", "a%", "a_", "aa", "ab", "b", "é", "z", "\u{1f600}", "\uffff"]
    for (const noteID of ids.toReversed()) store.replayAll(history(noteID, 2))
    store.claim("aa", "me")
    const list = (options) => store.aggregates(options).map(({ aggregateID }) => aggregateID)
    const bytes = (id) => Buffer.from(id).toString("hex")
    const ordered = ids.toSorted((a, b) => (bytes(a) < bytes(b) ? -1 : 1))
    assert.deepEqual(list(), ordered)
    assert.deepEqual(list({ prefix: "a" }), ["a", "a%", "a_", "aa", "ab"])
    assert.deepEqual(list({ prefix: "a%" }), ["a%"])
    assert.deepEqual(list({ prefix: "a", after: "a_", limit: 1 }), ["aa"])
    assert.deepEqual(list({ prefix: "b", after: "a" }), ["b"])
    assert.deepEqual(list({ prefix: "x" }), [])
    assert.deepEqual(list({ limit: 0 }), [])
    assert.deepEqual(list({ after: "z" }), ordered.slice(ordered.indexOf("z") + 1))
    assert.deepEqual(store.aggregates({ prefix: "aa" }), [{ aggregateID: "aa", seq: 1, owner: "me", epoch: 1 }])
  })

  test("an aggregate id may be any text: NUL, quotes, controls, characters beyond the BMP", () => {
    const given = notes()
    const store = openNotes(given)
    const ids = ["a\0b", "a", "a\0", "\u{1f600}", '"q\\', "\u00e9\u2028", " ", "\ufeff", "\u0001", "__proto__"]
    for (const noteID of ids) {
      store.run(given.Tagged, { noteID, tag: "t" })
      store.replayAll(JSON.stringify([serialized("seen", 1, { noteID })]))
      assert.equal(store.sequence(noteID), 1)
      assert.deepEqual(store.sequences([noteID]), new Map([[noteID, 1]]))
      assert.deepEqual(
        store.read(noteID).map((event) => [event.aggregateID, event.data.noteID]),
        [
          [noteID, noteID],
          [noteID, noteID],
        ],
      )
      assert.equal(store.aggregates({ prefix: noteID })[0].aggregateID, noteID)
    }
    assert.deepEqual([...store.sequences().keys()], ids)
    assert.deepEqual(rows(store, "SELECT note FROM tag ORDER BY rowid").flat(), ids)
  })

  test("reading inside a transaction sees what it wrote", () => {
    const given = notes()
    const store = openNotes(given)
    store.transaction(() => {
      store.run(given.Seen, { noteID: "a" })
      assert.equal(store.read("a").length, 1)
      assert.equal(store.get("a", 0).seq, 0)
      assert.equal(store.sequence("a"), 0)
      assert.equal(store.readAll({ limit: 1 }).length, 1)
      assert.equal(store.aggregates().length, 1)
      assert.throws(() => store.transaction(() => (store.run(given.Seen, { noteID: "a" }), assert.fail())))
      assert.equal(store.sequence("a"), 0)
    })
  })
})

describe("rule 20: log", () => {
  const kinds = (items) => items.map(({ kind }) => kind)

  test("rule 20: without follow it ends with exactly one synced item", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    const items = await collected(store.log({ aggregateID: "a" }))
    assert.deepEqual(
      items.slice(0, -1),
      history("a", 5).map((event) => ({ kind: "event", event })),
    )
    assert.deepEqual(items.at(-1), { kind: "synced", aggregateID: "a", seq: 4 })
    assert.deepEqual(await collected(store.log({ aggregateID: "a", after: 4 })), [items.at(-1)])
    assert.deepEqual(await collected(store.log({ aggregateID: "a", after: 2 })), items.slice(3))
    assert.deepEqual(await collected(store.log({ aggregateID: "a", after: 99 })), [items.at(-1)])
    assert.deepEqual(await collected(store.log({ aggregateID: "none" })), [
      { kind: "synced", aggregateID: "none", seq: -1 },
    ])
  })

  test("rule 20: the watermark is captured at the start; what is committed meanwhile comes after it", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 3))
    const items = []
    for await (const item of store.log({ aggregateID: "a" })) {
      items.push(item)
      if (item.kind === "event") store.run(given.Seen, { noteID: "a" })
    }
    assert.deepEqual(kinds(items), ["event", "event", "event", "synced"])
    assert.equal(items.at(-1).seq, 2)
    assert.equal(store.sequence("a"), 5)
  })

  test("rule 20, mistake 14: it pulls page by page, by rows and by bytes, and loses none", async () => {
    const given = notes()
    const store = openNotes(given, { path: ":memory:" })
    const data = (n) => ({ noteID: "a", text: "x".repeat(n % 300 === 0 ? 700_000 : 5) })
    store.runAll(Array.from({ length: 1_500 }, (_, n) => [given.Seen, data(n)]))
    const items = await collected(store.log({ aggregateID: "a" }))
    assert.deepEqual(
      items.slice(0, -1).map(({ event }) => event.seq),
      through(1_499),
    )
    assert.deepEqual(kinds(items.slice(-2)), ["event", "synced"])
  })

  test("rule 20: a gap that the log cannot explain is ERR_CORRUPT, never skipped in silence", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    for (const seq of [0, 2, 4]) {
      store.db.exec(`SAVEPOINT s; DELETE FROM event WHERE seq = ${seq}`)
      await assert.rejects(collected(store.log({ aggregateID: "a" })), coded("ERR_CORRUPT", /"a"/))
      store.db.exec("ROLLBACK TO s; RELEASE s")
    }
    assert.equal((await collected(store.log({ aggregateID: "a" }))).length, 6)
  })

  test("rule 20: events that are lost just before a gap are not taken for a part of it", async () => {
    const store = openNotes(notes())
    store.replayAll([...history("a", 5), { kind: "gap", aggregateID: "a", after: 4, through: 8 }])
    store.db.exec("DELETE FROM event WHERE seq = 4")
    await assert.rejects(collected(store.log({ aggregateID: "a" })), coded("ERR_CORRUPT", /after seq 3 and before 5/))
    store.replay({ ...history("a", 1)[0], id: "evt_9", seq: 9 })
    await assert.rejects(collected(store.log({ aggregateID: "a" })), coded("ERR_CORRUPT", /after seq 3 and before 5/))
  })

  test("rule 20: abort ends the iterator without an error, at any point", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    const aborted = AbortSignal.abort(new Error("reason"))
    assert.deepEqual(await collected(store.log({ aggregateID: "a", signal: aborted })), [])
    const controller = new AbortController()
    const items = []
    for await (const item of store.log({ aggregateID: "a", signal: controller.signal })) {
      items.push(item)
      if (items.length === 2) controller.abort()
    }
    assert.equal(items.length, 2)
  })

  test("rule 20: nothing stays with a signal that outlives the log", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    const { signal } = new AbortController()
    const listening = () => getEventListeners(signal, "abort").length
    const log = () => store.log({ aggregateID: "a", signal })
    log()
    const returned = log()
    await returned.return()
    assert.deepEqual(await returned.next(), { done: true, value: undefined })
    assert.equal(listening(), 0)
    const broken = log()
    await broken.next()
    assert.equal(listening(), 1)
    await broken.return()
    assert.equal(listening(), 0)
    await collected(log())
    assert.equal(listening(), 0)
    const failing = log()
    await failing.next()
    store.close()
    await assert.rejects(failing.next(), coded("ERR_CLOSED"))
    assert.equal(listening(), 0)
  })

  test("rule 20: breaking out ends it, and next goes on saying so", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 5))
    const log = store.log({ aggregateID: "a" })
    for await (const _ of log) break
    assert.deepEqual(await log.next(), { done: true, value: undefined })
    assert.deepEqual(await log.return(), { done: true, value: undefined })
    assert.equal(log[Symbol.asyncIterator](), log)
  })

  test("rule 20: closing the store ends it with ERR_CLOSED", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 3))
    const log = store.log({ aggregateID: "a" })
    await log.next()
    store.close()
    await assert.rejects(collected(log), coded("ERR_CLOSED"))
    assert.throws(() => store.log({ aggregateID: "a" }), coded("ERR_CLOSED"))
  })

  test("mistake 11: nothing orders by id: ids that descend, repeat or are no ids at all change nothing", async () => {
    const store = openNotes(notes())
    const items = history("a", 4).map((event, index) => ({ ...event, id: ["z", "a", "a", "\u0001"][index] }))
    store.replayAll(items)
    assert.deepEqual(store.read("a"), items)
    assert.deepEqual(
      (await collected(store.log({ aggregateID: "a" }))).slice(0, -1).map(({ event }) => event),
      items,
    )
    assert.deepEqual(
      store.readAll({ limit: 9 }).map(({ seq }) => seq),
      [0, 1, 2, 3],
    )
    assert.deepEqual(rows(store, "SELECT id FROM event_log ORDER BY position").flat(), ["z", "a", "a", "\u0001"])
  })
})
