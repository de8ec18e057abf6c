"use strict"

const assert = require("node:assert/strict")
const { existsSync, readFileSync, statSync } = require("node:fs")
const { describe, test } = require("node:test")
const { coded, history, noteRows, notes, openNotes, refused, serialized, turns } = require("./stores.js")

/** A store, and a second connection that holds the write lock until it is told to let go. */
function locked(options) {
  const given = notes()
  const store = openNotes(given, options)
  const other = store.connect()
  other.exec("BEGIN IMMEDIATE")
  const release = () => {
    other.exec("ROLLBACK")
    other.close()
  }
  return { given, store, release }
}

describe("runAsync, runAllAsync, replayAllAsync", () => {
  test("do what the synchronous calls do", async () => {
    const given = notes()
    const store = openNotes(given)
    const heard = []
    store.subscribeAll(({ aggregateID, seq }) => heard.push(`${aggregateID}${seq}`))
    const { Written, Tagged } = given
    const event = await store.runAsync(Written, { noteID: "a", text: "x" }, { expectedSeq: -1, metadata: { m: 1 } })
    assert.equal(event.seq, 0)
    assert.deepEqual(event.metadata, { m: 1 })
    const events = await store.runAllAsync([
      [Written, { noteID: "a", text: "y" }],
      [Tagged, { noteID: "b", tag: "t" }],
    ])
    assert.deepEqual(
      events.map(({ seq }) => seq),
      [1, 0],
    )
    assert.deepEqual(await store.runAllAsync([]), [])
    const results = await store.replayAllAsync(history("c", 4), { publish: true })
    assert.deepEqual(results, [{ aggregateID: "c", applied: 4, duplicate: 0, seq: 3 }])
    assert.deepEqual(heard, ["a0", "a1", "b0", "c0", "c1", "c2", "c3"])
    assert.deepEqual(await store.replayAllAsync([]), [])
  })

  test("reject instead of throwing, and leave nothing behind", async () => {
    const given = notes()
    const store = openNotes(given)
    const { Written, Tagged } = given
    const rejects = async (promise, code) => {
      assert.ok(promise instanceof Promise)
      await assert.rejects(promise, coded(code))
    }
    await rejects(store.runAsync(Written, { noteID: "n", text: 1 }), "ERR_INVALID_DATA")
    await rejects(store.runAsync(Written, { noteID: "n" }, { expectedSeq: 0 }), "ERR_CONFLICT")
    await rejects(store.runAsync(undefined, {}), "ERR_INVALID_ARGUMENT")
    await rejects(store.runAsync(Written, { noteID: "n" }, { signal: {} }), "ERR_INVALID_ARGUMENT")
    await rejects(store.runAllAsync("no"), "ERR_INVALID_ARGUMENT")
    await rejects(
      store.runAllAsync([
        [Tagged, { noteID: "n", tag: "t" }],
        [Written, { noteID: "n", text: 1 }],
      ]),
      "ERR_INVALID_DATA",
    )
    await rejects(store.replayAllAsync([serialized("written", 1, { noteID: "n" })]), "ERR_SEQUENCE_MISMATCH")
    await rejects(store.replayAllAsync("{"), "ERR_INVALID_EVENT")
    await rejects(store.replayAllAsync(undefined), "ERR_INVALID_ARGUMENT")
    assert.deepEqual(store.aggregates(), [])
    store.close()
    await rejects(store.runAsync(Written, { noteID: "n" }), "ERR_CLOSED")
    await rejects(store.runAllAsync([]), "ERR_CLOSED")
    await rejects(store.replayAllAsync([]), "ERR_CLOSED")
  })

  test("wait for a busy database without blocking the event loop", async () => {
    const { given, store, release } = locked()
    let settled = false
    const promise = store.runAsync(given.Written, { noteID: "n" }).finally(() => (settled = true))
    await turns(20)
    assert.equal(settled, false)
    release()
    assert.equal((await promise).seq, 0)
  })

  test("wait for what the same thread holds, where a synchronous write is refused at once and leaves them their order", async () => {
    const { given, store, release } = locked()
    const run = (text) => store.runAsync(given.Written, { noteID: "n", text })
    const waiting = [run("0"), run("1")]
    await turns(5)
    const began = performance.now()
    for (const write of [
      () => store.run(given.Written, { noteID: "n", text: "sync" }),
      () => store.replayAll(history("m", 1)),
      () => store.transaction(() => {}),
      () => store.claim("n", "me"),
    ]) {
      refused(store, write, coded("ERR_BUSY", /another connection of this thread/))
    }
    assert.ok(performance.now() - began < 10_000, "nobody waited for busyTimeout, half a minute")
    waiting.push(run("2"))
    await turns(5)
    release()
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ seq, data }) => [seq, data.text]),
      [
        [0, "0"],
        [1, "1"],
        [2, "2"],
      ],
    )
  })

  test("begin, projector and commit are one turn: nobody else ever finds the transaction open", async () => {
    const { given, store, release } = locked()
    const states = new Set()
    const looks = { over: false }
    const look = () => states.add(store.db.inTransaction)
    const inTurns = () => (look(), looks.over || setImmediate(inTurns))
    const inTimers = () => (look(), looks.over || setTimeout(inTimers, 0))
    const inMicrotasks = async () => {
      while (!looks.over) {
        for (let n = 0; n < 50; n++) await look()
        await new Promise(setImmediate)
      }
    }
    inTurns()
    inTimers()
    const looking = inMicrotasks()
    const promises = Array.from({ length: 50 }, (_, n) => [
      store.runAsync(given.Written, { noteID: "n", text: `${n}` }).finally(look),
      store.replayAllAsync(history(`m${n}`, 3)).finally(look),
      store.runAllAsync([[given.Written, { noteID: "n" }]]).finally(look),
    ])
    await turns(3)
    release()
    await Promise.all(promises.flat())
    looks.over = true
    await looking
    assert.deepEqual([...states], [false])
  })

  test("who waits is seen by who writes, and no longer once it has its lock, was aborted, gave up or is closed", async (t) => {
    const { given, store, release } = locked({ busyTimeout: 1_000 })
    const isLocked = (suffix) => {
      const { ino } = statSync(store.db.name + suffix)
      return existsSync("/proc/locks") && readFileSync("/proc/locks", "utf8").includes(`:${ino} `)
    }
    // Who writes holds a lock of SQLite's on -shm; who waits a shared flock on the WAL file.
    const waits = () => isLocked("-wal")
    if (!isLocked("-shm")) return (release(), t.skip("this system does not tell of its locks"))
    const write = (options) => store.runAsync(given.Written, { noteID: "n" }, options)
    const controller = new AbortController()
    const first = write({ signal: controller.signal })
    await turns(5)
    assert.equal(waits(), true)
    controller.abort()
    await assert.rejects(first, coded("ERR_ABORTED"))
    while (waits()) await turns()
    await assert.rejects(write(), coded("ERR_BUSY"))
    while (waits()) await turns()
    const last = write()
    await turns(5)
    release()
    await last
    assert.equal(waits(), false)
    const other = store.connect()
    other.exec("BEGIN IMMEDIATE")
    const closed = write()
    await turns(5)
    assert.equal(waits(), true)
    store.close()
    await assert.rejects(closed, coded("ERR_CLOSED"))
    assert.equal(readFileSync("/proc/locks", "utf8").includes(`:${statSync(`${other.name}-wal`).ino} `), false)
    other.close()
  })

  test("the data is taken when the call is made, not when its turn comes", async () => {
    const { given, store, release } = locked()
    const data = { noteID: "n", text: "then" }
    const items = [serialized("written", 0, { noteID: "m", text: "then" })]
    const promises = [store.runAsync(given.Written, data), store.replayAllAsync(items)]
    data.text = "now"
    items[0].data.text = "now"
    items.length = 0
    release()
    await Promise.all(promises)
    assert.deepEqual(noteRows(store), [
      ["m", "then", 0],
      ["n", "then", 0],
    ])
  })

  test("are carried out in the order in which they were asked for", async () => {
    const { given, store, release } = locked()
    const heard = []
    store.subscribeAll(({ data }) => heard.push(data.text))
    const texts = Array.from({ length: 20 }, (_, n) => `${n}`)
    const promises = texts.map((text, n) =>
      n % 2 === 0
        ? store.runAsync(given.Written, { noteID: "n", text })
        : store.runAllAsync([[given.Written, { noteID: "n", text }]]).then(([event]) => event),
    )
    release()
    const events = await Promise.all(promises)
    assert.deepEqual(
      events.map(({ seq }) => seq),
      texts.map(Number),
    )
    assert.deepEqual(heard, texts)
  })

  test("a synchronous run does not overtake what waits", async () => {
    const given = notes()
    const store = openNotes(given)
    const waiting = [0, 1].map((n) => store.runAsync(given.Written, { noteID: "n", text: `async ${n}` }))
    assert.equal(store.run(given.Written, { noteID: "n", text: "sync" }).seq, 2)
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ seq }) => seq),
      [0, 1],
    )
    const later = store.runAsync(given.Tagged, { noteID: "n", tag: "t" })
    store.transaction(() => assert.equal(store.run(given.Seen, { noteID: "n" }).seq, 4))
    assert.equal((await later).seq, 3)
  })

  test("one that fails harms none of the others", async () => {
    const { given, store, release } = locked()
    const run = (noteID, options) => store.runAsync(given.Written, { noteID }, options)
    const promises = [run("a"), run("a", { expectedSeq: 5 }), run("a", { expectedSeq: 0 }), run("b")]
    release()
    const settled = await Promise.allSettled(promises)
    assert.deepEqual(
      settled.map(({ status, value }) => [status, value?.seq]),
      [
        ["fulfilled", 0],
        ["rejected", undefined],
        ["fulfilled", 1],
        ["fulfilled", 0],
      ],
    )
    assert.ok(coded("ERR_CONFLICT")(settled[1].reason))
  })

  test("give up after busyTimeout with ERR_BUSY", async () => {
    const { given, store, release } = locked({ busyTimeout: 30 })
    const before = Date.now()
    const promises = [store.runAsync(given.Written, { noteID: "n" }), store.replayAllAsync(history("m", 1))]
    for (const promise of promises) await assert.rejects(promise, coded("ERR_BUSY", /locked/))
    assert.ok(Date.now() - before >= 30)
    release()
    assert.deepEqual(store.aggregates(), [])
    assert.equal((await store.runAsync(given.Written, { noteID: "n" })).seq, 0)
  })

  test("a signal gives up waiting with ERR_ABORTED, and then nothing is written", async () => {
    const { given, store, release } = locked()
    const controller = new AbortController()
    const { signal } = controller
    const promises = [
      store.runAsync(given.Written, { noteID: "a" }, { signal }),
      store.runAllAsync([[given.Written, { noteID: "b" }]], { signal }),
      store.replayAllAsync(history("c", 2), { signal }),
    ]
    const kept = store.runAsync(given.Written, { noteID: "kept" })
    await turns()
    const reason = new Error("enough")
    controller.abort(reason)
    for (const promise of promises) {
      await assert.rejects(promise, (error) => coded("ERR_ABORTED")(error) && error.cause === reason)
    }
    await assert.rejects(store.runAsync(given.Written, { noteID: "d" }, { signal }), coded("ERR_ABORTED"))
    release()
    await kept
    assert.deepEqual(
      store.aggregates().map(({ aggregateID }) => aggregateID),
      ["kept"],
    )
  })

  test("a signal that comes too late changes nothing", async () => {
    const given = notes()
    const store = openNotes(given)
    const controller = new AbortController()
    const event = await store.runAsync(given.Written, { noteID: "a" }, { signal: controller.signal })
    controller.abort()
    await turns()
    assert.equal(event.seq, 0)
    assert.equal(store.sequence("a"), 0)
  })

  test("close rejects what waits with ERR_CLOSED", async () => {
    const { given, store, release } = locked()
    const promises = [store.runAsync(given.Written, { noteID: "n" }), store.replayAllAsync(history("m", 1))]
    await turns()
    store.close()
    for (const promise of promises) await assert.rejects(promise, coded("ERR_CLOSED"))
    release()
  })

  test("rule 10: inside a transaction they are refused, since they would wait for it", async () => {
    const given = notes()
    const store = openNotes(given)
    const promises = store.transaction(() => [
      store.runAsync(given.Written, { noteID: "n" }),
      store.runAllAsync([[given.Written, { noteID: "n" }]]),
      store.replayAllAsync(history("n", 1)),
    ])
    for (const promise of promises) await assert.rejects(promise, coded("ERR_IN_TRANSACTION"))
    assert.deepEqual(store.aggregates(), [])
  })

  test("rule 10: inside a raw BEGIN they are refused or wait, and never join it", async () => {
    const given = notes()
    const store = openNotes(given)
    store.db.exec("BEGIN; INSERT INTO note VALUES ('raw', '', 0)")
    const promise = store.runAsync(given.Written, { noteID: "n" }).then(
      () => "written",
      ({ code }) => code,
    )
    await turns()
    store.db.exec("ROLLBACK")
    assert.equal(await promise, "ERR_IN_TRANSACTION")
    assert.deepEqual(noteRows(store), [])
  })

  test("a query that is still open makes them wait, not fail", async () => {
    const given = notes()
    const store = openNotes(given)
    store.db.exec("INSERT INTO note VALUES ('a', '', 0), ('b', '', 0)")
    const rows = store.db.prepare("SELECT id FROM note").pluck().iterate()
    assert.equal(rows.next().value, "a")
    const promise = store.runAsync(given.Written, { noteID: "n" })
    await turns()
    assert.equal(store.sequence("n"), -1)
    rows.return()
    assert.equal((await promise).seq, 0)
  })

  test("a listener may ask for more, and await it", async () => {
    const given = notes()
    const store = openNotes(given)
    const asked = []
    store.subscribe(given.Written, ({ data }) => {
      if (data.noteID === "a") asked.push(store.runAsync(given.Written, { noteID: "b" }))
    })
    store.run(given.Written, { noteID: "a" })
    await store.runAsync(given.Written, { noteID: "a" })
    assert.deepEqual(
      (await Promise.all(asked)).map(({ seq }) => seq),
      [0, 1],
    )
  })

  test("readonly stores refuse every write", async () => {
    const given = notes()
    openNotes(given).run(given.Written, { noteID: "a" })
    const store = openNotes(notes(), { readonly: true })
    const mine = openNotes(given, { readonly: true })
    refused(mine, () => mine.run(given.Written, { noteID: "a" }), coded("ERR_READONLY"))
    refused(mine, () => mine.run(given.Tagged, { noteID: "a", tag: "t" }), coded("ERR_READONLY"))
    refused(mine, () => mine.replayAll(history("b", 2)), coded("ERR_READONLY"))
    refused(mine, () => mine.claim("a", "me"), coded("ERR_READONLY"))
    refused(mine, () => mine.remove("a"), coded("ERR_READONLY"))
    await assert.rejects(mine.runAsync(given.Written, { noteID: "a" }), coded("ERR_READONLY"))
    assert.equal(store.read("a").length, 1)
    assert.equal(mine.db.readonly, true)
  })
})
