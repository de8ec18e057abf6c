"use strict"

// GET /sync/sequences, POST /sync/claim and POST /sync/steal: which aggregates there are, and whose they are.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { assertError, served } = require("./serving")
const { history } = require("./stores")

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
