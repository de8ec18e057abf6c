// Interleaved rounds: A B C A B C …, so that a machine that slows down slows all sides. A ratio is the median of the
// rounds' own ratios, each side's figure divided by its rival's of the same round; it moves less than a ratio of medians.
import { execFileSync } from "node:child_process"
import fs from "node:fs"
import os from "node:os"
import path from "node:path"
import { fileURLToPath } from "node:url"

/** Where each question leaves its figures as JSON. */
export const resultsDirectory = fileURLToPath(new URL(".results/", import.meta.url))

/**
 * Measures one question, prints its table and writes `.results/<question>.json`.
 *
 * `sides`: `{name, syncline?, open?(directory), prepare?(), round(prepared), units, after?(), close?()}`. `open` runs
 * once, in a directory of its own. `prepare` and `after` run untimed around each round. A `round` is timed and its figure
 * is microseconds divided by `units`; a side with `sample` instead of `round` returns its own figure, or
 * `{figure, more: {name: number}}`. `syncline` marks the sides that `--rivals` leaves out.
 * `targets`: `{side, against?, atMost, goal?, assert?}`: the ratio to `against`, or without it the figure itself. A
 * target with `assert` that is missed makes the process fail. `rounds` defaults to 9, or
 * `SYNCLINE_BENCH_ROUNDS`; `warmup` to 2.
 */
export async function measure({ question, title, unit, sides, targets = [], rounds = 9, warmup = 2 }) {
  const wanted = process.env.SYNCLINE_BENCH_RIVALS ? sides.filter((side) => !side.syncline) : sides
  if (wanted.length === 0) return console.log(`${question}: no rival takes part in it\n`)
  rounds = Number(process.env.SYNCLINE_BENCH_ROUNDS ?? rounds)
  const directory = temporaryDirectory()
  const opened = []
  try {
    for (const side of wanted) {
      const own = path.join(directory, side.name.replace(/[^a-z0-9]+/gi, "-"))
      fs.mkdirSync(own, { recursive: true })
      await side.open?.(own)
      opened.push(side)
    }
    const samples = new Map(wanted.map((side) => [side.name, []]))
    for (let round = -warmup; round < rounds; round++) {
      for (const side of wanted) {
        const sample = await oneRound(side)
        if (round >= 0) samples.get(side.name).push(sample)
      }
    }
    const result = summarize({ question, title, unit, rounds, targets }, wanted, samples)
    console.log(textTable(result))
    fs.mkdirSync(resultsDirectory, { recursive: true })
    fs.writeFileSync(path.join(resultsDirectory, `${question}.json`), JSON.stringify(result, null, 2) + "\n")
    if (result.targets.some((target) => target.assert && !target.met)) process.exitCode = 1
    return result
  } finally {
    for (const side of opened.toReversed()) await side.close?.()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** Runs a file of this folder in a process of its own and returns the JSON that it prints last. */
export function inChild(file, ...parameters) {
  const script = fileURLToPath(new URL(file, import.meta.url))
  const output = execFileSync(process.execPath, ["--expose-gc", script, ...parameters.map(String)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  })
  return JSON.parse(output.trim().split("\n").at(-1))
}

/** A new directory on a disk: `SYNCLINE_BENCH_DIRECTORY`, or the system's own unless that is memory. */
export function temporaryDirectory() {
  const beside = fileURLToPath(new URL(".cache/", import.meta.url))
  const parent = process.env.SYNCLINE_BENCH_DIRECTORY ?? (isMemory(os.tmpdir()) ? beside : os.tmpdir())
  fs.mkdirSync(parent, { recursive: true })
  return fs.mkdtempSync(path.join(parent, "syncline-bench-"))
}

/** The questions' tables and targets in Markdown, as `RESULTS.md` holds them. */
export function markdownTable(results) {
  const lines = ["| question | side | median | min – max | ratio | target |", "| --- | --- | --- | --- | --- | --- |"]
  for (const result of results) {
    for (const side of result.sides) {
      const targets = result.targets.filter((target) => target.side === side.name)
      const ratios = targets.filter((target) => target.against)
      const first = side === result.sides[0] ? `${result.question}: ${result.title}` : ""
      const ratioText = ratios.map((target) => `${digits(target.got)} of ${target.against}`).join("<br>")
      const targetText = targets.map((target) => verdict(target)).join("<br>")
      const more = Object.entries(side.more)
      const moreText = more.length ? ` (${more.map(([name, value]) => `${name} ${digits(value)}`).join(", ")})` : ""
      const median = `${digits(side.median)} ${result.unit}${moreText}`
      const spread = `${digits(side.min)} – ${digits(side.max)}`
      lines.push(`| ${first} | ${side.name} | ${median} | ${spread} | ${ratioText} | ${targetText} |`)
    }
  }
  return lines.join("\n")
}

/** The machine that measured, in one line: RESULTS.md names it above the table. */
export function machine() {
  const cpu = os.cpus()[0]?.model.trim() ?? "unknown processor"
  return `${os.cpus().length} × ${cpu}, Node ${process.version}, ${os.platform()} ${os.arch()}`
}

async function oneRound(side) {
  const prepared = await side.prepare?.()
  globalThis.gc?.()
  let sample
  if (side.sample) {
    const value = await side.sample(prepared)
    sample = typeof value === "number" ? { figure: value, more: {} } : value
  } else {
    const start = process.hrtime.bigint()
    const pending = side.round(prepared)
    if (typeof pending?.then === "function") await pending
    const elapsed = Number(process.hrtime.bigint() - start)
    sample = { figure: elapsed / 1000 / side.units, more: {} }
  }
  await side.after?.()
  // A checkpoint on a background thread must not run on into the next side's round.
  await new Promise((resolve) => setTimeout(resolve, 50))
  return sample
}

function summarize(head, sides, samples) {
  const figures = (name) => samples.get(name).map((sample) => sample.figure)
  return {
    ...head,
    date: new Date().toISOString(),
    machine: machine(),
    sides: sides.map((side) => {
      const own = figures(side.name)
      const names = Object.keys(samples.get(side.name)[0].more)
      const more = names.map((name) => [name, median(samples.get(side.name).map((sample) => sample.more[name]))])
      return {
        name: side.name,
        units: side.units,
        median: median(own),
        min: Math.min(...own),
        max: Math.max(...own),
        more: Object.fromEntries(more),
        samples: own,
      }
    }),
    targets: head.targets
      .filter(({ side, against }) => samples.has(side) && (!against || samples.has(against)))
      .map((target) => {
        const own = figures(target.side)
        const rival = target.against ? figures(target.against) : own.map(() => 1)
        const ratios = own.map((figure, round) => figure / rival[round])
        const got = median(ratios)
        return { ...target, got, min: Math.min(...ratios), max: Math.max(...ratios), met: got <= target.atMost }
      }),
  }
}

function textTable(result) {
  const rows = [["", result.unit, "min", "max", ...Object.keys(result.sides[0].more)]]
  for (const side of result.sides) {
    const values = [side.median, side.min, side.max, ...Object.values(side.more)]
    rows.push([side.name, ...values.map(digits)])
  }
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)))
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]))).join("   "),
  )
  for (const target of result.targets) {
    const of = target.against ? ` of ${target.against} (${digits(target.min)} – ${digits(target.max)})` : ""
    lines.push(`${target.side}: ${digits(target.got)}${of}, ${verdict(target)}`)
  }
  return `${result.question}: ${result.title} (${result.rounds} rounds)\n${lines.join("\n")}\n`
}

function verdict(target) {
  const goal = target.goal === undefined ? "" : ` (goal ${digits(target.goal)})`
  return `at most ${digits(target.atMost)}${goal}: ${target.met ? "met" : "MISSED"}`
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

function digits(value) {
  if (!Number.isFinite(value)) return String(value)
  if (Number.isInteger(value)) return String(value)
  return value.toFixed(Math.abs(value) < 0.1 ? 4 : Math.abs(value) < 10 ? 2 : Math.abs(value) < 1000 ? 1 : 0)
}

function isMemory(directory) {
  const magic = fs.statfsSync(directory).type
  return magic === 0x01021994 || magic === 0x858458f6
}
