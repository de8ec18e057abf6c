"use strict"

// What an export becomes in another store, what is told of it, and what is left where it cannot go on.

const assert = require("node:assert/strict")
const { createReadStream, mkdirSync, statSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { Readable } = require("node:stream")
const { describe, test } = require("node:test")
const { exported, exportOf, line, textOf } = require("./exports.js")
const { inOrder, openSessions, sessionState, sessionsExpected, sessionsText } = require("./sessions.js")
const { coded, dump, file, history, kept, noteRows, notes, openNotes, serialized, turns } = require("./stores.js")

const RECORDING = join(__dirname, "../examples/agent-session/recording/sessions.events.jsonl")
const reader = (options) => openNotes(notes(), { path: ":memory:", ...options })

describe("2,204 recorded events of 14 sessions, exported and imported", () => {
  const recorded = () => {
    const store = openSessions(file("recorded.db"))
    store.replayAll(sessionsText())
    return store
  }
  const expected = inOrder(sessionsExpected())
  const sources = {
    "a file": (store) => written(store, "sessions.jsonl"),
    "a .zst file": (store) => written(store, "sessions.jsonl.zst"),
    "a .gz file": (store) => written(store, "sessions.jsonl.gz"),
    "the export of another store": (store) => store.export(),
    "a stream of a file": async (store) => createReadStream(await written(store, "sessions.jsonl")),
    "a stream of text": (store) => Readable.from(store.export()),
    "the body of an answer": (store) =>
      new Response(Readable.toWeb(Readable.from(store.export()).map(Buffer.from))).body,
    "bytes at once": async (store) => Buffer.from(await textOf(store)),
    "a list of text": async (store) => [await textOf(store)],
  }
  async function written(store, name) {
    await store.export().toFile(file(name))
    return file(name)
  }

  for (const [name, sourceOf] of Object.entries(sources)) {
    test(`from ${name}, the rows are those that the server held; again, nothing changes`, async () => {
      const store = recorded()
      const copy = openSessions(file())
      const { bytes, ...result } = await copy.import(await sourceOf(store))
      assert.deepEqual(result, {
        complete: true,
        lines: 2_220,
        aggregates: 14,
        events: 2_204,
        gaps: 0,
        removed: 0,
        applied: 2_204,
        duplicate: 0,
        parked: [],
      })
      assert.equal(bytes, Buffer.byteLength(await textOf(store)))
      assert.deepEqual(sessionState(copy), expected)
      const before = dump(copy)
      const { applied, duplicate } = await copy.import(store.export())
      assert.deepEqual({ applied, duplicate }, { applied: 0, duplicate: 2_204 })
      assert.deepEqual(dump(copy), before)
    })
  }

  test("compacted and packed, the rows are the same", async () => {
    const store = openSessions(file("compacted.db"), { compact: true })
    store.replayAll(sessionsText())
    await store.maintain()
    const copy = openSessions(file())
    const { complete, gaps, events } = await copy.import(store.export())
    assert.ok(complete && gaps > 0 && events < 2_204)
    assert.deepEqual(sessionState(copy), expected)
  })

  test("plain events, one a line, are imported in their order; nothing says whether they are all", async () => {
    const copy = openSessions(file())
    const { complete, lines, aggregates, events, applied } = await copy.import(RECORDING)
    assert.deepEqual([complete, lines, aggregates, events, applied], [undefined, 2_204, 0, 2_204, 2_204])
    assert.deepEqual(sessionState(copy), expected)
    assert.deepEqual(dump(copy), dump(recorded()))
  })
})

describe("what is told of an import", () => {
  test("progress: bytes of the file as it lies there, lines and events, at the end all", async () => {
    const store = reader()
    store.replayAll(["a", "b", "c"].flatMap((id) => history(id, 1_000)))
    for (const suffix of ["", ".zst"]) {
      const path = file(`notes${suffix}`)
      await store.export().toFile(path)
      const told = []
      const result = await reader().import(path, { onProgress: (progress) => told.push(progress) })
      const totalBytes = statSync(path).size
      assert.deepEqual(told.at(-1), { bytes: totalBytes, totalBytes, lines: 3_005, aggregates: 3, events: 3_000 })
      assert.ok(told.length > 2)
      for (const [at, { bytes, lines }] of told.entries()) {
        assert.ok(bytes <= totalBytes && (at === 0 || (bytes >= told[at - 1].bytes && lines >= told[at - 1].lines)))
      }
      assert.equal(result.lines, 3_005)
    }
    const told = []
    await reader().import([exportOf([])], { onProgress: (progress) => told.push(progress) })
    assert.equal(told.at(-1).lines, 2)
    assert.ok(!("totalBytes" in told.at(-1)))
  })

  test("gaps and removals are counted, and told of again by the copy", async () => {
    const given = notes()
    const store = openNotes(given, { path: ":memory:" })
    store.replayAll([...history("a", 2), { kind: "gap", aggregateID: "a", after: 1, through: 3 }, ...history("b", 2)])
    store.remove("b", { event: [given.Seen, { noteID: "b" }] })
    const copy = reader()
    const { events, gaps, removed, applied } = await copy.import(store.export())
    assert.deepEqual([events, gaps, removed], [2, 1, 1])
    assert.equal(applied, 4)
    assert.deepEqual(noteRows(copy), [["a", "text 0", 0]])
    const items = async (one) => (await textOf(one)).split("\n").slice(1, -2)
    assert.deepEqual(await items(copy), await items(store))
  })

  test("an empty export is complete; an empty source was cut", async () => {
    assert.deepEqual((await reader().import([exportOf([])])).complete, true)
    for (const source of [[], [""], Buffer.alloc(0), "empty.jsonl"]) {
      if (source === "empty.jsonl") writeFileSync(file(source), "")
      const { complete, lines } = await reader().import(typeof source === "string" ? file(source) : source)
      assert.deepEqual([complete, lines], [false, 0])
    }
  })
})

describe("what cannot be replayed", () => {
  /** Three batches of lines, with one event in the last that nobody knows. */
  const long = () => [
    ...exported(history("a", 1_000), history("b", 1_000)),
    line({ ...serialized("seen", 0, { noteID: "c" }), type: "unknown.1" }),
    line(serialized("seen", 1, { noteID: "c" })),
    ...exported(history("d", 4)),
  ]

  test("keeps its code and fields, has the line, and says how far it was imported, which stays", async () => {
    const store = reader()
    const error = await store.import([exportOf(long())]).catch((error) => error)
    const fields = { line: 2_004, aggregateID: "c", seq: 0, type: "unknown.1", index: undefined }
    coded(
      "ERR_UNKNOWN_EVENT",
      /\(line 2004\)\. What stands before is imported through line 2001, and stays$/,
      fields,
    )(error)
    assert.deepEqual(Object.fromEntries(store.sequences()), { a: 999, b: 998 })
    assert.equal(error.cause.code, "ERR_UNKNOWN_EVENT")
  })

  test("a history that went another way, and one that does not follow", async () => {
    const store = reader()
    store.replayAll(history("a", 1))
    const other = { ...history("a", 1)[0], id: "evt_other" }
    await assert.rejects(
      store.import([exportOf([line(other)])]),
      coded("ERR_REPLAY_DIVERGED", /line 2/, { line: 2, field: "id" }),
    )
    await assert.rejects(
      store.import([exportOf([line(history("b", 1, 4)[0])])]),
      coded("ERR_SEQUENCE_MISMATCH", /line 2.*Nothing was imported/, { line: 2, expected: 0, got: 4 }),
    )
  })

  test("a size is of a line, not of an index", async () => {
    const store = reader({ maxEventBytes: 1_000 })
    const large = line(serialized("seen", 0, { noteID: "a", text: "x".repeat(1_500) }))
    const refused = coded("ERR_TOO_LARGE", /^The data of the note\.seen\.1 is too large: 1524.*\(line 2\)/, {
      line: 2,
      limit: 1_000,
    })
    await assert.rejects(store.import([exportOf([large])]), refused)
  })

  test("a line that no event can have ends it before it is all in memory", async () => {
    const store = reader({ maxEventBytes: 1_000 })
    let given = 0
    function* endless() {
      yield exportOf(exported(history("a", 2))).split('{"kind":"end"')[0]
      for (;;) {
        given += 10_000
        yield "x".repeat(10_000)
      }
    }
    const limit = 2 * 1_000 + 128 * 1024
    await assert.rejects(
      store.import(endless()),
      coded("ERR_TOO_LARGE", /^Line 5 of the import has more than/, { line: 5, limit }),
    )
    assert.ok(given < limit + 20_000)
  })

  test("what a projector throws comes out as it is", async () => {
    const thrown = new Error("mine")
    const { registry, projectors, Written } = notes()
    const store = kept(":memory:", { registry, projectors: [projectors[1]] })
    await assert.rejects(
      store.import([exportOf([line(history("a", 1)[0])])]),
      coded("ERR_NO_PROJECTOR", /./, { type: Written.name }),
    )
    const failing = reader({
      migrate: (db) =>
        db.function("fail", () => {
          throw thrown
        }),
    })
    failing.db.exec("CREATE TRIGGER failing BEFORE INSERT ON note BEGIN SELECT fail(); END")
    await assert.rejects(failing.import([exportOf([line(history("a", 1)[0])])]), (error) => error === thrown)
  })

  test('with onError: "park" its aggregate is left, named with the line; later the import goes on from there', async () => {
    const { registry, projectors } = notes()
    const first = kept(file(), {
      registry,
      projectors,
      migrate: (db) => db.exec("CREATE TABLE note (id, text, seq); CREATE TABLE tag (note, tag, seq)"),
    })
    first.db.exec(
      "CREATE UNIQUE INDEX noted ON note (id); CREATE TRIGGER late BEFORE INSERT ON note WHEN new.id = 'b' AND new.seq = 900 BEGIN SELECT RAISE(ABORT, 'not now'); END",
    )
    const text = exportOf(long())
    const { complete, parked, applied } = await first.import([text], { onError: "park" })
    assert.equal(complete, true)
    assert.deepEqual(
      parked.map(({ aggregateID, error, line }) => [aggregateID, error.code, line]),
      [
        ["b", "ERR_SQLITE", 1_903],
        ["c", "ERR_UNKNOWN_EVENT", 2_004],
      ],
    )
    assert.equal(applied, 1_000 + 900 + 4)
    assert.deepEqual(Object.fromEntries(first.sequences()), { a: 999, b: 899, d: 3 })
    first.db.exec("DROP TRIGGER late")
    const again = await first.import([text], { onError: "park", unknown: "record" })
    assert.deepEqual([again.parked, again.applied, again.duplicate], [[], 102, 1_904])
    assert.deepEqual(Object.fromEntries(first.sequences()), { a: 999, b: 999, d: 3, c: 1 })
    assert.equal(first.stats().unprojected[0].aggregateID, "c")
  })

  test("owner, epoch and publish are those of a replay", async () => {
    const store = reader()
    const heard = []
    store.subscribeAll(({ seq }) => heard.push(seq))
    const text = exportOf(exported(history("a", 3)))
    await store.import([text], { owner: "laptop", epoch: 4, publish: true })
    assert.deepEqual(store.owner("a"), { owner: "laptop", epoch: 4 })
    assert.deepEqual(heard, [0, 1, 2])
    await assert.rejects(store.import([text], { owner: "phone" }), coded("ERR_NOT_OWNER", /./, { aggregateID: "a" }))
    await assert.rejects(store.import([text], { owner: "laptop", epoch: 3 }), coded("ERR_NOT_OWNER"))
  })
})

describe("an import that is ended", () => {
  const long = exportOf(exported(...["a", "b", "c"].map((id) => history(id, 1_500))))

  test("by its signal keeps what it has done, and goes on when it is asked for again", async () => {
    const store = reader()
    const controller = new AbortController()
    const reason = new Error("enough")
    const onProgress = ({ lines }) => lines > 1_000 && controller.abort(reason)
    const ended = store.import([long], { signal: controller.signal, onProgress })
    await assert.rejects(ended, coded("ERR_ABORTED", /./, { cause: reason }))
    const held = store.sequence("a") + 1 + store.sequence("b") + 1
    assert.ok(held >= 1_000 && held < 3_000)
    const { complete, applied, duplicate } = await store.import([long])
    assert.deepEqual([complete, applied, duplicate], [true, 4_500 - held, held])
    const straight = reader()
    await straight.import([long])
    assert.deepEqual(dump(store), dump(straight))
    await assert.rejects(store.import([long], { signal: controller.signal }), coded("ERR_ABORTED"))
  })

  test("by its signal does not wait for a source that keeps silent, and tells it", async () => {
    const controller = new AbortController()
    let told = 0
    const silent = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => (told++, new Promise(() => {})),
      }),
    }
    const ended = reader().import(silent, { signal: controller.signal })
    await turns()
    controller.abort()
    await assert.rejects(ended, coded("ERR_ABORTED"))
    assert.equal(told, 1)
  })

  test("by an error tells its source, and by an error of the source is rejected with it", async () => {
    const ended = []
    function* source(thrown) {
      try {
        yield long.slice(0, 300_000)
        if (thrown !== undefined) throw thrown
        yield "{broken}\n".repeat(2)
      } finally {
        ended.push(thrown)
      }
    }
    const thrown = new Error("mine")
    await assert.rejects(reader().import(source()), coded("ERR_INVALID_EXPORT"))
    const store = reader()
    await assert.rejects(store.import(source(thrown)), (error) => error === thrown)
    assert.deepEqual(ended, [undefined, thrown])
    assert.ok(store.sequence("a") > 900)
  })

  test("by onProgress, or by closing the store", async () => {
    const thrown = new Error("mine")
    const onProgress = () => {
      throw thrown
    }
    await assert.rejects(reader().import([long], { onProgress }), (error) => error === thrown)
    const store = reader()
    await assert.rejects(store.import([long], { onProgress: () => store.close() }), coded("ERR_CLOSED"))
    await assert.rejects(store.import([long]), coded("ERR_CLOSED"))
  })
})

describe("import refuses", () => {
  test("sources and options that are none, before it reads", async () => {
    const store = reader()
    mkdirSync(file("folder"))
    let read = 0
    const watched = { [Symbol.asyncIterator]: () => (read++, [][Symbol.iterator]()) }
    for (const source of [
      undefined,
      null,
      5,
      {},
      "",
      "a\0b",
      file("missing.jsonl"),
      file("folder"),
      [5],
      [null],
      [[1]],
    ]) {
      await assert.rejects(store.import(source), coded("ERR_INVALID_ARGUMENT"))
    }
    for (const options of [
      { follow: true },
      { onProgress: 1 },
      { signal: {} },
      { owner: 5 },
      { epoch: -1 },
      { publish: 1 },
      { unknown: "skip" },
      { onError: "skip" },
      5,
    ]) {
      await assert.rejects(store.import(watched, options), coded("ERR_INVALID_ARGUMENT"))
    }
    assert.equal(read, 0)
  })

  test("stores and moments in which nothing can be replayed", async () => {
    const text = exportOf(exported(history("a", 1)))
    await assert.rejects(
      reader({ record: false }).import([text]),
      coded("ERR_INVALID_ARGUMENT", /import needs a store that records/),
    )
    const store = openNotes(notes())
    const readonly = openNotes(notes(), { readonly: true, path: store.db.name })
    await assert.rejects(readonly.import([text]), coded("ERR_READONLY"))
    let inside
    store.transaction(() => void (inside = store.import([text])))
    await assert.rejects(inside, coded("ERR_IN_TRANSACTION", /import inside a transaction/))
  })
})
