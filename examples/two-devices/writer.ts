import { serve } from "@hono/node-server"
import { syncRoutes } from "syncline/http"
import { Created, Deleted, Renamed, Written, openSessions } from "./sessions"

// The device that writes. It serves its log, and writes on where it stood when it was started last. It is killed in the
// middle of that, so nothing here waits for a good end.

const [path, port, token, wanted] = process.argv.slice(2) as [string, string, string, string]
const store = openSessions(path)

serve({ fetch: syncRoutes(store, { authorize: { token } }).fetch, port: Number(port), hostname: "127.0.0.1" })

const written = () => [...store.sequences().values()].reduce((sum, seq) => sum + seq + 1, 0)

/** An event of a random session, and now and then the end of one. */
function write(): void {
  const sessionID = `session-${Math.floor(Math.random() * 8)}`
  const exists = store.db.prepare("SELECT 1 FROM session WHERE id = ?").get(sessionID) !== undefined
  const number = written()
  const chance = Math.random()
  if (!exists) store.run(Created, { sessionID, title: `Begun as number ${number}` })
  else if (chance < 0.02) store.remove(sessionID, { event: [Deleted, { sessionID }] })
  else if (chance < 0.2) store.run(Renamed, { sessionID, title: `Renamed as number ${number}` })
  else store.run(Written, { sessionID, messageID: `message-${number % 20}`, text: `Text of number ${number}` })
}

function goOn(): void {
  for (let n = 0; n < 5 && written() < Number(wanted); n++) write()
  if (written() < Number(wanted)) setTimeout(goOn, 5)
  else process.send?.({ sequences: Object.fromEntries(store.sequences()) })
}

goOn()
