"use strict"

// A writer and its follower, each a process with a file of its own, over loopback and a proxy that cuts connections after
// any number of bytes. Both are killed at random: at the end the follower's tables are the writer's.

const assert = require("node:assert/strict")
const { createServer, connect } = require("node:net")
const { join } = require("node:path")
const { setTimeout: pause } = require("node:timers/promises")
const { after, describe, test } = require("node:test")
const { kill, start, untilTold } = require("./children")
const { openLedger, projected } = require("./ledger")
const { temporaryFolder } = require("./notes")
const { figures, random, seeds } = require("./soak")

const folder = temporaryFolder()
const token = "token-of-this-test"
const EVENTS = 50_000

/** Passes connections on to a port that may change, and cuts most of them after some bytes of the answer. */
class CuttingProxy {
  target = 0
  cuts = 0
  bytes = 0
  #sockets = new Set()

  constructor({ integer, chance }) {
    this.server = createServer((near) => {
      const far = connect(this.target, "127.0.0.1")
      // As many cuts within the first hundred bytes as within the first million.
      let left = chance(0.2) ? Infinity : Math.floor(2 ** (integer(2_000) / 100))
      for (const socket of [near, far]) {
        this.#sockets.add(socket)
        socket.on("error", () => {})
        socket.on("close", () => {
          this.#sockets.delete(socket)
          near.destroy()
          far.destroy()
        })
      }
      near.pipe(far)
      far.on("data", (chunk) => {
        this.bytes += chunk.length
        const passed = chunk.subarray(0, left)
        left -= passed.length
        if (!near.write(passed)) far.pause()
        if (left === 0) {
          this.cuts++
          near.end(() => near.destroy())
        }
      })
      near.on("drain", () => far.resume())
    })
  }

  async listen() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    return this.server.address().port
  }

  close() {
    for (const socket of this.#sockets) socket.destroy()
    this.server.close()
  }
}

/** Where the aggregates of a file stand, and through which seq each was removed. */
function standing({ db }) {
  return db.prepare("SELECT aggregate_id, seq, removed_seq FROM event_sequence ORDER BY aggregate_id").raw().all()
}

/** The follower holds every event that the writer still has, as it is there. (It may hold some that were compacted since.) */
function assertHeld(there, here) {
  for (const { aggregateID } of here.aggregates()) {
    const held = new Map(there.read(aggregateID).map((event) => [event.seq, event]))
    for (const event of here.read(aggregateID)) {
      assert.deepEqual({ ...held.get(event.seq) }, { ...event }, `${aggregateID} ${event.seq}`)
    }
  }
}

describe("a follower of a device that is killed as it is, over connections that are cut", () => {
  for (const seed of seeds(1, 10)) {
    test(`holds the same tables at the end, and no event twice (seed ${seed})`, { timeout: 1_200_000 }, async () => {
      const dice = random(seed)
      const proxy = new CuttingProxy(dice)
      const url = `http://127.0.0.1:${await proxy.listen()}`
      after(() => proxy.close())
      const paths = { server: join(folder, `server ${seed}.db`), follower: join(folder, `follower ${seed}.db`) }
      let server
      let follower
      const kills = { server: 0, follower: 0 }
      const statuses = new Map()
      const startServer = async () => {
        const settings = { path: paths.server, port: 0, token, events: EVENTS, seed: seed + kills.server }
        server = start("ledger-server.js", settings)
        await untilTold(server, (told) => told.length > 0)
        proxy.target = server.told[0][1]
      }
      const startFollower = () => {
        follower = start("ledger-follower.js", { path: paths.follower, url, token })
      }
      const hear = ({ told }) => {
        for (const [kind, what] of told) {
          assert.notEqual(kind, "failed", String(what))
          // What is cut or down is told of; nothing is ever wrong with what arrived.
          if (kind === "error") assert.match(what, /^ERR_(UNREACHABLE|PROTOCOL|BUSY|CLOSED)$/)
          if (kind === "status") statuses.set(what, (statuses.get(what) ?? 0) + 1)
        }
      }
      await startServer()
      startFollower()
      const isDone = () => server.told.at(-1)?.[0] === "done"
      while (!isDone()) {
        await pause(400 + dice.integer(1_400))
        if (dice.chance(0.5)) {
          await kill(follower)
          hear(follower)
          kills.follower++
          startFollower()
        } else if (!isDone()) {
          await kill(server)
          kills.server++
          await startServer()
        }
      }
      const sequences = new Map(server.told.at(-1)[1])
      const { store: there } = openLedger(paths.follower)
      await there.waitFor(sequences, { timeout: 600_000 })
      // A removal that was heard as an event alone is still to be made up for.
      const { store: here } = openLedger(paths.server)
      while (JSON.stringify(standing(there)) !== JSON.stringify(standing(here))) await pause(20)
      await kill(follower)
      hear(follower)
      await kill(server)
      assert.deepEqual(projected(there), projected(here))
      assertHeld(there, here)
      assert.deepEqual([await here.verify(), await there.verify()], [[], []])
      here.close()
      there.close()
      assert.ok(kills.server + kills.follower > 0 && proxy.cuts > 0)
      const megabytes = (proxy.bytes / 1e6).toFixed(1)
      figures("sync, killed and cut", {
        events: EVENTS,
        kills: kills.server + kills.follower,
        cuts: proxy.cuts,
        live: statuses.get("live") ?? 0,
        megabytes,
      })
    })
  }
})
