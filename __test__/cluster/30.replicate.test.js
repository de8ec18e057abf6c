"use strict"

// A reader has what its cluster has, whatever it had before, in whatever order it comes, and whoever else writes there.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const { jetstreamManager } = require("@nats-io/jetstream")
const { relay, replicate } = require("syncline/nats")
const { kill, start, untilTold } = require("../children.js")
const { olderBinary } = require("../nats-binary.js")
const { coded, memoryFolder, openNotes } = require("../notes.js")
const { publish } = require("./messages.js")
const { skip, startCluster, startProxy } = require("./servers.js")

/** Milliseconds until what has to happen is given up. */
const PATIENCE = 30_000

const folder = memoryFolder()
let stores = 0

/** A store that is closed when the suite ends. */
function notes(options) {
  const opened = openNotes(join(folder, `${stores++}.db`), options)
  after(() => opened.store.close())
  const write = (noteID, text = "") => opened.store.run(opened.Written, { noteID, text })
  return { ...opened, write, seq: (noteID) => opened.store.sequence(noteID) }
}

/** Something that goes on until it is ended, with what it has told of itself. */
function going(work, store, options) {
  const ended = new AbortController()
  const statuses = []
  const errors = []
  const waiting = new Set()
  const told = () => waiting.forEach((look) => look())
  const onStatus = (status, detail) => (statuses.push({ status, ...detail }), told())
  const onError = (error, { aggregateID }) => (errors.push({ code: error.code, aggregateID, error }), told())
  const backoff = { initial: 20, longest: 200 }
  const done = work(store, { backoff, ...options, onStatus, onError, signal: ended.signal })
  done.catch(told)
  const one = {
    statuses,
    errors,
    done,
    /** Resolves once that holds of what was told. */
    until(isSo) {
      return new Promise((resolve, reject) => {
        const look = () => isSo({ statuses, errors }) && (clearTimeout(timer), waiting.delete(look), resolve())
        const late = () => reject(new Error(`not told within ${PATIENCE} ms: ${JSON.stringify({ statuses, errors })}`))
        const timer = setTimeout(late, PATIENCE)
        waiting.add(look)
        look()
      })
    },
    live: (times = 1) => one.until(() => statuses.filter(({ status }) => status === "live").length >= times),
    async end() {
      ended.abort()
      await done
    },
  }
  return one
}

/** One server with the stream of a writer on it, which is `place`. */
async function writing(cluster, { window = Infinity } = {}) {
  const connection = await cluster.connect()
  const name = `notes${stores}`
  const place = { connection, stream: name, prefix: name }
  const writer = notes()
  const relaying = going(relay, writer.store, { ...place, replicas: 1, window })
  await relaying.live()
  return { place, writer, relaying }
}

/** Events as another writer would record them. */
function events(noteID, seqs, text = "") {
  return seqs.map((seq) => ({
    id: `evt_${noteID}_${seq}_${text}`,
    type: "note.written.1",
    seq,
    aggregateID: noteID,
    created: 1,
    data: { noteID, text: `${text}${seq}` },
  }))
}

const logOf = (store) =>
  [...store.sequences().keys()].toSorted().map((id) => store.read(id).map((event) => ({ ...event })))

describe("replicate", { skip }, () => {
  let cluster
  before(async () => (cluster = await startCluster({ size: 1 })))

  test("catches up with what there is, follows, and resumes from what its store holds", async () => {
    const { place, writer } = await writing(cluster)
    for (const noteID of ["a", "b.*/é", "c"]) for (let n = 0; n < 20; n++) writer.write(noteID)
    const reader = notes()
    const first = going(replicate, reader.store, place)
    await reader.store.waitFor({ a: 19, "b.*/é": 19, c: 19 }, { timeout: PATIENCE })
    await first.live()
    writer.write("a")
    await reader.store.waitFor({ a: 20 }, { timeout: PATIENCE })
    await first.end()
    assert.deepEqual(
      first.statuses.map(({ status }) => status),
      ["connecting", "catching-up", "live", "stopped"],
    )
    writer.write("c")
    writer.write("d")
    const second = going(replicate, reader.store, place)
    await reader.store.waitFor({ c: 20, d: 0 }, { timeout: PATIENCE })
    await second.live()
    await second.end()
    assert.deepEqual(logOf(reader.store), logOf(writer.store))
    assert.deepEqual([...first.errors, ...second.errors], [])
  })

  test("goes on where a killed process was", async () => {
    const { place, writer } = await writing(cluster)
    writer.store.transaction(() => {
      for (let n = 0; n < 6_000; n++) writer.write(`n${n % 10}`, "x".repeat(1_000))
    })
    const path = join(folder, `${stores++}.db`)
    const program = `
      const { connect } = require("@nats-io/transport-node")
      const { replicate } = require("syncline/nats")
      // Hangs once it has applied something.
      store.subscribeAll(() => (tell("applied"), Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)))
      connect({ servers: settings.servers }).then((connection) => replicate(store, { ...settings.place, connection, publish: true }))`
    const { stream, prefix } = place
    const one = start(program, { path, servers: cluster.urls, place: { stream, prefix } })
    await untilTold(one, 1)
    await kill(one)
    const reader = openNotes(path)
    after(() => reader.store.close())
    const seqs = [...reader.store.sequences().values()]
    assert.ok(
      seqs.some((seq) => seq < 599),
      `it was killed half-way: ${seqs}`,
    )
    const replicating = going(replicate, reader.store, place)
    await replicating.live()
    await replicating.end()
    assert.deepEqual(logOf(reader.store), logOf(writer.store))
    assert.equal(reader.store.db.prepare("SELECT min(writes) + max(writes) FROM note").pluck().get(), 1_200)
  })

  test("reads single aggregates alone", async () => {
    const { place, writer } = await writing(cluster)
    for (const noteID of ["a", "b", "c"]) writer.write(noteID)
    for (const aggregates of [["a"], ["a", "c", "unknown"], []]) {
      const reader = notes()
      const replicating = going(replicate, reader.store, { ...place, aggregates })
      await replicating.live()
      for (const noteID of ["b", "a", "c"]) writer.write(noteID)
      const wanted = aggregates.filter((id) => id !== "unknown")
      await reader.store.waitFor(Object.fromEntries(wanted.map((id) => [id, writer.seq(id)])), { timeout: PATIENCE })
      await replicating.end()
      assert.deepEqual([...reader.store.sequences().keys()].toSorted(), wanted)
    }
  })

  test("takes what comes twice, late, and out of its order", async () => {
    const { place } = await writing(cluster)
    const all = events("a", [0, 1, 2, 3, 4, 5])
    await publish(place, "a", { events: all.slice(0, 2) })
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    await replicating.live()
    await publish(place, "a", { events: all.slice(4) })
    await publish(place, "a", { events: all.slice(0, 2) })
    await publish(place, "a", { events: all.slice(3, 4) })
    await publish(place, "a", { events: all.slice(2, 3) })
    await publish(place, "a", { events: all.slice(3, 4) })
    await publish(place, "a", { events: all.slice(4) })
    await reader.store.waitFor({ a: 5 }, { timeout: PATIENCE })
    await publish(place, "a", { events: all })
    await publish(place, "z", { events: events("z", [0]) })
    await reader.store.waitFor({ z: 0 }, { timeout: PATIENCE })
    await replicating.end()
    assert.deepEqual(
      reader.store.read("a").map(({ id }) => id),
      all.map(({ id }) => id),
    )
    assert.equal(reader.store.db.prepare("SELECT writes FROM note WHERE id = 'a'").pluck().get(), 6)
    // It was missing for a moment; whoever looks then may hear of it.
    assert.ok(
      replicating.errors.every(({ code, aggregateID }) => code === "ERR_SEQUENCE_MISMATCH" && aggregateID === "a"),
    )
    const other = notes()
    const fresh = going(replicate, other.store, place)
    await fresh.live()
    await fresh.end()
    assert.deepEqual(logOf(other.store), logOf(reader.store))
  })

  test("leaves an aggregate whose messages are bad, reports each once, and goes on with others", async () => {
    const { place } = await writing(cluster)
    await publish(place, "shape", { events: [{ ...events("shape", [0])[0], type: undefined }] })
    await publish(place, "body", { body: "no log\n", seq: 0 })
    await publish(place, "data", { events: events("data", [0]).map((event) => ({ ...event, data: {} })) })
    await publish(place, "unknown", { events: events("unknown", [0]).map((event) => ({ ...event, type: "other.1" })) })
    await publish(place, "good", { events: events("good", [0]) })
    place.connection.publish(`${place.prefix}.foreign`, "what is this?")
    place.connection.publish(`${place.prefix}.no token`.replace(" ", "%"), "and this?")
    await place.connection.flush()
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    await replicating.live()
    await publish(place, "good", { events: events("good", [1]) })
    await publish(place, "shape", { events: events("shape", [1]) })
    place.connection.publish(`${place.prefix}.foreign`, "still here")
    await publish(place, "good", { events: events("good", [2]) })
    await reader.store.waitFor({ good: 2 }, { timeout: PATIENCE })
    await replicating.end()
    const told = replicating.errors.map(({ code, aggregateID }) => `${aggregateID}: ${code}`).toSorted()
    assert.deepEqual(told, [
      "body: ERR_PROTOCOL",
      "data: ERR_AGGREGATE_MISMATCH",
      "shape: ERR_INVALID_EVENT",
      "undefined: ERR_PROTOCOL",
      "undefined: ERR_PROTOCOL",
      "unknown: ERR_UNKNOWN_EVENT",
    ])
    assert.deepEqual([...reader.store.sequences().keys()], ["good"])
  })

  test("finds that what it holds is something else", async () => {
    const { place, writer } = await writing(cluster)
    const reader = notes()
    reader.write("a", "my own")
    writer.write("a", "theirs")
    writer.write("a", "theirs")
    writer.write("b")
    const replicating = going(replicate, reader.store, place)
    await reader.store.waitFor({ b: 0 }, { timeout: PATIENCE })
    await replicating.until(({ errors }) => errors.length > 0)
    await replicating.end()
    assert.deepEqual(
      replicating.errors.map(({ code, aggregateID }) => [code, aggregateID]),
      [["ERR_REPLAY_DIVERGED", "a"]],
    )
  })

  test("adopts owners and epochs, and refuses whom another has overtaken", async () => {
    const { place } = await writing(cluster)
    const reader = notes()
    const replicating = going(replicate, reader.store, place)
    await publish(place, "a", { events: events("a", [0, 1]), epoch: 1, owner: "laptop" })
    await publish(place, "a", { seq: 1, epoch: 3, owner: "desk" })
    await publish(place, "empty", { seq: -1, epoch: 2, owner: "desk" })
    await publish(place, "a", { events: events("a", [2]), epoch: 3, owner: "desk" })
    await publish(place, "b", { events: events("b", [0]), epoch: 4, owner: "desk" })
    await reader.store.waitFor({ a: 2, b: 0 }, { timeout: PATIENCE })
    await replicating.live()
    assert.deepEqual(reader.store.owner("a"), { owner: "desk", epoch: 3 })
    assert.deepEqual(reader.store.owner("empty"), { owner: "desk", epoch: 2 })
    // What is held already may come from anybody.
    await publish(place, "a", { events: events("a", [0, 1]), epoch: 1, owner: "laptop" })
    await publish(place, "a", { events: events("a", [3], "late"), epoch: 1, owner: "laptop" })
    await publish(place, "b", { events: events("b", [1], "twin"), epoch: 4, owner: "laptop" })
    await publish(place, "z", { events: events("z", [0]) })
    await reader.store.waitFor({ z: 0 }, { timeout: PATIENCE })
    await replicating.end()
    assert.equal(reader.seq("a"), 2)
    assert.equal(reader.seq("b"), 0)
    assert.deepEqual(
      replicating.errors.map(({ code, aggregateID }) => [code, aggregateID]),
      [
        ["ERR_NOT_OWNER", "a"],
        ["ERR_NOT_OWNER", "b"],
      ],
    )
    const fields = { aggregateID: "a", expected: "desk", got: "laptop", epoch: 3, gotEpoch: 1 }
    assert.ok(coded("ERR_NOT_OWNER", fields)(replicating.errors[0].error))
    // Also whoever comes later refuses the one, and takes the other as it is on the stream.
    const other = notes()
    const fresh = going(replicate, other.store, place)
    await fresh.live()
    await fresh.end()
    assert.equal(other.seq("a"), 2)
    assert.deepEqual(other.store.owner("a"), { owner: "desk", epoch: 3 })
  })

  test("takes for an owner what is nobody's, and leaves what another owns", async () => {
    const { place } = await writing(cluster)
    await publish(place, "nobody's", { events: events("nobody's", [0]) })
    await publish(place, "own", { events: events("own", [0]), epoch: 5, owner: "laptop" })
    await publish(place, "other's", { events: events("other's", [0]), epoch: 5, owner: "desk" })
    const reader = notes()
    for (let attempt = 1; attempt <= 2; attempt++) {
      const replicating = going(replicate, reader.store, { ...place, owner: "laptop" })
      await replicating.live()
      await publish(place, "nobody's", { events: events("nobody's", [attempt]) })
      await reader.store.waitFor({ "nobody's": attempt, own: 0 }, { timeout: PATIENCE })
      await replicating.end()
      assert.deepEqual(
        replicating.errors.map(({ code, aggregateID }) => [code, aggregateID]),
        [["ERR_NOT_OWNER", "other's"]],
      )
    }
    assert.deepEqual(reader.store.owner("nobody's"), { owner: "laptop", epoch: 1 })
    assert.deepEqual(reader.store.owner("own"), { owner: "laptop", epoch: 5 })
    assert.equal(reader.seq("other's"), -1)
  })

  test("takes from segments what the stream has no more, and removals with it", async () => {
    const { place, writer } = await writing(cluster, { window: 5 })
    const reader = notes()
    const early = going(replicate, reader.store, place)
    await early.live()
    for (let n = 0; n < 20; n++) for (let note = 0; note < 20; note++) writer.write(`n${note}`, "x".repeat(n))
    await reader.store.waitFor({ n19: 19 }, { timeout: PATIENCE })
    await early.end()
    for (let n = 20; n < 60; n++) for (let note = 0; note < 20; note++) writer.write(`n${note}`)
    writer.store.remove("n3")
    writer.write("n3", "again")
    const { streams } = await jetstreamManager(place.connection)
    const isThere = async (store) => {
      const replicating = going(replicate, store, place)
      await store.waitFor(Object.fromEntries(writer.store.sequences()), { timeout: PATIENCE })
      await replicating.live()
      await replicating.end()
      assert.deepEqual(replicating.errors, [])
      assert.deepEqual(logOf(store), logOf(writer.store))
    }
    await isThere(reader.store)
    const { state } = await streams.info(place.stream)
    assert.ok(state.first_seq > 1 && state.messages < state.last_seq, "the stream has not all of it any more")
    await isThere(notes().store)
  })

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
