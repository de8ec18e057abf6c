"use strict"

// The streamed answers over HTTP/2 and HTTP/1.0, which have no chunks of HTTP/1.1.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const http2 = require("node:http2")
const net = require("node:net")
const { afterEach, describe, test } = require("node:test")
const { serve } = require("@hono/node-server")
const { itemsOf, served, shortened } = require("./serving")
const { history } = require("./stores")
const { until } = require("./streaming")

const closing = []

afterEach(() => {
  while (closing.length > 0) closing.pop()()
})

/** Routes over HTTP/2 in clear text, and a session of a client. */
async function overHttp2(options) {
  const { app, ...given } = await served(options)
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0, createServer: http2.createServer })
  closing.push(() => server.close())
  if (!server.listening) await once(server, "listening")
  const session = http2.connect(`http://127.0.0.1:${server.address().port}`)
  closing.push(() => session.destroy())
  const request = async (headers) => {
    const stream = session.request(headers)
    const answer = { stream, text: "", failed: undefined }
    stream.on("error", (error) => (answer.failed = error))
    stream.setEncoding("utf8")
    stream.on("data", (text) => (answer.text += text))
    stream.end()
    const [sent] = await once(stream, "response")
    return Object.assign(answer, { status: sent[":status"], headers: sent })
  }
  return { ...given, request }
}

const HISTORY = { ":method": "POST", ":path": "/sync/history", accept: "application/x-ndjson" }

describe("over HTTP/2", () => {
  test("history is the same", async () => {
    const { store, request } = await overHttp2()
    store.replayAll(history("a", 3))
    const answer = await request(HISTORY)
    await once(answer.stream, "close")
    assert.deepEqual([answer.status, answer.failed], [200, undefined])
    assert.deepEqual(shortened(itemsOf(answer.text)), ["a0", "a1", "a2", "synced a 2"])
  })

  test("live events come as they are committed", async () => {
    const { store, request, Seen } = await overHttp2()
    const answer = await request({ ":path": "/sync-events" })
    await until(() => answer.text.includes("event: synced"))
    store.run(Seen, { noteID: "a" })
    await until(() => /^id: 1\ndata: \{.*\}\n\n$/m.test(answer.text))
    store.close()
    await once(answer.stream, "close")
    assert.equal(answer.failed, undefined)
  })

  test("what cannot be completed does not end as a whole answer does", async () => {
    const { store, request } = await overHttp2()
    store.replayAll(history("a", 20_000))
    const broken = await request(HISTORY)
    store.close()
    await assert.rejects(once(broken.stream, "close"), { code: "ERR_HTTP2_STREAM_ERROR" })
    assert.equal(broken.stream.rstCode, http2.constants.NGHTTP2_INTERNAL_ERROR)
  })
})

test("over HTTP/1.0 an answer has no chunks, and ends with the connection", async () => {
  const { store, url } = await served()
  store.replayAll(history("a", 3))
  const socket = net.connect(new URL(url).port, "127.0.0.1")
  closing.push(() => socket.destroy())
  let text = ""
  socket.setEncoding("utf8").on("data", (part) => (text += part))
  socket.write("POST /sync/history HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n")
  await once(socket, "close")
  const [head, body] = text.split("\r\n\r\n")
  assert.match(head, /^HTTP\/1\.1 200 /)
  assert.doesNotMatch(head, /transfer-encoding/i)
  assert.deepEqual(shortened(itemsOf(body)), ["a0", "a1", "a2", "synced a 2"])
})
