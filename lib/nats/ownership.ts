import { MAX_OWNER_BYTES, checkAggregateID, checkInteger, checkName, checkOptions, checkSignal } from "../argument"
import type { WriteContext } from "../context"
import { SyncError, invalidArgument, show } from "../errors"
import { longestLine } from "../follow/batches"
import { ownerOf, type Ownership } from "../owner"
import { sequence } from "../read"
import { Store } from "../store"
import { adopted, inNameOf, take } from "./authority"
import { CLUSTER_OPTIONS, Cluster, checkPlace, checkReplicas, type ClusterOptions, type Owned } from "./cluster"
import { fetch, fetchSegments } from "./fetch"
import { Lane } from "./lane"
import type { Stored } from "./message"
import { Witness } from "./witness"

/**
 * What `claim`, `release` and `transfer` have in common.
 * @example
 * const place: OwnershipOptions = { connection, stream: "sessions", prefix: "sessions", replicas: 1, aggregateID: "ses_1" }
 * await claim(store, { ...place, owner: "laptop" }) // → { owner: "laptop", epoch: 1, seq: 1 }
 */
export interface OwnershipOptions extends ClusterOptions {
  /** What it is about. */
  aggregateID: string
  /** As in `relay`, where there is no stream yet. Default 3. */
  replicas?: number | undefined
  /** Gives it up: `ERR_ABORTED`. What was done stays, and another call goes on behind it. */
  signal?: AbortSignal | undefined
}

/**
 * What `claim` takes.
 * @example
 * const options: ClaimOptions = { connection, stream: "sessions", prefix: "sessions", aggregateID: "ses_1", owner: "phone" }
 * await claim(phone, { ...options, replicas: 1, expectedEpoch: 0 })
 */
export interface ClaimOptions extends OwnershipOptions {
  /** Who takes it: the store's own `owner`, where it has one. At most 255 bytes. */
  owner: string
  /** The epoch that the caller saw in the cluster, 0 for nobody's; another one is there: `ERR_CONFLICT`. Default: any. */
  expectedEpoch?: number | undefined
}

/**
 * What `transfer` takes.
 * @example
 * const place = { connection, stream: "sessions", prefix: "sessions", replicas: 1, aggregateID: "ses_1" }
 * const options: TransferOptions = { ...place, to: "phone" }
 * await claim(store, { ...place, owner: "laptop" })
 * await transfer(store, options) // → { owner: "phone", epoch: 2, seq: 1 }
 */
export interface TransferOptions extends OwnershipOptions {
  /** Who gets it. At most 255 bytes. */
  to: string
}

/**
 * What holds in the cluster now, and here.
 * @example
 * const place = { connection, stream: "sessions", prefix: "sessions", replicas: 1 }
 * const owned: ClusterOwnership = await claim(store, { ...place, aggregateID: "ses_1", owner: "laptop" })
 * owned.seq // → 1
 */
export interface ClusterOwnership extends Ownership {
  /** The last seq that the cluster has, and that belongs to an earlier epoch. */
  seq: number
}

/**
 * Takes an aggregate, whoever has it: catches up with the cluster, claims it there, and fences whoever wrote it before, whose
 * next event the cluster refuses; then this store owns it too, in the same epoch, and may write. What the former writer had
 * recorded and not yet published stays with it: `transfer`, called there, leaves nothing behind. To call it again is safe.
 *
 * `ERR_CONFLICT` where somebody else was faster, or the epoch is not the expected one; `ERR_REPLAY_DIVERGED` and what else a
 * replay throws; `ERR_UNREACHABLE`, `ERR_FORBIDDEN`, `ERR_INVALID_ARGUMENT`, `ERR_READONLY`, `ERR_CLOSED`, `ERR_ABORTED`.
 * @example
 * const place = { connection, stream: "sessions", prefix: "sessions", replicas: 1 }
 * await claim(phone, { ...place, aggregateID: "ses_1", owner: "phone" })
 * phone.owner("ses_1")?.owner // → "phone"
 */
export async function claim<Tx>(store: Store<Tx>, options: ClaimOptions): Promise<ClusterOwnership> {
  const given = checkOptions("claim", options, [...OWNERSHIP_OPTIONS, "owner", "expectedEpoch"])
  const owner = checkName("owner", given.owner, MAX_OWNER_BYTES)
  const { expectedEpoch } = given
  const expected = expectedEpoch === undefined ? undefined : checkInteger("expectedEpoch", expectedEpoch, 0)
  return await new Change("claim", store as Store, given).claim(owner, expected)
}

/**
 * Publishes what the cluster lacks of an aggregate, and gives it up: nobody owns it from then on, and this store refuses to
 * write it until it is claimed. Throws as `transfer` does.
 * @example
 * const place = { connection, stream: "sessions", prefix: "sessions", replicas: 1, aggregateID: "ses_1" }
 * await claim(store, { ...place, owner: "laptop" })
 * await release(store, place) // → { owner: null, epoch: 2, seq: 1 }
 */
export async function release<Tx>(store: Store<Tx>, options: OwnershipOptions): Promise<ClusterOwnership> {
  const given = checkOptions("release", options, OWNERSHIP_OPTIONS)
  return await new Change("release", store as Store, given).give(null)
}

/**
 * Publishes what the cluster lacks of an aggregate, and hands it to another owner, whose store may write it once it has
 * replicated so far. This store refuses to write it before the last event is on its way. To call it again is safe.
 *
 * `ERR_NOT_OWNER` where somebody else has it in the cluster, `ERR_CONFLICT` where its owner changed meanwhile, and what `claim`
 * throws.
 * @example
 * const place = { connection, stream: "sessions", prefix: "sessions", replicas: 1, aggregateID: "ses_1" }
 * await claim(store, { ...place, owner: "laptop" })
 * await transfer(store, { ...place, to: "phone" }) // → { owner: "phone", epoch: 2, seq: 1 }
 */
export async function transfer<Tx>(store: Store<Tx>, options: TransferOptions): Promise<ClusterOwnership> {
  const given = checkOptions("transfer", options, [...OWNERSHIP_OPTIONS, "to"])
  return await new Change("transfer", store as Store, given).give(checkName("to", given.to, MAX_OWNER_BYTES))
}

const OWNERSHIP_OPTIONS = [...CLUSTER_OPTIONS, "aggregateID", "replicas", "signal"]

/** Fences that were too late in a row: a writer that is never a message ahead of its own is none. */
const MOST_FENCES = 1_000

/** One change of an owner. */
class Change {
  readonly #context: WriteContext
  readonly #cluster: Cluster
  readonly #replicas: number
  readonly #signal: AbortSignal
  readonly #lane: Lane
  readonly #aggregateID: string

  constructor(
    call: string,
    private readonly store: Store,
    options: OwnershipOptions,
  ) {
    const context = Store.contextOf(store)
    if (context === undefined) throw invalidArgument(`${call} needs a store, not ${show(store)}`)
    const place = checkPlace(options)
    this.#context = context
    this.#aggregateID = checkAggregateID(options.aggregateID)
    this.#replicas = checkReplicas(options.replicas)
    this.#signal = checkSignal(options.signal) ?? new AbortController().signal
    context.transactions.assertUsable(call)
    if (!context.record) throw invalidArgument(`${call} needs a store that records (record: true)`)
    if (store.db.readonly) throw new SyncError("ERR_READONLY", `${call} needs a store that is not opened read-only`)
    this.#cluster = new Cluster(place)
    this.#lane = new Lane(context, this.#cluster, this.#aggregateID, Infinity, new Witness())
  }

  async claim(owner: string, expectedEpoch: number | undefined): Promise<ClusterOwnership> {
    const own = this.#context.owner
    if (own !== null && own !== owner) {
      throw invalidArgument(`owner must be the store's own, ${show(own)}: it could not write for ${show(owner)}`)
    }
    await this.#cluster.make(this.#replicas)
    const before = await this.#cluster.owner(this.#aggregateID)
    if (expectedEpoch !== undefined && expectedEpoch !== (before?.epoch ?? 0)) {
      throw conflict(this.#aggregateID, expectedEpoch, before?.epoch ?? 0)
    }
    // Two histories have to be found out before anything is taken.
    const head = await this.#catchUp()
    const least = Math.max(inNameOf(owner, this.#here()), head === undefined ? 0 : inNameOf(owner, head))
    const owned =
      before?.owner === owner && before.epoch >= least
        ? before
        : await take(this.#cluster, this.#aggregateID, owner, before, least)
    const seq = await this.#fence(owned, () => this.#catchUp())
    return { ...(await adopted(this.#context, this.#aggregateID, owned)), seq }
  }

  async give(to: string | null): Promise<ClusterOwnership> {
    await this.#cluster.make(this.#replicas)
    const before = await this.#cluster.owner(this.#aggregateID)
    const here = this.#here()
    const own = this.#context.owner ?? here.owner
    // An earlier call may have come so far, and no further.
    const begun = before !== undefined && before.owner === to && here.owner === to && here.epoch === before.epoch
    if (!begun && (own === null || (before?.owner ?? own) !== own)) throw foreign(this.#aggregateID, own, before)
    let owned = before as Owned
    if (!begun) {
      await this.#lane.advance(this.#signal)
      this.#assertGoing()
      const now = await this.#cluster.owner(this.#aggregateID)
      owned = await take(this.#cluster, this.#aggregateID, to, now, this.#here().epoch + 1)
      // From here on nothing more is recorded here.
      await adopted(this.#context, this.#aggregateID, owned)
    }
    const seq = await this.#fence(owned, async () => {
      const head = await this.#cluster.head(this.#aggregateID)
      // What was recorded meanwhile still belongs to the epoch before.
      await this.#lane.advance(this.#signal, { owner: head?.owner ?? null, epoch: head?.epoch ?? 0 })
      return this.#cluster.head(this.#aggregateID)
    })
    return { ...owned, seq }
  }

  /** Puts the epoch's mark behind the last message, which `settle` has dealt with. Answers the seq there. */
  async #fence(owned: Owned, settle: () => Promise<Stored | undefined>): Promise<number> {
    for (let fences = 0; fences < MOST_FENCES; fences++) {
      const head = await settle()
      this.#assertGoing()
      if (head !== undefined && head.epoch > owned.epoch) throw conflict(this.#aggregateID, owned.epoch, head.epoch)
      if (head?.epoch === owned.epoch || (await this.#lane.mark(owned, head))) return head?.seq ?? -1
    }
    throw conflict(this.#aggregateID, owned.epoch, owned.epoch)
  }

  async #catchUp(): Promise<Stored | undefined> {
    const context = this.#context
    const aggregateID = this.#aggregateID
    const signal = this.#signal
    // From the last event that is held, which is compared.
    let seq = sequence(context, aggregateID) - 1
    const fetching = {
      cluster: this.#cluster,
      aggregateID,
      held: () => ({ seq, removed: -1, epoch: Infinity }),
      longest: longestLine(context.maxEventBytes),
      signal,
      lines: async (lines: Uint8Array) => {
        const [result] = await this.store.replayAllAsync(lines, { signal })
        seq = Math.max(seq, result?.seq ?? -1)
      },
    }
    const head = await fetch(fetching)
    // Where the cluster has lost the newest messages, the segments may still have what was in them.
    await fetchSegments(fetching)
    return head
  }

  #here(): Ownership {
    return ownerOf(this.#context, this.#aggregateID) ?? { owner: null, epoch: 0 }
  }

  #assertGoing(): void {
    if (!this.#signal.aborted) return
    const message = `The change of the owner of aggregate "${this.#aggregateID}" was aborted`
    throw new SyncError("ERR_ABORTED", message, { aggregateID: this.#aggregateID, cause: this.#signal.reason })
  }
}

function conflict(aggregateID: string, expected: number, got: number): SyncError {
  const message = `Conflict on aggregate "${aggregateID}": its epoch in the cluster is ${got}, not ${expected}`
  return new SyncError("ERR_CONFLICT", message, { aggregateID, expected, got })
}

function foreign(aggregateID: string, own: string | null, owned: Owned | undefined): SyncError {
  const owner = owned?.owner ?? null
  const whose = owner === null ? "nobody's" : `of "${owner}"`
  const message = `Aggregate "${aggregateID}" is ${whose} in the cluster, and not this store's to give`
  return new SyncError("ERR_NOT_OWNER", message, { aggregateID, expected: owner, got: own, epoch: owned?.epoch ?? 0 })
}
