"use strict"

// Writes, removes, packs, compacts and vacuums one file without end, until it is killed. Before each step it tells what it
// is about to do, and after it what was acknowledged; whoever killed it knows what must be there and what may be.

const { writeSync } = require("node:fs")
const { z } = require("zod")
const { createRegistry, define, open } = require("syncline")

/** Definitions of boards whose items are compacted by key. */
function boards() {
  const registry = createRegistry()
  const schema = z.looseObject({ board: z.string() })
  const base = { version: 1, aggregate: "board", schema, registry, projector: "none" }
  const Noted = define({ ...base, type: "noted" })
  const Gone = define({ ...base, type: "gone" })
  const Saved = define({ ...base, type: "saved", compactKey: { path: "key", barriers: [Gone] } })
  return { registry, Noted, Gone, Saved }
}

/** A store of them that packs and compacts soon. */
function openBoards(path, options) {
  const given = boards()
  // All at once, and so often that hardly a moment is without.
  const packing = { keepEvents: 20, keepBytes: 20_000, atBytes: 30_000, idle: 3 }
  return { ...given, store: open(path, { registry: given.registry, packing, ...options }) }
}

/** Small numbers that follow from a seed (mulberry32). */
function numbers(seed) {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

async function work({ path, seed }) {
  const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)
  const random = numbers(seed)
  const { store, Noted, Gone, Saved } = openBoards(path)
  // Of a size that leaves pages free when it is packed.
  const text = () => `${random(1_000)} `.repeat(1 + random(400))
  let maintaining
  for (;;) {
    const board = `board ${random(4)}`
    const step = random(100)
    if (step < 2) {
      tell(["removing", board])
      const event = random(2) === 0 ? undefined : [Gone, { board }]
      store.remove(board, event && { event })
      tell(["removed", board, store.sequence(board)])
    } else if (step < 4) {
      const last = store.sequence(board)
      if (last < 5) continue
      const seq = last - random(5)
      tell(["removing", board])
      store.replay({ kind: "removed", aggregateID: board, seq })
      tell(["removed", board, seq])
    } else if (step < 7) {
      maintaining ??= store
        .maintain(step === 6 ? {} : { budget: 1 + random(20) })
        .finally(() => (maintaining = undefined))
      if (random(2) === 0) await maintaining
    } else if (step < 9) {
      await new Promise((resolve) => setTimeout(resolve, random(8)))
    } else {
      const count = 1 + random(step < 30 ? 40 : 3)
      const events = Array.from({ length: count }, () => {
        const kind = random(20)
        if (kind === 0) return [Gone, { board }]
        return kind < 8 ? [Noted, { board, text: text() }] : [Saved, { board, key: random(3), text: text() }]
      })
      tell([
        "run",
        ...store
          .runAll(events)
          .map(({ aggregateID, seq, id, data }) => [aggregateID, seq, id, data.text?.length ?? -1]),
      ])
    }
    if (random(4) === 0) await new Promise(setImmediate)
  }
}

if (require.main === module) void work(JSON.parse(process.argv[2]))

module.exports = { numbers, openBoards }
