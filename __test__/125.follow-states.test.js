"use strict"

// What a follower does in each of its states: while the store cannot be written, while more comes than is kept, and when
// it is stopped.

const assert = require("node:assert/strict")
const { gzipSync } = require("node:zlib")
const { describe, test } = require("node:test")
const { follow } = require("syncline/http")
const { open } = require("syncline")
const { endOf, start } = require("./children")
const { openNotes } = require("./notes")
const { rawHistory } = require("./serving")
const { coded, file, serialized, turns } = require("./stores.js")
const sync = require("./sync-servers.js")
const { SYNCED, following, history, json, logs, pretending, serving, tells, told, until } = sync

let files = 0
const stores = (options) => openNotes(file(`${files++}.db`), options)
const event = (noteID, seq, more) => serialized("written", seq, { noteID, text: `text ${seq}` }, more)
const item = (noteID, seq) => ({ kind: "event", event: event(noteID, seq) })

describe("follow refuses at once", () => {
  const url = "http://127.0.0.1:12345"
  const cases = {
    "no store": [{}, { url }, /follow needs a store/],
    "a store that does not record": [() => open(":memory:", { record: false }), { url }, /record: true/],
    "an unknown option": [undefined, { url, tokens: "x" }, /no option "tokens"/],
    "no url": [undefined, {}, /url must be a string or a URL, not undefined/],
    "half a url": [undefined, { url: "example.org" }, /whole one/],
    "another protocol": [undefined, { url: "ftp://example.org" }, /http: or https:, not "ftp:"/],
    "a port that fetch refuses": [undefined, { url: "http://127.0.0.1:6000", onStatus: () => {} }, /refuses this port/],
    "credentials in the url": [undefined, { url: "http://a:secret@example.org" }, /^(?!.*secret).*the token/],
    "a query in the url": [undefined, { url: "http://example.org/?a=b" }, /end with its path/],
    "a token with spaces": [undefined, { url, token: "geheim niss" }, /^token(?!.*geheim)/],
    "aggregates that are one": [undefined, { url, aggregates: "note" }, /aggregates must be an iterable/],
    "an empty aggregate id": [undefined, { url, aggregates: [""] }, /must not be empty/],
    "an owner at epoch 0": [undefined, { url, owner: "a", epoch: 0 }, /at least 1/],
    "an unknown choice": [undefined, { url, unknown: "skip" }, /"error" or "record"/],
    "no function": [undefined, { url, onStatus: "log" }, /onStatus must be a function/],
    "no signal": [undefined, { url, signal: {} }, /AbortSignal/],
    "a timeout of no time": [undefined, { url, connectTimeout: 0 }, /connectTimeout must be an integer from 1/],
    "a pause longer than the longest": [undefined, { url, backoff: { initial: 9, longest: 8 } }, /backoff.initial/],
  }
  for (const [name, [made, options, message]] of Object.entries(cases)) {
    test(name, async () => {
      const store = typeof made === "function" ? made() : (made ?? stores().store)
      const statuses = []
      const onStatus = options.onStatus ?? ((status) => statuses.push(status))
      await assert.rejects(follow(store, { onStatus, ...options }), coded("ERR_INVALID_ARGUMENT", message))
      assert.deepEqual(statuses, [])
      store.close?.()
    })
  }

  test("a store that is only read", async () => {
    const path = file(`${files++}.db`)
    openNotes(path).store.close()
    const { store } = openNotes(path, { readonly: true })
    await assert.rejects(follow(store, { url }), coded("ERR_READONLY"))
    store.close()
  })
})

describe("a store that cannot be written", () => {
  test("because others write: it is waited for, and nothing skipped", async () => {
    const path = file(`${files++}.db`)
    const reader = openNotes(path, { busyTimeout: 20 })
    const other = openNotes(path)
    const { url } = await pretending(({ path: asked }, response) => {
      if (asked === "/sync-events") tells(response, SYNCED)
      else history(response, ...Array.from({ length: 5 }, (_, seq) => item("a", seq)))
    })
    other.store.db.exec("BEGIN IMMEDIATE")
    const one = following(reader.store, { url })
    await one.reached("waiting")
    coded("ERR_BUSY")(one.details.at(-1).error)
    other.store.db.exec("COMMIT")
    await one.live()
    assert.equal(reader.store.sequence("a"), 4)
    assert.deepEqual(one.errors, [])
    await one.stop()
    for (const { store } of [reader, other]) store.close()
  })

  test("because it is full: that is reported once, and waited for", async () => {
    const reader = stores()
    const writer = stores()
    for (let n = 0; n < 40; n++) writer.store.run(writer.Written, { noteID: `n${n}`, text: "x".repeat(20_000) })
    const { url } = await serving(writer.store)
    const pages = reader.store.db.pragma("page_count", { simple: true })
    reader.store.db.pragma(`max_page_count = ${pages + 20}`)
    const one = following(reader.store, { url })
    await until(() => one.statuses.filter((status) => status === "waiting").length >= 3)
    reader.store.db.pragma("max_page_count = 1000000")
    await one.live()
    assert.deepEqual(logs(reader.store), logs(writer.store))
    assert.deepEqual(
      one.errors.map(({ error, aggregateID }) => [error.code, aggregateID]),
      [["ERR_DISK_FULL", undefined]],
    )
    await one.stop()
    for (const { store } of [reader, writer]) store.close()
  })
})

describe("live", () => {
  /** A server whose histories a test answers itself: `asked` holds those that wait. */
  async function scripted() {
    const asked = []
    let live
    const server = await pretending(({ path, query, body }, response) => {
      if (path === "/sync-events") tells((live = response), SYNCED)
      else
        asked.push({
          held: JSON.parse(body),
          only: query.get("only"),
          answer: (...items) => history(response, ...items),
        })
    })
    const next = async () => {
      await until(() => asked.length > 0)
      return asked.shift()
    }
    return { url: server.url, asked, next, tell: (...frames) => tells(live, ...frames) }
  }
  /** Follows such a server, which has nothing at first. */
  async function followed(options) {
    const reader = stores()
    const server = await scripted()
    const one = following(reader.store, { url: server.url, ...options })
    ;(await server.next()).answer()
    await one.live()
    return { store: reader.store, ...server, one }
  }
  const end = async ({ one, store }) => {
    await one.stop()
    store.close()
  }

  test("a gap is closed by asking for that aggregate alone, once for all that came behind it", async () => {
    const all = await followed()
    const { tell, next, store, one, asked } = all
    tell(told(event("a", 0)), told(event("b", 0)))
    await until(() => store.sequence("b") === 0)
    tell(told(event("a", 3)), told(event("a", 4)), told(event("b", 1)))
    const { held, only, answer } = await next()
    assert.deepEqual([held, only], [{ a: 0 }, "listed"])
    answer(...[1, 2, 3, 4].map((seq) => item("a", seq)))
    await until(() => store.sequence("a") === 4 && store.sequence("b") === 1)
    tell(told(event("a", 5)))
    await until(() => store.sequence("a") === 5)
    assert.deepEqual([asked, one.errors], [[], []])
    await end(all)
  })

  test("a gap that the server cannot close parks the aggregate, which is tried again with a later event", async () => {
    const all = await followed()
    const { tell, next, store, one, asked } = all
    tell(told(event("a", 0)), told(event("a", 2)))
    ;(await next()).answer()
    await until(() => one.errors.length === 1)
    coded("ERR_SEQUENCE_MISMATCH", /./, { expected: 1, got: 2 })(one.errors[0].error)
    assert.equal(one.errors[0].aggregateID, "a")
    for (let seq = 3; asked.length === 0; seq++) {
      tell(told(event("a", seq)), told(event("b", seq - 3)))
      await until(() => asked.length > 0 || store.sequence("b") === seq - 3)
    }
    const { held, answer } = await next()
    assert.deepEqual(held, { a: 0 })
    answer(...Array.from({ length: 100 }, (_, n) => item("a", n + 1)))
    await until(() => store.sequence("a") === 100)
    tell(told(event("a", 101)))
    await until(() => store.sequence("a") === 101)
    assert.equal(one.errors.length, 1)
    await end(all)
  })

  test("an erased aggregate is asked for before its later events are applied, a sweep asks for all", async () => {
    const all = await followed()
    const { tell, next, store, one } = all
    tell(...[0, 1, 2].map((seq) => told(event("a", seq))))
    await until(() => store.sequence("a") === 2)
    tell('event: erased\ndata: {"aggregateID":"a","seq":2}', told(event("a", 3)))
    const { held, only, answer } = await next()
    assert.deepEqual([held, only], [{ a: 2 }, "listed"])
    answer({ kind: "removed", aggregateID: "a", seq: 2 }, item("a", 3))
    await until(() => store.sequence("a") === 3)
    assert.deepEqual(
      store.read("a").map(({ seq }) => seq),
      [3],
    )
    assert.deepEqual(one.statuses, ["connecting", "catching-up", "live"])
    tell("event: sweep\ndata: {}")
    const all2 = await next()
    assert.deepEqual([all2.held, all2.only], [{ a: 3 }, null])
    all2.answer(item("b", 0))
    await one.live(3)
    assert.deepEqual(one.statuses, ["connecting", "catching-up", "live", "catching-up", "live"])
    assert.equal(store.sequence("b"), 0)
    await end(all)
  })

  test("what is told during a catch-up waits for its end; more than is kept is asked for", async () => {
    for (const count of [500, 1_500]) {
      const reader = stores()
      const server = await scripted()
      const one = following(reader.store, { url: server.url })
      const first = await server.next()
      for (let seq = 0; seq < count; seq += 100) {
        server.tell(...Array.from({ length: 100 }, (_, n) => told(event("a", seq + 1 + n))))
      }
      server.tell(told(event("b", 0)))
      await turns(100)
      first.answer(item("a", 0))
      if (count > 1_000) {
        const { held, only, answer } = await server.next()
        assert.deepEqual([held, only], [{ a: 0 }, null])
        answer(...Array.from({ length: count }, (_, n) => item("a", n + 1)), item("b", 0))
      }
      await one.live()
      assert.deepEqual(Object.fromEntries(reader.store.sequences()), { a: count, b: 0 })
      assert.deepEqual([server.asked, one.errors], [[], []])
      assert.deepEqual(one.statuses, ["connecting", "catching-up", "live"])
      await end({ one, store: reader.store })
    }
  })

  test("so is what was erased of more aggregates than are kept", async () => {
    const reader = stores()
    const server = await scripted()
    const one = following(reader.store, { url: server.url })
    const first = await server.next()
    const erased = Array.from({ length: 10_001 }, (_, n) => `event: erased\ndata: {"aggregateID":"${n}","seq":0}`)
    server.tell(...erased, told(event("a", 0)))
    await turns(100)
    first.answer()
    const { held, only, answer } = await server.next()
    assert.deepEqual([held, only], [{}, null])
    answer(item("a", 0))
    await one.live()
    assert.deepEqual([Object.fromEntries(reader.store.sequences()), server.asked, one.errors], [{ a: 0 }, [], []])
    await end({ one, store: reader.store })
  })

  // Each of them was once a pass over all others.
  test("what a server cannot read of any number of aggregates keeps nobody back", { timeout: 20_000 }, async () => {
    const reader = stores()
    const server = await scripted()
    const one = following(reader.store, { url: server.url })
    const ids = Array.from({ length: 4_000 }, (_, n) => `${n}`)
    const unreadable = (aggregateID) => ({ kind: "unreadable", aggregateID, code: "ERR_CORRUPT", message: "damaged" })
    const damaged = ids.flatMap((id) => (id === "7" ? [item(id, 0), unreadable(id), item(id, 1)] : [unreadable(id)]))
    ;(await server.next()).answer(item("first", 0), ...damaged, item("last", 0))
    await one.live()
    assert.deepEqual(Object.fromEntries(reader.store.sequences()), { first: 0, 7: 0, last: 0 })
    assert.deepEqual(
      one.errors.map(({ aggregateID }) => aggregateID),
      ids,
    )
    coded("ERR_CORRUPT", /cannot read aggregate "0" any further: damaged/)(one.errors[0].error)
    await end({ one, store: reader.store })
  })

  test("an event that waits in many lines is one event", async () => {
    const all = await followed()
    all.tell(JSON.stringify(event("a", 0), null, 2).replace(/^/gm, "data: "), told(event("a", 1)))
    await until(() => all.store.sequence("a") === 1)
    await end(all)
  })

  test("what a function of the caller throws ends it, and is what it rejects with", async () => {
    for (const option of ["onStatus", "onError"]) {
      const reader = stores()
      const { url } = await pretending(({ path }, response) => {
        if (path === "/sync-events") tells(response, SYNCED)
        else history(response, item("a", 0), item("a", 2))
      })
      const thrown = new Error("mine")
      const fail = (status) => {
        if (option === "onError" || status === "catching-up") throw thrown
      }
      await assert.rejects(follow(reader.store, { url, [option]: fail }), (error) => error === thrown)
      reader.store.close()
    }
  })

  test("without onError a parked aggregate is a process warning", async () => {
    const reader = stores()
    const { url } = await pretending(({ path }, response) => {
      if (path === "/sync-events") tells(response, SYNCED)
      else history(response, item("a", 1))
    })
    const warned = new Promise((resolve) => process.once("warning", resolve))
    const one = following(reader.store, { url, onError: undefined })
    const { name, code, message } = await warned
    assert.deepEqual([name, code], ["SynclineWarning", "ERR_SEQUENCE_MISMATCH"])
    assert.match(message, /Aggregate "a" stays behind/)
    await end({ one, store: reader.store })
  })
})

describe("a history", () => {
  test("is read in whatever encoding it comes, and a damaged one is none", async () => {
    const items = Array.from({ length: 20 }, (_, seq) => item("a", seq))
    const text = items.map((one) => `${JSON.stringify(one)}\n`).join("")
    const writer = stores()
    writer.store.replayAll(text)
    const real = await serving(writer.store)
    const accepted = { accept: "application/x-ndjson", "accept-encoding": "zstd" }
    const { bytes: zstd } = await rawHistory(real.url, accepted)
    assert.equal(zstd.readUInt32LE(0), 0xfd2fb528)
    const bodies = {
      plain: [Buffer.from(text), {}],
      gzip: [gzipSync(text), { "content-encoding": "gzip" }],
      "gzip, unsaid": [gzipSync(text), {}],
      zstd: [zstd, { "content-encoding": "zstd" }],
      "decoded on the way, and still said": [Buffer.from(text), { "content-encoding": "zstd" }],
      cut: [zstd.subarray(0, -8), { "content-encoding": "zstd" }],
      damaged: [
        Buffer.concat([zstd.subarray(0, 40), Buffer.alloc(zstd.length - 40, 0x55)]),
        { "content-encoding": "zstd" },
      ],
      "cut within a line": [Buffer.from(text.slice(0, -30)), {}],
    }
    for (const [name, [body, headers]] of Object.entries(bodies)) {
      const reader = stores()
      const { url } = await pretending(({ path }, response) => {
        if (path === "/sync-events") return tells(response, SYNCED)
        response.writeHead(200, { "content-type": "application/x-ndjson", ...headers }).end(body)
      })
      const one = following(reader.store, { url })
      if (name.startsWith("cut")) {
        await one.reached("waiting")
        coded("ERR_UNREACHABLE", /ended/)(one.details.at(-1).error)
        assert.ok(name === "cut" || reader.store.sequence("a") === 18, "what came whole is kept")
      } else if (name === "damaged") {
        await assert.rejects(one.ended, coded("ERR_PROTOCOL", /damaged/))
      } else {
        await one.live()
        assert.deepEqual(logs(reader.store), logs(writer.store), name)
      }
      await one.stop()
      reader.store.close()
    }
    writer.store.close()
  })

  test("of 5,000 aggregates is asked for at once, compressed", async () => {
    const writer = stores()
    const reader = stores()
    const events = Array.from({ length: 5_000 }, (_, n) => event(`note ${n}`, 0))
    writer.store.replayAll(events)
    reader.store.replayAll(events)
    writer.store.run(writer.Written, { noteID: "note 4321" })
    const { url } = await serving(writer.store, { maxBodyBytes: 200_000 })
    await following(reader.store, { url }).live()
    assert.equal(reader.store.sequence("note 4321"), 1)
    for (const { store } of [reader, writer]) store.close()
  })
})

test("stopped in whichever state, it leaves nothing behind that keeps a process alive", async () => {
  const writer = stores()
  writer.store.run(writer.Written, { noteID: "a" })
  const { url } = await serving(writer.store)
  const silent = await pretending(() => {})
  const unannounced = await pretending(
    ({ path }, response) => path === "/sync-events" && tells(response, ": connected"),
  )
  const halfway = await pretending(({ path }, response) => {
    if (path === "/sync-events") return tells(response, SYNCED)
    response.writeHead(200, { "content-type": "application/x-ndjson" }).write(`${JSON.stringify(item("b", 0))}\n{`)
  })
  const gone = await pretending(() => {})
  await gone.stop()
  const busy = await pretending((_, response) => json(response, { code: "ERR_BUSY", message: "busy" }, 503))
  const visits = [
    { url: silent.url, status: "connecting", after: 10 },
    { url: unannounced.url, status: "connecting", after: 50 },
    { url: halfway.url, status: "catching-up", after: 50 },
    { url: halfway.url, status: "catching-up", after: 50, close: true },
    { url, status: "connecting" },
    { url, status: "catching-up" },
    { url, status: "live" },
    { url, status: "live", after: 20, close: true },
    { url: busy.url, status: "waiting", after: 10 },
    { url: busy.url, status: "waiting", after: 10, close: true },
    { url: gone.url, status: "waiting" },
  ]
  const [{ left }] = await endOf(start("sync-follower.js", { path: file(`${files++}.db`), visits }))
  assert.ok(left < 1_000, `${left} ms`)
  writer.store.close()
})
