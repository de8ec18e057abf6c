import { Registry, type AnyDefinition, type InputOf, type PropertiesOf } from "./define"
import { SyncError, invalidArgument, show } from "./errors"
import { inspectable, withLazyData, type Event } from "./payload"
import { isThenable } from "./promise"
import type { PendingEvent } from "./transaction"

/** An event as listeners receive it: one object for all of them, and not the one that `run` returned. */
export interface PublishedEvent<Data = unknown, Properties = unknown> extends Event<Data> {
  /** What `convertEvent` made of the data; without it, the data. */
  properties: Properties
}

/** A published event of one definition. */
export type PublishedOf<D extends AnyDefinition> = PublishedEvent<InputOf<D>, PropertiesOf<D>>

/** Turns stored data into what listeners receive as `properties`. */
export type ConvertEvent = (type: string, data: unknown) => unknown

/** Receives what went wrong while an event was delivered; the run that made the event never sees it. */
export type ListenerErrorHandler = (error: unknown, event: PublishedEvent) => void

type Listener = (event: PublishedEvent) => unknown

interface Subscription {
  readonly listener: Listener
  active: boolean
}

/** How many events may wait behind a pending conversion. */
export const MAX_WAITING = 10_000

/** Delivers committed events to listeners, one after the other, in commit order. */
export class Dispatcher {
  /** Lists are replaced, never changed: a delivery goes on over the list it began with. */
  readonly #byType = new Map<string, readonly Subscription[]>()
  #toAll: readonly Subscription[] = []
  readonly #queue: PendingEvent[] = []
  #delivering = false
  #converting = false
  #overflowed = false

  constructor(
    private readonly convert: ConvertEvent | undefined,
    private readonly onError: ListenerErrorHandler = warn,
  ) {}

  /** Events of the type, whatever their version. Returns the undo. */
  subscribe(definition: AnyDefinition, listener: Listener): () => void {
    if (!(definition?.registry instanceof Registry)) {
      throw invalidArgument(`subscribe needs a definition made by define, not ${show(definition)}`)
    }
    const { type } = definition
    const subscription = subscribing("subscribe", listener)
    this.#byType.set(type, [...(this.#byType.get(type) ?? []), subscription])
    return () => {
      subscription.active = false
      const left = (this.#byType.get(type) ?? []).filter((other) => other !== subscription)
      if (left.length > 0) this.#byType.set(type, left)
      else this.#byType.delete(type)
    }
  }

  subscribeAll(listener: Listener): () => void {
    const subscription = subscribing("subscribeAll", listener)
    this.#toAll = [...this.#toAll, subscription]
    return () => {
      subscription.active = false
      this.#toAll = this.#toAll.filter((other) => other !== subscription)
    }
  }

  /** Appends to the queue and delivers it, unless a delivery further up the stack, or a conversion, will go on with it. */
  publish(events: readonly PendingEvent[]): void {
    for (const event of events) this.#queue.push(event)
    if (this.#converting) this.#bound()
    this.#deliver()
  }

  /** Drops what waits, and all listeners. */
  close(): void {
    this.#queue.length = 0
    for (const subscription of [...this.#toAll, ...[...this.#byType.values()].flat()]) subscription.active = false
    this.#toAll = []
    this.#byType.clear()
  }

  #deliver(): void {
    if (this.#delivering || this.#converting) return
    this.#delivering = true
    let next = 0
    try {
      // The queue may grow, or be emptied by close, while its listeners run.
      while (next < this.#queue.length && !this.#converting) this.#convertAndNotify(this.#queue[next++] as PendingEvent)
    } finally {
      this.#queue.splice(0, next)
      this.#delivering = false
    }
    if (this.#converting) this.#bound()
  }

  #convertAndNotify(pending: PendingEvent): void {
    // Whoever subscribes from here on, perhaps while the conversion is pending, hears the next event.
    const typed = this.#byType.get(pending.event.type) ?? []
    const all = this.#toAll
    if (typed.length === 0 && all.length === 0) return
    const published = unconverted(pending)
    if (this.convert === undefined) return this.#notify(typed, all, published)
    let properties
    try {
      properties = this.convert(published.type, published.data)
      // Looking for a `then` may throw, and so may calling it, at once, twice or never: a promise's own takes its place.
      if (isThenable(properties)) {
        Promise.prototype.then.call(
          Promise.resolve(properties),
          (value) => this.#resume(() => this.#notify(typed, all, converted(published, value))),
          (error: unknown) => this.#resume(() => this.#report(error, published)),
        )
        this.#converting = true
        return
      }
    } catch (error) {
      return this.#report(error, published)
    }
    this.#notify(typed, all, converted(published, properties))
  }

  /** Ends a pending conversion: its own event first, then what waited behind it. */
  #resume(finish: () => void): void {
    this.#converting = false
    this.#delivering = true
    try {
      finish()
    } finally {
      this.#delivering = false
    }
    this.#deliver()
    if (!this.#converting) this.#overflowed = false
  }

  #notify(typed: readonly Subscription[], all: readonly Subscription[], event: PublishedEvent): void {
    for (const subscription of typed) this.#call(subscription, event)
    for (const subscription of all) this.#call(subscription, event)
  }

  #call(subscription: Subscription, event: PublishedEvent): void {
    if (!subscription.active) return
    try {
      const result = subscription.listener(event)
      if (isThenable(result)) Promise.resolve(result).catch((error: unknown) => this.#report(error, event))
    } catch (error) {
      this.#report(error, event)
    }
  }

  /** Drops what is too much, and says so once until everything that waits has been delivered. */
  #bound(): void {
    const dropped = this.#queue.splice(MAX_WAITING)[0]
    if (dropped === undefined || this.#overflowed) return
    this.#overflowed = true
    const { aggregateID, seq, type } = (this.#queue.at(-1) as PendingEvent).event
    const message =
      `More than ${MAX_WAITING} events wait for convertEvent: those after seq ${seq} of aggregate "${aggregateID}" ` +
      "are dropped until it catches up"
    const error = new SyncError("ERR_OVERFLOW", message, { aggregateID, seq, type, limit: MAX_WAITING })
    this.#report(error, unconverted(dropped))
  }

  #report(error: unknown, event: PublishedEvent): void {
    try {
      const result: unknown = this.onError(error, event)
      if (isThenable(result)) Promise.resolve(result).catch((another: unknown) => warn(another, event))
    } catch (another) {
      warn(another, event)
    }
  }
}

function subscribing(call: string, listener: unknown): Subscription {
  if (typeof listener !== "function") throw invalidArgument(`${call} needs a listener, not ${show(listener)}`)
  return { listener: listener as Listener, active: true }
}

/** Without `convertEvent` the properties are the data, parsed when first read like the data itself. */
function unconverted({ event, text }: PendingEvent): PublishedEvent {
  const { type, version, id, seq, aggregateID, created, metadata } = event
  const published = { type, version, id, seq, aggregateID } as PublishedEvent
  if (created !== undefined) published.created = created
  withLazyData(published, text)
  Object.defineProperty(published, "properties", sameAsData)
  if (metadata !== undefined) published.metadata = metadata
  return inspectable(published)
}

function converted(published: PublishedEvent, properties: unknown): PublishedEvent {
  return Object.defineProperty(published, "properties", { ...ownValue, value: properties })
}

const ownValue = { enumerable: true, configurable: true, writable: true }

const sameAsData: PropertyDescriptor & ThisType<PublishedEvent> = {
  enumerable: true,
  configurable: true,
  get() {
    return this.data
  },
  set(value: unknown) {
    converted(this, value)
  },
}

function warn(error: unknown, event: PublishedEvent): void {
  const { code, reason } = described(error)
  process.emitWarning(
    `A listener of "${event.type}" failed (aggregate "${event.aggregateID}", seq ${event.seq}): ${reason}`,
    { type: "SynclineWarning", code },
  )
}

/** Any value may have been thrown, one that cannot be looked at too. */
function described(error: unknown): { code: string; reason: string } {
  try {
    const reason = error instanceof Error ? String(error.stack ?? error.message) : show(error)
    return { code: error instanceof SyncError ? error.code : "LISTENER_FAILED", reason }
  } catch {
    return { code: "LISTENER_FAILED", reason: "with a value that throws when it is looked at" }
  }
}
