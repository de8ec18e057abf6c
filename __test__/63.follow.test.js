"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, history, notes, openNotes, serialized, turns } = require("./stores.js")

/** Follows a log in the background: what it has yielded so far, and a promise of its end. */
function following(store, options) {
  const controller = new AbortController()
  const items = []
  const ended = (async () => {
    for await (const item of store.log({ aggregateID: "a", follow: true, signal: controller.signal, ...options })) {
      items.push(item.kind === "event" ? item.event.seq : `${item.kind} ${item.seq ?? item.through}`)
    }
  })()
  return { items, ended, abort: () => controller.abort() }
}

describe("rule 20: follow within one store", () => {
  test("rule 20: goes on after one synced item with later events, none missed, none twice", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 2))
    const { items, ended, abort } = following(store)
    await turns()
    assert.deepEqual(items, [0, 1, "synced 1"])
    store.run(given.Written, { noteID: "a" })
    store.run(given.Written, { noteID: "b" })
    store.transaction(() => {
      store.run(given.Tagged, { noteID: "a", tag: "t" })
      store.run(given.Seen, { noteID: "a" }, { publish: false })
    })
    await turns()
    assert.deepEqual(items, [0, 1, "synced 1", 2, 3, 4])
    store.replayAll(history("a", 3, 5).map((event) => ({ kind: "event", event })))
    await store.runAsync(given.Seen, { noteID: "a" })
    await turns()
    assert.deepEqual(items.slice(6), [5, 6, 7, 8])
    abort()
    await ended
  })

  test("rule 20: what is committed while a page is consumed comes in its place", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 3))
    const seen = []
    for await (const item of store.log({ aggregateID: "a", follow: true })) {
      seen.push(item.kind === "event" ? item.event.seq : item.kind)
      if (seen.length < 8) store.run(given.Seen, { noteID: "a" })
      if (seen.length === 11) break
    }
    assert.deepEqual(seen, [0, 1, 2, "synced", 3, 4, 5, 6, 7, 8, 9])
  })

  test("rule 20: an aggregate that does not exist yet", async () => {
    const given = notes()
    const store = openNotes(given)
    const { items, ended, abort } = following(store)
    await turns()
    assert.deepEqual(items, ["synced -1"])
    store.run(given.Seen, { noteID: "a" })
    await turns()
    assert.deepEqual(items, ["synced -1", 0])
    abort()
    await ended
  })

  test("rule 20: a transaction that is rolled back is never seen", async () => {
    const given = notes()
    const store = openNotes(given)
    const { items, ended, abort } = following(store)
    await turns()
    assert.throws(() => store.transaction(() => (store.run(given.Seen, { noteID: "a" }), assert.fail())))
    store.db.exec("INSERT INTO note VALUES ('unrelated', '', 0)")
    await turns()
    assert.deepEqual(items, ["synced -1"])
    store.run(given.Seen, { noteID: "a" })
    await turns()
    assert.deepEqual(items, ["synced -1", 0])
    abort()
    await ended
  })

  test("rule 20: gaps and removals reach followers, too", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 2))
    const { items, ended, abort } = following(store)
    await turns()
    store.replay({ kind: "gap", aggregateID: "a", after: 1, through: 4 })
    await turns()
    store.remove("a", { event: [given.Seen, { noteID: "a" }] })
    await turns()
    store.run(given.Seen, { noteID: "a" })
    await turns()
    store.remove("a")
    await turns()
    assert.deepEqual(items, [0, 1, "synced 1", "gap 4", "removed 5", 6, "removed 6"])
    abort()
    await ended
  })

  test("rule 20: many followers at different places each get everything once", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 600))
    const followers = [-1, 10, 299, 599].map((after) => ({ after, ...following(store, { after }) }))
    for (let n = 0; n < 50; n++) {
      store.run(given.Seen, { noteID: "a" })
      if (n % 7 === 0) await turns(1)
    }
    for (let turn = 0; turn < 1_000 && followers.some(({ items }) => items.at(-1) !== 649); turn++) await turns(1)
    for (const { after, items, ended, abort } of followers) {
      const events = items.filter((item) => typeof item === "number")
      assert.deepEqual(
        events,
        Array.from({ length: 649 - after }, (_, n) => after + 1 + n),
      )
      assert.equal(items.length - events.length, 1)
      abort()
      await ended
    }
  })

  test("rule 20: abort while it waits ends it at once, without an error", async () => {
    const store = openNotes(notes())
    const { items, ended, abort } = following(store)
    await turns()
    abort()
    await ended
    assert.deepEqual(items, ["synced -1"])
  })

  test("rule 20: return answers at once, also while a next is pending", async () => {
    const store = openNotes(notes())
    const log = store.log({ aggregateID: "a", follow: true })
    assert.equal((await log.next()).value.kind, "synced")
    const pending = log.next()
    assert.deepEqual(await log.return(), { done: true, value: undefined })
    assert.deepEqual(await pending, { done: true, value: undefined })
    assert.deepEqual(await log.next(), { done: true, value: undefined })
  })

  test("rule 20: closing the store ends followers, without an error", async () => {
    const store = openNotes(notes())
    store.replayAll(history("a", 3))
    const waiting = following(store)
    await turns()
    const log = store.log({ aggregateID: "a", follow: true })
    await log.next()
    store.close()
    await waiting.ended
    assert.equal((await log.next()).done, true)
    assert.throws(() => store.log({ aggregateID: "a", follow: true }), coded("ERR_CLOSED"))
  })

  test("rule 20: concurrent next calls are answered in order", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(history("a", 2))
    const log = store.log({ aggregateID: "a", follow: true })
    const answers = Promise.all(Array.from({ length: 4 }, () => log.next()))
    store.run(given.Seen, { noteID: "a" })
    const got = (await answers).map(({ value }) => value.event?.seq ?? value.kind)
    assert.ok(JSON.stringify(got) === '[0,1,2,"synced"]' || JSON.stringify(got) === '[0,1,"synced",2]', String(got))
    await log.return()
  })

  test("rules 18 and 20: a reader that follows and replays holds what the writer holds", async () => {
    const given = notes()
    const writer = openNotes(given)
    const reader = openNotes(notes(), { path: ":memory:" })
    const controller = new AbortController()
    const ended = (async () => {
      const log = writer.log({ aggregateID: "a", follow: true, signal: controller.signal })
      for await (const item of log) reader.replay(item)
    })()
    for (let n = 0; n < 30; n++) {
      if (n % 11 === 10) writer.remove("a", { event: [given.Written, { noteID: "a", text: `removed ${n}` }] })
      else writer.run(given.Written, { noteID: "a", text: `text ${n}` })
      if (n === 20) writer.replay({ kind: "gap", aggregateID: "a", after: 20, through: 25 })
      if (n % 4 === 0) await turns(2)
    }
    for (let turn = 0; turn < 100 && reader.sequence("a") < writer.sequence("a"); turn++) await turns(1)
    controller.abort()
    await ended
    assert.deepEqual(reader.read("a"), writer.read("a"))
    assert.equal(reader.sequence("a"), writer.sequence("a"))
    assert.deepEqual(reader.db.prepare("SELECT * FROM note").all(), writer.db.prepare("SELECT * FROM note").all())
    assert.throws(() => reader.replay(serialized("seen", 99, { noteID: "a" })), coded("ERR_SEQUENCE_MISMATCH"))
  })
})
