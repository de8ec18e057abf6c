"use strict"

// GET /sync-events with Last-Event-ID, or after: what was missed comes first, nothing is lost or doubled, and what can no
// longer be told one by one is said to be so.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { syncRoutes } = require("syncline/http")
const { endOf, start } = require("./children")
const { openNotes } = require("./notes")
const { following, listening, served } = require("./serving")
const { history } = require("./stores")
const { counted, dice, newFile } = require("./streaming")

const after = (id) => ({ "last-event-id": String(id) })

/** A server whose store has such events already, and one of its followers. */
async function followed(query, headers, events = []) {
  const server = await served()
  server.store.replayAll(events)
  return { ...server, follower: await following(server.url, query, headers) }
}

describe("what a follower has missed", () => {
  const events = [...history("a", 3), ...history("b", 2)]

  test("comes first, then synced, then what is new", async () => {
    for (const [id, missed] of [
      [0, ["a0", "a1", "a2", "b0", "b1"]],
      [2, ["a2", "b0", "b1"]],
      [5, []],
    ]) {
      const { store, follower } = await followed("", after(id), events)
      await follower.synced()
      store.replayAll(history("b", 3))
      await follower.until(() => follower.told().at(-1) === "b2")
      assert.deepEqual(follower.told(), [...missed, "synced", "b2"])
      assert.deepEqual(
        follower.messages.map((message) => Number(message.id)),
        [...counted(5 - id, id + 1), 5, 6],
      )
    }
  })

  test("is filtered as what is new", async () => {
    const { follower } = await followed("?aggregate=b&type=note.tagged", after(1), events)
    await follower.synced()
    assert.deepEqual(follower.told(), ["b1", "synced"])
    assert.deepEqual(follower.messages.at(-1).data, { position: 5 })
  })

  test("of one aggregate is named by its seqs", async () => {
    for (const [query, headers, missed] of [
      ["?aggregate=a&after=-1", {}, ["a0", "a1", "a2"]],
      ["?aggregate=a&after=1", {}, ["a2"]],
      ["?aggregate=a&after=-1", after(1), ["a2"]],
      ["?aggregate=a&after=2", after(""), []],
      ["?aggregate=a&after=2", after(-1), ["a0", "a1", "a2"]],
    ]) {
      const { store, follower } = await followed(query, headers, events)
      await follower.synced()
      const synced = follower.messages.at(-1)
      assert.deepEqual([synced.id, synced.data], ["2", { aggregateID: "a", seq: 2 }])
      store.replayAll([...history("b", 3), ...history("a", 4)])
      await follower.until(() => follower.told().at(-1) === "a3")
      assert.deepEqual(follower.told(), [...missed, "synced", "a3"])
      assert.deepEqual(
        follower.messages.filter(({ event }) => !event).map(({ id, data }) => [id, data.seq]),
        [...missed, "a3"].map((name) => [name[1], Number(name[1])]),
      )
    }
    const unknown = await followed("?aggregate=unknown&after=-1")
    await unknown.follower.synced()
    assert.deepEqual(unknown.follower.messages.at(-1), {
      id: "-1",
      event: "synced",
      data: { aggregateID: "unknown", seq: -1 },
    })
    unknown.store.replayAll(history("unknown", 1))
    await unknown.follower.until(() => unknown.follower.told().at(-1) === "unknown0")
  })

  test("is more than a page, and packed", async () => {
    const server = await served()
    const { store, Seen, url } = server
    store.runAll(counted(3_000).map((n) => [Seen, { noteID: `note ${n % 7}` }]))
    await store.maintain()
    for (const [query, headers, count] of [
      ["", after(10), 2_990],
      ["?aggregate=note%203&after=5", {}, 423],
    ]) {
      const follower = await following(url, query, headers)
      await follower.synced()
      assert.equal(follower.messages.length, count + 1)
    }
  })
})

describe("a sweep", () => {
  const events = [...history("a", 4), ...history("b", 2)]

  /** What a follower from there is told, and that it is live afterwards. */
  async function toldAfter(server, query, headers) {
    const { store, url, Seen } = server
    const follower = await following(url, query, headers)
    await follower.synced()
    store.run(Seen, { noteID: "z" })
    store.run(Seen, { noteID: "a" })
    await follower.until(() => follower.told().at(-1) === `a${store.sequence("a")}`)
    const told = follower.told().filter((name) => !name.startsWith("z"))
    follower.close()
    return told.slice(0, -1).join()
  }

  const scene = async (act) => {
    const server = await served()
    server.store.replayAll(events)
    await act?.(server)
    return server
  }

  test("is told to who comes from after the end: of another file, or of one that was put back", async () => {
    const server = await scene()
    assert.equal(await toldAfter(server, "", after(7)), "sweep,synced")
    assert.equal(await toldAfter(server, "?aggregate=a&after=9", {}), "sweep,synced")
  })

  test("is told after a removal, with or without an event, to who was there before, and wanted that aggregate", async () => {
    for (const event of [true, false]) {
      const server = await scene(({ store, Seen }) =>
        store.remove("a", event ? { event: [Seen, { noteID: "a" }] } : {}),
      )
      assert.equal(await toldAfter(server, "", after(5)), "sweep,synced")
      assert.equal(await toldAfter(server, "?aggregate=b&aggregate=a", after(0)), "sweep,synced")
      assert.equal(await toldAfter(server, "?aggregate=a&after=1", {}), "sweep,synced")
      assert.equal(
        await toldAfter(server, "", after(7)),
        "a" + (event ? 5 : 4) + ",a" + (event ? 6 : 5) + ",a" + (event ? 7 : 6) + ",synced",
      )
      const { url } = server
      const other = await following(url, "?aggregate=b", after(0))
      await other.synced()
      assert.deepEqual(other.told(), ["b0", "b1", "synced"])
      other.close()
    }
  })

  test("is told after a gap", async () => {
    const server = await scene(({ store }) => store.replay({ kind: "gap", aggregateID: "a", after: 3, through: 5 }))
    // An event right after a gap may have lost others since it was committed: that is said once too often rather than never.
    assert.equal(await toldAfter(server, "", after(6)), "sweep,synced,erased")
    assert.equal(await toldAfter(server, "?aggregate=a&after=3", {}), "sweep,synced")
    assert.equal(await toldAfter(server, "?aggregate=a&after=5", {}), "a6,a7,synced")
  })

  test("is told after a compaction that took what was missed", async () => {
    const registry = createRegistry()
    const schema = z.object({ id: z.string(), part: z.string() })
    const define1 = (type, more) =>
      define({ type, version: 1, aggregate: "id", schema, registry, projector: "none", ...more })
    const Part = define1("part", { compactKey: { path: "part" } })
    const Other = define1("other")
    const { store, url } = await served({ given: { registry, projectors: [] } })
    const part = (id) => [Part, { id, part: "p" }]
    const other = (id) => [Other, { id, part: "p" }]
    // Positions 1 to 8: a 0 1 2 3, b 0 1, a 4 5; of a's parts at seqs 1, 2, 3 and 5 the first and the last stay.
    store.runAll([other("a"), part("a"), part("a"), part("a"), other("b"), other("b"), other("a"), part("a")])
    await store.maintain()
    assert.deepEqual(
      store.read("a").map(({ seq }) => seq),
      [0, 1, 4, 5],
    )
    for (const [id, told] of [
      [1, "sweep,synced"],
      [2, "sweep,synced"],
      [6, "sweep,synced"],
      [7, "a5,synced"],
      [8, "synced"],
    ]) {
      const follower = await following(url, "", after(id))
      await follower.synced()
      assert.deepEqual(follower.told().join(), told, `after ${id}`)
      follower.close()
    }
    const b = await following(url, "?aggregate=b", after(0))
    await b.synced()
    assert.deepEqual(b.told(), ["b0", "b1", "synced"])
    const seqs = await following(url, "?aggregate=a&after=1")
    await seqs.synced()
    assert.deepEqual(seqs.told(), ["sweep", "synced"])
  })
})

describe("a follower that is cut off again and again, while another process writes", () => {
  /** Follows until it has heard so many events, and is cut off after every few. */
  async function heard(url, query, first, total, throwDice) {
    const events = []
    for (let id = first; events.length < total;) {
      const follower = await following(url, query, after(id))
      const enough = Math.min(1 + throwDice(120), total - events.length)
      const recorded = () => follower.messages.filter(({ event }) => event === undefined)
      await follower.until(() => recorded().length >= enough)
      follower.close()
      await follower.ended
      assert.deepEqual(
        follower.messages.filter(({ event }) => event === "sweep" || event === "erased"),
        [],
      )
      events.push(...recorded())
      id = events.at(-1).id
    }
    return events
  }

  test("hears each event once, in order", async () => {
    const path = newFile()
    const { store } = openNotes(path)
    const [runs, aggregates] = [1_500, 3]
    const { url } = await listening(syncRoutes(store, { authorize: "none" }))
    const writer = start("note-writer.js", { path, writer: "other", runs, aggregates })
    const [all, one] = await Promise.all([
      heard(url, "", 0, runs, dice(1)),
      heard(url, "?aggregate=note%201&after=-1", -1, runs / aggregates, dice(2)),
    ])
    await endOf(writer)
    const committed = store.readAll({ limit: runs }).map(({ id, position }) => [id, String(position)])
    assert.deepEqual(
      all.map(({ id, data }) => [data.id, id]),
      committed,
    )
    assert.deepEqual(
      one.map(({ id, data }) => [data.id, Number(id)]),
      store.read("note 1").map(({ id, seq }) => [id, seq]),
    )
    store.close()
  })
})
