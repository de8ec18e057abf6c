"use strict"

// What a store commits is on the stream: in order, once, whatever happens to the relay, to the cluster, and to the log.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { afterEach, before, describe, test } = require("node:test")
const { Kvm } = require("@nats-io/kv")
const { Objm } = require("@nats-io/obj")
const { jetstreamManager } = require("@nats-io/jetstream")
const { relay, replicate } = require("syncline/nats")
const { start, untilTold, kill } = require("../children.js")
const { openNotes, temporaryFolder, written } = require("../notes.js")
const { coded } = require("../stores.js")
const { messagesOf } = require("./messages.js")
const { skip, startCluster } = require("./servers.js")

let cluster
let connection
before(async () => {
  if (skip) return
  cluster = await startCluster({ size: 1, maxPayload: 256 * 1024 })
  connection = await cluster.connect()
})

let streams = 0
/** Where a test has a stream of its own. */
const place = () => ({ connection, stream: `relay-${streams}`, prefix: `of.relay-${streams++}` })

const ends = []
afterEach(() => ends.splice(0).forEach((end) => end()))

function opened(options) {
  const log = openNotes(join(folder, `${streams}-${ends.length}.db`), options)
  ends.push(() => log.store.close())
  return log
}
const folder = temporaryFolder()

/** A relay, or a replica, that runs until `end`, or until the test file ends. `live` once it is. */
function running(work, store, options) {
  const ended = new AbortController()
  const errors = []
  const statuses = []
  let live
  const isLive = new Promise((resolve) => (live = resolve))
  const done = work(store, {
    backoff: { initial: 10, longest: 100 },
    onError: (error, { aggregateID }) => errors.push([error.code, aggregateID]),
    ...options,
    signal: ended.signal,
    onStatus: (status) => (statuses.push(status), status === "live" && live()),
  })
  done.catch(() => {})
  ends.push(() => ended.abort())
  return { errors, statuses, live: Promise.race([isLive, done]), end: () => (ended.abort(), done), done }
}
const relaying = (store, options) => running(relay, store, { replicas: 1, ...options })
const replica = async (at, aggregates) => {
  const { store } = opened()
  const one = running(replicate, store, { ...at, aggregates })
  await one.live
  await one.end()
  assert.deepEqual(one.errors, [])
  return store
}

/** Looks again until it holds. */
async function until(holds) {
  for (const late = Date.now() + 30_000; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    if (await holds()) return
    assert.ok(Date.now() < late, `${holds} does not come`)
  }
}
const onStream = async (at, id, seq) => (await messagesOf(at, id)).at(-1)?.seq === seq

describe("relay", { skip }, () => {
  test("publishes what was recorded, and what is recorded, once and in order", async () => {
    const at = place()
    const { store, Written } = opened()
    const ids = ["a", "ä/ö.*>", "x".repeat(8_000)]
    for (const noteID of ids) store.runAll([0, 1, 2].map((n) => [Written, { noteID, text: `${n}` }]))
    const one = relaying(store, at)
    await one.live
    for (const noteID of ids) store.run(Written, { noteID, text: "later" })
    const copy = opened().store
    const reading = running(replicate, copy, at)
    await copy.waitFor(Object.fromEntries(ids.map((id) => [id, 3])), { timeout: 30_000 })
    for (const id of ids) assert.deepEqual(copy.read(id), store.read(id))
    const messages = await messagesOf(at, "a")
    assert.deepEqual(
      messages.map(({ after, seq }) => [after, seq]),
      [
        [-1, 2],
        [2, 3],
      ],
    )
    assert.equal(messages[1].id, `a:3:${store.get("a", 3).id}`)
    assert.deepEqual([one.errors, reading.errors], [[], []])
    assert.deepEqual(await Promise.all([one.end(), reading.end()]), [undefined, undefined])
  })

  test("keeps nothing of its own: killed anywhere, another goes on where the cluster is", async () => {
    const at = place()
    const path = join(folder, "killed.db")
    const program = `
      const { connect } = require("@nats-io/transport-node")
      const { relay } = require("syncline/nats")
      connect({ servers: settings.servers }).then((connection) => relay(store, { ...settings.at, connection, replicas: 1 }))
      let n = 0
      setInterval(() => { for (let i = 0; i < 20; i++) store.run(Written, { noteID: "n" + i % 5, text: String(n++) }); tell(n) }, 1)
    `
    const { connection: _, ...named } = at
    for (let life = 1; life <= 4; life++) {
      const child = start(program, { path, at: named, servers: cluster.urls })
      await untilTold(child, 20 * life)
      await kill(child)
    }
    const { store } = openNotes(path)
    ends.push(() => store.close())
    const one = relaying(store, at)
    await one.live
    assert.deepEqual(one.errors, [])
    const copy = await replica(at)
    for (const id of store.sequences().keys()) {
      assert.deepEqual(copy.read(id), store.read(id))
      const messages = await messagesOf(at, id)
      for (const [n, { after }] of messages.entries()) assert.equal(after, n === 0 ? -1 : messages[n - 1].seq)
    }
    await one.end()
  })

  test("two of the same store publish each event once", async () => {
    const at = place()
    const { store, Written } = opened()
    const both = [relaying(store, at), relaying(store, at)]
    await Promise.all(both.map(({ live }) => live))
    for (let n = 0; n < 300; n++) store.run(Written, { noteID: `n${n % 3}`, text: `${n}` })
    await until(() => onStream(at, "n2", 99))
    for (const id of ["n0", "n1", "n2"]) {
      await until(() => onStream(at, id, 99))
      const messages = await messagesOf(at, id)
      for (const [n, { after }] of messages.entries()) assert.equal(after, n === 0 ? -1 : messages[n - 1].seq)
    }
    assert.deepEqual([...both[0].errors, ...both[1].errors], [])
    await Promise.all(both.map((one) => one.end()))
  })

  test("leaves an aggregate of which the cluster has something else, and goes on with others", async () => {
    const at = place()
    const [one, other] = [opened(), opened()]
    one.store.run(one.Written, { noteID: "same", text: "one" })
    other.store.run(other.Written, { noteID: "same", text: "other" })
    other.store.run(other.Written, { noteID: "own", text: "other" })
    const first = relaying(one.store, at)
    await first.live
    const second = relaying(other.store, at)
    await second.live
    assert.deepEqual(second.errors, [["ERR_REPLAY_DIVERGED", "same"]])
    assert.equal((await replica(at)).get("own", 0).data.text, "other")
    assert.equal((await messagesOf(at, "same")).length, 1)
    await Promise.all([first.end(), second.end()])
  })

  test("of a writer whose disk went back, says that the cluster has more, and goes on once that is here", async () => {
    const at = place()
    const log = opened({ owner: "me" })
    log.store.runAll([0, 1, 2].map((n) => [log.Written, { noteID: "n", text: `${n}` }]))
    const one = relaying(log.store, at)
    await one.live
    await one.end()
    const { store, Written } = opened({ owner: "me" })
    store.replayAll(log.store.read("n").slice(0, 1), { owner: "me", epoch: 1 })
    const again = relaying(store, at)
    await again.live
    assert.deepEqual(again.errors, [["ERR_SEQUENCE_MISMATCH", "n"]])
    const reading = running(replicate, store, at)
    await store.waitFor({ n: 2 }, { timeout: 30_000 })
    store.run(Written, { noteID: "n", text: "3" })
    await until(() => onStream(at, "n", 3))
    await Promise.all([again.end(), reading.end()])
  })

  test("fills up a stream that was emptied, though its server still knows the ids", async () => {
    const at = place()
    const { store, Written } = opened()
    store.runAll([0, 1, 2].map((n) => [Written, { noteID: "n", text: `${n}` }]))
    const one = relaying(store, at)
    await one.live
    await (await jetstreamManager(connection)).streams.purge(at.stream)
    await until(() => onStream(at, "n", 2))
    assert.deepEqual((await replica(at)).read("n"), store.read("n"))
    await one.end()
  })

  test("makes everything anew where the cluster has lost everything, in an epoch that is no earlier one", async () => {
    const at = place()
    const { store, Written } = opened({ owner: "me" })
    for (let n = 0; n < 60; n++) store.run(Written, { noteID: `n${n % 3}`, text: `${n}` })
    const one = relaying(store, { ...at, window: 5 })
    await one.live
    const before = store.owner("n2").epoch
    const { streams } = await jetstreamManager(connection)
    for (const prefix of ["", "KV_", "OBJ_"]) {
      for (const suffix of ["", "-owners", "-segments"])
        await streams.delete(prefix + at.stream + suffix).catch(() => {})
    }
    await until(() => onStream(at, "n2", 19).catch(() => false))
    await until(() => onStream(at, "n0", 19))
    await until(() => onStream(at, "n1", 19))
    assert.ok(store.owner("n2").epoch >= before)
    assert.ok(one.errors.every(([code, aggregateID]) => code === "ERR_NOT_FOUND" && aggregateID === undefined))
    const copy = await replica(at)
    for (const id of ["n0", "n1", "n2"]) assert.deepEqual(copy.read(id), store.read(id))
    await one.end()
  })

  test("keeps a window on the stream, and what is older in segments, of which there are few", async () => {
    const at = place()
    const { store, Written } = opened()
    const one = relaying(store, { ...at, window: 10 })
    await one.live
    for (let n = 0; n < 400; n++) {
      store.run(Written, { noteID: "n", text: `${n}` })
      if (n % 4 === 3) await until(() => onStream(at, "n", n))
    }
    await until(async () => (await messagesOf(at, "n"))[0].after >= 370)
    const { list } = JSON.parse(JSON.stringify(await segmentsOf(at, "n")))
    assert.ok(list.length <= 8, `${list.length} segments`)
    assert.deepEqual([list[0].after, list.at(-1).through >= 370], [-1, true])
    for (const [n, { after }] of list.entries()) if (n > 0) assert.equal(after, list[n - 1].through)
    const objects = await new Objm(connection).open(`${at.stream}-segments`)
    assert.deepEqual((await objects.list()).map(({ name }) => name).toSorted(), list.map(({ name }) => name).toSorted())
    assert.deepEqual((await replica(at)).read("n"), store.read("n"))
    await one.end()
  })

  test("puts what no message may hold into a segment, and a long backlog too", async () => {
    const at = place()
    const { store, Written } = opened()
    store.run(Written, {
      noteID: "big",
      text: Array.from({ length: 200_000 }, () => Math.random().toString(36)[2]).join(""),
    })
    store.run(Written, {
      noteID: "big",
      text: Array.from({ length: 600_000 }, () => Math.random().toString(36)[2]).join(""),
    })
    store.run(Written, { noteID: "big", text: "after" })
    store.runAll(Array.from({ length: 500 }, (_, n) => [Written, { noteID: "long", text: `${n}` }]))
    const one = relaying(store, { ...at, window: 20 })
    await one.live
    assert.ok((await messagesOf(at, "big")).some(({ segment, bytes }) => segment !== undefined && bytes === 0))
    // What is in a segment does not stay on the stream.
    assert.deepEqual(
      (await messagesOf(at, "long")).map(({ after, seq }) => [after, seq]),
      [[479, 499]],
    )
    assert.deepEqual(
      (await segmentsOf(at, "long")).list.map(({ after, through }) => [after, through]),
      [[-1, 479]],
    )
    const copy = await replica(at)
    for (const id of ["big", "long"]) assert.deepEqual(copy.read(id), store.read(id))
    await one.end()
  })

  test("takes what was removed from the stream and from the segments, and tells those who have it", async () => {
    const at = place()
    const { store, Written } = opened()
    store.runAll(Array.from({ length: 100 }, (_, n) => [Written, { noteID: "n", text: `${n}` }]))
    const one = relaying(store, { ...at, window: 10 })
    await one.live
    const copy = opened().store
    const reading = running(replicate, copy, at)
    await copy.waitFor({ n: 99 }, { timeout: 30_000 })
    store.remove("n")
    await until(() => copy.read("n").length === 0)
    await until(async () => (await segmentsOf(at, "n")).list.length === 0)
    await until(async () => (await messagesOf(at, "n")).length === 1)
    assert.deepEqual(await (await new Objm(connection).open(`${at.stream}-segments`)).list(), [])
    store.run(Written, { noteID: "n", text: "anew" })
    await copy.waitFor({ n: 100 }, { timeout: 30_000 })
    const late = await replica(at)
    assert.deepEqual([late.read("n"), late.sequence("n")], [store.read("n"), 100])
    await Promise.all([one.end(), reading.end()])
  })

  for (const window of [1_000, 2]) {
    test(`tells of gaps${window < 1_000 ? ", in segments too" : ""}`, async () => {
      const at = place()
      const { store } = opened()
      const gap = { kind: "gap", aggregateID: "n", after: 0, through: 40 }
      store.replayAll([written("n", 0), gap, ...[41, 42, 43, 44, 45].map((seq) => written("n", seq))])
      store.replay({ kind: "gap", aggregateID: "n", after: 45, through: 50 })
      const one = relaying(store, { ...at, window })
      await one.live
      const copy = await replica(at)
      assert.equal(copy.sequence("n"), 50)
      const itemsOf = async (log) => {
        const items = []
        for await (const item of log.log({ aggregateID: "n" })) items.push(JSON.parse(JSON.stringify(item)))
        return items
      }
      assert.deepEqual(await itemsOf(copy), await itemsOf(store))
      await one.end()
    })
  }

  test("puts segments again that the cluster has lost", async () => {
    const at = place()
    const { store, Written } = opened()
    store.runAll(Array.from({ length: 100 }, (_, n) => [Written, { noteID: "n", text: `${n}` }]))
    const one = relaying(store, { ...at, window: 10 })
    await one.live
    for (let n = 0; n < 20; n++) store.run(Written, { noteID: "n", text: "more" })
    await until(async () => (await messagesOf(at, "n"))[0].after >= 0)
    await one.end()
    const objects = await new Objm(connection).open(`${at.stream}-segments`)
    for (const { name } of await objects.list()) await objects.delete(name)
    const again = relaying(store, { ...at, window: 10 })
    await again.live
    assert.deepEqual((await replica(at)).read("n"), store.read("n"))
    await again.end()
  })

  test("says that the stream is full, which keeps what it has, and goes on once it is not", async () => {
    const at = place()
    const { streams } = await jetstreamManager(connection)
    const settings = { name: at.stream, subjects: [`${at.prefix}.*`], discard: "new", max_bytes: 20_000 }
    await streams.add(settings)
    const { store, Written } = opened()
    const one = relaying(store, at)
    await one.live
    for (let n = 0; n < 100; n++) {
      store.run(Written, { noteID: `n${n}`, text: "x".repeat(500) })
    }
    await until(() => one.errors.length > 0)
    assert.deepEqual(one.errors, [["ERR_DISK_FULL", undefined]])
    await streams.update(at.stream, { ...settings, max_bytes: 1_000_000 })
    await until(async () => (await streams.info(at.stream)).state.messages === 100)
    assert.equal((await replica(at)).sequences().size, 100)
    await one.end()
  })

  test("hands on the aggregates it is asked for", async () => {
    const at = place()
    const { store, Written } = opened()
    for (const noteID of ["a", "b", "c"]) store.run(Written, { noteID })
    const one = relaying(store, { ...at, aggregates: ["a", "c"] })
    await one.live
    assert.deepEqual([...(await replica(at)).sequences().keys()], ["a", "c"])
    await one.end()
  })

  test("claims in the cluster what its owner writes, and leaves what another one has", async () => {
    const at = place()
    const [one, other] = [opened({ owner: "one" }), opened({ owner: "other" })]
    for (const { store, Written } of [one, other])
      store.run(Written, { noteID: "n", text: store === one.store ? "1" : "2" })
    const first = relaying(one.store, at)
    await first.live
    const keys = await new Kvm(connection).open(`${at.stream}-owners`)
    const entry = await keys.get("n")
    assert.deepEqual([entry.json(), entry.revision], [{ aggregateID: "n", owner: "one" }, one.store.owner("n").epoch])
    const second = relaying(other.store, at)
    await second.live
    assert.deepEqual(
      second.errors.map(([code]) => code),
      ["ERR_REPLAY_DIVERGED"],
    )
    await Promise.all([first.end(), second.end()])
  })

  test("refuses what makes no sense", async () => {
    const { store } = opened()
    const at = { ...place(), replicas: 1 }
    for (const wrong of [
      { connection: {} },
      { stream: "a.b" },
      { prefix: "" },
      { prefix: "a.*" },
      { replicas: 0 },
      { window: 0 },
      { nothing: 1 },
    ]) {
      await assert.rejects(relay(store, { ...at, ...wrong }), coded("ERR_INVALID_ARGUMENT", /./))
    }
    await assert.rejects(relay({}, at), coded("ERR_INVALID_ARGUMENT", /needs a store/))
    await (await jetstreamManager(connection)).streams.add({ name: at.stream, subjects: ["something.else"] })
    await assert.rejects(relay(store, at), coded("ERR_INVALID_ARGUMENT", /has the subjects something\.else/))
  })

  test("ends with ERR_UNREACHABLE once its connection is closed for good, and by closing the store without an error", async () => {
    const own = await cluster.connect()
    const { store } = opened()
    const one = relaying(store, { ...place(), connection: own })
    await one.live
    await own.close()
    await assert.rejects(one.done, coded("ERR_UNREACHABLE", /./))
    const other = opened().store
    const another = relaying(other, place())
    await another.live
    other.close()
    assert.equal(await another.done, undefined)
    assert.equal(another.statuses.at(-1), "stopped")
  })
})

async function segmentsOf({ stream }, token) {
  const keys = await new Kvm(connection).open(`${stream}-segments`)
  const entry = await keys.get(token)
  return { list: entry?.json().segments ?? [] }
}
