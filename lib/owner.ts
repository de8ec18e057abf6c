import { checkAggregateID, checkInteger, checkName, checkOptions, MAX_OWNER_BYTES } from "./argument"
import { native } from "./native"
import type { WriteContext } from "./run"

/** Who may write an aggregate, and how many times that changed. */
export interface Ownership {
  /** Null: anybody. */
  owner: string | null
  epoch: number
}

export interface ClaimOptions {
  /** The epoch that the caller saw; another one is there: `ERR_CONFLICT`. */
  expectedEpoch?: number
}

/** Claims, or with `null` releases. By another owner than before it raises the epoch, by the same one it does not. */
export function claim(
  { handle, transactions }: WriteContext,
  aggregateID: string,
  owner: string | null,
  options?: ClaimOptions,
): Ownership {
  transactions.assertUsable("claim")
  checkAggregateID(aggregateID)
  if (owner !== null) checkName("owner", owner, MAX_OWNER_BYTES)
  const { expectedEpoch } = checkOptions("claim", options, ["expectedEpoch"])
  const expected = expectedEpoch === undefined ? -1 : checkInteger("expectedEpoch", expectedEpoch, 0)
  transactions.beforeFrame()
  const [claimed, epoch] = native.claim(handle, aggregateID, owner, expected)
  return { owner: claimed, epoch }
}

/** Undefined: no such aggregate. */
export function ownerOf({ handle, transactions }: WriteContext, aggregateID: string): Ownership | undefined {
  transactions.assertOpen()
  const found = native.owner(handle, checkAggregateID(aggregateID))
  return found === null ? undefined : { owner: found[0], epoch: found[1] }
}
