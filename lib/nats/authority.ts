import { SyncError } from "../errors"
import { adoptOwner, ownerOf, type Ownership } from "../owner"
import type { WriteContext } from "../context"
import type { Cluster, Owned } from "./cluster"
import type { Reach } from "./message"

/** Claims in a row until an epoch is above all that are known: a cluster that lost its last claims counts from an earlier one. */
const MOST_CLAIMS = 10_000

/**
 * In whose name, and in which epoch, this store may publish an aggregate. Nobody's is claimed where the store has an owner.
 * `ERR_NOT_OWNER` where the cluster says that another owner has it; the store has adopted that then.
 */
export async function authority(
  context: WriteContext,
  cluster: Cluster,
  aggregateID: string,
  head: Reach,
): Promise<Ownership> {
  const here = ownerOf(context, aggregateID) ?? { owner: null, epoch: 0 }
  const own = context.owner ?? here.owner
  const owned = await cluster.owner(aggregateID)
  if (owned !== undefined && owned.owner !== null && owned.owner !== own) {
    throw await fenced(context, aggregateID, own, owned)
  }
  if (head.epoch > Math.max(here.epoch, owned?.epoch ?? 0) && head.owner !== own) {
    if (own !== null || head.owner !== null) throw await fenced(context, aggregateID, own, head)
    return await adopted(context, aggregateID, { owner: null, epoch: head.epoch })
  }
  if (own === null) return here
  const least = Math.max(inNameOf(own, here), inNameOf(own, head))
  const { epoch } =
    owned?.owner === own && owned.epoch >= least ? owned : await take(cluster, aggregateID, own, owned, least)
  return await adopted(context, aggregateID, { owner: own, epoch })
}

/** The store's own owner and epoch become those of the cluster, once it may write. */
export async function adopted(context: WriteContext, aggregateID: string, owned: Ownership): Promise<Ownership> {
  const { owner, epoch } = owned
  await context.queue.enqueue(() => adoptOwner(context, aggregateID, owned), undefined)
  return { owner, epoch }
}

/** The lowest epoch in which an owner may follow another, or itself. */
export function inNameOf(owner: string | null, before: Ownership): number {
  return before.owner === owner ? before.epoch : before.epoch + 1
}

/** Makes an owner, or nobody, the one in the cluster, in an epoch that is at least so high. `ERR_CONFLICT`: somebody was faster. */
export async function take(
  cluster: Cluster,
  aggregateID: string,
  owner: string | null,
  before: Owned | undefined,
  least: number,
): Promise<Owned> {
  let expected = before?.epoch ?? 0
  for (let claims = 0; claims < MOST_CLAIMS; claims++) {
    const owned = (await cluster.own(aggregateID, owner, expected)) ?? (await cluster.owner(aggregateID))
    // An attempt whose answer was lost may have been carried out after all.
    if (owned?.owner !== owner) {
      const message = `Conflict on aggregate "${aggregateID}": its owner in the cluster has changed since epoch ${expected}`
      throw new SyncError("ERR_CONFLICT", message, { aggregateID, expected })
    }
    if (owned.epoch >= least) return owned
    expected = owned.epoch
  }
  const message = `Conflict on aggregate "${aggregateID}": epoch ${least} is known here, and the cluster is at ${expected}`
  throw new SyncError("ERR_CONFLICT", message, { aggregateID, expected: least, got: expected })
}

/** What a writer hears that another has taken the place of; its store refuses to write from now on. */
export async function fenced(
  context: WriteContext,
  aggregateID: string,
  own: string | null,
  by: Ownership,
): Promise<SyncError> {
  const { owner, epoch } = by
  const here = ownerOf(context, aggregateID)?.epoch ?? 0
  if (epoch > here) await adopted(context, aggregateID, by)
  const whose = owner === null ? "nobody's" : `of "${owner}"`
  const name = own === null ? "a store without an owner" : `"${own}"`
  const message = `Aggregate "${aggregateID}" is ${whose} in the cluster, in epoch ${epoch}: ${name} may not publish it`
  return new SyncError("ERR_NOT_OWNER", message, { aggregateID, expected: owner, got: own, epoch, gotEpoch: here })
}
