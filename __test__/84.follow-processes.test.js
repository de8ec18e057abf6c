"use strict"

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { endOf, kill, say, start, untilTold } = require("./children")
const { assertSound, coded, openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0

/** A new file with Syncline's tables in it, and a store of this process. */
function newFile() {
  const path = join(folder, `${files++}.db`)
  return { path, ...openNotes(path) }
}

/** For a test that waits for processes: nothing but a hang reaches it. */
const timeout = 240_000

const noteIDs = (count) => Array.from({ length: count }, (_, n) => `note ${n}`)
const isEvent = ([, seq]) => typeof seq === "number"

/** Where a follower goes on that has told of these items. */
function resumed(ids, told = []) {
  const after = Object.fromEntries(ids.map((noteID) => [noteID, -1]))
  for (const [noteID, seq] of told.filter(isEvent)) after[noteID] = seq
  return after
}

/** Numbers from 0 below `bound` that look random and are the same at each start. */
function dice(seed) {
  let state = seed
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * bound)
  }
}

/** Asserts that the events a follower told of are all that the log has, each once and in its place. */
function assertWholeLogs(store, ids, told) {
  for (const noteID of ids) {
    const events = told.filter((item) => item[0] === noteID && isEvent(item))
    const stored = store.read(noteID).map(({ seq, id }) => [noteID, seq, id])
    assert.deepEqual(events, stored, noteID)
  }
}

/** The whole log in the order of commits, as processes that listen tell of it. */
function committed(store) {
  const events = []
  for (let page; page?.length !== 0; events.push(...page)) {
    page = store.readAll({ afterPosition: events.at(-1)?.position ?? 0, limit: 1_000 })
  }
  return events.map(({ position, aggregateID, seq, id }) => [position, aggregateID, seq, id])
}

/** Listens to everything, until a word closes its store; runs an event itself for every so many that it hears. */
const LISTENER = `
  let heard = 0
  const run = () => store.run(Written, { noteID: "note 0", text: "own" })
  store.subscribeAll((event) => {
    tell([event.position, event.aggregateID, event.seq, event.id])
    if (event.data.text === "own" || ++heard % settings.every !== 0) return
    // In the listener itself, and in a turn of its own.
    if (heard % (2 * settings.every) === 0) run()
    else setImmediate(run)
  }, { scope: "database" })
  untilWord(() => store.close())
  tell("listening")
`

/** The same through a stream, whose buffer is as large as the test: how fast it is read, is up to the machine. */
const STREAM = `
  const stream = store.stream({ capacity: { events: 1_000_000, bytes: 2 ** 30 } });
  (async () => {
    for await (const event of stream) tell([event.position, event.aggregateID, event.seq, event.id])
  })()
  untilWord(() => store.close())
  tell("listening")
`

describe("issue 3: readers in processes of their own", () => {
  test(
    "issue 3: 4 writers, 8 followers, 20,000 events, followers killed at random: each log without gap or repeat",
    { timeout },
    async () => {
      const [WRITERS, FOLLOWERS, AGGREGATES, ROUNDS, KILLS] = [4, 8, 20, 20, 5]
      const shape = { rounds: ROUNDS, transactions: 25, batch: 10, aggregates: AGGREGATES }
      const { path, store } = newFile()
      const writers = Array.from({ length: WRITERS }, (_, writer) =>
        start("note-rounds.js", { path, writer, ...shape }),
      )
      // Each follows half of the logs, another half than its neighbours.
      const followers = Array.from({ length: FOLLOWERS }, (_, number) => ({
        ids: noteIDs(AGGREGATES).filter((_, n) => (n + number) % AGGREGATES < AGGREGATES / 2),
        random: dice(84 + number),
        told: [],
        count: 0,
      }))
      const perRound = (WRITERS * shape.transactions * shape.batch) / 2
      const all = ROUNDS * perRound

      // No follower is left behind by more than two rounds: they are killed while others write, on any machine.
      let round = 0
      const goOn = () => {
        if (round === ROUNDS || followers.some(({ count }) => count < (round - 1) * perRound)) return
        round++
        for (const writer of writers) say(writer)
      }

      /** One life after the other, each of which goes on from what those before it told. */
      async function follow(follower) {
        for (let life = 0; life <= KILLS; life++) {
          const { ids, random, told } = follower
          const one = start("note-follower.js", { path, after: resumed(ids, told) })
          const last = life === KILLS
          // Beside its events, each log tells once that it is synced. Now and then a life ends with its first item.
          const whole = all - told.length + ids.length
          const enough = last ? whole : Math.min(whole, random(4) === 0 ? 1 : random((2 * all) / KILLS))
          await untilTold(one, (now) => {
            follower.count = told.length + now.length
            goOn()
            return now.length >= enough
          })
          if (!last) await kill(one)
          else (say(one), await endOf(one))
          const synced = one.told.filter((item) => !isEvent(item)).map(([noteID]) => noteID)
          assert.equal(new Set(synced).size, synced.length, `synced twice: ${synced}`)
          told.push(...one.told.filter(isEvent))
        }
      }
      await Promise.all([...followers.map(follow), ...writers.map(endOf)])
      assert.equal(committed(store).length, 20_000)
      for (const { ids, told } of followers) assertWholeLogs(store, ids, told)
      assertSound(store, [])
      store.close()
    },
  )

  test(
    "issue 3: a listener of scope database that writes itself and a stream hear every event once, in order of position",
    { timeout },
    async () => {
      const { path, store } = newFile()
      const every = 20
      const readers = [start(LISTENER, { path, every }), start(STREAM, { path })]
      const shape = { rounds: 1, transactions: 200, batch: 10, aggregates: 20 }
      const writers = [1, 2, 3].map((writer) => start("note-rounds.js", { path, writer, ...shape }))
      for (const reader of readers) await untilTold(reader, 1)
      for (const writer of writers) say(writer)
      for (const writer of writers) await endOf(writer)
      const all = 6_000 + 6_000 / every
      for (const reader of readers) {
        await untilTold(reader, 1 + all)
        say(reader)
        assert.deepEqual((await endOf(reader)).slice(1), committed(store))
      }
      assert.equal(committed(store).length, all)
      store.close()
    },
  )

  test("issue 3: kill -9 of a writer in the middle: readers go on with the next one", { timeout }, async () => {
    const { path, store } = newFile()
    const ids = noteIDs(4)
    const followers = [false, true].map((readonly) =>
      start("note-follower.js", { path, readonly, after: resumed(ids) }),
    )
    const listener = start(LISTENER, { path })
    await untilTold(listener, 1)
    // Of each pair the second goes on beside a killed one, and the next pair after both.
    const settings = { path, rounds: 1_000_000, transactions: 1, batch: 3, aggregates: ids.length }
    for (const [writer, count] of [1, 10, 100].entries()) {
      const pair = [writer, writer + 3].map((writer) => start("note-rounds.js", { ...settings, writer }))
      for (const one of pair) say(one, 5_000)
      for (const one of pair) {
        await untilTold(one, count)
        await kill(one)
      }
    }
    const last = start("note-rounds.js", { ...settings, rounds: 10, writer: 6 })
    say(last, 10)
    await endOf(last)
    const all = committed(store)
    for (const follower of followers) {
      await untilTold(follower, (told) => told.length === all.length + ids.length)
      say(follower)
      assertWholeLogs(store, ids, await endOf(follower))
    }
    await untilTold(listener, 1 + all.length)
    say(listener)
    assert.deepEqual((await endOf(listener)).slice(1), all)
    assertSound(store, [])
    store.close()
  })

  test(
    "rules 18, 20, 21: gaps, removals and deletion events of another process reach a reader",
    { timeout },
    async () => {
      const { path, store, Written } = newFile()
      const run = () => store.run(Written, { noteID: "a" })
      const heard = []
      const expected = []
      const ran = [run(), run()]
      for (const { seq, id } of ran) expected.push(["a", seq, id])
      expected.push(["a", "synced 1"])
      const follower = start("note-follower.js", { path, after: resumed(["a"]) })
      const listener = start(LISTENER, { path })
      const bothTold = async () => {
        await untilTold(follower, expected.length)
        await untilTold(listener, 1 + heard.length)
        assert.deepEqual(follower.told, expected)
        assert.deepEqual(
          listener.told.slice(1).map(([, ...rest]) => rest),
          heard,
        )
      }
      await bothTold()

      store.replay({ kind: "gap", aggregateID: "a", after: 1, through: 4 })
      expected.push(["a", "gap 4"])
      await bothTold()

      let deletion
      const undo = store.subscribeAll((event) => (deletion = event))
      store.remove("a", { event: [Written, { noteID: "a", text: "deleted" }] })
      undo()
      expected.push(["a", "removed 5", deletion.id])
      heard.push(["a", 5, deletion.id])
      await bothTold()

      const later = run()
      expected.push(["a", 6, later.id])
      heard.push(["a", 6, later.id])
      await bothTold()

      store.remove("a")
      expected.push(["a", "removed 6"])
      await bothTold()
      const positions = listener.told.slice(1).map(([position]) => position)
      assert.ok(positions[0] < positions[1], String(positions))
      for (const reader of [follower, listener]) (say(reader), await endOf(reader))
      store.close()
    },
  )

  test("issue 3: a read-only store follows, listens, and waits for what others commit", { timeout }, async () => {
    const { path, store, Written } = newFile()
    store.run(Written, { noteID: "a" })
    const readers = ["note-follower.js", LISTENER, STREAM].map((program) =>
      start(program, { path, readonly: true, after: resumed(["a"]) }),
    )
    const waiting = start(`store.waitFor({ a: 3 }).then(() => tell(store.sequence("a")))`, { path, readonly: true })
    await Promise.all([untilTold(readers[0], 2), untilTold(readers[1], 1), untilTold(readers[2], 1)])
    const [follower, ...listeners] = readers
    for (let n = 1; n <= 3; n++) {
      store.run(Written, { noteID: "a" })
      await untilTold(follower, (told) => told.at(-1)[1] === n)
      for (const listener of listeners) await untilTold(listener, 1 + n)
    }
    assert.deepEqual(await endOf(waiting), [3])
    for (const reader of readers) (say(reader), await endOf(reader))
    assertWholeLogs(store, ["a"], follower.told)
    for (const { told } of listeners) assert.deepEqual(told.slice(1), committed(store).slice(1))
    store.close()
  })

  test(
    "issue 3: changes of another process: a sweep, then hints, the last of them the newest seq",
    { timeout },
    async () => {
      const { path, store, Written } = newFile()
      const runs = (ids) => store.runAll(ids.map((noteID) => [Written, { noteID }]))
      runs(noteIDs(5))
      const reader = start(
        `
      (async () => {
        for await (const change of store.changes()) {
          // What a reader does that keeps the newest seq of every aggregate.
          const seqs = change.kind === "hint" ? [[change.aggregateID, change.seq]] : [...store.sequences()]
          tell([change.kind, ...seqs])
        }
        tell("ended")
      })()
      onWord(() => store.close())
    `,
        { path },
      )
      await untilTold(reader, 1)
      assert.deepEqual(reader.told, [["sweep", ...noteIDs(5).map((noteID) => [noteID, 0])]])
      const random = dice(3)
      /** All that the reader was told so far comes to what is in the file. */
      const isCurrent = (told) => {
        const known = new Map(told.flatMap(([, ...seqs]) => seqs))
        return [...store.sequences()].every(([noteID, seq]) => known.get(noteID) === seq)
      }
      for (let n = 0; n < 100; n++) {
        runs(Array.from({ length: 1 + random(5) }, () => `note ${random(8)}`))
        if (n % 10 === 0) await untilTold(reader, isCurrent)
      }
      await untilTold(reader, isCurrent)
      const hints = reader.told.slice(1)
      assert.ok(hints.every(([kind]) => kind === "hint"))
      const seen = new Map(noteIDs(5).map((noteID) => [noteID, 0]))
      for (const [, [noteID, seq]] of hints) {
        assert.ok(seq >= (seen.get(noteID) ?? 0), `hinted ${noteID} ${seq} after ${seen.get(noteID)}`)
        seen.set(noteID, seq)
      }
      // More than one page, and more than a reader is told of one by one.
      runs(noteIDs(2_500))
      await untilTold(reader, isCurrent)
      say(reader)
      assert.equal((await endOf(reader)).at(-1), "ended")
      store.close()
    },
  )
})

describe("issue 3: waitFor across processes", () => {
  test("issue 3: what a process told that it writes can be read after waiting for it", { timeout }, async () => {
    const { path, store } = newFile()
    // It tells of each before it has committed it, so that the seq may be there or not.
    const writer = start(
      `
      onWord(() => {
        store.transaction(() => {
          tell(store.run(Written, { noteID: "a", text: "read" }).seq)
          for (const until = performance.now() + 2; performance.now() < until;);
        })
      }).ref()
    `,
      { path },
    )
    for (let n = 0; n < 50; n++) {
      say(writer)
      await untilTold(writer, n + 1)
      await store.waitFor(n % 2 ? { a: writer.told[n] } : new Map([["a", writer.told[n]]]))
      assert.equal(store.get("a", n).data.text, "read")
    }
    await kill(writer)
    store.close()
  })

  test(
    "issue 3: a wait for a process that dies is over when another one writes, or at its time-out",
    { timeout },
    async () => {
      const { path, store } = newFile()
      const holding = start(
        `
      store.transaction(() => {
        store.run(Written, { noteID: "a" })
        tell("held")
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
      })
    `,
        { path },
      )
      await untilTold(holding, 1)
      const waiting = store.waitFor({ a: 0, b: -1, c: 1 })
      await kill(holding)
      const got = { aggregateID: "a", expected: 0, got: -1, waited: (ms) => ms >= 50 }
      await assert.rejects(store.waitFor({ b: -1, a: 0 }, { timeout: 50 }), coded("ERR_TIMEOUT", got))
      const other = `for (const noteID of settings.ids) store.run(Written, { noteID }); store.close()`
      await endOf(start(other, { path, ids: ["a", "c"] }))
      const missing = { aggregateID: "c", expected: 1, got: 0 }
      await assert.rejects(store.waitFor({ a: 0, c: 1 }, { timeout: 1 }), coded("ERR_TIMEOUT", missing))
      await endOf(start(other, { path, ids: ["c"] }))
      assert.equal(await waiting, undefined)
      assert.equal(store.sequence("c"), 1)
      store.close()
    },
  )
})
