import { checkAggregateIDs, checkBoolean, checkChoice, checkFunction, checkOptions, checkOwner } from "../argument"
import { checkSignal } from "../argument"
import type { WriteContext } from "../context"
import { SyncError, invalidArgument, show } from "../errors"
import { Applier } from "../follow/apply"
import { Backoff, type BackoffOptions } from "../follow/backoff"
import { Following, warning, type FollowDetail, type FollowStatus, type ReportError } from "../follow/following"
import type { ReplayAsyncOptions } from "../replayed"
import { Store } from "../store"
import { CLUSTER_OPTIONS, Cluster, checkPlace, type ClusterOptions, type Place } from "./cluster"
import { isFinal } from "./failure"
import { Reader } from "./reader"

/**
 * What `replicate` takes.
 * @example
 * const ended = new AbortController()
 * const options: ReplicateOptions = { connection, stream: "sessions", prefix: "sessions", signal: ended.signal }
 * const replicating = replicate(phone, { ...options, aggregates: ["ses_1"] })
 * await phone.waitFor({ ses_1: 1 })
 * ended.abort()
 * await replicating
 */
export interface ReplicateOptions extends ClusterOptions {
  /** These aggregates alone. Servers before 2.10 send all of them, and others are left out here. Default: all. */
  aggregates?: readonly string[] | ReadonlySet<string> | undefined
  /** As in `replay`: claims what nobody owns for this owner, and leaves what another one owns. Default: none. */
  owner?: string | undefined
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
 * Keeps a store up with what `relay` publishes on a cluster: compares the last message of each aggregate with what the store
 * holds, replays what is beyond, in batches, and goes on with what comes. The store has the only cursor, so that nothing is
 * lost and nothing applied twice, whenever anything is killed, on either side. What the stream does not have any more is taken
 * from the segments. Whose an aggregate is, and its epoch, are the store's own once it holds everything before; a message of an
 * earlier epoch is refused. Resolves when the signal aborts or the store is closed. Where there is no stream yet it waits for one.
 *
 * An aggregate that cannot go on is left, with whatever a replay throws or `ERR_NOT_OWNER`; `onError` is told, and others go on.
 * Rejects with `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_READONLY`, `ERR_FORBIDDEN`, and with `ERR_UNREACHABLE` once the
 * connection is closed for good.
 * @example
 * const ended = new AbortController()
 * const onStatus = (status: FollowStatus) => status === "live" && ended.abort()
 * const place = { connection, stream: "sessions", prefix: "sessions" }
 * await replicate(phone, { ...place, signal: ended.signal, onStatus })
 * phone.sequence("ses_1") // → 1
 */
export async function replicate<Tx>(store: Store<Tx>, options: ReplicateOptions): Promise<void> {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`replicate needs a store, not ${show(store)}`)
  const settings = checkReplicate(options)
  context.transactions.assertUsable("replicate")
  if (!context.record) throw invalidArgument("replicate needs a store that records (record: true)")
  if (store.db.readonly) throw new SyncError("ERR_READONLY", "replicate needs a store that is not opened read-only")
  await replicating(store as Store, context, settings)
}

interface Settings {
  readonly place: Place
  readonly aggregates: ReadonlySet<string> | undefined
  readonly replay: ReplayAsyncOptions
  readonly signal: AbortSignal | undefined
  readonly onStatus: ReplicateOptions["onStatus"]
  readonly onError: ReportError
  readonly backoff: BackoffOptions | undefined
}

const REPLICATE_OPTIONS = [
  ...CLUSTER_OPTIONS,
  "aggregates",
  "owner",
  "publish",
  "unknown",
  "signal",
  "onStatus",
  "onError",
  "backoff",
]

function checkReplicate(options: ReplicateOptions): Settings {
  const given = checkOptions("replicate", options, REPLICATE_OPTIONS)
  const { aggregates, publish, unknown, signal, onStatus, onError = warning("Replicating"), backoff } = given
  // Refuses what it is made of.
  void new Backoff(backoff)
  return {
    place: checkPlace(given),
    aggregates: aggregates === undefined ? undefined : checkAggregateIDs("aggregates", aggregates),
    replay: {
      onError: "park",
      publish: checkBoolean("publish", publish, false),
      unknown: checkChoice<"error" | "record">("unknown", unknown, ["error", "record"], "error"),
      owner: checkOwner("owner", given.owner) ?? undefined,
    },
    signal: checkSignal(signal),
    onStatus: checkFunction("onStatus", onStatus),
    onError: checkFunction("onError", onError),
    backoff,
  }
}

async function replicating(store: Store, context: WriteContext, settings: Settings): Promise<void> {
  const { place, aggregates, replay, backoff, onError } = settings
  const cluster = new Cluster(place)
  let applier: Applier | undefined
  /** Subjects of which has been told that they have a message of somebody else. */
  const strange = new Set<string>()
  await new Following(context, {
    ...settings,
    applied: () => applier?.applied ?? 0,
    isFinal: (error) => isFinal(error, place.connection),
    isPassing: ({ code }) => code === "ERR_UNREACHABLE" || code === "ERR_BUSY",
    connect: async (progress, signal) => {
      applier ??= new Applier(store, { ...replay, signal }, backoff, (error, aggregateID) => {
        progress.report(() => onError(error, { aggregateID }))
      })
      const foreign = (error: SyncError, subject: string) => {
        if (strange.has(subject)) return
        strange.add(subject)
        progress.report(() => onError(error, {}))
      }
      const reading = { context, cluster, applier, aggregates, owner: replay.owner, progress, foreign }
      for (;;) await new Reader(reading).run(signal)
    },
  }).run()
}
