import { checkAggregateIDs, checkFunction, checkInteger, checkOptions, checkSignal } from "../argument"
import type { WriteContext } from "../context"
import { SyncError, invalidArgument, show, type ErrorCode } from "../errors"
import { Backoff, type BackoffOptions } from "../follow/backoff"
import {
  Following,
  warning,
  type FollowDetail,
  type FollowStatus,
  type Progress,
  type ReportError,
} from "../follow/following"
import { Store } from "../store"
import { CLUSTER_OPTIONS, Cluster, checkPlace, checkReplicas, type ClusterOptions, type Place } from "./cluster"
import { isFinal } from "./failure"
import { Lane } from "./lane"
import { WATCH, Witness } from "./witness"

/**
 * What `relay` takes.
 * @example
 * const ended = new AbortController()
 * const options: RelayOptions = { connection, stream: "sessions", prefix: "sessions", replicas: 1, signal: ended.signal }
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * await relay(store, { ...options, onStatus })
 */
export interface RelayOptions extends ClusterOptions {
  /** How many servers keep what is published, where the stream or a bucket is made: 1 through 5. Default 3. */
  replicas?: number | undefined
  /** These aggregates alone. Default: all that this store may write. */
  aggregates?: readonly string[] | ReadonlySet<string> | undefined
  /**
   * Events of each aggregate that stay on the stream, about; what is older goes to segments, compressed, and is taken from the
   * stream once between one and two windows are there. `Infinity`: all stays on the stream. Default 1,000.
   */
  window?: number | undefined
  /** Ends it, without an error. */
  signal?: AbortSignal | undefined
  /** Hears how it goes on. What it throws ends it, and rejects. */
  onStatus?: ((status: FollowStatus, detail: FollowDetail) => void) | undefined
  /**
   * Hears, once until it changes, of what somebody should look at: an aggregate that is not published while others are, or what
   * keeps all of them waiting. What it throws ends it, and rejects. Default: a process warning.
   */
  onError?: ((error: unknown, about: { aggregateID?: string }) => void) | undefined
  /** Pauses between attempts. */
  backoff?: BackoffOptions | undefined
}

/**
 * Publishes what a store commits on a NATS JetStream cluster, for `replicate` on any number of machines: one subject for each
 * aggregate, in order, guarded so that nobody else's event comes between. It keeps no state: what the cluster holds says where
 * it goes on, so that it can be killed anywhere, and a cluster that lost what it had acknowledged is filled up again. In a
 * store with an owner, an aggregate is claimed in the cluster when it is published first. Makes the stream and the buckets
 * where there are none. Resolves when the signal aborts or the store is closed.
 *
 * An aggregate of which the cluster holds something else is left (`ERR_REPLAY_DIVERGED`), as is one that another owner has taken
 * (`ERR_NOT_OWNER`: this store then refuses to write it as well), and one of which the cluster has more than its own writer
 * (`ERR_SEQUENCE_MISMATCH`); `onError` is told, and others go on. Of a stream that is full (`ERR_DISK_FULL`) it is told, too. Rejects with `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`,
 * `ERR_FORBIDDEN`, and with `ERR_UNREACHABLE` once the connection is closed for good.
 * @example
 * const ended = new AbortController()
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * const place = { connection, stream: "sessions", prefix: "sessions" }
 * await relay(store, { ...place, replicas: 1, signal: ended.signal, onStatus })
 */
export async function relay<Tx>(store: Store<Tx>, options: RelayOptions): Promise<void> {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`relay needs a store, not ${show(store)}`)
  const settings = checkRelay(options)
  context.transactions.assertUsable("relay")
  if (!context.record) throw invalidArgument("relay needs a store that records (record: true)")
  const relaying = new Relaying(store as Store, context, settings)
  await new Following(context, {
    ...settings,
    connect: (progress, stopped) => relaying.run(progress, stopped),
    applied: () => relaying.published,
    isFinal: (error) => isFinal(error, settings.place.connection),
    isPassing: ({ code }) => code === "ERR_UNREACHABLE" || code === "ERR_BUSY",
  }).run()
}

interface Settings {
  readonly place: Place
  readonly replicas: number
  readonly aggregates: ReadonlySet<string> | undefined
  readonly window: number
  readonly signal: AbortSignal | undefined
  readonly onStatus: RelayOptions["onStatus"]
  readonly onError: ReportError
  readonly backoff: BackoffOptions | undefined
}

const RELAY_OPTIONS = [
  ...CLUSTER_OPTIONS,
  "replicas",
  "aggregates",
  "window",
  "signal",
  "onStatus",
  "onError",
  "backoff",
]

function checkRelay(options: RelayOptions): Settings {
  const given = checkOptions("relay", options, RELAY_OPTIONS)
  const { aggregates, window = 1_000, signal, onStatus, onError = warning("Relaying"), backoff } = given
  // Refuses what it is made of.
  void new Backoff(backoff)
  return {
    place: checkPlace(given),
    replicas: checkReplicas(given.replicas),
    aggregates: aggregates === undefined ? undefined : checkAggregateIDs("aggregates", aggregates),
    window: window === Infinity ? window : checkInteger("window", window, 1),
    signal: checkSignal(signal),
    onStatus: checkFunction("onStatus", onStatus),
    onError: checkFunction("onError", onError),
    backoff,
  }
}

/** Aggregates that are published at once. Each waits for its own answers. */
const WIDTH = 128

/** What stops one aggregate, until it moves again. */
const OF_ONE: ReadonlySet<ErrorCode> = new Set([
  "ERR_CONFLICT",
  "ERR_CORRUPT",
  "ERR_NOT_OWNER",
  "ERR_PROTOCOL",
  "ERR_REPLAY_DIVERGED",
  "ERR_SEQUENCE_MISMATCH",
])

/** One connection, for as long as it lasts. */
interface Attempt {
  readonly progress: Progress
  /** Ends it, with why. */
  readonly end: AbortController
  /** All aggregates have been looked at, or wait for it. */
  swept: boolean
}

/** One call of `relay`. What it knows of the cluster outlives a connection, as long as the cluster does not go back. */
class Relaying {
  readonly #cluster: Cluster
  readonly #witness = new Witness()
  readonly #lanes = new Map<string, Lane>()
  /** What was reported last of each aggregate that is not published. */
  readonly #reported = new Map<string, string>()
  /** Aggregates that may have something to publish. */
  readonly #moved = new Set<string>()
  /** Aggregates that are being published; of an attempt that is over, until their last answer has come or is given up. */
  readonly #active = new Set<string>()
  /** Messages so far. */
  published = 0
  #attempt: Attempt | undefined

  constructor(
    private readonly store: Store,
    private readonly context: WriteContext,
    private readonly settings: Settings,
  ) {
    this.#cluster = new Cluster(settings.place)
  }

  /** One attempt: rejects with what it ended with. */
  async run(progress: Progress, stopped: AbortSignal): Promise<never> {
    const end = new AbortController()
    const attempt = { progress, end, swept: false }
    const stop = () => end.abort()
    stopped.addEventListener("abort", stop)
    if (stopped.aborted) stop()
    let watch: NodeJS.Timeout | undefined
    try {
      progress.connecting()
      await this.#cluster.make(this.settings.replicas)
      progress.answered()
      progress.catchingUp()
      this.#cluster.watch(end)
      await this.#look()
      this.#attempt = attempt
      const look = () => this.#look().then(() => this.#start())
      watch = setInterval(() => void look().catch((error) => end.abort(error)), WATCH).unref()
      await this.#hear(attempt)
      throw end.signal.reason
    } finally {
      clearInterval(watch)
      stopped.removeEventListener("abort", stop)
      end.abort()
      this.#attempt = undefined
    }
  }

  /** Starts over where the cluster no longer has what it had. */
  async #look(): Promise<void> {
    if (await this.#witness.isThere(this.#cluster)) return
    this.#witness.forget()
    for (const [aggregateID, lane] of this.#lanes) {
      lane.forget()
      this.#moved.add(aggregateID)
    }
  }

  async #hear(attempt: Attempt): Promise<void> {
    for await (const change of this.store.changes({ signal: attempt.end.signal })) {
      if (change.kind === "sweep") for (const aggregateID of this.store.sequences().keys()) this.#move(aggregateID)
      else this.#move(change.aggregateID)
      attempt.swept = true
      this.#start()
    }
  }

  #move(aggregateID: string): void {
    const { aggregates } = this.settings
    if (aggregates === undefined || aggregates.has(aggregateID)) this.#moved.add(aggregateID)
  }

  /** Publishes what has moved, as many aggregates at once as may be. */
  #start(): void {
    const attempt = this.#attempt
    if (attempt === undefined || attempt.end.signal.aborted) return
    for (const aggregateID of this.#moved) {
      if (this.#active.size >= WIDTH) return
      if (this.#active.has(aggregateID)) continue
      this.#moved.delete(aggregateID)
      this.#active.add(aggregateID)
      void this.#advance(aggregateID, attempt)
    }
    if (this.#active.size === 0 && attempt.swept) attempt.progress.live()
  }

  async #advance(aggregateID: string, { end }: Attempt): Promise<void> {
    try {
      this.published += await this.#lane(aggregateID).advance(end.signal)
      this.#reported.delete(aggregateID)
    } catch (error) {
      this.#lanes.delete(aggregateID)
      this.#failed(error, aggregateID, end)
    }
    this.#active.delete(aggregateID)
    try {
      this.#start()
    } catch (error) {
      end.abort(error)
    }
  }

  #failed(error: unknown, aggregateID: string, end: AbortController): void {
    // Of an attempt that is over nobody is told: the next one looks again.
    if (error instanceof SyncError && OF_ONE.has(error.code) && !end.signal.aborted) {
      try {
        this.#report(error, aggregateID)
      } catch (thrown) {
        end.abort(thrown)
      }
    } else {
      this.#moved.add(aggregateID)
      end.abort(error)
    }
  }

  #lane(aggregateID: string): Lane {
    let lane = this.#lanes.get(aggregateID)
    if (lane === undefined) {
      lane = new Lane(this.context, this.#cluster, aggregateID, this.settings.window, this.#witness)
      this.#lanes.set(aggregateID, lane)
    }
    return lane
  }

  #report(error: SyncError, aggregateID: string): void {
    const { code, seq, expected, got } = error
    const what = JSON.stringify([code, seq, expected, got])
    if (this.#reported.get(aggregateID) === what) return
    this.#reported.set(aggregateID, what)
    this.#attempt?.progress.report(() => this.settings.onError(error, { aggregateID }))
  }
}
