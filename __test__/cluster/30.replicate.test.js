"use strict"

// A reader has what its cluster has, whatever it had before, in whatever order it comes, and whoever else writes there.

const assert = require("node:assert/strict")
const { after, before, describe, test } = require("node:test")
const { jetstreamManager } = require("@nats-io/jetstream")
const { replicate } = require("syncline/nats")
const { kill, start, untilTold } = require("../children.js")
const { coded, openNotes } = require("../notes.js")
const { publish } = require("./messages.js")
const { PATIENCE, events, going, logOf, notes, path, writing } = require("./reading.js")
const { skip, startCluster } = require("./servers.js")

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
    const file = path()
    const program = `
      const { connect } = require("@nats-io/transport-node")
      const { replicate } = require("syncline/nats")
      // Hangs once it has applied something.
      store.subscribeAll(() => (tell("applied"), Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)))
      connect({ servers: settings.servers }).then((connection) => replicate(store, { ...settings.place, connection, publish: true }))`
    const { stream, prefix } = place
    const one = start(program, { path: file, servers: cluster.urls, place: { stream, prefix } })
    await untilTold(one, 1)
    await kill(one)
    const reader = openNotes(file)
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
    await publish(place, "epoch", { events: events("epoch", [0]), owner: "o", epoch: "9007199254740993" })
    await publish(place, "owner", { events: events("owner", [0]), owner: "o".repeat(300), epoch: 1 })
    await publish(place, "named", { aggregate: "a".repeat(9_000), owner: "o", epoch: 1 })
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
      "undefined: ERR_PROTOCOL",
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
})
