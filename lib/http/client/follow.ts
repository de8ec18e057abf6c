import { checkAggregateIDs, checkBoolean, checkChoice, checkFunction, checkInteger } from "../../argument"
import { checkOptions, checkOwner, checkSignal } from "../../argument"
import type { WriteContext } from "../../context"
import { SyncError, invalidArgument, show, type ErrorCode } from "../../errors"
import { Applier } from "../../follow/apply"
import { Backoff, type BackoffOptions } from "../../follow/backoff"
import { longestLine } from "../../follow/batches"
import { Following, warning, type FollowDetail, type FollowStatus, type ReportError } from "../../follow/following"
import type { ReplayAsyncOptions } from "../../replayed"
import { Store } from "../../store"
import { Connection } from "./connection"
import type { Listening } from "./dialect"
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
  await following(store as Store, context, settings)
}

interface Settings {
  readonly address: Address
  readonly aggregates: ReadonlySet<string> | undefined
  readonly replay: ReplayAsyncOptions
  readonly signal: AbortSignal | undefined
  readonly onStatus: FollowOptions["onStatus"]
  readonly onError: ReportError
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
  const { aggregates, publish, unknown, signal, onStatus, onError = warning("Following"), backoff } = given
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
async function following(store: Store, context: WriteContext, settings: Settings): Promise<void> {
  const { address, aggregates, replay, backoff, onError } = settings
  const listening: Listening = { aggregates, limit: longestLine(context.maxEventBytes) }
  let applier: Applier | undefined
  await new Following(context, {
    ...settings,
    applied: () => applier?.applied ?? 0,
    isFinal,
    isPassing: ({ code, status }) => PASSING.has(code) || status === UNAVAILABLE,
    retryAfter: retryAfterOf,
    connect: (progress, signal) => {
      applier ??= new Applier(store, { ...replay, signal }, backoff, (error, aggregateID) => {
        progress.report(() => onError(error, { aggregateID }))
      })
      return new Connection(store, applier, address, listening, progress).run(signal)
    },
  }).run()
}

/** Whether it is no use to try again. An error with a status is the server's. */
function isFinal(error: unknown, worked: boolean): boolean {
  if (!(error instanceof SyncError)) return true
  if (error.status === undefined && OWN_FAULT.has(error.code)) return true
  // Also after hours: a token that was taken back does not come back.
  if (error.code === "ERR_UNAUTHORIZED" || error.code === "ERR_FORBIDDEN") return true
  // A server of this protocol has answered: what answers in its place later is a proxy, and may be gone soon.
  return !worked && WRONG_REQUEST.has(error.code)
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
