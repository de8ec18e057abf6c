import { createHash } from "node:crypto"
import { decompressed, packed } from "../compression"
import { wholeLines } from "../follow/batches"
import { linesOf } from "../lines"
import type { FollowContext } from "../log"
import type { Cluster, Segment } from "./cluster"
import { itemsOf } from "./items"
import { tokenOf } from "./token"

/** Bytes of a segment's lines, or so, before they are compressed. */
export const SEGMENT_BYTES = 8 * 1024 * 1024

/** As large as a segment is: what was said long before is found again. */
const WINDOW_LOG = 23

/** Attempts to write a list that others are writing as well: they write the same. */
const ATTEMPTS = 10

/** Whose segments, and where. */
export interface Packing {
  readonly context: FollowContext
  readonly cluster: Cluster
  readonly aggregateID: string
  readonly signal: AbortSignal
}

/**
 * Lists what the store holds of an aggregate up to a seq in segments, making those that there are not yet. Only what has been
 * published may be put there: it is the same for everybody. `ready` is one that was published as a message. Answers the seq
 * that they reach.
 */
export async function pack(packing: Packing, through: number, ready?: Segment): Promise<number> {
  const { cluster, aggregateID, signal } = packing
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const known = await cluster.segments(aggregateID)
    const list = [...known.list]
    /** Objects that were made on the way, and put together to others. */
    const spare: string[] = []
    const last = () => list.at(-1)?.through ?? -1
    while (last() < through && !signal.aborted) {
      const isNext = ready?.after === last()
      const before = ready !== undefined && last() < ready.after ? ready.after : through
      const next = isNext ? ready : await made(packing, last(), before)
      if (next === undefined) break
      list.push(isNext ? next : await merged(packing, list, next, spare))
    }
    if (last() === (known.list.at(-1)?.through ?? -1)) return last()
    if ((await cluster.list(aggregateID, list, known.revision)) === undefined) continue
    // Only now: until then, another's list may name them, who has made the same.
    for (const name of [...known.list.map((segment) => segment.name), ...spare]) {
      if (!list.some((segment) => segment.name === name)) await cluster.drop(name)
    }
    return last()
  }
  return -1
}

/**
 * A segment together with those before it that are no larger, which are taken off the list: an aggregate's number of segments
 * grows with the logarithm of its events, and an event is written anew as often. O'Neil et al., "The Log-Structured
 * Merge-Tree", 1996.
 */
async function merged(packing: Packing, list: Segment[], next: Segment, spare: string[]): Promise<Segment> {
  for (let last = list.at(-1); last !== undefined; last = list.at(-1)) {
    if (last.bytes > next.bytes || last.bytes + next.bytes > SEGMENT_BYTES) break
    const both = await made(packing, last.after, next.through)
    if (both?.through !== next.through) break
    spare.push(next.name)
    list.pop()
    next = both
  }
  return next
}

/** An object with what follows a seq, through another or as much as a segment has; undefined where nothing does. */
export async function made({ context, cluster, aggregateID, signal }: Packing, after: number, through: number) {
  await context.watch.settled(signal)
  const content = collected(context, aggregateID, after, through)
  return content === undefined ? undefined : await keep(cluster, aggregateID, after, content)
}

/** The lines of a segment, and what they reach. */
export interface Content {
  readonly lines: Uint8Array
  readonly through: number
  readonly removed: number
}

/** Read without a pause, while no transaction of the store's own is open: what is in it may not last. */
function collected(context: FollowContext, aggregateID: string, after: number, through: number): Content | undefined {
  const parts: Uint8Array[] = []
  let size = 0
  let [reached, removed] = [after, -1]
  for (const { bytes } of linesOf(context, aggregateID, after, through)) {
    for (const item of itemsOf(bytes)) {
      parts.push(item.line)
      size += item.line.length
      reached = Math.max(reached, item.content().seq)
      if (item.isRemoval) removed = Math.max(removed, item.content().seq)
    }
    if (size >= SEGMENT_BYTES) break
  }
  return reached === after ? undefined : { lines: Buffer.concat(parts), through: reached, removed }
}

/** An object with these lines. Its name is that of its content, so that whoever writes it again writes the same. */
export async function keep(
  cluster: Cluster,
  aggregateID: string,
  after: number,
  { lines, through, removed }: Content,
): Promise<Segment> {
  const bytes = packed(lines, WINDOW_LOG)
  const sum = createHash("sha256").update(bytes).digest("hex").slice(0, 16)
  const name = `${tokenOf(aggregateID)}.${after + 1}-${through}.${sum}`
  await cluster.keep(name, bytes)
  return { name, after, through, removed, bytes: lines.length }
}

/** The lines of an object, in pieces; undefined where there is no such object, or no more. */
export async function linesIn(
  cluster: Cluster,
  name: string,
  longest: number,
): Promise<AsyncGenerator<Uint8Array, void> | undefined> {
  const bytes = await cluster.object(name)
  return bytes === undefined ? undefined : wholeLines(decompressed([bytes], "zstd"), longest)
}

/** Drops the segments that hold what was removed up to a seq. */
export function forget(packing: Packing, removed: number): Promise<void> {
  return keepOnly(packing, async (segment) => segment.after >= removed || segment.removed >= removed)
}

/** Makes those again whose objects the cluster has lost. */
export async function mend(packing: Packing): Promise<number> {
  const { cluster, aggregateID } = packing
  const through = (await cluster.segments(aggregateID)).list.at(-1)?.through ?? -1
  let complete = true
  await keepOnly(packing, async ({ name }) => (complete &&= await cluster.hasObject(name)))
  return complete ? through : await pack(packing, through)
}

async function keepOnly({ cluster, aggregateID }: Packing, isWanted: (segment: Segment) => Promise<boolean>) {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const { list, revision } = await cluster.segments(aggregateID)
    const [kept, dropped]: [Segment[], Segment[]] = [[], []]
    for (const segment of list) ((await isWanted(segment)) ? kept : dropped).push(segment)
    if (dropped.length === 0) return
    if ((await cluster.list(aggregateID, kept, revision)) === undefined) continue
    for (const { name } of dropped) await cluster.drop(name)
    return
  }
}
