import {
  eventCount,
  lazyPositioned,
  serialize,
  typeAndVersion,
  type EventPage,
  type PositionedEvent,
} from "../../payload"

/** A recorded event as it goes to those who follow: encoded when the first of them wants it, and once for all. */
export class EventFrame {
  readonly aggregateID: string
  readonly seq: number
  /** Unversioned. */
  readonly type: string
  readonly position: number
  readonly #event: PositionedEvent
  #encoded: Buffer | undefined

  constructor(event: PositionedEvent) {
    this.aggregateID = event.aggregateID
    this.seq = event.seq
    this.type = typeAndVersion(event.type).type
    this.position = event.position
    this.#event = event
  }

  /** The message with the position as its id. */
  get byPosition(): Buffer {
    return (this.#encoded ??= encoded(this.#event))
  }

  /** With the seq instead. */
  get bySeq(): Buffer {
    const data = this.byPosition.subarray(idLine(this.position).length)
    return Buffer.concat([Buffer.from(idLine(this.seq)), data])
  }
}

/** What somebody else wrote may hold line breaks, between tokens alone; here they would end the line. */
function encoded(event: PositionedEvent): Buffer {
  const text = (serialize(event) as string).replaceAll(/[\r\n]/g, " ")
  return Buffer.from(`${idLine(event.position)}data: ${text}\n\n`)
}

function idLine(id: number): string {
  return `id: ${id}\n`
}

/** The events of a page. */
export function framesOf(page: EventPage): EventFrame[] {
  return Array.from({ length: eventCount(page) }, (_, index) => new EventFrame(lazyPositioned(page, index)))
}

/** A message that is no event. With an id, a client that comes back names it. */
export function message(name: string, data: object, id?: number): Buffer {
  const head = id === undefined ? "" : idLine(id)
  return Buffer.from(`${head}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
}

/** A line that clients ignore. */
export function comment(text: string): Buffer {
  return Buffer.from(`: ${text}\n\n`)
}
