"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { z } = require("zod")
const { createRegistry, define, project } = require("syncline")
const { follow } = require("syncline/http")
const { coded, collected, file, history, noteRows, notes, openNotes, serialized, tagRows } = require("./stores.js")
const { following, logs, proxying, serving, until, untilEqual } = require("./sync-servers.js")

let files = 0

/** A store with notes to follow, and one that is empty, each with definitions of its own. */
function pair(options = {}) {
  const open = (more) => {
    const given = notes()
    const store = openNotes(given, { path: file(`${files++}.db`), ...more })
    return { ...given, store, write: (noteID, text = noteID) => store.run(given.Written, { noteID, text }) }
  }
  const writer = open({})
  const reader = open(options)
  return { writer, reader }
}

describe("follow", () => {
  test("catches up, goes on live, and says so in this order", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll([...history("a", 30), ...history("b", 5)])
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    assert.deepEqual(logs(reader.store), logs(writer.store), "live is said once caught up")
    writer.write("a")
    writer.write("c")
    await untilEqual(reader.store, writer.store)
    assert.deepEqual(noteRows(reader.store), noteRows(writer.store))
    assert.deepEqual(tagRows(reader.store), tagRows(writer.store))
    await one.stop()
    assert.deepEqual(one.statuses, ["connecting", "catching-up", "live", "stopped"])
    assert.deepEqual(one.settled, { resolved: true })
    assert.deepEqual(one.errors, [])
  })

  test("goes on where the store stands, and says the same of an empty server", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll(history("a", 10))
    reader.store.replayAll(history("a", 4))
    const { url } = await serving(writer.store)
    await following(reader.store, { url }).live()
    assert.deepEqual(logs(reader.store), logs(writer.store))
    const empty = await serving(pair().writer.store)
    const one = following(reader.store, { url: empty.url })
    await one.live()
    assert.equal(reader.store.sequence("a"), 9)
  })

  test("listeners hear of what was applied with publish alone, each event once", async () => {
    for (const publish of [undefined, true]) {
      const { writer, reader } = pair()
      writer.store.replayAll(history("a", 3))
      const { url } = await serving(writer.store)
      const heard = []
      reader.store.subscribeAll(({ aggregateID, seq }) => heard.push(`${aggregateID}${seq}`))
      const one = following(reader.store, { url, publish })
      await one.live()
      writer.write("a")
      writer.write("b")
      await untilEqual(reader.store, writer.store)
      await one.stop()
      assert.deepEqual(heard, publish ? ["a0", "a1", "a2", "a3", "b0"] : [])
    }
  })

  test("of many aggregates, the wanted ones alone", async () => {
    const { writer } = pair()
    const all = Array.from({ length: 150 }, (_, n) => `note ${n}`)
    writer.store.replayAll(all.flatMap((noteID) => history(noteID, 2)))
    const { url } = await serving(writer.store)
    // The server filters few; more, and long names, are filtered here.
    const long = "note with a name of four thousand bytes ".repeat(100)
    for (const aggregates of [["note 7"], ["note 7", long, "new"], new Set([...all.slice(0, 120), "new"]), []]) {
      const { reader } = pair()
      const one = following(reader.store, { url, aggregates })
      await one.live()
      for (const noteID of ["new", "note 7", "note 149"]) writer.write(noteID)
      const wanted = writer.store.aggregates().filter(({ aggregateID }) => [...aggregates].includes(aggregateID))
      await until(() => reader.store.aggregates().length === wanted.length)
      await until(() => wanted.every(({ aggregateID, seq }) => reader.store.sequence(aggregateID) === seq))
      await one.stop()
      assert.deepEqual(
        reader.store.aggregates().map(({ aggregateID }) => aggregateID),
        wanted.map(({ aggregateID }) => aggregateID),
      )
    }
  })

  test("owner and epoch are those of the replay", async () => {
    const { writer, reader } = pair()
    writer.write("a")
    const { url } = await serving(writer.store)
    await following(reader.store, { url, owner: "desktop", epoch: 4 }).live()
    assert.deepEqual(reader.store.owner("a"), { owner: "desktop", epoch: 4 })
  })

  test("the token is sent, the path of the url is kept", async () => {
    const { writer, reader } = pair()
    writer.write("a")
    const { url } = await serving(writer.store, { authorize: { token: "open sesame".replace(" ", "-") } })
    await following(reader.store, { url: new URL(`${url}/`), token: "open-sesame" }).live()
    assert.equal(reader.store.sequence("a"), 0)
    await assert.rejects(follow(reader.store, { url: `${url}/prefix`, token: "open-sesame" }), coded("ERR_NOT_FOUND"))
  })

  test("aggregates with strange names are followed, too", async () => {
    const { writer, reader } = pair()
    const ids = ["__proto__", "constructor", "1", 'quo"te', "new\nline", "größer 🙂", "a&b=c", "%20"]
    for (const noteID of ids) writer.write(noteID)
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url, aggregates: ids })
    await one.live()
    for (const noteID of ids) writer.write(noteID, "line\u2028\r\nend")
    await untilEqual(reader.store, writer.store)
    assert.deepEqual(noteRows(reader.store), noteRows(writer.store))
  })

  test("what this program does not know is parked or recorded", async () => {
    const { writer } = pair()
    const registry = createRegistry()
    const schema = z.looseObject({ noteID: z.string() })
    define({ type: "note.written", version: 1, aggregate: "noteID", schema, registry, projector: "none" })
    writer.store.replayAll([...history("a", 3), serialized("written", 0, { noteID: "b", text: "b" })])
    const { url } = await serving(writer.store)
    for (const unknown of [undefined, "record"]) {
      const reader = openNotes({ registry, projectors: [] }, { path: file(`${files++}.db`), migrate: () => {} })
      const one = following(reader, { url, unknown })
      await one.live()
      await one.stop()
      const seqs = Object.fromEntries(reader.sequences())
      if (unknown === "record") assert.deepEqual([seqs, one.errors], [{ a: 2, b: 0 }, []])
      else {
        assert.deepEqual(seqs, { a: 0, b: 0 })
        assert.equal(one.errors.length, 1)
        assert.equal(one.errors[0].aggregateID, "a")
        coded("ERR_UNKNOWN_EVENT", /./, { seq: 1 })(one.errors[0].error)
      }
      reader.close()
    }
  })

  test("is ended by its signal, before it begins as well, and by the store's end", async () => {
    const { writer, reader } = pair()
    const { url } = await serving(writer.store)
    const aborted = following(reader.store, { url, signal: AbortSignal.abort() })
    await aborted.ended
    assert.deepEqual(aborted.statuses, ["stopped"])
    const one = following(reader.store, { url })
    await one.live()
    reader.store.close()
    await one.ended
    assert.deepEqual(one.statuses.slice(-2), ["live", "stopped"])
    await assert.rejects(follow(reader.store, { url }), coded("ERR_CLOSED"))
  })
})

describe("what events cannot say", () => {
  test("gaps and removals reach a reader who was away", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll([...history("a", 3), ...history("b", 3), ...history("c", 3), ...history("d", 2)])
    reader.store.replayAll([...history("b", 3), ...history("c", 2)])
    writer.store.replayAll([{ kind: "gap", aggregateID: "a", after: 2, through: 9 }, ...history("a", 1, 10)])
    writer.store.remove("b")
    writer.store.remove("c", { event: [writer.Seen, { noteID: "c" }] })
    writer.write("c")
    const { url } = await serving(writer.store)
    await following(reader.store, { url }).live()
    for (const aggregateID of ["a", "b", "c", "d"]) {
      const log = (store) => collected(store.log({ aggregateID }))
      assert.deepEqual(await log(reader.store), await log(writer.store))
    }
  })

  test("and one who is live, before the events after them", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll(["a", "b", "c"].flatMap((noteID) => history(noteID, 3)))
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    writer.store.transaction(() => {
      writer.store.replayAll([{ kind: "gap", aggregateID: "a", after: 2, through: 9 }, ...history("a", 1, 10)])
      writer.store.remove("b")
      writer.write("b")
      writer.store.remove("c", { event: [writer.Seen, { noteID: "c" }] })
    })
    await until(() => ["a", "b", "c"].every((id) => reader.store.sequence(id) === writer.store.sequence(id)))
    await until(() => reader.store.read("b").length === 1)
    for (const aggregateID of ["a", "b", "c"]) {
      const log = (store) => collected(store.log({ aggregateID }))
      assert.deepEqual(await log(reader.store), await log(writer.store))
    }
    assert.deepEqual(one.errors, [])
  })
})

describe("an aggregate that cannot be applied", () => {
  test("is parked and reported once, others go on, and it is tried again with the next connection", async () => {
    let broken = true
    const given = notes()
    const { writer } = pair()
    given.projectors[0] = project(given.Written, (_, data, { seq }) => {
      if (broken && data.noteID === "bad" && seq >= 3) throw new Error("no room for bad ones")
    })
    const reader = openNotes(given, { path: file(`${files++}.db`) })
    writer.store.replayAll([...history("bad", 2_000), ...history("good", 3)])
    const { port } = await serving(writer.store)
    const proxy = await proxying()
    proxy.to = port
    const one = following(reader, { url: proxy.url })
    await one.live()
    assert.deepEqual(Object.fromEntries(reader.sequences()), { bad: 2, good: 2 })
    for (let n = 0; n < 5; n++) for (const noteID of ["bad", "good"]) writer.write(noteID)
    await until(() => reader.sequence("good") === 7)
    const reconnected = async () => {
      const before = one.statuses.length
      proxy.cut()
      await one.live(before)
    }
    await reconnected()
    assert.equal(reader.sequence("bad"), 2)
    assert.deepEqual(
      one.errors.map(({ error, aggregateID }) => [error.message, aggregateID]),
      [["no room for bad ones", "bad"]],
    )
    broken = false
    await reconnected()
    assert.equal(reader.sequence("bad"), writer.store.sequence("bad"))
    writer.write("bad")
    await until(() => reader.sequence("bad") === writer.store.sequence("bad"))
    broken = true
    writer.write("bad")
    await until(() => one.errors.length === 2)
    assert.equal(one.errors[1].aggregateID, "bad")
  })

  test("two histories of one aggregate are reported; the reader's own is kept", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll(history("a", 2))
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    const own = reader.write("a", "my own")
    writer.write("a")
    writer.write("a")
    writer.write("b")
    await until(() => reader.store.sequence("b") === 0)
    assert.equal(reader.store.get("a", 2).id, own.id)
    assert.equal(one.errors.length, 1)
    coded("ERR_REPLAY_DIVERGED", /./, { aggregateID: "a", seq: 2 })(one.errors[0].error)
  })

  test("two histories are found out also where the reader wrote on while it was away", async () => {
    const { writer, reader } = pair()
    for (const { store } of [writer, reader]) store.replayAll(history("a", 2))
    const own = reader.write("a", "my own")
    writer.write("a")
    writer.write("a")
    writer.write("b")
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    assert.deepEqual([reader.store.sequence("a"), reader.store.sequence("b")], [2, 0])
    assert.equal(reader.store.get("a", 2).id, own.id)
    assert.equal(one.errors.length, 1)
    coded("ERR_REPLAY_DIVERGED", /./, { aggregateID: "a", seq: 2 })(one.errors[0].error)
  })

  test("mistake 7: what the server cannot read is parked and reported, others go on", async () => {
    const { writer, reader } = pair()
    writer.store.replayAll([...history("a", 3), ...history("bad", 3), ...history("c", 2)])
    writer.store.db.exec("DELETE FROM event WHERE seq = 1 AND aggregate = 2")
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    assert.deepEqual([...reader.store.sequences()].toSorted(), [
      ["a", 2],
      ["c", 1],
    ])
    assert.equal(one.errors.length, 1)
    coded("ERR_CORRUPT", /The server cannot read aggregate "bad" any further/, { aggregateID: "bad" })(
      one.errors[0].error,
    )
    writer.write("c")
    await until(() => reader.store.sequence("c") === 2)
    assert.equal(one.errors.length, 1)
  })

  test("one event that is too large refuses its aggregate, not what comes with it", async () => {
    const { writer, reader } = pair({ maxEventBytes: 100 })
    writer.store.replayAll(history("a", 2))
    writer.write("b", "x".repeat(200))
    writer.write("b")
    writer.store.replayAll(history("c", 2))
    const { url } = await serving(writer.store)
    const one = following(reader.store, { url })
    await one.live()
    writer.write("b", "x".repeat(300))
    writer.write("a")
    writer.write("d", "x".repeat(400))
    writer.write("c")
    await until(() => reader.store.sequence("c") === 2)
    assert.deepEqual(Object.fromEntries(reader.store.sequences()), { a: 2, c: 2 })
    assert.deepEqual(
      one.errors.map(({ error, aggregateID }) => [error.code, aggregateID]),
      [
        ["ERR_TOO_LARGE", "b"],
        ["ERR_TOO_LARGE", "d"],
      ],
    )
  })
})
