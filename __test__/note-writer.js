"use strict"

// Writes notes into one file, as a worker thread or a process of its own, and tells of each only once run has returned it.
// Told to by `wait`, it first says "ready" and waits for a word; by `hold`, it stops inside an open transaction.

const { readSync, writeSync } = require("node:fs")
const { isMainThread, parentPort, workerData } = require("node:worker_threads")
const { openNotes } = require("./notes")

const settings = isMainThread ? JSON.parse(process.argv[2]) : workerData
const { path, writer, runs, aggregates, wait = false, hold = false, textBytes = 0, gate } = settings

// Unbuffered: what was told cannot be lost with the process. On a pipe of its own: node:test, which ./notes loads, makes
// stdout one that refuses to be written when it is full.
function tell(message) {
  if (isMainThread) return writeSync(3, `${JSON.stringify(message)}\n`)
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads has no origin
  return parentPort.postMessage(message)
}

if (wait) {
  tell("ready")
  if (isMainThread) readSync(0, Buffer.alloc(1))
  else Atomics.wait(new Int32Array(gate), 0, 0)
}
const { store, Written } = openNotes(path)
for (let n = 0; n < runs; n++) {
  const noteID = `note ${n % aggregates}`
  const event = store.run(Written, { noteID, text: `${writer} ${n}`.padEnd(textBytes, ".") })
  tell([noteID, event.seq, event.id])
}
if (hold) {
  store.transaction(() => {
    store.run(Written, { noteID: "held" })
    tell("held")
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000)
  })
}
store.close()
tell("done")
