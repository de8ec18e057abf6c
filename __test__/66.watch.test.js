"use strict"

const assert = require("node:assert/strict")
const { readdirSync, symlinkSync } = require("node:fs")
const { describe, test } = require("node:test")
const { file, history, openNotes, turns } = require("./stores.js")
const { counted, deltas, dice, logged, newFile, openTogether, reading, until, watchThreads } = require("./streaming.js")

const onLinux = process.platform === "linux" ? {} : { skip: "only Linux tells the names of threads" }

/** Stores on one file, and a shorthand that records an event. */
function together(count = 2) {
  const { given, path, stores } = openTogether(count)
  const see = (by, noteID = "a") => by.run(given.Seen, { noteID })
  const many = (by, noteID, count) => by.runAll(counted(count).map(() => [given.Seen, { noteID }]))
  return { given, path, stores, store: stores[0], other: stores[1], see, many }
}

/** Follows a log in the background: seqs, and the kinds of all other items. */
function following(store, aggregateID = "a", options = {}) {
  const controller = new AbortController()
  const log = store.log({ aggregateID, follow: true, signal: controller.signal, ...options })
  const { items, ended } = reading(log, logged)
  const seqs = () => items.filter(Number.isInteger)
  return { items, seqs, ended, end: () => (controller.abort(), ended) }
}

/** None missed, none twice, one synced. */
function assertFollowed({ items, seqs }, count, from = 0) {
  assert.deepEqual(seqs(), counted(count, from))
  assert.equal(items.length, count + 1, String(items.filter((item) => !Number.isInteger(item))))
}

describe("issue 3, rule 20: follow across stores of one process", () => {
  test("rule 20: wakes for commits of other stores on the file", async () => {
    const { given, store, other, see, many } = together()
    see(store)
    const follower = following(store)
    await until(() => follower.items.length === 2)
    assert.deepEqual(follower.items, [0, "synced"])
    see(other)
    await until(() => follower.items.length === 3)
    see(other, "b")
    other.transaction(() => (see(other), see(other, "b"), see(other)))
    await until(() => follower.items.length === 5)
    many(other, "a", 3_000)
    other.replayAll(history("a", 2, 3_004))
    other.run(given.Seen, { noteID: "a" }, { publish: false })
    await until(() => follower.items.length === 3_008)
    other.replay({ kind: "gap", aggregateID: "a", after: 3_006, through: 3_010 })
    await until(() => follower.items.length === 3_009)
    other.remove("a", { event: [given.Seen, { noteID: "a" }] })
    await until(() => follower.items.length === 3_010)
    see(other)
    await until(() => follower.items.length === 3_011)
    assert.deepEqual(follower.items, [0, "synced", ...counted(3_006, 1), "gap", "removed", 3_012])
    await follower.end()
  })

  test("rule 20: a commit between any two steps is neither missed nor told twice", async () => {
    const { store, other, see } = together()
    const steps = { microtasks: async () => undefined, turns: () => turns(1) }
    for (const step of Object.values(steps)) {
      for (let between = 0; between < 40; between++) {
        for (const by of [[other], [store], [other, store], [store, other, other]]) {
          const noteID = `${step === steps.turns} ${between} ${by.length} ${by[0] === store}`
          see(store, noteID)
          const follower = following(store, noteID)
          for (const each of by) {
            for (let n = 0; n < between; n++) await step()
            see(each, noteID)
          }
          await until(() => follower.seqs().length === by.length + 1)
          assertFollowed(follower, by.length + 1)
          await follower.end()
        }
        if (step === steps.turns && between > 12) break
      }
    }
  })

  test("rule 20: the same, where the reader steps by hand and at random", async () => {
    for (const seed of counted(12)) {
      const roll = dice(seed)
      const { stores, see } = together(3)
      const log = stores[0].log({ aggregateID: "a", follow: true, after: -1 })
      const got = []
      const asked = []
      const ask = () => asked.push(log.next().then(({ value }) => got.push(logged(value))))
      const acts = [
        () => see(stores[roll(3)]),
        () => see(stores[roll(3)], "b"),
        () => stores[1].transaction(() => (see(stores[1]), see(stores[1]))),
        ask,
        ask,
        () => undefined,
        () => turns(1 + roll(3)),
      ]
      for (let n = 0; n < 150; n++) await acts[roll(acts.length)]()
      const total = stores[0].sequence("a") + 2
      while (asked.length < total) ask()
      await until(() => got.length >= total)
      const pending = log.next()
      await log.return()
      assert.equal((await pending).done, true)
      assert.deepEqual(got.filter((item) => item !== "synced").slice(0, total - 1), counted(total - 1), `seed ${seed}`)
      assert.equal(got.filter((item) => item === "synced").length, 1)
    }
  })

  test("rule 20: stores that all write and all follow", async () => {
    const { stores, see } = together(4)
    const followers = stores.flatMap((store) => [following(store, "a"), following(store, "b")])
    for (let n = 0; n < 200; n++) {
      see(stores[n % 4], n % 3 ? "a" : "b")
      if (n % 10 === 0) await turns(1)
    }
    const wanted = ["a", "b"].map((id) => stores[0].sequence(id) + 1)
    await until(() => followers.every(({ seqs }, n) => seqs().length === wanted[n % 2]))
    followers.forEach((follower, n) => assertFollowed(follower, wanted[n % 2]))
    await Promise.all(followers.map(({ end }) => end()))
  })

  test("rule 20: a readonly store follows, also one that was there before the writer", async () => {
    const given = deltas()
    const path = newFile()
    openNotes(given, { path }).close()
    const reader = openNotes(given, { path, readonly: true })
    const follower = following(reader)
    await until(() => follower.items.length === 1)
    for (let n = 0; n < 3; n++) {
      const writer = openNotes(given, { path })
      for (let m = 0; m < 4; m++) writer.run(given.Seen, { noteID: "a" })
      if (n !== 1) await until(() => follower.seqs().length === (n + 1) * 4)
      writer.close()
    }
    assertFollowed(follower, 12)
    await follower.end()
  })

  test("rule 20: a store that was opened by another name of the file", async () => {
    const { given, path, other, see } = together()
    const link = file("link.db")
    symlinkSync(path, link)
    const linked = openNotes(given, { path: link })
    const [here, there] = [following(linked), following(other)]
    await until(() => here.items.length === 1 && there.items.length === 1)
    see(other)
    see(linked)
    see(other)
    await until(() => here.items.length === 4 && there.items.length === 4)
    assertFollowed(here, 3)
    assertFollowed(there, 3)
  })

  test("rule 20: a WAL that begins anew hides nothing", async () => {
    const { store, other, see } = together()
    const follower = following(store)
    const connection = store.connect()
    for (let n = 0; n < 20; n++) {
      see(other)
      if (n % 2) await until(() => follower.seqs().length === n + 1)
      connection.pragma(`wal_checkpoint(${n % 3 ? "TRUNCATE" : "RESTART"})`)
    }
    await until(() => follower.seqs().length === 20)
    assertFollowed(follower, 20)
    connection.close()
  })
})

describe("issue 3, rule 20: follow and the store's own connection", () => {
  test("rule 20: a raw BEGIN or an open iterator delays what is foreign, and loses nothing", async () => {
    const { store, other, see } = together()
    const follower = following(store)
    await until(() => follower.items.length === 1)
    const holds = [
      () => {
        store.db.exec("BEGIN")
        store.db.prepare("SELECT count(*) FROM note").get()
        return () => store.db.exec("COMMIT")
      },
      () => {
        store.db.exec("SAVEPOINT mine")
        store.db.prepare("SELECT count(*) FROM note").get()
        return () => store.db.exec("ROLLBACK TO mine; RELEASE mine")
      },
      () => {
        const iterator = store.db.prepare("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT count(*) FROM note").iterate()
        iterator.next()
        return () => iterator.return()
      },
    ]
    let count = 0
    for (const hold of [...holds, ...holds]) {
      const release = hold()
      for (let n = 0; n < 3; n++) {
        see(other)
        await turns(count % 2 ? 30 : 1)
      }
      count += 3
      release()
      await until(() => follower.seqs().length === count)
    }
    assertFollowed(follower, count)
    await follower.end()
  })

  test("a raw transaction stays its owner's: nothing reads in it, so that it may still write after others have", async () => {
    const { stores, store, other, see } = together(3)
    const follower = following(store)
    const elsewhere = following(stores[2])
    const changes = store.changes()
    await changes.next()
    const hint = changes.next()
    const heard = []
    store.subscribeAll(({ seq }) => heard.push(seq), { scope: "database" })
    await until(() => follower.items.length === 1)
    store.db.exec("BEGIN")
    for (let count = 1; count <= 2; count++) {
      see(other)
      // Once a third store has been woken, this one has been, or soon will be.
      await until(() => elsewhere.seqs().length === count)
      await turns(50)
    }
    // Had anything read since BEGIN, SQLite would refuse this: what was read would be of the past.
    store.db.exec("INSERT INTO note VALUES ('mine', '', 0); COMMIT")
    await until(() => follower.seqs().length === 2 && heard.length === 2)
    assert.equal((await hint).value.kind, "hint")
    await changes.return()
    await follower.end()
  })

  test("rule 20: next inside a transaction yields nothing that is not committed", async () => {
    const { store, other, see } = together()
    const logs = counted(3).map(() => store.log({ aggregateID: "a", follow: true }))
    assert.equal((await logs[1].next()).value.kind, "synced")
    const answers = []
    const doomed = () => {
      see(store)
      for (const log of logs) answers.push(log.next())
      see(store)
      assert.fail("on purpose")
    }
    assert.throws(() => store.transaction(doomed), /on purpose/)
    await turns()
    see(other)
    const { id } = see(store)
    const items = [[], ["synced"], []]
    for (const [index, answer] of answers.entries()) {
      for (let next = await answer; ; next = await logs[index].next()) {
        items[index].push(next.value.event?.id ?? next.value.kind)
        if (next.value.event?.seq === 1) break
      }
      assert.deepEqual(
        items[index].filter((item) => item !== "synced"),
        [store.get("a", 0).id, id],
      )
      assert.equal(items[index].filter((item) => item === "synced").length, 1)
      await logs[index].return()
    }
  })

  test("rule 20: nor does a synced item speak of it, and what commits later is not passed over", async () => {
    const { store, many } = together()
    many(store, "a", 2)
    const log = store.log({ aggregateID: "a", after: 1, follow: true })
    let answer
    assert.throws(() =>
      store.transaction(() => (many(store, "a", 5), (answer = log.next()), assert.fail("on purpose"))),
    )
    assert.deepEqual((await answer).value, { kind: "synced", aggregateID: "a", seq: 1 })
    many(store, "a", 3)
    for (const seq of [2, 3, 4]) assert.equal((await log.next()).value.event.seq, seq)
    await log.return()
  })

  test("a reader that stops reading holds no read transaction", async () => {
    const { store, other, see, many } = together()
    many(store, "a", 3_000)
    const amid = store.log({ aggregateID: "a", follow: true })
    for (let n = 0; n < 3; n++) await amid.next()
    const plain = store.log({ aggregateID: "a" })
    await plain.next()
    const waiting = following(store, "b")
    const changes = store.changes()
    await changes.next()
    store.stream()
    store.subscribeAll(() => {}, { scope: "database" })
    const waited = store.waitFor({ z: 0 }).catch((error) => error.code)
    await until(() => waiting.items.length === 1)
    const connection = store.connect()
    for (let n = 0; n < 5; n++) {
      see(other, "b")
      await until(() => connection.pragma("wal_checkpoint(TRUNCATE)")[0].busy === 0)
      await until(() => waiting.seqs().length === n + 1)
    }
    connection.close()
    store.close()
    assert.equal(await waited, "ERR_CLOSED")
    await waiting.ended
  })
})

describe("issue 3: the watch thread", onLinux, () => {
  test("is started by the first need and stopped by the last, whichever it is", async () => {
    const { store, see } = together()
    see(store)
    const needs = {
      log() {
        const log = store.log({ aggregateID: "b", follow: true })
        log.next()
        log.next().then(() => {})
        return () => log.return()
      },
      changes() {
        const changes = store.changes()
        changes.next()
        changes.next().then(() => {})
        return () => changes.return()
      },
      subscribeAll: () => store.subscribeAll(() => {}, { scope: "database" }),
      stream() {
        const stream = store.stream()
        return () => stream.return()
      },
      waitFor() {
        const controller = new AbortController()
        store.waitFor({ z: 0 }, { signal: controller.signal }).catch(() => {})
        return () => controller.abort()
      },
    }
    await until(() => watchThreads() === 0)
    for (const [name, need] of Object.entries(needs)) {
      const end = need()
      await until(
        () => watchThreads() === 1,
        () => name,
      )
      end()
      await until(
        () => watchThreads() === 0,
        () => name,
      )
    }
    const ends = [...Object.values(needs), ...Object.values(needs)].map((need) => need())
    await until(() => watchThreads() === 1)
    for (const end of ends) {
      await turns(2)
      assert.equal(watchThreads(), 1)
      end()
    }
    await until(() => watchThreads() === 0)
  })

  test("is not needed by what ends, or does not wait, or hears only its own store", async () => {
    const { given, store, see } = together()
    see(store)
    store.subscribeAll(() => {})
    store.subscribe(given.Seen, () => {})
    store.log({ aggregateID: "a", follow: true })
    store.changes()
    for await (const _ of store.log({ aggregateID: "a" }));
    await store.waitFor({ a: 0 })
    see(store)
    await turns()
    await until(() => watchThreads() === 0)
    const stream = store.stream({ capacity: { events: 1 } })
    await until(() => watchThreads() === 1)
    see(store)
    see(store)
    await until(() => watchThreads() === 0)
    await assert.rejects(stream.next())
  })

  test("is one a store, ends with it, and a store in memory has none", async () => {
    const { stores } = together(3)
    const memory = openNotes(deltas(), { path: ":memory:" })
    for (const store of [...stores, ...stores, memory]) store.subscribeAll(() => {}, { scope: "database" })
    await until(() => watchThreads() === 3)
    const waited = memory.waitFor({ a: 0 }).catch(() => {})
    await turns()
    assert.equal(watchThreads(), 3)
    for (const [n, store] of stores.entries()) {
      store.close()
      await until(() => watchThreads() === 2 - n)
    }
    memory.close()
    await waited
  })

  test("comes and goes a hundred times, and leaves no thread and no file open", async () => {
    const { given, path, other, see } = together()
    const files = () => readdirSync("/proc/self/fd").length
    const before = files()
    for (let n = 0; n < 100; n++) {
      const store = openNotes(given, { path })
      const follower = following(store)
      see(other)
      if (n % 2) await until(() => follower.seqs().length === n + 1)
      if (n % 3) await follower.end()
      store.close()
      await follower.ended
    }
    await until(() => watchThreads() === 0)
    // SQLite keeps a file that one connection of the process has open for all others, and may open it once more.
    await until(
      () => files() <= before + 2,
      () => `${files()} files instead of ${before}`,
    )
  })
})
