"use strict"

// Follows the logs of several notes as a process of its own, and tells of each item when it was given it: the note, then
// seq and id of an event, or what else it was. `after` names the logs, and the seq after which each goes on. A word ends it.

const { writeSync } = require("node:fs")
const { open } = require("syncline")

const { path, after, readonly = false } = JSON.parse(process.argv[2])
// Whoever only reads needs no definitions.
const store = open(path, { readonly })
const controller = new AbortController()
process.stdin.once("data", () => controller.abort()).unref()

const tell = (...message) => writeSync(3, `${JSON.stringify(message)}\n`)

async function follow(aggregateID) {
  const log = store.log({ aggregateID, after: after[aggregateID], follow: true, signal: controller.signal })
  for await (const item of log) {
    if (item.kind === "event") tell(aggregateID, item.event.seq, item.event.id)
    else tell(aggregateID, `${item.kind} ${item.seq ?? item.through}`, ...(item.event ? [item.event.id] : []))
  }
}

Promise.all(Object.keys(after).map(follow)).then(() => store.close())
