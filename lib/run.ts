import { accept, type Accepted } from "./accept"
import { checkBoolean, checkInteger, checkOptions, checkSignal } from "./argument"
import type { AsyncOptions, WriteContext } from "./context"
import type { AnyDefinition } from "./define"
import { SyncError, invalidArgument, show } from "./errors"
import { PROJECTOR, RUN, native, type Recorded, type Repeated } from "./native"
import { apart, inspectable, lazyEvent, type Event, type Metadata } from "./payload"
import { applyProjector, holdSkipped, type Target } from "./project"
import { invalidData } from "./schema"
import { UNRECORDED, type PendingEvent } from "./transaction"

/**
 * What `run` and `runAll` take.
 * @example
 * const options: RunOptions = { expectedSeq: 1, metadata: { by: "ada" } }
 * store.run(Renamed, { sessionID: "ses_1", title: "Ship it" }, options).metadata // → { by: "ada" }
 */
export interface RunOptions {
  /** Whether listeners hear of it. Default true. */
  publish?: boolean | undefined
  /** The last seq of the aggregate that the caller saw, -1 for none. Another one is there: `ERR_CONFLICT`. */
  expectedSeq?: number | undefined
  /** Milliseconds since 1970; default: now. */
  created?: number | undefined
  /** A JSON object that travels with the event. Default: none. */
  metadata?: Metadata | undefined
}

/**
 * What `runAsync` and `runAllAsync` take.
 * @example
 * const options: RunAsyncOptions = { expectedSeq: 1, signal: AbortSignal.timeout(5_000) }
 * const event = await store.runAsync(Renamed, { sessionID: "ses_1", title: "Ship it" }, options) // → { seq: 2, … }
 */
export type RunAsyncOptions = RunOptions & AsyncOptions

/** An event that has passed every check that needs no lock. */
export interface Prepared extends Accepted {
  readonly index: number
  readonly target: Target
}

/** What is said of an event beside its data. */
export interface Envelope {
  readonly publish: boolean
  /** -2: not asked. */
  readonly expectedSeq: number
  readonly created: number | null
  readonly metadata: string | null
}

const ANY_SEQ = -2

/** The writer's act. Checks come first; what is left to do under the lock is the same for all callers. */
export class Runner {
  constructor(private readonly context: WriteContext) {}

  run(definition: AnyDefinition, data: unknown, options?: RunOptions): Event {
    this.context.transactions.assertUsable("run")
    const prepared = this.prepare(definition, data)
    return this.#recordAlone(prepared, this.#envelope("run", options, RUN_OPTIONS, prepared))
  }

  runAll(events: readonly (readonly [AnyDefinition, unknown])[], options?: RunOptions): Event[] {
    this.context.transactions.assertUsable("runAll")
    const { prepared, envelope } = this.#prepareAll("runAll", events, options, RUN_OPTIONS)
    if (prepared.length === 0) return []
    return this.context.transactions.write(() => this.#recordAll(prepared, envelope))
  }

  async runAsync(definition: AnyDefinition, data: unknown, options?: RunAsyncOptions): Promise<Event> {
    this.context.transactions.assertMayWait("runAsync")
    const prepared = this.prepare(definition, data)
    const envelope = this.#envelope("runAsync", options, RUN_ASYNC_OPTIONS, prepared)
    return this.context.queue.enqueue(() => this.#record(prepared, envelope), checkSignal(options?.signal))
  }

  async runAllAsync(
    events: readonly (readonly [AnyDefinition, unknown])[],
    options?: RunAsyncOptions,
  ): Promise<Event[]> {
    this.context.transactions.assertMayWait("runAllAsync")
    const { prepared, envelope } = this.#prepareAll("runAllAsync", events, options, RUN_ASYNC_OPTIONS)
    const signal = checkSignal(options?.signal)
    if (prepared.length === 0) return []
    return this.context.queue.enqueue(() => this.#recordAll(prepared, envelope), signal)
  }

  /** Every check of an event that needs no lock. */
  prepare(definition: AnyDefinition, data: unknown): Prepared {
    const index = this.context.projections.runnable(definition)
    const target = this.context.projections.targets[index] as Target
    const accepted = accept(this.context, definition, data)
    if (target.kind === PROJECTOR.missing) {
      throw new SyncError("ERR_NO_PROJECTOR", `No projector for ${definition.name}`, { type: definition.name })
    }
    return { index, target, ...accepted }
  }

  /** What follows the recording: the event, its place among what will be published, its JavaScript projector. */
  finish(prepared: Prepared, envelope: Envelope, recorded: Recorded): Event {
    const { transactions, tx } = this.context
    const { target, output, text } = prepared
    const event = asEvent(prepared, envelope, recorded)
    transactions.hold(recorded[4], pendingEvent(event, text, envelope, recorded))
    applyProjector(transactions, target, tx, output, event)
    if (target.skips && target.kind === PROJECTOR.sql) holdSkipped(transactions, () => event)
    return event
  }

  /** Refuses what means nothing where nothing is stored. */
  assertRecording(what: string): void {
    if (!this.context.record) throw invalidArgument(`${what} needs a store that records (record: true)`)
  }

  #prepareAll(
    call: string,
    events: readonly (readonly [AnyDefinition, unknown])[],
    options: RunOptions | undefined,
    names: readonly string[],
  ): { prepared: Prepared[]; envelope: Envelope } {
    // A list of its own: holes are no pairs, and the caller's data may change the list while it is made into text.
    const pairs: readonly (readonly [AnyDefinition, unknown])[] = Array.isArray(events) ? [...events] : []
    if (!Array.isArray(events) || !pairs.every((event) => Array.isArray(event) && event.length === 2)) {
      throw invalidArgument(`${call} needs an array of [definition, data] pairs`)
    }
    const prepared = pairs.map(([definition, data]) => this.prepare(definition, data))
    const envelope = this.#envelope(call, options, names, prepared[0])
    if (envelope.expectedSeq !== ANY_SEQ && new Set(prepared.map((event) => event.aggregateID)).size > 1) {
      throw invalidArgument(`${call}: expectedSeq is for events of one aggregate`)
    }
    return { prepared, envelope }
  }

  #envelope(
    call: string,
    options: RunAsyncOptions | undefined,
    names: readonly string[],
    first: Prepared | undefined,
  ): Envelope {
    if (options === undefined) return UNASKED
    const { publish, expectedSeq, created, metadata } = checkOptions(call, options, names)
    if (expectedSeq !== undefined) this.assertRecording("expectedSeq")
    return {
      publish: checkBoolean("publish", publish, true),
      expectedSeq: expectedSeq === undefined ? ANY_SEQ : checkInteger("expectedSeq", expectedSeq, -1),
      created: created === undefined ? null : checkInteger("created", created, Number.MIN_SAFE_INTEGER),
      metadata: metadata === undefined ? null : stringifiedMetadata(metadata, first),
    }
  }

  /** One event in a frame of its own, in as few native calls as its projector allows. */
  #recordAlone(prepared: Prepared, envelope: Envelope): Event {
    const { transactions } = this.context
    transactions.beforeFrame()
    const { kind, skips } = prepared.target
    if (kind !== PROJECTOR.function && !skips) {
      const recorded = this.#native(prepared, envelope, RUN.begin | RUN.project | RUN.commit)
      if (isRepeated(recorded)) return asUnchanged(prepared, recorded)
      const event = asEvent(prepared, envelope, recorded)
      transactions.recorded(recorded[4], pendingEvent(event, prepared.text, envelope, recorded))
      return event
    }
    const recorded = this.#native(prepared, envelope, RUN.begin | stepOf(prepared.target))
    if (isRepeated(recorded)) return asUnchanged(prepared, recorded)
    transactions.entered()
    return transactions.inside(() => this.finish(prepared, envelope, recorded))
  }

  /** One event in the frame that is open. */
  #record(prepared: Prepared, envelope: Envelope): Event {
    const recorded = this.#native(prepared, envelope, stepOf(prepared.target))
    return isRepeated(recorded) ? asUnchanged(prepared, recorded) : this.finish(prepared, envelope, recorded)
  }

  #recordAll(prepared: readonly Prepared[], envelope: Envelope): Event[] {
    // Only the first event can expect the seq that the caller saw.
    const later = { ...envelope, expectedSeq: ANY_SEQ }
    return prepared.map((event, index) => this.#record(event, index === 0 ? envelope : later))
  }

  #native({ index, aggregateID, text }: Prepared, envelope: Envelope, flags: number): Recorded | Repeated {
    const { handle, record, owner } = this.context
    const { expectedSeq, created, metadata } = envelope
    const all = record ? flags : flags | RUN.unrecorded
    return native.run(handle, all, index, aggregateID, text, expectedSeq, created, metadata, owner)
  }
}

/** What an event has where nothing else was asked for. */
export const UNASKED: Envelope = { publish: true, expectedSeq: ANY_SEQ, created: null, metadata: null }
const RUN_OPTIONS = ["publish", "expectedSeq", "created", "metadata"]
const RUN_ASYNC_OPTIONS = [...RUN_OPTIONS, "signal"]

function stepOf({ kind }: Target): number {
  return kind === PROJECTOR.function ? RUN.guard : RUN.project
}

function asEvent(prepared: Prepared, envelope: Envelope, [seq, id, created]: Recorded): Event {
  const { type, version } = prepared.target.definition
  return inspectable(lazyEvent(id, type, version, prepared.aggregateID, seq, created, envelope.metadata, prepared.text))
}

function isRepeated(recorded: Recorded | Repeated): recorded is Repeated {
  return recorded[4] < 0
}

/** The event that is stored already. It has been projected, or skipped, and published when it was recorded, or will be with its frame. */
function asUnchanged(prepared: Prepared, [seq, id, created, , , data, metadata]: Repeated): Event {
  const { type, version } = prepared.target.definition
  const event = lazyEvent(id, type, version, prepared.aggregateID, seq, created, metadata, data)
  event.unchanged = true
  return inspectable(event)
}

function pendingEvent(event: Event, text: string, { publish }: Envelope, [seq, , , position]: Recorded): PendingEvent {
  return { event: apart(event), text, position: seq < 0 ? UNRECORDED : position, recorded: seq >= 0, publish }
}

function stringifiedMetadata(metadata: unknown, first: Prepared | undefined): string {
  if (typeof metadata !== "object" || metadata === null) {
    throw invalidArgument(`metadata must be a JSON object, not ${show(metadata)}`)
  }
  let text
  try {
    text = JSON.stringify(metadata) as string | undefined
  } catch (error) {
    if (isStackOverflow(error) && first !== undefined) throw tooDeep(first, error)
    throw invalidArgument("metadata must be a JSON object: it has no JSON text", error)
  }
  if (!text?.startsWith("{")) throw invalidArgument(`metadata must be a JSON object, not ${show(metadata)}`)
  return text
}

/** Rust counts the levels of what could be written; where the runtime's stack ends before, it is the same fault. */
function tooDeep({ target, aggregateID }: Prepared, cause: unknown): SyncError {
  const subject = { type: target.definition.name, aggregateID }
  return invalidData(subject, "metadata nests too deep to be written as JSON", { cause })
}

/** V8's and JavaScriptCore's; other RangeErrors are of texts that no string can hold, or the caller's own. */
function isStackOverflow(error: unknown): boolean {
  return error instanceof RangeError && error.message.startsWith("Maximum call stack size exceeded")
}
