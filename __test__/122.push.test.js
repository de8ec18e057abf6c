"use strict"

const assert = require("node:assert/strict")
const { randomBytes } = require("node:crypto")
const { describe, test } = require("node:test")
const { push } = require("syncline/http")
const { olderServer } = require("./older-server")
const { coded, collected, dump, history, serialized } = require("./stores.js")
const { dice } = require("./streaming")
const { following, json, logs, page, pretending, proxying, serving, stores } = require("./sync-servers.js")

const quick = { backoff: { initial: 1, longest: 5 } }
const nothing = { aggregates: 0, events: 0, applied: 0, duplicate: 0, refused: [] }
const large = () => randomBytes(15_000).toString("base64")

/** Each log with all that is in it. */
async function wholeLogs(store) {
  const ids = [...store.sequences().keys()].toSorted()
  return Promise.all(ids.map((aggregateID) => collected(store.log({ aggregateID }))))
}

describe("push", () => {
  test("sends what the server lacks, events, gaps and removals, and nothing a second time", async () => {
    const here = stores()
    const there = stores()
    here.store.replayAll(["a", "b", "c", "d"].flatMap((noteID) => history(noteID, 5)))
    there.store.replayAll([...history("a", 2), ...history("b", 5), ...history("other", 1)])
    here.store.replayAll([{ kind: "gap", aggregateID: "a", after: 4, through: 8 }, ...history("a", 2, 9)])
    here.store.remove("c", { event: [here.Seen, { noteID: "c" }] })
    here.write("c")
    const { url } = await serving(there.store)
    const heard = []
    there.store.subscribeAll(({ aggregateID, seq }) => heard.push(aggregateID + seq))
    const told = []
    const done = await push(here.store, { url, onProgress: (progress) => told.push(progress) })
    assert.deepEqual(done, { aggregates: 3, events: 11, applied: 13, duplicate: 0, refused: [] })
    assert.deepEqual(told, [{ aggregates: 3, events: 11, applied: 13, duplicate: 0, refused: 0, total: 21 }])
    assert.deepEqual(heard.toSorted(), ["a10", "a2", "a3", "a4", "a9", "c5", "c6", "d0", "d1", "d2", "d3", "d4"])
    there.store.remove("other")
    assert.deepEqual((await wholeLogs(there.store)).slice(0, 4), await wholeLogs(here.store))
    assert.deepEqual(await push(here.store, { url }), nothing)
  })

  test("sends the wanted aggregates alone, with owner and epoch, and the token", async () => {
    const here = stores()
    const there = stores()
    for (let n = 0; n < 30; n++) here.write(`note ${n}`)
    const { url } = await serving(there.store, { authorize: { token: "secret" } })
    await assert.rejects(push(here.store, { url }), coded("ERR_UNAUTHORIZED"))
    for (const aggregates of [["note 3", "unknown"], Array.from({ length: 20 }, (_, n) => `note ${n}`)]) {
      const options = { url, token: "secret", aggregates, owner: "phone", epoch: 3 }
      const { aggregates: count } = await push(here.store, options)
      assert.equal(count, aggregates.length === 2 ? 1 : 19)
    }
    assert.equal(there.store.sequences().size, 20)
    assert.deepEqual(there.store.owner("note 3"), { owner: "phone", epoch: 3 })
  })

  test("keeps to its batches, of which each is one request", async () => {
    const here = stores()
    const there = stores()
    for (let n = 0; n < 40; n++) here.write(`note ${n % 8 === 0 ? "large" : n}`, large())
    const sizes = []
    const instead = ({ url, headers }) => {
      if (url.endsWith("/sync/replay"))
        sizes.push([headers.get("content-encoding"), Number(headers.get("content-length"))])
    }
    const { url } = await serving(there.store, { instead })
    const told = []
    await push(here.store, { url, batch: 250_000, onProgress: ({ events, total }) => told.push([events, total]) })
    const steps = told.map(([events], n) => events - (told[n - 1]?.[0] ?? 0))
    assert.ok(steps.length >= 4 && steps.every((step) => step <= 12), String(steps))
    assert.equal(told.at(-1)[0], 40)
    assert.ok(told.every(([, total]) => total === 40))
    assert.ok(sizes.every(([encoding, size]) => encoding === "zstd" && size < 200_000))
    assert.deepEqual(logs(there.store), logs(here.store))
  })

  test("mistake 6: an aggregate that is refused, or went another way, is named, and the others go on", async () => {
    const here = stores()
    const there = stores()
    for (const noteID of ["a", "diverged", "b", "owned", "c"]) here.write(noteID)
    here.store.replayAll([serialized("odd", 0, { noteID: "unknown" })], { unknown: "record" })
    here.write("last")
    there.store.replay(serialized("written", 0, { noteID: "diverged", text: "another" }))
    here.write("diverged")
    there.store.claim("owned", "somebody")
    const { url } = await serving(there.store)
    const { refused, ...counts } = await push(here.store, { url, owner: "me" })
    assert.deepEqual(counts, { aggregates: 4, events: 4, applied: 4, duplicate: 0 })
    assert.deepEqual(
      refused.map(({ aggregateID, error }) => [aggregateID, error.code, error.status]),
      [
        ["diverged", "ERR_REPLAY_DIVERGED", 409],
        ["owned", "ERR_NOT_OWNER", 409],
        ["unknown", "ERR_UNKNOWN_EVENT", 400],
      ],
    )
    assert.deepEqual([...there.store.sequences().keys()].toSorted(), ["a", "b", "c", "diverged", "last", "owned"])
    assert.equal(there.store.sequence("diverged"), 0)
    assert.equal((await push(here.store, { url, owner: "me" })).refused.length, 3)
  })

  test("what is too large for one request goes in several; what is too large by itself is refused", async () => {
    const here = stores()
    const there = stores()
    for (let n = 0; n < 12; n++) here.write("a", large())
    here.write("b", large() + large() + large() + large())
    here.write("c")
    const { url } = await serving(there.store, { maxBodyBytes: 70_000 })
    const { refused, events } = await push(here.store, { url })
    assert.equal(events, 13)
    assert.deepEqual(
      refused.map(({ aggregateID, error }) => [aggregateID, error.code]),
      [["b", "ERR_TOO_LARGE"]],
    )
    assert.deepEqual(Object.fromEntries(there.store.sequences()), { a: 11, c: 0 })
  })
})

describe("a push that is interrupted", () => {
  test("goes on where the server stands, wherever either side's bytes are cut", async () => {
    const here = stores()
    for (let n = 0; n < 60; n++) here.write(`note ${n % 4}`, large())
    for (const up of [true, false]) {
      const there = stores()
      const server = await serving(there.store)
      const roll = dice(3)
      const some = (n) => (n < 25 ? roll(up ? 200_000 : 900) : Infinity)
      const proxy = await (up ? proxying(undefined, some) : proxying(some))
      proxy.to = server.port
      for (let done; done === undefined;) {
        // Where nothing gets through on first contact, or eight times in a row, it is the caller who tries again.
        done = await push(here.store, { url: proxy.url, batch: 50_000, ...quick }).catch((error) => {
          coded("ERR_UNREACHABLE")(error)
        })
      }
      assert.deepEqual(logs(there.store), logs(here.store))
      assert.ok(proxy.connections > 8, String(proxy.connections))
    }
  })

  test("by a busy server: it waits, and sends the same again", async () => {
    const here = stores()
    const there = stores()
    here.write("a")
    let busy = 3
    const instead = ({ url }) =>
      url.endsWith("/sync/replay") && busy-- > 0
        ? Response.json({ code: "ERR_BUSY", message: "locked" }, { status: 503, headers: { "retry-after": "0" } })
        : undefined
    const { url } = await serving(there.store, { instead })
    assert.equal((await push(here.store, { url, ...quick })).applied, 1)
    busy = Infinity
    here.write("a")
    await assert.rejects(push(here.store, { url, ...quick }), coded("ERR_BUSY", /locked/))
  })

  test("by its caller, by the store's end, or by nobody who answers", async () => {
    const here = stores()
    here.write("a")
    const before = dump(here.store)
    const silent = await pretending(() => {})
    const { url } = silent
    await assert.rejects(
      push(here.store, { url, signal: AbortSignal.abort("enough") }),
      coded("ERR_ABORTED", /./, { cause: "enough" }),
    )
    await assert.rejects(push(here.store, { url, signal: AbortSignal.timeout(20) }), coded("ERR_ABORTED"))
    await assert.rejects(push(here.store, { url, connectTimeout: 20 }), coded("ERR_UNREACHABLE", /within 20 ms/))
    await silent.stop()
    await assert.rejects(push(here.store, { url }), coded("ERR_UNREACHABLE"))
    assert.deepEqual(dump(here.store), before)
    const again = await pretending(() => setImmediate(() => here.store.close()))
    await assert.rejects(push(here.store, { url: again.url }), coded("ERR_CLOSED"))
    await assert.rejects(push(here.store, { url: again.url }), coded("ERR_CLOSED"))
  })

  test("by what is no server, and by what its onProgress throws", async () => {
    const here = stores()
    const there = stores()
    here.write("a")
    const all = await pretending((_, response) => page(response))
    await assert.rejects(push(here.store, { url: all.url }), coded("ERR_PROTOCOL", /sync\/replay.*text\/html/))
    const odd = await pretending(({ path }, response) =>
      json(response, path === "/sync/replay" ? [] : { aggregates: 1 }),
    )
    await assert.rejects(push(here.store, { url: odd.url }), coded("ERR_PROTOCOL"))
    const entry = { aggregateID: "b", seq: 0, owner: null, epoch: 0 }
    const endless = await pretending((_, response) => json(response, { aggregates: [entry], next: "b" }))
    await assert.rejects(push(here.store, { url: endless.url }), coded("ERR_PROTOCOL", /nothing more to tell/))
    // A page of a proxy in the middle of the list does not make an older server of it.
    const paths = []
    const broken = await pretending(({ path, query }, response) => {
      paths.push(path)
      if (query.has("after")) page(response)
      else json(response, { aggregates: [entry], next: "b" })
    })
    await assert.rejects(push(here.store, { url: broken.url }), coded("ERR_PROTOCOL", /text\/html/))
    assert.deepEqual(paths, ["/sync/sequences", "/sync/sequences"])
    const { url } = await serving(there.store)
    const thrown = new Error("mine")
    const onProgress = () => {
      throw thrown
    }
    await assert.rejects(push(here.store, { url, onProgress }), (error) => error === thrown)
    await assert.rejects(push({}, { url }), coded("ERR_INVALID_ARGUMENT", /push needs a store/))
    for (const wrong of [
      { batch: 0 },
      { batches: 1 },
      { url: "x" },
      { owner: "", url },
      { owner: "a", epoch: 0, url },
    ]) {
      await assert.rejects(push(here.store, { url, ...wrong }), coded("ERR_INVALID_ARGUMENT"))
    }
  })
})

describe("an older server", () => {
  test("is sent everything, an aggregate a request, and takes again what it has", async () => {
    const here = stores()
    const server = await olderServer()
    here.store.replayAll([...history("a", 5), ...history("b", 3)])
    for (let round = 0; round < 2; round++) {
      const done = await push(here.store, { url: server.url })
      assert.deepEqual(done, { aggregates: 2, events: 8, applied: 0, duplicate: 0, refused: [] })
      assert.deepEqual(Object.fromEntries(server.logs), logs(here.store))
    }
    assert.equal(server.requests.filter(({ path }) => path === "/sync/replay").length, 4)
  })

  test("cannot be told of gaps and removals; what it refuses with a bare 500 is the aggregate's matter", async () => {
    const here = stores()
    const server = await olderServer()
    here.store.replayAll(["gap", "removed", "refused", "good"].flatMap((noteID) => history(noteID, 3)))
    here.store.replayAll([{ kind: "gap", aggregateID: "gap", after: 2, through: 4 }])
    here.store.remove("removed")
    server.logs.set("refused", { length: -1 })
    const { refused, aggregates } = await push(here.store, { url: server.url })
    assert.equal(aggregates, 1)
    assert.deepEqual(
      refused.map(({ aggregateID, error }) => [aggregateID, error.code]),
      [
        ["gap", "ERR_PROTOCOL"],
        ["removed", "ERR_PROTOCOL"],
        ["refused", "ERR_INTERNAL"],
      ],
    )
    assert.deepEqual([...server.logs.keys()], ["refused", "good"])
  })
})

test("what one device pushes another one that follows is given", async () => {
  const [server, writer, reader] = [stores(), stores(), stores()]
  const { url } = await serving(server.store)
  const one = following(reader.store, { url })
  await one.live()
  writer.store.replayAll(history("a", 10))
  await push(writer.store, { url })
  await reader.store.waitFor({ a: 9 })
  assert.deepEqual(logs(reader.store), logs(writer.store))
  await one.stop()
})
