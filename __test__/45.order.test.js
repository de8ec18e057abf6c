"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { collected, file } = require("./stores.js")
const { EARS, READERS, World } = require("./order-model.js")

// Programs are data: steps that nest in transactions, and in events, whose first listener performs them.

const within = fc.constantFrom("A", "B")
const noteID = fc.constantFrom("a", "b")
// How `convertEvent` answers: at once, after so many turns, or not at all.
const convert = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 4 }), fc.constantFrom("throws", "rejects"))
const doing = (name, more) => fc.record({ do: fc.constant(name), ...more })
const often = (weight, arbitrary) => ({ weight, arbitrary })

// Events answer events and transactions nest, but few and not for ever.
const depthIdentifier = fc.createDepthIdentifier()

const { step } = fc.letrec((tie) => {
  const answers = fc.oneof({ maxDepth: 2, depthIdentifier }, often(3, fc.constant([])), often(1, tie("steps")))
  const event = fc.record({ noteID, publish: fc.boolean(), sql: fc.boolean(), convert, answers })
  const events = fc.array(event, { minLength: 1, maxLength: 3 })
  return {
    steps: fc.array(tie("step"), { maxLength: 4, depthIdentifier }),
    step: fc.oneof(
      { maxDepth: 3, depthIdentifier, withCrossShrink: true },
      often(4, doing("run", { in: within, events: fc.tuple(event) })),
      often(4, doing("delta", { noteID, convert, answers })),
      often(2, doing("turns", { count: fc.integer({ min: 1, max: 3 }) })),
      often(2, doing("run", { in: within, events })),
      often(3, doing("transaction", { in: within, fails: fc.boolean(), steps: tie("steps") })),
      often(2, doing("run async", { in: within, events })),
      doing("replay", { events }),
      doing("remove", { in: within, noteID: fc.constantFrom("a", "b", "r"), event: fc.option(event) }),
      doing("refused", { in: within, events }),
      doing("visit", { events }),
      often(2, doing("subscribe", { ear: fc.constantFrom(...EARS) })),
      doing("unsubscribe", { which: fc.nat(9) }),
    ),
  }
})

const program = fc.record({
  converting: fc.boolean(),
  readers: fc.subarray(READERS),
  steps: fc.array(step, { maxLength: 12 }),
  // More events of somebody else than the readers pull at once, before the step of this number.
  flood: fc.option(fc.record({ before: fc.nat(5), count: fc.constantFrom(300, 1_100) }), { freq: 12 }),
})

/** Whoever hears its own store only hears all that is delivered while it listens. */
function checkOwn(world, ear) {
  const all = world.items.map((item, index) => ({ ...item, index })).filter((item) => world.hears(ear, item))
  const names = all.map(({ name }) => name)
  const { heard, from, to = Infinity } = ear
  let start = all.filter(({ index }) => index < from).length
  // What was committed before it came and still waited, it may hear, too.
  if (!ear.exact && names.includes(heard[0])) start = Math.min(start, names.indexOf(heard[0]))
  let end = all.filter(({ index }) => index < to).length
  // What was committed and still waited when it went is lost to it.
  if (ear.to !== undefined && !ear.exactly) end = Math.min(end, start + heard.length)
  assert.deepEqual(heard, names.slice(start, end), `what ${ear.reader} heard`)
}

/** Whoever hears the database hears everything that is committed from then on, in that order. */
function checkAll(world, ear, erased) {
  const { heard, from, to } = ear
  const all = world.items.slice(from, to).filter((item) => world.hears(ear, item))
  // What was removed before it got there may be missing, but not what its own store published with nothing to wait for.
  const told = (item) => !world.delayed && item.in === ear.in && item.publish
  const due = all.filter((item) => told(item) || !erased.has(item.name) || heard.includes(item.name))
  const names = due.map(({ name }) => name)
  assert.deepEqual(heard, to === undefined ? names : names.slice(0, heard.length), `what ${ear.reader} heard`)
}

/** A log gives every seq once, in order, or a removal that says why not. */
function checkLog(world, { reader, noteID, items }, erased) {
  const story = `what ${reader} gave: ${JSON.stringify(items)}`
  const history = world.items.filter((item) => item.noteID === noteID && !item.delta)
  let last = -1
  for (const { kind, event, seq } of items) {
    if (kind === "event") {
      assert.equal(event.seq, last + 1, story)
      assert.equal(event.data.n, history[event.seq]?.n, story)
    } else if (kind === "removed") {
      assert.ok(seq >= last, story)
      for (const { name } of history.slice(last + 1, seq)) assert.ok(erased.has(name), story)
    } else assert.deepEqual([kind, seq], ["synced", last], story)
    last = event?.seq ?? seq
  }
  assert.equal(last, history.length - 1, story)
  assert.equal(items.filter(({ kind }) => kind === "synced").length, 1, story)
}

/** What is in the file is what the model has, less what was removed. Positions, and the names of what is gone. */
async function checkFile(world) {
  const { A } = world.stores
  const recorded = world.items.filter(({ delta }) => !delta)
  const found = new Map()
  for (const { aggregateID, seq, data, position } of A.readAll({ limit: 10_000 })) {
    found.set(`${aggregateID}${seq}#${data.n}`, position)
  }
  const kept = recorded.map(({ name }) => name).filter((name) => found.has(name))
  assert.deepEqual([...found.keys()], kept)
  for (const noteID of world.removed) {
    const [{ kind, event }] = await collected(A.log({ aggregateID: noteID }))
    if (kind === "removed" && event !== undefined) found.set(`${noteID}${event.seq}#${event.data.n}`, undefined)
  }
  const erased = recorded.filter(({ name }) => !found.has(name))
  for (const { noteID, name } of erased) assert.ok(world.removed.has(noteID), `${name} is lost`)
  return { positions: found, erased: new Set(erased.map(({ name }) => name)) }
}

function checkPositions({ reader, positions: heard }, positions) {
  heard.reduce((last, [name, position]) => {
    assert.ok(position > last, `${reader} heard ${name} with position ${position} after ${last}`)
    assert.equal(position, positions.get(name) ?? position, `${reader} heard ${name}`)
    return position
  }, 0)
}

const ofDatabase = ({ kind }) => kind === "database" || kind === "stream"

async function perform(world, { steps, flood }) {
  for (const [index, step] of steps.entries()) {
    if (flood?.before === index)
      world.run(
        "B",
        Array.from({ length: flood.count }, () => ({ noteID: "b" })),
        false,
      )
    if (step.do === "turns") for (let turn = 0; turn < step.count; turn++) await new Promise(setImmediate)
    else world.perform(step)
    // Rule 13: without a conversion everything is delivered before the call returns.
    if (!world.converting) for (const ear of world.ears) if (!ofDatabase(ear)) checkOwn(world, ear)
  }
}

async function check(world) {
  world.checkErrors()
  const { positions, erased } = await checkFile(world)
  for (const ear of world.ears) {
    if (ofDatabase(ear)) checkAll(world, ear, erased)
    else checkOwn(world, ear)
    checkPositions(ear, positions)
  }
  for (const log of world.logs) checkLog(world, log, erased)
  for (const { reader, items } of world.changes) assert.equal(items[0], "sweep", reader)
  // Once, or once for each scope where the log brings it later to those who hear the database.
  for (const { n, conversions } of world.facts) assert.ok(conversions <= 2, `#${n} was converted ${conversions} times`)
}

describe("rule 13: one dispatcher, in order", () => {
  test("rules 13, 14, 15 and 20: whatever is interleaved, each reader hears what the model says", async () => {
    let files = 0
    // A failure prints the seed and the path, which `fc.assert(…, { seed, path })` takes.
    await fc.assert(
      fc.asyncProperty(program, async (program) => {
        const world = new World({ ...program, path: file(`${files++}.db`) })
        try {
          await perform(world, program)
          await world.settle()
          await check(world)
        } finally {
          await world.close()
        }
        world.checkErrors()
      }),
      { numRuns: 120, includeErrorInReport: true },
    )
  })
})
