import { isDeepStrictEqual } from "node:util"
import type { WriteContext } from "../context"
import { SyncError } from "../errors"
import { unreachable } from "../follow/failure"
import { linesOf } from "../lines"
import { ownerOf, type Ownership } from "../owner"
import { get, sequence } from "../read"
import { authority, fenced } from "./authority"
import type { Cluster, Segment } from "./cluster"
import { itemsOf, lastOf } from "./items"
import { encode, messageID, type Message, type Reach, type Stored } from "./message"
import { firstBeyond, type Point } from "./search"
import { SEGMENT_BYTES, forget, keep, made, mend, pack, type Packing } from "./segments"
import type { Witness } from "./witness"

/** Bytes of a message's lines, or so: what is behind goes in large messages, since each waits for the one before it. */
const MESSAGE_BYTES = 128 * 1024

/** Bytes that a message needs beside its lines. */
const HEADER_BYTES = 32 * 1024

/** Refusals in a row, without any progress, until it is given up for a while. */
const MOST_REFUSALS = 50

/** How far the cluster has an aggregate: its last message, without what is in it. */
interface Head extends Reach {
  readonly position: number
  /** The seq that its segments reach. */
  readonly packed: number
  /** The seq that the stream's first message of it comes after. */
  readonly purged: number
}

/** Items that are published together. */
type Chunk = Pick<Message, "after" | "seq" | "removed" | "type" | "id" | "lines" | "segment">

/** One aggregate's way to the cluster. Calls follow one another. */
export class Lane {
  #head: Head | undefined
  #authority: Ownership | undefined
  #chunks: Generator<Chunk, void> | undefined
  /** Of the present call. */
  #signal = new AbortController().signal

  constructor(
    private readonly context: WriteContext,
    private readonly cluster: Cluster,
    private readonly aggregateID: string,
    /** Events of which the messages stay on the stream. */
    private readonly window: number,
    private readonly witness: Witness,
  ) {}

  /** The cluster may hold something else than before. */
  forget(): void {
    this.#head = undefined
    this.#chunks = undefined
  }

  /** Whether the store may write the aggregate, as far as it knows. */
  get isOwn(): boolean {
    const { owner } = this.context
    const held = ownerOf(this.context, this.aggregateID)?.owner ?? null
    return owner === null || held === null || held === owner
  }

  /**
   * Publishes what the cluster lacks, in its order, of what there was when it is called and of some that came later; with `as` in
   * that name, and else in the store's own. Answers how many messages. `ERR_REPLAY_DIVERGED`, `ERR_NOT_OWNER`, `ERR_SEQUENCE_MISMATCH` where it has something else, another owner, or
   * more; `ERR_UNREACHABLE`.
   */
  async advance(signal: AbortSignal, as?: Ownership): Promise<number> {
    this.#signal = signal
    let published = 0
    let refusals = 0
    let refusedAt = -1
    let target: number | undefined
    const mayPublish = () => !signal.aborted && (as !== undefined || this.isOwn)
    while (mayPublish()) {
      const head = (this.#head ??= await this.#contact())
      const chunk = await this.#next(head)
      if (chunk === undefined) break
      const { owner, epoch } = (this.#authority ??=
        as ?? (await authority(this.context, this.cluster, this.aggregateID, head)))
      if (await this.#publish({ ...chunk, aggregateID: this.aggregateID, owner, epoch }, head)) {
        published++
        refusals = 0
      } else {
        this.#lose()
        // Another call for the same store may be faster each time, and does the same.
        refusals = head.seq > refusedAt ? 0 : refusals + 1
        refusedAt = head.seq
        target ??= sequence(this.context, this.aggregateID)
        if (head.seq > target) break
        if (refusals > MOST_REFUSALS) throw unreachable(`Aggregate "${this.aggregateID}" is refused again and again`)
      }
    }
    if (published > 0) await this.#trim()
    return published
  }

  /** Publishes a message without items, which fences whoever owned the aggregate before. False: another one was faster. */
  async mark(owned: Ownership, head: Point | undefined): Promise<boolean> {
    const { aggregateID } = this
    const { seq, removed, position } = head ?? NOTHING
    const id = messageID(aggregateID, seq, `owner.${owned.epoch}`)
    const message = { ...owned, aggregateID, id, after: seq, seq, removed, lines: new Uint8Array() }
    this.#lose()
    return (await this.cluster.publish(message, position)) !== undefined
  }

  get #packing(): Packing {
    const { context, cluster, aggregateID } = this
    return { context, cluster, aggregateID, signal: this.#signal }
  }

  #lose(): void {
    this.forget()
    this.#authority = undefined
  }

  /** What the cluster has, which must be what the store has. */
  async #contact(): Promise<Head> {
    const { cluster, aggregateID, context } = this
    this.#authority = undefined
    const head = await cluster.head(aggregateID)
    if (head === undefined) return NOTHING
    await context.watch.settled(this.#signal)
    await this.#compare(head)
    const first = await cluster.next(aggregateID, 1)
    // What was published, and is in no segment and on no message any more, is put there again from the store. A cluster that goes
    // back may have messages again that were taken from it, and none of those that followed.
    const purged = Math.max(first?.after ?? -1, head.seq - 2 * this.window)
    const missing = Math.max(purged, head.segment === undefined ? -1 : head.seq)
    let packed = missing < 0 ? -1 : await mend(this.#packing)
    if (packed < missing) packed = await pack(this.#packing, missing, segmentOf(head))
    if (head.removed >= 0) await this.#erase(head)
    return { ...reachOf(head), position: head.position, packed, purged: first?.after ?? -1 }
  }

  async #compare(head: Stored): Promise<void> {
    const { context, aggregateID } = this
    const held = sequence(context, aggregateID)
    if (head.seq > held) {
      const { owner, epoch } = ownerOf(context, aggregateID) ?? { owner: null, epoch: 0 }
      if (context.owner === null || owner !== context.owner) return
      if (head.epoch > epoch) throw await fenced(context, aggregateID, owner, head)
      const message = `Sequence mismatch for aggregate "${aggregateID}": the cluster has it through seq ${head.seq}, and this store through ${held}: replicate first`
      throw new SyncError("ERR_SEQUENCE_MISMATCH", message, { aggregateID, expected: held, got: head.seq })
    }
    const published = (lastOf(head.lines) as { event?: { seq: number; id: string; type: string; data: unknown } })
      ?.event
    const stored = published === undefined ? undefined : get(context, aggregateID, published.seq)
    // Nothing to compare: it was removed here, or compacted.
    if (published === undefined || stored === undefined) return
    if (stored.id === published.id && stored.type === published.type) {
      if (isDeepStrictEqual(JSON.parse(JSON.stringify(stored.data)), published.data)) return
    }
    const here = ownerOf(context, aggregateID)
    if (head.epoch > (here?.epoch ?? 0) && head.owner !== null && head.owner !== here?.owner) {
      throw await fenced(context, aggregateID, here?.owner ?? null, head)
    }
    const { seq } = published
    const message = `Replay diverged on aggregate "${aggregateID}": seq ${seq} is "${stored.id}" here and "${published.id}" in the cluster`
    throw new SyncError("ERR_REPLAY_DIVERGED", message, { aggregateID, seq, expected: published.id, got: stored.id })
  }

  /** Undefined: all that there was is published. Whoever records more says so, and calls again. */
  async #next(head: Head): Promise<Chunk | undefined> {
    const { context, aggregateID, window } = this
    await context.watch.settled(this.#signal)
    if (this.#signal.aborted) return undefined
    if (this.#chunks === undefined) {
      const last = sequence(context, aggregateID)
      if (last - head.seq > 2 * window) {
        const segment = await made(this.#packing, head.seq, last - window)
        if (segment !== undefined) return published(aggregateID, segment, head)
      }
      this.#chunks = this.#read(head, last)
    }
    const { value } = this.#chunks.next()
    if (value === undefined) this.#chunks = undefined
    return value ?? undefined
  }

  *#read(head: Head, through: number): Generator<Chunk, void> {
    const { context, aggregateID } = this
    let parts: Uint8Array[] = []
    let size = 0
    let [after, removed] = [head.seq, head.removed]
    let last: { seq: number; id?: string; type?: string } | undefined
    const chunk = (): Chunk => {
      const { seq, id = "gap", type } = last as NonNullable<typeof last>
      const told = { after, seq: Math.max(after, seq), removed, type }
      const made = {
        ...told,
        id: messageID(aggregateID, told.seq, removed >= seq ? "removed" : id),
        lines: Buffer.concat(parts),
      }
      after = made.seq
      parts = []
      size = 0
      return made
    }
    for (const { bytes } of linesOf(context, aggregateID, head.seq, through)) {
      for (const item of itemsOf(bytes)) {
        // A removal just where a reader stands is told each time.
        if (item.isRemoval && item.content().seq <= removed) continue
        if (size > 0 && size + item.line.length > MESSAGE_BYTES) yield chunk()
        if (item.isRemoval) removed = item.content().seq
        parts.push(item.line)
        size += item.line.length
        last = item.content()
      }
    }
    if (size > 0) yield chunk()
  }

  /** False: the cluster has something else by now. */
  async #publish(given: Message, head: Head): Promise<boolean> {
    const { cluster, aggregateID, witness } = this
    const message = await this.#fitting(given)
    let done = await cluster.publish(message, head.position)
    if (done?.duplicate) {
      // Published before, and its answer lost; or published, acknowledged and lost: servers remember ids longer than that.
      const now = await cluster.head(aggregateID)
      if (now !== undefined && now.seq >= message.seq && now.removed >= message.removed) return false
      const anew = { ...message, id: `${message.id}:${head.position}` }
      done = await cluster.publish(anew, now?.position ?? 0)
    }
    if (done === undefined || done.duplicate) return false
    witness.see(done.position, message.id)
    const segment = segmentOf(message)
    const packed = segment === undefined ? head.packed : await pack(this.#packing, message.seq, segment)
    this.#head = { ...reachOf(message), position: done.position, packed, purged: head.purged }
    if (message.removed > head.removed) await this.#erase(this.#head)
    return true
  }

  /** What a server would not take is put into a segment. */
  async #fitting(message: Message): Promise<Message> {
    const { lines, after, seq, removed } = message
    const most = Math.max(this.cluster.mostBytes - HEADER_BYTES, 0)
    if (lines.length <= most || encode(message).body.length <= most) return message
    const { name } = await keep(this.cluster, this.aggregateID, after, { lines, through: seq, removed })
    return { ...message, lines: new Uint8Array(), segment: name }
  }

  /** Takes what was removed from the stream, and from the segments. */
  async #erase(head: Point): Promise<void> {
    const { cluster, aggregateID } = this
    await forget(this.#packing, head.removed)
    const before = { seq: Infinity, removed: head.removed - 1, epoch: Infinity }
    const position = await firstBeyond(cluster, aggregateID, before, head)
    if (position !== undefined) await cluster.purge(aggregateID, position)
  }

  /** Leaves the window on the stream, once all before it is in segments. */
  async #trim(): Promise<void> {
    const { cluster, aggregateID, window } = this
    const head = this.#head
    if (head === undefined || this.#signal.aborted) return
    const through = head.seq - window
    if (through - head.purged < window) return
    const packed = through - head.packed < window ? head.packed : await pack(this.#packing, through)
    this.#head = { ...head, packed, purged: packed }
    const held = { seq: packed, removed: Infinity, epoch: Infinity }
    const position = await firstBeyond(cluster, aggregateID, held, head)
    if (position !== undefined) await cluster.purge(aggregateID, position)
  }
}

/** Of a subject without a message. */
const NOTHING: Head = { seq: -1, removed: -1, owner: null, epoch: 0, position: 0, packed: -1, purged: -1 }

function reachOf({ seq, removed, owner, epoch }: Reach): Reach {
  return { seq, removed, owner, epoch }
}

function segmentOf({ segment: name, after, seq: through, removed }: Message): Segment | undefined {
  return name === undefined ? undefined : { name, after, through, removed, bytes: SEGMENT_BYTES }
}

/** A segment as a message. */
function published(aggregateID: string, { name, after, through, removed }: Segment, head: Head): Chunk {
  const id = messageID(aggregateID, through, `segment.${name.slice(-16)}`)
  const reach = { after, seq: through, removed: Math.max(head.removed, removed) }
  return { ...reach, id, type: undefined, lines: new Uint8Array(), segment: name }
}
