"use strict"

// By code: what a client says of an answer that is none, for the suite of errors.

const { once } = require("node:events")
const http = require("node:http")
const { follow } = require("syncline/http")

/** Pairs as in the suite: the fields that the error must have, and what throws it. `open` makes a store. */
function unanswered(open) {
  return {
    ERR_UNREACHABLE: [
      { cause: (cause) => cause instanceof Error, message: /GET http:.*sync-events: .*(ECONN|refused)/ },
      async () => {
        // Nobody has been given this port since.
        const gone = http.createServer()
        await once(gone.listen(0, "127.0.0.1"), "listening")
        const { port } = gone.address()
        await new Promise((resolve) => gone.close(resolve))
        let waits
        const first = new Promise((resolve) => (waits = resolve))
        const onStatus = (status, { error }) => status === "waiting" && waits(error)
        const stop = new AbortController()
        const ended = follow(open(), { url: `http://127.0.0.1:${port}`, onStatus, signal: stop.signal })
        const error = await first
        stop.abort()
        await ended
        throw error
      },
    ],
    ERR_PROTOCOL: [
      { status: 200, message: /status 200 and text\/html, not with text\/event-stream/ },
      async () => {
        const server = http.createServer((_, response) => response.setHeader("content-type", "text/html").end("<p>"))
        await once(server.listen(0, "127.0.0.1"), "listening")
        try {
          await follow(open(), { url: `http://127.0.0.1:${server.address().port}` })
        } finally {
          server.closeAllConnections()
          server.close()
        }
      },
    ],
  }
}

module.exports = { unanswered }
