"use strict"

// The OpenAPI document: valid, complete, and true. That every request and answer of the suites is as it says is checked
// wherever they are made (./serving).

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { errorCodes } = require("syncline")
const { assertDescribed, description } = require("./described")
const { following, itemsOf, served } = require("./serving")
const { history } = require("./stores")

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]

/** What stands anywhere in a value, with the path to it. */
function* everything(value, path = "") {
  yield [path, value]
  if (typeof value !== "object" || value === null) return
  for (const [name, inner] of Object.entries(value)) yield* everything(inner, `${path}/${name}`)
}

describe("the OpenAPI document", () => {
  test("is valid", async () => {
    const { Validator } = await import("@seriousme/openapi-schema-validator")
    const { document } = await description()
    const { valid, errors } = await new Validator().validate(structuredClone(document))
    assert.ok(valid, JSON.stringify(errors))
    assert.equal(document.openapi, "3.1.0")
  })

  test("has the paths and methods that the app has, and no others", async () => {
    const { app, call } = await served()
    const { document } = await description()
    const routes = new Set(app.routes.map(({ path }) => path))
    assert.deepEqual(Object.keys(document.paths).toSorted(), [...routes].toSorted())
    for (const path of routes) {
      for (const method of METHODS) {
        const status = path === "/sync-events" && method === "GET" ? 200 : (await call(method, path)).status
        const isDescribed = method.toLowerCase() in document.paths[path]
        assert.equal(status !== 405, isDescribed, `${method} ${path} answers ${status}`)
      }
    }
  })

  test("names for each status the codes that come with it, each code under one status", async () => {
    const { document } = await description()
    const named = Object.entries(document.components.schemas)
      .filter(([name]) => /^Error\d+$/.test(name))
      .flatMap(([, schema]) => schema.properties.code.enum)
    // Those that only a client meets are not answered by anybody.
    const ofClients = ["ERR_PROTOCOL", "ERR_UNREACHABLE"]
    assert.deepEqual([...named, ...ofClients].toSorted(), Object.keys(errorCodes).toSorted())
  })

  test("says of everything what it is, and refers to nothing that is not there", async () => {
    const { document } = await description()
    const used = new Set()
    for (const [path, value] of everything(document)) {
      if (path.endsWith("/$ref")) {
        used.add(value)
        const target = value
          .slice(2)
          .split("/")
          .reduce((at, name) => at?.[name], document)
        assert.notEqual(target, undefined, `${path} refers to ${value}`)
      }
      if (/\/(parameters\/\d+|responses\/\d+|(get|post))$/.test(path) && value.$ref === undefined) {
        assert.ok((value.description ?? value.summary)?.length > 10, `${path} has no description`)
      }
    }
    for (const name of Object.keys(document.components.schemas)) {
      if (/^Error40[45]$/.test(name)) continue
      assert.ok(used.has(`#/components/schemas/${name}`), `nothing uses ${name}`)
    }
    const operations = Object.values(document.paths).flatMap((path) => Object.values(path))
    assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length)
  })

  test("is served as it is, whoever asks, and by HEAD", async () => {
    const { call } = await served()
    const { document } = await description()
    const { json, headers } = await call("GET", "/sync/openapi.json")
    assert.deepEqual(json, document)
    assert.equal(headers.get("content-type"), "application/json")
    assert.equal((await call("HEAD", "/sync/openapi.json")).text, "")
  })

  test("describes the lines of NDJSON and the data of live events", async () => {
    const { check } = await description()
    const { store, call, url, Seen } = await served()
    store.replayAll(history("a", 3))
    store.run(Seen, { noteID: "a" }, { metadata: { by: "me" } })
    store.replay({ kind: "gap", aggregateID: "b", after: -1, through: 4 })
    store.run(Seen, { noteID: "r" })
    store.remove("r", { event: [Seen, { noteID: "r" }] })
    const { text } = await call("POST", "/sync/history", { headers: { accept: "application/x-ndjson" } })
    const items = itemsOf(text)
    assert.deepEqual(new Set(items.map(({ kind }) => kind)), new Set(["event", "gap", "removed", "synced"]))
    for (const item of items) check("/components/schemas/LogItem", item)
    const follower = await following(url, "?aggregate=a&after=-1")
    await follower.synced()
    const events = follower.messages.filter(({ event }) => event === undefined)
    assert.equal(events.length, 4)
    for (const { data } of events) check("/components/schemas/SerializedEvent", data)
  })

  test("is strict enough to tell what is otherwise", async () => {
    const { check } = await description()
    const [event] = history("a", 1)
    check("/components/schemas/SerializedEvent", event)
    check("/components/schemas/SerializedEvent", { ...event, created: Number.MIN_SAFE_INTEGER })
    for (const [name, value] of [
      ["SerializedEvent", { ...event, seq: -1 }],
      ["SerializedEvent", { ...event, created: 0.5 }],
      ["SerializedEvent", { ...event, type: "note.written" }],
      ["SerializedEvent", { ...event, more: 1 }],
      ["LogItem", { kind: "event" }],
      ["LogItem", { kind: "synced", aggregateID: "a", seq: 1, more: 1 }],
      ["Held", { a: -2 }],
      ["Held", { "": 1 }],
      ["Replay", { events: [] }],
      ["Claim", { aggregateID: "a" }],
      ["Steal", { aggregateID: "a", owner: null }],
      ["Error409", { code: "ERR_NOT_FOUND", message: "" }],
      ["Error409", { code: "ERR_CONFLICT", message: "", stack: "" }],
    ]) {
      assert.throws(() => check(`/components/schemas/${name}`, value), assert.AssertionError)
    }
    const answer = { status: 409, type: "application/json", json: { code: "ERR_CONFLICT", message: "" } }
    await assertDescribed("POST", "/api/sync/claim?x", undefined, answer)
    await assert.rejects(assertDescribed("POST", "/sync/history", undefined, answer), /not said to answer 409/)
  })
})
