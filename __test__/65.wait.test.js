"use strict"

const assert = require("node:assert/strict")
const { getEventListeners } = require("node:events")
const { describe, test } = require("node:test")
const { coded, history, openNotes, turns } = require("./stores.js")
const { counted, deltas, openTogether } = require("./streaming.js")

/** Three stores on one file, and a shorthand that records an event. */
function together() {
  const { given, path, stores } = openTogether(3)
  const [store, other, third] = stores
  const see = (by, noteID = "a") => by.run(given.Seen, { noteID })
  return { given, path, store, other, third, see }
}

/** Whether a promise is settled, and how, once it has had every chance to be. */
async function state(promise, patience = 10) {
  let found = "pending"
  promise.then(
    () => (found = "resolved"),
    (error) => (found = error.code),
  )
  await turns(patience)
  return found
}

/** Starts to wait; a wrong argument may be thrown or rejected. */
const waiting = async (store, ...args) => store.waitFor(...args)

describe("issue 3: store.waitFor", () => {
  test("resolves with undefined where everything is held already", async () => {
    const { store, see } = together()
    for (let n = 0; n < 3; n++) see(store)
    see(store, "b")
    const held = [{}, new Map(), { a: 2 }, { a: 0, b: 0 }, new Map([["a", 1]]), new Map(Object.entries({ b: 0, a: 2 }))]
    for (const wanted of held) {
      assert.equal(await store.waitFor(wanted), undefined)
      assert.equal(await store.waitFor(wanted, { timeout: 0 }), undefined)
    }
    assert.equal(await state(store.waitFor({ a: 2 }), 2), "resolved")
  })

  test("resolves when this store has recorded, replayed, skipped or removed through the seq, and not before", async () => {
    const { given, store, see } = together()
    const acts = [
      () => see(store),
      () => store.transaction(() => (see(store), see(store))),
      () => store.replayAll(history("a", 2, 3)),
      () => store.replay({ kind: "gap", aggregateID: "a", after: 4, through: 9 }),
      () => store.remove("a", { event: [given.Seen, { noteID: "a" }] }),
      () => store.runAsync(given.Seen, { noteID: "a" }, { publish: false }),
    ]
    for (const act of acts) {
      const before = store.sequence("a")
      const next = store.waitFor({ a: before + 1 })
      const later = store.waitFor(new Map([["a", 1_000]])).catch((error) => error)
      see(store, "unrelated")
      assert.equal(await state(next), "pending")
      await act()
      assert.equal(await next, undefined)
      assert.equal(await state(later), "pending")
    }
    store.close()
  })

  test("resolves when another store has recorded it", async () => {
    const { store, other, third, see } = together()
    const both = store.waitFor({ a: 1, b: 0 })
    const first = store.waitFor({ a: 0 })
    see(other)
    await first
    assert.equal(await state(both), "pending")
    see(third, "b")
    assert.equal(await state(both, 30), "pending")
    see(other)
    assert.equal(await both, undefined)
    assert.equal(await store.waitFor({ a: 1, b: 0 }), undefined)
    assert.equal(await third.waitFor({ a: 1, b: 0 }), undefined)
  })

  test("read your writes: whatever another store has recorded is held once it resolves", async () => {
    const { store, other, see } = together()
    for (let n = 0; n < 50; n++) {
      const waited = n % 2 ? undefined : store.waitFor({ a: n })
      const { seq } = see(other)
      await (waited ?? store.waitFor({ a: seq }, { timeout: 20_000 }))
      assert.equal(store.get("a", seq)?.seq, n)
    }
  })

  test("rolled back or uncommitted, it is not held", async () => {
    const { store, see } = together()
    let inside
    const doomed = () => {
      see(store)
      inside = store.waitFor({ a: 0 })
      assert.fail("on purpose")
    }
    assert.throws(() => store.transaction(doomed), /on purpose/)
    assert.equal(await state(inside), "pending")
    see(store)
    assert.equal(await inside, undefined)
    let committed
    store.transaction(() => {
      see(store)
      committed = store.waitFor({ a: 1 })
    })
    assert.equal(await committed, undefined)
  })

  test("many aggregates, and many at once", async () => {
    const { given, store, other } = together()
    const ids = counted(3_000).map((n) => `n${n}`)
    const all = store.waitFor(Object.fromEntries(ids.map((id) => [id, 0])))
    const each = ids.map((id) => store.waitFor({ [id]: 0 }))
    const twice = ids.map((id) => store.waitFor({ [id]: 1 }, { timeout: 30_000 }))
    other.runAll(ids.map((noteID) => [given.Seen, { noteID }]))
    await Promise.all([all, ...each])
    store.runAll(ids.map((noteID) => [given.Seen, { noteID }]))
    await Promise.all(twice)
  })

  test("ids that an object has from elsewhere are ids like others", async () => {
    const { store, see } = together()
    for (const noteID of ["__proto__", "constructor", "toString", "0"]) see(store, noteID)
    const wanted = JSON.parse('{"__proto__":0,"constructor":0,"toString":0,"0":0}')
    assert.equal(await store.waitFor(wanted, { timeout: 5_000 }), undefined)
    const error = coded("ERR_TIMEOUT", /valueOf/, { aggregateID: "valueOf", expected: 0, got: -1 })
    await assert.rejects(store.waitFor({ valueOf: 0 }, { timeout: 5 }), error)
  })

  test("a raw transaction on this connection delays it, no more", async () => {
    const { store, other, see } = together()
    store.db.exec("BEGIN")
    store.db.prepare("SELECT count(*) FROM note").get()
    const waited = store.waitFor({ a: 0 })
    see(other)
    await turns(50)
    store.db.exec("COMMIT")
    assert.equal(await waited, undefined)
  })

  test("in memory, read-only and with record: false", async () => {
    const { given, path, see, other } = together()
    const memory = openNotes(deltas(), { path: ":memory:" })
    memory.replayAll(history("a", 1))
    assert.equal(await memory.waitFor({ a: 0 }), undefined)
    const waited = memory.waitFor({ a: 1 })
    memory.replayAll(history("a", 1, 1))
    assert.equal(await waited, undefined)
    for (const options of [{ readonly: true }, { record: false }]) {
      const store = openNotes(given, { path, ...options })
      const next = store.waitFor({ a: store.sequence("a") + 1 })
      see(other)
      assert.equal(await next, undefined)
    }
  })
})

describe("issue 3: what ends waitFor", () => {
  test("its time: ERR_TIMEOUT names the first aggregate that is missing", async () => {
    const { store, see } = together()
    see(store)
    see(store)
    const waited = (ms) => (error) => (
      assert.ok(error.waited >= ms && error.waited < 20_000, `${error.waited} ms`),
      true
    )
    const fails = async (wanted, timeout, fields) => {
      const started = performance.now()
      await assert.rejects(store.waitFor(wanted, { timeout }), (error) => {
        coded("ERR_TIMEOUT", new RegExp(`"${fields.aggregateID}"`), fields)(error)
        assert.doesNotMatch(error.message, /undefined|NaN/)
        return waited(timeout - 1)(error)
      })
      assert.ok(performance.now() - started >= timeout - 2)
    }
    await fails({ a: 2 }, 30, { aggregateID: "a", expected: 2, got: 1 })
    await fails({ a: 1, b: 3, c: 0 }, 5, { aggregateID: "b", expected: 3, got: -1 })
    await fails({ b: 3 }, 0, { aggregateID: "b", expected: 3, got: -1 })
    const partly = fails({ a: 2, b: 1 }, 300, { aggregateID: "b", expected: 1, got: 0 })
    see(store)
    see(store, "b")
    await partly
  })

  test("a commit in time is none, and a long time-out is none at all", async () => {
    const { store, see } = together()
    const long = store.waitFor({ a: 0 }, { timeout: 2 ** 31 - 1 })
    assert.equal(await state(long), "pending")
    see(store)
    assert.equal(await long, undefined)
  })

  test("the signal: ERR_ABORTED with its reason, before and meanwhile", async () => {
    const { store, see } = together()
    const reason = new Error("enough")
    const aborted = coded("ERR_ABORTED", /./, { cause: reason })
    await assert.rejects(waiting(store, { a: 0 }, { signal: AbortSignal.abort(reason) }), aborted)
    const controller = new AbortController()
    const waits = counted(3).map(() => waiting(store, { a: 0 }, { signal: controller.signal, timeout: 60_000 }))
    assert.equal(await state(waits[0]), "pending")
    controller.abort(reason)
    for (const waited of waits) await assert.rejects(waited, aborted)
    see(store)
    assert.equal(await store.waitFor({ a: 0 }), undefined)
  })

  test("whatever the outcome, nothing is left with the signal", async () => {
    const { store, see } = together()
    const { signal } = new AbortController()
    const listeners = () => getEventListeners(signal, "abort").length
    await store.waitFor({}, { signal })
    assert.equal(listeners(), 0)
    await assert.rejects(store.waitFor({ a: 0 }, { signal, timeout: 5 }), coded("ERR_TIMEOUT"))
    assert.equal(listeners(), 0)
    for (let n = 0; n < 20; n++) {
      const waited = store.waitFor({ a: n }, { signal })
      see(store)
      await waited
    }
    assert.equal(listeners(), 0)
    await assert.rejects(waiting(store, { a: -7 }, { signal }), coded("ERR_INVALID_ARGUMENT"))
    const last = assert.rejects(store.waitFor({ a: 100 }, { signal }), coded("ERR_CLOSED"))
    store.close()
    await last
    assert.equal(listeners(), 0)
    await assert.rejects(waiting(store, { a: 0 }, { signal }), coded("ERR_CLOSED"))
    assert.equal(listeners(), 0)
  })

  test("close: ERR_CLOSED for all that wait, and for who comes later", async () => {
    const { store, other, see } = together()
    see(store)
    const waits = counted(5).map((n) => store.waitFor({ a: n + 1 }, n % 2 ? { timeout: 60_000 } : {}))
    store.close()
    see(other)
    for (const waited of waits) await assert.rejects(waited, coded("ERR_CLOSED"))
    await assert.rejects(waiting(store, { a: 0 }), coded("ERR_CLOSED"))
  })

  test("wrong arguments", async () => {
    const { store, see } = together()
    see(store)
    const refused = coded("ERR_INVALID_ARGUMENT")
    for (const wanted of [undefined, null, 5, "a", ["a"], [["a", 0]]]) {
      await assert.rejects(waiting(store, wanted), refused, String(wanted))
    }
    for (const seq of [-2, 0.5, NaN, Infinity, 2 ** 53, "0", null, undefined, 0n, {}]) {
      await assert.rejects(waiting(store, { a: seq }), refused, String(seq))
      await assert.rejects(waiting(store, new Map([["a", seq]])), refused, String(seq))
    }
    for (const id of ["", 5, null, {}]) await assert.rejects(waiting(store, new Map([[id, 0]])), refused, String(id))
    await assert.rejects(waiting(store, { "": 0 }), refused)
    await assert.rejects(waiting(store, { ["x".repeat(9_000)]: 0 }), coded("ERR_TOO_LARGE"))
    for (const timeout of [-1, 0.5, NaN, Infinity, "5", null, 2 ** 31]) {
      await assert.rejects(waiting(store, { a: 0 }, { timeout }), refused, String(timeout))
    }
    for (const options of [null, 5, [], { signal: {} }, { timeOut: 5 }]) {
      await assert.rejects(waiting(store, { a: 0 }, options), refused)
    }
    for (const options of [undefined, {}, { timeout: undefined, signal: undefined }]) {
      assert.equal(await store.waitFor({ a: 0 }, options), undefined)
    }
  })
})
