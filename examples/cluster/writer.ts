import { setTimeout as pause } from "node:timers/promises"
import { SyncError } from "syncline"
import { relay, replicate, transfer } from "syncline/nats"
import { type Order, connectTo, place, tell, told, waits } from "./place"
import { openSessions, recorded } from "./sessions"
import { write } from "./writing"

// The device that writes. What it records is safe in its own file; `relay` publishes it whenever there is a cluster to publish
// it on. Half-way it hands the session that it is writing over to a reader, and from then on follows that one.

const [path, servers, count, duration, heir] = process.argv.slice(2) as [string, string, string, string, string]
const store = openSessions(path, "writer")
const events = recorded(Number(count))
// The session that is written half-way, and where half of it has been.
const given = events[Math.floor(events.length / 2)]?.sessionID as string
const places = events.flatMap(({ sessionID }, index) => (sessionID === given ? [index] : []))
const half = places[Math.floor(places.length / 2)] as number
const end = new AbortController()

async function main(): Promise<void> {
  const connection = await connectTo(servers)
  const going = [
    relay(store, { connection, ...place, ...told(end.signal) }),
    replicate(store, { connection, ...place, aggregates: [given], ...told(end.signal) }),
  ]

  process.on("message", ({ reach, end: ends }: Order) => {
    if (reach !== undefined) void store.waitFor(reach).then(() => tell({ reached: { waited: waits() } }))
    if (ends) end.abort()
  })

  let handing: Promise<void> | undefined
  const written = await write(store, events, Number(duration), (index) => {
    if (index === half) handing = handOver()
    return index < half || events[index]?.sessionID !== given
  })
  await handing
  tell({ written })

  await Promise.all(going)
  await connection.close()
  store.close()
  process.exit()

  /** Until it has gone well: to call it again is safe, wherever it failed. */
  async function handOver(): Promise<void> {
    const started = performance.now()
    for (;;) {
      try {
        const { seq, epoch } = await transfer(store, { connection, ...place, aggregateID: given, to: heir })
        tell({ handed: { sessionID: given, seq, epoch, after: performance.now() - started } })
        return
      } catch (error) {
        if (!(error instanceof SyncError) || error.code !== "ERR_UNREACHABLE") throw error
        await pause(200)
      }
    }
  }
}

void main()
