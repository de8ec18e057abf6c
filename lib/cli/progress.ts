import { Format, SingleBar, type Options, type Params } from "cli-progress"
import { count, size } from "./text"

/** What is counted. */
export type Unit = "events" | "aggregates" | "bytes"

/** Work that takes less is not worth a bar, in milliseconds. */
const QUICK = 200

/** Between two updates, in milliseconds. */
const PAUSE = 50

/** A bar on stderr, where that is a terminal: how far long work is, how fast, and how long it will go on. */
export class Progress {
  readonly #begun = performance.now()
  readonly #shown: boolean
  /** Work that tells nothing is seen to be at work, too. */
  readonly #first: NodeJS.Timeout | undefined
  #bar: SingleBar | undefined
  #updated = 0
  #done = 0
  #total: number | undefined

  /** `wanted`: false where the command writes JSON. */
  constructor(
    private title: string,
    private readonly unit: Unit,
    wanted: boolean,
  ) {
    this.#shown = wanted && process.stderr.isTTY
    if (this.#shown) this.#first = setTimeout(() => this.#show(), QUICK).unref()
  }

  /** So much has been done, of so much where that is known. */
  to(done: number, total: number | undefined, title = this.title): void {
    this.#done = done
    this.#total = total
    this.title = title
    const now = performance.now()
    if (!this.#shown || now - this.#begun < QUICK || now - this.#updated < PAUSE) return
    this.#updated = now
    this.#show()
  }

  /** Takes the bar away, so that something else can be written; the next update brings it back. */
  hide(): void {
    clearTimeout(this.#first)
    this.#bar?.stop()
    this.#bar = undefined
  }

  #show(): void {
    const total = this.#total ?? 0
    if (this.#bar === undefined) {
      this.#bar = new SingleBar({ format: this.#line, linewrap: true, clearOnComplete: true, etaBuffer: 100 })
      this.#bar.start(total, this.#done)
    }
    this.#bar.setTotal(total)
    this.#bar.update(this.#done)
  }

  readonly #line = (options: Options, { progress, value, total, eta, maxWidth }: Params): string => {
    // Room for the ^C that a terminal shows: one that ends a line would move the bar to the next.
    const width = maxWidth - 3
    const shown = this.unit === "bytes" ? size : count
    const seconds = (performance.now() - this.#begun) / 1000
    const unit = this.unit === "bytes" ? "" : ` ${this.unit}`
    const rate = `${shown(Math.round(value / seconds))}/s`
    if (total === 0) {
      const sofar = value === 0 ? Format.TimeFormat(Math.round(seconds), options, 1) : `${shown(value)}${unit}  ${rate}`
      return `${this.title}  ${sofar}`.slice(0, width)
    }
    const left = Number.isFinite(eta) ? `  ${Format.TimeFormat(eta, options, 1)} left` : ""
    const rest = `${Math.floor(progress * 100)} %  ${shown(value)} of ${shown(total)}${unit}  ${rate}${left}`
    const room = Math.min(40, width - this.title.length - rest.length - 6)
    const bar = room < 5 ? "" : `[${filled(progress, room)}]  `
    return `${this.title}  ${bar}${rest}`.slice(0, width)
  }
}

function filled(progress: number, width: number): string {
  const done = Math.round(progress * width)
  return "=".repeat(done) + "-".repeat(width - done)
}
