// How fast does a relay put events on a cluster of three servers, beside bare publishes of the same lines, one message an event
// with 256 in flight and nothing guarded? (a) what was recorded before the relay began, (b) while one event after the other is
// recorded, which is then in both sides' time.
import fs from "node:fs"
import path from "node:path"
import { setImmediate as turn } from "node:timers/promises"
import { checkPublished, dropStream, makeStream, pipeline, relayAll, startCluster, startRelay } from "./cluster.mjs"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { aggregateID, payload, primers } from "./workload.mjs"

const EVENTS = 20_000
const AGGREGATES = 100
/** Events that are recorded in one turn of the event loop. */
const TURN = 20

const data = Array.from({ length: EVENTS }, (_, n) => payload(n, aggregateID(n % AGGREGATES)))
let cluster
let control
let made = 0

/** A side whose rounds each have a stream, a store and a connection of their own. */
function side(name, { prepare, round }) {
  let directory
  let opened
  let connection
  let stream
  return {
    name,
    syncline: true,
    units: EVENTS,
    async open(own) {
      directory = own
      cluster ??= await startCluster()
      control ??= await cluster.connect()
    },
    async prepare() {
      stream = `s${++made}`
      connection = await cluster.connect()
      opened = syncline.open(path.join(directory, "app.db"), { projectors: syncline.sqlProjector() })
      return await prepare({ stream, connection, opened })
    },
    sample: round,
    async after() {
      if (!name.startsWith("bare")) await checkPublished(opened.store, control, stream)
      opened.close()
      await connection.close()
      await dropStream(control, stream)
      for (const suffix of ["", "-wal", "-shm"]) fs.rmSync(path.join(directory, `app.db${suffix}`), { force: true })
    },
  }
}

/** `work` answers when it was done, or nothing where that is now. */
async function timed(work) {
  const cpu = cluster.cpu()
  const own = process.cpuUsage()
  const started = performance.now()
  const ended = (await work()) ?? performance.now()
  const { user, system } = process.cpuUsage(own)
  const more = { "servers' CPU": ((cluster.cpu() - cpu) * 1e6) / EVENTS, "own CPU": (user + system) / EVENTS }
  return { figure: ((ended - started) * 1000) / EVENTS, more }
}

function linesOf(store) {
  const lines = []
  for (const { id, type, seq, aggregateID, data } of store.readAll({ limit: EVENTS })) {
    lines.push([aggregateID, Buffer.from(JSON.stringify({ id, type, seq, aggregateID, data }) + "\n")])
  }
  return lines
}

const record = (opened) => {
  for (let n = 0; n < EVENTS; n += 1000) opened.runAll(data.slice(n, n + 1000))
}

const bareBacklog = side("bare, a backlog", {
  async prepare({ stream, connection, opened }) {
    record(opened)
    await makeStream(control, stream)
    return { stream, connection, lines: linesOf(opened.store) }
  },
  round: ({ stream, connection, lines }) =>
    timed(async () => {
      const { publish, all } = pipeline(connection)
      for (const [aggregate, bytes] of lines) {
        const room = publish(`${stream}.${aggregate}`, bytes)
        if (room !== undefined) await room
      }
      await all()
    }),
})

const relayBacklog = side("relay, a backlog", {
  async prepare({ stream, connection, opened }) {
    // Makes the stream and the buckets, which is not what is asked here.
    await relayAll(opened.store, connection, stream)
    record(opened)
    return { stream, connection, opened }
  },
  round: ({ stream, connection, opened }) => timed(() => relayAll(opened.store, connection, stream)),
})

const bareLive = side("bare, while recording", {
  async prepare({ stream, connection, opened }) {
    opened.runAll(primers(AGGREGATES))
    await makeStream(control, stream)
    return { stream, connection, opened }
  },
  round: ({ stream, connection, opened }) =>
    timed(async () => {
      const { publish, all } = pipeline(connection)
      for (let n = 0; n < EVENTS; n++) {
        const { id, type, seq, aggregateID, data: own } = opened.run(data[n])
        const line = JSON.stringify({ id, type, seq, aggregateID, data: own }) + "\n"
        const room = publish(`${stream}.${aggregateID}`, Buffer.from(line))
        if (room !== undefined) await room
        if (n % TURN === TURN - 1) await turn()
      }
      await all()
    }),
})

const relayLive = side("relay, while recording", {
  async prepare({ stream, connection, opened }) {
    opened.runAll(primers(AGGREGATES))
    const relaying = await startRelay(opened.store, connection, stream)
    await relaying.quiet()
    return { relaying, opened }
  },
  async round({ relaying, opened }) {
    const figure = await timed(async () => {
      for (let n = 0; n < EVENTS; n++) {
        opened.run(data[n])
        if (n % TURN === TURN - 1) await turn()
      }
      return await relaying.quiet()
    })
    await relaying.stop()
    return figure
  },
})

try {
  await measure({
    question: "cluster-relay",
    title: `${EVENTS.toLocaleString("en")} events over ${AGGREGATES} aggregates onto three servers, R3`,
    unit: "µs/event",
    rounds: 7,
    warmup: 1,
    sides: [bareBacklog, relayBacklog, bareLive, relayLive],
    targets: [
      { side: relayBacklog.name, against: bareBacklog.name, atMost: 1.25 },
      { side: relayLive.name, against: bareLive.name, atMost: 1.25 },
    ],
  })
} finally {
  await cluster?.close()
}
