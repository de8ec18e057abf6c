"use strict"

// An aggregate moves from one writer to another: nobody else writes then, and nothing is left behind.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { afterEach, before, describe, test } = require("node:test")
const { claim, relay, release, replicate, transfer } = require("syncline/nats")
const { openNotes, temporaryFolder } = require("../notes.js")
const { coded } = require("../stores.js")
const { messagesOf } = require("./messages.js")
const { skip, startCluster } = require("./servers.js")

let connection
before(async () => {
  if (!skip) connection = await (await startCluster({ size: 1 })).connect()
})

let streams = 0
const place = (aggregateID = "n") => ({
  connection,
  stream: `owner-${streams}`,
  prefix: `owner-${streams++}`,
  replicas: 1,
  aggregateID,
})
const folder = temporaryFolder()
const ends = []
afterEach(() => ends.splice(0).forEach((end) => end()))

/** A device with a store, and what it runs on the cluster until the test is over. */
function device(owner) {
  const { store, Written } = openNotes(join(folder, `${streams}-${ends.length}.db`), { owner })
  ends.push(() => store.close())
  const errors = []
  const runs = async (work, { replicas, connection, stream, prefix }) => {
    const ended = new AbortController()
    ends.push(() => ended.abort())
    await new Promise((resolve, reject) => {
      const onStatus = (status) => status === "live" && resolve()
      const onError = (error, about) => errors.push([error.code, about.aggregateID])
      const options = {
        connection,
        stream,
        prefix,
        ...(work === relay && { replicas }),
        signal: ended.signal,
        onStatus,
        onError,
      }
      work(store, { ...options, backoff: { initial: 10, longest: 100 } }).catch(reject)
    })
  }
  const write = (text) => store.run(Written, { noteID: "n", text })
  return { store, write, errors, relays: (at) => runs(relay, at), replicates: (at) => runs(replicate, at) }
}

const until = async (holds) => {
  for (const late = Date.now() + 30_000; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 10))) {
    assert.ok(Date.now() < late, `${holds} does not come`)
  }
}

describe("claim", { skip }, () => {
  test("brings what there is, fences the former writer, and lets this one write in a higher epoch", async () => {
    const at = place()
    const [laptop, phone, screen] = [device("laptop"), device("phone"), device()]
    laptop.write("1")
    await laptop.relays(at)
    await screen.replicates(at)
    const before = laptop.store.owner("n").epoch
    const owned = await claim(phone.store, { ...at, owner: "phone" })
    assert.deepEqual(owned, { owner: "phone", epoch: owned.epoch, seq: 0 })
    assert.ok(owned.epoch > before)
    assert.deepEqual(phone.store.owner("n"), { owner: "phone", epoch: owned.epoch })
    // Not told yet, the laptop still writes: for itself.
    laptop.write("too late")
    await until(() => laptop.errors.length > 0)
    assert.deepEqual(laptop.errors, [["ERR_NOT_OWNER", "n"]])
    assert.deepEqual(laptop.store.owner("n"), { owner: "phone", epoch: owned.epoch })
    assert.throws(() => laptop.write("again"), coded("ERR_NOT_OWNER", /./))
    phone.write("2")
    await phone.relays(at)
    await screen.store.waitFor({ n: 1 }, { timeout: 30_000 })
    await until(() => screen.store.owner("n").epoch === owned.epoch)
    assert.deepEqual(screen.store.read("n"), phone.store.read("n"))
    const epochs = (await messagesOf(at, "n")).map(({ epoch, owner }) => [epoch, owner])
    assert.deepEqual(epochs, [
      [before, "laptop"],
      [owned.epoch, "phone"],
      [owned.epoch, "phone"],
    ])
    assert.deepEqual(screen.errors, [])
  })

  test("can be called again, and for what has no event yet", async () => {
    const at = place("new")
    const { store } = device("phone")
    const owned = await claim(store, { ...at, owner: "phone" })
    assert.deepEqual(owned, { owner: "phone", epoch: owned.epoch, seq: -1 })
    assert.deepEqual(await claim(store, { ...at, owner: "phone" }), owned)
    assert.deepEqual(store.owner("new"), { owner: "phone", epoch: owned.epoch })
  })

  test("of two at once, one is told that the other was faster; or they follow one another", async () => {
    const at = place()
    const both = [device("one"), device("other")]
    const done = await Promise.allSettled(
      both.map(({ store }, n) => claim(store, { ...at, owner: ["one", "other"][n], expectedEpoch: 0 })),
    )
    const won = done.filter(({ status }) => status === "fulfilled")
    assert.equal(won.length, 1)
    assert.equal(done.find(({ status }) => status === "rejected").reason.code, "ERR_CONFLICT")
    const [{ value }] = won
    await assert.rejects(
      claim(both[0].store, { ...at, owner: "one", expectedEpoch: value.epoch + 1 }),
      coded("ERR_CONFLICT", /./),
    )
  })

  test("finds out another history before it takes anything", async () => {
    const at = place()
    const [laptop, phone] = [device("laptop"), device("phone")]
    laptop.write("1")
    await laptop.relays(at)
    phone.write("another 1")
    await assert.rejects(claim(phone.store, { ...at, owner: "phone" }), coded("ERR_REPLAY_DIVERGED", /./))
    laptop.write("2")
    await until(async () => (await messagesOf(at, "n")).at(-1).seq === 1)
    assert.deepEqual(laptop.errors, [])
  })

  test("refuses what makes no sense", async () => {
    const { store } = device("phone")
    const at = place()
    for (const wrong of [
      { owner: "" },
      { owner: "laptop" },
      { owner: "phone", aggregateID: "" },
      { owner: "phone", expectedEpoch: -1 },
      { owner: "phone", to: "x" },
    ]) {
      await assert.rejects(claim(store, { ...at, ...wrong }), coded("ERR_INVALID_ARGUMENT", /./))
    }
    await assert.rejects(transfer(store, at), coded("ERR_INVALID_ARGUMENT", /to must be/))
  })
})

describe("transfer", { skip }, () => {
  test("leaves nothing behind: all that was recorded is before the new owner's first event", async () => {
    const at = place()
    const [laptop, phone] = [device("laptop"), device("phone")]
    // No relay runs: what was never published goes along.
    for (let n = 0; n < 50; n++) laptop.write(`${n}`)
    const owned = await transfer(laptop.store, { ...at, to: "phone" })
    assert.deepEqual(owned, { owner: "phone", epoch: owned.epoch, seq: 49 })
    assert.throws(() => laptop.write("too late"), coded("ERR_NOT_OWNER", /./))
    await phone.replicates(at)
    assert.deepEqual(phone.store.owner("n"), { owner: "phone", epoch: owned.epoch })
    phone.write("50")
    await phone.relays(at)
    await laptop.replicates(at)
    await laptop.store.waitFor({ n: 50 }, { timeout: 30_000 })
    assert.deepEqual(laptop.store.read("n"), phone.store.read("n"))
    assert.deepEqual([laptop.errors, phone.errors], [[], []])
    // Said again, it has been done.
    assert.equal((await transfer(laptop.store, { ...at, to: "phone" })).epoch, owned.epoch)
  })

  test("while it is written: whatever run returned arrives, once", async () => {
    const at = place()
    const [laptop, phone] = [device("laptop"), device("phone")]
    laptop.write("0")
    await Promise.all([laptop.relays(at), phone.replicates({ ...at, stream: at.stream })])
    let written = 1
    let refused
    const writing = (async () => {
      while (refused === undefined) {
        try {
          laptop.write(`${written}`)
          written++
        } catch (error) {
          refused = error.code
        }
        await new Promise(setImmediate)
      }
    })()
    const owned = await transfer(laptop.store, { ...at, to: "phone" })
    await writing
    assert.equal(refused, "ERR_NOT_OWNER")
    assert.equal(owned.seq, written - 1)
    await until(() => phone.store.owner("n")?.owner === "phone")
    assert.deepEqual(phone.store.read("n"), laptop.store.read("n"))
  })

  test("by somebody who does not have it is refused", async () => {
    const at = place()
    const [laptop, phone] = [device("laptop"), device("phone")]
    laptop.write("1")
    await laptop.relays(at)
    for (const work of [() => transfer(phone.store, { ...at, to: "tablet" }), () => release(phone.store, at)]) {
      await assert.rejects(work, coded("ERR_NOT_OWNER", /of "laptop" in the cluster/))
    }
  })
})

describe("release", { skip }, () => {
  test("leaves it to whoever claims it next", async () => {
    const at = place()
    const [laptop, phone] = [device("laptop"), device("phone")]
    laptop.write("1")
    const released = await release(laptop.store, at)
    assert.deepEqual(released, { owner: null, epoch: released.epoch, seq: 0 })
    assert.deepEqual(laptop.store.owner("n"), { owner: null, epoch: released.epoch })
    const owned = await claim(phone.store, { ...at, owner: "phone", expectedEpoch: released.epoch })
    assert.ok(owned.epoch > released.epoch)
    phone.write("2")
    await phone.relays(at)
    await laptop.replicates(at)
    await laptop.store.waitFor({ n: 1 }, { timeout: 30_000 })
    assert.throws(() => laptop.write("3"), coded("ERR_NOT_OWNER", /./))
  })
})
