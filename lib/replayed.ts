import type { AsyncOptions } from "./context"
import type { LogItem } from "./log"
import type { SerializedEvent } from "./payload"

/**
 * What `replay` takes.
 * @example
 * const options: ReplayOptions = { owner: "laptop", epoch: 1, publish: true }
 * open("phone.db", session).replayAll(store.read("ses_1"), options)[0]?.applied // → 2
 */
export interface ReplayOptions {
  /** Deliver to listeners what was applied. Default false. */
  publish?: boolean | undefined
  /**
   * The owner that the events come from: claims what nobody owns, refuses what another owns (`ERR_NOT_OWNER`). At most
   * 255 bytes. Default: neither is done.
   */
  owner?: string | undefined
  /** A lower one than is stored is refused (`ERR_NOT_OWNER`), a higher one adopted. From 0. Default: not looked at. */
  epoch?: number | undefined
  /**
   * An event of a type and version that this store does not define: "error" refuses it (`ERR_UNKNOWN_EVENT`), "record" stores
   * it, and from it on its aggregate is only stored, not projected, until `reproject`. Default "error".
   */
  unknown?: "error" | "record" | undefined
}

/**
 * What `replayAll` takes.
 * @example
 * const options: ReplayAllOptions = { onError: "park" }
 * const [parked] = open("phone.db", session).replayAll(store.read("ses_1", { after: 0 }), options)
 * parked // → { aggregateID: "ses_1", applied: 0, seq: -1, index: 0, … }
 */
export interface ReplayAllOptions extends ReplayOptions {
  /**
   * An item that cannot be applied: "throw" takes the whole batch back; "park" leaves that item and the later ones of its
   * aggregate, says so in its result, and applies the others. Items without the shape of one, `ERR_TOO_LARGE`,
   * `ERR_ASYNC_SCHEMA`, and what fails for all (the lock, the disk, the file, the connection, the commit) throw either way. Default
   * "throw".
   */
  onError?: "throw" | "park" | undefined
}

/**
 * What `replayAllAsync` takes.
 * @example
 * const options: ReplayAsyncOptions = { onError: "park", signal: AbortSignal.timeout(5_000) }
 * const [result] = await open("phone.db", session).replayAllAsync(store.read("ses_1"), options)
 */
export type ReplayAsyncOptions = ReplayAllOptions & AsyncOptions

/**
 * What a replay did to one aggregate.
 * @example
 * const [result]: ReplayResult[] = store.replayAll(store.read("ses_1"))
 * result // → { aggregateID: "ses_1", applied: 0, duplicate: 2, seq: 1 }
 */
export interface ReplayResult {
  /** Which aggregate this is about. */
  aggregateID: string
  /** How many events were new. */
  applied: number
  /** How many were held already, or lie in a known gap. */
  duplicate: number
  /** The last seq held now. */
  seq: number
  /** The last seq that is projected (-1: none), only where that is not `seq`: later ones wait for `reproject`. */
  projected?: number
  /** Only with `index`: why the item there was not applied, the very value that was thrown. */
  error?: unknown
  /** Of the item, from 0, at which the aggregate was parked. A later replay that brings it again goes on from there. */
  index?: number
}

/**
 * What `reproject` did.
 * @example
 * const result: ReprojectResult = store.reproject("ses_1") // → { aggregateID: "ses_1", applied: 0, seq: 1, projected: 1 }
 */
export interface ReprojectResult {
  /** The one that was asked for. */
  aggregateID: string
  /** How many events were projected. */
  applied: number
  /** The last seq held; -1 where there is none. */
  seq: number
  /** The last seq that is projected: `seq`, unless a type is still unknown. */
  projected: number
}

/**
 * Events and log items, as objects; or their JSON text or its UTF-8 bytes, as one array or one a line.
 * @example
 * const lines: ReplayInput = store.read("ses_1").map((event) => JSON.stringify(event)).join("\n")
 * open("phone.db", session).replayAll(lines)[0]?.applied // → 2
 */
export type ReplayInput = Iterable<SerializedEvent | LogItem> | string | Uint8Array
