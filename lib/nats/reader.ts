import type { Consumer, ConsumerMessages, JsMsg } from "@nats-io/jetstream"
import type { WriteContext } from "../context"
import { SyncError } from "../errors"
import type { Applier, Lack, Told } from "../follow/apply"
import { BATCH_BYTES, longestLine } from "../follow/batches"
import { unreachable } from "../follow/failure"
import type { Progress } from "../follow/following"
import { createdPages } from "../lines"
import { adoptOwner, type Ownership } from "../owner"
import { aggregates as listed, sequence } from "../read"
import type { Cluster } from "./cluster"
import { failureOf } from "./failure"
import { fetch, give } from "./fetch"
import { decode, type Stored } from "./message"
import { firstBeyond, isBeyond, type Held, type Point } from "./search"
import { WATCH, Witness } from "./witness"

/** Searches for where an aggregate goes on that are made at once. */
const SEARCHING = 32

/** Aggregates that are behind, past which it is cheaper to read the stream from its beginning. */
const MOST_SEARCHED = 1_000

/** Aggregates whose history is fetched at once: each may take the memory of a segment. */
const FETCHING = 8

/** How a consumer is pulled: bytes that wait here, and milliseconds until a silent one is asked again, and given up. */
const PULL = { max_bytes: 4 * 1024 * 1024, expires: 10_000, idle_heartbeat: 2_000 }

/** Milliseconds, once or twice, after which what was said to follow is not waited for. */
const QUIET = 100

/** What tells that a consumer gives nothing any more. */
const LOST: ReadonlySet<string> = new Set([
  "consumer_deleted",
  "consumer_not_found",
  "heartbeats_missed",
  "no_responders",
  "stream_not_found",
])

/** The cluster does not have any more what has been read from it. */
const BACK = new Error("The cluster has gone back")

/**
 * One connection of a reader, for as long as it lasts. It compares what the cluster has with what the store holds, and reads the
 * stream from the first message that is beyond that. The store has the only cursor there is.
 */
export class Reader {
  readonly #witness = new Witness()
  /** Ends this attempt. */
  readonly #end = new AbortController()
  /** Whose every aggregate is in the store. */
  readonly #owners = new Map<string, Ownership>()
  /** Whose some are by what has been read, from a seq on, and not yet in the store. */
  readonly #told = new Map<string, Ownership & { readonly seq: number }>()

  constructor(
    private readonly context: WriteContext,
    private readonly cluster: Cluster,
    private readonly applier: Applier,
    private readonly aggregates: ReadonlySet<string> | undefined,
    private readonly progress: Progress,
  ) {}

  /** Rejects with what it ended with; resolves where it has to begin anew. */
  async run(stopped: AbortSignal): Promise<void> {
    const stop = () => this.#end.abort()
    stopped.addEventListener("abort", stop)
    if (stopped.aborted) stop()
    const look = async () => (await this.#witness.isThere(this.cluster)) || this.#end.abort(BACK)
    const watch = setInterval(() => void look().catch((error) => this.#end.abort(error)), WATCH).unref()
    try {
      this.progress.connecting()
      this.cluster.watch(this.#end)
      await this.cluster.find()
      this.progress.answered()
      this.progress.catchingUp()
      this.applier.retry()
      await this.#consume(await this.#start())
    } catch (error) {
      if (this.#end.signal.reason === BACK) return
      // What was being done ends with the attempt, and is not its reason.
      throw this.#end.signal.aborted ? this.#reason() : error
    } finally {
      clearInterval(watch)
      stopped.removeEventListener("abort", stop)
      this.#end.abort()
    }
  }

  /** The position from which the stream has what is not held. */
  async #start(): Promise<number> {
    const held = this.#held()
    const behind: [string, Held, Point][] = []
    let seen = 0
    for await (const point of this.#heads()) {
      // A server may be behind others: what it has not told of comes later than all that it has.
      seen = Math.max(seen, point.position)
      this.#witness.see(point.position, point.id)
      const own = held.get(point.aggregateID) ?? NOTHING
      if (isBeyond(point, own)) behind.push([point.aggregateID, own, point])
    }
    if (behind.length > MOST_SEARCHED) return 1
    let start = seen + 1
    await pooled(behind, SEARCHING, async ([aggregateID, own, point]) => {
      const first = await firstBeyond(this.cluster, aggregateID, own, point)
      start = Math.min(start, first ?? start)
    })
    return start
  }

  /** The last message of each aggregate, without its items. */
  async *#heads(): AsyncGenerator<Stored, void> {
    const consumer = await this.cluster.consumer("last of each", this.aggregates)
    if ((await consumer.info(true)).num_pending === 0) return
    const messages = await this.#pull(consumer)
    try {
      for await (const message of messages) {
        if (this.#isWanted(message)) yield this.#decoded(message)
        if (message.info.pending === 0) return
      }
      throw this.#reason()
    } finally {
      messages.stop()
      void consumer.delete().catch(() => {})
    }
  }

  async #consume(start: number): Promise<never> {
    const consumer = await this.cluster.consumer({ position: start }, this.aggregates)
    if ((await consumer.info(true)).num_pending === 0) this.progress.live()
    const messages = await this.#pull(consumer)
    let batch: Stored[] = []
    let size = 0
    let last = start - 1
    try {
      for await (const message of orQuiet(messages)) {
        if (message !== undefined && this.#isWanted(message)) {
          const stored = this.#decoded(message)
          // One at a position that had another one before.
          if (stored.position <= last) this.#end.abort(BACK)
          last = stored.position
          this.#witness.see(stored.position, stored.id)
          batch.push(stored)
          size += stored.lines.length
        }
        // As much at once as there is: those that are still to come will come by themselves.
        if (size < BATCH_BYTES && message !== undefined && message.info.pending > 0) continue
        await this.#apply(batch)
        batch = []
        size = 0
        if (message?.info.pending === 0) this.progress.live()
      }
      throw this.#reason()
    } finally {
      messages.stop()
      void consumer.delete().catch(() => {})
    }
  }

  async #apply(batch: readonly Stored[]): Promise<void> {
    const wanted = this.#inOrder(batch)
    const lacking = new Map<string, Lack>()
    let told: Told[] = []
    const apply = async () => {
      for (const [aggregateID, lack] of await this.applier.live(told)) lacking.set(aggregateID, lack)
      told = []
    }
    for (const message of wanted) {
      const { aggregateID, seq, lines, segment } = message
      if (segment !== undefined) {
        await apply()
        await give({ ...this.#common, lines: (some) => this.applier.history(some) }, message)
      } else if (lines.length > 0) told.push({ text: lines, aggregateID, seq })
    }
    await apply()
    for (const { aggregateID, seq, lines } of wanted) {
      // Without items of its own, it says how far the others reach.
      if (lines.length > 0 || sequence(this.context, aggregateID) >= seq) continue
      lacking.set(aggregateID, { seq, came: true })
    }
    if (lacking.size > 0) await this.#fetch(lacking)
    await this.#adopt()
  }

  /** Leaves messages of an owner whose place another has taken: the cluster refuses them, and so does whoever has heard of it. */
  #inOrder(batch: readonly Stored[]): Stored[] {
    return batch.filter((message) => {
      const { aggregateID, owner, epoch, seq } = message
      const known = this.#owners.get(aggregateID) ?? NOBODY
      const before = this.#told.get(aggregateID) ?? known
      // What is held may come again.
      if (epoch < before.epoch && seq > sequence(this.context, aggregateID)) {
        this.applier.leave(aggregateID, overtaken(message, before))
        return false
      }
      const isNew = epoch > before.epoch || (epoch === before.epoch && before.owner === null && owner !== null)
      if (epoch > 0 && isNew) this.#told.set(aggregateID, { owner, epoch, seq })
      return true
    })
  }

  /**
   * Makes owners and epochs the store's own, all in one transaction. Of an aggregate only once everything before is held: whoever
   * finds an epoch in the store knows that nothing of an earlier one is missing.
   */
  async #adopt(): Promise<void> {
    const { context } = this
    const ready = [...this.#told].filter(([aggregateID, { seq }]) => sequence(context, aggregateID) >= seq)
    if (ready.length === 0) return
    for (const [aggregateID, { owner, epoch }] of ready) {
      this.#told.delete(aggregateID)
      this.#owners.set(aggregateID, { owner, epoch })
    }
    await context.queue.enqueue(() => {
      for (const [aggregateID, owned] of ready) {
        try {
          adoptOwner(context, aggregateID, owned)
        } catch (error) {
          if (!(error instanceof SyncError) || error.code !== "ERR_NOT_OWNER") throw error
          this.applier.leave(aggregateID, error)
        }
      }
    }, this.#end.signal)
  }

  /** The histories of single aggregates, as long as there are such. */
  async #fetch(lacking: ReadonlyMap<string, Lack>): Promise<void> {
    this.applier.retry(lacking.keys())
    await pooled([...lacking.keys()], FETCHING, async (aggregateID) => {
      const held = () => ({ seq: sequence(this.context, aggregateID), removed: Infinity, epoch: Infinity })
      await fetch({ ...this.#common, aggregateID, held, lines: (lines) => this.applier.history(lines) })
    })
    this.applier.settle(lacking)
  }

  get #common() {
    const longest = longestLine(this.context.maxEventBytes)
    return { cluster: this.cluster, longest, signal: this.#end.signal }
  }

  /** Pulls messages until this attempt ends, or the consumer is lost. */
  async #pull(consumer: Consumer): Promise<ConsumerMessages> {
    const max_bytes = Math.max(PULL.max_bytes, 2 * this.cluster.mostBytes)
    const messages = await consumer.consume({ ...PULL, max_bytes })
    const { signal } = this.#end
    signal.addEventListener("abort", () => messages.stop())
    if (signal.aborted) messages.stop()
    const listen = async () => {
      for await (const { type } of messages.status()) {
        if (LOST.has(type)) this.#end.abort(unreachable(`The consumer of the stream was lost (${type})`))
      }
    }
    void listen().catch(() => {})
    return messages
  }

  #decoded(message: JsMsg): Stored {
    try {
      return decode(message)
    } catch (error) {
      throw failureOf(error, `A message on ${message.subject} cannot be read`)
    }
  }

  #isWanted({ subject }: JsMsg): boolean {
    if (this.aggregates === undefined || this.cluster.selects(this.aggregates)) return true
    this.#subjects ??= new Set(Array.from(this.aggregates, (aggregateID) => this.cluster.subject(aggregateID)))
    return this.#subjects.has(subject)
  }
  #subjects: Set<string> | undefined

  #reason(): unknown {
    const { reason } = this.#end.signal
    return reason instanceof Error ? reason : unreachable("The consumer of the stream has ended")
  }

  /** What the store holds of each aggregate, and whose it is. */
  #held(): Map<string, Held> {
    const removed = new Map<string, number>()
    for (const page of createdPages(this.context)) for (const one of page) removed.set(one.aggregateID, one.removed)
    const held = new Map<string, Held>()
    for (const { aggregateID, seq, owner, epoch } of listed(this.context)) {
      held.set(aggregateID, { seq, removed: removed.get(aggregateID) ?? -1, epoch })
      this.#owners.set(aggregateID, { owner, epoch })
    }
    return held
  }
}

const NOTHING: Held = { seq: -1, removed: -1, epoch: -1 }
const NOBODY: Ownership = { owner: null, epoch: 0 }

function overtaken({ aggregateID, owner, epoch: gotEpoch }: Stored, known: Ownership): SyncError {
  const whose = known.owner === null ? "nobody's" : `of "${known.owner}"`
  const message = `Aggregate "${aggregateID}" is ${whose} at epoch ${known.epoch}; the cluster has a message of epoch ${gotEpoch}`
  const fields = { aggregateID, expected: known.owner, got: owner, epoch: known.epoch, gotEpoch }
  return new SyncError("ERR_NOT_OWNER", message, fields)
}

/**
 * Messages, and undefined where one was said to follow and does not come: it may have been removed on the way.
 */
async function* orQuiet(messages: ConsumerMessages): AsyncGenerator<JsMsg | undefined, void> {
  const iterator = messages[Symbol.asyncIterator]()
  let [waiting, said] = [false, false]
  let wake = () => {}
  let quiet = new Promise<undefined>((resolve) => (wake = () => resolve(undefined)))
  const timer = setInterval(() => {
    if (said) wake()
    said = waiting
    quiet = new Promise((resolve) => (wake = () => resolve(undefined)))
  }, QUIET)
  try {
    for (let next = iterator.next(); ;) {
      const step = waiting ? await Promise.race([next, quiet]) : await next
      if (step?.done) return
      waiting = (step?.value.info.pending ?? 0) > 0
      said = false
      if (step !== undefined) next = iterator.next()
      yield step?.value
    }
  } finally {
    clearInterval(timer)
  }
}

/** Works on all of a list, so many at a time. */
async function pooled<T>(list: readonly T[], width: number, work: (one: T) => Promise<void>): Promise<void> {
  const rest = list.values()
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const one of rest) await work(one)
    }),
  )
}
