// A process that serves a database file over HTTP, and tells of its own memory when it is asked. Started by fork.
import { createRequire } from "node:module"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { createRegistry, open } = packageRequire("syncline")
const { syncRoutes } = packageRequire("syncline/http")
const { serve } = packageRequire("@hono/node-server")

const [path] = process.argv.slice(2)
const store = open(path, { registry: createRegistry() })
let peak = 0
setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 5).unref()

const server = serve(
  { fetch: syncRoutes(store, { authorize: "none" }).fetch, port: 0, hostname: "127.0.0.1" },
  ({ port }) => process.send({ url: `http://127.0.0.1:${port}` }),
)

process.on("message", (word) => {
  if (word === "idle") {
    globalThis.gc?.()
    peak = process.memoryUsage.rss()
    process.send({ idle: peak })
  } else if (word === "peak") {
    process.send({ peak })
  } else {
    server.close()
    store.close()
    process.exit()
  }
})
