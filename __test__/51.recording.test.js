"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { collected, dump, file } = require("./stores.js")
const {
  buildOutputBytes,
  inOrder,
  openSessions,
  sessionState,
  sessionsExpected,
  sessionsText,
} = require("./sessions.js")

const text = sessionsText()
const lines = text.trimEnd().split("\n")
const events = lines.map((line) => JSON.parse(line))
const expected = inOrder(sessionsExpected())
const bytes = (value) => new TextEncoder().encode(value)

/** Every table after the whole recording was replayed at once, which every other way must give, too. */
const reference = {}
function whole(language) {
  if (reference[language] === undefined) {
    const store = openSessions(":memory:", { language })
    store.replayAll(bytes(text))
    reference[language] = dump(store)
  }
  return reference[language]
}

for (const language of ["js", "sql"]) {
  describe(`rule 17: 2,204 recorded events of 14 sessions, projectors in ${language}`, () => {
    const ways = {
      "as single events": (store) => events.forEach((event) => store.replay(event)),
      "as objects at once": (store) => store.replayAll(events),
      "as JSONL text": (store) => store.replayAll(text),
      "as JSONL bytes": (store) => store.replayAll(bytes(text)),
      "as a JSON array": (store) => store.replayAll(JSON.stringify(events)),
      "as indented JSON bytes": (store) => store.replayAll(bytes(JSON.stringify(events, null, 1))),
      "one line at a time": (store) => lines.forEach((line) => store.replayAll(line)),
      "inside one transaction": (store) => store.transaction(() => events.forEach((event) => store.replay(event))),
    }
    for (const [name, replay] of Object.entries(ways)) {
      test(`${name}, twice, the rows are those that the server held`, () => {
        const store = openSessions(file(), { language })
        replay(store)
        assert.deepEqual(sessionState(store), expected)
        assert.deepEqual(dump(store), whole(language))
        replay(store)
        assert.deepEqual(dump(store), whole(language))
      })
    }

    test("in batches cut at random, in any form, some of them repeated", () => {
      const forms = [
        (items) => items,
        (items) => JSON.stringify(items),
        (items) => items.map((item) => JSON.stringify(item)).join("\n"),
        (items) => bytes(items.map((item) => JSON.stringify(item)).join("\n")),
        (items) => items.map((event) => ({ kind: "event", event })),
      ]
      const batch = fc.record({
        length: fc.integer({ min: 1, max: 900 }),
        form: fc.nat(forms.length - 1),
        repeated: fc.integer({ min: 0, max: 50 }),
      })
      // A failure prints the seed and the path, which `fc.assert(…, { seed, path })` takes.
      fc.assert(
        fc.property(fc.array(batch, { minLength: 3, maxLength: 12 }), (batches) => {
          const store = openSessions(":memory:", { language })
          let at = 0
          for (const { length, form, repeated } of [...batches, { length: Infinity, form: 0, repeated: 1 }]) {
            const from = Math.max(0, at - repeated)
            const items = events.slice(from, at + length)
            const applied = store.replayAll(forms[form](items)).reduce((sum, result) => sum + result.applied, 0)
            assert.equal(applied, Math.min(at + length, events.length) - at)
            at = Math.min(at + length, events.length)
          }
          assert.deepEqual(dump(store), whole(language))
          store.close()
        }),
        { numRuns: 8 },
      )
    })

    test("each aggregate on its own, in any order, gives the same rows", () => {
      const store = openSessions(file(), { language })
      const ids = [...new Set(events.map((event) => event.aggregateID))].toReversed()
      for (const id of ids) store.replayAll(events.filter((event) => event.aggregateID === id))
      const { event_sequence: sequences, ...rows } = sessionState(store)
      const { event_sequence: expectedSequences, ...expectedRows } = expected
      assert.deepEqual(rows, expectedRows)
      assert.deepEqual(new Map(Object.entries(sequences)), new Map(Object.entries(expectedSequences)))
    })

    test("what the store then reads and logs is the recording", async () => {
      const store = openSessions(file(), { language })
      store.replayAll(text)
      const all = store.readAll({ limit: 10_000 })
      const positioned = events.map((event, index) => ({ ...event, position: index + 1 }))
      assert.deepEqual(all, positioned)
      assert.equal(
        all.map((event) => JSON.stringify(event.data)).join(),
        events.map((event) => JSON.stringify(event.data)).join(),
      )
      for (const [id, seq] of store.sequences()) {
        const history = events.filter((event) => event.aggregateID === id)
        assert.deepEqual(store.read(id), history)
        const items = await collected(store.log({ aggregateID: id }))
        assert.deepEqual(items, [
          ...history.map((event) => ({ kind: "event", event })),
          { kind: "synced", aggregateID: id, seq },
        ])
      }
    })
  })
}

describe("mistake 13: a session whose tool output was sent whole on each chunk", () => {
  const input = buildOutputBytes()

  for (const [language, validate] of [
    ["js", "always"],
    ["sql", "always"],
    ["sql", "never"],
  ]) {
    test(`24 MB of bytes replay, twice, into the same tables (${language}, validate: "${validate}")`, () => {
      // Packing would move rows between the two looks at them.
      const store = openSessions(file(), { language, validate, packing: false })
      const [result, ...others] = store.replayAll(input)
      assert.deepEqual(others, [])
      assert.deepEqual({ ...result, aggregateID: "" }, { aggregateID: "", applied: 1_844, duplicate: 0, seq: 1_843 })
      const before = dump(store)
      assert.deepEqual(store.replayAll(input), [{ ...result, applied: 0, duplicate: 1_844 }])
      assert.deepEqual(dump(store), before)
      assert.equal(store.db.pragma("integrity_check", { simple: true }), "ok")
      const recorded = Buffer.from(input).toString().trimEnd().split("\n")
      const { aggregateID } = result
      const read = store.read(aggregateID)
      assert.equal(read.length, recorded.length)
      recorded.forEach((line, seq) =>
        assert.equal(JSON.stringify(read[seq].data), JSON.stringify(JSON.parse(line).data)),
      )
    })
  }
})
