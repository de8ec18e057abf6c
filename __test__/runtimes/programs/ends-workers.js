"use strict"

// Ends workers that have the write lock, in each way that there is, and says of each whether the lock came back. One that is
// "idle" waits for messages in an open transaction, one that is "busy" has a projector that never returns.

const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads")
const { openNotes } = require("./store.js")

/** Milliseconds after which a lock does not come back any more. */
const PATIENCE = 3_000

if (isMainThread) void main(process.argv.at(-2), process.argv.at(-1).split(","))
else holding(workerData)

async function main(path, ways) {
  const { store, Written } = openNotes(path)
  for (const way of ways) {
    const worker = new Worker(__filename, { workerData: { path, way } })
    const ended = new Promise((resolve) => worker.once("exit", resolve))
    worker.on("error", () => {})
    await new Promise((resolve) => worker.once("message", resolve))
    await (way === "throws" || way === "exits" ? ended : worker.terminate())
    const signal = AbortSignal.timeout(PATIENCE)
    const [done] = await Promise.allSettled([store.runAsync(Written, { noteID: "main" }, { signal })])
    console.log(JSON.stringify({ way, outcome: done.status }))
  }
  // A worker that is still busy would keep the process alive.
  process.exit(0)
}

function holding({ path, way }) {
  const hold = () => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads has no origin
    parentPort.postMessage("held")
    if (way === "busy") for (;;) continue
  }
  const { store, Held } = openNotes(path, { inProjector: hold })
  if (way === "busy") store.run(Held, { noteID: "worker" })
  store.db.exec("BEGIN IMMEDIATE")
  hold()
  if (way === "exits") process.exit(0)
  setTimeout(() => {
    if (way === "throws") throw new Error("as it should")
  }, 10)
  parentPort.on("message", () => {})
}
