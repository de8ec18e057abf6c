import { checkAggregateID, checkInteger, checkName, checkOptions, MAX_OWNER_BYTES } from "./argument"
import { native } from "./native"
import type { WriteContext } from "./context"

/**
 * Who may write an aggregate, and how many times that changed.
 * @example const ownership: Ownership = store.claim("ses_1", "laptop") // → { owner: "laptop", epoch: 1 }
 */
export interface Ownership {
  /** Null: anybody. */
  owner: string | null
  /** Rises when another owner claims and when one releases. In one epoch there is one owner, or nobody. 0: nobody yet. */
  epoch: number
}

/**
 * What `claim` takes.
 * @example
 * const options: ClaimOptions = { expectedEpoch: 1 }
 * store.claim("ses_1", "laptop", options) // throws ERR_CONFLICT
 */
export interface ClaimOptions {
  /** The epoch that the caller saw, from 0; another one is there: `ERR_CONFLICT`. Default: any. */
  expectedEpoch?: number | undefined
}

/** Claims, or with `null` releases. Both raise the epoch, where they change the owner. */
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

/**
 * Makes owner and epoch those of another log, in the transaction that is open. `ERR_NOT_OWNER` for a lower epoch, and for
 * another owner in the same one.
 */
export function adoptOwner(
  { handle, transactions }: WriteContext,
  aggregateID: string,
  { owner, epoch }: Ownership,
): void {
  // Others have said it: what no epoch can be must not be stored.
  checkInteger("epoch", epoch, owner === null ? 0 : 1)
  transactions.beforeFrame()
  native.adoptOwner(handle, aggregateID, owner, epoch)
}

/** Undefined: no such aggregate. */
export function ownerOf({ handle, transactions }: WriteContext, aggregateID: string): Ownership | undefined {
  transactions.assertOpen()
  const found = native.owner(handle, checkAggregateID(aggregateID))
  return found === null ? undefined : { owner: found[0], epoch: found[1] }
}
