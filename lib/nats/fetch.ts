import type { Cluster } from "./cluster"
import type { Stored } from "./message"
import { firstBeyond, type Held } from "./search"
import { linesIn } from "./segments"

/** What the fetching of one aggregate needs. */
export interface Fetching {
  readonly cluster: Cluster
  readonly aggregateID: string
  /** What is held of it now. */
  readonly held: () => Held
  /** Takes items, in their order. */
  readonly lines: (lines: Uint8Array) => Promise<void>
  /** Hears of each message before its items are given. */
  readonly message?: (message: Stored) => void
  /** Bytes of the longest line that is taken. */
  readonly longest: number
  readonly signal: AbortSignal
}

/** Times that the segments are looked up anew because some of them have gone. */
const ATTEMPTS = 3

/**
 * Gives what the cluster has of one aggregate beyond what is held: from its segments, and from the stream what came after
 * them. Answers its last message; undefined where it has none.
 */
export async function fetch(fetching: Fetching): Promise<Stored | undefined> {
  const { cluster, aggregateID, held, signal } = fetching
  const head = await cluster.head(aggregateID)
  if (head === undefined) return undefined
  const first = await firstBeyond(cluster, aggregateID, held(), head)
  if (first === undefined) return head
  let message = await cluster.next(aggregateID, first)
  if (message !== undefined && message.after > held().seq) await fetchSegments(fetching)
  for (; message !== undefined && !signal.aborted; message = await cluster.next(aggregateID, message.position + 1)) {
    fetching.message?.(message)
    await give(fetching, message)
    if (message.position >= head.position) break
  }
  return head
}

/** The items of a message, wherever they are. */
export async function give(
  { cluster, lines, longest }: Pick<Fetching, "cluster" | "lines" | "longest">,
  { segment, lines: own }: Pick<Stored, "segment" | "lines">,
): Promise<void> {
  if (segment === undefined) {
    if (own.length > 0) await lines(own)
    return
  }
  // One that has gone is in the segments by now, or was removed.
  for await (const piece of (await linesIn(cluster, segment, longest)) ?? []) await lines(piece)
}

/** Gives what the segments have beyond what is held. */
export async function fetchSegments({ cluster, aggregateID, held, lines, longest, signal }: Fetching): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS && !signal.aborted; attempt++) {
    const { list } = await cluster.segments(aggregateID)
    const wanted = list.filter(({ through }) => through > held().seq)
    let complete = true
    for (const { name } of wanted) {
      const found = await linesIn(cluster, name, longest)
      complete = found !== undefined
      if (found === undefined) break
      for await (const piece of found) await lines(piece)
    }
    if (complete) return
  }
}
