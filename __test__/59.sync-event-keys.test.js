"use strict"

const assert = require("node:assert/strict")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { afterEach, beforeEach, describe, test } = require("node:test")
const { z } = require("zod")
const { SyncEvent } = require("syncline/sync-event")
const { coded } = require("./stores.js")

let folder

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-sync-event-"))
})

afterEach(() => {
  try {
    SyncEvent.reset()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

describe("SyncEvent.define: compactKey and dedupe", () => {
  const schema = z.object({ sessionID: z.string(), item: z.object({ id: z.string(), at: z.number().optional() }) })
  const Ended = { type: "item.ended", version: 1, aggregate: "sessionID", schema }
  const Saved = { ...Ended, type: "item.saved" }
  const init = (projectors, name = "app") => SyncEvent.init({ path: join(folder, `${name}.db`), projectors })
  const item = (id, at) => ({ sessionID: "s", item: { id, at } })
  const seqs = (store) => store.read("s").map(({ seq }) => seq)
  const defined = (more) => {
    const ended = SyncEvent.define(Ended)
    const saved = SyncEvent.define({ ...Saved, compactKey: { path: "item.id", barriers: [ended] }, ...more })
    return { ended, saved, projectors: [ended, saved].map((definition) => SyncEvent.project(definition, () => {})) }
  }

  test("barriers are definitions of SyncEvent, also after a reset", async () => {
    const { ended, saved, projectors } = defined()
    for (const id of ["a", "b"]) {
      const store = init(projectors, id)
      for (let at = 0; at < 4; at++) SyncEvent.run(saved, item("x", at))
      SyncEvent.run(ended, item("x"))
      for (let at = 0; at < 4; at++) SyncEvent.run(saved, item("x", at))
      assert.equal((await store.maintain()).dropped, 4)
      assert.deepEqual(seqs(store), [0, 3, 4, 5, 8])
      SyncEvent.reset()
    }
  })

  test("a barrier of before a reset is still one, and need not be defined again", async () => {
    const { ended } = defined()
    SyncEvent.reset()
    const saved = SyncEvent.define({ ...Saved, compactKey: { path: "item.id", barriers: [ended] } })
    init([SyncEvent.project(saved, () => {})])
    assert.deepEqual([...SyncEvent.registry.values()], [saved])
    SyncEvent.run(saved, item("x"))
  })

  test("a run that says nothing new stores nothing and is heard by nobody", () => {
    const { ended, saved, projectors } = defined({ dedupe: ["item.at"] })
    const store = init(projectors)
    const heard = []
    SyncEvent.subscribeAll(({ event }) => heard.push(event.seq))
    const first = SyncEvent.run(saved, item("x", 1))
    const again = SyncEvent.run(saved, item("x", 2))
    assert.equal(again.unchanged, true)
    assert.deepEqual([again.id, again.seq, again.data.item.at], [first.id, 0, 1])
    SyncEvent.run(ended, item("x"))
    assert.equal(SyncEvent.run(saved, item("x", 3)).seq, 2)
    assert.deepEqual(heard, [0, 1, 2])
    assert.deepEqual(seqs(store), [0, 1, 2])
  })

  test("a string is a path without barriers; what is wrong is refused, and defines nothing", () => {
    const invalid = (more, pattern) => {
      assert.throws(() => SyncEvent.define({ ...Saved, ...more }), coded("ERR_INVALID_ARGUMENT", pattern))
    }
    const barriers = (...list) => ({ compactKey: { path: "item.id", barriers: list } })
    for (const strange of [undefined, null, 1, "item.ended", {}, Ended]) invalid(barriers(strange), /SyncEvent/)
    for (const list of [null, 1, "x", {}]) invalid({ compactKey: { path: "item.id", barriers: list } }, /barriers/)
    for (const compactKey of [null, 1, "", "a..b", {}, { path: 1 }, { path: "a", more: 1 }])
      invalid({ compactKey }, /./)
    invalid({ dedupe: [] }, /compactKey/)
    assert.equal(SyncEvent.registry.size, 0)
    SyncEvent.define({ ...Saved, compactKey: "item.id" })
    assert.equal(SyncEvent.registry.size, 1)
  })
})
