"use strict"

// Rule 19 where everybody claims and writes at once: whatever the order in which processes get the lock, an epoch has one
// owner, and what was written in it stands together.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { endOf, say, start, untilTold } = require("./children.js")
const { assertSound, openNotes, temporaryFolder } = require("./notes.js")
const { extent, figures, random, seeds } = require("./soak.js")

const ROUNDS = extent(1, 12)
const RACERS = extent(9, 12)
const NOTES = 3
const SETTINGS = { notes: NOTES, steps: extent(120, 1_000), prizes: extent(20, 100) }

const timeout = 30 * 60_000
const folder = temporaryFolder()

/** The events of a note in the order of the log, with the epochs as it says them, cut where the epoch changes. */
function epochsOf(store, noteID) {
  const stretches = []
  for (const { seq, data } of store.read(noteID)) {
    const { by, epoch, owner = by } = data
    const last = stretches.at(-1)
    if (last?.epoch === epoch) {
      assert.equal(owner, last.owner, `${noteID} ${seq}: two owners in epoch ${epoch}`)
    } else {
      assert.ok(epoch > (last?.epoch ?? -1), `${noteID} ${seq}: epoch ${epoch} after ${last?.epoch}`)
      stretches.push({ owner, epoch })
    }
    if (owner !== null) assert.equal(by, owner, `${noteID} ${seq}: written by another than its owner`)
  }
  return stretches
}

/** What the racers were told must fit together, and with the log. */
function checkTold(store, told) {
  const owners = new Map()
  const seen = new Set()
  const won = new Map()
  for (const [kind, ...what] of told) {
    if (kind === "claimed") {
      const [noteID, name, epoch, expected] = what
      const key = `${noteID} in epoch ${epoch}`
      assert.equal(owners.get(key) ?? name, name, key)
      owners.set(key, name)
      if (expected === null) continue
      assert.equal(epoch, expected + 1, key)
      assert.ok(!seen.has(key), `${noteID}: two claims that expected epoch ${expected} had it`)
      seen.add(key)
    }
    if (kind === "won") won.set(what[1], [...(won.get(what[1]) ?? []), what[0]])
  }
  // Of all that claimed or created one, one has it; what it created is the first event of its first epoch.
  for (const [prize, results] of won) assert.deepEqual(results, [1], prize)
  for (const { aggregateID, seq, owner, epoch } of store.aggregates({ prefix: "born" })) {
    assert.deepEqual([seq, epoch, typeof owner], [0, 1, "string"], aggregateID)
    assert.equal(won.has(aggregateID), true)
  }
  return { owners, won }
}

describe("rule 19: races", () => {
  test(
    `rule 19: ${RACERS} processes claim, run, replay and release the same notes: no epoch has two owners, none goes back`,
    { timeout },
    async () => {
      const [seed] = seeds(1, 1)
      const numbers = random(seed)
      const sums = { claims: 0, runs: 0, refused: 0, epochs: 0, conflicts: 0, prizes: 0, "refused by readers": 0 }
      for (let round = 0; round < ROUNDS; round++) {
        const path = join(folder, `races ${round}.db`)
        const { store, Written } = openNotes(path)
        const ids = Array.from({ length: NOTES }, (_, n) => `held ${n}`)
        const newSeed = () => numbers.integer(2 ** 31 - 1)
        const racers = Array.from({ length: RACERS }, (_, n) =>
          start("owner-racer.js", { path, name: `racer ${n}`, seed: newSeed(), ...SETTINGS }),
        )
        // On devices of their own.
        const copies = [1, 2].map((n) => join(folder, `races ${round} reader ${n}.db`))
        const readers = copies.map((copy) => start("owner-reader.js", { from: path, path: copy, ids, seed: newSeed() }))
        await Promise.all(racers.map((racer) => untilTold(racer, 1)))
        for (const racer of racers) say(racer)
        const told = (await Promise.all(racers.map(endOf))).flat()
        const { owners, won } = checkTold(store, told)

        const ran = told.flatMap(([kind, ...events]) => (kind === "ran" ? events : []))
        // What was only claimed has no row to be counted.
        for (const { aggregateID, seq } of store.aggregates()) if (seq < 0) store.run(Written, { noteID: aggregateID })
        assertSound(store, ran)
        for (const noteID of ids) {
          const stretches = epochsOf(store, noteID)
          for (const { owner, epoch } of stretches) assert.equal(owners.get(`${noteID} in epoch ${epoch}`), owner)
          sums.epochs += stretches.length
        }
        for (let n = 0; n < NOTES; n++) sums.epochs += epochsOf(store, `free ${n}`).length
        for (const [kind, noteID, epoch, owner, current] of told.filter(([what]) => what === "refused")) {
          // It had been told so at its next write: nothing of it is in a later epoch than the one that it held.
          assert.ok(epoch === null || current > epoch, `${kind} ${noteID} in epoch ${epoch}, of ${owner} in ${current}`)
        }

        const last = new Map(ids.map((noteID) => [noteID, store.sequence(noteID)]))
        for (const [n, reader] of readers.entries()) {
          const isThere = (items) => {
            const read = new Map(items.filter(([kind]) => kind === "read").map(([, noteID, seq]) => [noteID, seq]))
            return ids.every((noteID) => last.get(noteID) === (read.get(noteID) ?? -1))
          }
          await untilTold(reader, isThere)
          say(reader)
          const refusals = (await endOf(reader)).filter(([kind]) => kind === "refused")
          sums["refused by readers"] += refusals.length
          const { store: copy } = openNotes(copies[n])
          for (const noteID of ids) {
            assert.deepEqual(copy.read(noteID), store.read(noteID))
            const { by: owner, epoch } = store.get(noteID, last.get(noteID)).data
            assert.deepEqual(copy.owner(noteID), { owner, epoch })
          }
          copy.close()
        }
        const count = (kind) => told.filter(([what]) => what === kind).length
        sums.claims += count("claimed")
        sums.runs += ran.length
        sums.refused += count("refused")
        sums.conflicts += count("late")
        sums.prizes += won.size
        store.close()
      }
      // How often one loses is up to the machine.
      for (const what of ["claims", "runs", "epochs", "prizes"]) assert.ok(sums[what] > 0, what)
      figures("ownership", { seed, rounds: ROUNDS, processes: RACERS, ...sums })
    },
  )
})
