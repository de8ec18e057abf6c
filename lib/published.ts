import type { AnyDefinition, InputOf, PropertiesOf } from "./define"
import { inspectable, withLazyData, type Ephemeral, type Event } from "./payload"
import type { PendingEvent } from "./transaction"

/** An event as listeners receive it: one object for all of them, and not the one that `run` returned. */
export interface PublishedEvent<Data = unknown, Properties = unknown> extends Event<Data> {
  /** What `convertEvent` made of the data; without it, the data. */
  properties: Properties
  /** Its place in this file's order of commits; absent where the store does not record. */
  position?: number
}

/** An event that is never stored, as listeners receive it. */
export interface EphemeralEvent<Data = unknown, Properties = unknown> extends Ephemeral<Data> {
  /** What `convertEvent` made of the data; without it, the data. */
  properties: Properties
  /** Never: it has no place in the log. */
  position?: never
}

/** What a listener of everything receives: look at `seq` (or `after`) to tell the two apart. */
export type LiveEvent = PublishedEvent | EphemeralEvent

/** A published event of one definition. */
export type PublishedOf<D extends AnyDefinition> = D["ephemeral"] extends true
  ? EphemeralEvent<InputOf<D>, PropertiesOf<D>>
  : PublishedEvent<InputOf<D>, PropertiesOf<D>>

/** Without `convertEvent` the properties are the data, parsed when first read like the data itself. */
export function unconverted({ event, text, position, recorded }: PendingEvent): LiveEvent {
  const { type, version, id, aggregateID, created, metadata } = event
  const published = { type, version, id } as PublishedEvent
  if ("after" in event) (published as { after?: number }).after = event.after
  else published.seq = event.seq
  published.aggregateID = aggregateID
  if (created !== undefined) published.created = created
  withLazyData(published, text)
  Object.defineProperty(published, "properties", sameAsData)
  if (metadata !== undefined) published.metadata = metadata
  if (recorded) published.position = position
  return inspectable(published) as LiveEvent
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
