// The processes that `foreign-latency` starts for each round: the one that listens, which prints its percentiles as JSON,
// and the one that writes, which the first one starts.
import { fork } from "node:child_process"
import { once } from "node:events"
import fs from "node:fs"
import path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { temporaryDirectory } from "./harness.mjs"
import { aggregateID, payload } from "./workload.mjs"

const aggregate = aggregateID(0)
// The first commits are the compilers' of both processes; they are not what a long-lived process feels.
const warmup = { idle: 6, busy: 1000 }
/** How long all of it may take, in milliseconds: what is lost must not hang the question. */
const deadline = 60_000

const [name, pace, count, written] = process.argv.slice(2)
const commits = Number(count) + warmup[pace]

const hearing = {
  async "syncline subscribeAll"(file, hear) {
    const { open } = await import("./syncline.mjs")
    const { store } = open(file)
    store.subscribeAll((event) => hear(event.data), { scope: "database" })
    return () => store.close()
  },
  async "syncline log"(file, hear) {
    const { open } = await import("./syncline.mjs")
    const { store } = open(file)
    const items = store.log({ aggregateID: aggregate, follow: true })
    await items.next()
    void (async () => {
      for await (const item of items) hear(item.event.data)
    })()
    return () => store.close()
  },
  async "better-sqlite3 each 10 ms"(file, hear) {
    const { poll } = await import("./rivals/polling.mjs")
    return poll(file, (row) => hear(JSON.parse(row.data)))
  },
}

if (written === undefined) await listen()
else await write(written)

async function listen() {
  const directory = temporaryDirectory()
  let writer
  try {
    const file = path.join(directory, "app.db")
    const heard = new Float64Array(commits)
    let heardLast
    const last = new Promise((resolve) => (heardLast = resolve))
    const end = await hearing[name](file, ({ updated }) => {
      heard[updated] = now()
      if (updated === commits - 1) heardLast(true)
    })
    writer = fork(fileURLToPath(import.meta.url), [name, pace, count, file])
    await once(writer, "message")
    await assertSameClock(writer)
    writer.send("write")
    if (!(await Promise.race([last, pause(deadline, false, { ref: false })]))) {
      throw new Error(`${name} heard ${heard.filter((at) => at > 0).length} of ${commits} events in ${deadline} ms`)
    }
    const { begun, returned } = await ask(writer, "times")
    end()
    const { median } = percentiles(heard, returned)
    console.log(JSON.stringify({ ...percentiles(heard, begun), "from return": median }))
  } finally {
    writer?.disconnect()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

async function write(file) {
  const { open } = await import(name.startsWith("syncline") ? "./syncline.mjs" : "./rivals/better-sqlite3.mjs")
  const side = open(file)
  const list = Array.from({ length: commits }, (_, n) => ({ ...payload(n, aggregate), updated: n }))
  const begun = new Float64Array(commits)
  const returned = new Float64Array(commits)
  process.on("message", async (question) => {
    if (question === "time") return process.send(now())
    if (question === "times") return process.send({ begun: [...begun], returned: [...returned] })
    for (let n = 0; n < commits; n++) {
      // To and fro by more than the rival's 10 ms: its questions must not fall into step with the commits.
      if (pace === "idle") await pause(25 + Math.random() * 40)
      begun[n] = now()
      side.run(list[n])
      returned[n] = now()
    }
  })
  process.on("disconnect", () => side.close())
  process.send("ready")
}

/** The other process's answer must lie between two readings of the clock here, or they are two clocks. */
async function assertSameClock(writer) {
  for (let n = 0; n < 20; n++) {
    const before = now()
    const there = await ask(writer, "time")
    if (!(before <= there && there <= now())) throw new Error("The clocks of two processes cannot be compared here")
  }
}

async function ask(writer, question) {
  writer.send(question)
  const [answer] = await once(writer, "message")
  return answer
}

/** Milliseconds of a clock that all processes of the machine share. */
function now() {
  return Number(process.hrtime.bigint()) / 1e6
}

function percentiles(heard, since) {
  const latencies = heard.map((at, n) => (at === 0 ? NaN : at - since[n])).slice(warmup[pace])
  if (latencies.some(Number.isNaN)) throw new Error(`${name} missed an event`)
  latencies.sort()
  const at = (share) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]
  return { median: at(0.5), p99: at(0.99), max: at(1) }
}
