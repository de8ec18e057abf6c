"use strict"

// The log as text: what each line says, which aggregates are in it, and that reading it disturbs nobody.

const assert = require("node:assert/strict")
const { createHash } = require("node:crypto")
const { describe, test } = require("node:test")
const { openSessions, sessionsText } = require("./sessions.js")
const { coded, collected, history, kept, notes, openNotes, refused, serialized, turns } = require("./stores.js")

const textOf = async (exported) => (await collected(exported)).join("")
const itemsOf = async (exported) => (await textOf(exported)).trimEnd().split("\n").slice(1, -1).map(JSON.parse)
/** What a reader of each aggregate's log would get, one aggregate after the other. */
const logOf = async (store, ids) => {
  const items = []
  for (const aggregateID of ids) items.push(...(await collected(store.log({ aggregateID }))))
  return items
}
const aggregatesOf = (items) => items.filter(({ kind }) => kind === "synced").map(({ aggregateID }) => aggregateID)

/** A store with one aggregate of each kind, in the order of their creation. */
function scene(options) {
  const given = notes()
  const store = openNotes(given, options)
  const { Seen } = given
  store.claim("claimed", "somebody")
  store.replayAll([
    ...history("z", 2),
    { kind: "gap", aggregateID: "z", after: 1, through: 4 },
    serialized(
      "seen",
      5,
      { noteID: "z", text: 'line\n"quoted" \u2028 ü 🙂 \ud800' },
      { created: 5, metadata: { by: "me" } },
    ),
  ])
  store.replayAll([...history("told", 3), ...history("silent", 3), ...history("again", 3)])
  store.remove("told", { event: [Seen, { noteID: "told", why: "old\n" }] })
  store.remove("silent")
  store.remove("again")
  store.run(Seen, { noteID: "again" })
  return { ...given, store, ids: ["z", "told", "silent", "again"] }
}

describe("the text of an export", () => {
  test("is a header, the log of each aggregate in the order of creation, and a closing line", async () => {
    const { store, ids } = scene()
    const before = Date.now()
    const text = await textOf(store.export())
    assert.ok(text.endsWith("\n"))
    const lines = text.slice(0, -1).split("\n")
    const header = JSON.parse(lines[0])
    assert.ok(header.created >= before && header.created <= Date.now())
    assert.equal(lines[0], `{"syncline":"export","version":1,"created":${header.created}}`)
    const wanted = await logOf(store, ids)
    assert.deepEqual(lines.slice(1, -1).map(JSON.parse), wanted)
    // To the byte: what JavaScript would write, so that whoever reads it finds nothing else.
    assert.deepEqual(
      lines.slice(1, -1),
      wanted.map((item) => JSON.stringify(item)),
    )
    const sums = { aggregates: 4, events: 4, gaps: 1, removed: 3 }
    const body = text.slice(0, text.lastIndexOf("\n", text.length - 2) + 1)
    const sha256 = createHash("sha256").update(body).digest("hex")
    assert.equal(lines.at(-1), JSON.stringify({ kind: "end", ...sums, bytes: Buffer.byteLength(body), sha256 }))
  })

  test("of an empty log, and of one that only knows who may write, has no items", async () => {
    const store = openNotes(notes())
    assert.deepEqual(await itemsOf(store.export()), [])
    store.claim("a", "somebody")
    const lines = (await textOf(store.export())).trimEnd().split("\n")
    assert.equal(lines.length, 2)
    const { kind, aggregates, events } = JSON.parse(lines[1])
    assert.deepEqual({ kind, aggregates, events }, { kind: "end", aggregates: 0, events: 0 })
  })

  for (const compact of [false, true]) {
    test(`of packed ${compact ? "and compacted " : ""}histories is that of the log`, async () => {
      const store = openSessions(":memory:", { compact })
      store.replayAll(sessionsText())
      const ids = [...store.sequences().keys()]
      await store.maintain()
      assert.equal(store.stats().packedShare, 1)
      const wanted = await logOf(store, ids)
      assert.equal(
        wanted.some(({ kind }) => kind === "gap"),
        compact,
      )
      const text = await textOf(store.export())
      assert.deepEqual(
        text.trimEnd().split("\n").slice(1, -1),
        wanted.map((item) => JSON.stringify(item)),
      )
    })
  }

  test("comes in chunks of whole lines of at most 64 KiB, a longer line alone", async () => {
    const given = notes()
    const store = openNotes(given)
    for (let n = 0; n < 300; n++)
      store.run(given.Seen, { noteID: `n${n % 3}`, text: "é".repeat(n === 100 ? 200_000 : 400) })
    const chunks = await collected(store.export())
    for (const chunk of chunks) {
      assert.ok(chunk.endsWith("\n"))
      const size = Buffer.byteLength(chunk)
      assert.ok(size <= 64 * 1024 || chunk.indexOf("\n") === chunk.length - 1, `${size} bytes`)
    }
    assert.ok(chunks.length > 3 && chunks.length < 20)
    assert.equal(JSON.parse(chunks.at(-1)).events, 300)
  })

  test("is read anew by each iteration", async () => {
    const { store, Seen } = scene()
    const exported = store.export()
    const before = await itemsOf(exported)
    store.run(Seen, { noteID: "new" })
    assert.equal((await itemsOf(exported)).length, before.length + 2)
  })

  test("of a log that has lost events is ERR_CORRUPT, before anything says that it is whole", async () => {
    const { store } = scene()
    store.db.exec("DELETE FROM event WHERE seq = 0")
    const given = []
    const read = async () => {
      for await (const chunk of store.export()) given.push(chunk)
    }
    await assert.rejects(read(), coded("ERR_CORRUPT", /"z"/))
    assert.ok(!given.join("").includes('"kind":"end"'))
  })
})

describe("after", () => {
  test("leaves out what the reader holds, aggregates without news altogether", async () => {
    const { store, Seen } = scene()
    const after = store.sequences()
    assert.deepEqual(aggregatesOf(await itemsOf(store.export({ after }))), ["told", "silent"])
    store.run(Seen, { noteID: "z" })
    store.run(Seen, { noteID: "new" })
    store.remove("again")
    const items = await itemsOf(store.export({ after }))
    // Who stands exactly at a tombstone may have been there before the removal.
    assert.deepEqual(aggregatesOf(items), ["z", "told", "silent", "again", "new"])
    assert.deepEqual(
      items.filter(({ kind }) => kind === "event").map(({ event }) => [event.aggregateID, event.seq]),
      [
        ["z", 6],
        ["new", 0],
      ],
    )
    assert.deepEqual(await itemsOf(store.export({ after: Object.fromEntries(after) })), items)
  })

  test("takes seqs of aggregates that the log does not have, and seqs that it has not reached", async () => {
    const { store } = scene()
    const after = { elsewhere: 5, z: 99, told: 99, silent: 99, again: -1 }
    assert.deepEqual(aggregatesOf(await itemsOf(store.export({ after }))), ["again"])
  })

  test("what is exported bit by bit gives the reader the same tables", async () => {
    const { store, Seen, Written } = scene()
    const reader = openNotes(notes(), { path: ":memory:" })
    for (let round = 0; round < 5; round++) {
      await reader.import(store.export({ after: reader.sequences() }))
      if (round % 2 === 0) store.run(Written, { noteID: `n${round}`, text: "new" })
      if (round === 1) store.remove("z")
      if (round === 3) store.run(Seen, { noteID: "z" })
    }
    await reader.import(store.export({ after: reader.sequences() }))
    assert.deepEqual(await itemsOf(reader.export()), await itemsOf(store.export()))
  })
})

describe("aggregates", () => {
  test("are exported alone, once, in the order in which they are named", async () => {
    const { store } = scene()
    for (const aggregates of [["told", "z", "told"], new Set(["told", "z"])]) {
      const items = await itemsOf(store.export({ aggregates }))
      assert.deepEqual(items, await logOf(store, ["told", "z"]))
    }
    assert.deepEqual(await itemsOf(store.export({ aggregates: [] })), [])
    assert.deepEqual(await itemsOf(store.export({ aggregates: ["claimed"] })), [])
  })

  test("without news are left out as well", async () => {
    const { store } = scene()
    const { z, told } = Object.fromEntries(store.sequences())
    const items = await itemsOf(store.export({ aggregates: ["z", "told", "again"], after: { z, told } }))
    assert.deepEqual(aggregatesOf(items), ["told", "again"])
  })

  test("that the log does not have are refused by name: an export without them would be missed too late", () => {
    const { store } = scene()
    const wrong = () => store.export({ aggregates: ["z", "zz"] })
    refused(store, wrong, coded("ERR_INVALID_ARGUMENT", /no aggregate "zz"/, { aggregateID: "zz" }))
  })
})

describe("arguments of export", () => {
  for (const [name, options] of Object.entries({
    "an option that there is not": { follow: true },
    "a name for aggregates": { aggregates: "z" },
    "aggregates that are no ids": { aggregates: [1] },
    "a list for after": { after: [] },
    "a seq that is none": { after: { z: -2 } },
    "a fraction for a seq": { after: new Map([["z", 0.5]]) },
    "a signal that is none": { signal: {} },
    "progress that is no function": { onProgress: 1 },
    "no object": 5,
  })) {
    test(`${name}: ERR_INVALID_ARGUMENT, at once`, () => {
      const { store } = scene()
      assert.throws(() => store.export(options), coded("ERR_INVALID_ARGUMENT"))
    })
  }

  test("a projector exports nothing", () => {
    const given = notes()
    const store = openNotes(given, {
      migrate: (db) => db.function("peek", { directOnly: false }, () => store.export() && 1),
    })
    store.db.exec("CREATE TRIGGER peeking AFTER INSERT ON note BEGIN SELECT peek(); END")
    refused(store, () => store.run(given.Written, { noteID: "a" }), coded("ERR_IN_PROJECTOR", /export/))
  })
})

describe("reading", () => {
  test("begins when it is asked for, and ends with whoever asks", async () => {
    const given = notes()
    const store = openNotes(given)
    const totals = []
    const exported = store.export({ onProgress: (sum) => totals.push(sum) })
    await turns()
    assert.deepEqual(totals, [])
    for (let n = 0; n < 3_000; n++) store.run(given.Seen, { noteID: "a", text: "x".repeat(100) })
    for await (const chunk of exported) {
      assert.ok(chunk.startsWith('{"syncline"'))
      break
    }
    await turns()
    assert.equal(totals.length, 1)
    store.close()
  })

  test("tells what has been read, at the end all of it", async () => {
    const { store } = scene()
    const told = []
    const text = await textOf(store.export({ onProgress: (totals) => told.push(totals) }))
    const bytes = Buffer.byteLength(text)
    assert.deepEqual(told.at(-1), { aggregates: 4, events: 4, gaps: 1, removed: 3, bytes })
  })

  test("holds no read transaction between two chunks, and others write meanwhile", async () => {
    const given = notes()
    const store = openNotes(given, { packing: false })
    const writer = openNotes(notes(), { path: store.db.name, packing: false })
    store.replayAll(["a", "b", "c"].flatMap((id) => history(id, 2_000)))
    let chunks = 0
    const items = []
    for await (const chunk of store.export()) {
      items.push(...chunk.trimEnd().split("\n").map(JSON.parse))
      writer.replay(serialized("seen", 2_000 + chunks++, { noteID: "c" }))
      const [{ busy }] = writer.db.pragma("wal_checkpoint(TRUNCATE)")
      assert.equal(busy, 0)
    }
    // Each aggregate as it was at some moment since the beginning: without holes, and as far as its `synced` says.
    for (const id of ["a", "b", "c"]) {
      const seqs = items.filter(({ event }) => event?.aggregateID === id).map(({ event }) => event.seq)
      assert.deepEqual(seqs, [...seqs.keys()])
      const { seq } = items.find((item) => item.kind === "synced" && item.aggregateID === id)
      assert.equal(seq, seqs.length - 1)
      assert.ok(seq >= 1_999)
    }
    assert.equal(items.at(-1).events, items.filter(({ kind }) => kind === "event").length)
  })

  test("sees nothing of a transaction that is open", async () => {
    const { store, Seen } = scene()
    const before = await itemsOf(store.export())
    let first
    const rolledBack = () =>
      store.transaction(() => {
        store.run(Seen, { noteID: "never" })
        first = store.export()[Symbol.asyncIterator]().next()
        throw new Error("mine")
      })
    assert.throws(rolledBack, /mine/)
    assert.ok(!(await first).value.includes("never"))

    store.db.exec("BEGIN; DELETE FROM event")
    let items
    const read = itemsOf(store.export()).then((given) => (items = given))
    await turns()
    assert.equal(items, undefined)
    store.db.exec("ROLLBACK")
    await read
    assert.deepEqual(items, before)
  })

  test("leaves turns of the event loop to others", async () => {
    const given = notes()
    const store = openNotes(given)
    store.replayAll(Array.from({ length: 3_000 }, (_, n) => serialized("seen", 0, { noteID: `n${n}`, text: "x" })))
    let turned = 0
    const timer = setInterval(() => turned++, 1)
    await textOf(store.export())
    clearInterval(timer)
    assert.ok(turned > 3)
  })

  test("aborted, it rejects: half an export that ends in silence would be taken for a whole one", async () => {
    const { store } = scene()
    const reason = new Error("enough")
    await assert.rejects(
      textOf(store.export({ signal: AbortSignal.abort(reason) })),
      coded("ERR_ABORTED", /./, { cause: reason }),
    )
    const controller = new AbortController()
    const iterator = store.export({ signal: controller.signal })[Symbol.asyncIterator]()
    store.db.exec("BEGIN")
    const waiting = iterator.next()
    await turns()
    controller.abort(reason)
    await assert.rejects(waiting, coded("ERR_ABORTED", /./, { cause: reason }))
    store.db.exec("ROLLBACK")
    assert.deepEqual(await iterator.next(), { done: true, value: undefined })
  })

  test("of a store that is closed meanwhile is ERR_CLOSED", async () => {
    const store = kept(":memory:", { registry: notes().registry })
    store.replayAll(history("a", 1).map((event) => ({ ...event, type: "note.seen.1" })))
    const exported = store.export()
    store.close()
    await assert.rejects(textOf(exported), coded("ERR_CLOSED"))
    assert.throws(() => store.export(), coded("ERR_CLOSED"))
  })

  test("what onProgress throws comes out as it is", async () => {
    const { store } = scene()
    for (const thrown of [new Error("mine"), undefined]) {
      const onProgress = () => {
        throw thrown
      }
      const outcome = await textOf(store.export({ onProgress })).then(
        () => "read",
        (error) => ({ error }),
      )
      assert.deepEqual(outcome, { error: thrown })
    }
  })
})
