// How long do the slowest of 100,000 runs take while checkpoints happen? Each round is a process of its own.
import { inChild, measure } from "./harness.mjs"

function latencySide(name, options = {}) {
  return {
    name,
    ...options,
    sample() {
      const { p999, ...more } = inChild("tail-latency.child.mjs", name)
      return { figure: p999, more }
    },
  }
}

await measure({
  question: "tail-latency",
  title: "p99.9 of `run` during 100,000 runs, a process a round",
  unit: "µs",
  rounds: 5,
  warmup: 0,
  sides: [latencySide("better-sqlite3"), latencySide("syncline", { syncline: true })],
  targets: [{ side: "syncline", against: "better-sqlite3", atMost: 0.25 }],
})
