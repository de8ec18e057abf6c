"use strict"

// A reader goes on whatever is not there, or is lost, and ends when it is told to.

const assert = require("node:assert/strict")
const { before, describe, test } = require("node:test")
const { jetstreamManager } = require("@nats-io/jetstream")
const { relay, replicate } = require("syncline/nats")
const { olderBinary } = require("../nats-binary.js")
const { coded } = require("../notes.js")
const { PATIENCE, going, logOf, notes, writing } = require("./reading.js")
const { skip, startCluster, startProxy } = require("./servers.js")

describe("replicate", { skip }, () => {
  let cluster
  before(async () => (cluster = await startCluster({ size: 1 })))

  test("waits for a stream that is not there yet", async () => {
    const connection = await cluster.connect()
    const place = { connection, stream: "later", prefix: "later" }
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    await replicating.until(({ errors }) => errors.length > 0)
    await replicating.until(({ statuses }) => statuses.some(({ attempt }) => attempt >= 1))
    const writer = notes()
    writer.write("a")
    const relaying = going(relay, writer.store, { ...place, replicas: 1 })
    await reader.store.waitFor({ a: 0 }, { timeout: PATIENCE })
    await replicating.live()
    await relaying.end()
    await replicating.end()
    assert.deepEqual(
      replicating.errors.map(({ code }) => code),
      ["ERR_NOT_FOUND"],
    )
  })

  test("goes on after its consumer, or its connection, was lost", async () => {
    const { place, writer } = await writing(cluster)
    const proxy = await startProxy(cluster.urls[0])
    const connection = await cluster.connect({ servers: [proxy.url], ignoreClusterUpdates: true })
    const reader = notes()
    const replicating = going(replicate, reader.store, { ...place, connection })
    await replicating.live()
    proxy.cut()
    writer.write("a")
    await reader.store.waitFor({ a: 0 }, { timeout: PATIENCE })
    const { consumers } = await jetstreamManager(place.connection)
    for await (const { name } of consumers.list(place.stream)) await consumers.delete(place.stream, name)
    writer.write("a")
    await reader.store.waitFor({ a: 1 }, { timeout: PATIENCE })
    await replicating.end()
    assert.deepEqual(replicating.errors, [])
    const waited = replicating.statuses.filter(({ status }) => status === "waiting")
    assert.ok(waited.length >= 2 && waited.every(({ error }) => error.code === "ERR_UNREACHABLE"))
  })

  test("begins anew where the cluster has lost its newest messages", async () => {
    const alone = await startCluster({ size: 1 })
    const { place, writer } = await writing(alone)
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    writer.write("a")
    await reader.store.waitFor({ a: 0 }, { timeout: PATIENCE })
    const [node] = alone.nodes
    node.snapshot()
    for (const noteID of ["a", "a", "b"]) writer.write(noteID)
    await reader.store.waitFor({ a: 2, b: 0 }, { timeout: PATIENCE })
    await node.kill()
    node.rollback()
    node.start()
    await alone.ready()
    // What was lost is published again, and what is new gets the place of something else.
    for (const noteID of ["c", "a", "b"]) writer.write(noteID)
    await reader.store.waitFor({ a: 3, b: 1, c: 0 }, { timeout: PATIENCE })
    const other = notes()
    const fresh = going(replicate, other.store, place)
    await other.store.waitFor({ a: 3, b: 1, c: 0 }, { timeout: PATIENCE })
    await fresh.end()
    await replicating.end()
    assert.deepEqual(logOf(reader.store), logOf(writer.store))
    assert.deepEqual(logOf(other.store), logOf(writer.store))
    assert.deepEqual(replicating.errors, [])
  })

  test("looks from time to time whether the cluster still has what it had, and else begins anew without a word", async () => {
    const { place, writer } = await writing(cluster)
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    await replicating.live()
    writer.write("a")
    await reader.store.waitFor({ a: 0 }, { timeout: PATIENCE })
    const { streams } = await jetstreamManager(place.connection)
    await streams.deleteMessage(place.stream, 1)
    await replicating.live(2)
    writer.write("a")
    await reader.store.waitFor({ a: 1 }, { timeout: PATIENCE })
    await replicating.end()
    assert.deepEqual(
      replicating.statuses.map(({ status }) => status),
      ["connecting", "catching-up", "live", "connecting", "catching-up", "live", "stopped"],
    )
    assert.deepEqual(replicating.errors, [])
    assert.deepEqual(logOf(reader.store), logOf(writer.store))
  })

  test("ends at once, and rejects where going on makes no sense", async () => {
    const { place } = await writing(cluster)
    const proxy = await startProxy(cluster.urls[0])
    const connection = await cluster.connect({ servers: [proxy.url], ignoreClusterUpdates: true })
    proxy.stall()
    const silent = going(replicate, notes().store, { ...place, connection })
    await silent.until(({ statuses }) => statuses.length > 0)
    const began = performance.now()
    await silent.end()
    assert.ok(performance.now() - began < 2_000)
    proxy.go()

    const closing = notes()
    const following = going(replicate, closing.store, place)
    await following.live()
    closing.store.close()
    await following.done

    const unlucky = going(replicate, notes().store, { ...place, connection })
    await unlucky.live()
    await connection.close()
    await assert.rejects(unlucky.done, coded("ERR_UNREACHABLE"))
    await assert.rejects(replicate(notes().store, { ...place, connection }), coded("ERR_UNREACHABLE"))

    const thrown = new Error("mine")
    const onStatus = () => {
      throw thrown
    }
    await assert.rejects(replicate(notes().store, { ...place, onStatus }), (error) => error === thrown)
    const { streams } = await jetstreamManager(place.connection)
    await streams.add({ name: "OTHER", subjects: ["other.>"] })
    await assert.rejects(
      replicate(notes().store, { ...place, stream: "OTHER", prefix: "other" }),
      coded("ERR_INVALID_ARGUMENT", { message: /other\.>/ }),
    )
    for (const wrong of [
      { stream: "a.b" },
      { prefix: "a.*" },
      { connection: {} },
      { aggregates: "a" },
      { owner: "" },
      { x: 1 },
    ]) {
      await assert.rejects(replicate(notes().store, { ...place, ...wrong }), coded("ERR_INVALID_ARGUMENT"))
    }
    await assert.rejects(replicate({}, place), coded("ERR_INVALID_ARGUMENT"))
    await assert.rejects(replicate(notes({ record: false }).store, place), coded("ERR_INVALID_ARGUMENT"))
  })
})

const older = skip ? undefined : olderBinary()

describe(
  "replicate with a server before 2.10",
  { skip: skip || (older === undefined && "no older nats-server") },
  () => {
    test("leaves out what it did not ask for", async () => {
      const cluster = await startCluster({ size: 1, path: older.path })
      const { place, writer } = await writing(cluster)
      const ids = ["a", "b", "c", "d"]
      for (let n = 0; n < 30; n++) ids.forEach((id) => writer.write(id))
      const reader = notes()
      const replicating = going(replicate, reader.store, { ...place, aggregates: ["b", "d"] })
      await replicating.live()
      ids.forEach((id) => writer.write(id))
      await reader.store.waitFor({ b: 30, d: 30 }, { timeout: PATIENCE })
      await replicating.end()
      assert.deepEqual([...reader.store.sequences()].toSorted(), [
        ["b", 30],
        ["d", 30],
      ])
      assert.deepEqual(replicating.errors, [])
    })
  },
)
