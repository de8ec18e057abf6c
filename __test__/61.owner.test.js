"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, dump, file, history, notes, openNotes, refused, serialized } = require("./stores.js")

/** Stores of one file, each with a name, or none. */
function owning(...names) {
  return names.map((owner) => {
    const given = notes()
    const store = openNotes(given, owner === undefined ? {} : { owner })
    const run = (noteID, options) => store.run(given.Written, { noteID }, options)
    const tag = (noteID) => store.run(given.Tagged, { noteID, tag: "t" })
    return { given, store, run, tag }
  })
}

const notOwner = (fields) => coded("ERR_NOT_OWNER", /./, fields)

describe("rule 19: running", () => {
  test("rule 19: a store with owner claims each aggregate it creates", () => {
    const [{ store, run, tag }] = owning("me")
    run("a")
    tag("b")
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    assert.deepEqual(store.owner("b"), { owner: "me", epoch: 1 })
    run("a")
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    assert.equal(store.owner("unknown"), undefined)
  })

  test("rule 19: it may only run on aggregates it owns or that nobody owns", () => {
    const [mine, yours, nobody] = owning("me", "you", undefined)
    mine.run("mine")
    nobody.run("free")
    for (const act of [yours.run, yours.tag]) {
      refused(yours.store, () => act("mine"), notOwner({ aggregateID: "mine", expected: "me", epoch: 1, got: "you" }))
    }
    const { given, store } = yours
    refused(
      store,
      () =>
        store.runAll([
          [given.Written, { noteID: "new" }],
          [given.Written, { noteID: "mine" }],
        ]),
      notOwner({}),
    )
    refused(store, () => store.remove("mine"), notOwner({}))
    refused(store, () => store.remove("mine", { event: [given.Seen, { noteID: "mine" }] }), notOwner({}))
    assert.equal(yours.run("free").seq, 1)
    assert.equal(mine.run("free").seq, 2)
    assert.deepEqual(store.owner("free"), { owner: null, epoch: 0 })
    assert.equal(nobody.run("mine").seq, 1)
  })

  test("rule 19: owner is checked before expectedSeq", () => {
    const [mine, yours] = owning("me", "you")
    mine.run("a")
    refused(yours.store, () => yours.run("a", { expectedSeq: 7 }), notOwner({}))
  })

  test("rule 19: the check is made inside the write transaction", () => {
    const [mine, yours] = owning("me", "you")
    yours.run("a")
    mine.store.claim("a", "me")
    refused(yours.store, () => yours.run("a"), notOwner({ expected: "me", epoch: 2 }))
    yours.store.claim("a", "you")
    refused(mine.store, () => mine.run("a"), notOwner({ expected: "you", epoch: 3 }))
    assert.equal(yours.run("a").seq, 1)
  })

  test("rule 19: inside a transaction a refusal is caught like any other", () => {
    const [mine, yours] = owning("me", "you")
    mine.run("a")
    yours.store.transaction(() => {
      yours.run("b")
      assert.throws(() => yours.run("a"), notOwner({}))
      yours.run("c")
    })
    assert.deepEqual(
      yours.store.aggregates().map(({ aggregateID, owner }) => [aggregateID, owner]),
      [
        ["a", "me"],
        ["b", "you"],
        ["c", "you"],
      ],
    )
  })
})

describe("rule 19: claim", () => {
  test("rule 19: by another owner raises the epoch, by the same one does not; release raises it", () => {
    const [{ store, run }] = owning(undefined)
    run("a")
    const steps = [
      ["me", { owner: "me", epoch: 1 }],
      ["me", { owner: "me", epoch: 1 }],
      ["you", { owner: "you", epoch: 2 }],
      [null, { owner: null, epoch: 3 }],
      [null, { owner: null, epoch: 3 }],
      ["you", { owner: "you", epoch: 4 }],
      ["me", { owner: "me", epoch: 5 }],
    ]
    for (const [owner, wanted] of steps) {
      assert.deepEqual(store.claim("a", owner), wanted)
      assert.deepEqual(store.owner("a"), wanted)
    }
    assert.equal(store.sequence("a"), 0)
    assert.deepEqual(store.aggregates(), [{ aggregateID: "a", seq: 0, owner: "me", epoch: 5 }])
  })

  test("rule 19: what another writes after a release is in no epoch of the owner, who does not get it back by a replay", () => {
    const [mine, yours] = owning("me", "you")
    mine.run("a")
    const { epoch } = mine.store.claim("a", null)
    yours.run("a")
    assert.deepEqual(yours.store.owner("a"), { owner: null, epoch })
    const again = mine.store.read("a", { limit: 1 })
    refused(mine.store, () => mine.store.replayAll(again, { owner: "me", epoch: epoch - 1 }), notOwner({ epoch }))
    assert.deepEqual(mine.store.claim("a", "me"), { owner: "me", epoch: epoch + 1 })
    refused(yours.store, () => yours.run("a"), notOwner({}))
  })

  test("rule 19: expectedEpoch that differs is a conflict", () => {
    const [{ store, run }] = owning(undefined)
    run("a")
    const claim = (owner, expectedEpoch) => store.claim("a", owner, { expectedEpoch })
    const conflict = (expected, got) => coded("ERR_CONFLICT", /"a"/, { expected, got, aggregateID: "a" })
    refused(store, () => claim("me", 1), conflict(1, 0))
    assert.deepEqual(claim("me", 0), { owner: "me", epoch: 1 })
    refused(store, () => claim("you", 0), conflict(0, 1))
    refused(store, () => claim("me", 0), conflict(0, 1))
    refused(store, () => claim(null, 2), conflict(2, 1))
    assert.deepEqual(claim("you", 1), { owner: "you", epoch: 2 })
    assert.deepEqual(claim(null, 2), { owner: null, epoch: 3 })
  })

  test("rule 19: an aggregate that nobody has written can be claimed, and starts at 0", () => {
    const [mine, yours] = owning("me", "you")
    assert.deepEqual(mine.store.claim("a", "me", { expectedEpoch: 0 }), { owner: "me", epoch: 1 })
    assert.equal(mine.store.sequence("a"), -1)
    refused(yours.store, () => yours.run("a"), notOwner({}))
    assert.equal(mine.run("a", { expectedSeq: -1 }).seq, 0)
    assert.deepEqual(mine.store.claim("never", null), { owner: null, epoch: 0 })
    assert.equal(mine.store.owner("never"), undefined)
  })

  test("rule 19: a claim commits at once, or with the transaction around it", () => {
    const [{ store }] = owning(undefined)
    assert.throws(() => store.transaction(() => (store.claim("a", "me"), assert.fail())))
    assert.equal(store.owner("a"), undefined)
    store.transaction(() => store.claim("a", "me"))
    store.close()
    const [{ store: again }] = owning(undefined)
    assert.deepEqual(again.owner("a"), { owner: "me", epoch: 1 })
  })

  test("wrong names and epochs are refused", () => {
    const [{ store }] = owning(undefined)
    for (const owner of ["", undefined, 1, {}, "\ud800"]) {
      refused(store, () => store.claim("a", owner), coded("ERR_INVALID_ARGUMENT"))
    }
    refused(store, () => store.claim("a", "x".repeat(256)), coded("ERR_TOO_LARGE", /owner/))
    for (const expectedEpoch of [-1, 0.5, "0", null, NaN]) {
      refused(store, () => store.claim("a", "me", { expectedEpoch }), coded("ERR_INVALID_ARGUMENT"))
    }
    refused(store, () => store.claim("a", "me", { epoch: 1 }), coded("ERR_INVALID_ARGUMENT"))
    refused(store, () => store.claim("", "me"), coded("ERR_INVALID_ARGUMENT"))
    assert.deepEqual(store.claim("a", "é".repeat(127)), { owner: "é".repeat(127), epoch: 1 })
    const opening = (owner) => () => openNotes(notes(), { owner, path: file("other.db") })
    for (const owner of ["", 1]) assert.throws(opening(owner), coded("ERR_INVALID_ARGUMENT", /owner/))
    assert.throws(opening("x".repeat(256)), coded("ERR_TOO_LARGE", /owner/))
  })
})

describe("rule 19: replay", () => {
  const items = history("a", 3)

  test("rule 19: with owner it claims an unowned aggregate, and refuses a different owner", () => {
    const [{ store }] = owning(undefined)
    store.replayAll(items.slice(0, 1))
    assert.deepEqual(store.owner("a"), { owner: null, epoch: 0 })
    store.replayAll(items.slice(0, 2), { owner: "me" })
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    refused(
      store,
      () => store.replayAll(items, { owner: "you" }),
      notOwner({ expected: "me", got: "you", aggregateID: "a" }),
    )
    refused(store, () => store.replayAll([...history("b", 2), ...items], { owner: "you" }), notOwner({}))
    store.replayAll([...items, ...history("b", 2)], { owner: "me" })
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 1 })
    assert.deepEqual(store.owner("b"), { owner: "me", epoch: 1 })
  })

  test("rule 19, mistake 6: a foreign owner is refused even where all are duplicates, never skipped in silence", () => {
    const [{ store }] = owning(undefined)
    store.replayAll(items, { owner: "me" })
    refused(store, () => store.replayAll(items, { owner: "you" }), notOwner({}))
    refused(
      store,
      () => store.replay({ kind: "gap", aggregateID: "a", after: 2, through: 4 }, { owner: "you" }),
      notOwner({}),
    )
    refused(store, () => store.replay({ kind: "removed", aggregateID: "a", seq: 4 }, { owner: "you" }), notOwner({}))
  })

  test("rule 19: with epoch, a lower one is refused and a higher one adopted", () => {
    const [{ store }] = owning(undefined)
    store.replay(items[0], { owner: "me", epoch: 5 })
    assert.deepEqual(store.owner("a"), { owner: "me", epoch: 5 })
    refused(store, () => store.replay(items[1], { owner: "me", epoch: 4 }), notOwner({ epoch: 5 }))
    refused(store, () => store.replay(items[1], { epoch: 4 }), notOwner({ epoch: 5 }))
    refused(store, () => store.replay(items[1], { owner: "you", epoch: 5 }), notOwner({ epoch: 5 }))
    store.replay(items[1], { owner: "you", epoch: 7 })
    assert.deepEqual(store.owner("a"), { owner: "you", epoch: 7 })
    store.replay(items[2], { owner: "you", epoch: 7 })
    store.replay(items[2], { epoch: 8 })
    assert.deepEqual(store.owner("a"), { owner: "you", epoch: 8 })
  })

  test("rule 19: without owner it neither checks nor claims", () => {
    const [{ store }] = owning("me")
    store.claim("a", "somebody")
    store.replayAll([...items, ...history("b", 1)])
    assert.deepEqual(store.owner("a"), { owner: "somebody", epoch: 1 })
    assert.deepEqual(store.owner("b"), { owner: null, epoch: 0 })
    assert.deepEqual(
      store.replayAll(items).map(({ duplicate }) => duplicate),
      [3],
    )
  })

  test("rule 19: a failed batch claims and adopts nothing", () => {
    const [{ store }] = owning(undefined)
    store.replayAll(items.slice(0, 1))
    const bad = serialized("seen", 9, { noteID: "a" })
    refused(store, () => store.replayAll([items[1], bad], { owner: "me", epoch: 3 }), coded("ERR_SEQUENCE_MISMATCH"))
    refused(store, () => store.replayAll([...history("b", 1), bad], { owner: "me" }), coded("ERR_SEQUENCE_MISMATCH"))
    assert.deepEqual(store.owner("a"), { owner: null, epoch: 0 })
  })

  test("rules 17 and 19: any cut claims the same", () => {
    const whole = openNotes(notes(), { path: ":memory:" })
    whole.replayAll(items, { owner: "me" })
    const single = openNotes(notes(), { path: ":memory:" })
    for (const item of items) single.replay(item, { owner: "me" })
    single.replayAll(items, { owner: "me" })
    assert.deepEqual(dump(single), dump(whole))
  })
})
