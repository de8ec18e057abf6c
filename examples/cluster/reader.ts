import { setTimeout as pause } from "node:timers/promises"
import { relay, replicate } from "syncline/nats"
import { type Order, connectTo, place, tell, told, waits } from "./place"
import { openSessions, recorded } from "./sessions"
import { write } from "./writing"

// A device that reads: it rebuilds the tables of all sessions, or of some, in a database file of its own. When a session is handed
// over to it, it goes on writing that one, and relays it like any other writer.

const [name, path, servers, count, duration, only] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
  string,
]
const store = openSessions(path, name)
const end = new AbortController()

async function main(): Promise<void> {
  const connection = await connectTo(servers)
  const aggregates = only === undefined ? undefined : only.split(",")
  const going = [replicate(store, { connection, ...place, aggregates, ...told(end.signal) })]

  process.on("message", ({ goOn, reach, end: ends }: Order) => {
    if (goOn !== undefined) void writeOn(goOn)
    if (reach !== undefined) void store.waitFor(reach).then(() => tell({ reached: { waited: waits() } }))
    if (ends) end.abort()
  })

  await new Promise((resolve) => end.signal.addEventListener("abort", resolve))
  await Promise.all(going)
  await connection.close()
  store.close()
  process.exit()

  async function writeOn({ sessionID, seq }: NonNullable<Order["goOn"]>): Promise<void> {
    // What was written before comes first, and then who owns it.
    await store.waitFor({ [sessionID]: seq })
    while (store.owner(sessionID)?.owner !== name) await pause(20)
    going.push(relay(store, { connection, ...place, aggregates: [sessionID], ...told(end.signal) }))
    const left = recorded(Number(count))
      .filter((event) => event.sessionID === sessionID)
      .slice(seq + 1)
    tell({ written: await write(store, left, Number(duration)) })
  }
}

void main()
