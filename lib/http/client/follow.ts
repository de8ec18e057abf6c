import { checkAggregateIDs, checkBoolean, checkChoice, checkFunction, checkInteger } from "../../argument"
import { checkOptions, checkOwner, checkSignal } from "../../argument"
import type { WriteContext } from "../../context"
import { SyncError, invalidArgument, show, type ErrorCode } from "../../errors"
import { described } from "../../publish"
import type { ReplayAsyncOptions } from "../../replayed"
import { Store } from "../../store"
import { Applier } from "./apply"
import { Backoff, pause, type BackoffOptions } from "./backoff"
import { Connection, type Progress } from "./connection"
import { longestLine, type Listening } from "./dialect"
import { REMOTE_OPTIONS, checkAddress, retryAfterOf, type Address, type RemoteOptions } from "./remote"

/**
 * What `follow` takes.
 * @example
 * const ended = new AbortController()
 * const options: FollowOptions = { ...remote, aggregates: ["ses_1"], signal: ended.signal }
 * const following = follow(phone, options)
 * await phone.waitFor({ ses_1: 1 })
 * ended.abort()
 * await following
 */
export interface FollowOptions extends RemoteOptions {
  /** These aggregates alone. Default: all. */
  aggregates?: readonly string[] | ReadonlySet<string> | undefined
  /** As in `replay`: the owner that the events come from. Default: none. */
  owner?: string | undefined
  /** As in `replay`: a lower one than is stored is refused, a higher one adopted. Default: not looked at. */
  epoch?: number | undefined
  /** Deliver to this store's listeners what was applied. Default false. */
  publish?: boolean | undefined
  /** As in `replay`: "record" stores what this program does not know, and its aggregate waits for `reproject`. Default "error". */
  unknown?: "error" | "record" | undefined
  /** Ends it, without an error. */
  signal?: AbortSignal | undefined
  /** Hears how it goes on. What it throws ends it, and rejects. */
  onStatus?: ((status: FollowStatus, detail: FollowDetail) => void) | undefined
  /**
   * Hears, once until it changes, of what somebody should look at: an aggregate that stays behind while others go on, or
   * what keeps all of them waiting; a connection that is lost is no such thing. What it throws ends it, and rejects. Default:
   * a process warning.
   */
  onError?: ((error: unknown, about: { aggregateID?: string }) => void) | undefined
  /** Pauses between attempts. */
  backoff?: BackoffOptions | undefined
}

/**
 * - `connecting`: the server is being asked.
 * - `catching-up`: it answers; what was recorded while nobody listened is being fetched.
 * - `live`: everything has been applied that was there to be followed, and what is recorded comes by itself.
 * - `waiting`: an attempt failed, and the next one is made in a while.
 * - `stopped`: the last one.
 * @example
 * const ended = new AbortController()
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * await follow(phone, { ...remote, signal: ended.signal, onStatus })
 */
export type FollowStatus = "connecting" | "catching-up" | "live" | "waiting" | "stopped"

/**
 * What is known beside a status.
 * @example
 * import { SyncError } from "syncline"
 * const onStatus = (_: string, { error }: FollowDetail) => error instanceof SyncError && console.log(error.code)
 * await follow(phone, { ...remote, token: "wrong", onStatus }).catch(() => {}) // prints ERR_UNAUTHORIZED
 */
export interface FollowDetail {
  /** `waiting`, and `stopped` where it rejects: why. */
  error?: unknown
  /** `waiting`: how many attempts have failed in a row. */
  attempt?: number
  /** `waiting`: milliseconds until the next one. */
  delay?: number
}

/**
 * Keeps a store up with a server: fetches what is newer, applies it, and goes on with whatever is recorded there, over
 * broken connections and restarts on both sides. What the store holds says where it goes on, so nothing is lost and nothing
 * applied twice, whenever either side is killed. Resolves when the signal aborts or the store is closed.
 *
 * Rejects where going on makes no sense: `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_READONLY`; `ERR_UNAUTHORIZED` and
 * `ERR_FORBIDDEN`; on first contact `ERR_PROTOCOL`, `ERR_NOT_FOUND` and what else says that the request itself is wrong.
 * @example
 * const ended = new AbortController()
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * await follow(phone, { ...remote, signal: ended.signal, onStatus })
 * phone.sequence("ses_1") // → 1
 */
export async function follow<Tx>(store: Store<Tx>, options: FollowOptions): Promise<void> {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`follow needs a store, not ${show(store)}`)
  const settings = checkFollow(options)
  context.transactions.assertUsable("follow")
  if (!context.record) throw invalidArgument("follow needs a store that records (record: true)")
  if (store.db.readonly) throw new SyncError("ERR_READONLY", "follow needs a store that is not opened read-only")
  await new Following(store, context, settings).run()
}

interface Settings {
  readonly address: Address
  readonly aggregates: ReadonlySet<string> | undefined
  readonly replay: ReplayAsyncOptions
  readonly signal: AbortSignal | undefined
  readonly onStatus: FollowOptions["onStatus"]
  readonly onError: NonNullable<FollowOptions["onError"]>
  readonly backoff: BackoffOptions | undefined
}

const FOLLOW_OPTIONS = [
  ...REMOTE_OPTIONS,
  "aggregates",
  "owner",
  "epoch",
  "publish",
  "unknown",
  "signal",
  "onStatus",
  "onError",
  "backoff",
]

function checkFollow(options: FollowOptions): Settings {
  const given = checkOptions("follow", options, FOLLOW_OPTIONS)
  const { aggregates, publish, unknown, signal, onStatus, onError = warn, backoff } = given
  const owner = checkOwner("owner", given.owner) ?? undefined
  const epoch = given.epoch === undefined ? undefined : checkInteger("epoch", given.epoch, 0)
  if (owner !== undefined && epoch === 0) throw invalidArgument("epoch must be at least 1 where there is an owner")
  // Refuses what it is made of.
  void new Backoff(backoff)
  return {
    address: checkAddress(given),
    aggregates: aggregates === undefined ? undefined : checkAggregateIDs("aggregates", aggregates),
    replay: {
      onError: "park",
      publish: checkBoolean("publish", publish, false),
      unknown: checkChoice<"error" | "record">("unknown", unknown, ["error", "record"], "error"),
      owner,
      epoch,
    },
    signal: checkSignal(signal),
    onStatus: checkFunction("onStatus", onStatus),
    onError: checkFunction("onError", onError),
    backoff,
  }
}

/** One call of `follow`: connections, one after the other, until it stops. */
class Following {
  readonly #stop = new AbortController()
  readonly #backoff: Backoff
  readonly #applier: Applier
  readonly #listening: Listening
  #status: FollowStatus | undefined
  /** A server of this protocol has answered: what answers in its place later is a proxy, and may be gone soon. */
  #worked = false
  /** When the present connection was live first, by `performance.now`. */
  #live: number | undefined
  /** What one of the caller's functions threw. */
  #thrown: { readonly error: unknown } | undefined
  /** What was reported last of what concerns all aggregates. */
  #reported: string | undefined

  constructor(
    private readonly store: Pick<Store, "replayAllAsync" | "sequence" | "sequences">,
    private readonly context: WriteContext,
    private readonly settings: Settings,
  ) {
    const { replay, backoff, aggregates, onError } = settings
    this.#backoff = new Backoff(backoff)
    this.#applier = new Applier(store, { ...replay, signal: this.#stop.signal }, backoff, (error, aggregateID) => {
      this.#call(() => onError(error, { aggregateID }))
    })
    this.#listening = { aggregates, limit: longestLine(context.maxEventBytes) }
  }

  async run(): Promise<void> {
    const { signal } = this.settings
    const stop = () => this.#stop.abort()
    const undo = this.context.transactions.onClose(stop)
    signal?.addEventListener("abort", stop)
    if (signal?.aborted) stop()
    let failure: { readonly error: unknown } | undefined
    try {
      while (!this.#stop.signal.aborted) await this.#attempt()
    } catch (error) {
      failure = { error }
    } finally {
      undo()
      signal?.removeEventListener("abort", stop)
    }
    this.#become("stopped", failure)
    if (failure !== undefined) throw failure.error
  }

  /** One connection, and the pause after it. */
  async #attempt(): Promise<void> {
    const { applied } = this.#applier
    this.#live = undefined
    try {
      const { address } = this.settings
      await new Connection(this.store, this.#applier, address, this.#listening, this.#progress).run(this.#stop.signal)
    } catch (error) {
      if (this.#thrown !== undefined) throw this.#thrown.error
      if (this.#stop.signal.aborted) return
      if (this.#isFinal(error)) throw error
      // One that does nothing and lives for a moment is no success, or a server that fails at once would be asked again at once.
      const lasted = this.#live === undefined ? 0 : performance.now() - this.#live
      if (this.#applier.applied > applied || lasted > this.#backoff.longest) {
        this.#backoff.reset()
        this.#reported = undefined
      }
      await this.#wait(error as SyncError)
    }
  }

  async #wait(error: SyncError): Promise<void> {
    const delay = this.#backoff.next(retryAfterOf(error))
    if (!PASSING.has(error.code) && error.status !== UNAVAILABLE) this.#report(error)
    this.#become("waiting", { error, attempt: this.#backoff.failures, delay })
    await pause(delay, this.#stop.signal)
  }

  #report(error: SyncError): void {
    const what = `${error.code} ${error.message}`
    if (this.#reported === what) return
    this.#reported = what
    this.#call(() => this.settings.onError(error, {}))
  }

  /** Whether it is no use to try again. An error with a status is the server's. */
  #isFinal(error: unknown): boolean {
    if (!(error instanceof SyncError)) return true
    if (error.status === undefined && OWN_FAULT.has(error.code)) return true
    // Also after hours: a token that was taken back does not come back.
    if (error.code === "ERR_UNAUTHORIZED" || error.code === "ERR_FORBIDDEN") return true
    return !this.#worked && WRONG_REQUEST.has(error.code)
  }

  readonly #progress: Progress = {
    connecting: () => this.#become("connecting"),
    catchingUp: () => this.#become("catching-up"),
    answered: () => void (this.#worked = true),
    live: () => {
      this.#live ??= performance.now()
      this.#become("live")
    },
  }

  #become(status: FollowStatus, detail: FollowDetail = {}): void {
    if (this.#status === status) return
    this.#status = status
    this.#call(() => this.settings.onStatus?.(status, detail))
  }

  #call(callback: () => void): void {
    try {
      callback()
    } catch (error) {
      this.#thrown ??= { error }
      throw error
    }
  }
}

/** What passes by itself, and is nobody's fault. */
const PASSING: ReadonlySet<ErrorCode> = new Set(["ERR_UNREACHABLE", "ERR_BUSY"])

/** What a server answers that is about to stop, or has just begun. */
const UNAVAILABLE = 503

/** What this store, or the call, will say again. */
const OWN_FAULT: ReadonlySet<ErrorCode> = new Set(["ERR_INVALID_ARGUMENT", "ERR_ASYNC_SCHEMA", "ERR_POISONED"])

/** What says, on first contact, that there is no such server, or that it will never grant such a request. */
const WRONG_REQUEST: ReadonlySet<ErrorCode> = new Set([
  "ERR_INVALID_ARGUMENT",
  "ERR_METHOD_NOT_ALLOWED",
  "ERR_NOT_FOUND",
  "ERR_PROTOCOL",
  "ERR_TOO_LARGE",
  "ERR_UNSUPPORTED_MEDIA_TYPE",
])

function warn(error: unknown, { aggregateID }: { aggregateID?: string }): void {
  const { code, reason } = described(error)
  const what = aggregateID === undefined ? "Following waits" : `Aggregate "${aggregateID}" stays behind`
  process.emitWarning(`${what}: ${reason}`, { type: "SynclineWarning", code })
}
