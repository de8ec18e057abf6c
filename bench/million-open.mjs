// How long do the opening of a file with 1,000,000 events over 1,000 aggregates, the first `run` and `stats` take, each in
// a process that has just started and loaded the module, with the events as rows and packed? The file is in the operating
// system's cache.
import fs from "node:fs"
import path from "node:path"
import { inChild, measure, temporaryDirectory } from "./harness.mjs"
import { events, millionFile, removeMillionFiles } from "./million.mjs"
import * as syncline from "./syncline.mjs"

const directory = temporaryDirectory()
const files = {
  rows: path.join(directory, "rows.db"),
  packed: path.join(directory, "packed.db"),
}
const measured = new Map()

async function makeFiles() {
  // Copies: what the first `run` adds must not be in the other questions' file.
  for (const file of Object.values(files)) fs.copyFileSync(millionFile("syncline", syncline.openRows), file)
  const { store, close } = syncline.openRows(files.packed)
  await store.maintain()
  close()
}

/** The sides of one file: `open` starts the process, and the others are further figures of it. */
function sidesOf(state) {
  return asked.map((step) => ({
    name: `${step}, ${state}`,
    syncline: true,
    sample() {
      if (step === "open") measured.set(state, inChild("million-open.child.mjs", files[state]))
      const { MiB, rows, [step]: figure } = measured.get(state)
      if (rows >= events !== (state === "rows")) throw new Error(`The file "${state}" has ${rows} events as rows`)
      return { figure, more: { "file MiB": MiB } }
    },
  }))
}

function hasStats() {
  const { store, close } = syncline.open(":memory:")
  close()
  return typeof store.stats === "function"
}

const asked = syncline.present ? ["open", "first run", ...(hasStats() ? ["stats"] : [])] : []
try {
  if (syncline.present) await makeFiles()
  const sides = Object.keys(files).flatMap(sidesOf)
  await measure({
    question: "million-open",
    title: "open, first `run` and `stats` on 1,000,000 events over 1,000 aggregates, a process a round",
    unit: "ms",
    rounds: 5,
    warmup: 1,
    sides,
    targets: sides.map(({ name }) => ({ side: name, atMost: 50 })),
  })
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
  removeMillionFiles()
}
