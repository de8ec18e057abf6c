"use strict"

// Follows notes of one file and replays them into another in the name of whoever wrote them, in the epoch that they wrote in.
// In between it replays what must be refused: what was written in an epoch that is over, as if it came late.

const assert = require("node:assert/strict")
const { writeSync } = require("node:fs")
const { openNotes } = require("./notes.js")
const { random } = require("./soak.js")

async function read({ from, path, ids, seed }) {
  const numbers = random(seed)
  const tell = (...message) => writeSync(3, `${JSON.stringify(message)}\n`)
  const { store: source } = openNotes(from, { readonly: true })
  const { store } = openNotes(path)
  const refused = (items, authority, what) => {
    const before = [items[0].aggregateID, store.sequence(items[0].aggregateID), store.owner(items[0].aggregateID)]
    assert.throws(() => store.replayAll(items, authority), { code: "ERR_NOT_OWNER" })
    assert.deepEqual([items[0].aggregateID, store.sequence(before[0]), store.owner(before[0])], before)
    tell("refused", what)
  }

  async function follow(aggregateID) {
    const older = []
    for await (const { kind, event } of source.log({ aggregateID, follow: true })) {
      if (kind !== "event") continue
      const { by: owner, epoch } = event.data
      store.replayAll([event], { owner, epoch })
      assert.deepEqual(store.owner(aggregateID), { owner, epoch })
      tell("read", aggregateID, event.seq)
      const last = older.at(-1)
      if (last?.data.epoch !== epoch || numbers.chance(0.05)) older.push(event)
      if (!numbers.chance(0.3)) continue
      const late = numbers.one(older)
      const authority = { owner: late.data.by, epoch: late.data.epoch }
      if (late.data.epoch === epoch) {
        store.replayAll([late], authority)
        const [other] = older.filter(({ data }) => data.by !== owner)
        if (other !== undefined) refused([event], { owner: other.data.by, epoch }, "another owner of the same epoch")
        continue
      }
      // A duplicate, and one that its writer recorded after it had lost the note.
      refused([late], authority, "a duplicate of an epoch that is over")
      const seq = event.seq + 1
      refused([{ ...late, id: `late ${seq}`, seq, data: late.data }], authority, "an event of an epoch that is over")
    }
  }

  process.stdin.once("data", () => {
    process.stdin.unref()
    source.close()
  })
  await Promise.all(ids.map(follow))
  store.close()
}

if (require.main === module) void read(JSON.parse(process.argv[2]))
