import { checkAggregateID, checkInteger, checkName, checkOptions, checkSignal } from "./argument"
import { Registry, type EitherDefinition } from "./define"
import { SyncError, invalidArgument, show } from "./errors"
import type { Dispatcher, Receiver, Wants } from "./publish"
import type { LiveEvent } from "./published"
import { DONE } from "./pull"
import type { PendingEvent, Transactions } from "./transaction"
import type { Watch } from "./watch"

/**
 * What `stream` takes.
 * @example
 * const options: StreamOptions = { types: [Typing, "session.renamed"], capacity: { events: 100 } }
 * const live = store.stream(options)
 * store.publish(Typing, { sessionID: "ses_1", title: "Ship" })
 * const { value } = await live.next()
 * value?.type // → "session.typing"
 */
export interface StreamOptions {
  /** Only events of these types, as unversioned names or definitions. Default: all. */
  types?: Many<string | EitherDefinition> | undefined
  /** Only events of these aggregates. Default: all. */
  aggregates?: Many<string> | undefined
  /** How much may wait to be taken; one event always may. */
  capacity?: StreamCapacity | undefined
  /** Ends the iteration, without an error. */
  signal?: AbortSignal | undefined
}

/**
 * Not any iterable: a string is one, too.
 * @inline
 */
type Many<T> = readonly T[] | ReadonlySet<T>

/**
 * What may wait in a stream; past either, `ERR_OVERFLOW`.
 * @example
 * const capacity: StreamCapacity = { events: 1, bytes: 1024 }
 * const live = store.stream({ capacity })
 * for (const title of ["Ship", "Ship it"]) store.run(Renamed, { sessionID: "ses_1", title })
 * await live.next() // throws ERR_OVERFLOW
 */
export interface StreamCapacity {
  /** Default 1,000. */
  events?: number | undefined
  /** UTF-8 bytes of data. Default 8 MiB. */
  bytes?: number | undefined
}

const DEFAULT_EVENTS = 1_000
const DEFAULT_BYTES = 8 * 1024 * 1024

/** What `stream` needs of a store. */
export interface StreamContext {
  readonly transactions: Transactions
  readonly dispatcher: Dispatcher
  readonly watch: Watch
}

/** Live events for one consumer, from the call on: filtered first, then kept until they are taken, up to a bound. */
export function stream(context: StreamContext, options?: StreamOptions): AsyncIterableIterator<LiveEvent, undefined> {
  context.transactions.assertOpen()
  const { types, aggregates, capacity, signal } = checkOptions("stream", options, STREAM_OPTIONS)
  const wants = wanting(checkTypes(types), checkAggregates(aggregates))
  return new Stream(context, wants, checkCapacity(capacity), checkSignal(signal))
}

/** @internal The same, decided. */
export interface Capacity {
  readonly events: number
  readonly bytes: number
}

/** A `next` that waits for an event. */
interface Taker {
  resolve(result: IteratorResult<LiveEvent, undefined>): void
  reject(error: SyncError): void
}

/** The events that wait to be taken, or the takers that wait for events. Past its capacity it drops all of them, and says so. */
class Stream implements AsyncIterableIterator<LiveEvent, undefined>, Receiver {
  readonly #waiting = new Queue()
  readonly #takers: Taker[] = []
  readonly #undo: () => void
  readonly #watch: Watch
  #bytes = 0
  /** The last seq of each aggregate that was taken. */
  readonly #delivered = new Map<string, number>()
  /** Of the last event that was taken. */
  #position: number
  #overflow: SyncError | undefined
  #ended = false

  constructor(
    { dispatcher, watch }: StreamContext,
    wants: Wants,
    private readonly capacity: Capacity,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#watch = watch
    const { undo, position } = dispatcher.receive(wants, this)
    this.#undo = undo
    this.#position = position
    if (signal?.aborted) this.close()
    else signal?.addEventListener("abort", this.close, { once: true })
  }

  next(): Promise<IteratorResult<LiveEvent, undefined>> {
    const waiting = this.#waiting.shift()
    if (waiting !== undefined) {
      this.#bytes -= waiting.bytes
      return Promise.resolve(this.#taken(waiting.event))
    }
    const overflow = this.#overflow
    this.#overflow = undefined
    if (overflow !== undefined) return Promise.reject(overflow)
    if (this.#ended) return Promise.resolve(DONE)
    return new Promise((resolve, reject) => {
      if (this.#takers.push({ resolve, reject }) === 1) this.#watch.hold(true)
    })
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.close()
    this.#overflow = undefined
    return Promise.resolve(DONE)
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  receive(event: LiveEvent, text: string): void {
    if (this.#ended) return
    const taker = this.#nextTaker()
    if (taker !== undefined) return taker.resolve(this.#taken(event))
    const bytes = Buffer.byteLength(text)
    const { capacity } = this
    if (this.#waiting.length >= capacity.events)
      return this.#overflows("events wait in a stream", capacity.events, event)
    if (this.#waiting.length > 0 && this.#bytes + bytes > capacity.bytes) {
      return this.#overflows("bytes wait in a stream", capacity.bytes, event)
    }
    this.#waiting.push({ event, bytes })
    this.#bytes += bytes
  }

  miss(event: PendingEvent["event"], limit: number): void {
    if (!this.#ended) this.#overflows("events wait for listeners", limit, event)
  }

  /** Ends it, without an error. */
  readonly close = (): void => {
    if (this.#ended) return
    this.#ended = true
    this.#waiting.clear()
    this.signal?.removeEventListener("abort", this.close)
    this.#undo()
    for (let taker = this.#nextTaker(); taker !== undefined; taker = this.#nextTaker()) taker.resolve(DONE)
  }

  #nextTaker(): Taker | undefined {
    const taker = this.#takers.shift()
    if (taker !== undefined && this.#takers.length === 0) this.#watch.hold(false)
    return taker
  }

  #taken(event: LiveEvent): IteratorYieldResult<LiveEvent> {
    const { aggregateID, seq, position } = event
    if (position !== undefined && seq !== undefined) {
      this.#delivered.set(aggregateID, seq)
      this.#position = position
    }
    return { done: false, value: event }
  }

  #overflows(what: string, limit: number, { aggregateID, type }: PendingEvent["event"]): void {
    // Those that wait for an event are told by the first of them; a stream that nobody iterates, when somebody does.
    const taker = this.#nextTaker()
    this.close()
    const last = this.#delivered.get(aggregateID)
    const where = last === undefined ? "nothing was taken of" : `seq ${last} was the last one taken of`
    const message = `More than ${limit} ${what}, which ends the stream: ${where} aggregate "${aggregateID}"`
    const fields = { aggregateID, type, limit, position: this.#position, delivered: this.#delivered }
    const overflow = new SyncError("ERR_OVERFLOW", message, last === undefined ? fields : { ...fields, seq: last })
    if (taker === undefined) this.#overflow = overflow
    else taker.reject(overflow)
  }
}

interface Waiting {
  readonly event: LiveEvent
  readonly bytes: number
}

/** First in, first out, whatever its length: `shift` of a long array moves all that is left. */
class Queue {
  #items: (Waiting | undefined)[] = []
  #taken = 0

  get length(): number {
    return this.#items.length - this.#taken
  }

  push(item: Waiting): void {
    this.#items.push(item)
  }

  shift(): Waiting | undefined {
    if (this.length === 0) return undefined
    const item = this.#items[this.#taken]
    this.#items[this.#taken++] = undefined
    if (this.#taken * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#taken)
      this.#taken = 0
    }
    return item
  }

  clear(): void {
    this.#items = []
    this.#taken = 0
  }
}

const STREAM_OPTIONS = ["types", "aggregates", "capacity", "signal"]

function wanting(types: Set<string> | undefined, aggregates: Set<string> | undefined): Wants {
  return ({ type, aggregateID }) => (types?.has(type) ?? true) && (aggregates?.has(aggregateID) ?? true)
}

function checkTypes(types: StreamOptions["types"]): Set<string> | undefined {
  if (types === undefined) return undefined
  const checked = new Set<string>()
  for (const type of checkIterable("types", types)) {
    const name = typeof type === "object" && type?.registry instanceof Registry ? type.type : type
    checked.add(checkName("types: a type", name))
  }
  return checked
}

function checkAggregates(aggregates: StreamOptions["aggregates"]): Set<string> | undefined {
  if (aggregates === undefined) return undefined
  return new Set([...checkIterable("aggregates", aggregates)].map(checkAggregateID))
}

function checkIterable<T>(name: string, value: Iterable<T>): Iterable<T> {
  if (typeof value !== "string" && typeof value?.[Symbol.iterator] === "function") return value
  throw invalidArgument(`stream: ${name} must be an iterable, not ${show(value)}`)
}

/** @internal */
export function checkCapacity(capacity: StreamCapacity | undefined): Capacity {
  const { events = DEFAULT_EVENTS, bytes = DEFAULT_BYTES } = checkOptions("capacity", capacity, ["events", "bytes"])
  return { events: checkInteger("capacity.events", events, 1), bytes: checkInteger("capacity.bytes", bytes, 1) }
}
