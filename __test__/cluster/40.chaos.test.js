"use strict"

// A cluster that fails all the time loses no event, repeats none, and never lets two owners write one after the other by turns.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { after, describe, test } = require("node:test")
const { setTimeout: pause } = require("node:timers/promises")
const { claim, relay, replicate, transfer } = require("syncline/nats")
const { openNotes, temporaryFolder } = require("../notes.js")
const { messagesOf, packedOf } = require("./messages.js")
const { random, skip, startCluster, startProxy } = require("./servers.js")

const AGGREGATES = Array.from({ length: 100 }, (_, n) => `note/${n}`)
const ROUNDS = 200
const SEED = Number(process.env.SYNCLINE_SEED ?? Date.now() % 1_000_000)

/** Milliseconds until all has to be the same everywhere, once nothing fails any more. */
const PATIENCE = 90_000

/** What goes wrong, one thing after the other, as a seed says. A majority of the servers is always there. */
async function fail(cluster, proxies, draw, stopped) {
  const done = {}
  const count = (what) => (done[what] = (done[what] ?? 0) + 1)
  const between = (from, to) => from + Math.floor(draw() * (to - from))
  while (!stopped()) {
    const node = cluster.nodes[between(0, cluster.nodes.length)]
    const chance = draw()
    if (chance < 0.3) {
      count("killed")
      await node.kill()
      await pause(between(200, 2_000))
      node.start()
    } else if (chance < 0.5) {
      count("paused")
      node.pause()
      await pause(between(200, 3_000))
      node.resume()
    } else if (chance < 0.7) {
      count("set back")
      node.snapshot()
      await pause(between(500, 2_000))
      await node.kill()
      node.rollback()
      node.start()
    } else {
      count("cut")
      proxies[between(0, proxies.length)].cut()
    }
    await pause(between(200, 1_500))
    // The next one may only go once this one is back: no server acknowledges alone.
    if (chance < 0.7) await cluster.ready()
  }
  return done
}

/** Again, until it goes through: whoever calls it in earnest does the same. */
async function again(work) {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (error.code !== "ERR_UNREACHABLE") throw error
      await pause(200)
    }
  }
}

describe("through kills, pauses, cuts and disks that go back", { skip }, () => {
  test(`20,000 events of 100 aggregates arrive, and half-way another writes (seed ${SEED})`, async () => {
    const draw = random(SEED)
    const cluster = await startCluster()
    const folder = temporaryFolder()
    const ended = new AbortController()
    const errors = []
    const proxies = []
    const running = []
    /** A store with a connection of its own, over ways that are cut, that follows the cluster. */
    const device = async (name, owner) => {
      const { store, Written } = openNotes(join(folder, `${name}.db`), { owner })
      after(() => store.close())
      const ways = await Promise.all(cluster.urls.map((url) => startProxy(url)))
      proxies.push(...ways)
      const connection = await cluster.connect({ servers: ways.map(({ url }) => url), ignoreClusterUpdates: true })
      const onError = (error, about) => errors.push({ name, error, ...about })
      const place = { connection, stream: "notes", prefix: "notes", signal: ended.signal, onError }
      const common = { ...place, backoff: { initial: 50, longest: 1_000 } }
      if (owner !== undefined) running.push(relay(store, { ...common, window: 40 }))
      running.push(replicate(store, common))
      const { onError: _, ...bare } = place
      const write = (round) => {
        for (const noteID of AGGREGATES) store.run(Written, { noteID, text: `${round} by ${name}` })
      }
      return { store, place: bare, write, Written }
    }
    const first = await device("first", "first")
    const second = await device("second", "second")
    const third = await device("third")
    let over = false
    const failing = fail(cluster, proxies, draw, () => over)
    failing.catch(() => {})

    for (let round = 0; round < ROUNDS / 2; round++) {
      first.write(round)
      await pause(50)
    }
    // Half of them are handed over, and half are taken once all of it has arrived.
    const [given, taken] = [AGGREGATES.slice(0, 50), AGGREGATES.slice(50)]
    for (const aggregateID of given)
      await again(() => transfer(first.store, { ...first.place, aggregateID, to: "second" }))
    await second.store.waitFor(Object.fromEntries(taken.map((id) => [id, ROUNDS / 2 - 1])), { timeout: PATIENCE })
    for (const aggregateID of taken)
      await again(() => claim(second.store, { ...second.place, aggregateID, owner: "second" }))
    for (const until = Date.now() + PATIENCE; ; await pause(50)) {
      if (given.every((id) => second.store.owner(id)?.owner === "second")) break
      assert.ok(Date.now() < until, "what was handed over does not arrive")
    }
    for (let round = ROUNDS / 2; round < ROUNDS; round++) {
      second.write(round)
      await pause(50)
    }
    over = true
    const failures = await failing
    await cluster.ready()
    const all = Object.fromEntries(AGGREGATES.map((id) => [id, ROUNDS - 1]))
    for (const { store } of [first, third]) await store.waitFor(all, { timeout: PATIENCE })
    console.log(`figures cluster: chaos with seed ${SEED}: ${JSON.stringify(failures)}`)

    const logOf = (store) => AGGREGATES.map((id) => store.read(id).map(({ id, seq, data }) => [id, seq, data]))
    const rowsOf = (store) => store.db.prepare("SELECT * FROM note ORDER BY id").all()
    for (const { store } of [first, third]) {
      assert.deepEqual(logOf(store), logOf(second.store))
      assert.deepEqual(rowsOf(store), rowsOf(second.store))
    }
    for (const { store } of [first, second, third]) assert.deepEqual(await store.verify(), [])
    // The former owner hears that it is one; nobody hears anything worse.
    assert.deepEqual(
      errors.filter(({ error }) => error.code !== "ERR_NOT_OWNER" && error.code !== "ERR_NOT_FOUND"),
      [],
    )
    for (const aggregateID of AGGREGATES) {
      const messages = await messagesOf(second.place, aggregateID)
      const packed = await packedOf(second.place, aggregateID)
      assert.ok(messages.length > 0)
      for (const [at, { after, epoch }] of messages.entries()) {
        if (at === 0) continue
        // A disk that goes back has again what was taken from the stream, and not what followed: that is in segments.
        const isWhole = after === messages[at - 1].seq || after <= packed
        assert.ok(isWhole, `${aggregateID}: after seq ${messages[at - 1].seq} comes what follows ${after}`)
        assert.ok(epoch >= messages[at - 1].epoch, `${aggregateID}: an epoch comes after a later one`)
      }
      // The former owner has heard that it is one.
      assert.throws(() => first.store.run(first.Written, { noteID: aggregateID }), { code: "ERR_NOT_OWNER" })
    }
    ended.abort()
    await Promise.all(running)
  })
})
