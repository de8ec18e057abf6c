"use strict"

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { endOf, say, start, untilTold } = require("./children")
const { openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
let files = 0

/** A new file with Syncline's tables in it, and a store of this process. */
function newFile() {
  const path = join(folder, `${files++}.db`)
  return { path, ...openNotes(path) }
}

/** For a test that waits for processes: nothing but a hang reaches it. */
const timeout = 240_000

/** The life of a whole process: whatever process had nothing to wait for would have ended meanwhile. */
const aLifetime = (path) => endOf(start("", { path }))

describe("issue 3: what keeps a process alive", () => {
  test("issue 3: a listener of scope database does not, nor does what nobody pulls", { timeout }, async () => {
    const { path, store } = newFile()
    const program = `
      store.subscribeAll(() => {}, { scope: "database" })
      globalThis.unread = [store.stream(), store.changes(), store.log({ aggregateID: "a", follow: true })]
      const log = store.log({ aggregateID: "b", follow: true })
      log.next().then(({ value }) => tell(value.kind))
    `
    assert.deepEqual(await endOf(start(program, { path })), ["synced"])
    store.close()
  })

  test("issue 3: a pending next of a following log does, until it is aborted", { timeout }, async () => {
    const { path, store, Written } = newFile()
    const follower = start("note-follower.js", { path, after: { a: -1 } })
    await untilTold(follower, 1)
    for (let n = 0; n < 3; n++) {
      await aLifetime(path)
      store.run(Written, { noteID: "a" })
      await untilTold(follower, 2 + n)
    }
    await aLifetime(path)
    say(follower)
    await endOf(follower)
    store.close()
  })

  test("issue 3: a pending waitFor does, until it resolves", { timeout }, async () => {
    const { path, store, Written } = newFile()
    const waiting = start(`store.waitFor({ a: 1 }).then(() => tell("there")); tell("waiting")`, { path })
    await untilTold(waiting, 1)
    for (let n = 0; n < 2; n++) {
      await aLifetime(path)
      assert.deepEqual(waiting.told, ["waiting"])
      store.run(Written, { noteID: "a" })
    }
    assert.deepEqual(await endOf(waiting), ["waiting", "there"])
    store.close()
  })

  test("issue 3: nothing does once its store is closed", { timeout }, async () => {
    const { path, store } = newFile()
    const program = `
      store.subscribeAll(() => {}, { scope: "database" })
      const log = store.log({ aggregateID: "a", follow: true })
      const changes = store.changes()
      // Each of these two has one thing to give at once.
      Promise.all([log.next(), changes.next()]).then(() => {
        for (const pending of [log, changes, store.stream()]) pending.next().then(({ done }) => tell(done))
        store.waitFor({ a: 0 }).catch(({ code }) => tell(code))
        tell("waiting")
      })
      onWord(() => store.close())
    `
    const everything = start(program, { path })
    await untilTold(everything, 1)
    await aLifetime(path)
    say(everything)
    const [waiting, ...told] = await endOf(everything)
    assert.equal(waiting, "waiting")
    assert.deepEqual(told.map(String).toSorted(), ["ERR_CLOSED", "true", "true", "true"])
    store.close()
  })
})
