"use strict"

// One of many processes that `contenders.js` starts: it does what it is told to at the same moment as the others, and says
// how long that took, from that moment on.

const { monitorEventLoopDelay, performance } = require("node:perf_hooks")
const { openNotes } = require("./notes")

const moment = new Int32Array(new SharedArrayBuffer(4))
const tell = (message) => process.send(message)
const milliseconds = (nanoseconds) => nanoseconds / 1e6

/** Waits, without leaving anything to the event loop, until such a time of the clock that all processes share. */
function sleepUntil(at) {
  const left = at - Date.now()
  if (left > 0) Atomics.wait(moment, 0, 0, left)
}

const works = {
  /** Writes so many notes, half of them on aggregates that all write, the others on one of its own. */
  async write({ at, path, writer, runs, shared, waiting, options }) {
    const { store, Written } = openNotes(path, options)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    sleepUntil(at)
    delay.enable()
    const [told, calls] = [[], []]
    for (let n = 0; n < runs; n++) {
      const data = {
        noteID: n % 2 === 0 ? `shared ${(n / 2 + writer) % shared}` : `own ${writer}`,
        text: `${writer} ${n}`,
      }
      const start = performance.now()
      const event = waiting ? await store.runAsync(Written, data) : store.run(Written, data)
      calls.push(performance.now() - start)
      told.push([event.aggregateID, event.seq, event.id])
    }
    const lasted = Date.now() - at
    delay.disable()
    store.close()
    return {
      told,
      calls,
      lasted,
      waiting,
      delay: { p99: milliseconds(delay.percentile(99)), max: milliseconds(delay.max) },
    }
  },

  /** Holds the lock for so long, several times, and writes each time. */
  async hold({ at, path, times, lasting }) {
    const { store, Written } = openNotes(path)
    sleepUntil(at)
    const told = []
    for (let n = 0; n < times; n++) {
      store.transaction(() => {
        const event = store.run(Written, { noteID: "held", text: `${n}` })
        told.push([event.aggregateID, event.seq, event.id])
        Atomics.wait(moment, 0, 0, lasting)
      })
    }
    const lasted = Date.now() - at
    store.close()
    return { told, lasted }
  },

  /** Opens a file that may not be there yet, changes its schema once, and writes. */
  async open({ at, path, writer, options }) {
    let migrated = false
    const migrate = (db) => {
      if (db.pragma("user_version", { simple: true }) === 1) return
      migrated = true
      db.exec("CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT, writes INTEGER NOT NULL); PRAGMA user_version = 1")
    }
    sleepUntil(at)
    const { store, Written } = openNotes(path, { ...options, migrate })
    const opened = Date.now() - at
    const event = store.run(Written, { noteID: "first", text: `${writer}` })
    const adopted = store.adopted?.events
    store.close()
    return { told: [[event.aggregateID, event.seq, event.id]], lasted: opened, migrated, adopted }
  },
}

process.on("message", ({ work, ...settings }) => {
  works[work](settings).then(
    (done) => tell({ done }),
    (error) => tell({ failed: `${error.stack}` }),
  )
})
tell({ ready: true })
