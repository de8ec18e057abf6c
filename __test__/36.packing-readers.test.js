"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { history, notes, openNotes, rows, serialized, turns } = require("./stores.js")

/** A store that packs only when it is told to. */
const quiet = (given, options) => openNotes(given, { packing: false, ...options })

describe("readers that are behind while events are packed", () => {
  test("listeners of the database get each event once, in order, whoever packs in between", async () => {
    const given = notes()
    const writer = quiet(given)
    const reader = quiet(given, { path: writer.db.name })
    const heard = []
    reader.subscribeAll((event) => heard.push([event.aggregateID, event.seq]), { scope: "database" })
    const due = []
    for (let round = 0; round < 6; round++) {
      writer.transaction(() => {
        for (let n = 0; n < 900; n++) {
          const noteID = `note ${n % 7}`
          due.push([noteID, writer.run(given.Seen, { noteID }).seq])
        }
      })
      await writer.maintain(round % 2 === 0 ? {} : { budget: 1 })
      due.push(["mine", reader.run(given.Seen, { noteID: "mine" }).seq])
      await reader.maintain({ budget: 1 })
    }
    while (heard.length < due.length) await turns(1)
    await turns(20)
    assert.deepEqual(heard, due)
  })

  test("stream, changes and waitFor", async () => {
    const given = notes()
    const writer = quiet(given)
    const reader = quiet(given, { path: writer.db.name })
    writer.run(given.Seen, { noteID: "a" })
    const controller = new AbortController()
    const streamed = []
    const streaming = (async () => {
      for await (const { seq } of reader.stream({ signal: controller.signal })) {
        streamed.push(seq)
        if (streamed.length === 600) return
      }
    })()
    const hints = new Map()
    const changing = (async () => {
      for await (const change of reader.changes({ signal: controller.signal })) {
        if (change.kind === "hint") hints.set(change.aggregateID, change.seq)
        if (hints.get("a") === 600) return
      }
    })()
    await turns()
    const waiting = reader.waitFor({ a: 600 })
    for (let n = 0; n < 600; n++) {
      writer.run(given.Seen, { noteID: "a" })
      if (n % 100 === 99) await writer.maintain()
    }
    await Promise.all([streaming, changing, waiting])
    controller.abort()
    assert.deepEqual(
      streamed,
      Array.from({ length: 600 }, (_, n) => n + 1),
    )
  })
})

test("an event that a removal has passed is told once, packed or not", async () => {
  const given = notes()
  const store = quiet(given)
  store.replayAll(history("a", 10))
  await store.maintain()
  const deletion = serialized("tagged", 10, { noteID: "a", tag: "gone" })
  store.replay(deletion)
  await store.maintain()
  const heard = []
  const other = quiet(given, { path: store.db.name })
  other.subscribeAll((event) => heard.push(event.seq), { scope: "database" })
  store.replay({ kind: "removed", aggregateID: "a", seq: 10, event: deletion })
  store.run(given.Seen, { noteID: "a" })
  while (heard.at(-1) !== 11) await turns(1)
  // The deletion event was there before the listener came.
  assert.deepEqual(heard, [11])
  assert.deepEqual(rows(store, "SELECT tag FROM tag WHERE tag = 'gone'"), [["gone"]])
})
