// How many bytes does one of the 1,844 events of `build-output` take to a cluster and from it, with and without segments? Its
// tool output was sent whole on each chunk.
import path from "node:path"
import { createRequire } from "node:module"
import fs from "node:fs"
import { fileURLToPath } from "node:url"
import { relayAll, replicateAll, startCluster, startRelay, storedBytes } from "./cluster.mjs"
import { measure } from "./harness.mjs"
import { syncline } from "./syncline.mjs"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { decompress } = packageRequire("fzstd")
const file = fileURLToPath(new URL("data/build-output.events.jsonl.zst", import.meta.url))
const text = Buffer.from(decompress(fs.readFileSync(file)))
const events = text.toString().trimEnd().split("\n")

let cluster
let made = 0

/** The events recorded before the relay begins, or one after the other while it runs. */
function side(name, window, isLive) {
  let directory
  return {
    name,
    syncline: true,
    units: 1,
    async open(own) {
      directory = own
      cluster ??= await startCluster()
    },
    async sample() {
      const stream = `wire-${++made}`
      const open = (file) =>
        syncline.open(path.join(directory, `${file}-${made}.db`), { registry: syncline.createRegistry() })
      const [store, reader] = [open("writer"), open("reader")]
      const [out, back] = await Promise.all([cluster.connect(), cluster.connect()])
      const bytes = (connection) => connection.stats().outBytes + connection.stats().inBytes
      if (isLive) {
        const relaying = await startRelay(store, out, stream, { window })
        for (const [n, line] of events.entries()) {
          store.replayAll(line, { unknown: "record" })
          if (n % 10 === 9) await relaying.quiet(5)
        }
        await relaying.quiet(300)
        await relaying.stop()
      } else {
        store.replayAll(text, { unknown: "record" })
        await relayAll(store, out, stream, { window })
      }
      const sent = bytes(out)
      const held = await storedBytes(await cluster.connect(), stream)
      await replicateAll(reader, back, stream, { unknown: "record" })
      if ([...reader.sequences().values()].reduce((sum, seq) => sum + seq + 1, 0) !== events.length)
        throw new Error("incomplete")
      const per = (value) => value / events.length
      const more = {
        "to a new reader": per(bytes(back)),
        "on the stream": per(held.stream),
        "kept in all": per(held.all),
      }
      store.close()
      reader.close()
      return { figure: per(sent), more }
    },
  }
}

try {
  await measure({
    question: "cluster-wire",
    title: `bytes of an event of build-output, which has ${Math.round(text.length / events.length)} as JSON, on the relay's connection`,
    unit: "bytes/event",
    rounds: 1,
    warmup: 0,
    sides: [
      side("one at a time, no segments", Infinity, true),
      side("one at a time, window of 1,000", 1_000, true),
      side("one at a time, window of 100", 100, true),
      side("a backlog, no segments", Infinity, false),
      side("a backlog, window of 100", 100, false),
    ],
  })
} finally {
  await cluster?.close()
}
