import { SyncError } from "./errors"

/**
 * What is told and not kept, as listeners receive it.
 * @example
 * const place = ({ aggregateID, after }: Ephemeral) => `after ${aggregateID}/${after}`
 * store.subscribe(Typing, (event) => console.log(place(event)))
 * store.publish(Typing, { sessionID: "ses_1", title: "Ship" }) // prints after ses_1/1
 */
export interface Ephemeral<Data = unknown> {
  /** `evt_` and a ULID. */
  id: string
  /** Unversioned: `message.delta`. */
  type: string
  /** The definition's: from 1. */
  version: number
  /** What it is about: the value of the definition's aggregate field. */
  aggregateID: string
  /** The last seq of its aggregate when it was published, -1 for an unknown one: what it builds on. */
  after: number
  /** Never: it has no place in the log. */
  seq?: never
  /** Milliseconds since 1970. */
  created: number
  /** Never: `publish` takes none. */
  metadata?: never
  /** What was published, parsed from its text when first read. */
  data: Data
}

/**
 * One fact, as `run` returns it and projectors receive it.
 * @example
 * const event: Event<InputOf<typeof Deleted>> = store.run(Deleted, { sessionID: "ses_1" })
 * event // → { id: "evt_…", type: "session.deleted", version: 1, aggregateID: "ses_1", seq: 2, … }
 */
export interface Event<Data = unknown> {
  /** `evt_` and a ULID, unless it was replayed: then the one that it came with. */
  id: string
  /** Unversioned: `session.updated`. */
  type: string
  /** The definition's: from 1. */
  version: number
  /** What it is about: the value of the definition's aggregate field. */
  aggregateID: string
  /** From 0 in each aggregate; -1 where the store does not record. */
  seq: number
  /** Milliseconds since 1970; absent where a replayed event had none. */
  created?: number
  /** What was given with it; absent where nothing was. */
  metadata?: Metadata
  /** What is stored: the schema's input, parsed from the stored text when first read. */
  data: Data
  /** Nothing was recorded: a run said again what this event, stored before, says. See `define`'s `dedupe`. */
  unchanged?: true
}

/**
 * One fact on the wire and in exports: what `read`, `readAll` and `log` give, and `replay` takes.
 * @example
 * const event: SerializedEvent | undefined = store.get("ses_1", 1)
 * event // → { id: "evt_…", type: "session.renamed.1", aggregateID: "ses_1", seq: 1, … }
 */
export interface SerializedEvent<Data = unknown> {
  /** `evt_` and a ULID where `run` made it. Replay stores any text as it comes, not empty, of at most 255 bytes. */
  id: string
  /** Versioned: `session.updated.1`. */
  type: string
  /** Stands in `type`. An event of `run` or of a listener has it apart, and is none that can be replayed. */
  version?: never
  /** From 0 in each aggregate. */
  seq: number
  /** What it is about: the value of the definition's aggregate field in `data`. */
  aggregateID: string
  /** Parsed from the stored text when first read. */
  data: Data
  /** Milliseconds since 1970; absent where a replayed event had none. */
  created?: number
  /** What was given with it; absent where nothing was. */
  metadata?: Metadata
}

/**
 * A serialized event with its place in this file's order of commits; `readAll` returns these.
 * @example
 * const [first]: PositionedEvent[] = store.readAll({ limit: 1 })
 * first // → { position: 1, type: "session.created.1", seq: 0, … }
 */
export interface PositionedEvent<Data = unknown> extends SerializedEvent<Data> {
  /** From 1 in each file, growing, with gaps: no two files agree on it. */
  position: number
}

/**
 * What travels with an event beside its data: any JSON object (causation, correlation, anything).
 * @example
 * const metadata: Metadata = { causation: "evt_1", by: { name: "ada" } }
 * store.run(Deleted, { sessionID: "ses_1" }, { metadata }).metadata // → { causation: "evt_1", by: { name: "ada" } }
 */
export type Metadata = { [key: string]: unknown }

/** @internal An event whose `data` is parsed from `text` when first read. */
export function lazyEvent(
  id: string,
  type: string,
  version: number,
  aggregateID: string,
  seq: number,
  created: number | null,
  metadata: string | null,
  text: string,
): Event {
  const event = { id, type, version, aggregateID, seq } as Event
  if (created !== null) event.created = created
  if (metadata !== null) event.metadata = storedJson(event, "metadata", metadata) as Metadata
  return withLazyData(event, text)
}

/**
 * @internal What listeners are told of an event, apart from the object that its projector receives and `run` returns: what
 * those change in theirs is their own. Without `data`, which listeners get from the text.
 */
export function apart(event: Event): Event {
  const { id, type, version, aggregateID, seq, created, metadata } = event
  const told = { id, type, version, aggregateID, seq } as Event
  if (created !== undefined) told.created = created
  if (metadata !== undefined) told.metadata = JSON.parse(JSON.stringify(metadata)) as Metadata
  return told
}

/** @internal The same for one that is never stored. */
export function lazyEphemeral(
  id: string,
  type: string,
  version: number,
  aggregateID: string,
  after: number,
  created: number,
  text: string,
): Ephemeral {
  return withLazyData({ id, type, version, aggregateID, after, created } as Ephemeral, text)
}

/** A page of stored events, as it crosses the native boundary. */
export type EventPage = readonly [
  /** The ids of all events, one after the other. */
  ids: string,
  /** Their data likewise. */
  data: string,
  /** Of each event where its id and its data end, seq, `created` (NaN: absent), position, indices of type and aggregate. */
  numbers: Float64Array,
  types: readonly string[],
  aggregates: readonly string[],
  /** Of each event its metadata text; null where no event has any. */
  metadata: readonly (string | null)[] | null,
]

const EVENT_NUMBERS = 7

/** @internal How many events a page has. */
export function eventCount(page: EventPage): number {
  return page[2].length / EVENT_NUMBERS
}

/** @internal The serialized event at `index` of a page. Its strings are cut from the page's, not copied. */
export function lazySerialized(page: EventPage, index: number): SerializedEvent {
  const [ids, data, numbers, types, aggregates, metadatas] = page
  const at = index * EVENT_NUMBERS
  const before = at - EVENT_NUMBERS
  const event = {
    id: ids.slice(index === 0 ? 0 : numbers[before], numbers[at]),
    type: types[numbers[at + 5] as number],
    seq: numbers[at + 2],
    aggregateID: aggregates[numbers[at + 6] as number],
  } as SerializedEvent
  withLazyData(event, data.slice(index === 0 ? 0 : numbers[before + 1], numbers[at + 1]))
  const created = numbers[at + 3] as number
  const metadata = metadatas?.[index] ?? null
  if (!Number.isNaN(created)) event.created = created
  if (metadata !== null) event.metadata = storedJson(event, "metadata", metadata) as Metadata
  return event
}

/** @internal The same with its position. */
export function lazyPositioned(page: EventPage, index: number): PositionedEvent {
  const event = lazySerialized(page, index) as PositionedEvent
  event.position = page[2][index * EVENT_NUMBERS + 4] as number
  return event
}

/** @internal The seq of the last event of a page, -1 where it has none. */
export function lastEventSeq(page: EventPage): number {
  return page[2].at(2 - EVENT_NUMBERS) ?? -1
}

/** @internal An event of a page as `run` would have returned it, with the text of its data and its position. */
export function pageEvent(page: EventPage, index: number): { event: Event; text: string; position: number } {
  const [ids, data, numbers, types, aggregates, metadatas] = page
  const at = index * EVENT_NUMBERS
  const before = at - EVENT_NUMBERS
  const id = ids.slice(index === 0 ? 0 : numbers[before], numbers[at])
  const text = data.slice(index === 0 ? 0 : numbers[before + 1], numbers[at + 1])
  const { type, version } = typeAndVersion(types[numbers[at + 5] as number] as string)
  const created = numbers[at + 3] as number
  const event = lazyEvent(
    id,
    type,
    version,
    aggregates[numbers[at + 6] as number] as string,
    numbers[at + 2] as number,
    Number.isNaN(created) ? null : created,
    metadatas?.[index] ?? null,
    text,
  )
  return { event, text, position: numbers[at + 4] as number }
}

/** @internal What a stored type is made of: `session.updated.1`. */
export function typeAndVersion(name: string): { type: string; version: number } {
  const dot = name.lastIndexOf(".")
  return { type: name.slice(0, dot), version: Number(name.slice(dot + 1)) }
}

/** @internal Gives `target` an own, enumerable `data` that is parsed from `text` when first read. */
export function withLazyData<T extends { data: unknown }>(target: T, text: string): T {
  Object.defineProperty(target, "data", LazyData.descriptor)
  new LazyData(target, text)
  return target
}

/**
 * @internal Lets `console.log` show an event's data instead of its getter. Not enumerable, so that nothing else sees it.
 * Only for events that come one at a time: for pages of thousands the time would double.
 */
export function inspectable<T extends object>(event: T): T {
  return Object.defineProperty(event, inspectCustom, inspection)
}

const inspectCustom = Symbol.for("nodejs.util.inspect.custom")

const inspection: PropertyDescriptor & ThisType<object> = {
  value() {
    return { ...this }
  },
}

/**
 * @internal The JSON text of an event that a caller hands back. Data that nobody has read yet goes out as the text it
 * came in, without being parsed and written again. `undefined` where JSON has no text for the value.
 */
export function serialize(item: object): string | undefined {
  const text = LazyData.unread(item)
  if (text === undefined) return JSON.stringify(item) as string | undefined
  const { id, type, seq, aggregateID, created, metadata } = item as SerializedEvent
  return `${JSON.stringify({ id, type, seq, aggregateID, created, metadata }).slice(0, -1)},"data":${text}}`
}

/** @internal Whether arrays and objects nest deeper than `limit` in a valid JSON text. */
export function nestsDeeperThan(limit: number, text: string): boolean {
  let depth = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '"') quoted = !quoted
    else if (quoted) at += char === "\\" ? 1 : 0
    else if (char === "[" || char === "{") depth++
    else if (char === "]" || char === "}") depth--
    if (depth > limit) return true
  }
  return false
}

type Named = Pick<SerializedEvent, "type" | "aggregateID" | "seq">

/** What is stored of an event. Where the file is damaged it may be no JSON, which a reader must be able to tell from its own errors. */
function storedJson({ type, aggregateID, seq }: Named, what: "data" | "metadata", text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SyncError(
      "ERR_CORRUPT",
      `The stored ${what} of ${type} (aggregate "${aggregateID}", seq ${seq}) is no JSON: verify says what else is wrong with the file`,
      { type, aggregateID, seq, cause },
    )
  }
}

class Stamped {
  constructor(target: object) {
    return target
  }
}

class Parsed {
  constructor(readonly value: unknown) {}
}

/**
 * Stamps the text onto a plain object as a private field. One accessor shared by all events keeps them in one hidden
 * class: a getter of its own for each event, or a WeakMap, takes three to six times as long.
 */
class LazyData extends Stamped {
  #content: string | Parsed

  constructor(target: object, text: string) {
    super(target)
    this.#content = text
  }

  static unread(item: object): string | undefined {
    if (!(#content in item) || typeof item.#content !== "string") return undefined
    return Object.getOwnPropertyDescriptor(item, "data")?.get === LazyData.descriptor.get ? item.#content : undefined
  }

  static readonly descriptor: PropertyDescriptor & ThisType<LazyData> = {
    enumerable: true,
    configurable: true,
    get() {
      const content = this.#content
      if (typeof content !== "string") return content.value
      const parsed = new Parsed(storedJson(this as unknown as Named, "data", content))
      this.#content = parsed
      return parsed.value
    },
    set(value: unknown) {
      this.#content = new Parsed(value)
    },
  }
}
