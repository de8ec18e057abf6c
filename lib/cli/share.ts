import { Argument, Option, type Command } from "commander"
import type { FollowDetail, FollowStatus } from "../follow/following"
import { follow } from "../http/client/follow"
import { push } from "../http/client/push"
import { checkAddress } from "../http/client/remote"
import type { Store } from "../store"
import { DB, addCommand, does, repeatedOption } from "./command"
import { withStore } from "./database"
import { EXIT, described } from "./failure"
import type { Output } from "./output"
import type { Progress } from "./progress"
import { counted, printable } from "./text"
import { addTokenOptions, tokenOf, type TokenOptions } from "./token"
import { noteUnprojected, warnOfLeft } from "./unapplied"
import { watched } from "./watched"

const URL_ARGUMENT = new Argument("<url>", "the server's address: https://example.org")

/** `follow`, `push`: a log and a server. */
export function addShare(program: Command): void {
  const following = addCommand(program, "follow", {
    summary: "keep a log up with a server's",
    about: `Catches up, then takes what is recorded there as it comes, over broken connections, until Ctrl-C. Makes the database
where there is none. Events are stored and not projected: the program does that with \`reproject\`, and until then it cannot
write those aggregates. An aggregate that cannot go on is told of, and others do (exit code 3).`,
    examples: [
      ["follow app.db https://example.org --token-file token.txt", "everything, until Ctrl-C"],
      ["follow app.db https://example.org --aggregate ses_1 --once", "one session, as it is now"],
    ],
  })
    .addArgument(DB)
    .addArgument(URL_ARGUMENT)
  addTokenOptions(following)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "claim what it brings for this owner; leave what another one owns"))
    .option("--once", "end when it has caught up, or when the server cannot be reached")
  does(following, (output, options: FollowFlags, db: string, url: string) => {
    // Before a database is made for it.
    const token = tokenOf(options)
    checkAddress({ url, token })
    return withStore(db, "create", async (store) => {
      const following = new Following(output, store, { ...options, url, token })
      await watched(output, DOING.connecting, "events", (progress, signal) => following.run(progress, signal))
      return following.left.size === 0 ? EXIT.done : EXIT.findings
    })
  })

  const pushing = addCommand(program, "push", {
    summary: "send a server what it lacks of a log",
    about: `Asks what the server has, and sends what is newer, in batches; whatever interrupts it, another call goes on where the
server stands. An aggregate that the server refuses is told of, and others are sent (exit code 3).`,
    examples: [
      ["push app.db https://example.org --token-file token.txt", "everything that is newer"],
      ["push app.db https://example.org --aggregate ses_1 --owner laptop", "one session, claimed there for laptop"],
    ],
  })
    .addArgument(DB)
    .addArgument(URL_ARGUMENT)
  addTokenOptions(pushing)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "claim what it sends for this owner, on the server"))
  does(pushing, pushLog)
}

interface PushFlags extends TokenOptions {
  aggregate?: string[]
  owner?: string
}

async function pushLog(output: Output, flags: PushFlags, db: string, url: string): Promise<number> {
  const { aggregate: aggregates, owner } = flags
  const token = tokenOf(flags)
  return withStore(db, "read", async (store) => {
    const { refused, ...result } = await watched(output, "Pushing", "events", (progress, signal) => {
      const onProgress = ({ events, total }: { events: number; total: number }) => progress.to(events, total)
      return push(store, { url, token, aggregates, owner, signal, onProgress })
    })
    const { aggregates: accepted, events, applied, duplicate } = result
    if (output.json) {
      const left = refused.map(({ aggregateID, error }) => ({ aggregateID, ...described(error) }))
      await output.printJSON({ ...result, refused: left })
    } else {
      const sent = `Pushed ${counted(events, "event")} of ${counted(accepted, "aggregate")}`
      const known =
        duplicate === 0
          ? ""
          : `: ${counted(applied, "was new", "were new")}, ${counted(duplicate, "was", "were")} there already`
      await output.print(`${sent}${known}.`)
    }
    await warnOfLeft(output, refused, "was refused by the server")
    return refused.length === 0 ? EXIT.done : EXIT.findings
  })
}

interface FollowFlags extends TokenOptions {
  aggregate?: string[]
  owner?: string
  once?: boolean
}

/** What is followed, and how; the address and the token have been looked at. */
interface Wanted extends Omit<FollowFlags, keyof TokenOptions> {
  url: string
  token: string | undefined
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

/** One call of `follow`, and what is told of it. */
class Following {
  /** The aggregates that stay behind. */
  readonly left = new Set<string>()
  readonly #stop = new AbortController()
  #printing = Promise.resolve()
  #applied = 0
  #isLive = false
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
    private readonly flags: Wanted,
  ) {}

  /** Until the signal, which is its end where it has caught up; before that it is interrupted. */
  async run(progress: Progress, signal: AbortSignal): Promise<void> {
    const { store, flags } = this
    const undo = store.subscribeAll(() => void this.#applied++)
    const looking = setInterval(() => this.#isLive || progress.to(this.#applied, undefined, this.#title), LOOK)
    try {
      await follow(store, {
        url: flags.url,
        token: flags.token,
        aggregates: flags.aggregate,
        owner: flags.owner,
        unknown: "record",
        publish: true,
        signal: AbortSignal.any([signal, this.#stop.signal]),
        onStatus: (status, detail) => this.#status(status, detail),
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

  #status(status: FollowStatus, { error, ...detail }: FollowDetail): void {
    // It has been given its end, and nobody waits for a word.
    if (status === "stopped") return
    this.#isLive = status === "live"
    this.#title = DOING[status]
    if (this.output.json) {
      const told = error === undefined ? {} : { error: described(error) }
      this.#print(() => this.output.printJSON({ status, applied: this.#applied, ...detail, ...told }))
    } else this.#tell(status, error)
    if (!this.flags.once) return
    if (status === "waiting") this.#failure = error
    if (status === "waiting" || status === "live") this.#stop.abort()
  }

  /** For people, to whom attempts are no news. */
  #tell(status: FollowStatus, error: unknown): void {
    if (status === "live") this.#print(() => this.#tellLive())
    else if (status === "waiting") this.#tellWaiting(error)
    else if (status === "connecting" && this.#told === undefined) {
      this.#print(() => this.output.print(`Connecting to ${printable(this.flags.url)}.`))
    }
  }

  async #tellLive(): Promise<void> {
    this.#told = ""
    await this.output.print(`${this.flags.once ? "Up to date" : "Live"}: ${this.#said()}.`)
    // Once: it comes back with each connection.
    if (!this.#hasNoted) await noteUnprojected(this.output, this.store)
    this.#hasNoted = true
  }

  /** Once, and again where there is another reason. */
  #tellWaiting(error: unknown): void {
    const { message } = described(error)
    if (this.#told === message || this.flags.once) return
    this.#told = message
    this.#print(() => this.output.warn(`${message}. Trying until it is there again.`))
  }

  #error(error: unknown, aggregateID: string | undefined): void {
    if (aggregateID === undefined)
      return this.#print(() => this.output.warn(described(error).message, described(error)))
    this.left.add(aggregateID)
    this.#print(() => warnOfLeft(this.output, [{ aggregateID, error }]))
  }

  #said(): string {
    return `${counted(this.#applied, "new event")}`
  }

  /** In their order; one that nobody can read any more ends all. */
  #print(write: () => Promise<void>): void {
    this.#printing = this.#printing.then(write)
    this.#printing.catch(() => this.#stop.abort())
  }
}
