"use strict"

const assert = require("node:assert/strict")
const { mkdirSync } = require("node:fs")
const http = require("node:http")
const { once } = require("node:events")
const { join } = require("node:path")
const { platform } = require("./installed.js")
const { folder, linesOf, program, started } = require("./programs.js")
const { run } = require("./running.js")
const { runsOn } = require("./suite.js")

runsOn("bun", (here) => {
  here("`bun run` runs a program", async ({ binary }) => {
    const { stdout, stderr, code } = await run(binary, ["run", program("writes"), join(folder(), "app.db")])
    assert.deepEqual([code, stderr, linesOf(stdout)], [0, "", [{ seq: 0, rows: 1 }]])
  })

  here("a worker that ends gives its lock back, however it ends", async ({ binary }) => {
    const ways = ["idle", "exits", "throws", "busy"]
    const { stdout, stderr } = await run(binary, [program("ends-workers"), join(folder(), "app.db"), ways.join()])
    const outcomes = linesOf(stdout)
    assert.deepEqual(
      outcomes,
      ways.map((way) => ({ way, outcome: "fulfilled" })),
      stderr,
    )
  })

  here("`bun build --compile` puts the addon into the program", async ({ binary }, t) => {
    if (platform.startsWith("win32")) return t.skip("tried on Linux and macOS")
    const where = folder()
    const compiled = join(where, "writes")
    // Built where the library is found, and run where nothing is.
    const build = await run(binary, ["build", "--compile", program("writes"), "--outfile", compiled])
    assert.equal(build.code, 0, build.stderr)
    const elsewhere = join(where, "elsewhere")
    mkdirSync(elsewhere)
    const { stdout, stderr, code } = await run(compiled, [join(elsewhere, "app.db")], elsewhere)
    assert.deepEqual([code, stderr, linesOf(stdout)], [0, "", [{ seq: 0, rows: 1 }]])
  })

  here("Bun.serve serves the routes, and cuts who is told nothing for ten seconds", async ({ binary }) => {
    const serve = async (heartbeat, idleTimeout) => {
      const args = [program("serves"), join(folder(), `${heartbeat}.db`), heartbeat, idleTimeout].map(String)
      const [{ url }] = await started(binary, args)
      const [response] = await once(http.get(`${url}/sync-events`), "response")
      assert.equal(response.headers["content-type"], "text/event-stream")
      let text = ""
      response.setEncoding("utf8").on("data", (more) => (text += more))
      response.on("error", () => {})
      return { response, text: () => text }
    }
    const [cut, kept, patient] = await Promise.all([serve(60_000, 10), serve(4_000, 10), serve(60_000, 120)])
    await new Promise((resolve) => cut.response.on("close", resolve))
    assert.equal(cut.response.complete, false)
    assert.match(kept.text(), /^: heartbeat$/m)
    for (const { response } of [kept, patient]) {
      assert.equal(response.closed, false)
      response.destroy()
    }
  })
})
