"use strict"

// A registry for one test file: it keeps what is published in a folder of its own, and passes on from `upstream` what is
// not ours. It prints its port, and ends with its parent, when its input does.

const { createRequire } = require("node:module")
const path = require("node:path")

const [clients, storage, upstream] = process.argv.slice(2)
const { runServer } = createRequire(path.join(clients, "package.json"))("verdaccio")
const configuration = path.join(storage, "config.yaml")

main()

async function main() {
  const app = await runServer({
    configPath: configuration,
    self_path: configuration,
    storage,
    web: { enable: false },
    uplinks: { upstream: { url: upstream, timeout: "60s", maxage: "60m" } },
    packages: {
      "syncline*": { access: "$all", publish: "$all" },
      "**": { access: "$all", proxy: "upstream" },
    },
    userRateLimit: { windowMs: 1000, max: 100_000 },
    log: { type: "stdout", format: "pretty", level: "error" },
  })
  app.listen(0, "127.0.0.1", () => console.log(`port ${app.address().port}`))
  process.stdin.resume().on("end", () => process.exit())
}
