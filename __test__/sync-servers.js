"use strict"

// Servers for the suites of sync: a store behind the routes, something that only looks like one, and a proxy that cuts.
// None is left when its test ends.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const http = require("node:http")
const net = require("node:net")
const { afterEach } = require("node:test")
const { serve } = require("@hono/node-server")
const { follow, syncRoutes } = require("syncline/http")
const { file, notes, openNotes } = require("./stores")
const { until } = require("./streaming")

const running = new Set()
let files = 0

afterEach(async () => {
  for (const stop of [...running].toReversed()) await stop()
})

function stoppable(stop) {
  const once = async () => {
    if (running.delete(once)) await stop()
  }
  running.add(once)
  return once
}

const urlOf = (server) => `http://127.0.0.1:${server.address().port}`

/** Stops listening and breaks every connection off. */
async function shut(server) {
  const closed = once(server, "close")
  server.close()
  server.closeAllConnections()
  await closed
}

/** A store behind the routes; `instead` may answer a request in their place. */
async function serving(store, { instead = () => {}, ...options } = {}) {
  const routes = syncRoutes(store, { authorize: "none", ...options })
  const answer = (request, env) => instead(request, env) ?? routes.fetch(request, env)
  const server = serve({ fetch: answer, port: 0, hostname: "127.0.0.1" })
  await once(server, "listening")
  return { url: urlOf(server), port: server.address().port, stop: stoppable(() => shut(server)) }
}

/** Answers with what `handle(request, response, body)` says, and keeps a list of the requests. */
async function pretending(handle) {
  const requests = []
  const server = http.createServer(async (request, response) => {
    const parts = []
    for await (const part of request) parts.push(part)
    const { pathname, searchParams } = new URL(request.url, "http://localhost")
    requests.push({ method: request.method, path: pathname, query: searchParams, headers: request.headers })
    handle({ path: pathname, query: searchParams, body: Buffer.concat(parts), request }, response)
  })
  server.on("error", () => {})
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return { url: urlOf(server), requests, server, stop: stoppable(() => shut(server)) }
}

const json = (response, value, status = 200, headers = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value))
const page = (response, status = 200) =>
  response.writeHead(status, { "content-type": "text/html" }).end("<!doctype html><title>App</title>")

/** The beginning of a live stream, and of a history: what a test says beside that comes after. */
function tells(response, ...frames) {
  if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" })
  response.write([...frames, ""].join("\n\n"))
}
const SYNCED = 'event: synced\ndata: {"position":0}'
const told = (event) => `data: ${JSON.stringify(event)}`
function history(response, ...items) {
  response.writeHead(200, { "content-type": "application/x-ndjson" })
  response.end(items.map((item) => `${JSON.stringify(item)}\n`).join(""))
}

/**
 * A proxy at one address for a server that comes and goes. `down(n)` and `up(n)` say how many bytes the server and the client
 * of the `n`th connection may send before both are cut; `proxy.to` is the server's port, undefined while there is none.
 */
async function proxying(down = () => Infinity, up = () => Infinity) {
  const sockets = new Set()
  const proxy = { to: undefined, connections: 0 }
  const server = net.createServer((socket) => {
    const number = proxy.connections++
    const behind = proxy.to === undefined ? undefined : net.connect(proxy.to, "127.0.0.1")
    const cut = () => {
      socket.resetAndDestroy()
      behind?.destroy()
      sockets.delete(cut)
    }
    sockets.add(cut)
    socket.on("error", cut).on("close", cut)
    if (behind === undefined) return cut()
    behind.on("error", cut).on("close", cut)
    pass(behind, socket, down(number), cut)
    pass(socket, behind, up(number), cut)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const stop = stoppable(async () => {
    server.close()
    for (const cut of sockets) cut()
    await once(server, "close")
  })
  return Object.assign(proxy, { url: urlOf(server), stop, cut: () => [...sockets].forEach((cut) => cut()) })
}

/** Passes so many bytes on. What was written is sent before the end, as one who dies at this byte would have sent it. */
function pass(from, to, bytes, cut) {
  let left = bytes
  from.on("data", (chunk) => {
    if (left === 0) return
    const given = chunk.subarray(0, left)
    left -= given.length
    if (left > 0) to.write(given)
    else to.end(given, cut)
  })
}

/** `follow` in the background, with pauses that a test can wait for; it keeps what it tells. */
function following(store, options) {
  const controller = new AbortController()
  const statuses = []
  const errors = []
  const one = { statuses, errors, details: [], settled: undefined }
  const quick = { initial: 1, longest: 20 }
  const ended = follow(store, {
    signal: controller.signal,
    backoff: quick,
    onStatus: (status, detail) => {
      statuses.push(status)
      one.details.push({ status, ...detail })
    },
    onError: (error, about) => errors.push({ error, ...about }),
    ...options,
  })
  ended.then(
    () => (one.settled = { resolved: true }),
    (error) => (one.settled = { error }),
  )
  const stop = stoppable(async () => {
    controller.abort()
    await ended.catch(() => {})
  })
  const reached = (status, from = 0) =>
    until(
      () => {
        if (one.settled?.error) throw one.settled.error
        return statuses.includes(status, from)
      },
      () => statuses.join(" "),
    )
  return Object.assign(one, { ended, stop, reached, live: (from) => reached("live", from) })
}

/** Waits until one store holds what the other one does. */
async function untilEqual(store, source) {
  const all = (one) => one.aggregates().map(({ aggregateID, seq }) => [aggregateID, seq])
  await until(
    () => JSON.stringify(all(store)) === JSON.stringify(all(source)),
    () => JSON.stringify(all(store)),
  )
  assert.deepEqual(logs(store), logs(source))
}

/** A store of notes, in a file and with definitions of its own. */
function stores(options = {}) {
  const given = notes()
  const store = openNotes(given, { path: file(`${files++}.db`), ...options })
  return { ...given, store, write: (noteID, text = noteID) => store.run(given.Written, { noteID, text }) }
}

/** What a log says of each aggregate, whatever the file looks like. */
function logs(store) {
  return Object.fromEntries(store.aggregates().map(({ aggregateID }) => [aggregateID, store.read(aggregateID)]))
}

module.exports = {
  SYNCED,
  following,
  history,
  json,
  logs,
  page,
  pretending,
  proxying,
  serving,
  stoppable,
  stores,
  tells,
  told,
  until,
  untilEqual,
}
