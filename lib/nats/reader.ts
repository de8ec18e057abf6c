import type { WriteContext } from "../context"
import { SyncError } from "../errors"
import type { Applier } from "../follow/apply"
import { BATCH_BYTES } from "../follow/batches"
import type { Progress } from "../follow/following"
import { createdPages } from "../lines"
import { aggregates as listed } from "../read"
import type { Cluster, From } from "./cluster"
import { Delivery } from "./delivery"
import { failureOf } from "./failure"
import { Intake } from "./intake"
import { sealedOf, type Raw, type Sealed } from "./message"
import { pooled } from "./pool"
import { firstBeyond, isBeyond, type Held, type Point } from "./search"
import { WATCH, Witness } from "./witness"

/** Searches for where an aggregate goes on that are made at once. */
const SEARCHING = 32

/** Aggregates that are behind, past which it is cheaper to read the stream from its beginning. */
const MOST_SEARCHED = 1_000

/** The cluster does not have any more what has been read from it. */
const BACK = new Error("The cluster has gone back")

/** What one call of `replicate` reads, and who hears of it. */
export interface Reading {
  readonly context: WriteContext
  readonly cluster: Cluster
  readonly applier: Applier
  /** These alone. */
  readonly aggregates: ReadonlySet<string> | undefined
  /** Whose all of it is. */
  readonly owner: string | undefined
  readonly progress: Progress
  /** Hears of a message that no relay has written. */
  readonly foreign: (error: SyncError, subject: string) => void
}

/**
 * One connection of a reader, for as long as it lasts. It compares what the cluster has with what the store holds, and reads the
 * stream from the first message that is beyond that. The store has the only cursor there is.
 */
export class Reader {
  readonly #witness = new Witness()
  /** Ends this attempt. */
  readonly #end = new AbortController()
  #subjects: ReadonlySet<string> | undefined

  constructor(private readonly reading: Reading) {}

  /** Rejects with what it ended with; resolves where it has to begin anew. */
  async run(stopped: AbortSignal): Promise<void> {
    const { signal } = this.#end
    const ended = new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
    const stop = () => this.#end.abort()
    stopped.addEventListener("abort", stop)
    if (stopped.aborted) stop()
    const look = async () => (await this.#witness.isThere(this.reading.cluster)) || this.#end.abort(BACK)
    const watch = setInterval(() => void look().catch((error) => this.#end.abort(error)), WATCH).unref()
    try {
      // Of a request that is on its way nobody waits for the answer.
      await Promise.race([this.#read(), ended])
    } catch (error) {
      const { aborted, reason } = this.#end.signal
      if (reason === BACK) return
      // What was being done ends with the attempt, and is not its reason.
      throw failureOf(aborted ? reason : error, "The stream cannot be read")
    } finally {
      clearInterval(watch)
      stopped.removeEventListener("abort", stop)
      this.#end.abort()
    }
  }

  async #read(): Promise<never> {
    const { progress, cluster, applier } = this.reading
    progress.connecting()
    cluster.watch(this.#end)
    await cluster.find()
    this.#end.signal.throwIfAborted()
    progress.answered()
    progress.catchingUp()
    applier.retry()
    return this.#consume(await this.#start())
  }

  /** The position from which the stream has what is not held. */
  async #start(): Promise<number> {
    const held = this.#held()
    const behind: [string, Held, Point][] = []
    // A server may be behind others: what it has not told of comes later than all that it has.
    let seen = 0
    let isKnown = true
    const open = (raw: Raw) => {
      seen = Math.max(seen, raw.seq)
      if (!this.#isWanted(raw)) return undefined
      const head = this.#opened(raw)
      isKnown &&= head !== undefined
      return head
    }
    const delivery = await this.#deliver("last of each", open)
    try {
      while (!(await delivery.isDrained())) {
        await delivery.news()
        for (const head of delivery.take(BATCH_BYTES)) {
          const own = held.get(head.aggregateID) ?? NOTHING
          if (isBeyond(head, own)) behind.push([head.aggregateID, own, head])
        }
      }
    } finally {
      delivery.close()
    }
    if (!isKnown || behind.length > MOST_SEARCHED) return 1
    let start = seen + 1
    // Whoever has nothing before what has been found needs no more than one look.
    const earliest = behind.toSorted(([, , one], [, , other]) => one.position - other.position)
    await pooled(earliest, SEARCHING, async ([aggregateID, own, head]) => {
      const first = await this.#first(aggregateID, own, { ...head, position: Math.min(head.position, start) })
      start = Math.min(start, first)
    })
    return start
  }

  async #first(aggregateID: string, own: Held, head: Point): Promise<number> {
    try {
      return (await firstBeyond(this.reading.cluster, aggregateID, own, head)) ?? head.position
    } catch (error) {
      if (!(error instanceof SyncError) || error.code !== "ERR_PROTOCOL") throw error
      return 1
    }
  }

  async #consume(start: number): Promise<never> {
    const { context, cluster, applier, owner, progress } = this.reading
    const intake = new Intake(context, cluster, applier, owner, this.#end.signal)
    let last = start - 1
    const open = (raw: Raw) => {
      // One at a position that had another one before.
      if (raw.seq <= last) this.#end.abort(BACK)
      last = raw.seq
      return this.#isWanted(raw) ? this.#opened(raw) : undefined
    }
    const delivery = await this.#deliver({ position: start }, open)
    try {
      for (;;) {
        const isDrained = await delivery.isDrained()
        this.#end.signal.throwIfAborted()
        if (isDrained) progress.live()
        await delivery.news()
        await intake.apply(delivery.take(BATCH_BYTES))
      }
    } finally {
      delivery.close()
    }
  }

  async #deliver(from: From, open: (raw: Raw) => Sealed | undefined): Promise<Delivery<Sealed>> {
    const { cluster, aggregates } = this.reading
    const consumer = await cluster.consumer(from, aggregates)
    const { mostBytes, place } = cluster
    return new Delivery(place.connection, consumer, { mostBytes, info: await consumer.info(true) }, open, this.#end)
  }

  /** Undefined for what is no relay's. */
  #opened(raw: Raw): Sealed | undefined {
    try {
      const message = sealedOf(raw)
      this.#witness.see(message.position, message.id)
      return message
    } catch (error) {
      this.reading.foreign(failureOf(error, `A message on ${raw.subject} cannot be read`), raw.subject)
      return undefined
    }
  }

  #isWanted({ subject }: Raw): boolean {
    const { aggregates, cluster } = this.reading
    if (aggregates === undefined || cluster.selects(aggregates)) return true
    this.#subjects ??= new Set(Array.from(aggregates, (aggregateID) => cluster.subject(aggregateID)))
    return this.#subjects.has(subject)
  }

  /** What the store holds of each aggregate. */
  #held(): Map<string, Held> {
    const { context } = this.reading
    const removed = new Map<string, number>()
    for (const page of createdPages(context)) for (const one of page) removed.set(one.aggregateID, one.removed)
    const held = new Map<string, Held>()
    for (const { aggregateID, seq, epoch } of listed(context)) {
      held.set(aggregateID, { seq, removed: removed.get(aggregateID) ?? -1, epoch })
    }
    return held
  }
}

const NOTHING: Held = { seq: -1, removed: -1, epoch: -1 }
