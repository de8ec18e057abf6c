// A tenth of 10,000 live sessions and of 1,000 readers of one session in a hundred each: what does it cost three servers and the
// readers, and how long does an event take? docs/cluster.md computes the whole from it.
import { fork } from "node:child_process"
import path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { startCluster, startRelay } from "./cluster.mjs"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { payload } from "./workload.mjs"

const SESSIONS = 1_000
const READERS = 100
/** Sessions of each reader: one in a hundred, or with 100 as many readers of each session as the whole would have. */
const OWN = Number(process.env.SYNCLINE_BENCH_OWN ?? SESSIONS / 100)
const SECONDS = 10
const RATE = Number(process.env.SYNCLINE_BENCH_RATE ?? 200)

let cluster
let opened
let relaying
let child
const heard = new Map()
let wake = () => {}

let answer
function ask() {
  child.send("usage")
  return new Promise((resolve) => (answer = resolve))
}

const side = {
  name: `${RATE} events a second`,
  syncline: true,
  units: 1,
  async open(directory) {
    cluster = await startCluster()
    opened = syncline.open(path.join(directory, "writer.db"), { projectors: syncline.sqlProjector() })
    for (let n = 0; n < SESSIONS; n++) opened.run(payload(n, `session-${n}`))
    const began = performance.now()
    relaying = await startRelay(opened.store, await cluster.connect(), "sizing")
    console.log(`relay live with ${SESSIONS} sessions after ${Math.round(performance.now() - began)} ms`)
    const script = fileURLToPath(new URL("cluster-sizing.child.mjs", import.meta.url))
    child = fork(script, ["sizing", READERS, OWN, SESSIONS, ...cluster.urls].map(String))
    let isLive
    const live = new Promise((resolve) => (isLive = resolve))
    child.on("message", ({ told = [], live: after, ...usage }) => {
      if (after !== undefined) isLive(after)
      if (usage.cpu !== undefined) answer(usage)
      for (const [id, seq, at] of told) heard.set(`${id} ${seq}`, at)
      wake()
    })
    console.log(`${READERS} readers live after ${Math.round(await live)} ms`)
  },
  async sample() {
    const before = { servers: cluster.cpu(), readers: await ask(), own: process.cpuUsage() }
    const began = new Map()
    const started = performance.now()
    for (let n = 0; n < RATE * SECONDS; n++) {
      const at = performance.timeOrigin + performance.now()
      const { aggregateID: id, seq } = opened.run(payload(n, `session-${(n * 7) % SESSIONS}`))
      began.set(`${id} ${seq}`, at)
      const due = started + ((n + 1) * 1000) / RATE
      if (due > performance.now()) await pause(due - performance.now())
    }
    while ([...began.keys()].some((key) => !heard.has(key))) await new Promise((resolve) => (wake = resolve))
    const after = await ask()
    const micro = ({ user, system }) => user + system
    const events = RATE * SECONDS
    const times = [...began].map(([key, at]) => heard.get(key) - at).toSorted((one, other) => one - other)
    heard.clear()
    const more = {
      p99: times[Math.floor(times.length * 0.99)],
      "servers' µs/event": ((cluster.cpu() - before.servers) * 1e6) / events,
      "readers' µs/event": (micro(after.cpu) - micro(before.readers.cpu)) / events,
      "writer's µs/event": micro(process.cpuUsage(before.own)) / events,
      "servers' MB": Math.max(...cluster.memory()) / 1e6,
      "readers' MB": after.memory / 1e6,
    }
    return { figure: times[Math.floor(times.length / 2)], more }
  },
  async close() {
    child.disconnect()
    await relaying.stop()
    opened.close()
  },
}

try {
  await measure({
    question: "cluster-sizing",
    title: `from run to one of ${READERS} readers of ${OWN} of ${SESSIONS} sessions each, three servers`,
    unit: "ms",
    rounds: 3,
    warmup: 1,
    sides: [side],
  })
} finally {
  await cluster?.close()
}
