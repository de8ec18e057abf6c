"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, kept, notes, openNotes, turns } = require("./stores.js")

/** A store whose conversions are settled by hand, in any order. */
function converting(options) {
  const given = notes()
  const errors = []
  const heard = []
  const pending = []
  const store = openNotes(given, {
    convertEvent: (type, data) => new Promise((resolve, reject) => pending.push({ type, data, resolve, reject })),
    onListenerError: (error, event) => errors.push({ error, seq: event.seq, event }),
    ...options,
  })
  store.subscribeAll(({ seq, properties }) => heard.push([seq, properties]))
  const see = (n) => store.run(given.Seen, { noteID: "n", n })
  return { given, store, errors, heard, pending, see }
}

describe("rule 14: convertEvent", () => {
  test("rule 14: gets the unversioned type and the data, and its result is the properties", () => {
    const asked = []
    const { given, store, heard, see } = converting({
      convertEvent: (...args) => (asked.push(args), { converted: args[1].n }),
    })
    see(1)
    store.run(given.Tagged, { noteID: "n", tag: "t" })
    assert.deepEqual(asked, [
      ["note.seen", { noteID: "n", n: 1 }],
      ["note.tagged", { noteID: "n", tag: "t" }],
    ])
    assert.deepEqual(heard, [
      [0, { converted: 1 }],
      [1, { converted: undefined }],
    ])
  })

  test("rule 14: is called once an event, and not where nobody listens", () => {
    let calls = 0
    const given = notes()
    const store = openNotes(given, { convertEvent: () => ++calls })
    const run = () => store.run(given.Seen, { noteID: "n" })
    run()
    assert.equal(calls, 0)
    const heard = []
    const undos = [1, 2, 3].map(() => store.subscribe(given.Seen, ({ properties }) => heard.push(properties)))
    run()
    assert.equal(calls, 1)
    assert.deepEqual(heard, [1, 1, 1])
    undos.forEach((undo) => undo())
    store.subscribe(given.Written, () => {})
    run()
    assert.equal(calls, 1)
  })

  test("rule 14: what it does to the data changes neither the log nor what run returned", () => {
    const { store, see } = converting({
      convertEvent: (_type, data) => {
        data.n = "spoiled"
        return data
      },
    })
    const event = see(1)
    assert.equal(event.data.n, 1)
    assert.equal(store.get("n", 0).data.n, 1)
  })

  test("rule 14: while one is pending everything later waits behind it, and nothing is reordered", async () => {
    const { heard, pending, see } = converting()
    see(0)
    see(1)
    see(2)
    assert.equal(pending.length, 1)
    assert.deepEqual(heard, [])
    pending[0].resolve("zero")
    await turns(1)
    assert.deepEqual(heard, [[0, "zero"]])
    assert.equal(pending.length, 2)
    pending[1].resolve("one")
    await turns(1)
    pending[2].resolve("two")
    await turns(1)
    assert.deepEqual(heard, [
      [0, "zero"],
      [1, "one"],
      [2, "two"],
    ])
  })

  test("rule 14: sync and async results in any mixture keep their order", async () => {
    const { heard, see } = converting({
      convertEvent: (_type, { n }) => {
        if (n % 3 === 0) return n
        if (n % 3 === 1) return Promise.resolve(n)
        return new Promise((resolve) => setImmediate(resolve, n))
      },
    })
    const wanted = Array.from({ length: 30 }, (_, n) => [n, n])
    for (const [n] of wanted) see(n)
    await turns(40)
    assert.deepEqual(heard, wanted)
  })

  test("rule 14: a listener that runs events while others wait overtakes nobody", async () => {
    const { store, heard, pending, see } = converting()
    store.subscribeAll(({ seq }) => {
      if (seq === 0) see("from the listener")
    })
    see(0)
    see(1)
    for (let n = 0; n < 3; n++) {
      pending[n].resolve(n)
      await turns(1)
    }
    assert.deepEqual(
      heard.map(([seq]) => seq),
      [0, 1, 2],
    )
    assert.equal(store.get("n", 2).data.n, "from the listener")
    assert.deepEqual(
      pending.map(({ data }) => data.n),
      [0, 1, "from the listener"],
    )
  })

  test("rule 14: a throw or a rejection reaches onListenerError and drops that one delivery", async () => {
    const failure = new Error("convert")
    const { heard, errors, see } = converting({
      convertEvent: (_type, { n }) => {
        if (n === "throw") throw failure
        if (n === "reject") return Promise.reject(failure)
        return n
      },
    })
    const ns = [0, "throw", "reject", 3, "reject", "throw", 6]
    for (const n of ns) assert.equal(typeof see(n).seq, "number")
    await turns()
    assert.deepEqual(heard, [
      [0, 0],
      [3, 3],
      [6, 6],
    ])
    assert.deepEqual(
      errors.map(({ error, seq }) => [error, seq]),
      [1, 2, 4, 5].map((seq) => [failure, seq]),
    )
  })

  test("rule 14: a thenable that throws, or settles twice, delivers at most once", async () => {
    const { heard, errors, see } = converting({
      convertEvent: (_type, { n }) => ({
        // oxlint-disable-next-line unicorn/no-thenable -- any thenable counts as a pending conversion.
        then(resolve, reject) {
          if (n === "throw") throw new Error("then")
          resolve(n)
          resolve("again")
          reject(new Error("late"))
        },
      }),
    })
    see(0)
    see("throw")
    see(2)
    await turns()
    assert.deepEqual(heard, [
      [0, 0],
      [2, 2],
    ])
    assert.deepEqual(
      errors.map(({ seq }) => seq),
      [1],
    )
  })

  test("rule 14: a result that throws when it is looked at is that delivery's failure, and no other's", async () => {
    const failure = new Error("hostile")
    const get = () => {
      throw failure
    }
    const results = {
      thenable: Object.defineProperty({}, ["then"][0], { get }),
      promise: Object.defineProperty(Promise.resolve(), "constructor", { get }),
    }
    const { heard, errors, see } = converting({ convertEvent: (_type, { n }) => results[n] ?? n })
    for (const n of [0, "thenable", 2, "promise", 4]) see(n)
    await turns()
    assert.deepEqual(heard, [
      [0, 0],
      [2, 2],
      [4, 4],
    ])
    assert.deepEqual(
      errors.map(({ error, seq }) => [error, seq]),
      [
        [failure, 1],
        [failure, 3],
      ],
    )
  })

  test("rule 14: one who unsubscribes while it is pending hears nothing, one who comes late hears the next event", async () => {
    const { given, store, pending, see } = converting()
    const late = []
    const early = []
    const undo = store.subscribeAll(({ seq }) => early.push(seq))
    see(0)
    undo()
    store.subscribeAll(({ seq }) => late.push(`all ${seq}`))
    store.subscribe(given.Seen, ({ seq }) => late.push(`typed ${seq}`))
    see(1)
    pending[0].resolve()
    await turns(1)
    assert.deepEqual(late, [])
    pending[1].resolve()
    await turns(1)
    assert.deepEqual(early, [])
    assert.deepEqual(late, ["typed 1", "all 1"])
  })

  test("rule 14, mistake 14: at most 10,000 wait; past that ERR_OVERFLOW names the last seq", async () => {
    const { given, store, heard, errors, pending } = converting({ path: ":memory:" })
    const many = (count) => store.runAll(Array.from({ length: count }, () => [given.Seen, { noteID: "n" }]))
    many(10_001)
    assert.deepEqual(errors, [])
    many(5)
    many(5)
    assert.equal(errors.length, 1)
    coded("ERR_OVERFLOW", /10000|10,000/, { aggregateID: "n", seq: 10_000 })(errors[0].error)
    assert.equal(errors[0].event.seq, 10_001)
    for (let n = 0; n < pending.length; n++) {
      pending[n].resolve()
      await undefined
      await undefined
    }
    await turns()
    assert.deepEqual(
      heard.map(([seq]) => seq),
      Array.from({ length: 10_001 }, (_, seq) => seq),
    )
    assert.equal(store.sequence("n"), 10_010)
    many(1)
    pending.at(-1).resolve()
    await turns(1)
    assert.equal(heard.at(-1)[0], 10_011)
    assert.equal(errors.length, 1)
    many(10_002)
    assert.equal(errors.length, 2)
    assert.equal(errors[1].error.seq, 20_012)
  })

  test("rule 14: close drops what waits, and a conversion that ends later reaches nobody", async () => {
    const { store, heard, errors, pending, see } = converting()
    see(0)
    see(1)
    store.close()
    pending[0].resolve()
    await turns()
    assert.deepEqual(heard, [])
    assert.deepEqual(errors, [])
    assert.equal(pending.length, 1)
  })

  test("rule 14: a rejection after close is caught all the same", async () => {
    const { store, heard, pending, see } = converting()
    see(0)
    store.close()
    pending[0].reject(new Error("late"))
    await turns()
    assert.deepEqual(heard, [])
  })

  test("rule 14: replayed events are converted like all others", async () => {
    const { store, heard, pending } = converting()
    const item = { id: "e", type: "note.seen.1", seq: 0, aggregateID: "n", data: { noteID: "n", n: 5 } }
    store.replay(item, { publish: true })
    assert.deepEqual(pending[0].data, item.data)
    pending[0].resolve("x")
    await turns(1)
    assert.deepEqual(heard, [[0, "x"]])
  })

  test("what is no function is refused", () => {
    const { registry } = notes()
    for (const name of ["convertEvent", "onListenerError", "query", "migrate"]) {
      for (const value of [null, 1, {}]) {
        const opening = () => kept(":memory:", { registry, [name]: value })
        assert.throws(opening, coded("ERR_INVALID_ARGUMENT", new RegExp(name)))
      }
    }
    assert.equal(registry.frozen, false)
  })
})
