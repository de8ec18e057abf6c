"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { follow } = require("syncline/http")
const { openNotes } = require("./notes")
const { olderServer } = require("./older-server")
const { coded, file, serialized } = require("./stores.js")
const { following, json, page, pretending, until } = require("./sync-servers.js")

let files = 0
const stores = (options) => openNotes(file(`${files++}.db`), options)
const event = (noteID, seq) => serialized("written", seq, { noteID, text: `text ${seq} of "${noteID}", [{}]\\` })
const events = (noteID, count) => Array.from({ length: count }, (_, seq) => event(noteID, seq))

/** The same log, event by event. */
function assertFollowed(store, server, noteIDs = [...server.logs.keys()]) {
  assert.deepEqual([...store.sequences().keys()].toSorted(), noteIDs.toSorted())
  for (const noteID of noteIDs) assert.deepEqual(store.read(noteID), server.logs.get(noteID))
}

describe("an older server", () => {
  test("is caught up with, whose array comes in any order of aggregates, and followed live", async () => {
    const server = await olderServer()
    for (const noteID of ["a", "b", "größer"]) for (const one of events(noteID, 40)) server.append(one)
    const reader = stores()
    reader.store.replayAll(events("b", 7))
    const one = following(reader.store, { url: server.url })
    await one.live()
    assertFollowed(reader.store, server)
    server.tell({ payload: { type: "server.heartbeat" } })
    server.tell("nothing known")
    server.append(event("a", 40))
    server.append(event("new", 0))
    await until(() => reader.store.sequence("a") === 40 && reader.store.sequence("new") === 0)
    assertFollowed(reader.store, server)
    assert.deepEqual(one.errors, [])
    assert.deepEqual(one.statuses, ["connecting", "catching-up", "live"])
    assert.deepEqual(
      server.requests.map(({ method, path }) => `${method} ${path}`),
      ["GET /sync-events", "GET /global/event", "POST /sync/history"],
    )
    await one.stop()
    reader.store.close()
  })

  test("sends everything newer, of which the wanted aggregates are kept", async () => {
    const server = await olderServer()
    for (const noteID of ["a", "b"]) for (const one of events(noteID, 3)) server.append(one)
    const reader = stores()
    const one = following(reader.store, { url: server.url, aggregates: ["a", "c"] })
    await one.live()
    server.append(event("b", 3))
    server.append(event("a", 3))
    server.append(event("c", 0))
    await until(() => reader.store.sequence("c") === 0)
    assertFollowed(reader.store, server, ["a", "c"])
    await one.stop()
    reader.store.close()
  })

  test("is come back to: it tells nothing of what was missed, its history does", async () => {
    const server = await olderServer()
    const reader = stores()
    const one = following(reader.store, { url: server.url })
    await one.live()
    for (let round = 0; round < 3; round++) {
      const before = one.statuses.length
      server.server.closeAllConnections()
      await until(() => server.listeners.size === 0)
      server.append(event("a", round))
      await one.live(before)
      assert.equal(reader.store.sequence("a"), round)
    }
    assert.deepEqual(one.errors, [])
    await one.stop()
    reader.store.close()
  })

  test("closes a gap from its history, with all that is held listed", async () => {
    const server = await olderServer()
    for (const one of [...events("a", 2), ...events("b", 2)]) server.append(one)
    const reader = stores()
    const one = following(reader.store, { url: server.url })
    await one.live()
    const silent = [...server.listeners]
    server.listeners.clear()
    server.append(event("a", 2))
    for (const response of silent) server.listeners.add(response)
    server.append(event("a", 3))
    await until(() => reader.store.sequence("a") === 3)
    assertFollowed(reader.store, server)
    assert.equal(server.requests.filter(({ path }) => path === "/sync/history").length, 2)
    assert.deepEqual(one.errors, [])
    await one.stop()
    reader.store.close()
  })

  test("that answers with more than one chunk is read element by element, and what came whole is kept", async () => {
    const rows = Array.from({ length: 3_000 }, (_, n) => event(`note ${n % 3}`, Math.floor(n / 3)))
    const text = `[\n${rows.map(({ aggregateID, ...row }) => JSON.stringify({ ...row, aggregate_id: aggregateID }, null, 1)).join(" ,\n")} ]\n`
    for (const cut of [text.length, text.length - 4, 200_000]) {
      const bytes = Buffer.from(text.slice(0, cut))
      let asked = 0
      const { url } = await pretending(({ path }, response) => {
        if (path === "/global/event")
          return void response.writeHead(200, { "content-type": "text/event-stream" }).write("\n")
        if (path !== "/sync/history") return page(response)
        response.writeHead(200, { "content-type": "application/json" })
        if (asked++ > 0) return void response.write("[")
        for (let at = 0; at < bytes.length; at += 9_973) response.write(bytes.subarray(at, at + 9_973))
        response.end()
      })
      const reader = stores()
      const one = following(reader.store, { url })
      await one.reached(cut === text.length ? "live" : "waiting")
      if (cut === text.length) assert.equal(reader.store.stats().events, 3_000)
      else {
        coded("ERR_UNREACHABLE", /within its array/)(one.details.at(-1).error)
        const held = reader.store.stats().events
        assert.ok(held > 1_000 && held < 3_000, String(held))
      }
      await one.stop()
      reader.store.close()
    }
  })

  test("is none that answers everything with a page, or its history with something else than events", async () => {
    const reader = stores()
    const all = await pretending((_, response) => page(response))
    await assert.rejects(follow(reader.store, { url: all.url }), coded("ERR_PROTOCOL", /text\/html/))
    for (const [answer, pattern] of [
      [{ events: [] }, /no array/],
      ["text", /no array/],
      [[1], /no aggregate_id/],
      [[{ aggregate_id: 1 }], /no aggregate_id/],
    ]) {
      const { url } = await pretending(({ path }, response) => {
        if (path === "/global/event")
          return void response.writeHead(200, { "content-type": "text/event-stream" }).write("\n")
        if (path === "/sync/history") json(response, answer)
        else page(response)
      })
      await assert.rejects(follow(reader.store, { url }), coded("ERR_PROTOCOL", pattern))
    }
    reader.store.close()
  })
})
