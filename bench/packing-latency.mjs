// How much longer does `run` take while packing is at work beside it, at the median and at p99.9? 100,000 runs, a process
// a round. Over 10 aggregates, of 10,000 events each, packing has something to do from the beginning to the end. Over
// 1,000 aggregates, of a hundred events each, nothing is ever old enough, and what is left is packing's looking for it.
// "by default" begins a round of packing for each MiB written, some thirty in all; "at 256 KiB" four times as many, for the
// same events, so that it is hardly ever at rest.
import { inChild, measure } from "./harness.mjs"

const settings = { "packing off": false, "packing by default": true, "packing at 256 KiB": { atBytes: 256 * 1024 } }
const spreads = [10, 1000]
const measured = new Map()

function latencySide(name, aggregates, packing) {
  return {
    name,
    syncline: true,
    sample() {
      const { p50, ...more } = inChild("tail-latency.child.mjs", "syncline", aggregates, JSON.stringify(packing))
      const works = packing !== false && aggregates === 10
      if (works !== more["events packed"] > 0) throw new Error(`${name}: ${more["events packed"]} events were packed`)
      measured.set(name, more.p999)
      return { figure: p50, more }
    },
  }
}

/** Another figure of what the side of that name has just measured: only a side's figure can have a target. */
function p999Side(name) {
  return { name: `${name}: p99.9`, syncline: true, sample: () => measured.get(name) }
}

const named = (setting, aggregates) => `${setting}, ${aggregates} aggregates`
const pairs = spreads.flatMap((aggregates) => Object.keys(settings).map((setting) => [setting, aggregates]))

await measure({
  question: "packing-latency",
  title: "median and p99.9 of `run` during 100,000 runs, a process a round",
  unit: "µs",
  rounds: 5,
  warmup: 0,
  sides: pairs.flatMap(([setting, aggregates]) => {
    const name = named(setting, aggregates)
    return [latencySide(name, aggregates, settings[setting]), p999Side(name)]
  }),
  targets: pairs
    .filter(([setting]) => settings[setting] !== false)
    .flatMap(([setting, aggregates]) => {
      const [name, against] = [named(setting, aggregates), named("packing off", aggregates)]
      return [
        { side: name, against, atMost: 1.1 },
        { side: `${name}: p99.9`, against: `${against}: p99.9`, atMost: 2 },
      ]
    }),
})
