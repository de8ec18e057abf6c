"use strict"

// How the answer to POST /sync/history travels: compressed, made as it is read, broken off, and past what is damaged.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const http = require("node:http")
const { describe, test } = require("node:test")
const zlib = require("node:zlib")
const fzstd = require("fzstd")
const { itemsOf, rawHistory, served, shortened } = require("./serving")
const { history, openNotes } = require("./stores")
const { counted } = require("./streaming")

const NDJSON = "application/x-ndjson"

describe("the answer", () => {
  /** As it was sent. */
  const DECODE = {
    zstd: (bytes) => Buffer.from(fzstd.decompress(bytes)),
    gzip: zlib.gunzipSync,
    undefined: (bytes) => bytes,
  }

  test("is compressed as the client likes, zstd where it does not mind", async () => {
    const { url, store } = await served()
    store.replayAll(history("a", 500))
    const plain = (await rawHistory(url, { accept: NDJSON })).bytes
    for (const [accepted, expected] of [
      [undefined, undefined],
      ["", undefined],
      ["identity", undefined],
      ["br, deflate", undefined],
      ["gzip", "gzip"],
      ["zstd", "zstd"],
      ["gzip, deflate, br, zstd", "zstd"],
      ["gzip;q=1.0, zstd;q=0.5", "gzip"],
      ["gzip;q=0, zstd;q=0", undefined],
      ["zstd;q=0, gzip;q=0.1", "gzip"],
      ["identity;q=1, gzip;q=0.5", undefined],
      ["*", "gzip"],
      ["*;q=0", undefined],
      ["GZIP", "gzip"],
    ]) {
      const { headers, bytes } = await rawHistory(url, {
        accept: NDJSON,
        ...(accepted !== undefined && { "accept-encoding": accepted }),
      })
      assert.equal(headers["content-encoding"], expected, accepted)
      assert.deepEqual(DECODE[expected](bytes), plain, accepted)
      if (expected !== undefined) assert.ok(bytes.length < plain.length / 4)
      assert.match(headers.vary, /accept-encoding/i)
    }
    const array = await rawHistory(url, { "accept-encoding": "zstd" })
    assert.equal(JSON.parse(DECODE.zstd(array.bytes)).length, 500)
  })

  test("is NDJSON for who asks for that, and an array for all others", async () => {
    const { url } = await served()
    for (const [accept, expected] of [
      [NDJSON, NDJSON],
      ["Application/X-NDJSON;q=0.5", NDJSON],
      [`${NDJSON}, application/json`, NDJSON],
      [`application/json, ${NDJSON};q=0.5`, "application/json"],
      [`${NDJSON};q=0`, "application/json"],
      ["*/*", "application/json"],
      ["text/html", "application/json"],
      [undefined, "application/json"],
    ]) {
      const { headers } = await rawHistory(url, accept === undefined ? {} : { accept })
      assert.equal(headers["content-type"], expected, accept)
    }
  })

  /** 40 MB: as much as no socket takes at once. */
  async function large() {
    const server = await served()
    const { store, Seen } = server
    const text = "x".repeat(100_000)
    for (const n of counted(20)) store.runAll(counted(20).map((m) => [Seen, { noteID: `note ${n}`, text: text + m }]))
    return server
  }

  /** An answer that nobody reads. */
  async function unread(url) {
    const request = http.request(`${url}/sync/history`, { method: "POST", headers: { accept: NDJSON } }).end()
    const [response] = await once(request, "response")
    await once(response, "readable")
    return { request, response }
  }

  test("is made as it is read: a client that does not, or leaves, costs nothing more", async () => {
    const { url, call, server, errors } = await large()
    const connected = once(server, "connection")
    const { request } = await unread(url)
    const [socket] = await connected
    // Nothing more is written once the buffers on the way are full.
    for (let same = 0, last = 0; same < 20; same = socket.bytesWritten === last ? same + 1 : 0) {
      last = socket.bytesWritten
      await call("GET", "/sync/sequences")
    }
    assert.ok(socket.bytesWritten < 20 * 2 ** 20, `${socket.bytesWritten} bytes`)
    const closed = new Promise((resolve) => void socket.once("close", resolve))
    request.destroy()
    await closed
    assert.deepEqual(errors, [])
  })

  test("breaks off where it cannot be completed: nobody takes it for whole", async () => {
    for (const accept of [NDJSON, "application/json"]) {
      const { url, store, errors } = await large()
      const request = http.request(`${url}/sync/history`, { method: "POST", headers: { accept } }).end()
      const [response] = await once(request, "response")
      await once(response, "readable")
      store.close()
      const failed = once(response, "error")
      response.resume()
      assert.equal((await failed)[0].code, "ECONNRESET")
      assert.equal(response.complete, false)
      assert.deepEqual(errors, [])
    }
  })

  test("mistake 7: says of what is damaged that it cannot be read, and goes on with the others", async () => {
    for (const encoding of ["identity", "gzip", "zstd"]) {
      const { url, store, errors } = await served()
      store.replayAll([...history("a", 3), ...history("b", 3), ...history("c", 1)])
      store.db.exec("DELETE FROM event WHERE seq = 1 AND aggregate = 2")
      const { status, headers, bytes } = await rawHistory(url, { accept: NDJSON, "accept-encoding": encoding })
      assert.equal(status, 200)
      const items = itemsOf(DECODE[headers["content-encoding"]](bytes).toString())
      const unreadable = items.find(({ kind }) => kind === "unreadable")
      assert.deepEqual([unreadable.aggregateID, unreadable.code], ["b", "ERR_CORRUPT"])
      assert.match(unreadable.message, /"b" has lost the events after seq 0 and before 2/)
      const others = items.filter((item) => item !== unreadable && (item.aggregateID ?? item.event.aggregateID) !== "b")
      assert.deepEqual(shortened(others), ["a0", "a1", "a2", "synced a 2", "c0", "synced c 0"])
      assert.ok(!items.some(({ kind, aggregateID }) => kind === "synced" && aggregateID === "b"))
      const array = await rawHistory(url, {})
      assert.equal(array.headers["sync-incomplete"], '["b"]')
      assert.deepEqual(
        JSON.parse(array.bytes).map(({ aggregate_id: id, seq }) => `${id}${seq}`),
        ["a0", "a1", "a2", "c0"],
      )
      assert.deepEqual(
        errors.map(({ error }) => error.code),
        ["ERR_CORRUPT", "ERR_CORRUPT"],
      )
    }
  })

  test("leaves room for everybody else while it is made", async () => {
    const { url, call } = await large()
    const { response } = await unread(url)
    const order = []
    const whole = (async () => {
      for await (const _ of response);
      order.push("history")
    })()
    const asked = call("GET", "/sync/sequences").then(() => order.push("sequences"))
    await Promise.all([whole, asked])
    assert.deepEqual(order, ["sequences", "history"])
  })

  test("waits for a transaction that is open on the store's connection, and does not tie it to what is read", async () => {
    const { store, call, ...given } = await served()
    store.run(given.Seen, { noteID: "a" })
    const other = openNotes(given, { path: store.db.name })
    store.db.exec("CREATE TABLE mine (value)")
    store.db.exec("BEGIN")
    let answered = 0
    const asked = [
      call("POST", "/sync/history", { headers: { accept: NDJSON } }),
      call("POST", "/sync/history"),
      call("GET", "/sync/sequences"),
    ].map(async (answer) => {
      const { text } = await answer
      answered++
      return text
    })
    // One that does not touch the log is answered after them.
    for (let turns = 0; turns < 5; turns++) await call("GET", "/sync/openapi.json")
    other.run(given.Seen, { noteID: "b" })
    store.db.exec("INSERT INTO mine VALUES (1)")
    assert.equal(answered, 0)
    store.db.exec("COMMIT")
    for (const text of await Promise.all(asked)) assert.match(text, /"b"/)
  })
})
