"use strict"

// One seed drives a writer, its readers, and a network that drops, duplicates, reorders, delays and kills (simulation.js).
// After each replay a reader's tables are those of the writer after one of its commits; at the end all say the same.
// SYNCLINE_SEED=n plays a seed again, exactly.

const assert = require("node:assert/strict")
const { mkdirSync, rmSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { memoryFolder } = require("./notes.js")
const { Simulation } = require("./simulation.js")
const { figures, seeds } = require("./soak.js")

const STEPS = 60

// Files are opened and copied all the time.
const folder = memoryFolder()
let plays = 0

async function play(seed) {
  const own = join(folder, `${plays++}`)
  mkdirSync(own)
  const simulation = new Simulation(seed, own)
  try {
    await simulation.play(STEPS)
    return simulation
  } catch (error) {
    error.message += `\n(SYNCLINE_SEED=${seed}, after\n${simulation.trace.slice(-12).join("\n")})`
    throw error
  } finally {
    simulation.close()
    rmSync(own, { recursive: true, force: true })
  }
}

describe("simulation", () => {
  test(
    "readers behind a network that loses, repeats and kills hold a prefix of the writer's commits, and all of them in the end",
    { timeout: 60 * 60_000 },
    async () => {
      const all = seeds(24, 2_000)
      const counts = {}
      for (const seed of all) {
        const played = await play(seed)
        for (const [what, count] of Object.entries(played.counts)) counts[what] = (counts[what] ?? 0) + count
      }
      figures("simulation", { seeds: all.length, "from seed": all[0], ...counts })
    },
  )

  test("a seed plays the same again", { timeout: 60 * 60_000 }, async () => {
    const [seed] = seeds(1, 1)
    const [one, other] = [await play(seed), await play(seed)]
    assert.deepEqual(one.trace, other.trace)
    assert.ok(one.trace.length > STEPS)
  })
})
