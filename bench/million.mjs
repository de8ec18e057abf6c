// The files of `file-size`, `read-latest` and `million-open`: 1,000,000 events over 1,000 aggregates, written by each side's own writer
// in commits of 1,000. They are made once for one `npm run bench`, which gives both questions the same directory.
import fs from "node:fs"
import path from "node:path"
import { temporaryDirectory } from "./harness.mjs"
import { aggregateID, payload } from "./workload.mjs"

/** How many events a file holds, and over how many aggregates they take turns. */
export const events = 1_000_000
export const aggregates = 1000

/** The path of one side's file, closed and checkpointed; written first where it is not there yet. */
export function millionFile(name, openStore) {
  const file = path.join(directory(), `${name}.db`)
  if (fs.existsSync(file)) return file
  const unfinished = `${file}-unfinished`
  const side = openStore(unfinished)
  for (let first = 0; first < events; first += aggregates) {
    side.runAll(Array.from({ length: aggregates }, (_, n) => payload(first + n, aggregateID(n))))
  }
  side.close()
  if (fs.existsSync(`${unfinished}-wal`)) throw new Error(`Closing ${name} left a WAL behind`)
  fs.renameSync(unfinished, file)
  return file
}

/** Removes the files, unless they lie in a directory that `npm run bench` gave and will remove. */
export function removeMillionFiles() {
  if (own) fs.rmSync(own, { recursive: true, force: true })
}

let own
function directory() {
  if (process.env.SYNCLINE_BENCH_SHARED) return process.env.SYNCLINE_BENCH_SHARED
  own ??= temporaryDirectory()
  return own
}
