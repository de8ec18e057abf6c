import { SyncError, show } from "../errors"
import type { ReplayAsyncOptions, ReplayResult } from "../replayed"
import type { Store } from "../store"
import { Backoff, type BackoffOptions } from "./backoff"
import { protocolError } from "./failure"

/** What has been told of one aggregate and not yet been applied. */
export interface Told {
  /** A line of JSON, or several of them. */
  readonly text: string | Uint8Array
  /** Where it is known without parsing. */
  readonly aggregateID?: string
  /** The last one in it, where it is known without parsing. */
  readonly seq?: number
}

/** What is known of an aggregate that lacks something. */
export interface Lack {
  /** The last seq that was told of. */
  readonly seq: number
  /** An event of that seq has come, and could not be applied without those before it. */
  readonly came: boolean
}

/** Hears why an aggregate stays behind. */
export type ReportParked = (error: unknown, aggregateID: string) => void

/**
 * Applies what a server sends, batch by batch. An aggregate whose item cannot be applied is parked: that is reported once,
 * what comes of it later is left out, and the others go on. What concerns all aggregates is thrown.
 */
export class Applier {
  /** Events, gaps and removals that were new, so far. */
  applied = 0
  /** Nothing more of these is applied, until their history is asked for again. */
  readonly #parked = new Set<string>()
  /** Of those whose history does not have what is missing: when it is asked for again. */
  readonly #gaps = new Map<string, { readonly backoff: Backoff; readonly due: number }>()
  /** What was reported last of each aggregate that is not well. */
  readonly #reported = new Map<string, string>()

  constructor(
    private readonly store: Pick<Store, "replayAllAsync" | "sequence">,
    private readonly options: ReplayAsyncOptions,
    private readonly backoff: BackoffOptions | undefined,
    private readonly report: ReportParked,
  ) {}

  /** A piece of a history, in which each aggregate's lines follow one another. */
  async history(lines: Uint8Array | string): Promise<void> {
    const input = this.#parked.size === 0 ? lines : this.#afterParked(lines)
    for (const result of await this.#replay(input)) this.#judge(result)
  }

  /** What came as it was recorded. Answers of which aggregates something before it is missing. */
  async live(told: readonly Told[]): Promise<Map<string, Lack>> {
    const lacking = new Map<string, Lack>()
    const wanted = this.#parked.size === 0 ? told : told.filter((one) => !this.#isLeftOut(one, lacking))
    for (const result of await this.#replay(joined(wanted))) {
      const { aggregateID, error } = result
      if (error instanceof SyncError && error.code === "ERR_SEQUENCE_MISMATCH" && !this.#parked.has(aggregateID)) {
        lacking.set(aggregateID, { seq: Number(error.got), came: true })
      } else this.#judge(result)
    }
    return lacking
  }

  isParked(aggregateID: string): boolean {
    return this.#parked.has(aggregateID)
  }

  /** Parks an aggregate for a reason that no replay could find. */
  leave(aggregateID: string, error: SyncError): void {
    if (!this.#parked.has(aggregateID)) this.#park(aggregateID, error)
  }

  /** The histories of these aggregates, or of all, are about to be asked for: what was wrong may be so no more. */
  retry(aggregateIDs?: Iterable<string>): void {
    if (aggregateIDs === undefined) this.#parked.clear()
    else for (const aggregateID of aggregateIDs) this.#parked.delete(aggregateID)
  }

  /** They have been applied: an aggregate of which an event has come that its history does not have is parked. */
  settle(lacking: ReadonlyMap<string, Lack>): void {
    for (const [aggregateID, { seq, came }] of lacking) {
      if (this.#parked.has(aggregateID)) continue
      const held = this.store.sequence(aggregateID)
      if (!came || held >= seq) {
        this.#gaps.delete(aggregateID)
        continue
      }
      const backoff = this.#gaps.get(aggregateID)?.backoff ?? new Backoff(this.backoff)
      this.#gaps.set(aggregateID, { backoff, due: performance.now() + backoff.next() })
      this.#park(aggregateID, unclosed(aggregateID, held, seq))
    }
  }

  async #replay(input: Uint8Array | string): Promise<ReplayResult[]> {
    let rest = input
    /** Its lines, once one of them was refused. */
    let lines: readonly Line[] | undefined
    while (rest.length > 0) {
      try {
        const results = await this.store.replayAllAsync(rest, this.options)
        for (const { applied } of results) this.applied += applied
        return results
      } catch (error) {
        if (!(error instanceof SyncError) || error.index === undefined || !OF_ITEMS.has(error.code)) throw error
        lines = this.#withoutRefused(lines ?? linesOf(rest), error.index, error)
        rest = lines.map(({ text }) => text).join("\n")
      }
    }
    return []
  }

  #judge({ aggregateID, error, index }: ReplayResult): void {
    if (this.#parked.has(aggregateID)) return
    if (index === undefined) this.#reported.delete(aggregateID)
    else this.#park(aggregateID, error)
  }

  #park(aggregateID: string, error: unknown): void {
    this.#parked.add(aggregateID)
    const what = identity(error)
    if (this.#reported.get(aggregateID) === what) return
    this.#reported.set(aggregateID, what)
    this.report(error, aggregateID)
  }

  /**
   * One item that has no shape, or is too large, refuses its whole batch: that is a matter of its aggregate, too. What cannot
   * be read goes with it, since a damaged file may have any number of those.
   */
  #withoutRefused(lines: readonly Line[], index: number, error: SyncError): Line[] {
    const { text = "", aggregateID: refused } = lines[index] ?? {}
    if (refused === undefined) throw protocolError(`The server sent what is no log item: ${show(text)}`, error)
    const ended = new Set<string>()
    return lines.filter(({ aggregateID, unreadable }, at) => {
      if (aggregateID === undefined) return true
      if (at !== index && unreadable === undefined) return !ended.has(aggregateID)
      if (!ended.has(aggregateID)) this.#park(aggregateID, unreadable ?? error)
      ended.add(aggregateID)
      return false
    })
  }

  /** Without what a parked aggregate's part goes on with, at the beginning. */
  #afterParked(input: Uint8Array | string): Uint8Array | string {
    const text = typeof input === "string" ? input : Buffer.from(input.buffer, input.byteOffset, input.byteLength)
    let from = 0
    while (from < text.length) {
      const end = text.indexOf("\n", from) + 1 || text.length
      const line = typeof text === "string" ? text.slice(from, end) : text.toString("utf8", from, end)
      const { aggregateID } = namesIn(line)
      if (aggregateID === undefined || !this.#parked.has(aggregateID)) break
      from = end
    }
    return text.slice(from)
  }

  #isLeftOut(told: Told, lacking: Map<string, Lack>): boolean {
    const names = told.seq === undefined ? namesIn(String(told.text)) : told
    const id = told.aggregateID ?? names.aggregateID
    const { seq = -1 } = names
    if (id === undefined || !this.#parked.has(id)) return false
    const due = this.#gaps.get(id)?.due ?? Infinity
    if (due <= performance.now()) lacking.set(id, { seq, came: true })
    return true
  }
}

function joined(told: readonly Told[]): Uint8Array | string {
  if (told.every(({ text }) => typeof text === "string")) return told.map(({ text }) => text).join("\n")
  const ended = Buffer.from("\n")
  return Buffer.concat(told.flatMap(({ text }) => [typeof text === "string" ? Buffer.from(text) : text, ended]))
}

/** What replay throws for a whole batch because of one item. */
const OF_ITEMS: ReadonlySet<string> = new Set(["ERR_INVALID_EVENT", "ERR_TOO_LARGE"])

/** Whose item a line is; nobody's where it is no JSON. Or what the server says that it cannot read on. */
interface Names {
  readonly aggregateID: string | undefined
  readonly seq: number
  readonly unreadable?: SyncError
}

interface Line extends Names {
  readonly text: string
}

/** As replay counts them. */
function linesOf(input: Uint8Array | string): Line[] {
  const lines = (typeof input === "string" ? input : new TextDecoder().decode(input)).split("\n")
  return lines.filter((line) => line.trim() !== "").map((text) => ({ text, ...namesIn(text) }))
}

function namesIn(line: string): Names {
  let item
  try {
    item = JSON.parse(line) as { event?: unknown } | null
  } catch {
    return { aggregateID: undefined, seq: -1 }
  }
  const { kind, aggregateID, seq, message } = Object(item?.event ?? item) as Record<string, unknown>
  if (kind === "unreadable" && typeof aggregateID === "string") {
    const what = `The server cannot read aggregate "${aggregateID}" any further: ${String(message)}`
    return { aggregateID, seq: -1, unreadable: new SyncError("ERR_CORRUPT", what, { aggregateID }) }
  }
  return {
    aggregateID: typeof aggregateID === "string" ? aggregateID : undefined,
    seq: typeof seq === "number" ? seq : -1,
  }
}

function unclosed(aggregateID: string, held: number, got: number): SyncError {
  const expected = held + 1
  const message = `Sequence mismatch for aggregate "${aggregateID}": the server told of seq ${got}, and its history has no seq ${expected}`
  return new SyncError("ERR_SEQUENCE_MISMATCH", message, { aggregateID, expected, got })
}

/** The same for the same failure of the same event, whatever came after it. */
function identity(error: unknown): string {
  if (!(error instanceof SyncError)) return show(error instanceof Error ? error.message : error)
  const { code, type, seq, expected, epoch } = error
  return JSON.stringify([code, type, seq, expected, epoch])
}
