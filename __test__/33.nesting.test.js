"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { coded, noteRows, notes, openNotes, serialized, tagRows } = require("./stores.js")

// A program of steps, nested in transactions and raw savepoints that end well or badly, beside a model that keeps whole
// copies: what the store holds and publishes must be what the model holds.

const noteID = fc.constantFrom("a", "b")
const { steps } = fc.letrec((tie) => ({
  steps: fc.array(tie("step"), { maxLength: 5 }),
  step: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({
      do: fc.constantFrom("write", "tag", "see", "silent", "replay", "refused", "broken", "remove"),
      noteID,
    }),
    fc.record({
      do: fc.constantFrom("transaction", "db.transaction", "savepoint"),
      fails: fc.boolean(),
      steps: tie("steps"),
    }),
    fc.record({ do: fc.constant("rollback and go on"), before: tie("steps"), after: tie("steps") }),
  ),
}))

class Model {
  state = { seq: { a: -1, b: -1 }, notes: {}, tags: [], pending: [] }

  record(id, publish = true) {
    const seq = ++this.state.seq[id]
    if (publish) this.state.pending.push(`${id}${seq}`)
    return seq
  }

  /** Does `work`, and takes back all of it when it throws. */
  attempt(work) {
    const before = structuredClone(this.state)
    try {
      work()
    } catch (error) {
      this.state = before
      throw error
    }
  }
}

const deliberate = new Error("deliberate")

function perform(store, given, model, list) {
  for (const step of list) {
    const { noteID } = step
    const inner = (steps) => perform(store, given, model, steps)
    const failing = () => {
      inner(step.steps)
      if (step.fails) throw deliberate
    }
    switch (step.do) {
      case "write":
        store.run(given.Written, { noteID })
        model.state.notes[noteID] = model.record(noteID)
        break
      case "tag":
        store.run(given.Tagged, { noteID, tag: "t" })
        model.state.tags.push([noteID, model.record(noteID)])
        break
      case "see":
        store.runAll([
          [given.Seen, { noteID }],
          [given.Seen, { noteID }],
        ])
        model.record(noteID)
        model.record(noteID)
        break
      case "silent":
        store.run(given.Seen, { noteID }, { publish: false })
        model.record(noteID, false)
        break
      case "replay": {
        const seq = model.state.seq[noteID] + 1
        store.replay(serialized("written", seq, { noteID }), { publish: true })
        model.state.notes[noteID] = model.record(noteID)
        break
      }
      case "remove":
        store.remove(noteID, { event: [given.Written, { noteID }] })
        model.state.notes[noteID] = model.record(noteID)
        break
      case "refused":
        assert.throws(() => store.run(given.Tagged, { noteID, tag: "refused" }), coded("ERR_SQLITE", /refused/))
        break
      case "broken":
        assert.throws(
          () =>
            store.runAll([
              [given.Written, { noteID }],
              [given.Tagged, { noteID, tag: "refused" }],
            ]),
          coded("ERR_SQLITE", /refused/),
        )
        break
      case "transaction":
      case "db.transaction": {
        const run = () => (step.do === "transaction" ? store.transaction(failing) : store.db.transaction(failing)())
        const act = () => model.attempt(run)
        if (step.fails) assert.throws(act, (error) => error === deliberate)
        else act()
        break
      }
      case "savepoint":
        store.db.exec("SAVEPOINT own")
        try {
          model.attempt(failing)
        } catch (error) {
          assert.equal(error, deliberate)
          store.db.exec("ROLLBACK TO own")
        }
        store.db.exec("RELEASE own")
        break
      case "rollback and go on": {
        store.db.exec("SAVEPOINT again")
        const before = structuredClone(model.state)
        inner(step.before)
        store.db.prepare("ROLLBACK TO again").run()
        model.state = before
        inner(step.after)
        store.db.prepare("RELEASE again").run()
      }
    }
  }
}

describe("rule 10: against a model", () => {
  test("rule 10: any nesting of transactions, savepoints and failures holds and publishes what is left", () => {
    fc.assert(
      fc.property(fc.array(fc.record({ steps, fails: fc.boolean() }), { maxLength: 4 }), (roots) => {
        const given = notes()
        const refuse =
          "CREATE TRIGGER no BEFORE INSERT ON tag WHEN NEW.tag = 'refused' BEGIN SELECT RAISE(ABORT, 'refused'); END"
        const store = openNotes(given, { path: ":memory:", migrate: (db) => db.exec(refuse) })
        const heard = []
        store.subscribeAll(({ aggregateID, seq }) => heard.push(`${aggregateID}${seq}`))
        const model = new Model()
        for (const root of roots) {
          const published = heard.length
          perform(store, given, model, [{ do: "transaction", ...root }])
          assert.deepEqual(heard.slice(published), model.state.pending)
          model.state.pending = []
        }
        assert.deepEqual(
          noteRows(store).map(([id, , seq]) => [id, seq]),
          Object.entries(model.state.notes).toSorted(),
        )
        const byKey = ([a, one], [b, two]) => (a === b ? one - two : a < b ? -1 : 1)
        assert.deepEqual(
          tagRows(store).map(([id, , seq]) => [id, seq]),
          model.state.tags.toSorted(byKey),
        )
        for (const id of ["a", "b"]) assert.equal(store.sequence(id), model.state.seq[id])
        store.close()
      }),
      { numRuns: 150 },
    )
  })

  test("rule 10: a deferred transaction whose snapshot is old fails, and leaves nothing", () => {
    const given = notes()
    const store = openNotes(given, { busyTimeout: 50 })
    const other = store.connect()
    const heard = []
    store.subscribeAll((event) => heard.push(event.seq))
    const stale = store.db.transaction(() => {
      store.db.prepare("SELECT count(*) FROM note").get()
      other.exec("INSERT INTO note VALUES ('other', '', 0)")
      store.run(given.Written, { noteID: "n" })
    })
    assert.throws(() => stale.deferred(), coded("ERR_BUSY"))
    assert.equal(store.db.inTransaction, false)
    assert.equal(store.sequence("n"), -1)
    assert.equal(store.run(given.Written, { noteID: "n" }).seq, 0)
    assert.deepEqual(heard, [0])
    other.close()
  })
})
