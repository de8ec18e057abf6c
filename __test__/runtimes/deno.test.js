"use strict"

const assert = require("node:assert/strict")
const { once } = require("node:events")
const { join } = require("node:path")
const { folder, linesOf, program, spawned } = require("./programs.js")
const { run } = require("./running.js")
const { root } = require("./installed.js")
const { runsOn } = require("./suite.js")

/** What a program needs that keeps a store and does nothing else. */
const PERMISSIONS = ["--allow-ffi", "--allow-read", "--allow-env"]

runsOn("deno", (here) => {
  here("`deno run` needs these permissions, and names the one that is missing", async ({ binary }) => {
    const path = join(folder(), "app.db")
    const all = await run(binary, ["run", "--no-prompt", ...PERMISSIONS, program("writes"), path])
    assert.deepEqual([all.code, all.stderr, linesOf(all.stdout)], [0, "", [{ seq: 0, rows: 1 }]])
    for (const missing of PERMISSIONS) {
      const others = PERMISSIONS.filter((one) => one !== missing)
      const { code, stderr } = await run(binary, ["run", "--no-prompt", ...others, program("writes"), path])
      assert.equal(code, 1, missing)
      assert.match(stderr, new RegExp(`Requires .* access .*, run again with the ${missing} flag`))
    }
  })

  here("the addon reads and writes its file whatever Deno lets the program itself write", async ({ binary }) => {
    // It is native code: --allow-write was not given above, and is not asked for.
    const { code, stderr } = await run(binary, [
      "run",
      "--deny-write",
      ...PERMISSIONS,
      program("writes"),
      join(folder(), "a.db"),
    ])
    assert.deepEqual([code, stderr], [0, ""])
  })

  here("a worker that ends gives its lock back", async ({ binary }) => {
    const ways = ["idle", "exits", "throws"]
    const args = ["run", "--allow-all", program("ends-workers"), join(folder(), "app.db"), ways.join()]
    const { stdout, stderr } = await run(binary, args)
    const outcomes = linesOf(stdout)
    assert.deepEqual(
      outcomes,
      ways.map((way) => ({ way, outcome: "fulfilled" })),
      stderr,
    )
  })

  here("terminate does not end a worker that never returns, nor give its lock back", async ({ binary }) => {
    const args = ["run", "--allow-all", program("ends-workers"), join(folder(), "app.db"), "busy"]
    const { stdout, stderr } = await run(binary, args)
    assert.deepEqual(linesOf(stdout), [{ way: "busy", outcome: "rejected" }], stderr)
  })

  here(
    "what waits in promises runs inside a projector that requires a module for the first time",
    async ({ binary }) => {
      const { stdout, stderr } = await run(binary, ["run", "--allow-all", program("requires-late")])
      // Buffer is not among them: the library has looked at it before.
      assert.deepEqual(linesOf(stdout), [["require"]], stderr)
    },
  )

  here("the command serves, follows and ends at Ctrl-C", async ({ binary }) => {
    const command = ["run", "--allow-all", join(root, "dist", "cli", "main.js")]
    const [source, copy] = ["source.db", "copy.db"].map((name) => join(folder(), name))
    await run(binary, ["run", "--allow-all", program("writes"), source])
    const serving = spawned(binary, [...command, "serve", source, "--no-auth", "--port", "0", "--json"])
    const [{ url }] = await serving.lines(1)
    const following = spawned(binary, [...command, "follow", copy, url, "--json"])
    // Connecting, catching up, live.
    await following.lines(3)
    for (const one of [following, serving]) {
      one.child.kill("SIGINT")
      const [code] = await once(one.child, "close")
      assert.equal(code, 0)
    }
    const { stdout } = await run(binary, [...command, "ls", copy, "--json"])
    assert.deepEqual(
      JSON.parse(stdout).map(({ aggregateID, seq }) => [aggregateID, seq]),
      [["a", 0]],
    )
  })
})
