"use strict"

const assert = require("node:assert/strict")
const { getEventListeners } = require("node:events")
const { describe, test } = require("node:test")
const { coded, history, openNotes, serialized, turns } = require("./stores.js")
const { counted, deltas, dice, newFile, openTogether, until } = require("./streaming.js")

const DONE = { done: true, value: undefined }

/** Two stores on one file, and shorthands that record events. */
function together() {
  const { given, path, stores } = openTogether(2)
  const see = (by, noteID = "a") => by.run(given.Seen, { noteID })
  const all = (by, ids) => by.runAll(ids.map((noteID) => [given.Seen, { noteID }]))
  return { given, path, store: stores[0], other: stores[1], see, all }
}

/** Changes that have given their first sweep. */
async function swept(store, options) {
  const changes = store.changes(options)
  assert.deepEqual(await changes.next(), { done: false, value: { kind: "sweep" } })
  return changes
}

/** The next items, as many as there are names, shortened: "a 3" is the hint of seq 3 of a. */
async function taken(changes, count) {
  const items = []
  for (let n = 0; n < count; n++) {
    const { value } = await changes.next()
    items.push(value.kind === "hint" ? `${value.aggregateID} ${value.seq}` : value.kind)
  }
  return items
}

/** What there is to pull: hints come in no order, so that two markers are needed to tell that it is all. */
async function takenUntilMarked({ given, store }, changes) {
  const items = []
  for (let n = 0; n < 2; n++) {
    const { seq } = store.run(given.Seen, { noteID: "marker" })
    for (let item; item !== `marker ${seq}`; items.push(item)) [item] = await taken(changes, 1)
  }
  return items.filter((item) => !item.startsWith("marker"))
}

describe("issue 3: store.changes", () => {
  test("begins with a sweep, and goes on with hints", async () => {
    const { given, store, see } = together()
    see(store)
    const changes = await swept(store)
    const pending = changes.next()
    see(store)
    assert.deepEqual(await pending, { done: false, value: { kind: "hint", aggregateID: "a", seq: 1 } })
    store.run(given.Written, { noteID: "b" }, { publish: false })
    assert.deepEqual(await changes.next(), { done: false, value: { kind: "hint", aggregateID: "b", seq: 0 } })
    await changes.return()
  })

  test("hints are coalesced: one an aggregate, with its newest seq when it is pulled", async () => {
    const scene = together()
    const { store, other, see } = scene
    const changes = await swept(store)
    for (let n = 0; n < 20; n++) for (const noteID of ["a", "b"]) see(n % 2 ? store : other, noteID)
    await turns(20)
    assert.deepEqual((await taken(changes, 2)).toSorted(), ["a 19", "b 19"])
    see(store)
    assert.deepEqual(await takenUntilMarked(scene, changes), ["a 20"])
    const pending = changes.next()
    see(other, "b")
    assert.deepEqual((await pending).value, { kind: "hint", aggregateID: "b", seq: 20 })
    assert.deepEqual(await takenUntilMarked(scene, changes), [])
    await changes.return()
  })

  test("hears runs, replays, gaps and removals of any store on the file", async () => {
    const { given, store, other, see } = together()
    const changes = await swept(store)
    for (const by of [store, other]) {
      const noteID = by === store ? "own" : "foreign"
      const next = async (seq) => assert.deepEqual(await taken(changes, 1), [`${noteID} ${seq}`])
      see(by, noteID)
      await next(0)
      by.replayAll(history(noteID, 3, 1))
      await next(3)
      by.replay({ kind: "gap", aggregateID: noteID, after: 3, through: 9 })
      await next(9)
      by.remove(noteID)
      await next(9)
      by.remove(noteID, { event: [given.Seen, { noteID }] })
      await next(10)
      by.replay({ kind: "removed", aggregateID: noteID, seq: 12 })
      await next(12)
      await by.runAsync(given.Seen, { noteID }, { publish: false })
      await next(13)
      by.transaction(() => (see(by, noteID), see(by, noteID)))
      await next(15)
    }
    await changes.return()
  })

  test("rolled back, refused, duplicate, ephemeral and unrelated writes are no change", async () => {
    const scene = together()
    const { given, store, other, see } = scene
    see(store)
    const [seen] = store.read("a")
    const unrecorded = openNotes(given, { path: scene.path, record: false })
    const changes = await swept(store)
    for (const by of [store, other]) {
      assert.throws(() => by.transaction(() => (see(by), assert.fail())))
      assert.throws(() => by.run(given.Seen, { noteID: "a" }, { expectedSeq: 7 }), coded("ERR_CONFLICT"))
      assert.throws(() => by.replay(serialized("seen", 9, { noteID: "a" })), coded("ERR_SEQUENCE_MISMATCH"))
      assert.equal(by.replay(seen).duplicate, 1)
      by.publish(given.Delta, { noteID: "a" })
      by.db.exec("INSERT INTO tag VALUES ('unrelated', '', 0)")
    }
    unrecorded.run(given.Seen, { noteID: "a" })
    await turns(20)
    assert.deepEqual(await takenUntilMarked(scene, changes), [])
    await changes.return()
  })

  test("a thousand aggregates between two pulls are hints, one more is a sweep", async () => {
    for (const count of [1_000, 1_001]) {
      for (const foreign of [false, true]) {
        const scene = together()
        const { store, other, see, all } = scene
        const ids = counted(count).map((n) => `n${n}`)
        const changes = await swept(store)
        all(foreign ? other : store, ids)
        // Again, so that an aggregate counts once, however often it moves.
        all(store, ids.slice(0, 500))
        await turns(50)
        if (count === 1_000) {
          const hints = ids.map((id, n) => `${id} ${n < 500 ? 1 : 0}`)
          assert.deepEqual((await taken(changes, 1_000)).toSorted(), hints.toSorted())
        } else {
          assert.deepEqual(await taken(changes, 1), ["sweep"])
        }
        see(store, "n7")
        assert.deepEqual(await takenUntilMarked(scene, changes), ["n7 2"])
        store.close()
        assert.deepEqual(await changes.next(), DONE)
      }
    }
  })

  test("a reader that asks for the sequences at each sweep, and logs at each hint, holds everything at the end", async () => {
    for (const seed of [1, 2, 3]) {
      const roll = dice(seed)
      const { store, other, see, all } = together()
      const held = new Map()
      const kinds = { sweep: 0, hint: 0 }
      const controller = new AbortController()
      const reader = (async () => {
        for await (const change of store.changes({ signal: controller.signal })) {
          kinds[change.kind]++
          if (change.kind === "sweep") for (const [id, seq] of store.sequences()) held.set(id, seq)
          else held.set(change.aggregateID, Math.max(change.seq, held.get(change.aggregateID) ?? -1))
          if (roll(20) === 0) await turns(roll(3))
        }
      })()
      for (let n = 0; n < 60; n++) {
        const by = roll(2) ? store : other
        if (roll(20) === 0)
          all(
            by,
            counted(1_200).map((n) => `n${n}`),
          )
        else see(by, `n${roll(2_000)}`)
        if (roll(3) === 0) await turns(1 + roll(3))
      }
      const caughtUp = () => [...store.sequences()].every(([id, seq]) => held.get(id) === seq)
      await until(caughtUp)
      assert.ok(kinds.hint > 0 && kinds.sweep > 0)
      controller.abort()
      await reader
    }
  })

  test("nothing is hinted twice, and no seq goes down", async () => {
    const { store, other, see } = together()
    const last = new Map()
    const controller = new AbortController()
    const reader = (async () => {
      for await (const { kind, aggregateID, seq } of store.changes({ signal: controller.signal })) {
        if (kind === "sweep") continue
        assert.ok(seq > (last.get(aggregateID) ?? -1), `${aggregateID} ${seq} after ${last.get(aggregateID)}`)
        last.set(aggregateID, seq)
      }
    })()
    for (let n = 0; n < 100; n++) {
      see(n % 3 ? store : other, "abcde"[n % 5])
      if (n % 4 === 0) await turns(2)
    }
    await until(() => last.size === 5 && [...last.values()].every((seq) => seq === 19))
    controller.abort()
    await reader
  })
})

describe("issue 3: changes and others", () => {
  test("a reader that does not pull blocks no writer and holds no read transaction", async () => {
    const { given, path, store, other, see, all } = together()
    const idle = await swept(store)
    const never = store.changes()
    const quick = openNotes(given, { path, busyTimeout: 0, migrate: undefined })
    all(
      other,
      counted(3_000).map((n) => `n${n}`),
    )
    for (let n = 0; n < 20; n++) {
      see(quick)
      await turns()
    }
    const connection = store.connect()
    await until(() => connection.pragma("wal_checkpoint(TRUNCATE)")[0].busy === 0)
    connection.close()
    assert.deepEqual(await taken(idle, 1), ["sweep"])
    await idle.return()
    await never.return()
  })

  test("a raw transaction on this connection delays hints, and loses none", async () => {
    const { store, other, see } = together()
    const changes = await swept(store)
    const pending = changes.next()
    store.db.exec("BEGIN")
    store.db.prepare("SELECT count(*) FROM note").get()
    see(other)
    await turns(50)
    see(other)
    store.db.exec("COMMIT")
    const first = (await pending).value
    if (first.seq < 1) assert.deepEqual(await taken(changes, 1), ["a 1"])
    await changes.return()
  })

  test("many at once, each with its own place; concurrent next calls are answered in order", async () => {
    const { store, other, see } = together()
    const all = await Promise.all(counted(20).map(() => swept(store)))
    see(other)
    for (const changes of all.slice(0, 10)) assert.deepEqual(await taken(changes, 1), ["a 0"])
    see(store)
    for (const changes of all) assert.deepEqual(await taken(changes, 1), ["a 1"])
    const concurrent = store.changes()
    const answers = [concurrent.next(), concurrent.next(), concurrent.next()]
    await turns()
    see(store, "b")
    assert.equal((await answers[0]).value.kind, "sweep")
    assert.equal((await answers[1]).value.aggregateID, "b")
    see(store, "c")
    assert.equal((await answers[2]).value.aggregateID, "c")
    for (const changes of [...all, concurrent]) await changes.return()
  })

  test("abort, return, break and close end it without an error, and leave nothing with the signal", async () => {
    const { store, see } = together()
    const controller = new AbortController()
    const { signal } = controller
    const listeners = () => getEventListeners(signal, "abort").length
    const [returned, broken, aborted, started] = counted(4).map(() => store.changes({ signal }))
    await returned.next()
    const pending = returned.next()
    assert.deepEqual(await returned.return(), DONE)
    assert.deepEqual(await pending, DONE)
    assert.deepEqual(await returned.next(), DONE)
    for await (const _ of broken) break
    assert.deepEqual(await broken.next(), DONE)
    assert.equal(listeners(), 0)
    await aborted.next()
    await started.next()
    const waiting = aborted.next()
    see(store)
    assert.equal((await waiting).value.kind, "hint")
    const again = aborted.next()
    see(store)
    controller.abort()
    await again
    for (const changes of [aborted, started, store.changes({ signal })]) assert.deepEqual(await changes.next(), DONE)
    assert.equal(listeners(), 0)
    const [closed, unstarted] = [await swept(store), store.changes()]
    const last = closed.next()
    store.close()
    assert.deepEqual(await last, DONE)
    for (const changes of [closed, unstarted]) assert.deepEqual(await changes.next(), DONE)
    assert.throws(() => store.changes(), coded("ERR_CLOSED"))
  })

  test("wrong arguments are refused at the call", () => {
    const { store } = together()
    for (const options of [null, 5, [], { signal: {} }, { after: 1 }]) {
      assert.throws(() => store.changes(options), coded("ERR_INVALID_ARGUMENT"))
    }
  })

  test("in memory, and read-only", async () => {
    const given = deltas()
    const memory = openNotes(given, { path: ":memory:" })
    const changes = await swept(memory)
    memory.run(given.Seen, { noteID: "a" })
    assert.deepEqual(await taken(changes, 1), ["a 0"])
    await changes.return()
    const path = newFile()
    const writer = openNotes(given, { path })
    const read = await swept(openNotes(given, { path, readonly: true }))
    writer.run(given.Seen, { noteID: "a" })
    assert.deepEqual(await taken(read, 1), ["a 0"])
    await read.return()
  })
})

describe("issue 3, mistake 12: store.sequences", () => {
  test("answers for 50,000 ids in one call, known and unknown, and for all", () => {
    const { store, all } = together()
    const ids = counted(25_000).map((n) => `n${n}`)
    all(store, ids)
    all(store, ids.slice(0, 10))
    const asked = [...ids, ...counted(25_000).map((n) => `unknown ${n}`)]
    const found = store.sequences(asked)
    assert.deepEqual([found.size, found.get("n3"), found.get("n24999")], [25_000, 1, 0])
    assert.deepEqual(store.sequences(), found)
  })
})
