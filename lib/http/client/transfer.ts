import { MAX_OWNER_BYTES, checkAggregateID, checkName, checkOptions, checkSignal } from "../../argument"
import type { WriteContext } from "../../context"
import { SyncError, invalidArgument, show, type ErrorCode } from "../../errors"
import { adoptOwner, type Ownership } from "../../owner"
import { Store } from "../../store"
import { Backoff, pause } from "../../follow/backoff"
import { longestLine } from "../../follow/batches"
import { protocolError } from "../../follow/failure"
import { TYPES, historyOf } from "./dialect"
import { positionOf, type Position } from "./positions"
import { REMOTE_OPTIONS, Remote, checkAddress, retryAfterOf, type Address } from "./remote"
import type { RemoteOptions } from "./remote"

/**
 * What `transfer` takes.
 * @example
 * const options: TransferOptions = { ...remote, aggregateID: "ses_9", owner: "phone" }
 * await transfer(phone, options) // throws ERR_NOT_FOUND
 */
export interface TransferOptions extends RemoteOptions {
  /** What is taken over. */
  aggregateID: string
  /** Who takes it: the store's own `owner`, where it has one. At most 255 bytes. */
  owner: string
  /** Gives it up, and hands back what has been taken: `ERR_ABORTED`. */
  signal?: AbortSignal | undefined
}

/**
 * What has been taken over.
 * @example
 * const taken: Transferred = await transfer(phone, { ...remote, aggregateID: "ses_1", owner: "phone" })
 * taken.seq // → 1
 */
export interface Transferred {
  /** Who took it. */
  owner: string
  /** The same here and on the server. */
  epoch: number
  /** The last seq that is held here: all that was written by those who owned it before. */
  seq: number
}

/**
 * Takes an aggregate over from whomever it belongs to on the server: catches up with it, takes it there, catches up with what
 * was written between, and becomes its owner here, in the same epoch. From then on a store with another owner is refused
 * there, and this one may write here. Whatever fails after it was taken hands it back; where that fails as well, the error
 * says both. To call it again is safe, also when this process was killed in the middle.
 *
 * `ERR_NOT_FOUND` for what the server does not know, `ERR_CONFLICT` where somebody else was faster, or where this store's epoch
 * is ahead of the server's; `ERR_REPLAY_DIVERGED` and what else a replay throws; `ERR_UNREACHABLE`, `ERR_PROTOCOL` (an older
 * server has no owners) and what the server answers; `ERR_INVALID_ARGUMENT`, `ERR_READONLY`, `ERR_CLOSED`.
 * @example
 * await transfer(phone, { ...remote, aggregateID: "ses_1", owner: "phone" }) // → { owner: "phone", epoch: 1, seq: 1 }
 * phone.owner("ses_1") // → { owner: "phone", epoch: 1 }
 */
export async function transfer<Tx>(store: Store<Tx>, options: TransferOptions): Promise<Transferred> {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`transfer needs a store, not ${show(store)}`)
  const given = checkOptions("transfer", options, [...REMOTE_OPTIONS, "aggregateID", "owner", "signal"])
  const aggregateID = checkAggregateID(given.aggregateID)
  const owner = checkName("owner", given.owner, MAX_OWNER_BYTES)
  const address = checkAddress(given)
  const signal = checkSignal(given.signal) ?? new AbortController().signal
  context.transactions.assertUsable("transfer")
  if (!context.record) throw invalidArgument("transfer needs a store that records (record: true)")
  if (store.db.readonly) throw new SyncError("ERR_READONLY", "transfer needs a store that is not opened read-only")
  if (context.owner !== null && context.owner !== owner) {
    throw invalidArgument(
      `owner must be the store's own, ${show(context.owner)}: it could not write for ${show(owner)}`,
    )
  }
  return await new Transfer(store as Store, context, { address, aggregateID, owner, signal }).run()
}

interface Settings {
  readonly address: Address
  readonly aggregateID: string
  readonly owner: string
  readonly signal: AbortSignal
}

/** Of what must not be left half done. */
const ATTEMPTS = 5
const PAUSES = { initial: 100, longest: 2_000 }

class Transfer {
  readonly #remote: Remote
  /** For what has to be done in any case. */
  readonly #regardless: Remote

  constructor(
    private readonly store: Store,
    private readonly context: WriteContext,
    private readonly settings: Settings,
  ) {
    const { address, signal } = settings
    this.#remote = new Remote(address, signal)
    this.#regardless = new Remote(address, new AbortController().signal)
  }

  async run(): Promise<Transferred> {
    const { aggregateID, owner } = this.settings
    const before = await positionOf(this.#remote, aggregateID)
    if (before === undefined) {
      throw new SyncError("ERR_NOT_FOUND", `The server knows no aggregate "${aggregateID}"`, { aggregateID })
    }
    this.#checkHere(before)
    await this.#catchUp(before)
    const epoch = await this.#take(before)
    try {
      await this.#catchUp(before)
      await this.#adopt(epoch)
      return { owner, epoch, seq: this.store.sequence(aggregateID) }
    } catch (error) {
      throw await this.#handBack(before, epoch, error)
    }
  }

  /** What would be refused at the end is refused before anything is taken. */
  #checkHere(before: Position): void {
    const { aggregateID, owner } = this.settings
    const here = this.store.owner(aggregateID)
    const epoch = before.owner === owner ? before.epoch : before.epoch + 1
    if (here === undefined || here.epoch < epoch) return
    if (here.epoch === epoch && (here.owner === owner || here.owner === null)) return
    throw conflict(aggregateID, epoch, here)
  }

  /** From the last event that both have, which is compared: two histories would have to be found out before anything is taken. */
  async #catchUp({ seq }: Position): Promise<void> {
    const { aggregateID, signal } = this.settings
    const both = Math.min(seq, this.store.sequence(aggregateID))
    const wanted = { held: new Map([[aggregateID, Math.max(both - 1, -1)]]), only: true }
    const limit = longestLine(this.context.maxEventBytes)
    for await (const lines of historyOf(this.#remote, wanted, limit)) await this.store.replayAllAsync(lines, { signal })
  }

  /** Answers the epoch. Where no answer comes, it may have been done all the same. */
  async #take(before: Position): Promise<number> {
    const { aggregateID, owner, signal } = this.settings
    const body = { aggregateID, owner, expectedEpoch: before.epoch }
    try {
      return (await this.#change(this.#remote, "sync/steal", body)).epoch
    } catch (error) {
      if (!(error instanceof SyncError) || !UNCLEAR.has(error.code)) throw error
      const now = await this.#position(error)
      const isTaken = now?.owner === owner && now.epoch === before.epoch + 1 && before.owner !== owner
      if (isTaken && signal.aborted) throw await this.#handBack(before, now.epoch, error)
      if (!isTaken) throw error
      return now.epoch
    }
  }

  async #position(error: SyncError): Promise<Position | undefined> {
    const { aggregateID } = this.settings
    try {
      return await persistently(() => positionOf(this.#regardless, aggregateID))
    } catch (another) {
      throw both(error, `it is not known whether aggregate "${aggregateID}" was taken`, another, aggregateID)
    }
  }

  async #adopt(epoch: number): Promise<void> {
    const { aggregateID, owner, signal } = this.settings
    try {
      await this.context.queue.enqueue(() => adoptOwner(this.context, aggregateID, { owner, epoch }), signal)
    } catch (error) {
      const here = this.store.owner(aggregateID)
      if (!(error instanceof SyncError) || error.code !== "ERR_NOT_OWNER" || here === undefined) throw error
      throw conflict(aggregateID, epoch, here)
    }
  }

  /** Answers what is to be thrown. */
  async #handBack({ owner }: Position, epoch: number, error: unknown): Promise<unknown> {
    const { aggregateID } = this.settings
    if (owner === this.settings.owner) return error
    const path = owner === null ? "sync/claim" : "sync/steal"
    try {
      await persistently(() => this.#change(this.#regardless, path, { aggregateID, owner, expectedEpoch: epoch }))
    } catch (another) {
      // Another epoch: somebody else has taken it, or an attempt whose answer was lost has done it.
      if (another instanceof SyncError && another.code === "ERR_CONFLICT") return error
      const whom = owner === null ? "nobody" : `"${owner}"`
      return both(error, `aggregate "${aggregateID}" could not be handed back to ${whom}`, another, aggregateID)
    }
    return error
  }

  async #change(remote: Remote, path: string, body: object): Promise<Ownership> {
    const content = Buffer.from(JSON.stringify(body))
    const answer = await remote.request("POST", path, { accept: TYPES.json, body: { type: TYPES.json, content } })
    if (!answer.is(TYPES.json)) throw await answer.refusal(TYPES.json)
    const { owner, epoch } = Object(await answer.json()) as Partial<Ownership>
    const isEpoch = Number.isSafeInteger(epoch) && (epoch as number) > 0
    if (owner === undefined || !isEpoch) throw protocolError(`${path} does not say who owns what`)
    return { owner, epoch: epoch as number }
  }
}

/** What does not tell whether a request was carried out: there is no answer, or a proxy's. */
const UNCLEAR: ReadonlySet<ErrorCode> = new Set(["ERR_UNREACHABLE", "ERR_PROTOCOL", "ERR_ABORTED"])

async function persistently<T>(work: () => Promise<T>): Promise<T> {
  const backoff = new Backoff(PAUSES)
  for (;;) {
    try {
      return await work()
    } catch (error) {
      const passing = error instanceof SyncError && (UNCLEAR.has(error.code) || error.status === 503)
      if (!passing || backoff.failures >= ATTEMPTS - 1) throw error
      await pause(backoff.next(retryAfterOf(error)), new AbortController().signal)
    }
  }
}

function conflict(aggregateID: string, expected: number, { owner, epoch }: Ownership): SyncError {
  const whose = owner === null ? "nobody's" : `of "${owner}"`
  const message = `Conflict on aggregate "${aggregateID}": it is ${whose} here, in epoch ${epoch}, and would be in epoch ${expected} on the server`
  return new SyncError("ERR_CONFLICT", message, { aggregateID, expected, got: epoch })
}

/** Two failures, of which the first one is the reason for the second. */
function both(error: unknown, what: string, another: unknown, aggregateID: string): SyncError {
  const [first, second] = [error, another].map((one) => (one instanceof Error ? one.message : show(one)))
  const { code } = [error, another].find((one) => one instanceof SyncError) ?? { code: "ERR_UNREACHABLE" as const }
  return new SyncError(code, `${first}; and then ${what}: ${second}`, {
    aggregateID,
    cause: new AggregateError([error, another]),
  })
}
