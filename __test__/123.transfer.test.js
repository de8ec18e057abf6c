"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { push, transfer } = require("syncline/http")
const { coded, dump, history, serialized } = require("./stores.js")
const { olderServer } = require("./older-server")
const { json, logs, page, pretending, serving, stores } = require("./sync-servers.js")

/** A desktop that owns a session of five events, served, and a phone. `at` is called when a path is asked for the `n`th time. */
async function devices(at = () => {}, desktopOptions = { owner: "desktop" }) {
  const desktop = stores(desktopOptions)
  const phone = stores({ owner: "phone" })
  for (let n = 0; n < 5; n++) desktop.write("s", `text ${n}`)
  const asked = {}
  const instead = (request, env) => {
    const { pathname } = new URL(request.url)
    asked[pathname] = (asked[pathname] ?? 0) + 1
    return at(pathname, asked[pathname], desktop, env)
  }
  const { url, stop } = await serving(desktop.store, { instead })
  return { desktop, phone, asked, url, stop, options: { url, aggregateID: "s", owner: "phone" } }
}

/** Neither side has another owner or epoch than before. */
function assertUntouched({ desktop, phone }, owner = "desktop", epoch = 1) {
  assert.deepEqual(desktop.store.owner("s"), { owner, epoch })
  assert.notEqual(phone.store.owner("s")?.owner, "phone")
}

/** The connection ends instead of an answer. */
function broken({ incoming }) {
  incoming.socket.destroy()
  return new Promise(() => {})
}
const failing = (code = "ERR_INTERNAL", status = 500) => Response.json({ code, message: "failed" }, { status })

describe("transfer", () => {
  test("takes an aggregate over: its history is here, its owner and epoch are the same on both sides", async () => {
    const { desktop, phone, options } = await devices()
    assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 4 })
    assert.deepEqual(logs(phone.store), logs(desktop.store))
    for (const { store } of [desktop, phone]) assert.deepEqual(store.owner("s"), { owner: "phone", epoch: 2 })
    assert.throws(() => desktop.write("s"), coded("ERR_NOT_OWNER", /./, { expected: "phone", got: "desktop" }))
    phone.write("s", "from the phone")
    const { url } = options
    assert.equal((await push(phone.store, { url, owner: "phone", epoch: 2 })).applied, 1)
    assert.deepEqual(logs(phone.store), logs(desktop.store))
    assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 5 })
  })

  test("goes to and fro", async () => {
    const { desktop, phone, options } = await devices()
    const back = await serving(phone.store)
    for (let round = 1; round <= 3; round++) {
      const there = await transfer(phone.store, options)
      assert.deepEqual(there, { owner: "phone", epoch: 2 * round, seq: 3 + 2 * round - 1 })
      phone.write("s")
      const here = await transfer(desktop.store, { url: back.url, aggregateID: "s", owner: "desktop" })
      assert.deepEqual(here, { owner: "desktop", epoch: 2 * round + 1, seq: 3 + 2 * round })
      desktop.write("s")
    }
  })

  test("brings what was written while it was being taken", async () => {
    const { desktop, phone, options } = await devices((path, _, { write }) => {
      if (path === "/sync/steal") write("s", "the last word")
    })
    assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 5 })
    assert.deepEqual(logs(phone.store), logs(desktop.store))
  })

  test("leaves other aggregates alone, and goes on behind what is held", async () => {
    const { desktop, phone, options } = await devices()
    desktop.write("other")
    phone.store.replayAll(desktop.store.read("s").slice(0, 3))
    await transfer(phone.store, options)
    assert.deepEqual(Object.fromEntries(phone.store.sequences()), { s: 4 })
  })

  test("takes what was erased, and what nobody owned", async () => {
    for (const change of [
      ({ store }) => store.remove("s"),
      ({ store, Seen }) => store.remove("s", { event: [Seen, { noteID: "s" }] }),
      ({ store }) => store.replay({ kind: "gap", aggregateID: "s", after: 4, through: 9 }),
    ]) {
      const { desktop, phone, options } = await devices(() => {}, {})
      change(desktop)
      const seq = desktop.store.sequence("s")
      assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 1, seq })
      assert.deepEqual(phone.store.owner("s"), { owner: "phone", epoch: 1 })
      assert.equal(phone.write("s").seq, seq + 1)
    }
  })

  test("takes what was claimed and never written, whatever the epochs", async () => {
    for (const [there, here] of [
      [["desktop"], []],
      [["desktop", null, "desktop"], []],
      [["desktop", "laptop"], []],
      [["desktop", null], ["phone"]],
      [["desktop", "laptop", "desktop"], ["phone"]],
      [
        ["desktop", "laptop"],
        ["laptop", null],
      ],
      [["phone"], []],
    ]) {
      const { desktop, phone, options } = await devices(() => {}, {})
      for (const owner of there) desktop.store.claim("empty", owner)
      for (const owner of here) phone.store.claim("empty", owner)
      const taken = await transfer(phone.store, { ...options, aggregateID: "empty" })
      assert.equal(taken.seq, -1)
      const owned = { owner: "phone", epoch: taken.epoch }
      for (const { store } of [desktop, phone]) assert.deepEqual(store.owner("empty"), owned, there.join())
    }
  })
})

describe("a transfer that cannot be", () => {
  test("is refused before anything is taken", async () => {
    const all = await devices()
    const { desktop, phone, options, asked } = all
    await assert.rejects(transfer(phone.store, { ...options, aggregateID: "x" }), coded("ERR_NOT_FOUND", /"x"/))
    phone.store.replayAll(desktop.store.read("s"))
    for (const owner of ["a", "b", "c"]) phone.store.claim("s", owner)
    await assert.rejects(transfer(phone.store, options), coded("ERR_CONFLICT", /epoch 3/, { expected: 2, got: 3 }))
    const other = stores()
    other.store.replay(serialized("written", 0, { noteID: "s", text: "another session" }))
    await assert.rejects(
      transfer(other.store, options),
      coded("ERR_REPLAY_DIVERGED", /./, { aggregateID: "s", seq: 0 }),
    )
    assertUntouched(all)
    assert.equal(asked["/sync/steal"], undefined)
  })

  test("because somebody else was faster", async () => {
    const all = await devices((path, _, { store }) => void (path === "/sync/steal" && store.claim("s", "laptop")))
    const { phone, options } = all
    await assert.rejects(
      transfer(phone.store, options),
      coded("ERR_CONFLICT", /./, { expected: 1, got: 2, status: 409 }),
    )
    assertUntouched(all, "laptop", 2)
  })

  test("because of its arguments", async () => {
    const { phone, options } = await devices()
    const invalid = (more, message) =>
      assert.rejects(transfer(phone.store, { ...options, ...more }), coded("ERR_INVALID_ARGUMENT", message))
    await invalid({ owner: "laptop" }, /the store's own, "phone"/)
    await invalid({ owner: undefined }, /owner/)
    await invalid({ aggregateID: undefined }, /aggregateID/)
    await invalid({ aggregates: ["s"] }, /no option "aggregates"/)
    await assert.rejects(transfer({}, options), coded("ERR_INVALID_ARGUMENT", /needs a store/))
    phone.store.close()
    await assert.rejects(transfer(phone.store, options), coded("ERR_CLOSED"))
  })

  test("because there is no such server", async () => {
    const { phone, options } = await devices()
    const older = await olderServer()
    const nobody = await pretending((_, response) => page(response))
    for (const { url } of [older, nobody]) {
      await assert.rejects(
        transfer(phone.store, { ...options, url }),
        coded("ERR_PROTOCOL", /sync\/sequences.*text\/html/),
      )
    }
    await nobody.stop()
    await assert.rejects(transfer(phone.store, { ...options, url: nobody.url }), coded("ERR_UNREACHABLE"))
  })
})

describe("what fails after the aggregate was taken", () => {
  test("hands it back to whom it belonged to, or to nobody", async () => {
    for (const owner of ["desktop", undefined]) {
      const at = (path, n) => (path === "/sync/history" && n === 2 ? failing() : undefined)
      const { desktop, phone, options } = await devices(at, { owner })
      const before = dump(phone.store)
      await assert.rejects(transfer(phone.store, options), coded("ERR_INTERNAL", /^failed$/))
      assert.equal(desktop.store.owner("s").owner, owner ?? null)
      assert.equal(phone.store.owner("s").owner, null)
      assert.equal(desktop.write("s").seq, 5)
      assert.deepEqual(before.length, dump(phone.store).length)
      const { epoch } = desktop.store.owner("s")
      const again = await transfer(phone.store, options)
      assert.deepEqual([again.seq, again.epoch > epoch], [5, true])
    }
  })

  test("also where this store refuses what was written between", async () => {
    const all = await devices((path, _, { store }) => {
      if (path === "/sync/steal") store.replay(serialized("odd", 5, { noteID: "s" }), { unknown: "record" })
    })
    const { desktop, phone, options } = all
    await assert.rejects(transfer(phone.store, options), coded("ERR_UNKNOWN_EVENT", /./, { seq: 5 }))
    assertUntouched({ desktop, phone }, "desktop", 3)
    assert.equal(phone.store.sequence("s"), 4)
  })

  test("and where others have claimed it here meanwhile", async () => {
    const all = await devices((path, n) => {
      if (path !== "/sync/steal" || n > 1) return
      for (const owner of ["a", "b", "c"]) all.phone.store.claim("s", owner)
    })
    const conflict = coded("ERR_CONFLICT", /of "c" here, in epoch 3/, { aggregateID: "s", expected: 2, got: 3 })
    await assert.rejects(transfer(all.phone.store, all.options), conflict)
    assertUntouched(all, "desktop", 3)
    assert.deepEqual(all.phone.store.owner("s"), { owner: "c", epoch: 3 })
  })

  test("and where its caller gives up", async () => {
    const enough = new AbortController()
    const all = await devices((path, n) => void (path === "/sync/history" && n === 2 && enough.abort("enough")))
    const aborted = coded("ERR_ABORTED", /./, { cause: "enough" })
    await assert.rejects(transfer(all.phone.store, { ...all.options, signal: enough.signal }), aborted)
    assertUntouched(all, "desktop", 3)
    await assert.rejects(transfer(all.phone.store, { ...all.options, signal: enough.signal }), aborted)
    assertUntouched(all, "desktop", 3)
  })

  test("is said together with why it could not be handed back", async () => {
    const at = (path, n) => {
      if (path === "/sync/history" && n === 2) return failing()
      return path === "/sync/steal" && n > 1 ? failing("ERR_CORRUPT") : undefined
    }
    const { desktop, phone, options } = await devices(at)
    await assert.rejects(transfer(phone.store, options), (error) => {
      coded("ERR_INTERNAL", /^failed; and then aggregate "s" could not be handed back to "desktop": failed$/)(error)
      assert.deepEqual(
        error.cause.errors.map(({ code }) => code),
        ["ERR_INTERNAL", "ERR_CORRUPT"],
      )
      return true
    })
    assert.deepEqual(desktop.store.owner("s"), { owner: "phone", epoch: 2 })
  })

  test("is tried again while the server is busy, or does not answer", async () => {
    const all = await devices((path, n, _, env) => {
      if (path === "/sync/history" && n === 2) return failing()
      if (path === "/sync/steal" && n === 2) return failing("ERR_BUSY", 503)
      return path === "/sync/steal" && n === 3 ? broken(env) : undefined
    })
    await assert.rejects(transfer(all.phone.store, all.options), coded("ERR_INTERNAL"))
    assertUntouched(all, "desktop", 3)
  })
})

describe("an answer that is lost", () => {
  test("to what was carried out is as good as one that came", async () => {
    const { desktop, phone, options } = await devices((path, _, { store }, env) => {
      if (path !== "/sync/steal") return undefined
      store.claim("s", "phone", { expectedEpoch: 1 })
      return broken(env)
    })
    assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 4 })
    for (const { store } of [desktop, phone]) assert.deepEqual(store.owner("s"), { owner: "phone", epoch: 2 })
  })

  test("to what was not carried out leaves everything as it was", async () => {
    const all = await devices((path, ...[, , env]) => (path === "/sync/steal" ? broken(env) : undefined))
    await assert.rejects(transfer(all.phone.store, all.options), coded("ERR_UNREACHABLE", /sync\/steal/))
    assertUntouched(all)
  })

  test("is said to be, where nobody can be asked about it", async () => {
    const all = await devices((path, n, _, env) => {
      if (path === "/sync/steal") return broken(env)
      return path === "/sync/sequences" && n > 1 ? failing("ERR_CORRUPT") : undefined
    })
    await assert.rejects(
      transfer(all.phone.store, all.options),
      coded("ERR_UNREACHABLE", /not known whether aggregate "s" was taken: failed/),
    )
  })

  test("because the caller gave up: what was carried out is handed back", async () => {
    const enough = new AbortController()
    const all = await devices((path, n, { store }, env) => {
      if (path !== "/sync/steal" || n > 1) return undefined
      store.claim("s", "phone", { expectedEpoch: 1 })
      enough.abort()
      return broken(env)
    })
    await assert.rejects(transfer(all.phone.store, { ...all.options, signal: enough.signal }), coded("ERR_ABORTED"))
    assertUntouched(all, "desktop", 3)
  })

  test("and so is a page in its place", async () => {
    const { phone, options } = await devices((path, _, { store }) => {
      if (path !== "/sync/steal") return undefined
      store.claim("s", "phone", { expectedEpoch: 1 })
      return new Response("<p>Gone for a moment", { headers: { "content-type": "text/html" } })
    })
    assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 4 })
  })

  test("of another shape is no answer", async () => {
    const position = { aggregateID: "s", seq: -1, owner: null, epoch: 0 }
    for (const said of [{}, ...[0, -1, 1.5, 1e300, 2 ** 53].map((epoch) => ({ owner: "me", epoch }))]) {
      const here = stores()
      const { url } = await pretending(({ path }, response) => {
        if (path === "/sync/sequences") return json(response, { aggregates: [position], next: null })
        if (path === "/sync/history") return response.writeHead(200, { "content-type": "application/x-ndjson" }).end()
        return json(response, said)
      })
      await assert.rejects(
        transfer(here.store, { url, aggregateID: "s", owner: "me" }),
        coded("ERR_PROTOCOL", /who owns/),
      )
      assert.equal(here.store.owner("s"), undefined)
    }
  })
})

test("a killed transfer is finished by the next one", async () => {
  const { desktop, phone, options } = await devices()
  desktop.store.claim("s", "phone")
  phone.store.replayAll(history("t", 1))
  assert.deepEqual(await transfer(phone.store, options), { owner: "phone", epoch: 2, seq: 4 })
})
