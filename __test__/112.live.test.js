"use strict"

// GET /sync-events: what is heard, under which ids, and what happens to those who do not read.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define } = require("syncline")
const { assertError, following, served } = require("./serving")
const { history, kept } = require("./stores")
const { counted, deltas, until, watchThreads } = require("./streaming")

const after = (id) => ({ "last-event-id": String(id) })

/** A server whose store has such events already, and one of its followers. */
async function followed(query, headers, { events = [], ...options } = {}) {
  const server = await served(options)
  if (events.length > 0) server.store.replayAll(events)
  return { ...server, follower: await following(server.url, query, headers) }
}

describe("live events", () => {
  test("are all that is recorded from now on, as serialized events under their positions", async () => {
    const { store, Written, Seen, follower } = await followed("", {}, { events: history("old", 3) })
    await follower.synced()
    assert.deepEqual(follower.comments, ["connected"])
    assert.deepEqual(follower.messages, [{ id: "3", event: "synced", data: { position: 3 } }])
    store.run(Written, { noteID: "a", text: "ü\n\r\u2028" }, { metadata: { by: "me" }, created: 5 })
    store.runAll(
      [
        [Seen, { noteID: "b" }],
        [Seen, { noteID: "a" }],
      ],
      { publish: false },
    )
    await follower.until(() => follower.messages.length === 4)
    const [, ...events] = follower.messages
    assert.deepEqual(
      events.map(({ id, data }) => [Number(id), data]),
      store
        .readAll({ afterPosition: 3, limit: 9 })
        .map(({ position, ...event }) => [position, JSON.parse(JSON.stringify(event))]),
    )
    assert.ok(events.every(({ event }) => event === undefined))
    assert.deepEqual(Object.keys(events[0].data).toSorted(), [
      "aggregateID",
      "created",
      "data",
      "id",
      "metadata",
      "seq",
      "type",
    ])
  })

  test("come with the headers of a stream that nobody holds back", async () => {
    const { follower } = await followed()
    const { headers, statusCode } = follower.response
    assert.equal(statusCode, 200)
    assert.equal(headers["content-type"], "text/event-stream")
    assert.equal(headers["cache-control"], "no-store")
    assert.equal(headers["x-accel-buffering"], "no")
  })

  test("are those of others who write into the file, too", async () => {
    const server = await followed()
    const { store, follower, registry, projectors, Seen } = server
    await follower.synced()
    const other = kept(store.db.name, { registry, projectors })
    store.run(Seen, { noteID: "a" })
    other.run(Seen, { noteID: "a" })
    other.run(Seen, { noteID: "b" })
    store.run(Seen, { noteID: "b" })
    await follower.until(() => follower.messages.length === 5)
    assert.deepEqual(follower.told(), ["synced", "a0", "a1", "b0", "b1"])
  })

  test("are none that are never stored, and what no conversion of the program's can hold up, drop or change", async () => {
    const given = deltas()
    let converting = () => new Promise(() => {})
    const convertEvent = (...args) => converting(...args)
    const { store, follower, Seen, Delta } = await followed(
      "",
      {},
      { given, store: { convertEvent, onListenerError: () => {} } },
    )
    await follower.synced()
    store.subscribeAll((event) => (event.data.text = "changed"))
    store.publish(Delta, { noteID: "a", text: "never stored" })
    store.run(Seen, { noteID: "a", text: "pending" })
    converting = () => {
      throw new Error("not this one")
    }
    store.run(Seen, { noteID: "a", text: "dropped" })
    await follower.until(() => follower.messages.length === 3)
    assert.deepEqual(
      follower.messages.map(({ data }) => data.data?.text),
      [undefined, "pending", "dropped"],
    )
  })

  test("go to each follower as it asked: by aggregates, by types whatever their version, by both", async () => {
    const { store, url, follower: all } = await followed()
    const queries = [
      "?aggregate=a",
      "?aggregate=a&aggregate=b%20b",
      "?type=note.tagged",
      "?type=note.seen&type=note.written&aggregate=a",
      "?aggregate=nobody",
    ]
    const followers = [all, ...(await Promise.all(queries.map((query) => following(url, query))))]
    for (const follower of followers) await follower.synced()
    store.replayAll([...history("a", 3), ...history("b b", 2), ...history("c", 2)], { publish: true })
    const told = followers.map((follower) => follower.told().slice(1).join())
    await until(
      () =>
        followers.every(
          (follower, n) =>
            follower.told().slice(1).join() ===
            ["a0,a1,a2,b b0,b b1,c0,c1", "a0,a1,a2", "a0,a1,a2,b b0,b b1", "a1,b b1,c1", "a0,a2", ""][n],
        ),
      () => told.join(" | "),
    )
    assert.deepEqual(
      followers.map(({ comments }) => comments),
      followers.map(() => ["connected"]),
    )
  })

  test("are asked for in a way that can be", async () => {
    const { call } = await served()
    for (const [query, headers] of [
      ["?aggregate="],
      ["?type="],
      ["?after=1"],
      ["?after=1&aggregate=a&aggregate=b"],
      ["?after=-2&aggregate=a"],
      ["?after=x&aggregate=a"],
      ["?after=&aggregate=a"],
      ["?after=4294967296&aggregate=a"],
      ["", after(-1)],
      ["", after("1.5")],
      ["", after("evt_1")],
      ["", after("9".repeat(17))],
      ["", after(2 ** 53)],
      ["?after=1&aggregate=a", after(-2)],
    ]) {
      assertError(await call("GET", `/sync-events${query}`, { headers }), 400, "ERR_INVALID_ARGUMENT")
    }
    assertError(await call("GET", `/sync-events?aggregate=${"a".repeat(8_193)}`), 413, "ERR_TOO_LARGE")
  })

  test("end, without a failure, when the store is closed", async () => {
    const { store, follower, errors } = await followed()
    await follower.synced()
    store.close()
    assert.equal(await follower.ended, undefined)
    assert.equal(follower.response.complete, true)
    assert.deepEqual(errors, [])
  })

  test("are watched for from the first follower to the last", async () => {
    const { store, url, follower } = await followed("?aggregate=none")
    const second = await following(url)
    for (const one of [follower, second]) await one.synced()
    follower.close()
    await follower.ended
    store.replayAll(history("a", 1))
    await second.until(() => second.messages.length === 2)
    second.close()
    if (process.platform === "linux") await until(() => watchThreads() === 0)
    store.replayAll(history("a", 2))
    const third = await following(url)
    await third.synced()
    store.replayAll(history("a", 3))
    await third.until(() => third.messages.length === 2)
    assert.deepEqual(third.told(), ["synced", "a2"])
  })
})

describe("what is erased while somebody follows", () => {
  test("is told in its place, to who wants that aggregate", async () => {
    const { store, url, Seen, follower } = await followed("", {}, { events: [...history("a", 3), ...history("b", 1)] })
    const [a, b] = await Promise.all(["?aggregate=a&after=2", "?aggregate=b"].map((query) => following(url, query)))
    for (const one of [follower, a, b]) await one.synced()
    store.remove("a")
    store.run(Seen, { noteID: "a" })
    store.replay({ kind: "gap", aggregateID: "b", after: 0, through: 7 })
    store.run(Seen, { noteID: "b" })
    store.remove("a", { event: [Seen, { noteID: "a" }] })
    await until(() => [follower, a, b].every((one) => one.told().length >= 3))
    await follower.until(() => follower.told().includes("b8") && follower.told().includes("a4"))
    const erased = follower.messages.filter(({ event }) => event === "erased").map(({ data }) => data)
    assert.deepEqual(new Set(erased.map(({ aggregateID }) => aggregateID)), new Set(["a", "b"]))
    assert.ok(follower.told().indexOf("erased") < follower.told().indexOf("b8"))
    assert.deepEqual(b.told(), ["synced", "erased", "b8"])
    const ofA = a.messages.filter(({ event }) => event === "erased")
    assert.ok(ofA.length > 0 && ofA.every(({ data }) => data.aggregateID === "a"))
  })

  test("by another process's store is told, too", async () => {
    const { store, follower, registry, projectors } = await followed("", {}, { events: history("a", 3) })
    await follower.synced()
    kept(store.db.name, { registry, projectors }).remove("a")
    await follower.until(() => follower.told().includes("erased"))
    assert.deepEqual(follower.messages.at(-1).data, { aggregateID: "a", seq: 2 })
  })
})

describe("what compaction lets go of before the followers have heard it", () => {
  test("is told as erased, to who wants that aggregate", async () => {
    const registry = createRegistry()
    const schema = z.object({ id: z.string() })
    const define1 = (type, more) =>
      define({ type, version: 1, aggregate: "id", schema, registry, projector: "none", ...more })
    const Part = define1("part", { compactKey: { path: "id" } })
    const Other = define1("other")
    const { store, url } = await served({ given: { registry, projectors: [] } })
    const packer = kept(store.db.name, { registry })
    store.run(Other, { id: "b" })
    const [all, a, b] = await Promise.all(
      ["", "?aggregate=a", "?aggregate=b"].map(async (query) => {
        const follower = await following(url, query)
        await follower.synced()
        return follower
      }),
    )
    store.runAll([...Array.from({ length: 5 }, () => [Part, { id: "a" }]), [Other, { id: "b" }]])
    // Nothing is read for followers while this is open.
    store.db.exec("BEGIN")
    await packer.maintain()
    store.db.exec("COMMIT")
    for (const follower of [all, b]) await follower.until(() => follower.told().includes("b1"))
    await a.until(() => a.told().includes("a4"))
    assert.deepEqual(all.told(), ["synced", "a0", "erased", "a4", "b1"])
    assert.deepEqual(a.told(), ["synced", "a0", "erased", "a4"])
    assert.deepEqual(a.messages[2].data, { aggregateID: "a", seq: 4 })
    assert.deepEqual(b.told(), ["synced", "b1"])
  })
})

describe("a follower that hears nothing", () => {
  test("gets a sign of life, but none that it does not read", async () => {
    const { follower } = await followed("", {}, { heartbeat: 10 })
    await follower.until(() => follower.comments.filter((comment) => comment === "heartbeat").length >= 3)
    assert.equal(follower.messages.length, 1)
  })
})

describe("many followers", () => {
  test("hear an event that was encoded once for all of them", async () => {
    const { url, store, Seen } = await served()
    const queries = ["", "?aggregate=a", "?type=note.seen", "?aggregate=a&after=-1"]
    const followers = await Promise.all(counted(20).map((n) => following(url, queries[n % queries.length])))
    for (const one of followers) await one.synced()
    const stringify = JSON.stringify
    let encoded = 0
    JSON.stringify = (value, ...rest) => {
      if (typeof value === "object" && value !== null && "aggregateID" in value && "seq" in value) encoded++
      return stringify(value, ...rest)
    }
    try {
      for (let n = 0; n < 10; n++) store.run(Seen, { noteID: "a", n })
      for (const one of followers) await one.until(() => one.told().at(-1) === "a9")
    } finally {
      JSON.stringify = stringify
    }
    assert.equal(encoded, 10)
  })
})

describe("a follower that does not read", () => {
  const text = "x".repeat(50_000)

  test("is cut off once more waits than may, changes nothing for others, and can come back", async () => {
    const { store, url, server, Seen, errors } = await served({ capacity: { events: 20 } })
    const connected = once(server, "connection")
    const stalled = await following(url)
    const [socket] = await connected
    const others = await Promise.all(counted(3).map(() => following(url)))
    for (const one of [stalled, ...others]) await one.synced()
    stalled.hold()
    // More than the buffers on the way take; each once the others have heard the one before.
    let written = 0
    while (!socket.destroyed) {
      store.run(Seen, { noteID: "a", text })
      written++
      await until(() => others.every(({ messages }) => messages.length === written + 1))
      assert.ok(written < 2_000)
    }
    for (const { messages } of others)
      assert.deepEqual(
        messages.slice(1).map(({ data }) => data.seq),
        counted(written),
      )
    stalled.goOn()
    await stalled.ended
    const heard = stalled.messages.slice(1).map(({ data }) => data.seq)
    assert.deepEqual(heard, counted(heard.length))
    assert.ok(heard.length < written)
    const back = await following(url, "", after(stalled.messages.at(-1).id))
    await back.synced()
    assert.deepEqual(
      back.messages.slice(0, -1).map(({ data }) => data.seq),
      counted(written - heard.length, heard.length),
    )
    assert.deepEqual(errors, [])
  })
})

describe("live events without an adapter in between", () => {
  /** Reads a stream of the app's own until it has given such a text. */
  async function readUntil(reader, text) {
    let read = ""
    while (!read.includes(text)) read += Buffer.from((await reader.read()).value)
    return read
  }

  test("fail where the connection must break off, and stop when nobody wants them", async () => {
    const { app, store, Seen } = await served({ capacity: { events: 2 } })
    const open = async () => (await app.request("/sync-events")).body.getReader()
    const [slow, leaving] = [await open(), await open()]
    for (const reader of [slow, leaving]) await readUntil(reader, "event: synced")
    store.run(Seen, { noteID: "a" })
    await readUntil(leaving, '"seq":0')
    await leaving.cancel()
    for (const _ of counted(4)) {
      store.run(Seen, { noteID: "a" })
      await new Promise(setImmediate)
    }
    await assert.rejects(slow.read(), { code: "ERR_OVERFLOW", limit: 2 })
    if (process.platform === "linux") await until(() => watchThreads() === 0)
  })

  test("of an answer that nobody reads nothing is opened", async () => {
    const { app } = await served()
    await app.request("/sync-events")
    await app.request("/sync-events", { method: "HEAD" })
    if (process.platform === "linux") assert.equal(watchThreads(), 0)
  })
})

describe("live events that cannot be read", () => {
  test("for now, since the program has a transaction open, come afterwards", async () => {
    const { store, url, follower, registry, projectors, Seen } = await followed()
    await follower.synced()
    const other = kept(store.db.name, { registry, projectors })
    store.db.exec("BEGIN")
    store.db.prepare("SELECT * FROM note").all()
    other.run(Seen, { noteID: "a" })
    const late = await following(url, "", after(0))
    await late.until(() => late.comments.length === 1)
    assert.deepEqual([follower.told(), late.told()], [["synced"], []])
    store.db.exec("COMMIT")
    await follower.until(() => follower.messages.length === 2)
    await late.synced()
    assert.deepEqual(late.told(), ["a0", "synced"])
  })

  test("since the file is damaged, break off, and whoever runs the server hears of it", async () => {
    const { store, follower, errors, Seen } = await followed()
    await follower.synced()
    store.db.exec("CREATE TRIGGER t AFTER INSERT ON event BEGIN UPDATE event SET type = 99 WHERE seq = NEW.seq; END")
    store.db.pragma("foreign_keys = OFF")
    store.run(Seen, { noteID: "a" })
    assert.equal((await follower.ended).code, "ECONNRESET")
    assert.equal(follower.response.complete, false)
    assert.deepEqual(
      errors.map(({ error }) => error.code),
      ["ERR_CORRUPT"],
    )
  })
})
