"use strict"

// A process that writes, removes, packs, compacts and vacuums is killed at random moments, again and again on one file:
// afterwards everything that it acknowledged is there. SYNCLINE_KILLS=200 kills more often than usual.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { kill, start, untilTold } = require("./children.js")
const { numbers, openBoards } = require("./maintained-writer.js")
const { temporaryFolder } = require("./notes.js")

const KILLS = Number(process.env.SYNCLINE_KILLS ?? 25)
/** A file is left for a new one after so many, so that it does not take ever longer to look at. */
const KILLS_A_FILE = 12

const rows = (store, statement) => store.db.prepare(statement).raw().all()

/** What must be there: the events that were acknowledged, and through which seq each board was removed, for certain or perhaps. */
function expect(expected, told) {
  for (const [kind, ...what] of told) {
    if (kind === "run") {
      for (const [board, seq, id, size] of what) expected.events.set(`${board} ${seq}`, { board, seq, id, size })
    }
    if (kind === "removing") expected.removing = what[0]
    if (kind === "removed") {
      expected.removed.set(what[0], Math.max(what[1], expected.removed.get(what[0]) ?? -1))
      expected.removing = undefined
    }
  }
}

/** Every seq of each board is one event, in a gap, or removed; what the log gives. */
async function contents(store) {
  const found = new Map()
  for (const { aggregateID, seq } of store.aggregates()) {
    let last = -1
    const story = { events: new Map(), gaps: [], removed: -1, last: seq }
    for await (const item of store.log({ aggregateID })) {
      if (item.kind === "removed") story.removed = last = item.seq
      else if (item.kind === "gap") {
        assert.equal(item.after, last, aggregateID)
        story.gaps.push(item)
        last = item.through
      } else if (item.kind === "event") {
        assert.equal(item.event.seq, last + 1, aggregateID)
        story.events.set(item.event.seq, item.event)
        last = item.event.seq
      }
    }
    assert.equal(last, seq, aggregateID)
    found.set(aggregateID, story)
  }
  return found
}

/** Nothing is both a row and packed, positions are each used once, and segments lie one after the other before the rows. */
function checkTables(store) {
  assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
  const overlapping = `
    SELECT one.aggregate, one.first_seq, one.seq, other.first_seq, other.seq
    FROM event_segment one JOIN event_segment other ON one.aggregate = other.aggregate AND one.position < other.position
    WHERE other.first_seq <= one.seq OR other.first <= one.position`
  assert.deepEqual(rows(store, overlapping), [])
  const both = `
    SELECT event.aggregate, event.seq FROM event JOIN event_segment s ON s.aggregate = event.aggregate
    WHERE event.seq <= s.seq OR event.position <= s.position`
  assert.deepEqual(rows(store, both), [])
  const all = store.readAll({ limit: 1_000_000 })
  for (let n = 1; n < all.length; n++) assert.ok(all[n].position > all[n - 1].position)
  const places = new Set(all.map(({ aggregateID, seq }) => `${aggregateID} ${seq}`))
  assert.equal(places.size, all.length)
  const floor = rows(store, "SELECT max(position) <= (SELECT position_floor FROM event_meta) FROM event_segment")
  assert.notEqual(floor[0][0], 0, "positions of packed events lie below the floor")
  return all
}

/** What the parent finds after a kill. */
async function check(path, expected) {
  const { store, Noted } = openBoards(path, { packing: false })
  try {
    assert.deepEqual(await store.verify(), [])
    const all = checkTables(store)
    const found = await contents(store)
    assert.equal(
      [...found.values()].reduce((sum, { events }) => sum + events.size, 0),
      all.length,
    )
    for (const [board, seq] of expected.removed)
      assert.ok(seq < 0 || found.get(board).removed >= seq, `${board} is removed`)
    for (const [name, { board, seq, id, size }] of expected.events) {
      const story = found.get(board)
      if (seq <= story.removed) {
        const certain = seq <= (expected.removed.get(board) ?? -1)
        assert.ok(certain || expected.removing === board, `${name} was erased, and nobody had asked for it`)
        expected.events.delete(name)
        continue
      }
      const event = story.events.get(seq)
      if (event === undefined) {
        assert.ok(
          story.gaps.some((gap) => gap.after < seq && seq <= gap.through),
          `${name} is neither there nor in a gap`,
        )
        continue
      }
      assert.equal(event.id, id, name)
      assert.equal(event.data.text?.length ?? -1, size, name)
    }
    // What was superseded is: between its key's first and newest, since the last barrier.
    for (const [board, { events, gaps, removed, last }] of found) {
      for (const { through } of gaps) assert.ok(events.has(through + 1), `the newest of ${board} is never let go`)
      assert.ok(removed >= 0 || events.has(0) || last < 0, `the first of ${board} is never let go`)
    }
    const { board, seq } = { board: "parent", seq: store.sequence("parent") }
    const { id } = store.run(Noted, { board, text: "" })
    assert.deepEqual(store.get(board, seq + 1)?.id, id)
    expect(expected, [["run", [board, seq + 1, id, 0]]])
    expected.removing = undefined
    for (const { gaps, removed } of found.values()) {
      expected.met.gaps += gaps.length
      expected.met.removals += removed >= 0 ? 1 : 0
    }
    expected.met.segments += rows(store, "SELECT count(*) FROM event_segment")[0][0]
  } finally {
    store.close()
  }
}

describe("kill -9 in maintenance", () => {
  test(`${KILLS} times: what was acknowledged is there once, or was let go`, { timeout: 30 * 60_000 }, async () => {
    const folder = temporaryFolder()
    const random = numbers(20_251_125)
    const met = { segments: 0, gaps: 0, removals: 0 }
    let path
    let expected
    for (let n = 0; n < KILLS; n++) {
      if (n % KILLS_A_FILE === 0) {
        path = join(folder, `${n}.db`)
        expected = { events: new Map(), removed: new Map(), removing: undefined, met }
      }
      const writer = start("maintained-writer.js", { path, seed: random(2 ** 31) })
      try {
        await untilTold(writer, 1 + random(60))
        // And at any moment between what it tells.
        await new Promise((resolve) => setTimeout(resolve, random(60)))
        await kill(writer)
        expect(expected, writer.told)
        await check(path, expected)
      } catch (error) {
        error.message += ` (kill ${n} of the file ${path})`
        throw error
      }
    }
    // It was killed where there was something to lose.
    for (const [what, count] of Object.entries(met)) assert.ok(count > 0, what)
  })
})
