import type { WriteContext } from "../context"
import { SyncError } from "../errors"
import type { Applier, Lack, Told } from "../follow/apply"
import { BATCH_BYTES, longestLine } from "../follow/batches"
import { adoptOwner, ownerOf, type Ownership } from "../owner"
import { sequence } from "../read"
import type { Cluster } from "./cluster"
import { fetch, fetchSegments, give } from "./fetch"
import { linesOf, type Sealed, type Stored } from "./message"
import { pooled } from "./pool"

/** Aggregates whose history is fetched at once: each may take the memory of a segment. */
const FETCHING = 8

/** Times that one is, because something of it was taken from the stream meanwhile. */
const ATTEMPTS = 3

/** What an aggregate will be like once a batch has been applied, as far as it has been looked at. */
interface Aggregate extends Ownership {
  seq: number
  /** Owner and epoch are not the store's yet, and are to be once it holds everything through this seq. */
  adopts?: number
  /** Its messages from the first one on that does not have its items, or not those before them. */
  apart?: Sealed[]
  /** Why nothing of it is taken from here on. What came before is still to be applied. */
  refusal?: SyncError
}

/** Applies the messages of a stream to a store. */
export class Intake {
  constructor(
    private readonly context: WriteContext,
    private readonly cluster: Cluster,
    private readonly applier: Applier,
    /** Whose all of it is, where the caller says that. */
    private readonly named: string | undefined,
    private readonly signal: AbortSignal,
  ) {}

  /** Where messages before these have not been seen, they are fetched. */
  async apply(batch: readonly Sealed[]): Promise<void> {
    const aggregates = new Map<string, Aggregate>()
    const lacking = new Map<string, Lack>()
    let told: Told[] = []
    let size = 0
    for (const message of batch) {
      const { aggregateID, seq } = message
      // Of a parked one it only matters how far it has come.
      const isParked = this.applier.isParked(aggregateID)
      const text = isParked ? message.body : this.#accept(message, this.#known(aggregateID, aggregates))
      if (text === undefined || (text.length === 0 && !isParked)) continue
      told.push({ text, aggregateID, seq })
      size += text.length
      if (size < BATCH_BYTES) continue
      await this.#replay(told, lacking)
      told = []
      size = 0
    }
    await this.#replay(told, lacking)
    await pooled(aggregates.values(), FETCHING, async ({ apart }) => {
      if (apart !== undefined) await this.#applyApart(apart, lacking)
    })
    for (const [aggregateID, { seq, refusal }] of aggregates) {
      if (refusal !== undefined) this.applier.leave(aggregateID, refusal)
      const lacks = this.#held(aggregateID) < seq && !this.applier.isParked(aggregateID)
      if (lacks) lacking.set(aggregateID, { seq, came: true })
    }
    await this.#fetch(lacking, aggregates)
    await this.#adopt(aggregates)
  }

  /** Its lines; undefined where they are refused, or applied apart. */
  #accept(message: Sealed, aggregate: Aggregate): Uint8Array | undefined {
    const { seq, owner, epoch, segment } = message
    if (aggregate.refusal !== undefined) return undefined
    // What is held already may come again, whoever owns the aggregate now; replay compares it.
    if (seq >= aggregate.seq && this.#isOvertaken(message, aggregate)) {
      if (seq > aggregate.seq) aggregate.refusal = overtaken(message, aggregate)
      return undefined
    }
    const isApart = aggregate.apart !== undefined || segment !== undefined || lacks(message, aggregate.seq)
    let lines
    try {
      if (isApart) (aggregate.apart ??= []).push(message)
      else lines = linesOf(message)
    } catch (error) {
      aggregate.refusal = error as SyncError
      return undefined
    }
    if (isNewer(message, aggregate)) Object.assign(aggregate, { owner, epoch, adopts: seq })
    aggregate.seq = Math.max(aggregate.seq, seq)
    return lines
  }

  /** Of an earlier epoch, or of another owner in the same one: the cluster refuses such, unless it has lost who came later. */
  #isOvertaken({ owner, epoch }: Ownership, known: Ownership): boolean {
    const { named } = this
    if (named !== undefined && owner !== null && owner !== named) return true
    if (named !== undefined && epoch === 0) return false
    return epoch < known.epoch || (epoch === known.epoch && known.owner !== null && owner !== known.owner)
  }

  #known(aggregateID: string, aggregates: Map<string, Aggregate>): Aggregate {
    let known = aggregates.get(aggregateID)
    if (known === undefined) {
      const { owner, epoch } = ownerOf(this.context, aggregateID) ?? { owner: null, epoch: 0 }
      known = { owner, epoch, seq: this.#held(aggregateID) }
      aggregates.set(aggregateID, known)
    }
    return known
  }

  /** In their order: what is missing before the first one is in the segments, or nowhere on the stream. */
  async #applyApart(messages: readonly Sealed[], lacking: Map<string, Lack>): Promise<void> {
    for (const message of messages) {
      const { aggregateID, seq, segment } = message
      const held = () => ({ seq: this.#held(aggregateID), removed: Infinity, epoch: Infinity })
      const lines = (text: Uint8Array) => this.#replay([{ text, aggregateID, seq }], lacking)
      const fetching = { ...this.#common, aggregateID, held, lines }
      try {
        if (lacks(message, held().seq)) await fetchSegments(fetching)
        // A whole segment is read for what is new in it alone.
        if (segment === undefined || seq > held().seq) await give(fetching, { segment, lines: linesOf(message) })
      } catch (error) {
        if (!isProtocolError(error)) throw error
        this.applier.leave(aggregateID, error)
      }
      if (this.applier.isParked(aggregateID)) return
    }
  }

  /** What is no log item is a matter of its aggregate, whose message it was in. */
  async #replay(told: readonly Told[], lacking: Map<string, Lack>): Promise<void> {
    try {
      for (const [aggregateID, lack] of await this.applier.live(told)) lacking.set(aggregateID, lack)
    } catch (error) {
      if (!isProtocolError(error)) throw error
      if (told.length > 1) for (const one of told) await this.#replay([one], lacking)
      else this.applier.leave(told[0]?.aggregateID ?? "", error)
    }
  }

  /** The histories of single aggregates, as long as something of them is missing. */
  async #fetch(lacking: Map<string, Lack>, aggregates: Map<string, Aggregate>): Promise<void> {
    if (lacking.size === 0) return
    this.applier.retry(lacking.keys())
    await pooled([...lacking], FETCHING, async ([aggregateID, { seq }]) => {
      try {
        for (let attempt = 0; attempt < ATTEMPTS && !this.applier.isParked(aggregateID); attempt++) {
          const head = await this.#fetchOne(aggregateID, seq)
          const known = this.#known(aggregateID, new Map())
          if (head !== undefined && isNewer(head, known)) aggregates.set(aggregateID, { ...head, adopts: head.seq })
          if (this.#held(aggregateID) >= seq) break
        }
      } catch (error) {
        if (!isProtocolError(error)) throw error
        this.applier.leave(aggregateID, error)
      }
    })
    // Another attempt may be under way by now, and has to find out for itself.
    this.signal.throwIfAborted()
    this.applier.settle(lacking)
  }

  #fetchOne(aggregateID: string, seq: number): Promise<Stored | undefined> {
    const held = () => ({ seq: this.#held(aggregateID), removed: Infinity, epoch: Infinity })
    const last: Ownership = { owner: null, epoch: 0 }
    return fetch({
      ...this.#common,
      aggregateID,
      held,
      lines: (text) => this.#replay([{ text, aggregateID, seq }], new Map()),
      message: (message) => {
        const { owner, epoch } = message
        if (message.seq > held().seq && this.#isOvertaken(message, last)) {
          this.applier.leave(aggregateID, overtaken(message, last))
        } else if (epoch > last.epoch) Object.assign(last, { owner, epoch })
      },
    })
  }

  /**
   * Makes owners and epochs the store's own, all in one transaction. Of an aggregate only once everything before is held: whoever
   * finds an epoch in the store knows that nothing of an earlier one is missing.
   */
  async #adopt(aggregates: ReadonlyMap<string, Aggregate>): Promise<void> {
    const ready = [...aggregates].filter(([id, { adopts }]) => adopts !== undefined && this.#held(id) >= adopts)
    if (ready.length === 0) return
    await this.context.queue.enqueue(() => {
      for (const [aggregateID, { owner, epoch }] of ready) {
        try {
          adoptOwner(this.context, aggregateID, { owner, epoch })
        } catch (error) {
          if (!(error instanceof SyncError) || error.code !== "ERR_NOT_OWNER") throw error
          this.applier.leave(aggregateID, error)
        }
      }
    }, this.signal)
  }

  #held(aggregateID: string): number {
    return sequence(this.context, aggregateID)
  }

  get #common() {
    return { cluster: this.cluster, longest: longestLine(this.context.maxEventBytes), signal: this.signal }
  }
}

/** Whether what stands before a message is missing. A removal that the subject has told of takes a reader past what it removed. */
function lacks({ after, removed }: Sealed, held: number): boolean {
  return after > Math.max(held, removed)
}

/** Whether it comes of a later epoch, or of the owner of what was nobody's. */
function isNewer({ owner, epoch }: Ownership, known: Ownership): boolean {
  return epoch > known.epoch || (epoch > 0 && epoch === known.epoch && known.owner === null && owner !== null)
}

function isProtocolError(error: unknown): error is SyncError {
  return error instanceof SyncError && error.code === "ERR_PROTOCOL"
}

function overtaken({ aggregateID, owner, epoch: gotEpoch }: Sealed | Stored, known: Ownership): SyncError {
  const whose = known.owner === null ? "nobody's" : `of "${known.owner}"`
  const message = `Aggregate "${aggregateID}" is ${whose} at epoch ${known.epoch}; the cluster has a message of epoch ${gotEpoch}`
  const fields = { aggregateID, expected: known.owner, got: owner, epoch: known.epoch, gotEpoch }
  return new SyncError("ERR_NOT_OWNER", message, fields)
}
