// For how long does a slice of maintenance hold the write lock, at worst? As `maintain` itself reports it. Each side's file
// is made once, all of it rows, and each round maintains a copy of it; "vacuum" is that of a file of 200 MB that packing
// has emptied, and whose maintenance was stopped when it came to that.
import fs from "node:fs"
import path from "node:path"
import { measure } from "./harness.mjs"
import { fileBytes, generated, openUnprojected, recorded, removeFile } from "./unprojected.mjs"

const rows = { packing: false }

/** `make(file)` writes the file, or promises to, and closes it. */
function holdingSide(name, make) {
  let original
  let file
  return {
    name,
    syncline: true,
    async open(directory) {
      original = path.join(directory, "original.db")
      file = path.join(directory, "app.db")
      await make(original)
    },
    async sample() {
      copy(original, file)
      const before = fileBytes(file).database
      const store = openUnprojected(file, rows)
      const start = performance.now()
      const { longestHold, complete } = await store.maintain()
      const seconds = (performance.now() - start) / 1000
      store.close()
      if (!complete) throw new Error(`The maintenance of ${name} did not end`)
      const after = fileBytes(file).database
      if (after > before / 2) throw new Error(`The maintenance of ${name} left ${after} of ${before} bytes`)
      removeFile(file)
      return { figure: longestHold, more: { "MiB before": before / 2 ** 20, "MiB after": after / 2 ** 20, seconds } }
    },
  }
}

/** On the disk before anything is measured: SQLite flushes the beginning of a WAL, and would wait for all of the copy. */
function copy(original, file) {
  fs.copyFileSync(original, file)
  const descriptor = fs.openSync(file, "r+")
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
}

function writeRows(file, batches) {
  const store = openUnprojected(file, rows)
  for (const events of batches) store.replayAll(events)
  store.close()
}

const largeBytes = 16 * 1024
const largeEvents = (200 * 1000 ** 2) / largeBytes

function* largeBatches() {
  let batch = []
  for (const event of generated(Math.floor(largeEvents), 10, largeBytes)) {
    if (batch.push(event) < 1000) continue
    yield batch
    batch = []
  }
  yield batch
}

async function writeEmptied(file) {
  writeRows(file, largeBatches())
  const store = openUnprojected(file, rows)
  const atVacuum = new AbortController()
  const onProgress = ({ phase }) => phase === "vacuum" && atVacuum.abort()
  await store.maintain({ signal: atVacuum.signal, onProgress }).catch((error) => {
    if (error.code !== "ERR_ABORTED") throw error
  })
  const pages = (pragma) => store.db.pragma(pragma, { simple: true })
  const [free, all] = [pages("freelist_count"), pages("page_count")]
  store.close()
  if (free < all * 0.8) throw new Error(`Packing left ${free} of ${all} pages free, which is no emptied file`)
}

const sides = [
  holdingSide("maintain of build-output", (file) => writeRows(file, [recorded("build-output").events])),
  holdingSide("maintain of sessions", (file) => writeRows(file, [recorded("sessions").events])),
  holdingSide("maintain of 100,000 small events of one aggregate", (file) => writeRows(file, [generated(100_000)])),
  holdingSide("vacuum of 200 MB", writeEmptied),
]

await measure({
  question: "lock-hold",
  title: "longest hold of the write lock by a slice of maintenance",
  unit: "ms",
  rounds: 5,
  warmup: 0,
  sides,
  targets: sides.map(({ name }) => ({ side: name, atMost: 10 })),
})
