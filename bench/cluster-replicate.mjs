// What does one of 20,000 events cost a reader that has nothing, from a cluster of three servers, beside consuming the same
// messages and doing nothing with them, and beside a replay of the same lines from memory? With one event a message, as a relay
// publishes what comes one at a time, and with many, as it publishes what had piled up.
import fs from "node:fs"
import path from "node:path"
import { createRequire } from "node:module"
import { consumeBare, jetstream, relayAll, replicateAll, startCluster } from "./cluster.mjs"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { aggregateID, payload } from "./workload.mjs"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { encode, messageID } = packageRequire("./dist/nats/message.js")
const EVENTS = 20_000
const AGGREGATES = 100

let cluster
let control
let lines

/** Both streams, and the lines that are in them. */
async function prepared(directory) {
  if (cluster !== undefined) return
  cluster = await startCluster()
  control = await cluster.connect()
  const opened = syncline.open(path.join(directory, "source.db"), { projectors: syncline.sqlProjector() })
  for (let n = 0; n < EVENTS; n += 1000) {
    opened.runAll(Array.from({ length: 1000 }, (_, k) => payload(n + k, aggregateID((n + k) % AGGREGATES))))
  }
  await relayAll(opened.store, control, "many", { window: Infinity })
  // Readers look for the buckets as well.
  await relayAll(opened.store, control, "one", { window: Infinity, aggregates: [] })
  const events = opened.store
    .readAll({ limit: EVENTS })
    .map(({ id, type, seq, aggregateID: own, data, created }) => ({ id, type, seq, aggregateID: own, data, created }))
  lines = Buffer.from(events.map((event) => JSON.stringify(event)).join("\n"))
  const client = jetstream(control)
  const answers = []
  for (const event of events) {
    const { aggregateID: id, seq, type } = event
    const text = Buffer.from(`${JSON.stringify({ kind: "event", event })}\n`)
    const reach = { seq, after: seq - 1, removed: -1, owner: null, epoch: 0 }
    const { headers, body } = encode({ ...reach, aggregateID: id, type, id: messageID(id, seq, event.id), lines: text })
    answers.push(client.publish(`one.${id}`, body, { headers, msgID: messageID(id, seq, event.id) }))
    if (answers.length % 256 === 0) await Promise.all(answers.splice(0))
  }
  await Promise.all(answers)
  opened.close()
}

function bareSide(stream, name) {
  let connection
  return {
    name,
    syncline: true,
    units: EVENTS,
    async open(directory) {
      await prepared(directory)
      connection = await cluster.connect()
    },
    round: () => consumeBare(connection, stream),
  }
}

/** One whose rounds each begin with an empty file. */
function emptySide(name, projectors, round) {
  let file
  let opened
  let connection
  return {
    name,
    syncline: true,
    units: EVENTS,
    async open(directory) {
      await prepared(directory)
      connection = await cluster.connect()
      file = path.join(directory, "app.db")
    },
    prepare: () => (opened = syncline.open(file, { projectors: projectors() })),
    round: () => round(opened, connection),
    after() {
      const held = [...opened.store.sequences().values()].reduce((sum, seq) => sum + seq + 1, 0)
      if (held !== EVENTS) throw new Error(`${held} of ${EVENTS} events arrived`)
      opened.close()
      for (const suffix of ["", "-wal", "-shm"]) fs.rmSync(file + suffix, { force: true })
    },
  }
}

const sql = () => syncline.sqlProjector()
const bareOne = bareSide("one", "consuming alone, an event a message")
const one = emptySide("replicate, an event a message", sql, ({ store }, connection) =>
  replicateAll(store, connection, "one"),
)
const bareMany = bareSide("many", "consuming alone, many events a message")
const many = emptySide("replicate, many events a message", sql, ({ store }, connection) =>
  replicateAll(store, connection, "many"),
)
const local = emptySide("replayAll of the same lines", sql, (opened) => opened.replayAll(lines))

try {
  await measure({
    question: "cluster-replicate",
    title: `${EVENTS.toLocaleString("en")} events over ${AGGREGATES} aggregates from three servers, SQL projector`,
    unit: "µs/event",
    rounds: 7,
    warmup: 1,
    sides: [bareOne, one, bareMany, many, local],
    targets: [
      { side: one.name, against: bareOne.name, atMost: 1.43 },
      { side: many.name, against: bareOne.name, atMost: 1.43 },
      { side: many.name, against: local.name, atMost: 2 },
    ],
  })
} finally {
  await cluster?.close()
}
