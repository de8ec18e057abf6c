import type { LogItem } from "./log"
import type { SerializedEvent } from "./payload"
import type { ReplayResult } from "./replayed"
import type { Store } from "./store"

/**
 * A replay's outcome for one aggregate.
 * @example
 * const store = init(session)
 * run(Created, { sessionID: "ses_1", title: "Untitled" })
 * claim("ses_1", "laptop")
 * const [result]: Replayed[] = replayAll(store.read("ses_1"), { ownerID: "phone" })
 * result // → { skipped: 1, owner: "laptop", … }
 */
export interface Replayed extends ReplayResult {
  /** How many events were skipped because `owner` owns the aggregate; absent where none were. */
  skipped?: number
  /** Who owns the aggregate that was skipped. */
  owner?: string
}

/** What is to be skipped because somebody other than `ownerID` owns it: one result an aggregate. */
export function foreign(
  store: Pick<Store<unknown>, "owner" | "sequence">,
  items: readonly (SerializedEvent | LogItem)[],
  ownerID: string,
): ReadonlyMap<unknown, Replayed> {
  const skipped = new Map<unknown, Replayed>()
  const own = new Set<string>()
  for (const item of items) {
    const aggregateID = aggregateOf(item)
    if (typeof aggregateID !== "string" || aggregateID === "" || own.has(aggregateID)) continue
    const known = skipped.get(aggregateID)
    const owner = known?.owner ?? store.owner(aggregateID)?.owner ?? undefined
    if (owner === undefined || owner === ownerID) {
      own.add(aggregateID)
      continue
    }
    const seq = known?.seq ?? store.sequence(aggregateID)
    skipped.set(aggregateID, {
      aggregateID,
      applied: 0,
      duplicate: 0,
      seq,
      skipped: (known?.skipped ?? 0) + 1,
      owner,
    })
  }
  return skipped
}

/** Of whatever the caller passed: the replay itself refuses what is malformed, and names its index. */
export function aggregateOf(item: SerializedEvent | LogItem): unknown {
  const envelope = item as { event?: { aggregateID?: unknown }; aggregateID?: unknown } | null | undefined
  return envelope?.aggregateID ?? envelope?.event?.aggregateID
}
