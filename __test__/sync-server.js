"use strict"

// Serves a log of notes as a process of its own, and tells its port. A word lets it write a note; it is killed by whoever
// started it.

const { writeSync } = require("node:fs")
const { serve } = require("@hono/node-server")
const { syncRoutes } = require("syncline/http")
const { openNotes } = require("./notes")

const { path, noteIDs } = JSON.parse(process.argv.at(-1))
const { store, Written } = openNotes(path)
const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)

let written = 0
process.stdin.on("data", (words) => {
  for (const _ of words) store.run(Written, { noteID: noteIDs[written % noteIDs.length], text: `${written++}` })
})
const routes = syncRoutes(store, { authorize: "none" })
serve({ fetch: routes.fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) => tell({ port }))
