"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, collected, dump, noteRows, notes, openNotes, refused, serialized, tagRows } = require("./stores.js")

describe("rule 12: record: false", () => {
  test("rule 12: runs project and publish, and store nothing of the log", async () => {
    const given = notes()
    const recording = openNotes(given)
    recording.run(given.Written, { noteID: "n", text: "recorded" })
    const log = (store) => dump(store).filter(([name]) => name.startsWith("event"))
    const before = log(recording)
    recording.close()

    const store = openNotes(given, { record: false })
    const heard = []
    store.subscribeAll(({ type, seq, data }) => heard.push([type, seq, data.noteID]))
    const event = store.run(given.Written, { noteID: "n", text: "passing" }, { metadata: { m: 1 } })
    store.run(given.Tagged, { noteID: "new", tag: "t" })
    store.runAll([[given.Seen, { noteID: "n" }]])
    assert.equal(event.seq, -1)
    assert.match(event.id, /^evt_/)
    assert.deepEqual(event.metadata, { m: 1 })
    assert.deepEqual(heard, [
      ["note.written", -1, "n"],
      ["note.tagged", -1, "new"],
      ["note.seen", -1, "n"],
    ])
    assert.deepEqual(noteRows(store), [["n", "passing", -1]])
    assert.deepEqual(tagRows(store), [["new", "t", -1]])
    assert.deepEqual(log(store), before)
    assert.equal(store.sequence("n"), 0)
    assert.equal(store.sequence("new"), -1)
    assert.deepEqual(
      (await collected(store.log({ aggregateID: "new" }))).map(({ kind }) => kind),
      ["synced"],
    )
  })

  test("rule 12: expectedSeq, replay and remove are refused", async () => {
    const given = notes()
    const store = openNotes(given, { record: false })
    const refuse = (fn) => refused(store, fn, coded("ERR_INVALID_ARGUMENT", /record/))
    refuse(() => store.run(given.Written, { noteID: "n" }, { expectedSeq: -1 }))
    refuse(() => store.runAll([[given.Written, { noteID: "n" }]], { expectedSeq: -1 }))
    refuse(() => store.replay(serialized("written", 0, { noteID: "n" })))
    refuse(() => store.replayAll([]))
    refuse(() => store.remove("n"))
    await assert.rejects(store.replayAllAsync([]), coded("ERR_INVALID_ARGUMENT", /record/))
  })

  test("rule 12: transactions, failures and asynchronous runs are as ever", async () => {
    const given = notes()
    const store = openNotes(given, { record: false })
    const heard = []
    store.subscribeAll(({ data }) => heard.push(data.noteID))
    store.transaction(() => {
      store.run(given.Written, { noteID: "a" })
      assert.throws(() =>
        store.transaction(() => {
          store.run(given.Written, { noteID: "b" })
          throw new Error("inner")
        }),
      )
      assert.deepEqual(heard, [])
    })
    assert.equal((await store.runAsync(given.Written, { noteID: "c" })).seq, -1)
    assert.deepEqual(heard, ["a", "c"])
    assert.deepEqual(
      noteRows(store).map(([id]) => id),
      ["a", "c"],
    )
    refused(store, () => store.run(given.Written, { noteID: "n", text: 1 }), coded("ERR_INVALID_DATA"))
    assert.throws(() => openNotes(notes(), { record: "no" }), coded("ERR_INVALID_ARGUMENT", /record/))
  })
})
