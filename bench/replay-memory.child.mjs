// The process that `replay-memory` starts for each round: replays the recording and prints its peak memory as JSON.
import fs from "node:fs"
import path from "node:path"
import { temporaryDirectory } from "./harness.mjs"
import { openBetterSqlite3, openSyncline } from "./recording.mjs"

const [side, projector, recording] = process.argv.slice(2)
const directory = temporaryDirectory()
try {
  const open = side === "syncline" ? openSyncline : openBetterSqlite3
  const replaying = await open(path.join(directory, "app.db"), projector)
  globalThis.gc?.()
  const idle = process.memoryUsage.rss()
  const peakBefore = peak()
  const input = fs.readFileSync(recording)
  const start = process.hrtime.bigint()
  const applied = replaying.replayAll(input)
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  const peakAfter = peak()
  if (applied !== 1844) throw new Error(`${side} applied ${applied} of the recording's 1844 events`)
  // The peak is the process's own high-water mark; one that starting up had set already would hide the replay's.
  if (peakAfter <= peakBefore) throw new Error("Replaying did not raise the process's peak memory")
  replaying.close()
  console.log(
    JSON.stringify({
      timesInput: (peakAfter - idle) / input.length,
      "idle MiB": idle / 2 ** 20,
      "peak MiB": peakAfter / 2 ** 20,
      "input MiB": input.length / 2 ** 20,
      seconds,
    }),
  )
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}

function peak() {
  return process.resourceUsage().maxRSS * 1024
}
