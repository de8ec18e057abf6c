import type { Context } from "hono"
import { MAX_OWNER_BYTES, checkAggregateID, checkInteger, checkName, checkOptions, checkText } from "../../argument"
import type { WriteContext } from "../../context"
import { SyncError, invalidArgument, show } from "../../errors"
import { claim, ownerOf, type Ownership } from "../../owner"
import { aggregates } from "../../read"
import { answerJson } from "./answer"
import { formatOf, parseObject, readBody } from "./body"

/** Aggregates of one answer. */
const MOST_LISTED = 1_000

/** `GET /sync/sequences`: the aggregates and their last seqs, by id. */
export async function answerSequences({ req }: Context, store: WriteContext): Promise<Response> {
  const limit = limitOf(req.query("limit"))
  const prefix = req.query("prefix") ?? ""
  const after = req.query("after") ?? ""
  // Not inside a transaction that is open on the store's connection: that would be tied to what is read here.
  await store.watch.settled(req.raw.signal)
  // One more tells whether there are more.
  const listed = aggregates(store, { prefix: checkText("prefix", prefix), after, limit: limit + 1 })
  const page = listed.slice(0, limit).map(({ aggregateID, seq, owner, epoch }) => ({ aggregateID, seq, owner, epoch }))
  return answerJson({ aggregates: page, next: listed.length > limit ? page.at(-1)?.aggregateID : null })
}

/** `POST /sync/claim`: makes somebody the owner of what nobody else owns; `owner: null` releases it. */
export async function answerClaim({ req }: Context, store: WriteContext, maxBodyBytes: number): Promise<Response> {
  const { aggregateID, owner, expectedEpoch } = await claimOf(req.raw, maxBodyBytes)
  if (owner === null && expectedEpoch === undefined) {
    throw invalidArgument("To release an aggregate needs expectedEpoch: only who knows the epoch can be its owner")
  }
  return answerJson(
    await inTurn(store, req.raw.signal, () => {
      const held = ownerOf(store, aggregateID)
      const isFree = held === undefined || held.owner === null || held.owner === owner
      if (owner !== null && !isFree) throw notOwner(aggregateID, held, owner)
      return { aggregateID, ...claim(store, aggregateID, owner, { expectedEpoch }) }
    }),
  )
}

/** `POST /sync/steal`: the same, whoever owns it. */
export async function answerSteal({ req }: Context, store: WriteContext, maxBodyBytes: number): Promise<Response> {
  const { aggregateID, owner, expectedEpoch } = await claimOf(req.raw, maxBodyBytes)
  if (owner === null) throw invalidArgument("owner must be a string: claim with owner null releases")
  return answerJson(
    await inTurn(store, req.raw.signal, () => ({
      aggregateID,
      ...claim(store, aggregateID, owner, { expectedEpoch }),
    })),
  )
}

interface Claim {
  readonly aggregateID: string
  readonly owner: string | null
  readonly expectedEpoch: number | undefined
}

/** What is misspelt must not be done without its condition: there are no other fields than these. */
async function claimOf(request: Request, maxBodyBytes: number): Promise<Claim> {
  formatOf(request, ["json"])
  const body: Record<string, unknown> = parseObject(await readBody(request, maxBodyBytes))
  checkOptions("the body", body, ["aggregateID", "owner", "expectedEpoch"])
  const { aggregateID, owner, expectedEpoch } = body
  return {
    aggregateID: checkAggregateID(aggregateID),
    owner: owner === null ? null : checkName("owner", owner, MAX_OWNER_BYTES),
    expectedEpoch: expectedEpoch === undefined ? undefined : checkInteger("expectedEpoch", expectedEpoch, 0),
  }
}

/** In one transaction, so that nobody comes between look and claim, once the lock is to be had: the event loop goes on. */
function inTurn<T>(store: WriteContext, signal: AbortSignal, work: () => T): Promise<T> {
  store.transactions.assertMayWait("claim")
  return store.queue.enqueue(work, signal)
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return MOST_LISTED
  if (!/^\d{1,16}$/.test(text)) throw invalidArgument(`limit must be an integer, not ${show(text)}`)
  return checkInteger("limit", Number(text), 1, MOST_LISTED)
}

function notOwner(aggregateID: string, { owner, epoch }: Ownership, claimer: string): SyncError {
  const message = `Aggregate "${aggregateID}" is owned by "${owner}" (epoch ${epoch}), not by "${claimer}"`
  return new SyncError("ERR_NOT_OWNER", message, { aggregateID, expected: owner, got: claimer, epoch })
}
