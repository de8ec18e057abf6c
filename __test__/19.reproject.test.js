"use strict"

// What a replay with `unknown: "record"` has stored is projected once its types are known.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { z } = require("zod")
const { createRegistry, define, project, sql } = require("syncline")
const { coded, dump, file, history, kept, noteRows, notes, openNotes, refused, rows } = require("./stores.js")
const { serialized, tagRows } = require("./stores.js")
const { anotherFile, cutAt, openNewer, openOlder, recording, tagged, upgraded, written } = require("./older-notes.js")
const { extent, figures, seeds } = require("./soak.js")

describe("reproject", () => {
  test("goes on in order, and gives the tables of a replay that knew everything", async () => {
    const items = [...history("a", 10), ...history("b", 2)]
    const store = upgraded(items)
    const heard = []
    store.subscribeAll((event) => heard.push(event))
    assert.deepEqual(store.reproject("a"), { aggregateID: "a", applied: 9, seq: 9, projected: 9 })
    assert.deepEqual(store.reproject("a"), { aggregateID: "a", applied: 0, seq: 9, projected: 9 })
    assert.deepEqual(store.reproject("nobody"), { aggregateID: "nobody", applied: 0, seq: -1, projected: -1 })
    assert.deepEqual(
      store.stats().unprojected.map(({ aggregateID }) => aggregateID),
      ["b"],
    )
    store.reproject("b")
    const whole = openNewer(":memory:")
    whole.replayAll(items)
    assert.deepEqual(dump(store), dump(whole))
    assert.deepEqual(heard, [], "it publishes nothing")
    assert.deepEqual(await store.verify(), [])
  })

  test("stops where a type is still unknown", () => {
    const path = file()
    const store = openOlder(path)
    const forgotten = serialized("forgotten", 2, { noteID: "a" })
    store.replayAll([written("a", 0), tagged("a", 1), forgotten, written("a", 3)], recording)
    assert.deepEqual(store.reproject("a"), { aggregateID: "a", applied: 0, seq: 3, projected: 0 })
    store.close()
    const newer = openNewer(path)
    assert.deepEqual(newer.reproject("a"), { aggregateID: "a", applied: 1, seq: 3, projected: 1 })
    assert.deepEqual(newer.stats().unprojected, [{ aggregateID: "a", seq: 3, projected: 1, type: "note.forgotten.1" }])
    assert.deepEqual(tagRows(newer), [["a", "tag 1", 1]])
  })

  test("checks the schema, and upcasts", () => {
    const path = file()
    const store = openOlder(path)
    store.replayAll([tagged("a", 0, 7), tagged("b", 0, "old"), serialized("other", 0, { noteID: "c" })], recording)
    store.close()
    const registry = createRegistry()
    const version = (number, fields, more) =>
      define({
        type: "note.tagged",
        version: number,
        aggregate: "noteID",
        schema: z.object({ noteID: z.string(), ...fields }),
        registry,
        ...more,
      })
    version(1, { tag: z.unknown() })
    const upcast = { 1: ({ noteID, tag }) => ({ noteID, tags: [tag] }) }
    const Tagged = version(2, { tags: z.array(z.string()) }, { upcast })
    const tag = project(Tagged, sql`INSERT INTO tag SELECT :aggregateID, value, :seq FROM json_each(:data, '$.tags')`)
    const newer = kept(path, { registry, projectors: [tag] })
    refused(
      newer,
      () => newer.reproject("a"),
      coded("ERR_INVALID_DATA", /note\.tagged\.1 .*"a", seq 0/, { index: undefined }),
    )
    assert.equal(newer.reproject("b").applied, 1)
    assert.deepEqual(tagRows(newer), [["b", "old", 0]])
  })

  test("data that turn out not to name the aggregate are refused", () => {
    const path = file()
    const store = openOlder(path)
    store.replayAll([written("a", 0), { ...tagged("a", 1), data: { noteID: "b", tag: "t" } }], recording)
    store.close()
    const newer = openNewer(path)
    refused(
      newer,
      () => newer.reproject("a"),
      coded("ERR_AGGREGATE_MISMATCH", /at seq 1: data.noteID of note.tagged.1 is "b"/, {
        aggregateID: "a",
        seq: 1,
        got: "b",
        index: undefined,
      }),
    )
  })

  test("what a projector throws reaches the caller, and the watermark is that of the last good transaction", () => {
    const path = file()
    const old = openOlder(path)
    const count = 1_300
    old.replayAll([tagged("a", 0), ...Array.from({ length: count - 1 }, (_, n) => written("a", n + 1))], recording)
    old.close()
    const given = notes()
    const thrown = new Error("own")
    let fails = true
    const write = project(given.Written, (tx, data, event) => {
      given.projectors[0].apply(tx, data, event)
      if (fails && event.seq === 1_200) throw thrown
    })
    const store = openNotes({ ...given, projectors: [write, given.projectors[1]] }, { path })
    assert.throws(
      () => store.reproject("a"),
      (error) => error === thrown,
    )
    const [{ projected }] = store.stats().unprojected
    assert.equal(projected, 999)
    assert.deepEqual(noteRows(store), [["a", "text 999", 999]])
    fails = false
    assert.deepEqual(store.reproject("a"), { aggregateID: "a", applied: 300, seq: 1_299, projected: 1_299 })
    assert.deepEqual(noteRows(store), [["a", "text 1299", 1_299]])
  })

  test("inside a transaction it goes with it; inside a projector, or where nothing is recorded, it is refused", () => {
    const store = upgraded(history("a", 5))
    const before = dump(store)
    assert.throws(() =>
      store.transaction(() => {
        store.reproject("a")
        throw new Error("outer")
      }),
    )
    assert.deepEqual(dump(store), before)
    const given = notes()
    const asking = project(given.Written, () => other.reproject("a"))
    const other = openNotes({ ...given, projectors: [asking, given.projectors[1]] }, { path: ":memory:" })
    assert.throws(() => other.run(given.Written, { noteID: "a" }), coded("ERR_IN_PROJECTOR", /reproject/))
    const unrecorded = openNewer(":memory:", { record: false })
    assert.throws(() => unrecorded.reproject("a"), coded("ERR_INVALID_ARGUMENT", /record/))
    assert.throws(() => store.reproject(""), coded("ERR_INVALID_ARGUMENT"))
  })

  test("goes over gaps, and through packed events, which compaction leaves as they are until then", async () => {
    const path = file()
    const compacting = (known) => {
      const registry = createRegistry()
      const schema = z.looseObject({ noteID: z.string() })
      const note = (type, more) => define({ type, version: 1, aggregate: "noteID", schema, registry, ...more })
      const Ended = known ? note("note.ended", { projector: "none" }) : undefined
      const compactKey = { path: "key", barriers: known ? [Ended] : [] }
      const Kept = note("note.kept", { compactKey })
      const keep = project(Kept, sql`INSERT INTO tag VALUES (:aggregateID, :data ->> '$.key', :seq)`)
      return { registry, projectors: [keep] }
    }
    const kept = (seq) => serialized("kept", seq, { noteID: "a", key: "k" })
    const items = [0, 1, 2, 3].map(kept)
    items.push(serialized("ended", 4, { noteID: "a" }), { kind: "gap", aggregateID: "a", after: 4, through: 9 })
    items.push(...[10, 11, 12, 13].map(kept))
    const store = openNotes(compacting(false), { path, packing: false })
    store.replayAll(items, recording)
    await store.maintain()
    assert.equal(rows(store, "SELECT count(*) FROM event")[0][0], 0, "all is packed")
    // Of the first four, the first and the newest; of those after the watermark all.
    const seqs = (each) => each.read("a").map(({ seq }) => seq)
    assert.deepEqual(seqs(store), [0, 3, 4, 10, 11, 12, 13])
    assert.deepEqual(store.stats().unprojected, [{ aggregateID: "a", seq: 13, projected: 3, type: "note.ended.1" }])
    store.close()
    const newer = openNotes(compacting(true), { path, packing: false })
    await newer.maintain()
    assert.deepEqual(seqs(newer), [0, 3, 4, 10, 11, 12, 13])
    assert.deepEqual(newer.reproject("a"), { aggregateID: "a", applied: 5, seq: 13, projected: 13 })
    assert.deepEqual(
      tagRows(newer).map(([, , seq]) => seq),
      [0, 1, 2, 3, 10, 11, 12, 13],
    )
    await newer.maintain()
    // The barrier stands between two lives of the key.
    assert.deepEqual(seqs(newer), [0, 3, 4, 10, 13])
    assert.deepEqual(await newer.verify(), [])
  })

  test("a gap at the end leaves nothing to wait for", () => {
    const store = upgraded([written("a", 0), tagged("a", 1), { kind: "gap", aggregateID: "a", after: 1, through: 5 }])
    assert.deepEqual(store.reproject("a"), { aggregateID: "a", applied: 1, seq: 5, projected: 5 })
    assert.deepEqual(store.stats().unprojected, [])
  })
})

test("a long history is projected in transactions of some hundreds of events", () => {
  const count = extent(20_000, 100_000)
  const items = [tagged("a", 0), ...Array.from({ length: count - 1 }, (_, n) => written("a", n + 1))]
  const store = upgraded(items)
  const start = performance.now()
  assert.equal(store.reproject("a").applied, count)
  figures("reproject", { events: count, each: `${(((performance.now() - start) * 1_000) / count).toFixed(1)} us` })
  assert.deepEqual(noteRows(store), [["a", `text ${count - 1}`, count - 1]])
})

const NOTES = ["a", "b", "c"]
const KINDS = ["written", "written", "tagged", "seen", "gap"]
const steps = (kinds) =>
  fc.array(fc.record({ noteID: fc.constantFrom(...NOTES), kind: fc.constantFrom(...kinds) }), {
    minLength: 1,
    maxLength: 50,
  })

test("rule 17: recorded in any cut, and projected later, the tables are those of a program that knew everything", () => {
  const property = fc.property(
    fc.oneof(steps(KINDS), steps([...KINDS, "removed", "removed with"])),
    fc.array(fc.nat(50), { maxLength: 4 }),
    fc.boolean(),
    fc.boolean(),
    (steps, cuts, parks, between) => {
      const seqs = new Map(NOTES.map((id) => [id, 0]))
      const items = steps.map(({ noteID, kind }) => {
        const seq = seqs.get(noteID)
        const envelope = { aggregateID: noteID, seq }
        if (kind === "gap") {
          seqs.set(noteID, seq + 2)
          return { kind, aggregateID: noteID, after: seq - 1, through: seq + 1 }
        }
        seqs.set(noteID, seq + 1)
        if (kind === "removed") return { kind, ...envelope }
        if (kind === "removed with") return { kind: "removed", ...envelope, event: tagged(noteID, seq, "deleted") }
        return kind === "written" ? written(noteID, seq) : serialized(kind, seq, { noteID, tag: `tag ${seq}` })
      })
      const cut = cutAt(items, cuts)
      const path = anotherFile()
      const options = { ...recording, ...(parks && { onError: "park" }) }
      const half = Math.ceil(cut.length / 2)
      const store = openOlder(path)
      for (const batch of cut.slice(0, between ? half : undefined)) store.replayAll(batch, options)
      for (const { aggregateID, seq, projected = seq } of store.aggregates()) {
        assert.ok(projected <= seq)
        assert.deepEqual(store.reproject(aggregateID).applied, 0)
      }
      store.close()
      const newer = openNewer(path)
      // The rest comes before anything is projected: it is stored in order.
      if (between) for (const batch of cut.slice(half)) newer.replayAll(batch)
      for (const id of NOTES) newer.reproject(id)
      const whole = openNewer(":memory:")
      for (const batch of cut) whole.replayAll(batch)
      // What a removal erased before it was projected never is, as with a reader who was away.
      const erased = steps.some(({ kind }) => kind.startsWith("removed"))
      const own = (each) => dump(each).filter(([name]) => name.startsWith("event"))
      assert.deepEqual(own(newer), own(whole))
      if (!erased) assert.deepEqual([noteRows(newer), tagRows(newer)], [noteRows(whole), tagRows(whole)])
      assert.deepEqual(newer.stats().unprojected, [])
      for (const each of [newer, whole]) each.close()
    },
  )
  fc.assert(property, { numRuns: extent(60, 1_500), seed: seeds(1, 1)[0] })
})
