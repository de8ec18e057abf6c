import { headers, type MsgHdrs } from "@nats-io/transport-node"
import { MAX_AGGREGATE_ID_BYTES, MAX_OWNER_BYTES } from "../argument"
import { packed, unpacked } from "../compression"
import { protocolError } from "../follow/failure"
import { aggregateOf, escaped, tokenOf, unescaped } from "./token"

/** How far a subject reaches with a message, and in whose name it was written. */
export interface Reach {
  /** The last seq. */
  readonly seq: number
  /** The highest seq up to which the subject has told of a removal; -1: it has told of none. */
  readonly removed: number
  /** Null: nobody's. */
  readonly owner: string | null
  readonly epoch: number
}

/**
 * A part of one aggregate's log: its items that follow one another, as lines of JSON; or none of them, which says who owns the
 * aggregate from here on.
 */
export interface Message extends Reach {
  readonly aggregateID: string
  /** The seq before its first item. */
  readonly after: number
  /** Names the message among all of the stream: a server that has it already takes no second one. */
  readonly id: string
  /** Versioned, of its last event. */
  readonly type?: string | undefined
  /** Each line ends with a line feed. Empty where the lines are in a segment. */
  readonly lines: Uint8Array
  /** The object that has the lines. */
  readonly segment?: string | undefined
}

/** A message as the stream has it. */
export interface Stored extends Message {
  /** Of the stream: from 1, over all subjects. */
  readonly position: number
}

/** The same, its lines as they were sent: of many that wait, each may take a hundred times the memory once it is unpacked. */
export interface Sealed extends Omit<Stored, "lines"> {
  readonly body: Uint8Array
  readonly isPacked: boolean
}

const HEADER = {
  id: "Nats-Msg-Id",
  aggregate: "Syncline-Aggregate",
  after: "Syncline-After",
  seq: "Syncline-Seq",
  type: "Syncline-Type",
  epoch: "Syncline-Epoch",
  owner: "Syncline-Owner",
  removed: "Syncline-Removed",
  segment: "Syncline-Segment",
  encoding: "Content-Encoding",
} as const

/** Lines from here on are compressed: below, it costs more time than the bytes that it saves. */
const WORTH_COMPRESSING = 4 * 1024

/** As large as a message is: what lies further back cannot be found. */
const WINDOW_LOG = 17

/** What is published of a message. */
export interface Encoded {
  readonly headers: MsgHdrs
  readonly body: Uint8Array
}

/** Text that others have written stands in headers escaped, as in subjects. */
export function encode(message: Message): Encoded {
  const { aggregateID, after, seq, type, owner, epoch, removed, segment, lines } = message
  const head = headers()
  if (aggregateOf(tokenOf(aggregateID)) === undefined) head.set(HEADER.aggregate, escaped(aggregateID))
  head.set(HEADER.after, String(after))
  head.set(HEADER.seq, String(seq))
  if (type !== undefined) head.set(HEADER.type, escaped(type))
  if (epoch > 0) head.set(HEADER.epoch, String(epoch))
  if (owner !== null) head.set(HEADER.owner, escaped(owner))
  if (removed >= 0) head.set(HEADER.removed, String(removed))
  if (segment !== undefined) head.set(HEADER.segment, segment)
  if (lines.length < WORTH_COMPRESSING) return { headers: head, body: lines }
  head.set(HEADER.encoding, "zstd")
  return { headers: head, body: packed(lines, WINDOW_LOG) }
}

/** What a server gives of a message; `data` is empty where only its headers were asked for. */
export interface Raw {
  readonly subject: string
  readonly seq: number
  readonly headers: MsgHdrs | undefined
  readonly data: Uint8Array
}

/** `ERR_PROTOCOL` for a message that no relay has written. Lines are not looked at here. */
export function decode(raw: Raw): Stored {
  const sealed = sealedOf(raw)
  return { ...sealed, lines: linesOf(sealed) }
}

/** {@link decode}, but for the lines. */
export function sealedOf({ subject, seq: position, headers: given, data: body }: Raw): Sealed {
  // Walked once: each look-up by name walks them all.
  const head = new Map<string, string | undefined>()
  for (const [name, values] of given ?? []) head.set(name, values[0])
  const named = head.get(HEADER.aggregate)
  const aggregateID = named ? unescaped(named) : aggregateOf(subject.slice(subject.lastIndexOf(".") + 1))
  if (aggregateID === undefined) throw foreign(subject, position, "its subject names no aggregate")
  const number = (name: string, missing?: number): number => {
    const text = head.get(name) ?? ""
    if (text === "" && missing !== undefined) return missing
    if (!/^(-1|\d{1,15})$/.test(text)) throw foreign(subject, position, `its ${name} is "${text}"`)
    return Number(text)
  }
  const owner = unescaped(head.get(HEADER.owner) ?? "") ?? null
  // No store can hold such: it would keep others from being read.
  if (Buffer.byteLength(aggregateID) > MAX_AGGREGATE_ID_BYTES || Buffer.byteLength(owner ?? "") > MAX_OWNER_BYTES) {
    throw foreign(subject, position, "a name in it is too long")
  }
  return {
    position,
    aggregateID,
    id: head.get(HEADER.id) ?? "",
    after: number(HEADER.after),
    seq: number(HEADER.seq),
    removed: number(HEADER.removed, -1),
    epoch: number(HEADER.epoch, 0),
    owner,
    segment: head.get(HEADER.segment) || undefined,
    type: unescaped(head.get(HEADER.type) ?? ""),
    body,
    isPacked: body.length > 0 && head.get(HEADER.encoding) === "zstd",
  }
}

/** What was sealed. `ERR_PROTOCOL`: it is damaged. */
export function linesOf({ body, isPacked, position, aggregateID }: Sealed): Uint8Array {
  if (!isPacked) return body
  try {
    return unpacked(body)
  } catch (error) {
    throw protocolError(
      `The message at ${position} of the stream, of aggregate "${aggregateID}", cannot be unpacked`,
      error,
    )
  }
}

/** Of the last item, so that a message which is made anew after an answer was lost is known again. */
export function messageID(aggregateID: string, seq: number, name: string): string {
  return `${tokenOf(aggregateID)}:${seq}:${escaped(name)}`
}

function foreign(subject: string, position: number, why: string): Error {
  return protocolError(`The message at ${position} of the stream, on "${subject}", is no relay's: ${why}`)
}
