// How long is it from `run` on one machine until the event is in the tables of another, through three servers that each write
// it? Both are processes of this machine, so that one clock measures it.
import { fork } from "node:child_process"
import { once } from "node:events"
import path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { startCluster, startRelay } from "./cluster.mjs"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { aggregateID, payload } from "./workload.mjs"

const EVENTS = 300

let cluster
let opened
let child
let relaying
const heard = new Map()
let wake = () => {}

const side = {
  name: "run to applied",
  syncline: true,
  units: 1,
  async open(directory) {
    cluster = await startCluster()
    opened = syncline.open(path.join(directory, "writer.db"), { projectors: syncline.sqlProjector() })
    relaying = await startRelay(opened.store, await cluster.connect(), "latency")
    const script = fileURLToPath(new URL("cluster-latency.child.mjs", import.meta.url))
    child = fork(script, [path.join(directory, "reader.db"), "latency", ...cluster.urls])
    child.on("message", ({ aggregateID: id, seq, at }) => {
      if (id !== undefined) heard.set(`${id} ${seq}`, at)
      wake()
    })
    await once(child, "message")
  },
  async sample() {
    const times = []
    for (let n = 0; n < EVENTS; n++) {
      const began = performance.timeOrigin + performance.now()
      const { aggregateID: id, seq } = opened.run(payload(n, aggregateID(n % 50)))
      while (!heard.has(`${id} ${seq}`)) await new Promise((resolve) => (wake = resolve))
      times.push(heard.get(`${id} ${seq}`) - began)
      heard.clear()
      await pause(2)
    }
    times.sort((one, other) => one - other)
    return { figure: times[EVENTS / 2], more: { p99: times[Math.floor(EVENTS * 0.99)] } }
  },
  async close() {
    child.disconnect()
    await relaying.stop()
    opened.close()
  },
}

try {
  await measure({
    question: "cluster-latency",
    title: `from run to another process's tables through three servers, median of ${EVENTS} events one at a time`,
    unit: "ms",
    rounds: 7,
    warmup: 1,
    sides: [side],
  })
} finally {
  await cluster?.close()
}
