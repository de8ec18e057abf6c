// Does `run` become slower for a writer whose commits somebody waits for: another process that hears them all, a listener
// of its own for the whole database, or a hundred followers of logs that do not move? After each run the writer comes back
// to the event loop, as a program that serves requests does, so that what the commit has woken here gets its turn, timed.
// A round with a listener in this process ends when it has heard everything; another process is waited for untimed.
import { fork } from "node:child_process"
import { once } from "node:events"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { committingSide } from "./commits.mjs"
import { measure } from "./harness.mjs"
import * as syncline from "./syncline.mjs"

const units = 2000
const followers = 100

/** `watch(store, file)` returns `{heardHere?(count), heardElsewhere?(count), end?()}`, or a promise of it. */
function watchedSide(name, watch = () => ({})) {
  let watched
  let runs = 0
  const side = committingSide({
    name,
    syncline: true,
    units,
    async openStore(file) {
      const opened = syncline.open(file)
      watched = await watch(opened.store, file)
      return {
        ...opened,
        run(data) {
          opened.run(data)
          runs++
          return new Promise(setImmediate)
        },
        async close() {
          await watched.end?.()
          opened.close()
        },
      }
    },
  })
  return {
    ...side,
    async round(prepared) {
      await side.round(prepared)
      await watched.heardHere?.(runs)
    },
    after: () => watched.heardElsewhere?.(runs),
  }
}

async function watchElsewhere(store, file) {
  const child = fork(fileURLToPath(new URL("watched-run.child.mjs", import.meta.url)), [file])
  await once(child, "message")
  return {
    async heardElsewhere(count) {
      const heard = { events: 0 }
      await untilHeard(heard, count, async () => {
        child.send("how many?")
        heard.events = (await once(child, "message"))[0]
        await pause(5)
      })
    },
    async end() {
      const exit = once(child, "exit")
      child.disconnect()
      await exit
    },
  }
}

function listen(scope) {
  return (store) => {
    const heard = { events: 0, sum: 0 }
    store.subscribeAll(
      (event) => {
        heard.events++
        heard.sum += event.data.updated
      },
      { scope },
    )
    return {
      async heardHere(count) {
        await untilHeard(heard, count, () => new Promise(setImmediate))
        if (!(heard.sum > 0)) throw new Error("The listener did not read what it heard")
      },
    }
  }
}

/** Takes steps until all is heard. Nothing but a loss reaches the deadline. */
async function untilHeard(heard, count, step) {
  for (const start = performance.now(); heard.events < count;) {
    if (performance.now() - start > 30_000) throw new Error(`Only ${heard.events} of ${count} events were heard`)
    await step()
  }
  if (heard.events > count) throw new Error(`${heard.events} events were heard where ${count} were run`)
}

async function followOthers(store) {
  const logs = Array.from({ length: followers }, (_, n) => store.log({ aggregateID: `idle-${n}`, follow: true }))
  for (const items of logs) await items.next()
  const pending = logs.map((items) => items.next())
  return {
    async end() {
      for (const items of logs) await items.return()
      for (const { done } of await Promise.all(pending)) if (!done) throw new Error("A log moved that nobody wrote")
    },
  }
}

const unwatched = "unwatched"
const watched = [
  ["a listener of this store", listen("process")],
  ["a listener of the database", listen("database")],
  [`${followers} idle followers`, followOthers],
  ["watched by another process", watchElsewhere],
]

await measure({
  question: "watched-run",
  title: "one event a commit and a turn of the event loop, by who waits for commits",
  unit: "µs/event",
  sides: [watchedSide(unwatched), ...watched.map(([name, watch]) => watchedSide(name, watch))],
  targets: watched.map(([name]) => ({ side: name, against: unwatched, atMost: 1.2 })),
})
