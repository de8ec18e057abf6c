"use strict"

// A full disk, at every write of every operation, in a process of its own: on a small file system in memory where one can be
// mounted, and under a limit on file sizes, which makes every single write fail at its byte.

const assert = require("node:assert/strict")
const { spawn, spawnSync } = require("node:child_process")
const { once } = require("node:events")
const { mkdirSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { temporaryFolder } = require("./notes")
const { extent, figures } = require("./soak")

const folder = temporaryFolder()

/** In a namespace of its own, so that what is mounted is gone with the process, and nobody else sees it. */
const MOUNTED = `mount -t tmpfs -o size=20m tmpfs "$1" || exit 99; exec "$0" "$2" "$3"`

const ways = {
  tmpfs: {
    can: () => spawnSync("unshare", ["-rm", "sh", "-c", MOUNTED, "true", folder]).status === 0,
    command: (at) => ["unshare", ["-rm", "sh", "-c", MOUNTED, process.execPath, at]],
    settings: { step: 4096, rounds: extent(1, 3) },
  },
  limit: {
    can: () => spawnSync("prlimit", ["--version"]).status === 0,
    command: () => [process.execPath, []],
    settings: { step: extent(12_000, 3000), rounds: extent(1, 2) },
  },
}

async function fill(by) {
  const at = join(folder, by)
  mkdirSync(at)
  const { command, settings } = ways[by]
  const [program, words] = command(at)
  const given = JSON.stringify({ folder: at, by, ...settings })
  const child = spawn(program, [...words, join(__dirname, "full-disk-writer.js"), given], {
    stdio: ["ignore", "pipe", "pipe"],
  })
  let [told, errors] = ["", ""]
  child.stdout.setEncoding("utf8").on("data", (chunk) => (told += chunk))
  child.stderr.setEncoding("utf8").on("data", (chunk) => (errors += chunk))
  const [code, signal] = await once(child, "close")
  assert.equal(code ?? signal, 0, errors)
  return JSON.parse(told)
}

describe("a full disk, at every write in turn: a code, nothing lost, and with room again the same store goes on", () => {
  const possible = Object.keys(ways).filter((by) => ways[by].can())
  if (possible.length === 0) figures("full-disk", { by: "nothing: neither a mount nor prlimit is possible here" })

  for (const by of Object.keys(ways)) {
    test(`by ${by}`, { skip: !possible.includes(by) && `${by} is not possible here` }, async () => {
      const start = performance.now()
      const { failures, cpu } = await fill(by)
      const counts = Object.values(failures)
      // A thread that spins takes a whole core.
      assert.ok(cpu < 0.8, `${cpu}`)
      figures("full-disk", {
        by,
        operations: counts.length,
        failures: counts.reduce((sum, count) => sum + count, 0),
        idle: `${Math.round(cpu * 100)} % of a core`,
        seconds: Math.round((performance.now() - start) / 1_000),
      })
    })
  }
})
