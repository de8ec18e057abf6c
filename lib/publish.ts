import { checkChoice, checkOptions } from "./argument"
import { CatchUp, forAll, type Delivery } from "./catch-up"
import { Registry, type EitherDefinition } from "./define"
import { SyncError, invalidArgument, show } from "./errors"
import { native, type Handle } from "./native"
import { isThenable } from "./promise"
import { converted, unconverted, type LiveEvent, type PublishedEvent } from "./published"
import type { PendingEvent } from "./transaction"
import type { Watch } from "./watch"

/**
 * Turns stored data into what listeners receive as `properties`.
 * @example
 * const convertEvent: ConvertEvent = (type, data) => ({ type, ...(data as object) })
 * const other = open(":memory:", { ...session, convertEvent })
 * other.subscribeAll(({ properties }) => console.log(JSON.stringify(properties)))
 * other.run(Created, { sessionID: "a", title: "b" }) // prints {"type":"session.created","sessionID":"a","title":"b"}
 */
export type ConvertEvent = (type: string, data: unknown) => unknown

/**
 * Receives what went wrong while an event was delivered; the run that made the event never sees it.
 * @example
 * const onListenerError: ListenerErrorHandler = (error, { type }) => console.log(type, String(error))
 * const other = open(":memory:", { ...session, onListenerError })
 * other.subscribeAll(() => Promise.reject(new Error("not today")))
 * other.run(Created, { sessionID: "ses_2", title: "Untitled" }) // prints session.created Error: not today
 */
export type ListenerErrorHandler = (error: unknown, event: LiveEvent) => void

/**
 * What `subscribeAll` takes.
 * @example
 * const options: SubscribeOptions = { scope: "database" }
 * store.subscribeAll(({ type }) => console.log(type), options)
 * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }) // prints session.renamed
 */
export interface SubscribeOptions {
  /**
   * "process" (default): what this store commits, unless it was run with `publish: false` or replayed without `publish`,
   * and what it publishes. "database": also everything that others commit, in one order with that, each event once.
   */
  scope?: "process" | "database" | undefined
}

/** Receives events for the library itself, with the text of their data. It does not throw. */
export interface Receiver {
  receive(event: LiveEvent, text: string): void
  /** An event will not come, because too many wait. */
  miss(event: PendingEvent["event"], limit: number): void
  /** The store was closed. */
  close(): void
}

/** Whether an event is wanted, asked before anything is made of it. */
export type Wants = (event: PendingEvent["event"]) => boolean

interface Subscription {
  readonly listener: (event: LiveEvent) => unknown
  readonly scope: "process" | "database"
  /** Of the library itself, in place of a listener. */
  readonly receiver?: Receiver
  readonly wants?: Wants
  /** A listener to the database does not hear what was committed through this position, before it listened … */
  after?: number
  /** … nor what was published in calls up to this one and is not in the log. */
  afterCall?: number
  active: boolean
}

const NOBODY: readonly Subscription[] = []

/** How many events may wait behind a pending conversion. */
export const MAX_WAITING = 10_000

/** Delivers committed events to listeners, one after the other, in commit order. */
export class Dispatcher {
  /** Lists are replaced, never changed: a delivery goes on over the list it began with. */
  readonly #byType = new Map<string, readonly Subscription[]>()
  #toAll: readonly Subscription[] = []
  readonly #queue: Delivery[] = []
  #delivering = false
  #converting = false
  #overflowed = false
  /** While anybody listens to the whole database. */
  #catchUp: CatchUp | undefined
  #release = () => {}
  /** The log holds more for them, to be read once the queue is empty. */
  #more = false
  #reading = false
  /** What was committed could not be read. */
  #unread = false
  #calls = 0

  constructor(
    private readonly handle: Handle,
    private readonly watch: Watch,
    private readonly convert: ConvertEvent | undefined,
    private readonly onError: ListenerErrorHandler = warn,
  ) {}

  /** Events of the type, whatever their version. Returns the undo. */
  subscribe(definition: EitherDefinition, listener: (event: PublishedEvent) => unknown): () => void {
    if (!(definition?.registry instanceof Registry)) {
      throw invalidArgument(`subscribe needs a definition made by define, not ${show(definition)}`)
    }
    const { type } = definition
    const subscription = subscribing("subscribe", listener as (event: LiveEvent) => unknown, "process")
    this.#byType.set(type, [...(this.#byType.get(type) ?? []), subscription])
    return () => {
      subscription.active = false
      const left = (this.#byType.get(type) ?? []).filter((other) => other !== subscription)
      if (left.length > 0) this.#byType.set(type, left)
      else this.#byType.delete(type)
    }
  }

  subscribeAll(listener: (event: LiveEvent) => unknown, options?: SubscribeOptions): () => void {
    const { scope } = checkOptions("subscribeAll", options, ["scope"])
    return this.#add(
      subscribing("subscribeAll", listener, checkChoice("scope", scope, ["process", "database"], "process")),
    )
  }

  /** Everything that is committed to the database, and what this store publishes, as far as it is wanted. */
  receive(wants: Wants, receiver: Receiver): { undo: () => void; position: number } {
    const subscription: Subscription = { listener: () => {}, receiver, scope: "database", wants, active: true }
    const undo = this.#add(subscription)
    return { undo, position: subscription.after ?? 0 }
  }

  /** Appends to the queue and delivers it, unless a delivery further up the stack, or a conversion, will go on with it. */
  publish(events: readonly PendingEvent[]): void {
    if (this.#toAll.length === 0 && this.#byType.size === 0 && this.#queue.length === 0) return
    const call = ++this.#calls
    if (this.#catchUp === undefined) {
      for (const event of events) if (event.publish) this.#queue.push(forAll(event, call))
    } else {
      const local = events.map((event) => forAll(event, call))
      for (const delivery of this.#merged(this.#catchUp, local)) this.#queue.push(delivery)
      this.#more ||= this.#catchUp.behind
    }
    if (this.#converting || this.#more) this.#bound()
    this.#deliver()
  }

  /** Others have committed. False: that may not be read now, and is to be tried again. */
  foreign(): boolean {
    if (this.#catchUp === undefined) return true
    this.#more = true
    return this.#read()
  }

  /** Drops what waits, and all listeners. */
  close(): void {
    this.#queue.length = 0
    for (const subscription of [...this.#toAll, ...[...this.#byType.values()].flat()]) {
      subscription.active = false
      subscription.receiver?.close()
    }
    this.#toAll = []
    this.#byType.clear()
    this.#endCatchUp()
  }

  #add(subscription: Subscription): () => void {
    if (subscription.scope === "database") {
      subscription.after = this.#beginCatchUp()
      subscription.afterCall = this.#calls
    }
    this.#toAll = [...this.#toAll, subscription]
    return () => {
      subscription.active = false
      this.#toAll = this.#toAll.filter((other) => other !== subscription)
      if (this.#catchUp === undefined || this.#toAll.some(({ scope }) => scope === "database")) return
      this.#endCatchUp()
    }
  }

  /** Answers the position after which a listener that begins now hears everything. */
  #beginCatchUp(): number {
    const release = this.#catchUp === undefined ? this.watch.need() : undefined
    try {
      const position = native.lastPosition(this.handle)
      this.#catchUp ??= new CatchUp(this.handle, position)
      this.#release = release ?? this.#release
      return position
    } catch (error) {
      release?.()
      throw error
    }
  }

  #endCatchUp(): void {
    this.#catchUp = undefined
    this.#more = false
    this.#release()
  }

  #merged(catchUp: CatchUp, local: readonly Delivery[]): readonly Delivery[] {
    try {
      // Whatever is read while a conversion is pending would wait in memory.
      return catchUp.merge(local, !this.#converting)
    } catch (error) {
      this.#unreadable(error)
      return catchUp.aside(local)
    }
  }

  /** Reads on for those who hear the whole database, once everything that was read before has been delivered. */
  #read(): boolean {
    if (!this.#more || this.#catchUp === undefined) return true
    if (this.#delivering || this.#converting || this.#queue.length > 0) return true
    try {
      if (!this.watch.idle) return false
      for (const delivery of this.#catchUp.next()) this.#queue.push(delivery)
      this.#more = this.#catchUp.behind
      this.#unread = false
    } catch (error) {
      this.#unreadable(error)
      return true
    }
    this.#deliver()
    return true
  }

  /** In another turn of the event loop, so that a long log leaves room for everything else. */
  #readLater(): void {
    if (this.#reading) return
    this.#reading = true
    setImmediate(() => {
      this.#reading = false
      if (!this.#read()) this.watch.again()
    })
  }

  #deliver(): void {
    if (this.#delivering || this.#converting) return
    this.#delivering = true
    let next = 0
    try {
      // The queue may grow, or be emptied by close, while its listeners run.
      while (next < this.#queue.length && !this.#converting) this.#convertAndNotify(this.#queue[next++] as Delivery)
    } finally {
      this.#queue.splice(0, next)
      this.#delivering = false
    }
    if (this.#converting) this.#bound()
    else if (this.#more) this.#readLater()
    else this.#overflowed = false
  }

  #convertAndNotify(delivery: Delivery): void {
    // Whoever subscribes from here on, perhaps while the conversion is pending, hears the next event.
    const typed = (delivery.toProcess ? this.#byType.get(delivery.event.type) : undefined) ?? NOBODY
    const plain = this.#catchUp === undefined && delivery.toProcess
    const all = plain ? this.#toAll : this.#toAll.filter((one) => hears(one, delivery))
    if (typed.length === 0 && all.length === 0) return
    const published = unconverted(delivery)
    if (this.convert === undefined) return this.#notify(typed, all, published, delivery)
    let properties
    try {
      properties = this.convert(published.type, published.data)
      // Looking for a `then` may throw, and so may calling it, at once, twice or never: a promise's own takes its place.
      if (isThenable(properties)) {
        Promise.prototype.then.call(
          Promise.resolve(properties),
          (value) => this.#resume(() => this.#notify(typed, all, converted(published, value), delivery)),
          (error: unknown) => this.#resume(() => this.#report(error, published)),
        )
        this.#converting = true
        return
      }
    } catch (error) {
      return this.#report(error, published)
    }
    this.#notify(typed, all, converted(published, properties), delivery)
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
  }

  #notify(typed: readonly Subscription[], all: readonly Subscription[], event: LiveEvent, delivery: Delivery): void {
    for (const subscription of typed) this.#call(subscription, event, delivery)
    for (const subscription of all) this.#call(subscription, event, delivery)
  }

  #call(subscription: Subscription, event: LiveEvent, delivery: Delivery): void {
    if (!subscription.active) return
    if (subscription.receiver !== undefined) return subscription.receiver.receive(event, delivery.text)
    try {
      const result = subscription.listener(event)
      if (isThenable(result)) Promise.resolve(result).catch((error: unknown) => this.#report(error, event))
    } catch (error) {
      this.#report(error, event)
    }
  }

  /** Drops what is too much, and says so once until everything that waits has been delivered. */
  #bound(): void {
    // Without a conversion to wait for, the queue is empty at the end of this very turn.
    const waiting = this.#converting ? this.#queue.splice(MAX_WAITING) : []
    this.#catchUp?.takeBack(waiting)
    this.#more ||= this.#catchUp?.behind ?? false
    const dropped = [...waiting, ...(this.#catchUp?.bound(MAX_WAITING) ?? [])]
    for (const delivery of dropped) if (!delivery.recorded) this.#miss(delivery)
    // What is in the log is read again for those who hear the whole database.
    const first = dropped.find((delivery) => !delivery.recorded || this.#heardHere(delivery))
    if (first === undefined || this.#overflowed) return
    this.#overflowed = true
    const { event } = this.#queue.at(-1) ?? first
    const { aggregateID, type } = event
    const seq = "after" in event ? event.after : event.seq
    const message =
      `More than ${MAX_WAITING} events wait for listeners: those after seq ${seq} of aggregate "${aggregateID}" ` +
      "are dropped until they catch up"
    const error = new SyncError("ERR_OVERFLOW", message, { aggregateID, seq, type, limit: MAX_WAITING })
    this.#report(error, unconverted(first))
  }

  #heardHere({ toProcess, event }: Delivery): boolean {
    return toProcess && (this.#byType.has(event.type) || this.#toAll.some(({ scope }) => scope === "process"))
  }

  /** The listeners hear of it later; said once until it could be read again. */
  #unreadable(error: unknown): void {
    this.watch.again()
    if (this.#unread) return
    this.#unread = true
    const { code, reason } = described(error)
    process.emitWarning(`What was committed could not be read for listeners of the whole database: ${reason}`, {
      type: "SynclineWarning",
      code,
    })
  }

  #miss(delivery: Delivery): void {
    for (const one of this.#toAll) if (hears(one, delivery)) one.receiver?.miss(delivery.event, MAX_WAITING)
  }

  #report(error: unknown, event: LiveEvent): void {
    try {
      const result: unknown = this.onError(error, event)
      if (isThenable(result)) Promise.resolve(result).catch((another: unknown) => warn(another, event))
    } catch (another) {
      warn(another, event)
    }
  }
}

function subscribing(call: string, listener: unknown, scope: Subscription["scope"]): Subscription {
  if (typeof listener !== "function") throw invalidArgument(`${call} needs a listener, not ${show(listener)}`)
  return { listener: listener as Subscription["listener"], scope, active: true }
}

function hears({ scope, wants, after = 0, afterCall = 0 }: Subscription, delivery: Delivery): boolean {
  if (scope === "process") return delivery.toProcess
  if (!delivery.toDatabase) return false
  if (delivery.recorded ? delivery.position <= after : delivery.call <= afterCall) return false
  return wants === undefined || wants(delivery.event)
}

function warn(error: unknown, event: LiveEvent): void {
  const { code, reason } = described(error)
  process.emitWarning(
    `A listener of "${event.type}" failed (aggregate "${event.aggregateID}", seq ${event.seq ?? "none"}): ${reason}`,
    { type: "SynclineWarning", code },
  )
}

/** Any value may have been thrown, one that cannot be looked at too. */
export function described(error: unknown): { code: string; reason: string } {
  try {
    const reason = error instanceof Error ? String(error.stack ?? error.message) : show(error)
    return { code: error instanceof SyncError ? error.code : "LISTENER_FAILED", reason }
  } catch {
    return { code: "LISTENER_FAILED", reason: "with a value that throws when it is looked at" }
  }
}
