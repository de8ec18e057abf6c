import { types } from "node:util"
import { assertNesting } from "./accept"
import { checkAggregateID, checkBoolean, checkChoice, checkInteger, checkOptions } from "./argument"
import { checkOwner, checkSignal } from "./argument"
import type { WriteContext } from "./context"
import { SyncError, invalidArgument, show } from "./errors"
import type { LogItem } from "./log"
import { APPLIED, PROJECTOR, native, type Batch } from "./native"
import { Parking } from "./park"
import { apart, lazyEvent, serialize, typeAndVersion, type Event, type SerializedEvent } from "./payload"
import { applyProjector, holdSkipped, type Target } from "./project"
import { isThenable, quiet } from "./promise"
import type { ReplayAsyncOptions, ReplayInput, ReplayOptions, ReplayResult, ReprojectResult } from "./replayed"
import { invalidData, validated, type Subject } from "./schema"

interface Settings {
  readonly publish: boolean
  readonly owner: string | null
  /** -1: not asked. */
  readonly epoch: number
  readonly record: boolean
  readonly park: boolean
}

/** An item that JavaScript has checked before it is applied. */
interface Checked {
  /** Undefined: its type is unknown, and it is only stored. */
  readonly target: Target | undefined
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
    const { batch, settings } = this.#begin("replayAll", input, options, REPLAY_ALL_OPTIONS)
    return this.context.transactions.write(() => this.#apply(batch, settings))
  }

  async replayAllAsync(input: ReplayInput, options?: ReplayAsyncOptions): Promise<ReplayResult[]> {
    const { batch, settings } = this.#begin("replayAllAsync", input, options, REPLAY_ASYNC_OPTIONS)
    this.context.transactions.assertMayWait("replayAllAsync")
    return this.context.queue.enqueue(() => this.#apply(batch, settings), checkSignal(options?.signal))
  }

  /** Goes on, a page in a transaction, so that others wait for none that is long, until a page has nothing to project. */
  reproject(aggregateID: string): ReprojectResult {
    const { handle, transactions, record } = this.context
    transactions.assertUsable("reproject")
    checkAggregateID(aggregateID)
    if (!record) throw invalidArgument("reproject needs a store that records (record: true)")
    for (let applied = 0; ;) {
      const page = () => this.#apply(native.reproject(handle, aggregateID), STORED)[0] as ReplayResult
      const { applied: more, seq, projected } = transactions.write(page)
      applied += more
      if (more === 0 || projected === undefined) return { aggregateID, applied, seq, projected: projected ?? seq }
    }
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
    const { record, park } = settings
    return { batch: native.replayParse(this.context.handle, collected, record, park), settings }
  }

  #apply(batch: Batch, settings: Settings): ReplayResult[] {
    const { handle, transactions } = this.context
    const parking = settings.park ? new Parking(transactions, batch) : undefined
    const length = native.replayLength(batch)
    for (let from = 0; from < length;) {
      const page = transactions.checking(() => this.#check(batch, from, settings, parking))
      if (parking === undefined) this.#applyItems(batch, from, page.end, page, settings)
      else parking.apply(from, page.end, (at, end) => this.#applyItems(batch, at, end, page, settings, parking))
      if (page.failure !== undefined) throw page.failure.error
      from = page.end
    }
    return results(native.replayFinish(handle, batch), parking)
  }

  /** Parses, upcasts and validates the next items, as many as Rust hands out at once. */
  #check(batch: Batch, from: number, settings: Settings, parking: Parking | undefined): Page {
    const items = new Map<number, Checked>()
    let page
    try {
      page = native.replayPage(this.context.handle, batch, from)
    } catch (error) {
      if (parking === undefined) throw error
      parking.park(from, error)
      return { end: from + 1, items, failure: undefined }
    }
    const [end, ...flat] = page
    for (let at = 0; at < flat.length; at += ITEM_WIDTH) {
      const flagged = flat[at] as number
      const index = flagged < 0 ? -1 - flagged : flagged
      if (parking?.isParked(flat[at + 4] as string)) continue
      try {
        items.set(index, this.#checkItem(batch, index, flagged < 0, flat, at, settings))
      } catch (error) {
        if (parking === undefined) return { end: index, items, failure: { error } }
        parking.park(index, error)
      }
    }
    return { end, items, failure: undefined }
  }

  #checkItem(
    batch: Batch,
    index: number,
    rewrite: boolean,
    flat: readonly unknown[],
    at: number,
    settings: Settings,
  ): Checked {
    const target = this.#target(flat, at)
    const given = flat[at + 7] as string
    const parsed: unknown = JSON.parse(given)
    const text = rewrite ? JSON.stringify(parsed) : given
    const event = eventAt(target, flat, at, text)
    if (rewrite) {
      const metadata = event.metadata === undefined ? null : JSON.stringify(event.metadata)
      native.replaySetData(this.context.handle, batch, index, text, metadata)
    }
    if (target === undefined) return { target, event, text, output: undefined }
    const input = upcast(target, parsed)
    const { aggregateID, seq } = event
    const subject = { type: target.definition.name, aggregateID, seq, ...(settings !== STORED && { index }) }
    const projected = target.upcasts.length > 0 ? upcastText(input, subject) : text
    if (target.upcasts.length > 0 && target.kind === PROJECTOR.sql) native.replaySetProjected(batch, index, projected)
    const { validate } = this.context
    const output = validate === "never" ? input : validated(target.effective.schema, input, projected, subject)
    return { target, event, text, output }
  }

  #applyItems(batch: Batch, from: number, to: number, page: Page, settings: Settings, parking?: Parking): void {
    const { handle } = this.context
    const { publish, owner, epoch } = settings
    for (let at = from; at < to;) {
      const [stop, pending, ...applied] = native.replayApply(handle, batch, at, to, owner, epoch, publish)
      if (publish) this.#hold(batch, pending, applied, page)
      if (this.context.projections.skipInSql) this.#holdSkipped(batch, page)
      for (let k = 0; k < applied.length; k += 3) {
        if (((applied[k + 2] as number) & APPLIED.project) === 0) continue
        const index = applied[k] as number
        if (parking !== undefined) parking.projecting = index
        this.#project(page.items.get(index))
      }
      if (parking !== undefined) parking.projecting = undefined
      at = stop
    }
  }

  #project(item: Checked | undefined): void {
    const { tx, transactions } = this.context
    if (item?.target !== undefined) applyProjector(transactions, item.target, tx, item.output, item.event)
  }

  /** Puts applied events among those that wait for the commit; the unchecked ones are fetched for it. */
  #hold(batch: Batch, pending: number, applied: readonly number[], page: Page): void {
    const told: { index: number; position: number }[] = []
    for (let k = 0; k < applied.length; k += 3) {
      const [index, position, steps] = applied.slice(k, k + 3) as [number, number, number]
      if ((steps & APPLIED.publish) !== 0) told.push({ index, position })
    }
    const unseen = told.map(({ index }) => index).filter((index) => !page.items.has(index))
    const fetched = unseen.length > 0 ? native.replayEvents(this.context.handle, batch, unseen) : []
    let next = 0
    told.forEach(({ index, position }, order) => {
      const { event, text } = page.items.get(index) ?? this.#unchecked(fetched, ITEM_WIDTH * next++)
      this.context.transactions.hold(pending + order, {
        event: apart(event),
        text,
        position,
        recorded: true,
        publish: true,
      })
    })
  }

  #holdSkipped(batch: Batch, page: Page): void {
    const { handle, transactions } = this.context
    const fetched = (index: number) => this.#unchecked(native.replayEvents(handle, batch, [index]), 0)
    holdSkipped(transactions, (index) => (page.items.get(index) ?? fetched(index)).event)
  }

  #unchecked(flat: readonly unknown[], at: number): Pick<Checked, "event" | "text"> {
    const text = flat[at + 7] as string
    return { event: eventAt(this.#target(flat, at), flat, at, text), text }
  }

  #target(flat: readonly unknown[], at: number): Target | undefined {
    const index = flat[at + 1]
    return typeof index === "number" ? (this.context.projections.targets[index] as Target) : undefined
  }
}

/** Values that stand for one item in what Rust hands out. */
const ITEM_WIDTH = 8

const REPLAY_OPTIONS = ["publish", "owner", "epoch", "unknown"]
/** The options of `replayAll`. */
export const REPLAY_ALL_OPTIONS: readonly string[] = [...REPLAY_OPTIONS, "onError"]
const REPLAY_ASYNC_OPTIONS = [...REPLAY_ALL_OPTIONS, "signal"]

/** For what is stored already. */
const STORED: Settings = { publish: false, owner: null, epoch: -1, record: false, park: false }

/** Checks them, whichever call takes them. */
export function replaySettings(
  call: string,
  options: ReplayAsyncOptions | undefined,
  names: readonly string[],
): Settings {
  const { publish, owner, epoch, unknown, onError } = checkOptions(call, options, names)
  return {
    publish: checkBoolean("publish", publish, false),
    owner: checkOwner("owner", owner),
    epoch: epoch === undefined ? -1 : checkInteger("epoch", epoch, 0),
    record: checkChoice("unknown", unknown, ["error", "record"], "error") === "record",
    park: checkChoice("onError", onError, ["throw", "park"], "throw") === "park",
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

function eventAt(target: Target | undefined, flat: readonly unknown[], at: number, text: string): Event {
  const { type, version } = target?.definition ?? typeAndVersion(flat[at + 1] as string)
  return lazyEvent(
    flat[at + 3] as string,
    type,
    version,
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
  // No runtime's stack decides: some write JSON of any depth.
  assertNesting(text, subject, "what its upcast returned")
  return text
}

function results(flat: readonly unknown[], parking: Parking | undefined): ReplayResult[] {
  const list: ReplayResult[] = []
  for (let at = 0; at < flat.length; at += 5) {
    const result: ReplayResult = {
      aggregateID: flat[at] as string,
      applied: flat[at + 1] as number,
      duplicate: flat[at + 2] as number,
      seq: flat[at + 3] as number,
    }
    if (flat[at + 4] !== null) result.projected = flat[at + 4] as number
    list.push(Object.assign(result, parking?.parked.get(result.aggregateID)))
  }
  return list
}
