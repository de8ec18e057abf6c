import type { FollowDetail, FollowStatus } from "../follow/following"
import type { Store } from "../store"
import { EXIT, described } from "./failure"
import type { Output } from "./output"
import type { Progress } from "./progress"
import { counted, printable } from "./text"
import { noteUnprojected, warnOfLeft } from "./unapplied"
import { watched } from "./watched"

/** What goes on until it is stopped: one log that keeps up with another. */
export interface Followed {
  /** Where the other one is, as it is told. */
  readonly place: string
  /** It ends when it has caught up, or when the other side cannot be reached. */
  readonly once: boolean | undefined
  /** Whether it brings events here, which are counted; else it takes them there. */
  readonly brings: boolean
  /** What is told of an aggregate that stays behind, after its id. */
  readonly left: string
  readonly start: (told: Told) => Promise<void>
}

/** How what the program has to project is taken: it is stored, and counted. */
export const STORED = { unknown: "record", publish: true } as const

/** What is told of an aggregate that could not be taken. */
export const LEFT = "was left as it was"

/** How it is ended, and whom it tells. */
export interface Told {
  readonly signal: AbortSignal
  readonly onStatus: (status: FollowStatus, detail: FollowDetail) => void
  readonly onError: (error: unknown, about: { aggregateID?: string }) => void
}

/** Follows until a signal ends it, and answers with what the command exits. */
export async function followed(output: Output, store: Store, what: Followed): Promise<number> {
  const following = new Following(output, store, what)
  await watched(output, DOING.connecting, "events", (progress, signal) => following.run(progress, signal))
  return following.left.size === 0 ? EXIT.done : EXIT.findings
}

const DOING: Record<FollowStatus, string> = {
  connecting: "Connecting",
  "catching-up": "Catching up",
  live: "Live",
  waiting: "Waiting for the server",
  stopped: "Stopped",
}

/** Between two looks at how far it is, in milliseconds. */
const LOOK = 100

/** One call, and what is told of it. */
class Following {
  /** The aggregates that stay behind. */
  readonly left = new Set<string>()
  readonly #stop = new AbortController()
  #printing = Promise.resolve()
  #applied = 0
  #status: FollowStatus | undefined
  /** Of the bar. */
  #title = DOING.connecting
  /** With --once: why it was given up. */
  #failure: unknown
  /** That what it stores waits for the program. */
  #hasNoted = false
  /** What was told of the last attempt that failed. */
  #told: string | undefined

  constructor(
    private readonly output: Output,
    private readonly store: Store,
    private readonly what: Followed,
  ) {}

  /** Until the signal, which is its end where it has caught up; before that it is interrupted. */
  async run(progress: Progress, signal: AbortSignal): Promise<void> {
    const undo = this.store.subscribeAll(() => void this.#applied++)
    const looking = setInterval(() => this.#isLive || progress.to(this.#applied, undefined, this.#title), LOOK)
    try {
      await this.what.start({
        signal: AbortSignal.any([signal, this.#stop.signal]),
        onStatus: (status, detail) => this.#hear(status, detail),
        onError: (error, { aggregateID }) => this.#error(error, aggregateID),
      })
    } finally {
      clearInterval(looking)
      undo()
    }
    await this.#printing
    if (this.#failure !== undefined) throw this.#failure
    if (signal.aborted && !this.#isLive) throw signal.reason
    if (signal.aborted) await this.output.note(`Stopped: ${this.#said()}.`)
  }

  get #isLive(): boolean {
    return this.#status === "live"
  }

  #hear(status: FollowStatus, { error, ...detail }: FollowDetail): void {
    // It has been given its end, and nobody waits for a word.
    if (status === "stopped" || status === this.#status) return
    this.#status = status
    this.#title = DOING[status]
    if (this.output.json) {
      const count = this.what.brings ? { applied: this.#applied } : {}
      const told = error === undefined ? {} : { error: described(error) }
      this.#print(() => this.output.printJSON({ status, ...count, ...detail, ...told }))
    } else this.#tell(status, error)
    if (!this.what.once) return
    if (status === "waiting") this.#failure = error
    if (status === "waiting" || status === "live") this.#stop.abort()
  }

  /** For people, to whom attempts are no news. */
  #tell(status: FollowStatus, error: unknown): void {
    if (status === "live") this.#print(() => this.#tellLive())
    else if (status === "waiting") this.#tellWaiting(error)
    else if (status === "connecting" && this.#told === undefined) {
      this.#print(() => this.output.print(`Connecting to ${printable(this.what.place)}.`))
    }
  }

  async #tellLive(): Promise<void> {
    this.#told = ""
    await this.output.print(`${this.what.once ? "Up to date" : "Live"}: ${this.#said()}.`)
    // Once: it comes back with each connection.
    if (this.what.brings && !this.#hasNoted) await noteUnprojected(this.output, this.store)
    this.#hasNoted = true
  }

  /** Once, and again where there is another reason. */
  #tellWaiting(error: unknown): void {
    const { message } = described(error)
    if (this.#told === message || this.what.once) return
    this.#told = message
    this.#print(() => this.output.warn(`${message}. Trying until it is there again.`))
  }

  #error(error: unknown, aggregateID: string | undefined): void {
    if (aggregateID === undefined)
      return this.#print(() => this.output.warn(described(error).message, described(error)))
    this.left.add(aggregateID)
    this.#print(() => warnOfLeft(this.output, [{ aggregateID, error }], this.what.left))
  }

  #said(): string {
    if (this.what.brings) return counted(this.#applied, "new event")
    return this.left.size === 0 ? "everything is published" : "everything else is published"
  }

  /** In their order; one that nobody can read any more ends all. */
  #print(write: () => Promise<void>): void {
    this.#printing = this.#printing.then(write)
    this.#printing.catch(() => this.#stop.abort())
  }
}
