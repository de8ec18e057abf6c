// A server that commits events of 8 KiB while others listen, and says what that cost: by the clock, in processor time, and of
// that the part that encodes. Started by fork.
import { createRequire } from "node:module"
import { Session } from "node:inspector/promises"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { createRegistry, define, open } = packageRequire("syncline")
const { syncRoutes } = packageRequire("syncline/http")
const { serve } = packageRequire("@hono/node-server")

const [path] = process.argv.slice(2)
const registry = createRegistry()
const schema = { "~standard": { version: 1, vendor: "bench", validate: (value) => ({ value }) } }
const Written = define({
  type: "message.written",
  version: 1,
  aggregate: "sessionID",
  schema,
  projector: "none",
  registry,
})
const store = open(path, { registry, packing: false })
const text = "x".repeat(8 * 1024)
const session = new Session()
session.connect()
await session.post("Profiler.enable")
await session.post("Profiler.setSamplingInterval", { interval: 200 })

const app = syncRoutes(store, { authorize: "none", capacity: { events: 2_000, bytes: 64 * 1024 * 1024 } })
serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) =>
  process.send({ url: `http://127.0.0.1:${port}` }),
)

let started
process.on("message", async (word) => {
  if (word.events !== undefined) {
    await session.post("Profiler.start")
    started = { cpu: process.cpuUsage(), time: process.hrtime.bigint() }
    write(word.events)
  } else if (word === "received") {
    const time = Number(process.hrtime.bigint() - started.time) / 1000
    const { user, system } = process.cpuUsage(started.cpu)
    const { profile } = await session.post("Profiler.stop")
    process.send({ time, cpu: user + system, encoding: inclusive(profile, "encoded") })
  } else {
    store.close()
    process.exit()
  }
})

/** As a busy agent would: a few events in each turn of the event loop. */
function write(left) {
  for (let n = 0; n < Math.min(left, 5); n++) store.run(Written, { sessionID: "session", text })
  if (left > 5) setImmediate(() => write(left - 5))
}

/** Microseconds that were spent in a function and in what it called. */
function inclusive({ nodes, samples, timeDeltas }, name) {
  const byID = new Map(nodes.map((node) => [node.id, node]))
  const inside = new Set()
  const enter = (node, within) => {
    const isInside = within || node.callFrame.functionName === name
    if (isInside) inside.add(node.id)
    for (const child of node.children ?? []) enter(byID.get(child), isInside)
  }
  enter(nodes[0], false)
  if (inside.size === 0) throw new Error(`The profile does not know ${name}`)
  return samples.reduce((sum, id, at) => sum + (inside.has(id) ? timeDeltas[at] : 0), 0)
}
