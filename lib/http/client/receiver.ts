import { SyncError } from "../../errors"
import type { Lines } from "../../lines"
import { TYPES } from "./dialect"
import { protocolError } from "../../follow/failure"
import { compressedBody, type Body, type Remote } from "./remote"

/** Lines of one aggregate, which go behind one another. */
export type Part = Pick<Lines, "aggregateID" | "bytes" | "events" | "gaps" | "removed">

/** What an older server does not say is 0. */
export interface Received {
  readonly applied: number
  readonly duplicate: number
}

/** A server that is sent what it lacks. */
export interface Receiver {
  /** It takes one aggregate at a time. */
  readonly single: boolean
  /** In one transaction. */
  send(parts: readonly Part[]): Promise<Received>
}

/** `query` has owner and epoch, which an older server does not look at. */
export function receiverOf(remote: Remote, query: URLSearchParams, isOlder: boolean): Receiver {
  return isOlder ? new OlderReceiver(remote) : new CurrentReceiver(remote, query)
}

/** A part as it is or, where it is much larger than `bytes`, in several. */
export function pieces(part: Part, bytes: number): Part[] {
  if (part.bytes.length <= 2 * bytes) return [part]
  const found: Part[] = []
  let lines: string[] = []
  let size = 0
  for (const line of linesOf(part)) {
    if (size > 0 && size + line.length > bytes) {
      found.push(partOf(part.aggregateID, lines))
      lines = []
      size = 0
    }
    lines.push(line)
    size += line.length
  }
  return [...found, partOf(part.aggregateID, lines)]
}

/**
 * The same in smaller pieces, to be sent one after the other: each aggregate by itself; one alone in halves, where that was
 * `tooLarge` as a whole. None: there is nothing smaller.
 */
export function split(parts: readonly Part[], tooLarge: boolean): Part[][] {
  const byAggregate = new Map<string, Part[]>()
  for (const part of parts) byAggregate.set(part.aggregateID, [...(byAggregate.get(part.aggregateID) ?? []), part])
  if (byAggregate.size > 1) return [...byAggregate.values()]
  if (!tooLarge) return []
  const [{ aggregateID }] = parts as [Part]
  const lines = parts.flatMap(linesOf)
  if (lines.length < 2) return []
  const middle = lines.length >> 1
  return [lines.slice(0, middle), lines.slice(middle)].map((some) => [partOf(aggregateID, some)])
}

class CurrentReceiver implements Receiver {
  readonly single = false

  constructor(
    private readonly remote: Remote,
    private readonly query: URLSearchParams,
  ) {}

  async send(parts: readonly Part[]): Promise<Received> {
    const body = await compressedBody(TYPES.lines, Buffer.concat(parts.map(({ bytes }) => bytes)))
    const { results } = await posted(this.remote, body, this.query)
    if (!Array.isArray(results) || !results.every(isReceived))
      throw protocolError("sync/replay does not say what it did")
    return results.reduce<Received>(sum, NOTHING)
  }
}

/** Events alone, which must follow on one another. */
class OlderReceiver implements Receiver {
  readonly single = true

  constructor(private readonly remote: Remote) {}

  async send(parts: readonly Part[]): Promise<Received> {
    const [{ aggregateID }] = parts as [Part]
    if (parts.some(({ gaps, removed }) => gaps + removed > 0)) throw unsayable(aggregateID)
    const items = parts.flatMap(linesOf).map((line) => JSON.parse(line) as Item)
    const events = items.flatMap(({ event }) => (event === undefined ? [] : [plain(event)]))
    if (events.length === 0) return NOTHING
    const content = Buffer.from(JSON.stringify({ events }))
    const { sessionID, ...said } = await posted(this.remote, { type: TYPES.json, content }, undefined)
    if (typeof sessionID !== "string") throw protocolError("sync/replay does not say what it did")
    return isReceived(said) ? said : NOTHING
  }
}

interface Item {
  readonly event?: Readonly<Record<string, unknown>>
}

const NOTHING: Received = { applied: 0, duplicate: 0 }

/** As if the server had found something wrong with the request. */
function unsayable(aggregateID: string): SyncError {
  const message = `An older server cannot be told that events of aggregate "${aggregateID}" exist no more`
  return new SyncError("ERR_PROTOCOL", message, { aggregateID, status: 400 })
}

/** What such a server knows of an event. */
function plain({ id, aggregateID, seq, type, data }: Readonly<Record<string, unknown>>): object {
  return { id, aggregateID, seq, type, data }
}

/** It takes as long as the transaction does: that is no reason to give up. */
async function posted(
  remote: Remote,
  body: Body,
  query: URLSearchParams | undefined,
): Promise<Readonly<Record<string, unknown>>> {
  const patience = Math.max(remote.address.connectTimeout, remote.address.idleTimeout)
  const answer = await remote.request("POST", "sync/replay", { query, accept: TYPES.json, body, patience })
  if (!answer.is(TYPES.json)) throw await answer.refusal(TYPES.json)
  return Object(await answer.json()) as Record<string, unknown>
}

function isReceived(one: unknown): one is Received {
  const { applied, duplicate } = Object(one) as Record<string, unknown>
  return Number.isSafeInteger(applied) && Number.isSafeInteger(duplicate)
}

function sum(left: Received, right: Received): Received {
  return { applied: left.applied + right.applied, duplicate: left.duplicate + right.duplicate }
}

function linesOf({ bytes }: Part): string[] {
  return new TextDecoder().decode(bytes).split("\n").filter(Boolean)
}

function partOf(aggregateID: string, lines: readonly string[]): Part {
  const count = (kind: string) => lines.filter((line) => line.startsWith(`{"kind":"${kind}"`)).length
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""))
  return { aggregateID, bytes, events: count("event"), gaps: count("gap"), removed: count("removed") }
}
