import { eventCount, lazyPositioned, serialize, typeAndVersion, type EventPage } from "../payload"

/** A recorded event as it goes to those who follow: encoded once, whoever they are. */
export interface EventFrame {
  readonly aggregateID: string
  readonly seq: number
  /** Unversioned. */
  readonly type: string
  readonly position: number
  /** The message, with the position as its id. */
  readonly byPosition: Buffer
  /** The same without an id. */
  readonly data: Buffer
}

/** The events of a page. */
export function framesOf(page: EventPage): EventFrame[] {
  return Array.from({ length: eventCount(page) }, (_, index) => {
    const event = lazyPositioned(page, index)
    const { aggregateID, seq, position } = event
    // What somebody else wrote may hold line breaks, between tokens alone; here they would end the line.
    const text = (serialize(event) as string).replaceAll(/[\r\n]/g, " ")
    const id = `id: ${position}\n`
    const byPosition = Buffer.from(`${id}data: ${text}\n\n`)
    const data = byPosition.subarray(id.length)
    return { aggregateID, seq, type: typeAndVersion(event.type).type, position, byPosition, data }
  })
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
