import type { EitherDefinition, InputOf, PropertiesOf } from "./define"
import { inspectable, withLazyData, type Ephemeral, type Event } from "./payload"
import type { PendingEvent } from "./transaction"

/**
 * An event as listeners receive it: one object for all that hear it at once, and not the one that `run` returned. Listeners of
 * the whole database that are behind get another one.
 * @example
 * const heard = ({ position, properties }: PublishedEvent) => console.log(position, properties)
 * store.subscribe(Deleted, heard)
 * store.run(Deleted, { sessionID: "ses_1" }) // prints 3 { sessionID: 'ses_1' }
 */
export interface PublishedEvent<Data = unknown, Properties = unknown> extends Event<Data> {
  /** What `convertEvent` made of the data; without it, the data. */
  properties: Properties
  /** Its place in this file's order of commits; absent where the store does not record. */
  position?: number
}

/**
 * An event that is never stored, as listeners receive it.
 * @example
 * const heard = ({ after, data }: EphemeralEvent<InputOf<typeof Typing>>) => console.log(after, data.title)
 * store.subscribe(Typing, heard)
 * store.publish(Typing, { sessionID: "ses_1", title: "Ship" }) // prints 1 Ship
 */
export interface EphemeralEvent<Data = unknown, Properties = unknown> extends Ephemeral<Data> {
  /** What `convertEvent` made of the data; without it, the data. */
  properties: Properties
  /** Never: it has no place in the log. */
  position?: never
}

/**
 * What a listener of everything receives: look at `seq` (or `after`) to tell the two apart.
 * @example
 * const kind = (event: LiveEvent) => (event.seq === undefined ? "told" : "recorded")
 * store.subscribeAll((event) => console.log(kind(event)))
 * store.publish(Typing, { sessionID: "ses_1", title: "Ship" }) // prints told
 */
export type LiveEvent = PublishedEvent | EphemeralEvent

/**
 * A published event of one definition.
 * @example
 * const heard = ({ data }: PublishedOf<typeof Renamed>) => console.log(data.title)
 * store.subscribe(Renamed, heard)
 * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }) // prints Ship it
 */
export type PublishedOf<D extends EitherDefinition> = D extends EitherDefinition
  ? D["ephemeral"] extends true
    ? EphemeralEvent<InputOf<D>, PropertiesOf<D>>
    : PublishedEvent<InputOf<D>, PropertiesOf<D>>
  : never

/**
 * Data of more characters is parsed when a listener first reads it. Shorter data is parsed at once, which takes less than
 * giving an object a lazy property.
 */
const LAZY_FROM = 4_096

/** Without `convertEvent` the properties are the data. */
export function unconverted(pending: PendingEvent): LiveEvent {
  if (pending.text.length >= LAZY_FROM) return lazy(pending) as LiveEvent
  try {
    return eager(pending) as LiveEvent
  } catch {
    // What somebody else wrote is no JSON: whoever reads it meets the error, and only they.
    return lazy(pending) as LiveEvent
  }
}

function eager({ event, text, position, recorded }: PendingEvent): object {
  const { type, version, id, aggregateID, created, metadata } = event
  const data: unknown = JSON.parse(text)
  if (!recorded || created === undefined || metadata !== undefined) {
    return {
      ...identity(event),
      ...(created !== undefined && { created }),
      data,
      properties: data,
      ...(metadata !== undefined && { metadata }),
      ...(recorded && { position }),
    }
  }
  // Most events: one literal, and so one hidden class.
  return { type, version, id, seq: event.seq, aggregateID, created, data, properties: data, position }
}

function lazy({ event, text, position, recorded }: PendingEvent): object {
  const { created, metadata } = event
  const published = identity(event) as unknown as PublishedEvent
  if (created !== undefined) published.created = created
  withLazyData(published, text)
  Object.defineProperty(published, "properties", sameAsData)
  if (metadata !== undefined) published.metadata = metadata
  if (recorded) published.position = position
  return inspectable(published)
}

function identity(event: PendingEvent["event"]): object {
  const { type, version, id, aggregateID } = event
  return "after" in event
    ? { type, version, id, after: event.after, aggregateID }
    : { type, version, id, seq: event.seq, aggregateID }
}

/** Gives an event the properties that `convertEvent` made. */
export function converted<E extends LiveEvent>(published: E, properties: unknown): E {
  return Object.defineProperty(published, "properties", { ...ownValue, value: properties })
}

const ownValue = { enumerable: true, configurable: true, writable: true }

const sameAsData: PropertyDescriptor & ThisType<LiveEvent> = {
  enumerable: true,
  configurable: true,
  get() {
    return this.data
  },
  set(value: unknown) {
    converted(this, value)
  },
}
