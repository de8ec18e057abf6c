import { eventCount, lazyPositioned, serialize, typeAndVersion, type EventPage, type PositionedEvent } from "../payload"

/** A recorded event as it goes to those who follow: encoded when the first of them wants it, and once for all. */
export class EventFrame {
  readonly aggregateID: string
  readonly seq: number
  /** Unversioned. */
  readonly type: string
  readonly position: number
  readonly #event: PositionedEvent
  #bytes: Buffer | undefined

  constructor(event: PositionedEvent) {
    this.aggregateID = event.aggregateID
    this.seq = event.seq
    this.type = typeAndVersion(event.type).type
    this.position = event.position
    this.#event = event
  }

  /** The message with the position as its id. */
  get byPosition(): Buffer {
    return (this.#bytes ??= Buffer.from(`${this.#head}data: ${this.#text}\n\n`))
  }

  /** With the seq instead. */
  get bySeq(): Buffer {
    return Buffer.concat([Buffer.from(`id: ${this.seq}\n`), this.byPosition.subarray(this.#head.length)])
  }

  get #head(): string {
    return `id: ${this.position}\n`
  }

  /** What somebody else wrote may hold line breaks, between tokens alone; here they would end the line. */
  get #text(): string {
    return (serialize(this.#event) as string).replaceAll(/[\r\n]/g, " ")
  }
}

/** The events of a page. */
export function framesOf(page: EventPage): EventFrame[] {
  return Array.from({ length: eventCount(page) }, (_, index) => new EventFrame(lazyPositioned(page, index)))
}

/** A message that is no event. With an id, a client that comes back names it. */
export function message(name: string, data: object, id?: number): Buffer {
  const head = id === undefined ? "" : `id: ${id}\n`
  return Buffer.from(`${head}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
}

/** A line that clients ignore. */
export function comment(text: string): Buffer {
  return Buffer.from(`: ${text}\n\n`)
}
