"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, openNotes, turns } = require("./stores.js")
const { counted, deltas, heldMiB, named, newFile, until } = require("./streaming.js")

const DATABASE = { scope: "database" }

/** Two stores on one file, what listeners of either scope of the first one hear, and shorthands that record events. */
function together(options) {
  const given = deltas()
  const path = newFile()
  const errors = []
  const store = openNotes(given, { path, onListenerError: (...args) => errors.push(args), ...options })
  const other = openNotes(given, { path })
  const heard = []
  const own = []
  store.subscribeAll((event) => own.push(named(event)))
  store.subscribeAll((event) => heard.push(named(event)), DATABASE)
  const see = (by, noteID = "a", more = {}) => by.run(given.Seen, { noteID, ...more })
  const many = (by, noteID, count, more) =>
    by.runAll(Array.from({ length: count }, (_, n) => [given.Seen, { noteID, ...more?.(n) }]))
  return { given, store, other, errors, heard, own, see, many }
}

/** All recorded events of the file in the order of their commits, as the suites name them. */
const recorded = (store) => store.readAll({ limit: 100_000 }).map(({ aggregateID, seq }) => `${aggregateID}${seq}`)

describe("issue 3: scope database, further behind than a page", () => {
  /** So many events that no page holds them, small ones and large ones. */
  const manyOf = ({ many }, by, count = 5_000) =>
    many(by, "far", count, (n) => ({ text: n % 50 === 0 ? "x".repeat(100_000) : "" }))

  test("the process's listeners hear a local event at once, the database's hear all, in order of position", async () => {
    const scene = together()
    const { given, store, other, heard, own, see } = scene
    const positions = []
    store.subscribeAll(({ position }) => position !== undefined && positions.push(position), DATABASE)
    manyOf(scene, other)
    see(store, "near")
    assert.deepEqual(own, ["near0"])
    assert.equal(heard.includes("near0"), false)
    store.publish(given.Delta, { noteID: "near" })
    store.publish(given.Delta, { noteID: "far" })
    see(store, "near")
    assert.deepEqual(own, ["near0", "near(0)", "far(4999)", "near1"])
    await until(() => heard.includes("near1"))
    assert.deepEqual(heard.slice(5_000), ["near0", "near(0)", "far(4999)", "near1"])
    assert.deepEqual(
      heard.filter((name) => !name.includes("(")),
      recorded(store),
    )
    assert.deepEqual(
      positions,
      store.readAll({ limit: 10_000 }).map(({ position }) => position),
    )
  })

  test("listeners added meanwhile hear what is committed after their call, and no more", async () => {
    const scene = together()
    const { given, store, other, heard, see } = scene
    manyOf(scene, other)
    see(store, "near")
    store.publish(given.Delta, { noteID: "near" })
    const late = []
    store.subscribeAll((event) => late.push(named(event)), DATABASE)
    see(other, "b")
    see(store, "near")
    store.publish(given.Delta, { noteID: "near" })
    await until(() => heard.includes("near(1)"))
    assert.deepEqual(late, ["b0", "near1", "near(1)"])
    assert.deepEqual(
      heard.filter((name) => !name.includes("(")),
      recorded(store),
    )
  })

  test("an aggregate removed meanwhile: what was not heard is gone, its deletion event comes, nothing else is lost", async () => {
    const scene = together()
    const { given, store, other, errors, heard, see, many } = scene
    for (let n = 0; n < 30; n++) for (const noteID of ["x", "y", "z"]) many(other, noteID, 100)
    see(store, "near")
    other.remove("x", { event: [given.Written, { noteID: "x", text: "removed" }] })
    other.remove("z")
    see(other, "z")
    await until(() => heard.includes("z3000"))
    see(store, "near")
    const of = (noteID) => heard.filter((name) => name.startsWith(noteID)).map((name) => Number(name.slice(1)))
    assert.deepEqual(of("y"), counted(3_000))
    for (const [noteID, last] of Object.entries({ x: 3_000, z: 3_000 })) {
      const seqs = of(noteID)
      assert.equal(seqs.pop(), last)
      assert.deepEqual(seqs, counted(seqs.length))
      assert.ok(seqs.length < 3_000)
    }
    assert.ok(heard.indexOf("near0") > heard.indexOf("y2999"))
    assert.ok(heard.indexOf("x3000") > heard.indexOf("near0"))
    assert.equal(heard.at(-1), "near1")
    assert.equal(new Set(heard).size, heard.length)
    assert.deepEqual(errors, [])
  })

  test("closing in the midst ends it, without an error", async () => {
    for (const close of ["outside", "in a listener"]) {
      const scene = together()
      const { store, other, errors, heard, see } = scene
      let more = close === "outside" ? Infinity : 1_234
      store.subscribeAll(() => --more === 0 && store.close(), DATABASE)
      manyOf(scene, other)
      see(store, "near")
      if (close === "outside") store.close()
      else await until(() => more === 0)
      assert.throws(() => see(store), coded("ERR_CLOSED"))
      assert.ok(heard.length > 0 && heard.length <= 1_234)
      const { length } = heard
      see(other)
      await turns(20)
      assert.equal(heard.length, length)
      assert.deepEqual(errors, [])
    }
  })

  test("mistake 14: while a conversion is pending no more than a page is pulled, and nothing overflows", async () => {
    const pending = []
    const convertEvent = () => new Promise((resolve) => pending.push(resolve))
    const { store, other, errors, heard, own, see, many } = together({ convertEvent })
    see(other)
    await until(() => pending.length === 1)
    const before = heldMiB()
    for (let n = 0; n < 12; n++) many(other, "small", 1_000)
    for (let n = 0; n < 64; n++) see(other, "large", { text: "x".repeat(2 ** 20) })
    see(other, "end")
    await turns(50)
    const held = heldMiB() - before
    assert.ok(held < 24, `${held} MiB are held`)
    assert.equal(pending.length, 1)
    for (let n = 0; !heard.includes("end0"); n++) {
      await until(() => pending.length > n)
      pending[n]()
      pending[n] = undefined
      for (let turn = 0; turn < 3; turn++) await undefined
    }
    assert.deepEqual(heard, recorded(store))
    assert.deepEqual(errors, [])
    assert.deepEqual(own, [])
  })
})
