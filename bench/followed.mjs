// A server with followers, each a connection of its own, for what an event of 8 KiB costs it.
import { fork } from "node:child_process"
import { once } from "node:events"
import http from "node:http"
import path from "node:path"
import { fileURLToPath } from "node:url"

const EVENTS = 1_000

/** A follower that counts what it is sent. `stalls`: it reads nothing after the head. */
async function follower(url, stalls) {
  const request = http.get(`${url}/sync-events`, { agent: false })
  const [response] = await once(request, "response")
  response.on("error", () => {})
  if (stalls) return { live: Promise.resolve(), received: Promise.resolve(), end: () => request.destroy() }
  let events = 0
  let tail = ""
  let isLive
  let isDone
  const live = new Promise((resolve) => (isLive = resolve))
  const received = new Promise((resolve) => (isDone = resolve))
  response.setEncoding("latin1").on("data", (chunk) => {
    const text = tail + chunk
    if (text.includes("event: synced")) isLive()
    for (let at = text.indexOf('\ndata: {"id"'); at >= 0; at = text.indexOf('\ndata: {"id"', at + 1)) events++
    tail = text.slice(-12)
    if (events >= EVENTS) isDone()
  })
  return { live, received, end: () => request.destroy() }
}

/**
 * A side of a question: `followers` that read, and `stalled` ones that do not. Its figure is the time by the clock, or what
 * `figure` picks of `{time, cpu, encoding}`, in microseconds an event.
 */
export function followed(name, followers, { stalled = 0, figure = "time" } = {}) {
  let child
  let url
  return {
    name,
    syncline: true,
    units: EVENTS,
    async open(directory) {
      child = fork(fileURLToPath(new URL("sync-fanout.child.mjs", import.meta.url)), [path.join(directory, "app.db")])
      url = (await once(child, "message"))[0].url
    },
    async sample() {
      const all = await Promise.all(Array.from({ length: followers + stalled }, (_, n) => follower(url, n < stalled)))
      await Promise.all(all.map(({ live }) => live))
      child.send({ events: EVENTS })
      await Promise.all(all.map(({ received }) => received))
      child.send("received")
      const [spent] = await once(child, "message")
      for (const { end } of all) end()
      const { cpu, encoding } = spent
      return { figure: spent[figure] / EVENTS, more: { "server CPU": cpu / EVENTS, encoding: encoding / EVENTS } }
    },
    close() {
      child.send("end")
    },
  }
}
