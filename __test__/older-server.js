"use strict"

// A server of the older kind: three routes, histories as one array, live events in frames among others, and a page with
// status 200 for every path that it does not know. It knows no compression, and answers what it refuses with a bare 500.

const { json, page, pretending } = require("./sync-servers.js")

async function olderServer() {
  /** The events of each aggregate. */
  const logs = new Map()
  const listeners = new Set()
  const tell = (data) => {
    for (const response of listeners) response.write(`data: ${JSON.stringify(data)}\n\n`)
  }

  function append(event) {
    const log = logs.get(event.aggregateID) ?? []
    if (event.seq < log.length) return
    if (event.seq > log.length) throw new Error("Sequence mismatch")
    logs.set(event.aggregateID, [...log, event])
    tell({ directory: "/home", payload: { type: "message.updated", properties: event.data } })
    tell({ directory: "/home", payload: { type: "sync", syncEvent: event } })
  }

  const routes = {
    "GET /global/event": (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      listeners.add(response)
      response.on("close", () => listeners.delete(response))
      tell({ payload: { type: "server.connected", properties: {} } })
    },
    "POST /sync/history": (held, response) => {
      const newer = [...logs.values()].flat().filter(({ aggregateID, seq }) => seq > (held[aggregateID] ?? -1))
      const rows = newer.map(({ id, aggregateID, seq, type, data }) => ({
        id,
        aggregate_id: aggregateID,
        seq,
        type,
        data,
      }))
      // All first ones, then all second ones.
      json(
        response,
        rows.toSorted((a, b) => a.seq - b.seq),
      )
    },
    "POST /sync/replay": ({ events }, response) => {
      if (events.some(({ aggregateID }) => aggregateID !== events[0].aggregateID)) throw new Error("Several aggregates")
      for (const event of events) append(event)
      json(response, { sessionID: events[0].aggregateID })
    },
  }

  const server = await pretending(({ path, body, request }, response) => {
    const route = routes[`${request.method} ${path}`]
    if (route === undefined) return page(response)
    try {
      route(body.length === 0 ? {} : JSON.parse(body), response)
    } catch {
      response.writeHead(500).end()
    }
  })
  return { ...server, logs, append, tell, listeners }
}

module.exports = { olderServer }
