import { types } from "node:util"
import { checkBoolean, checkInteger, checkOptions, checkOwner, checkSignal } from "./argument"
import type { AsyncOptions, WriteContext } from "./context"
import { SyncError, invalidArgument, show } from "./errors"
import type { LogItem } from "./log"
import { PROJECTOR, native, type Batch } from "./native"
import { apart, lazyEvent, serialize, type Event, type SerializedEvent } from "./payload"
import { applyProjector, type Target } from "./project"
import { isThenable, quiet } from "./promise"
import { invalidData, validated, type Subject } from "./schema"

/** What `replay` and `replayAll` take. */
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
}

/** What `replayAllAsync` takes. */
export type ReplayAsyncOptions = ReplayOptions & AsyncOptions

/** What a replay did to one aggregate. */
export interface ReplayResult {
  aggregateID: string
  /** How many events were new. */
  applied: number
  /** How many were held already, or lie in a known gap. */
  duplicate: number
  /** The last seq held now. */
  seq: number
}

/** Events and log items, as objects; or their JSON text or its UTF-8 bytes, as one array or one a line. */
export type ReplayInput = Iterable<SerializedEvent | LogItem> | string | Uint8Array

interface Settings {
  readonly publish: boolean
  readonly owner: string | null
  /** -1: not asked. */
  readonly epoch: number
}

/** An item that JavaScript has checked before it is applied. */
interface Checked {
  readonly target: Target
  readonly event: Event
  readonly text: string
  /** What the projector receives. */
  readonly output: unknown
}

interface Page {
  readonly end: number
  readonly items: ReadonlyMap<number, Checked>
  /** Why the item at `end` cannot be applied; those before it are first, so that the first error is the one thrown. */
  readonly failure: { readonly error: unknown } | undefined
}

/** The reader's act: whole batches, each item through the same checks in the same order. */
export class Replayer {
  constructor(private readonly context: WriteContext) {}

  replay(item: SerializedEvent | LogItem, options?: ReplayOptions): ReplayResult {
    const { batch, settings } = this.#begin("replay", [item], options, REPLAY_OPTIONS)
    return this.context.transactions.write(() => this.#apply(batch, settings))[0] as ReplayResult
  }

  replayAll(input: ReplayInput, options?: ReplayOptions): ReplayResult[] {
    const { batch, settings } = this.#begin("replayAll", input, options, REPLAY_OPTIONS)
    return this.context.transactions.write(() => this.#apply(batch, settings))
  }

  async replayAllAsync(input: ReplayInput, options?: ReplayAsyncOptions): Promise<ReplayResult[]> {
    const { batch, settings } = this.#begin("replayAllAsync", input, options, REPLAY_ASYNC_OPTIONS)
    this.context.transactions.assertMayWait("replayAllAsync")
    return this.context.queue.enqueue(() => this.#apply(batch, settings), checkSignal(options?.signal))
  }

  /** Reads the whole input and checks its shapes, before anything is locked. */
  #begin(
    call: string,
    input: ReplayInput,
    options: ReplayAsyncOptions | undefined,
    names: readonly string[],
  ): { batch: Batch; settings: Settings } {
    this.context.transactions.assertUsable(call)
    const settings = replaySettings(call, options, names)
    if (!this.context.record) throw invalidArgument(`${call} needs a store that records (record: true)`)
    const collected = collect(call, input)
    // The iterable is the caller's code: it may have closed the store.
    this.context.transactions.assertUsable(call)
    return { batch: native.replayParse(this.context.handle, collected), settings }
  }

  #apply(batch: Batch, settings: Settings): ReplayResult[] {
    const length = native.replayLength(batch)
    for (let from = 0; from < length;) {
      const page = this.context.transactions.checking(() => this.#check(batch, from))
      this.#applyPage(batch, from, page, settings)
      if (page.failure !== undefined) throw page.failure.error
      from = page.end
    }
    return results(native.replayResults(batch))
  }

  /** Parses, upcasts and validates the next items, as many as Rust hands out at once. */
  #check(batch: Batch, from: number): Page {
    const [end, ...flat] = native.replayPage(this.context.handle, batch, from)
    const items = new Map<number, Checked>()
    for (let at = 0; at < flat.length; at += ITEM_WIDTH) {
      const flagged = flat[at] as number
      const index = flagged < 0 ? -1 - flagged : flagged
      try {
        items.set(index, this.#checkItem(batch, index, flagged < 0, flat, at))
      } catch (error) {
        return { end: index, items, failure: { error } }
      }
    }
    return { end, items, failure: undefined }
  }

  #checkItem(batch: Batch, index: number, rewrite: boolean, flat: readonly unknown[], at: number): Checked {
    const target = this.context.projections.targets[flat[at + 1] as number] as Target
    const given = flat[at + 7] as string
    const parsed: unknown = JSON.parse(given)
    const text = rewrite ? JSON.stringify(parsed) : given
    const event = eventAt(target, flat, at, text)
    if (rewrite) {
      const metadata = event.metadata === undefined ? null : JSON.stringify(event.metadata)
      native.replaySetData(this.context.handle, batch, index, text, metadata)
    }
    const input = upcast(target, parsed)
    const { aggregateID, seq } = event
    const subject = { type: target.definition.name, aggregateID, seq, index }
    const projected = target.upcasts.length > 0 ? upcastText(input, subject) : text
    if (target.upcasts.length > 0 && target.kind === PROJECTOR.sql) native.replaySetProjected(batch, index, projected)
    const { validate } = this.context
    const output = validate === "never" ? input : validated(target.effective.schema, input, projected, subject)
    return { target, event, text, output }
  }

  #applyPage(batch: Batch, from: number, page: Page, { publish, owner, epoch }: Settings): void {
    for (let at = from; at < page.end;) {
      const [stop, pending, ...applied] = native.replayApply(
        this.context.handle,
        batch,
        at,
        page.end,
        owner,
        epoch,
        publish,
      )
      if (publish) this.#hold(batch, pending, applied, page)
      for (let k = 0; k < applied.length; k += 2) this.#project(page.items.get(applied[k] as number))
      at = stop
    }
  }

  #project(item: Checked | undefined): void {
    const { tx, transactions } = this.context
    if (item !== undefined) applyProjector(transactions, item.target, tx, item.output, item.event)
  }

  /** Puts applied events (index and position) among those that wait for the commit; the unchecked ones are fetched for it. */
  #hold(batch: Batch, pending: number, applied: readonly number[], page: Page): void {
    const unseen = applied.filter((index, k) => k % 2 === 0 && !page.items.has(index))
    const fetched = unseen.length > 0 ? native.replayEvents(this.context.handle, batch, unseen) : []
    let next = 0
    for (let k = 0; k < applied.length; k += 2) {
      const { event, text } = page.items.get(applied[k] as number) ?? this.#unchecked(fetched, ITEM_WIDTH * next++)
      const position = applied[k + 1] as number
      const told = { event: apart(event), text, position, recorded: true, publish: true }
      this.context.transactions.hold(pending + k / 2, told)
    }
  }

  #unchecked(flat: readonly unknown[], at: number): Pick<Checked, "event" | "text"> {
    const target = this.context.projections.targets[flat[at + 1] as number] as Target
    const text = flat[at + 7] as string
    return { event: eventAt(target, flat, at, text), text }
  }
}

/** Values that stand for one item in what Rust hands out. */
const ITEM_WIDTH = 8

const REPLAY_OPTIONS = ["publish", "owner", "epoch"]
const REPLAY_ASYNC_OPTIONS = [...REPLAY_OPTIONS, "signal"]

function replaySettings(call: string, options: ReplayAsyncOptions | undefined, names: readonly string[]): Settings {
  const { publish, owner, epoch } = checkOptions(call, options, names)
  return {
    publish: checkBoolean("publish", publish, false),
    owner: checkOwner("owner", owner),
    epoch: epoch === undefined ? -1 : checkInteger("epoch", epoch, 0),
  }
}

function collect(call: string, input: ReplayInput): string | Uint8Array | string[] {
  if (typeof input === "string") return escapeLoneSurrogates(input)
  if (types.isUint8Array(input)) return heldBytes(call, input)
  if (typeof (input as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] !== "function") {
    throw invalidArgument(`${call} needs an iterable of events, JSON text or bytes, not ${show(input)}`)
  }
  const texts: string[] = []
  for (const item of input) texts.push(itemText(item, texts.length))
  return texts
}

function itemText(item: unknown, index: number): string {
  // Text that is no object either: Rust names what an item must be, in one place for all inputs.
  if (typeof item !== "object" || item === null) return JSON.stringify(show(item))
  try {
    return logItemText(item as Partial<LogItem>) ?? serialize(item) ?? "null"
  } catch (error) {
    throw new SyncError("ERR_INVALID_EVENT", `Invalid event at index ${index}: it has no JSON text`, {
      index,
      cause: error,
    })
  }
}

/** Most log items hold nothing but an event, whose text may still be at hand. */
function logItemText(item: Partial<LogItem>): string | undefined {
  if (item.kind !== "event" || typeof item.event !== "object" || item.event === null) return undefined
  return serialize(item.event)
}

/** Of a buffer that was transferred away nothing is left, which is not the same as nothing to do. */
function heldBytes(call: string, bytes: Uint8Array): Uint8Array {
  if (bytes.length > 0) return bytes
  try {
    return new Uint8Array(bytes)
  } catch (error) {
    throw invalidArgument(`${call} needs bytes that are still there: their buffer was transferred or cut`, error)
  }
}

/** JSON text may hold lone surrogates as JavaScript strings do; UTF-8 cannot, but JSON's own escapes can. */
function escapeLoneSurrogates(text: string): string {
  if (text.isWellFormed()) return text
  return text.replace(/\p{Surrogate}/gu, (unit) => `\\u${unit.charCodeAt(0).toString(16)}`)
}

function eventAt({ definition }: Target, flat: readonly unknown[], at: number, text: string): Event {
  return lazyEvent(
    flat[at + 3] as string,
    definition.type,
    definition.version,
    flat[at + 4] as string,
    flat[at + 2] as number,
    flat[at + 5] as number | null,
    flat[at + 6] as string | null,
    text,
  )
}

function upcast({ upcasts, definition }: Target, data: unknown): unknown {
  let input = data
  for (const step of upcasts) {
    input = step(input)
    if (!isThenable(input)) continue
    quiet(input)
    throw new SyncError("ERR_ASYNC_PROJECTOR", `An upcast of ${definition.name} returned a promise`, {
      type: definition.name,
    })
  }
  return input
}

/** What schema and SQL get: JSON, as data is that nobody has upcast. */
function upcastText(input: unknown, subject: Subject): string {
  let text
  try {
    text = JSON.stringify(input) as string | undefined
  } catch (error) {
    throw invalidData(subject, "its upcast returned what JSON cannot carry", { cause: error })
  }
  if (text === undefined) throw invalidData(subject, "its upcast returned what has no JSON text")
  return text
}

function results(flat: readonly unknown[]): ReplayResult[] {
  const list: ReplayResult[] = []
  for (let at = 0; at < flat.length; at += 4) {
    list.push({
      aggregateID: flat[at] as string,
      applied: flat[at + 1] as number,
      duplicate: flat[at + 2] as number,
      seq: flat[at + 3] as number,
    })
  }
  return list
}
