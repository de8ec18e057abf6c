import type { Cluster } from "./cluster"
import type { Reach } from "./message"

/** What somebody holds of an aggregate. */
export type Held = Pick<Reach, "seq" | "removed" | "epoch">

/** The same of a message: how far its subject reaches with it. */
export interface Point extends Held {
  readonly position: number
}

/** Whether a message reaches beyond what is held. */
export function isBeyond(point: Held, held: Held): boolean {
  return point.seq > held.seq || point.removed > held.removed || point.epoch > held.epoch
}

/**
 * The position of an aggregate's first message that reaches beyond what is held; undefined where its last one, `head`, does
 * not. How far a subject reaches only grows, so that a binary search over the positions of the stream finds it, in as many
 * requests as their number has bits.
 */
export async function firstBeyond(
  cluster: Cluster,
  aggregateID: string,
  held: Held,
  head: Point,
): Promise<number | undefined> {
  if (!isBeyond(head, held)) return undefined
  let found = head.position
  // It is `found`, or lies in here. The first one is asked for first: of an aggregate that nobody here knows, it is that.
  for (let [from, to, middle] = [1, found, 1]; from < to; middle = from + Math.floor((to - from) / 2)) {
    const next = await cluster.next(aggregateID, middle)
    if (next === undefined || next.position >= to) to = middle
    else if (isBeyond(next, held)) {
      found = next.position
      to = middle
    } else from = next.position + 1
  }
  return found
}
