"use strict"

// Processes that run, replay, claim and remove are killed at random moments, again and again on one file: afterwards
// everything that was returned to them is there, nothing is half done, and the tables say what the log says.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { kill, start, untilTold } = require("./children.js")
const { openLedger, projected, replayed } = require("./ledger.js")
const { temporaryFolder } = require("./notes.js")
const { extent, figures, random, seeds } = require("./soak.js")

const KILLS = extent(25, 500)
/** A file is left for a new one after so many rounds, so that it does not take ever longer to look at. */
const ROUNDS_A_FILE = 8

/** What is known of a file from those who wrote it. */
class Books {
  /** Returned events by account and seq. */
  events = new Map()
  /** Through which seq each account was removed at least, and which may have been removed besides. */
  removed = new Map()
  removing = new Set()
  /** The highest epoch of each lease that was told, and who owned it in each. */
  epochs = new Map()
  owners = new Map()
  /** What the killed were doing. */
  interrupted = {}
  killed = 0

  hear(told) {
    let doing = "nothing yet"
    let removing
    for (const [kind, ...what] of told) {
      if (kind === "begin") doing = what[0]
      else doing = "between two"
      if (kind === "run")
        for (const [account, seq, id] of what) this.events.set(`${account} ${seq}`, [account, seq, id])
      if (kind === "removing") [removing, doing] = [what[0], "remove"]
      if (kind === "removed") {
        removing = undefined
        this.removed.set(what[0], Math.max(what[1], this.removed.get(what[0]) ?? -1))
      }
      if (kind === "claimed") this.claimed(...what)
    }
    if (removing !== undefined) this.removing.add(removing)
    this.killed++
    this.interrupted[doing] = (this.interrupted[doing] ?? 0) + 1
  }

  claimed(lease, owner, epoch) {
    this.epochs.set(lease, Math.max(epoch, this.epochs.get(lease) ?? 0))
    if (owner === null) return
    const held = this.owners.get(`${lease} ${epoch}`) ?? owner
    assert.equal(owner, held, `${lease} had two owners in epoch ${epoch}`)
    this.owners.set(`${lease} ${epoch}`, owner)
  }
}

/** Asserts that the file holds what its books say, and is whole. Answers how many events there are. */
async function check(path, books) {
  const { store, Added } = openLedger(path)
  try {
    assert.deepEqual(await store.verify(), [])
    const log = new Map()
    const batches = new Map()
    for (const { aggregateID } of store.aggregates()) {
      for (const event of store.read(aggregateID)) {
        log.set(`${aggregateID} ${event.seq}`, event.id)
        const { batch, of, never } = event.data
        assert.equal(never, undefined, `${aggregateID} ${event.seq} was taken back`)
        if (batch !== undefined) batches.set(batch, [...(batches.get(batch) ?? []), of])
      }
    }
    for (const [batch, found] of batches) assert.equal(found.length, found[0], `batch ${batch} is whole`)
    const tombstone = store.db.prepare("SELECT removed_seq FROM event_sequence WHERE aggregate_id = ?").pluck()
    for (const [name, [account, seq, id]] of books.events) {
      if (seq > (tombstone.get(account) ?? -1)) {
        assert.equal(log.get(name), id, `${name} was returned`)
        continue
      }
      const asked = seq <= (books.removed.get(account) ?? -1) || books.removing.has(account)
      assert.ok(asked, `${name} was erased, and nobody had asked for it`)
      assert.equal(log.get(name), undefined, `${name} was erased, and is there`)
      books.events.delete(name)
    }
    for (const [account, through] of books.removed) {
      assert.ok((tombstone.get(account) ?? -1) >= through, `${account} stays removed`)
    }
    checkClaims(store, books)
    assert.deepEqual(projected(store), await replayed(store))
    const { seq, id } = store.run(Added, { account: "parent", text: "" })
    books.events.set(`parent ${seq}`, ["parent", seq, id])
    return log.size
  } finally {
    store.close()
  }
}

/** What was claimed last is in the file, or what a killed one claimed after it. */
function checkClaims(store, books) {
  for (const [lease, epoch] of books.epochs) {
    const found = store.owner(lease)
    assert.ok(found === undefined ? epoch === 0 : found.epoch >= epoch, `${lease} is in epoch ${epoch} at least`)
    if (found !== undefined) books.claimed(lease, found.owner, found.epoch)
  }
}

/** Writers of one file, each of which is killed at a moment of its own. */
async function round(path, names, numbers) {
  const writers = names.map((name) => start("ledger-writer.js", { path, name, seed: numbers.integer(2 ** 31 - 1) }))
  await Promise.all(
    writers.map(async (writer) => {
      const count = 1 + numbers.integer(120)
      // And at any moment between what it tells.
      const pause = numbers.integer(12)
      await untilTold(writer, count)
      await new Promise((resolve) => setTimeout(resolve, pause))
      await kill(writer)
    }),
  )
  return writers.map(({ told }) => told)
}

describe("kill -9", () => {
  test(
    `${KILLS} times in run, runAll, replayAll, transaction, claim, remove: what was returned is there, nothing is half done`,
    { timeout: 60 * 60_000 },
    async () => {
      const folder = temporaryFolder()
      const [seed] = seeds(1, 1)
      const numbers = random(seed)
      const interrupted = {}
      let [kills, checked, files, largest, path, books] = [0, 0, 0, 0]
      for (let rounds = 0; kills < KILLS; rounds++) {
        if (rounds % ROUNDS_A_FILE === 0) {
          path = join(folder, `${files++}.db`)
          books = new Books()
        }
        const names = numbers.chance(0.25) ? ["a", "b", "c"] : ["a"]
        try {
          for (const told of await round(path, names, numbers)) books.hear(told)
          largest = Math.max(largest, await check(path, books))
        } catch (error) {
          error.message += ` (seed ${seed}, round ${rounds}, after ${kills} kills, the file ${path})`
          throw error
        }
        checked += books.events.size
        for (const [what, count] of Object.entries(books.interrupted))
          interrupted[what] = (interrupted[what] ?? 0) + count
        books.interrupted = {}
        kills += names.length
      }
      const during = Object.entries(interrupted).toSorted(([, one], [, other]) => other - one)
      figures("kill -9", {
        seed,
        kills,
        files,
        "events that had been returned, found again": checked,
        "events in the largest file": largest,
        "killed in": during.map(([what, count]) => `${what} (${count})`).join(" "),
      })
    },
  )
})
