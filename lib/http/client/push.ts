import { checkAggregateIDs, checkFunction, checkInteger, checkOptions, checkOwner, checkSignal } from "../../argument"
import type { WriteContext } from "../../context"
import { SyncError, invalidArgument, show } from "../../errors"
import { lines } from "../../lines"
import { Store } from "../../store"
import { Backoff, pause, type BackoffOptions } from "../../follow/backoff"
import { positions } from "./positions"
import { pieces, receiverOf, split, type Part, type Receiver } from "./receiver"
import { REMOTE_OPTIONS, Remote, checkAddress, retryAfterOf, type Address, type RemoteOptions } from "./remote"

/**
 * What `push` takes.
 * @example
 * const options: PushOptions = { ...remote, aggregates: ["ses_2"], batch: 64 * 1024 }
 * const { events } = await push(phone, options)
 * events // → 0
 */
export interface PushOptions extends RemoteOptions {
  /** These aggregates alone. Default: all. */
  aggregates?: readonly string[] | ReadonlySet<string> | undefined
  /** As in `replay`, on the server: the owner that the events come from. Default: none. */
  owner?: string | undefined
  /** As in `replay`, on the server: a lower one than is stored is refused, a higher one adopted. Default: not looked at. */
  epoch?: number | undefined
  /** Ends it: `ERR_ABORTED`. What has been sent stays; another call goes on behind it. */
  signal?: AbortSignal | undefined
  /** Called after each request. What it throws ends it, and rejects. */
  onProgress?: ((progress: PushProgress) => void) | undefined
  /** Bytes of a request, about, before they are compressed. A request is one transaction on the server. Default 1 MiB. */
  batch?: number | undefined
  /** Pauses before what failed on the way is tried again. */
  backoff?: BackoffOptions | undefined
}

/**
 * What a push has done so far.
 * @example
 * phone.run(Created, { sessionID: "ses_2", title: "Untitled" })
 * const onProgress = ({ events, total }: PushProgress) => console.log(events, total)
 * await push(phone, { ...remote, onProgress }) // prints 1 1
 */
export interface PushProgress {
  /** Of how many aggregates something was accepted. */
  aggregates: number
  /** How many events were sent and accepted. */
  events: number
  /** How many of all items, events, gaps and removals, the server says were new; an older one does not say. */
  applied: number
  /** How many it had already. */
  duplicate: number
  /** How many aggregates it refused. */
  refused: number
  /** How many seqs it lacked at the beginning: about so many events there are to send. */
  total: number
}

/**
 * What a push has done.
 * @example
 * const { events, refused }: PushResult = await push(phone, remote)
 * refused // → []
 */
export interface PushResult extends Omit<PushProgress, "refused" | "total"> {
  /** The aggregates that the server refused, from some event on, while it took the others. */
  refused: { aggregateID: string; error: SyncError }[]
}

/**
 * Sends a server what it lacks of this store: events, gaps and removals, in batches. It asks first what the server has, so
 * that another call, and any attempt after a broken connection, goes on where the server stands. An older server cannot be
 * asked, and is sent everything; nor can it be told of gaps and removals, so that aggregates which have some are refused.
 *
 * An aggregate that the server refuses is left there, and named in the result. Rejects with `ERR_INVALID_ARGUMENT`,
 * `ERR_CLOSED`, `ERR_ABORTED`; `ERR_UNAUTHORIZED`, `ERR_FORBIDDEN`, `ERR_PROTOCOL`, `ERR_NOT_FOUND`; with
 * `ERR_UNREACHABLE` where nobody answers, or eight attempts in a row have failed, and likewise with what a busy server says.
 * @example
 * phone.run(Created, { sessionID: "ses_2", title: "Untitled" })
 * await push(phone, remote) // → { aggregates: 1, events: 1, applied: 1, duplicate: 0, refused: [] }
 * store.sequence("ses_2") // → 0
 */
export async function push<Tx>(store: Store<Tx>, options: PushOptions): Promise<PushResult> {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`push needs a store, not ${show(store)}`)
  const settings = checkPush(options)
  context.transactions.assertUsable("push")
  return await new Pushing(store, context, settings).run()
}

interface Settings {
  readonly address: Address
  readonly aggregates: ReadonlySet<string> | undefined
  /** Of the request. */
  readonly query: URLSearchParams
  readonly signal: AbortSignal | undefined
  readonly onProgress: PushOptions["onProgress"]
  readonly batch: number
  readonly backoff: Backoff
}

const PUSH_OPTIONS = [...REMOTE_OPTIONS, "aggregates", "owner", "epoch", "signal", "onProgress", "batch", "backoff"]

function checkPush(options: PushOptions): Settings {
  const given = checkOptions("push", options, PUSH_OPTIONS)
  const { aggregates, epoch, signal, onProgress, batch = 1024 * 1024, backoff } = given
  const owner = checkOwner("owner", given.owner)
  const query = new URLSearchParams()
  if (owner !== null) query.set("owner", owner)
  if (epoch !== undefined) query.set("epoch", String(checkInteger("epoch", epoch, owner === null ? 0 : 1)))
  return {
    address: checkAddress(given),
    aggregates: aggregates === undefined ? undefined : checkAggregateIDs("aggregates", aggregates),
    query,
    signal: checkSignal(signal),
    onProgress: checkFunction("onProgress", onProgress),
    batch: checkInteger("batch", batch, 1, MAX_BATCH),
    backoff: new Backoff(backoff),
  }
}

/** What a server takes at once, unless it is told otherwise. */
const MAX_BATCH = 64 * 1024 * 1024

/** Without anything being accepted between them. */
const MAX_FAILURES = 8

/** One call of `push`: passes over the log, until one comes to its end. */
class Pushing {
  readonly #stop = new AbortController()
  readonly #refused = new Map<string, SyncError>()
  readonly #accepted = new Set<string>()
  #events = 0
  #applied = 0
  #duplicate = 0
  #total: number | undefined

  /**
   * Of these the last event that the server has comes along, and is compared there: two histories of one aggregate must be
   * found out, not put one on the other.
   */
  readonly #compared = new Set<string>()

  constructor(
    private readonly store: Pick<Store, "get" | "sequences">,
    private readonly context: WriteContext,
    private readonly settings: Settings,
  ) {}

  async run(): Promise<PushResult> {
    const { signal } = this.settings
    const aborted = () =>
      this.#stop.abort(new SyncError("ERR_ABORTED", "The push was aborted", { cause: signal?.reason }))
    const closed = () => this.#stop.abort(new SyncError("ERR_CLOSED", "The store was closed during a push"))
    const undo = this.context.transactions.onClose(closed)
    signal?.addEventListener("abort", aborted)
    if (signal?.aborted) aborted()
    try {
      while (!(await this.#attempt()));
    } finally {
      undo()
      signal?.removeEventListener("abort", aborted)
    }
    const refused = [...this.#refused].map(([aggregateID, error]) => ({ aggregateID, error }))
    return { ...this.#counts(), refused }
  }

  /** One pass, or the pause after what it failed with. Answers whether it came to its end. */
  async #attempt(): Promise<boolean> {
    const { backoff, address } = this.settings
    const { signal } = this.#stop
    try {
      await this.#pass(new Remote(address, signal))
      return true
    } catch (error) {
      const answered = this.#total !== undefined
      if (signal.aborted || !isPassing(error, answered) || backoff.failures >= MAX_FAILURES - 1) throw error
      await pause(backoff.next(retryAfterOf(error)), signal)
      if (signal.aborted) throw signal.reason
      return false
    }
  }

  /** What the server lacks now, in the order of the aggregates' creation. */
  async #pass(remote: Remote): Promise<void> {
    const { aggregates, query, batch } = this.settings
    const held = await positions(remote, aggregates)
    const has = (aggregateID: string) => held?.get(aggregateID)?.seq
    this.#total ??= this.#lacking(has)
    const own = this.store.sequences(aggregates)
    const after = (aggregateID: string) => {
      const last = has(aggregateID)
      if (last === undefined || last < 0 || last >= (own.get(aggregateID) ?? -1)) return last
      if (this.store.get(aggregateID, last) === undefined) return last
      this.#compared.add(aggregateID)
      return last - 1
    }
    const receiver = receiverOf(remote, query, held === undefined)
    let parts: Part[] = []
    let size = 0
    const flush = async () => {
      await this.#send(receiver, parts)
      parts = []
      size = 0
    }
    for (const page of lines(this.context, { after, only: aggregates })) {
      if (this.#refused.has(page.aggregateID)) continue
      for (const part of pieces(page, batch)) {
        const another = receiver.single && part.aggregateID !== parts[0]?.aggregateID
        if (size > 0 && (another || size + part.bytes.length > batch)) await flush()
        parts.push(part)
        size += part.bytes.length
      }
    }
    await flush()
  }

  /** In one transaction; where that is refused, in as many as it takes to find out for whom. */
  async #send(receiver: Receiver, given: readonly Part[]): Promise<void> {
    const parts = given.filter(({ aggregateID }) => !this.#refused.has(aggregateID))
    if (parts.length === 0) return
    try {
      const { applied, duplicate } = await receiver.send(parts)
      this.#applied += applied
      this.#duplicate += duplicate
    } catch (error) {
      if (!isRefusal(error)) throw error
      const smaller = split(parts, error.code === "ERR_TOO_LARGE")
      for (const some of smaller) await this.#send(receiver, some)
      if (smaller.length === 0) this.#refused.set((parts[0] as Part).aggregateID, error)
      return
    }
    this.settings.backoff.reset()
    for (const { aggregateID, events } of parts) {
      this.#accepted.add(aggregateID)
      // Its first part begins with what the server has.
      const known = this.#compared.delete(aggregateID) ? 1 : 0
      this.#events += events - known
      this.#duplicate -= known
    }
    this.settings.onProgress?.({ ...this.#counts(), refused: this.#refused.size, total: this.#total as number })
  }

  #counts(): Omit<PushProgress, "refused" | "total"> {
    const aggregates = this.#accepted.size
    return { aggregates, events: this.#events, applied: this.#applied, duplicate: this.#duplicate }
  }

  #lacking(after: (aggregateID: string) => number | undefined): number {
    let total = 0
    for (const [aggregateID, seq] of this.store.sequences(this.settings.aggregates)) {
      total += Math.max(0, seq - (after(aggregateID) ?? -1))
    }
    return total
  }
}

/** What may go well another time; not an address at which nobody has ever answered. */
function isPassing(error: unknown, answered: boolean): boolean {
  if (!(error instanceof SyncError)) return false
  return error.code === "ERR_UNREACHABLE" ? answered || error.status !== undefined : error.status === 503
}

/** What is the matter of one aggregate, or of the size of a request; not what comes from something that is no such server. */
function isRefusal(error: unknown): error is SyncError {
  if (!(error instanceof SyncError) || !REFUSALS.has(error.status ?? 0)) return false
  return error.code !== "ERR_PROTOCOL" || error.aggregateID !== undefined
}

const REFUSALS: ReadonlySet<number> = new Set([400, 409, 413, 500])
