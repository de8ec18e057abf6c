// What does one of 100,000 events cost a device that catches up over HTTP, beside a replay of the same events from memory?
// And how much memory does the server take for it?
import { fork } from "node:child_process"
import { once } from "node:events"
import fs from "node:fs"
import path from "node:path"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"
import { serializedEvents } from "./workload.mjs"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { follow } = packageRequire("syncline/http")
const EVENTS = 100_000
const input = serializedEvents(EVENTS, 1000)

/** One that each round begins with an empty file. */
function emptySide(name) {
  let file
  let opened
  return {
    name,
    syncline: true,
    open: (directory) => (file = path.join(directory, "app.db")),
    prepare: () => (opened = syncline.open(file, { projectors: syncline.sqlProjector() })),
    after() {
      opened.store.close()
      for (const suffix of ["", "-wal", "-shm"]) fs.rmSync(file + suffix, { force: true })
    },
    units: EVENTS,
  }
}

let child
async function ask(word) {
  child.send(word)
  const [answer] = await once(child, "message")
  return answer
}

const replaying = {
  ...emptySide("replayAll of the same events"),
  round(opened) {
    if (opened.replayAll(input) !== EVENTS) throw new Error("not all events were applied")
  },
}
const following = emptySide("follow, from the first request until live")
let url
const followingSide = {
  ...following,
  async open(directory) {
    following.open(directory)
    const served = path.join(directory, "served.db")
    const opened = syncline.open(served, { projectors: syncline.sqlProjector() })
    opened.replayAll(input)
    opened.store.close()
    child = fork(fileURLToPath(new URL("sync-server.child.mjs", import.meta.url)), [served], {
      execArgv: ["--expose-gc"],
    })
    url = (await once(child, "message"))[0].url
  },
  async sample({ store }) {
    const { idle } = await ask("idle")
    const stop = new AbortController()
    const started = process.hrtime.bigint()
    await new Promise((resolve, reject) => {
      const onStatus = (status) => status === "live" && resolve()
      follow(store, { url, signal: stop.signal, onStatus, onError: reject }).catch(reject)
    })
    const figure = Number(process.hrtime.bigint() - started) / 1000 / EVENTS
    stop.abort()
    const held = [...store.sequences().values()].reduce((sum, seq) => sum + seq + 1, 0)
    if (held !== EVENTS) throw new Error(`${held} of ${EVENTS} events arrived`)
    const { peak } = await ask("peak")
    return { figure, more: { "server MB over idle": (peak - idle) / 1e6 } }
  },
  close() {
    child.send("end")
  },
}

await measure({
  question: "sync-catch-up",
  title: "catching up with 100,000 events over 1,000 aggregates from a server in another process, SQL projector",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [replaying, followingSide],
  targets: [{ side: followingSide.name, against: replaying.name, atMost: 2 }],
})
