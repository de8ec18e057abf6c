"use strict"

// Whatever ends a connection: a server that is killed, a network that cuts, one that says nothing, and what stands in a
// server's place.

const assert = require("node:assert/strict")
const { once } = require("node:events")
const net = require("node:net")
const { randomBytes } = require("node:crypto")
const { describe, test } = require("node:test")
const { follow } = require("syncline/http")
const { kill, say, start, untilTold } = require("./children")
const { assertSound, openNotes } = require("./notes")
const { coded, file, history: historyOf, serialized } = require("./stores.js")
const { dice } = require("./streaming")
const sync = require("./sync-servers.js")
const {
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
  tells,
  until,
  untilEqual,
} = sync

let files = 0
const stores = (options) => openNotes(file(`${files++}.db`), options)

/** A writer's log of so many notes, as a server has it. No compression makes less of them. */
function written(count) {
  const log = stores()
  const write = (n) =>
    log.store.run(log.Written, { noteID: `note ${n % 7}`, text: randomBytes(200).toString("base64") })
  for (let n = 0; n < count; n++) write(n)
  return { ...log, write }
}

describe("a follower whose connection ends", () => {
  test("comes back to a server that was killed, and misses nothing", async () => {
    const path = file(`${files++}.db`)
    const noteIDs = ["a", "b", "c"]
    const proxy = await proxying()
    const reader = stores()
    const one = following(reader.store, { url: proxy.url })
    for (let round = 0; round < 3; round++) {
      const child = start("sync-server.js", { path, noteIDs })
      await untilTold(child, 1)
      proxy.to = child.told[0].port
      const before = one.statuses.length
      say(child, 50)
      await one.live(before)
      say(child, 200)
      await until(() => reader.store.stats().events >= 250 * round + 100)
      await kill(child)
      proxy.to = undefined
      await one.reached("waiting", before)
    }
    await one.stop()
    const { store } = openNotes(path)
    const restarted = await serving(store)
    await following(reader.store, { url: restarted.url }).live()
    assert.deepEqual(logs(reader.store), logs(store))
    assertSound(reader.store, [])
    assert.deepEqual(one.errors, [])
    for (const each of [store, reader.store]) each.close()
  })

  test("goes on behind what it has, wherever a history is cut", async () => {
    const { store } = written(2_000)
    const server = await serving(store)
    const roll = dice(7)
    // Heads, the first frame, and the middle of whatever is compressed.
    for (const bytes of [(n) => 100 + 10 * n, () => 20_000 + roll(200_000)]) {
      const reader = stores()
      const proxy = await proxying((n) => (n < 60 ? bytes(n) : Infinity))
      proxy.to = server.port
      const one = following(reader.store, { url: proxy.url })
      await one.live()
      assert.deepEqual(logs(reader.store), logs(store))
      assertSound(reader.store, [])
      assert.ok(proxy.connections > 4, `${proxy.connections} connections`)
      assert.deepEqual(one.errors, [])
      await one.stop()
      reader.store.close()
    }
    store.close()
  })

  test("and wherever live events are cut", async () => {
    const { store, write } = written(10)
    const server = await serving(store)
    const roll = dice(11)
    const reader = stores()
    const proxy = await proxying((n) => (n < 60 ? 400 + roll(4_000) : Infinity))
    proxy.to = server.port
    const one = following(reader.store, { url: proxy.url })
    await one.live()
    for (let n = 0; n < 600 && proxy.connections < 60; n++) {
      write(n)
      if (n % 5 === 0) await new Promise(setImmediate)
    }
    await untilEqual(reader.store, store)
    assertSound(reader.store, [])
    assert.deepEqual(one.errors, [])
    assert.ok(proxy.connections > 10, `${proxy.connections} connections`)
    await one.stop()
    for (const each of [reader.store, store]) each.close()
  })

  test("asks again, with pauses that grow, while nobody answers", async () => {
    const reader = stores()
    const proxy = await proxying()
    const one = following(reader.store, { url: proxy.url, backoff: { initial: 2, longest: 8 } })
    await until(() => one.statuses.filter((status) => status === "waiting").length >= 6)
    const waits = one.details.filter(({ status }) => status === "waiting")
    assert.deepEqual(
      waits.slice(0, 6).map(({ attempt }) => attempt),
      [1, 2, 3, 4, 5, 6],
    )
    for (const [n, { delay, error }] of waits.entries()) {
      assert.ok(delay <= Math.min(8, 2 ** (n + 1)), `${delay} after ${n}`)
      coded("ERR_UNREACHABLE")(error)
    }
    assert.deepEqual(one.errors, [], "nobody has to look at that")
    await one.stop()
    reader.store.close()
  })

  test("leaves a server alone for as long as that asks for", async () => {
    const reader = stores()
    const { url } = await pretending((_, response) =>
      json(response, { code: "ERR_BUSY", message: "busy" }, 503, { "retry-after": "60" }),
    )
    const one = following(reader.store, { url })
    await one.reached("waiting")
    const { delay, error } = one.details.at(-1)
    coded("ERR_BUSY", /^busy$/, { status: 503 })(error)
    assert.ok(delay >= 60_000 && delay <= 60_020, String(delay))
    await one.stop()
    reader.store.close()
  })
})

describe("a server that says nothing", () => {
  const quick = { connectTimeout: 30, idleTimeout: 60 }
  const cases = {
    "no connection": () => {},
    "no head": ({ path }, response) => path === "/global/event" && page(response),
    "no word on the live connection": ({ path }, response) => {
      if (path === "/sync-events") tells(response, ": connected")
    },
    "no history": ({ path }, response) => {
      if (path === "/sync-events") tells(response, SYNCED)
    },
    "half a history": ({ path }, response) => {
      if (path === "/sync-events") return tells(response, SYNCED)
      response.writeHead(200, { "content-type": "application/x-ndjson" }).write('{"kind":"event",')
    },
    "nothing more once it is live": ({ path }, response) => {
      if (path === "/sync-events") return tells(response, SYNCED)
      history(response)
    },
  }
  for (const [name, handle] of Object.entries(cases)) {
    test(`${name}: the connection is given up, and another one made`, async () => {
      const reader = stores()
      const { url } = await (name === "no connection" ? mute() : pretending(handle))
      const one = following(reader.store, { url, ...quick })
      await one.reached("waiting")
      await one.reached("waiting", one.statuses.length)
      for (const { status, error } of one.details) {
        if (status === "waiting") coded("ERR_UNREACHABLE", /within (30|60) ms/)(error)
      }
      assert.equal(one.statuses.includes("live"), name.includes("live") && !name.includes("no word"))
      assert.deepEqual(one.errors, [])
      await one.stop()
      reader.store.close()
    })
  }

  /** Accepts, and that is all. */
  async function mute() {
    const sockets = new Set()
    const server = net.createServer((socket) => sockets.add(socket.on("error", () => {}).resume()))
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    stoppable(async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, "close")
    })
    return { url: `http://127.0.0.1:${server.address().port}` }
  }
})

describe("what answers in a server's place", () => {
  const rejects = async (handle, code, pattern, more = {}) => {
    const reader = stores()
    const { url } = await pretending(handle)
    await assert.rejects(follow(reader.store, { url, ...more }), coded(code, pattern))
    reader.store.close()
  }
  const refuse = (status, code) => (_, response) => json(response, { code, message: "no" }, status)

  test("on first contact ends it, by its answer", async () => {
    await rejects(
      (_, response) => page(response),
      "ERR_PROTOCOL",
      /sync-events was answered with status 200 and text\/html/,
    )
    await rejects((_, response) => page(response, 404), "ERR_PROTOCOL", /404/)
    await rejects((_, response) => json(response, []), "ERR_PROTOCOL", /application\/json/)
    await rejects((_, response) => response.writeHead(308, { location: "/x" }).end(), "ERR_PROTOCOL", /308/)
    await rejects((_, response) => page(response, 401), "ERR_UNAUTHORIZED", /401/)
    await rejects(refuse(401, "ERR_UNAUTHORIZED"), "ERR_UNAUTHORIZED", /^no$/)
    await rejects(refuse(403, "ERR_FORBIDDEN"), "ERR_FORBIDDEN", /^no$/)
    await rejects(refuse(404, "ERR_NOT_FOUND"), "ERR_NOT_FOUND", /^no$/)
    await rejects(refuse(400, "ERR_INVALID_ARGUMENT"), "ERR_INVALID_ARGUMENT", /^no$/)
    const halfway = ({ path }, response) => (path === "/sync-events" ? tells(response, SYNCED) : page(response))
    await rejects(halfway, "ERR_PROTOCOL", /sync\/history was answered with status 200 and text\/html/)
    const object = ({ path }, response) => (path === "/sync-events" ? tells(response, SYNCED) : json(response, {}))
    await rejects(object, "ERR_PROTOCOL", /no array/)
  })

  test("is waited for when it comes later, as a proxy's page does during a deploy; a token that was taken back is not", async () => {
    const reader = stores()
    let answer = (response) => history(response)
    const { url, server } = await pretending(({ path }, response) => {
      if (answer.length === 2) return answer(path, response)
      if (path === "/sync-events") tells(response, SYNCED)
      else answer(response)
    })
    const one = following(reader.store, { url })
    await one.live()
    for (const status of [200, 403, 404, 502]) {
      answer = (_, response) => page(response, status)
      server.closeAllConnections()
      const before = one.details.length
      await until(() => one.details.slice(before).filter(({ status: s }) => s === "waiting").length >= 2)
      coded(status === 502 ? "ERR_UNREACHABLE" : "ERR_PROTOCOL")(one.details.findLast(({ error }) => error).error)
      answer = (response) => history(response)
      await one.live(one.statuses.length)
    }
    // What keeps everybody waiting was said, each once.
    assert.deepEqual(
      one.errors.map(({ error, aggregateID }) => [error.status, aggregateID]),
      [200, 403, 404].map((status) => [status, undefined]),
    )
    answer = (_, response) => json(response, { code: "ERR_UNAUTHORIZED", message: "rotated" }, 401)
    server.closeAllConnections()
    await assert.rejects(one.ended, coded("ERR_UNAUTHORIZED", /rotated/))
    assert.equal(one.statuses.at(-1), "stopped")
    coded("ERR_UNAUTHORIZED")(one.details.at(-1).error)
    reader.store.close()
  })

  test("nonsense on a connection that stood is reported once, and the connection made again", async () => {
    const nonsense = {
      "a line that is no JSON": ({ path }, response) => {
        if (path === "/sync-events") return tells(response, SYNCED)
        response.writeHead(200, { "content-type": "application/x-ndjson" })
        response.end(`${JSON.stringify(serialized("written", 0, { noteID: "a" }))}\nno JSON\n`)
      },
      "a frame that is no JSON": ({ path }, response) => {
        if (path === "/sync-events") return tells(response, SYNCED, "data: no JSON")
        history(response)
      },
      "bytes that are no UTF-8": ({ path }, response) => {
        if (path !== "/sync-events") return history(response)
        tells(response, SYNCED)
        response.write(Buffer.from([0x64, 0xff, 0xff, 10, 10]))
      },
      "an erasure of nothing": ({ path }, response) => {
        if (path === "/sync-events") return tells(response, SYNCED, "event: erased\ndata: {}")
        history(response)
      },
      "an erasure of what no aggregate can be called": ({ path }, response) => {
        const erased = JSON.stringify({ aggregateID: "a".repeat(8 * 1024 + 1), seq: 0 })
        if (path === "/sync-events") return tells(response, SYNCED, `event: erased\ndata: ${erased}`)
        history(response)
      },
    }
    for (const [name, handle] of Object.entries(nonsense)) {
      const reader = stores()
      const { url } = await pretending((request, response) => {
        // Once it has to be seen that it is a server.
        if (worked) return handle(request, response)
        if (request.path === "/sync-events") return tells(response, SYNCED)
        worked = true
        history(response)
        setImmediate(() => response.req.socket.server.closeAllConnections())
      })
      let worked = false
      const one = following(reader.store, { url })
      await until(
        () => one.errors.length > 0,
        () => name,
      )
      await one.reached("waiting", one.statuses.length)
      await one.reached("waiting", one.statuses.length)
      assert.equal(one.errors.length, 1, name)
      coded("ERR_PROTOCOL")(one.errors[0].error)
      assert.equal(one.errors[0].aggregateID, undefined)
      await one.stop()
      reader.store.close()
    }
  })

  test("fields and events that a later version may add are ignored", async () => {
    const event = serialized("written", 0, { noteID: "a", text: "t" })
    const reader = stores()
    const { url } = await pretending(({ path }, response) => {
      if (path !== "/sync-events") return history(response)
      tells(
        response,
        ": hello",
        SYNCED,
        "event: weather\ndata: fine",
        `retry: 5\nmood: good\ndata: ${JSON.stringify(event)}`,
      )
    })
    const one = following(reader.store, { url })
    await until(() => reader.store.sequence("a") === 0)
    assert.deepEqual(reader.store.read("a"), historyOf("a", 0).concat(event))
    assert.deepEqual(one.errors, [])
    await one.stop()
    reader.store.close()
  })
})
