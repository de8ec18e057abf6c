"use strict"

// The routes: who is let in, what is there and what is not, alone and in another app; which aggregates there are, and whose.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { Hono } = require("hono")
const { cors } = require("hono/cors")
const { syncRoutes } = require("syncline/http")
const { assertError, calling, listening, served } = require("./serving")
const { coded, history, notes, openNotes } = require("./stores")

const ROUTES = [
  ["GET", "/sync-events", "read"],
  ["POST", "/sync/history", "read"],
  ["POST", "/sync/replay", "write"],
  ["GET", "/sync/sequences", "read"],
  ["POST", "/sync/claim", "claim"],
  ["POST", "/sync/steal", "claim"],
  ["GET", "/sync/openapi.json", "read"],
]

describe("syncRoutes", () => {
  test("refuses, when it is called, what it could not serve", () => {
    const store = openNotes(notes())
    const refusals = [
      [[store], /authorize must be/],
      [[store, {}], /authorize must be/],
      [[store, { authorize: undefined }], /nothing is served unless/],
      [[store, { authorize: "all" }], /authorize/],
      [[store, { authorize: true }], /authorize/],
      [[store, { authorize: ["a"] }], /authorize/],
      [[store, { authorize: {} }], /token/],
      [[store, { authorize: { token: "" } }], /token/],
      [[store, { authorize: { token: [] } }], /empty/],
      [[store, { authorize: { token: ["a", "b c"] } }], /visible ASCII/],
      [[store, { authorize: { token: "a", tokens: "b" } }], /no option "tokens"/],
      [[store, { authorize: "none", heartBeat: 1 }], /no option "heartBeat"/],
      [[store, { authorize: "none", maxBodyBytes: 0 }], /maxBodyBytes/],
      [[store, { authorize: "none", heartbeat: 0 }], /heartbeat/],
      [[store, { authorize: "none", heartbeat: 2 ** 31 }], /heartbeat/],
      [[store, { authorize: "none", capacity: { events: 0 } }], /capacity\.events/],
      [[store, { authorize: "none", onError: "log" }], /onError/],
      [[{}, { authorize: "none" }], /a store/],
      [[undefined, { authorize: "none" }], /a store/],
      [[openNotes(notes(), { record: false, path: ":memory:" }), { authorize: "none" }], /records/],
    ]
    for (const [args, pattern] of refusals)
      assert.throws(() => syncRoutes(...args), coded("ERR_INVALID_ARGUMENT", pattern))
    assert.throws(
      () => syncRoutes(store, { authorize: { token: "my secret" } }),
      (error) => !error.message.includes("secret"),
    )
  })
})

describe("authorization", () => {
  const secrets = { authorize: { token: ["first", "second"] } }
  const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } })

  test("lets in who sends one of the tokens", async () => {
    const { call } = await served(secrets)
    for (const token of ["first", "second"])
      assert.equal((await call("GET", "/sync/sequences", bearer(token))).status, 200)
    const lower = { headers: { authorization: "bearer second" } }
    assert.equal((await call("GET", "/sync/sequences", lower)).status, 200)
  })

  test("gives others the same answer everywhere, also where there is nothing, and not a byte more", async () => {
    const { call, store, Seen } = await served(secrets)
    store.run(Seen, { noteID: "hidden" })
    const refused = [{}, bearer(""), bearer("First"), bearer("firs"), bearer("first second"), bearer("third")]
    refused.push({ headers: { authorization: "Basic first" } }, { headers: { authorization: "first" } })
    const answers = new Set()
    for (const [, path] of [...ROUTES, ["", "/"], ["", "/sync/nothing"], ["", "/sync/history/"]]) {
      for (const method of ["GET", "POST", "PUT", "DELETE", "OPTIONS"]) {
        const given = refused[answers.size % refused.length]
        const answer = await call(method, path, given)
        assertError(answer, 401, "ERR_UNAUTHORIZED")
        assert.equal(answer.headers.get("www-authenticate"), "Bearer")
        answers.add(answer.text)
      }
    }
    for (const given of refused) assertError(await call("GET", "/sync/openapi.json", given), 401, "ERR_UNAUTHORIZED")
    assert.equal(answers.size, 1)
    const head = await call("HEAD", "/sync/openapi.json")
    assert.deepEqual([head.status, head.text], [401, ""])
  })

  test("comes before the body is looked at", async () => {
    const { call } = await served({ ...secrets, maxBodyBytes: 10 })
    const body = "x".repeat(1_000)
    assertError(await call("POST", "/sync/replay", { body, type: "text/plain" }), 401, "ERR_UNAUTHORIZED")
  })

  test("by a function, which is told what is wanted", async () => {
    const asked = []
    const authorize = (request, what) => {
      asked.push([request.method, new URL(request.url).pathname, what])
      return "forbidden"
    }
    const { call } = await served({ authorize })
    for (const [method, path] of ROUTES) assertError(await call(method, path), 403, "ERR_FORBIDDEN")
    assert.deepEqual(asked, ROUTES)
    assertError(await call("GET", "/elsewhere"), 403, "ERR_FORBIDDEN")
    assert.deepEqual(asked.at(-1), ["GET", "/elsewhere", "read"])
  })

  test("by a function's decision, at once or later", async () => {
    let decision
    const { call, errors } = await served({ authorize: () => decision })
    for (const [given, status] of [
      [true, 200],
      [false, 401],
      ["unauthorized", 401],
      ["forbidden", 403],
    ]) {
      for (decision of [given, Promise.resolve(given)]) {
        assert.equal((await call("GET", "/sync/sequences")).status, status)
      }
    }
    assert.deepEqual(errors, [])
  })

  test("that fails lets nobody in, says nothing, and tells the server", async () => {
    const failure = Object.assign(new Error("the password is 1234"), { status: 200 })
    let decide
    const { call, errors } = await served({ authorize: (...args) => decide(...args) })
    const failures = [
      () => {
        throw failure
      },
      () => Promise.reject(failure),
      () => undefined,
      () => "yes",
      () => ({}),
      () => Response.json({ ok: true }),
      () => {
        throw undefined
      },
    ]
    for (decide of failures) {
      const answer = await call("POST", "/sync/claim", { body: { aggregateID: "a", owner: "me" } })
      assertError(answer, 500, "ERR_INTERNAL")
      assert.doesNotMatch(answer.text, /1234/)
    }
    assert.equal(errors.length, failures.length)
    assert.equal(errors[0].error, failure)
    assert.equal(errors[0].request.method, "POST")
    assert.match(errors[2].error.message, /authorize must answer/)
  })

  test("that throws one of the library's errors does not choose the answer", async () => {
    const { store, call, errors } = await served({ authorize: () => store.get("", -1) })
    assertError(await call("GET", "/sync/sequences"), 500, "ERR_INTERNAL")
    assert.equal(errors[0].error.code, "ERR_INVALID_ARGUMENT")
  })
})

describe("a body that authorize has read", () => {
  test("is nobody's to apply: the server is told", async () => {
    const authorize = async (request) => (await request.text()).includes("me")
    const { call, store, errors } = await served({ authorize })
    const answer = await call("POST", "/sync/claim", { body: { aggregateID: "a", owner: "me" } })
    assertError(answer, 500, "ERR_INTERNAL")
    assert.match(errors[0].error.message, /read already, perhaps by authorize/)
    assert.equal(store.owner("a"), undefined)
  })
})

describe("what is not there", () => {
  test("is 404 for a path, and 405 with Allow for a method", async () => {
    const { call } = await served()
    for (const path of ["/", "/sync", "/sync/", "/sync/history/", "/sync-events/1", "/Sync/history", "/favicon.ico"]) {
      assertError(await call("GET", path), 404, "ERR_NOT_FOUND")
    }
    for (const [allowed, path] of ROUTES) {
      for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]) {
        if (method === allowed) continue
        const answer = await call(method, path)
        assertError(answer, 405, "ERR_METHOD_NOT_ALLOWED", { expected: allowed, got: method })
        assert.equal(answer.headers.get("allow"), allowed === "GET" ? "GET, HEAD" : allowed)
      }
      const head = await call("HEAD", path)
      assert.deepEqual([head.status, head.text], [allowed === "GET" ? 200 : 405, ""])
    }
  })
})

describe("mounted in another app", () => {
  async function mounted(prefix, wrap = () => {}) {
    const store = openNotes(notes())
    const host = new Hono()
    wrap(host)
    host.get("/health", (c) => c.text("well"))
    host.route(prefix, syncRoutes(store, { authorize: { token: "t" } }))
    host.get("/sync/own", (c) => c.text("the host's"))
    host.notFound((c) => c.text("nothing of the host's", 404))
    const { url } = await listening(host)
    return { store, call: calling(url) }
  }

  for (const prefix of ["/", "/api", "/api/v1"]) {
    test(`under ${prefix} it answers its own paths, and leaves all others to the host`, async () => {
      const { call } = await mounted(prefix)
      const base = prefix === "/" ? "" : prefix
      const headers = { authorization: "Bearer t" }
      for (const [method, path] of ROUTES) {
        assertError(await call(method, base + path), 401, "ERR_UNAUTHORIZED")
        assertError(await call("PUT", base + path), 401, "ERR_UNAUTHORIZED")
        assertError(await call("PUT", base + path, { headers }), 405, "ERR_METHOD_NOT_ALLOWED")
      }
      assert.equal((await call("GET", `${base}/sync/sequences`, { headers })).status, 200)
      const described = await call("GET", `${base}/sync/openapi.json`, { headers })
      assert.deepEqual(described.json.servers, base === "" ? undefined : [{ url: base }])
      for (const [path, text] of [
        ["/health", "well"],
        ["/sync/own", "the host's"],
        [`${base}/sync/unknown`, "nothing of the host's"],
        [`${base}/`, "nothing of the host's"],
      ]) {
        assert.equal((await call("GET", path)).text, text)
      }
    })
  }

  test("behind CORS, which answers for browsers of other origins", async () => {
    const { call } = await mounted("/", (host) => host.use(cors({ origin: "https://app.example" })))
    const headers = { origin: "https://app.example", "access-control-request-method": "POST" }
    const preflight = await call("OPTIONS", "/sync/replay", { headers })
    assert.deepEqual(
      [preflight.status, preflight.headers.get("access-control-allow-origin")],
      [204, "https://app.example"],
    )
    assertError(await call("POST", "/sync/replay", { headers }), 401, "ERR_UNAUTHORIZED")
  })
})

describe("GET /sync/sequences", () => {
  test("lists aggregates by id, page by page", async () => {
    const { call, store } = await served()
    const ids = ["a", "b1", "b2", "b3", "ü"]
    for (const id of ids) store.replayAll(history(id, 2))
    store.claim("b1", "me")
    const all = await call("GET", "/sync/sequences")
    assert.deepEqual(
      all.json.aggregates.map(({ aggregateID }) => aggregateID),
      ids,
    )
    assert.deepEqual(all.json.aggregates[1], { aggregateID: "b1", seq: 1, owner: "me", epoch: 1 })
    assert.equal(all.json.next, null)
    const listed = []
    for (let after = ""; after !== null;) {
      const { json } = await call("GET", `/sync/sequences?limit=2&after=${encodeURIComponent(after)}`)
      listed.push(...json.aggregates.map(({ aggregateID }) => aggregateID))
      assert.ok(json.aggregates.length > 0)
      after = json.next
    }
    assert.deepEqual(listed, ids)
    const prefixed = await call("GET", "/sync/sequences?prefix=b&limit=3")
    assert.deepEqual([prefixed.json.aggregates.length, prefixed.json.next], [3, null])
    for (const limit of ["0", "1001", "-1", "1.5", "x", "", "1e2"]) {
      assertError(await call("GET", `/sync/sequences?limit=${limit}`), 400, "ERR_INVALID_ARGUMENT")
    }
  })
})

describe("ownership", () => {
  const claim = (call, body, route = "claim") => call("POST", `/sync/${route}`, { body })

  test("is claimed where nobody else has it, kept by who has it, released by who knows the epoch, and stolen", async () => {
    const { call, store } = await served()
    const own = (owner, epoch) => ({ aggregateID: "a", owner, epoch })
    assert.deepEqual((await claim(call, { aggregateID: "a", owner: "me" })).json, own("me", 1))
    assert.deepEqual((await claim(call, { aggregateID: "a", owner: "me", expectedEpoch: 1 })).json, own("me", 1))
    const refused = { aggregateID: "a", expected: "me", got: "you", epoch: 1 }
    assertError(await claim(call, { aggregateID: "a", owner: "you" }), 409, "ERR_NOT_OWNER", refused)
    assertError(await claim(call, { aggregateID: "a", owner: "you", expectedEpoch: 1 }), 409, "ERR_NOT_OWNER", refused)
    assertError(await claim(call, { aggregateID: "a", owner: "you", expectedEpoch: 0 }, "steal"), 409, "ERR_CONFLICT")
    assert.deepEqual(
      (await claim(call, { aggregateID: "a", owner: "you", expectedEpoch: 1 }, "steal")).json,
      own("you", 2),
    )
    assert.deepEqual((await claim(call, { aggregateID: "a", owner: "me" }, "steal")).json, own("me", 3))
    assertError(await claim(call, { aggregateID: "a", owner: null }), 400, "ERR_INVALID_ARGUMENT")
    assertError(await claim(call, { aggregateID: "a", owner: null, expectedEpoch: 2 }), 409, "ERR_CONFLICT")
    assert.deepEqual((await claim(call, { aggregateID: "a", owner: null, expectedEpoch: 3 })).json, own(null, 4))
    assertError(await claim(call, { aggregateID: "a", owner: null }, "steal"), 400, "ERR_INVALID_ARGUMENT")
    assert.deepEqual(store.owner("a"), { owner: null, epoch: 4 })
  })

  test("goes to one of many who claim at once", async () => {
    const { call, store } = await served()
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => claim(call, { aggregateID: "a", owner: `device ${n}` })),
    )
    const owners = answers.filter(({ status }) => status === 200)
    assert.equal(owners.length, 1)
    assert.equal(store.owner("a").owner, owners[0].json.owner)
    assert.ok(answers.every(({ status, json }) => status === 200 || json.expected === owners[0].json.owner))
  })

  test("needs a body of these fields and no others", async () => {
    const { call } = await served()
    const wrong = [
      {},
      [],
      { aggregateID: "a" },
      { aggregateID: "", owner: "me" },
      { aggregateID: 1, owner: "me" },
      { aggregateID: "a", owner: "" },
      { aggregateID: "a", owner: "o".repeat(256) },
      { aggregateID: "a", owner: "me", expectedEpoch: -1 },
      { aggregateID: "a", owner: "me", expectedEpoch: "1" },
      { aggregateID: "a", owner: "me", expectedepoch: 1 },
      '{"aggregateID": "\\ud800", "owner": "me"}',
      "",
    ]
    for (const body of wrong) {
      for (const route of ["claim", "steal"]) {
        const answer = await claim(call, body, route)
        const isLarge = body.owner?.length > 255
        assertError(answer, isLarge ? 413 : 400, isLarge ? "ERR_TOO_LARGE" : "ERR_INVALID_ARGUMENT")
      }
    }
    assertError(
      await call("POST", "/sync/claim", { body: { aggregateID: "a".repeat(8_193), owner: "me" } }),
      413,
      "ERR_TOO_LARGE",
    )
  })
})
