// The process that `idle-cpu` starts for each side: opens a file, waits, and prints what the waiting took as JSON.
import fs from "node:fs"
import path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { temporaryDirectory } from "./harness.mjs"
import { primers } from "./workload.mjs"

/** How long it waits for what the opening has left to the compiler, the collector and the checkpoints, and then is measured. */
const settling = 2
const seconds = 20
const events = 100

const [name] = process.argv.slice(2)
const ours = name.startsWith("syncline")
const { open } = await import(ours ? "./syncline.mjs" : "./rivals/better-sqlite3.mjs")
const { poll } = ours ? {} : await import("./rivals/polling.mjs")
const watching = name !== "syncline, not watching"

const directory = temporaryDirectory()
try {
  const file = path.join(directory, "app.db")
  const side = open(file)
  let heard = 0
  const hear = () => void heard++
  const stop = poll ? poll(file, hear) : watching ? side.store.subscribeAll(hear, { scope: "database" }) : () => {}
  const other = open(file)
  for (const data of primers(events)) other.run(data)
  other.close()
  await pause(settling * 1000)
  if (heard !== (watching ? events : 0)) throw new Error(`${name} heard ${heard} of ${events} events`)
  globalThis.gc?.()
  const before = process.resourceUsage()
  await pause(seconds * 1000)
  const after = process.resourceUsage()
  stop()
  side.close()
  const perSecond = (field) => (after[field] - before[field]) / seconds
  console.log(
    JSON.stringify({
      figure: (perSecond("userCPUTime") + perSecond("systemCPUTime")) / 1000,
      "voluntary switches/s": perSecond("voluntaryContextSwitches"),
    }),
  )
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}
