// Many readers in a process of their own, each with a connection and a store: tells when events have been applied.
import { connectTo, replicate } from "./cluster.mjs"
import { syncline } from "./syncline.mjs"

const [stream, readers, own, total, ...urls] = process.argv.slice(2)
const told = []
const flush = () => told.length > 0 && process.send({ told: told.splice(0) })
setInterval(flush, 20)

async function reader(n) {
  const store = syncline.open(":memory:", { registry: syncline.createRegistry() })
  store.subscribeAll(
    ({ aggregateID, seq }) => told.push([aggregateID, seq, performance.timeOrigin + performance.now()]),
    {
      scope: "database",
    },
  )
  const aggregates = Array.from({ length: Number(own) }, (_, k) => `session-${(n * Number(own) + k) % Number(total)}`)
  const connection = await connectTo(urls)
  await new Promise((resolve) => {
    const onStatus = (status) => status === "live" && resolve()
    const common = { connection, stream, prefix: stream, aggregates, unknown: "record", publish: true }
    void replicate(store, { ...common, onStatus, onError: (error) => console.error(error) })
  })
}

const started = performance.now()
await Promise.all(Array.from({ length: Number(readers) }, (_, n) => reader(n)))
process.send({ live: performance.now() - started })
process.on("message", () => process.send({ cpu: process.cpuUsage(), memory: process.memoryUsage().rss }))
process.on("disconnect", () => process.exit())
