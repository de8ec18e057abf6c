// What does an event of 8 KiB cost a server with 1, 10 and 50 followers, and what of that is encoding it? And does one that
// does not read change anything for the others?
import { fork } from "node:child_process"
import { once } from "node:events"
import http from "node:http"
import path from "node:path"
import { fileURLToPath } from "node:url"
import { measure } from "./harness.mjs"

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

function side(name, followers, stalled = 0) {
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
      const [{ time, cpu, encoding }] = await once(child, "message")
      for (const { end } of all) end()
      return { figure: time / EVENTS, more: { "server CPU": cpu / EVENTS, encoding: encoding / EVENTS } }
    },
    close() {
      child.send("end")
    },
  }
}

await measure({
  question: "sync-fanout",
  title:
    "an event of 8 KiB, from the commit until every follower has it; the server's processor time, and encoding's part",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [
    side("1 follower", 1),
    side("10 followers", 10),
    side("50 followers", 50),
    side("50 followers, and one that does not read", 50, 1),
  ],
  targets: [{ side: "50 followers, and one that does not read", against: "50 followers", atMost: 1.1 }],
})
