import { Format, SingleBar, type Options, type Params } from "cli-progress"
import { count, size } from "./text"

/** What is counted. */
export type Unit = "events" | "bytes"

/** Work that takes less is not worth a bar, in milliseconds. */
const QUICK = 200

/** Between two updates, in milliseconds. */
const PAUSE = 50

/** A bar on stderr, where that is a terminal: how far long work is, how fast, and how long it will go on. */
export class Progress {
  readonly #begun = performance.now()
  #updated = 0
  #bar: SingleBar | undefined
  #title: string

  /** `shown`: false where the command writes JSON. */
  constructor(
    title: string,
    private readonly unit: Unit,
    private readonly shown: boolean,
  ) {
    this.#title = title
  }

  /** So much has been done, of so much where that is known. */
  to(done: number, total: number | undefined, title = this.#title): void {
    const now = performance.now()
    this.#title = title
    if (!this.shown || !process.stderr.isTTY || now - this.#begun < QUICK || now - this.#updated < PAUSE) return
    this.#updated = now
    if (this.#bar === undefined) {
      this.#bar = new SingleBar({ format: this.#line, linewrap: true, clearOnComplete: true, etaBuffer: 100 })
      this.#bar.start(total ?? 0, done)
    }
    this.#bar.setTotal(total ?? 0)
    this.#bar.update(done)
  }

  /** Takes the bar away, so that something else can be written; the next update brings it back. */
  hide(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }

  readonly #line = (options: Options, { progress, value, total, eta, maxWidth }: Params): string => {
    const shown = this.unit === "bytes" ? size : count
    const seconds = (performance.now() - this.#begun) / 1000
    const unit = this.unit === "bytes" ? "" : ` ${this.unit}`
    const rate = `${shown(Math.round(value / seconds))}/s`
    if (total === 0) {
      const sofar = value === 0 ? Format.TimeFormat(Math.round(seconds), options, 1) : `${shown(value)}${unit}  ${rate}`
      return `${this.#title}  ${sofar}`.slice(0, maxWidth - 1)
    }
    const left = Number.isFinite(eta) ? `  ${Format.TimeFormat(eta, options, 1)} left` : ""
    const rest = `${Math.floor(progress * 100)} %  ${shown(value)} of ${shown(total)}${unit}  ${rate}${left}`
    const room = Math.min(40, maxWidth - this.#title.length - rest.length - 7)
    const bar = room < 5 ? "" : `[${filled(progress, room)}]  `
    return `${this.#title}  ${bar}${rest}`.slice(0, maxWidth - 1)
  }
}

function filled(progress: number, width: number): string {
  const done = Math.round(progress * width)
  return "=".repeat(done) + "-".repeat(width - done)
}
