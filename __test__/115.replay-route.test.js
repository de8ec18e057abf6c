"use strict"

// POST /sync/replay, and what holds for every body: how it may be written and compressed, and how large it may be.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const net = require("node:net")
const { describe, test } = require("node:test")
const { SyncError } = require("syncline")
const { promisify } = require("node:util")
const zlib = require("node:zlib")
const { assertError, rawHistory, served } = require("./serving")
const { history, serialized } = require("./stores")

const gzip = promisify(zlib.gzip)

describe("POST /sync/replay", () => {
  test("applies events of several aggregates and tells what became of each", async () => {
    const { call, store } = await served()
    const events = [...history("a", 3), ...history("b", 2)]
    const first = await call("POST", "/sync/replay", { body: { directory: "/home/me", events } })
    const b = { aggregateID: "b", applied: 2, duplicate: 0, seq: 1 }
    const a = { aggregateID: "a", applied: 3, duplicate: 0, seq: 2 }
    assert.deepEqual([first.status, first.json], [200, { sessionID: "a", ...a, results: [a, b] }])
    const again = await call("POST", "/sync/replay", { body: { events: events.slice(2) } })
    assert.deepEqual(again.json.results, [
      { aggregateID: "a", applied: 0, duplicate: 1, seq: 2 },
      { aggregateID: "b", applied: 0, duplicate: 2, seq: 1 },
    ])
    assert.deepEqual(
      store.read("a").map(({ data }) => data.text),
      ["text 0", undefined, "text 2"],
    )
  })

  test("takes NDJSON, log items and events alike, compressed or not, with owner and epoch", async () => {
    const { call, store, url } = await served()
    const items = [
      ...history("a", 2).map((event) => ({ kind: "event", event })),
      { kind: "gap", aggregateID: "a", after: 1, through: 4 },
      { kind: "removed", aggregateID: "b", seq: 3 },
      { kind: "synced", aggregateID: "b", seq: 3 },
      ...history("c", 1),
    ]
    const text = items.map((item) => `${JSON.stringify(item)}\n`).join("")
    const type = "application/x-ndjson"
    const plain = await call("POST", "/sync/replay?owner=me&epoch=2", { body: text, type })
    assert.deepEqual(
      plain.json?.results.map(({ aggregateID, seq }) => [aggregateID, seq]),
      [
        ["a", 4],
        ["b", 3],
        ["c", 0],
      ],
    )
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 2 })
    const compressed = await call("POST", "/sync/replay", {
      body: await gzip(text),
      type: `${type}; charset=UTF-8`,
      headers: { "content-encoding": "GZIP" },
    })
    assert.equal(compressed.status, 200, compressed.text)
    // What this server compresses another one reads.
    const other = await served()
    const headers = { accept: type, "accept-encoding": "zstd" }
    const answer = await rawHistory(url, headers)
    assert.equal(answer.headers["content-encoding"], "zstd")
    const copied = await other.call("POST", "/sync/replay", {
      body: answer.bytes,
      type,
      headers: { "content-encoding": "zstd" },
    })
    assert.equal(copied.status, 200, copied.text)
    assert.deepEqual(other.store.sequences(), store.sequences())
  })

  test("is heard by the server's listeners and followers", async () => {
    const { call, store, Written } = await served()
    const heard = []
    store.subscribe(Written, ({ aggregateID, seq }) => heard.push([aggregateID, seq]))
    await call("POST", "/sync/replay", { body: { events: history("a", 1) } })
    assert.deepEqual(heard, [["a", 0]])
  })

  test("is one transaction", async () => {
    const { call, store } = await served()
    const events = [...history("a", 5), serialized("written", 7, { noteID: "a", text: "too far" })]
    const answer = await call("POST", "/sync/replay", { body: { events } })
    assertError(answer, 409, "ERR_SEQUENCE_MISMATCH", { aggregateID: "a", expected: 5, got: 7, index: 5 })
    assert.equal(store.sequence("a"), -1)
  })

  const [event] = history("a", 1)
  const bodies = [
    ["an empty list", { events: [] }, 400, "ERR_INVALID_EVENT", { field: "events" }],
    ["no list", {}, 400, "ERR_INVALID_EVENT", { field: "events" }],
    ["a list by itself", [event], 400, "ERR_INVALID_ARGUMENT"],
    ["an object of events", { events: { 0: event } }, 400, "ERR_INVALID_EVENT", { field: "events" }],
    ["text", '"text"', 400, "ERR_INVALID_ARGUMENT"],
    ["no JSON", "{", 400, "ERR_INVALID_ARGUMENT"],
    ["nothing at all", "", 400, "ERR_INVALID_ARGUMENT"],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0x22]), 400, "ERR_INVALID_ARGUMENT"],
    [
      "an event that is none",
      { events: [event, { ...event, seq: -1 }] },
      400,
      "ERR_INVALID_EVENT",
      { index: 1, field: "seq" },
    ],
    ["null for an event", { events: [null] }, 400, "ERR_INVALID_EVENT", { index: 0 }],
    [
      "an unknown type",
      { events: [{ ...event, type: "note.burnt.1" }] },
      400,
      "ERR_UNKNOWN_EVENT",
      { type: "note.burnt.1" },
    ],
    ["another aggregate", { events: [{ ...event, aggregateID: "b" }] }, 400, "ERR_AGGREGATE_MISMATCH"],
    ["wrong data", { events: [{ ...event, data: { noteID: "a", text: 1 } }] }, 400, "ERR_INVALID_DATA"],
    ["a large id", { events: [{ ...event, aggregateID: "a".repeat(8_193) }] }, 413, "ERR_TOO_LARGE"],
    ["a wrong owner", { events: [event], owner: 1 }, 400, "ERR_INVALID_ARGUMENT"],
    ["an empty owner", { events: [event], owner: "" }, 400, "ERR_INVALID_ARGUMENT"],
    ["a wrong epoch", { events: [event], epoch: "1" }, 400, "ERR_INVALID_ARGUMENT"],
    [
      "another owner",
      { events: [event], epoch: 1, owner: "other" },
      409,
      "ERR_NOT_OWNER",
      { expected: "me", got: "other", epoch: 1 },
    ],
    [
      "another event",
      { events: [{ ...event, id: "evt_other" }] },
      409,
      "ERR_REPLAY_DIVERGED",
      { aggregateID: "a", seq: 0 },
    ],
  ]

  test("names what is wrong, and changes nothing", async () => {
    const { call, store } = await served()
    store.replayAll(history("a", 1), { owner: "me" })
    store.claim("a", "me")
    for (const [name, body, status, code, fields] of bodies) {
      const answer = await call("POST", "/sync/replay", { body })
      assert.equal(answer.status, status, `${name}: ${answer.text}`)
      assertError(answer, status, code, fields)
    }
    const issue = await call("POST", "/sync/replay", { body: bodies.find(([name]) => name === "wrong data")[1] })
    assert.deepEqual(
      issue.json.issues.map(({ path }) => path),
      [["text"]],
    )
    const lines = { type: "application/x-ndjson" }
    assertError(await call("POST", "/sync/replay", { ...lines, body: "" }), 400, "ERR_INVALID_EVENT")
    assertError(await call("POST", "/sync/replay", { ...lines, body: "no json\n" }), 400, "ERR_INVALID_EVENT")
    assertError(await call("POST", "/sync/replay?epoch=x", { ...lines, body: "{}" }), 400, "ERR_INVALID_ARGUMENT")
    assertError(await call("POST", "/sync/replay", { ...lines, body: "\n\n" }), 400, "ERR_INVALID_EVENT")
    assert.deepEqual([...store.sequences()], [["a", 0]])
  })
})

/** A frame of zstd that decompresses to so many blocks of 128 KiB, each of one byte: four bytes a block. */
function zstdBomb(blocks) {
  const block = (last) => [
    (last | (1 << 1) | (131_072 << 3)) & 0xff,
    ((131_072 << 3) >> 8) & 0xff,
    (131_072 << 3) >> 16,
    0x20,
  ]
  const body = Array.from({ length: blocks }, (_, n) => block(n === blocks - 1 ? 1 : 0)).flat()
  return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50, ...body])
}

/** A request in chunks, without a length. */
async function* chunks(text, size) {
  for (let at = 0; at < text.length; at += size) yield Buffer.from(text.slice(at, at + size))
}

describe("a body", () => {
  const events = history("a", 3)
  const body = JSON.stringify({ events })
  const limit = Buffer.byteLength(body)
  const tooLarge = (answer, size) => {
    assertError(answer, 413, "ERR_TOO_LARGE", { limit })
    if (size !== undefined) assert.equal(answer.json.size, size)
  }

  test("may have as many bytes as it may, and not one more, with a length or without", async () => {
    const { call, store } = await served({ maxBodyBytes: limit })
    const streamed = (text) => ({ body: chunks(text, 50), duplex: "half" })
    tooLarge(await call("POST", "/sync/replay", { body: `${body} ` }), limit + 1)
    tooLarge(await call("POST", "/sync/replay", streamed(`${body} `)))
    assert.equal(store.sequence("a"), -1)
    assert.equal((await call("POST", "/sync/replay", { body })).status, 200)
    const again = await call("POST", "/sync/replay", streamed(body))
    assert.deepEqual([again.status, again.json?.duplicate], [200, 3])
    for (const path of ["/sync/history", "/sync/claim", "/sync/steal"])
      tooLarge(await call("POST", path, { body: `${body} ` }))
  })

  test("is bounded as it becomes, too", async () => {
    const { call, store } = await served({ maxBodyBytes: limit })
    const headers = (encoding) => ({ "content-encoding": encoding })
    assert.equal((await call("POST", "/sync/replay", { body: await gzip(body), headers: headers("gzip") })).status, 200)
    const padded = await gzip(body + " ".repeat(limit))
    assert.ok(padded.length < limit)
    tooLarge(await call("POST", "/sync/replay", { body: padded, headers: headers("gzip") }))
    const gzipped = await gzip(Buffer.alloc(1_000_000_000 / 16))
    const bomb = zstdBomb(8)
    for (const path of ["/sync/replay", "/sync/history", "/sync/claim"]) {
      tooLarge(await call("POST", path, { body: bomb, headers: headers("zstd") }))
    }
    const large = await served({ maxBodyBytes: 1_000_000 })
    assertError(
      await large.call("POST", "/sync/history", { body: gzipped, headers: headers("gzip") }),
      413,
      "ERR_TOO_LARGE",
    )
    const { heapUsed, external } = process.memoryUsage()
    const answer = await large.call("POST", "/sync/history", { body: zstdBomb(30_000), headers: headers("zstd") })
    assertError(answer, 413, "ERR_TOO_LARGE", { limit: 1_000_000 })
    const after = process.memoryUsage()
    assert.ok(after.heapUsed + after.external - heapUsed - external < 64 * 2 ** 20, "not what 4 GB would take")
    assert.equal(store.sequence("a"), 2)
  })

  test("is refused by its length alone, before any of it comes", async () => {
    const { server } = await served({ maxBodyBytes: 1_000 })
    const socket = net.connect(server.address().port, "127.0.0.1")
    const head =
      "POST /sync/replay HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n"
    socket.write(head)
    const [answer] = await once(socket, "data")
    assert.match(String(answer), /^HTTP\/1\.1 413 /)
    socket.destroy()
  })

  test("that is damaged, cut, or compressed in another way is refused", async () => {
    const { call, store } = await served()
    const compressed = await gzip(body)
    const encoded = (encoding, bytes) =>
      call("POST", "/sync/replay", { body: bytes, headers: { "content-encoding": encoding } })
    const damaged = Buffer.from(compressed)
    damaged[15] ^= 0xff
    for (const [encoding, bytes] of [
      ["gzip", Buffer.from(body)],
      ["zstd", Buffer.from(body)],
      ["gzip", damaged],
      ["gzip", compressed.subarray(0, -9)],
      ["zstd", zstdBomb(1).subarray(0, -1)],
      ["zstd", compressed],
    ]) {
      assertError(await encoded(encoding, bytes), 400, "ERR_INVALID_ARGUMENT")
    }
    for (const encoding of ["br", "deflate", "gzip, gzip", "x"]) {
      const answer = await encoded(encoding, Buffer.from(body))
      assertError(answer, 415, "ERR_UNSUPPORTED_MEDIA_TYPE", { got: encoding })
    }
    assert.equal((await encoded("identity", Buffer.from(body))).status, 200)
    assert.equal(store.sequence("a"), 2)
  })

  test("says what it is: nothing is taken for JSON that a page of another origin could send unasked", async () => {
    const { call, store } = await served()
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""]) {
      for (const path of ["/sync/replay", "/sync/claim", "/sync/steal", "/sync/history"]) {
        const answer = await call("POST", path, { body: Buffer.from(body), type: type === "" ? null : type })
        assertError(answer, 415, "ERR_UNSUPPORTED_MEDIA_TYPE")
      }
    }
    assertError(
      await call("POST", "/sync/claim", { body, type: "application/x-ndjson" }),
      415,
      "ERR_UNSUPPORTED_MEDIA_TYPE",
    )
    const latin = await call("POST", "/sync/replay", { body, type: "application/json; charset=latin1" })
    assertError(latin, 415, "ERR_UNSUPPORTED_MEDIA_TYPE", { got: "latin1" })
    assert.equal(store.sequence("a"), -1)
    assert.equal((await call("POST", "/sync/replay", { body, type: 'Application/JSON;charset="UTF-8"' })).status, 200)
  })

  test("whose sender leaves is nobody's failure, and changes nothing", async () => {
    const { server, store, call, errors } = await served()
    const socket = net.connect(server.address().port, "127.0.0.1")
    socket.write(
      "POST /sync/replay HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
    )
    socket.write(body.slice(0, 100))
    await once(server, "request")
    socket.destroy()
    await call("GET", "/sync/sequences")
    assert.deepEqual([errors, store.sequence("a")], [[], -1])
  })
})

/** A server whose projector of tags throws such a value. */
async function throwing(thrown) {
  const server = await served()
  server.store.db.exec("CREATE TRIGGER t AFTER INSERT ON tag BEGIN SELECT refuse(); END")
  server.store.db.function("refuse", () => {
    throw thrown
  })
  return server
}

describe("a server that cannot", () => {
  const replay = (call) => call("POST", "/sync/replay", { body: { events: history("a", 2) } })
  const again = (answer) => assert.match(answer.headers.get("retry-after"), /^[1-9]\d*$/)

  test("now, since others write: 503", async () => {
    const { call, store, errors } = await served({ store: { busyTimeout: 40 } })
    const other = store.connect()
    other.exec("BEGIN IMMEDIATE")
    const bodies = [
      ["/sync/replay", { events: history("a", 2) }],
      ["/sync/claim", { aggregateID: "a", owner: "me" }],
      ["/sync/steal", { aggregateID: "a", owner: "me" }],
    ]
    for (const [path, body] of bodies) {
      const answer = await call("POST", path, { body })
      assertError(answer, 503, "ERR_BUSY")
      assert.ok(answer.json.waited >= 40)
      again(answer)
    }
    assert.equal((await call("GET", "/sync/sequences")).status, 200)
    other.exec("COMMIT")
    other.close()
    assert.equal((await replay(call)).status, 200)
    assert.deepEqual(errors, [])
  })

  test("since its store is closed: 503", async () => {
    const { call, store, errors } = await served()
    store.close()
    for (const [method, path, body] of [
      ["GET", "/sync-events"],
      ["POST", "/sync/history"],
      ["POST", "/sync/replay", { events: history("a", 2) }],
      ["GET", "/sync/sequences"],
      ["POST", "/sync/claim", { aggregateID: "a", owner: "me" }],
      ["POST", "/sync/steal", { aggregateID: "a", owner: "me" }],
    ]) {
      const answer = await call(method, path, { body })
      assertError(answer, 503, "ERR_CLOSED")
      again(answer)
    }
    assert.deepEqual(errors, [])
  })

  test("since its disk is full: 503, and whoever runs it hears of it", async () => {
    const { call, store, errors } = await served()
    store.db.pragma(`max_page_count = ${store.db.pragma("page_count", { simple: true })}`)
    const events = [serialized("seen", 0, { noteID: "a", text: "x".repeat(100_000) })]
    const answer = await call("POST", "/sync/replay", { body: { events } })
    assertError(answer, 503, "ERR_DISK_FULL")
    again(answer)
    assert.equal(errors[0].error.code, "ERR_DISK_FULL")
  })

  test("since it may only read: 403", async () => {
    const writer = await served()
    const { call } = await served({ given: writer, store: { path: writer.store.db.name, readonly: true } })
    assertError(await replay(call), 403, "ERR_READONLY")
    assertError(await call("POST", "/sync/claim", { body: { aggregateID: "a", owner: "me" } }), 403, "ERR_READONLY")
    assert.equal((await call("POST", "/sync/history")).status, 200)
  })

  test("since a projector met an error of the library's elsewhere: 500, and not what that would mean of the request", async () => {
    for (const code of ["ERR_UNAUTHORIZED", "ERR_NOT_FOUND", "ERR_CONFLICT"]) {
      const thrown = new SyncError(code, "of another store", { expected: 1 })
      const { call, store, errors } = await throwing(thrown)
      const answer = await replay(call)
      assertError(answer, 500, "ERR_INTERNAL")
      assert.doesNotMatch(answer.text, /another store/)
      assert.equal(errors[0].error.cause, thrown)
      assert.equal(store.sequences().size, 0)
    }
  })

  test("since its program fails: 500, without a word of what was thrown", async () => {
    const thrown = Object.assign(new Error("the password is 1234"), { code: "ERR_BUSY" })
    const { call, store, errors } = await throwing(thrown)
    const answer = await replay(call)
    assertError(answer, 500, "ERR_INTERNAL")
    assert.doesNotMatch(answer.text, /1234/)
    assert.equal(errors[0].error, thrown)
    assert.equal(new URL(errors[0].request.url).pathname, "/sync/replay")
    assert.equal(store.sequence("a"), -1)
  })

  test("warns the process where nobody else hears of failures, or whoever hears fails, too", async () => {
    const warnings = []
    const warned = (warning) => warnings.push(warning)
    process.on("warning", warned)
    const authorize = () => {
      throw new Error("first")
    }
    const onError = () => {
      throw new Error("second")
    }
    const onErrorLater = async () => {
      throw new Error("third")
    }
    for (const options of [{ onError: undefined }, { onError }, { onError: onErrorLater }]) {
      const { call } = await served({ authorize, ...options })
      assertError(await call("GET", "/sync/sequences"), 500, "ERR_INTERNAL")
    }
    await new Promise(setImmediate)
    process.off("warning", warned)
    assert.deepEqual(
      new Set(warnings.map(({ name, code }) => `${name} ${code}`)),
      new Set(["SynclineWarning REQUEST_FAILED"]),
    )
    const said = warnings.map(({ message }) => /Error: (\w+)/.exec(message)[1])
    assert.deepEqual(said, ["first", "second", "third"])
  })
})
