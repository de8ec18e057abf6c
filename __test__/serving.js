"use strict"

// What the suites of the routes share: a store behind real HTTP, requests to it, and a client of its live events.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const http = require("node:http")
const { afterEach } = require("node:test")
const { serve } = require("@hono/node-server")
const { createParser } = require("eventsource-parser")
const { syncRoutes } = require("syncline/http")
const { assertDescribed } = require("./described")
const { notes, openNotes } = require("./stores")
const { newFile, until } = require("./streaming")

const servers = new Set()

// Registered at the root of the test file that loads this one.
afterEach(async () => {
  for (const server of servers) {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  servers.clear()
})

/** Serves an app on a free port of this machine. Answers its address. */
async function listening(app) {
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 })
  servers.add(server)
  if (!server.listening) await once(server, "listening")
  return { server, url: `http://127.0.0.1:${server.address().port}` }
}

/** A store of notes behind its routes: nothing that the server is told as its own failure is expected, unless asked for. */
async function served({ store: options, given = notes(), ...routes } = {}) {
  const store = openNotes(given, { path: newFile(), ...options })
  const errors = []
  const onError = (error, request) => errors.push({ error, request })
  const app = syncRoutes(store, { authorize: "none", onError, ...routes })
  const { server, url } = await listening(app)
  return { ...given, store, app, server, url, errors, call: calling(url) }
}

/**
 * Requests to one server: the status, the headers, the text, and the value where that is JSON. Whatever is sent and answered
 * in any suite must be as the OpenAPI document says.
 */
function calling(url) {
  return async (method, path, { body, headers = {}, type = "application/json", ...init } = {}) => {
    const isPlain = typeof body === "object" && !ArrayBuffer.isView(body) && body[Symbol.asyncIterator] === undefined
    const all = { ...(body !== undefined && type !== null && { "content-type": type }), ...headers }
    const sent = isPlain ? JSON.stringify(body) : body
    const response = await fetch(url + path, { method, headers: all, body: sent, ...init })
    const text = await response.text()
    const { status } = response
    const contentType = response.headers.get("content-type")
    const json = contentType === "application/json" && text !== "" ? JSON.parse(text) : undefined
    const described = { status, type: contentType, json }
    await assertDescribed(method, path, isPlain ? body : undefined, described)
    return { status, headers: response.headers, text, json }
  }
}

/** Items of NDJSON. */
const itemsOf = (text) =>
  text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line))

/** The same, shortened: of an event aggregate and seq, of other items kind, aggregate and seqs. */
const shortened = (items) =>
  items.map(({ kind, event, aggregateID, after, through, seq }) => {
    if (kind === "event") return `${event.aggregateID}${event.seq}`
    return `${kind} ${aggregateID} ${kind === "gap" ? `${after} ${through}` : seq}`
  })

/**
 * Follows the live events of a server: `messages` grows by itself, each as `{id, event, data}`; comments stand apart. It can be
 * held, which stops reading, and closed. `ended` resolves when the server, or an error, ends it.
 */
async function following(url, query = "", headers = {}) {
  const request = http.get(`${url}/sync-events${query}`, { headers })
  const [response] = await once(request, "response")
  const messages = []
  const comments = []
  const parser = createParser({
    onEvent: ({ id, event, data }) => messages.push({ id, event, data: JSON.parse(data) }),
    onComment: (comment) => comments.push(comment.trim()),
  })
  response.setEncoding("utf8")
  response.on("data", (text) => parser.feed(text))
  const ended = new Promise((resolve) => {
    response.on("error", resolve)
    response.on("close", () => resolve())
  })
  const told = () => messages.map(({ event, data }) => (event === undefined ? `${data.aggregateID}${data.seq}` : event))
  return {
    response,
    messages,
    comments,
    told,
    ended,
    hold: () => response.pause(),
    goOn: () => response.resume(),
    close: () => request.destroy(),
    until: (condition) => until(condition, () => JSON.stringify(messages.slice(-3))),
    synced: () => until(() => messages.some(({ event }) => event === "synced")),
  }
}

/** A history as it comes over the wire: `fetch` of a newer Node, and of Bun, decodes zstd by itself. */
async function rawHistory(url, headers) {
  const request = http.request(`${url}/sync/history`, { method: "POST", headers }).end()
  const [response] = await once(request, "response")
  const chunks = []
  for await (const chunk of response) chunks.push(chunk)
  return { status: response.statusCode, headers: response.headers, bytes: Buffer.concat(chunks) }
}

/** An answer that is an error: its status, its code and fields, and nothing that belongs to the server alone. */
function assertError({ status, json, headers }, expectedStatus, code, fields = {}) {
  assert.equal(status, expectedStatus, JSON.stringify(json))
  assert.equal(json.code, code, json.message)
  assert.equal(typeof json.message, "string")
  assert.equal(headers.get("content-type"), "application/json")
  for (const [name, value] of Object.entries(fields)) assert.deepEqual(json[name], value, name)
  for (const hidden of ["stack", "cause", "name"]) assert.equal(json[hidden], undefined)
}

module.exports = { assertError, calling, following, itemsOf, listening, rawHistory, served, shortened }
