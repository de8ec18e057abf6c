"use strict"

// Follows each of some servers, as a process of its own, until it has come as far as named, and stops then. It tells when
// all that is done, and how long after that it took the process to have nothing left to wait for.

const { writeSync } = require("node:fs")
const { follow } = require("syncline/http")
const { openNotes } = require("./notes")

const { path, visits } = JSON.parse(process.argv.at(-1))
const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)

async function visit({ url, status, after = 0, close = false }) {
  const { store } = openNotes(path)
  const controller = new AbortController()
  const stop = () => (close ? store.close() : controller.abort())
  await follow(store, {
    url,
    signal: controller.signal,
    onStatus: (now) => now === status && setTimeout(stop, after),
    backoff: { initial: 600_000, longest: 600_000 },
  })
  store.close()
}

async function main() {
  for (const one of visits) await visit(one)
  const done = performance.now()
  process.on("exit", () => tell({ left: performance.now() - done }))
}

main()
