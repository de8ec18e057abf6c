"use strict"

// Serves the routes with Bun's own server, and tells its address. Its arguments: the path, the heartbeat, the idle timeout.

const { syncRoutes } = require("syncline/http")
const { openNotes } = require("./store.js")

const [path, heartbeat, idleTimeout] = process.argv.slice(-3)
const { store, Written } = openNotes(path)
store.run(Written, { noteID: "a" })
const { fetch } = syncRoutes(store, { authorize: "none", heartbeat: Number(heartbeat) })
const server = globalThis.Bun.serve({ fetch, hostname: "127.0.0.1", port: 0, idleTimeout: Number(idleTimeout) })
console.log(JSON.stringify({ url: `http://127.0.0.1:${server.port}` }))
