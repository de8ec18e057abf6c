// How much memory does replaying a recording of 24 MB from bytes take, above the same process before it had the bytes?
// The recording is one session whose tool output was sent again whole on each chunk: 1,844 events, half a kilobyte to
// tens of kilobytes each. Each round is a process of its own.
import fs from "node:fs"
import path from "node:path"
import { decompress } from "fzstd"
import { inChild, measure, temporaryDirectory } from "./harness.mjs"

const directory = temporaryDirectory()
const recording = path.join(directory, "build-output.events.jsonl")
const packed = fs.readFileSync(new URL("data/build-output.events.jsonl.zst", import.meta.url))
fs.writeFileSync(recording, decompress(packed))

function memorySide(name, { side = name, projector = "js", ...options } = {}) {
  return {
    name,
    ...options,
    sample() {
      const { timesInput, ...more } = inChild("replay-memory.child.mjs", side, projector, recording)
      return { figure: timesInput, more }
    },
  }
}

try {
  await measure({
    question: "replay-memory",
    title: "peak memory above the idle process while replaying 24 MB from bytes, the bytes counted",
    unit: "× input",
    rounds: 5,
    warmup: 0,
    sides: [
      memorySide("better-sqlite3"),
      memorySide("syncline", { syncline: true }),
      memorySide("syncline, SQL projector", { side: "syncline", projector: "sql", syncline: true }),
    ],
    targets: [
      { side: "syncline", atMost: 3 },
      { side: "syncline, SQL projector", atMost: 3 },
    ],
  })
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}
