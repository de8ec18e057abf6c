import { follow } from "syncline/http"
import { openSessions } from "./sessions"

// The device that watches: it rebuilds the writer's tables in a database file of its own. It is killed, too. When it is
// started again it asks for what it lacks; nobody has to remember anything for it.

const [path, url, token] = process.argv.slice(2) as [string, string, string]
const store = openSessions(path)
const stop = new AbortController()

void follow(store, {
  url,
  token,
  signal: stop.signal,
  backoff: { initial: 50, longest: 500 },
  onStatus: (status) => process.send?.({ status }),
  onError: (error) => process.send?.({ error: String(error) }),
}).then(() => process.exit())

// Once the writer has finished, its last seqs are what to wait for.
process.on("message", (sequences: Record<string, number>) => {
  void store.waitFor(sequences).then(() => process.send?.({ reached: true }))
})
