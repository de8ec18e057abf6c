// How long after another process began to run an event does this one's callback hear it, a process a round for each?
// Idle: a commit each 45 ms, give or take 20, between which nothing happens. Busy: as fast as the other process can.
//
// A latency goes from the call of `run` to the first statement of the callback, so it contains the run itself and flatters
// nobody; "from return" goes from the moment `run` returned, which another process may precede. Both sides read the same
// clock: `process.hrtime` is CLOCK_MONOTONIC on Linux and macOS and the performance counter on Windows, which are the
// machine's and not the process's, and each round checks that before it trusts it. The writer keeps its times until
// all is heard, so nothing but the event itself goes from one process to the other meanwhile.
import { inChild, measure } from "./harness.mjs"

const paces = { idle: 200, busy: 10_000 }
const measured = new Map()

function latencySide(name, pace, options = {}) {
  return {
    name: `${name}, ${pace}`,
    ...options,
    sample() {
      const { median, ...more } = inChild("foreign-latency.child.mjs", name, pace, paces[pace])
      measured.set(`${name}, ${pace}`, more)
      return { figure: median, more }
    },
  }
}

/** Another figure of what the side of that name has just measured: only a side's figure can have a target. */
function p99Side(name, pace, options = {}) {
  return { name: `${name}, ${pace}: p99`, ...options, sample: () => measured.get(`${name}, ${pace}`).p99 }
}

const ours = { syncline: true }
const listeners = [["syncline subscribeAll", ours], ["syncline log", ours], ["better-sqlite3 each 10 ms"]]

await measure({
  question: "foreign-latency",
  title: "from `run` in another process to the callback here",
  unit: "ms",
  rounds: 2,
  warmup: 0,
  sides: Object.keys(paces).flatMap((pace) =>
    listeners.flatMap(([name, options]) => [latencySide(name, pace, options), p99Side(name, pace, options)]),
  ),
  targets: listeners
    .filter(([, options]) => options === ours)
    .flatMap(([name]) => [
      { side: `${name}, idle`, atMost: 10 },
      { side: `${name}, idle: p99`, atMost: 50 },
    ]),
})
