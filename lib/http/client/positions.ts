import type { SyncError } from "../../errors"
import { TYPES, isUnknownPath } from "./dialect"
import { protocolError } from "../../follow/failure"
import type { Remote } from "./remote"

/** What a server holds of an aggregate. */
export interface Position {
  readonly aggregateID: string
  readonly seq: number
  readonly owner: string | null
  readonly epoch: number
}

/** Aggregates that are asked for one by one; of more, the whole list is read. */
const FEW = 16

/** What a server holds: of these aggregates, or of all. Undefined: it is one that cannot be asked. */
export async function positions(
  remote: Remote,
  aggregates: ReadonlySet<string> | undefined,
): Promise<Map<string, Position> | undefined> {
  const found = new Map<string, Position>()
  try {
    if (aggregates !== undefined && aggregates.size <= FEW) {
      for (const aggregateID of aggregates) {
        const position = await positionOf(remote, aggregateID)
        if (position !== undefined) found.set(aggregateID, position)
      }
      return found
    }
    for (let after = ""; ;) {
      const { list, next } = await page(remote, new URLSearchParams(after === "" ? {} : { after }))
      const before = found.size
      for (const position of list) found.set(position.aggregateID, position)
      if (next === null) return found
      if (found.size === before) throw protocolError("sync/sequences goes on, and has nothing more to tell")
      after = next
    }
  } catch (error) {
    // What has answered once, or answers with a list that makes no sense, is no older server: that would be sent everything.
    const { status } = error as SyncError
    if (found.size === 0 && status !== undefined && isUnknownPath(error as SyncError)) return undefined
    throw error
  }
}

/** Undefined: the server does not know the aggregate. */
export async function positionOf(remote: Remote, aggregateID: string): Promise<Position | undefined> {
  // The id itself is the first of those that begin with it.
  const { list } = await page(remote, new URLSearchParams({ prefix: aggregateID, limit: "1" }))
  return list.find((position) => position.aggregateID === aggregateID)
}

async function page(remote: Remote, query: URLSearchParams): Promise<{ list: Position[]; next: string | null }> {
  const answer = await remote.request("GET", "sync/sequences", { query, accept: TYPES.json })
  if (!answer.is(TYPES.json)) throw await answer.refusal(TYPES.json)
  const { aggregates, next } = Object(await answer.json()) as { aggregates?: unknown; next?: unknown }
  if (!Array.isArray(aggregates) || !aggregates.every(isPosition) || (next !== null && typeof next !== "string")) {
    throw protocolError("sync/sequences was answered with something else than a list of aggregates")
  }
  return { list: aggregates, next }
}

function isPosition(one: unknown): one is Position {
  const { aggregateID, seq, owner, epoch } = Object(one) as Record<string, unknown>
  const owned = owner === null || typeof owner === "string"
  return typeof aggregateID === "string" && Number.isSafeInteger(seq) && owned && Number.isSafeInteger(epoch)
}
