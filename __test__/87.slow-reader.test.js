"use strict"

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { test } = require("node:test")
const { endOf, say, start, untilTold } = require("./children")
const { openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
const MIB = 2 ** 20

/** Writes events of one note, and tells of the WAL's largest size and of how long its transactions took. */
const WRITER = `
  const { statSync } = require("node:fs")
  const times = []
  let wal = 0
  for (let n = 0; n < settings.events; n += settings.batch) {
    const events = Array.from({ length: settings.batch }, (_, k) => [Written, { noteID: "a", text: "event " + (n + k) }])
    const started = performance.now()
    store.runAll(events)
    times.push(performance.now() - started)
    wal = Math.max(wal, statSync(path + "-wal").size)
  }
  times.sort((a, b) => a - b)
  const at = (share) => Number(times[Math.floor(share * (times.length - 1))].toFixed(2))
  tell({ wal, p50: at(0.5), p99: at(0.99), longest: at(1) })
  store.close()
`

/**
 * Follows that note: quickly through what was there before, to be warm, then one event each 200 ms. Before each it tells
 * what its process has in memory. A word ends it.
 */
const FOLLOWER = `
  const { setTimeout: pause } = require("node:timers/promises")
  const controller = new AbortController()
  onWord(() => controller.abort());
  (async () => {
    let slow = false
    let given = 0
    for await (const item of store.log({ aggregateID: "a", follow: true, signal: controller.signal })) {
      slow ||= item.kind === "synced"
      if (item.kind === "event" && item.event.seq !== given++) throw new Error("event " + item.event.seq + " at " + given)
      if (!slow) continue
      gc()
      tell({ given, rss: process.memoryUsage.rss() })
      if (item.kind === "event") await pause(200)
    }
    store.close()
  })()
`

test(
  "issue 3: one event each 200 ms while 200,000 are written: within 30 MB of idle, the WAL under its limit",
  { timeout: 180_000 },
  async (t) => {
    const path = join(folder, "slow.db")
    const batch = 100
    openNotes(path).store.close()
    const [alone] = await endOf(start(WRITER, { path, batch, events: 20_000 }))
    const follower = start(FOLLOWER, { path }, ["--expose-gc"])
    await untilTold(follower, 1)
    const [beside] = await endOf(start(WRITER, { path, batch, events: 200_000 }))
    // A machine that has written all that in a moment lets it read on for a while.
    await untilTold(follower, 16)
    say(follower)
    const [{ rss: idle }, ...later] = await endOf(follower)
    const most = Math.max(...later.map(({ rss }) => rss))
    const mib = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`
    t.diagnostic(`the reader had ${mib(idle)} idle and at most ${mib(most)}, at ${later.length} of the events`)
    t.diagnostic(`a writer's transaction alone: ${JSON.stringify(alone)}, beside the reader: ${JSON.stringify(beside)}`)
    assert.ok(most - idle < 30e6, `${mib(most - idle)} more than idle`)
    // The hard bound and one transaction.
    assert.ok(beside.wal < 66 * MIB, `the WAL had ${mib(beside.wal)}`)
  },
)
