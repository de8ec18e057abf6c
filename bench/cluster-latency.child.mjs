// A reader in a process of its own: tells when each event has been applied.
import { connectTo, replicate } from "./cluster.mjs"
import * as syncline from "./syncline.mjs"

const [file, stream, ...urls] = process.argv.slice(2)
const { store } = syncline.open(file, { projectors: syncline.sqlProjector() })
store.subscribeAll(({ aggregateID, seq }) => {
  process.send({ aggregateID, seq, at: performance.timeOrigin + performance.now() })
})
const connection = await connectTo(urls)
const onStatus = (status) => status === "live" && process.send({ live: true })
void replicate(store, { connection, stream, prefix: stream, publish: true, onStatus, onError() {} })
process.on("disconnect", () => process.exit())
