import { isUtf8 } from "node:buffer"
import { createHash, type Hash } from "node:crypto"
import { checkFunction, checkOptions, checkSignal } from "./argument"
import { CutShort } from "./compression"
import type { WriteContext } from "./context"
import { SyncError, invalidArgument, show, syncErrorOf, type ErrorFields } from "./errors"
import { EXPORT_VERSION } from "./export"
import type { JobOptions } from "./job"
import { REPLAY_ALL_OPTIONS, replaySettings, type Replayer } from "./replay"
import type { ReplayAllOptions, ReplayResult } from "./replayed"
import { Damaged, openSource, type ImportSource, type Source } from "./source"

/**
 * How far an import is.
 * @example
 * const onProgress = ({ events }: ImportProgress) => console.log(events)
 * await open("phone.db", session).import(store.export(), { onProgress }) // prints 2
 */
export interface ImportProgress {
  /** Bytes of the source that have been read: of a file, as they lie there. */
  bytes: number
  /** All of them; only where the source is a file, or bytes. */
  totalBytes?: number
  /** Lines that were imported, all that stand before them included. */
  lines: number
  /** Aggregates that were read to their end. */
  aggregates: number
  /** Events that were read. */
  events: number
}

/**
 * What `import` resolves to.
 * @example const result: ImportResult = await open("b.db", session).import(store.export()) // → { applied: 2, … }
 */
export interface ImportResult {
  /**
   * Whether the source was whole: its closing line was there and agreed with what was read. False: it was cut, and everything
   * before the cut is imported. Undefined: it was plain events, which say nowhere where they end.
   */
  complete: boolean | undefined
  /** Lines that were imported, header and closing line included. */
  lines: number
  /** Aggregates that were read to their end; 0 of plain events, which do not say. */
  aggregates: number
  /** Events that were read. */
  events: number
  /** Ranges of events that exist no more. */
  gaps: number
  /** Removals. */
  removed: number
  /** UTF-8 bytes of the lines, decompressed. */
  bytes: number
  /** How many items were new. */
  applied: number
  /** How many were held already, or lie in a known gap. */
  duplicate: number
  /** With `onError: "park"`, the aggregates that could not go on. */
  parked: ParkedAggregate[]
}

/**
 * An aggregate that an import has left.
 * @example
 * const lines = [JSON.stringify(store.get("ses_1", 1))]
 * const [first]: ParkedAggregate[] = (await open("phone.db", session).import(lines, { onError: "park" })).parked
 * first // → { aggregateID: "ses_1", line: 1, … }
 */
export interface ParkedAggregate {
  /** Its id. */
  aggregateID: string
  /** Why its item on that line was not applied, the very value that was thrown. Its later items were not either. */
  error: unknown
  /** From 1. */
  line: number
}

/**
 * What `import` takes: what `replayAll` takes, and what other long jobs do. What was imported before it is aborted stays.
 * @example
 * const options: ImportOptions = { onError: "park", signal: AbortSignal.timeout(5_000) }
 * const result = await open("phone.db", session).import(store.export(), options) // → { parked: [], … }
 */
export interface ImportOptions extends ReplayAllOptions, JobOptions<ImportProgress> {}

/** Lines are replayed in batches, each a transaction: at most so many, and so many bytes. One longer line is alone. */
const BATCH = { lines: 1_000, bytes: 1024 * 1024 }

/** What a line may have beside an event's data and metadata: ids, each of whose bytes may be written as six. */
const ENVELOPE_BYTES = 128 * 1024

/** Replays what an export has written. */
export async function importFrom(
  context: WriteContext,
  replayer: Replayer,
  source: ImportSource,
  options?: ImportOptions,
): Promise<ImportResult> {
  const { transactions, record, maxEventBytes } = context
  transactions.assertMayWait("import")
  const { signal, onProgress, ...replaying } = checkOptions("import", options, IMPORT_OPTIONS)
  checkSignal(signal)
  checkFunction("onProgress", onProgress)
  replaySettings("import", replaying, REPLAY_ALL_OPTIONS)
  if (!record) throw invalidArgument("import needs a store that records (record: true)")
  const opened = await openSource(source, signal)
  try {
    const replay = (bytes: Uint8Array) => replayer.replayAllAsync(bytes, { ...replaying, signal })
    const importer = new Importer(opened, replay, 2 * maxEventBytes + ENVELOPE_BYTES, onProgress)
    return await importer.import()
  } finally {
    await opened.close()
  }
}

const IMPORT_OPTIONS = [...REPLAY_ALL_OPTIONS, "signal", "onProgress"]

const LINE_FEED = 0x0a
const SPACE = 0x20

/** What the first line says that the others are; `closed` once the closing line has been read. */
type Format = "unknown" | "export" | "plain" | "closed"

/** Cuts the source into lines, and gives them to a replay in batches. */
class Importer {
  readonly #batch = new Batch()
  readonly #parked = new Map<string, ParkedAggregate>()
  readonly #done: Omit<ImportResult, "complete" | "parked"> = {
    lines: 0,
    aggregates: 0,
    events: 0,
    gaps: 0,
    removed: 0,
    bytes: 0,
    applied: 0,
    duplicate: 0,
  }
  #format: Format = "unknown"
  /** The line that was read last, from 1. */
  #line = 0
  /** Of an export: over what a replay was given, and the header. */
  readonly #sum: Hash = createHash("sha256")
  /** The beginning of a line whose end has not been read yet; copied, since whoever gave it may fill its memory again. */
  readonly #begun = new Gathered()

  constructor(
    private readonly source: Source,
    private readonly replay: (bytes: Uint8Array) => Promise<ReplayResult[]>,
    private readonly maxLineBytes: number,
    private readonly onProgress: ((progress: ImportProgress) => void) | undefined,
  ) {}

  async import(): Promise<ImportResult> {
    let cut = false
    try {
      for await (const chunk of this.source.chunks) await this.#chunk(chunk)
    } catch (error) {
      if (error instanceof Damaged) throw this.#invalid(this.#line + 1, `cannot be read: ${error.message}`, error)
      if (!(error instanceof CutShort)) throw error
      cut = true
    }
    const rest = this.#begun.bytes
    if (isJSON(rest)) await this.#take(rest)
    else if (visible(rest).length > 0) cut = this.#cutLine(rest)
    await this.#flush()
    const format = this.#format
    const complete = format === "closed" || (format === "plain" && !cut ? undefined : false)
    return { complete, ...this.#done, parked: [...this.#parked.values()] }
  }

  async #chunk(chunk: Uint8Array): Promise<void> {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    let at = 0
    for (let end; (end = bytes.indexOf(LINE_FEED, at)) >= 0; at = end + 1) {
      const taken = this.#take(this.#whole(bytes.subarray(at, end + 1)))
      // Most are taken at once: to await nothing, a million times, takes its time.
      if (taken !== undefined) await taken
    }
    this.#begun.append(bytes.subarray(at))
    if (this.#begun.length > this.maxLineBytes) throw this.#tooLarge(this.#line + 1)
  }

  /** A line with its beginning. */
  #whole(end: Buffer): Buffer {
    if (this.#begun.length === 0) return end
    this.#begun.append(end)
    const line = this.#begun.bytes
    this.#begun.clear()
    return line
  }

  /** A promise where the batch has to be replayed first. */
  #take(line: Buffer): Promise<void> | undefined {
    if (this.#batch.takes(line)) return this.#read(line)
    return this.#flush().then(() => this.#read(line))
  }

  #read(given: Buffer): undefined {
    const line = this.#line++ === 0 ? withoutMark(given) : given
    if (line.length > this.maxLineBytes) throw this.#tooLarge(this.#line)
    this.#done.bytes += line.length
    const text = visible(line)
    if (text.length === 0 && this.#format !== "export") return
    if (this.#format === "closed") throw this.#invalid(this.#line, "stands after the closing line")
    // Only then each line is one item of the batch, and no item more than one line.
    if (text[0] !== 0x7b || text.at(-1) !== 0x7d)
      throw this.#invalid(this.#line, `is no JSON object${compression(line)}`)
    if (!isUtf8(text)) throw this.#invalid(this.#line, "is not UTF-8")
    if (this.#format === "unknown" && this.#header(line)) return
    this.#item(line)
  }

  /** The first line says what follows. False: it is an item itself. */
  #header(line: Buffer): boolean {
    const header = this.#parsed(line)
    if (!("syncline" in header)) {
      if (!("kind" in header || "aggregateID" in header)) {
        throw this.#invalid(this.#line, "is neither the header of an export nor an event")
      }
      this.#format = "plain"
      return false
    }
    const { syncline, version } = header
    if (syncline !== "export") throw this.#invalid(this.#line, `says that this is no export, but ${show(syncline)}`)
    const isVersion = Number.isInteger(version) && (version as number) >= 1
    if (!isVersion || (version as number) > EXPORT_VERSION) {
      const known = `this program reads ${EXPORT_VERSION}${isVersion ? ": upgrade syncline" : ""}`
      const fields = { expected: EXPORT_VERSION, got: typeof version === "number" ? version : show(version) }
      throw this.#invalid(this.#line, `has version ${show(version)}, and ${known}`, undefined, fields)
    }
    this.#format = "export"
    this.#sum.update(line)
    return true
  }

  #item(line: Buffer): void {
    const kind = /^\{"kind":"(event|gap|removed|synced|end)"/.exec(line.toString("latin1", 0, 20))?.[1]
    if (kind === "end" && this.#format === "export") return this.#close(line)
    this.#batch.add(line, this.#line)
    if (kind === "synced") this.#done.aggregates++
    else if (kind === "gap") this.#done.gaps++
    else if (kind === "removed") this.#done.removed++
    else if (kind === "event" || this.#format === "plain") this.#done.events++
  }

  /** Compares before the last batch is replayed: of an export that fits into one nothing is imported, where it was changed. */
  #close(line: Buffer): void {
    const { aggregates, events, gaps, removed, bytes } = this.#done
    const read = { aggregates, events, gaps, removed, bytes: bytes - line.length }
    const sha256 = this.#sum.update(this.#batch.bytes).digest("hex")
    const said = this.#parsed(line)
    for (const [field, got] of Object.entries({ ...read, sha256 })) {
      const expected = said[field]
      if (expected === got) continue
      const fields =
        typeof expected === typeof got ? { field, expected: expected as string | number, got } : { field, got }
      throw this.#invalid(
        this.#line,
        `says ${field} ${show(expected)}, and before it is ${show(got)}`,
        undefined,
        fields,
      )
    }
    this.#format = "closed"
  }

  #parsed(line: Buffer): Record<string, unknown> {
    try {
      return JSON.parse(line.toString()) as Record<string, unknown>
    } catch (error) {
      throw this.#invalid(this.#line, `is no JSON: ${(error as Error).message}`, error)
    }
  }

  /** What follows on the last line feed, and is no whole line: true where it may be the beginning of one. */
  #cutLine(rest: Buffer): true {
    const line = this.#line + 1
    if (this.#format === "closed") throw this.#invalid(line, "stands after the closing line")
    if (visible(withoutMark(rest))[0] !== 0x7b) throw this.#invalid(line, `is no JSON object${compression(rest)}`)
    return true
  }

  async #flush(): Promise<void> {
    const { bytes, numbers } = this.#batch
    if (numbers.length > 0) {
      if (this.#format === "export") this.#sum.update(bytes)
      const results = await this.replay(bytes).catch((error: unknown) => {
        throw this.#located(error)
      })
      for (const { aggregateID, applied, duplicate, error, index } of results) {
        this.#done.applied += applied
        this.#done.duplicate += duplicate
        if (index === undefined || this.#parked.has(aggregateID)) continue
        this.#parked.set(aggregateID, { aggregateID, error, line: numbers[index] as number })
      }
      this.#batch.clear()
    }
    this.#done.lines = this.#line
    const { lines, aggregates, events } = this.#done
    const { read, totalBytes } = this.source
    this.onProgress?.({ bytes: read, ...(totalBytes !== undefined && { totalBytes }), lines, aggregates, events })
  }

  /** An error of a replay, with the line instead of the place in the batch. */
  #located(thrown: unknown): unknown {
    const error = syncErrorOf(thrown)
    const line = error?.index === undefined ? undefined : this.#batch.numbers[error.index]
    if (error === undefined || line === undefined) return thrown
    const { code, index, ...fields } = error
    if (code === "ERR_INVALID_EVENT") {
      const why = error.message.replace(`Invalid event at index ${index}: `, "")
      return this.#invalid(line, `is no log item: ${why}`, error, fields)
    }
    const message = error.message.replace(` at index ${index}`, "")
    return new SyncError(code, `${message} (line ${line}). ${this.#standing()}`, { ...fields, line, cause: error })
  }

  #invalid(line: number, what: string, cause?: unknown, fields: ErrorFields = {}): SyncError {
    const message = `Invalid export: line ${line} ${what}. ${this.#standing()}`
    return new SyncError("ERR_INVALID_EXPORT", message, { ...fields, line, ...(cause !== undefined && { cause }) })
  }

  #tooLarge(line: number): SyncError {
    const limit = this.maxLineBytes
    const message = `Line ${line} of the import has more than ${limit} bytes. ${this.#standing()}`
    return new SyncError("ERR_TOO_LARGE", message, { line, limit })
  }

  #standing(): string {
    const { lines } = this.#done
    return lines === 0 ? "Nothing was imported" : `What stands before is imported through line ${lines}, and stays`
  }
}

/** Bytes, one after the other. */
class Gathered {
  #room = Buffer.allocUnsafe(BATCH.bytes)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** Valid until more is appended. */
  get bytes(): Buffer {
    return this.#room.subarray(0, this.#length)
  }

  append(bytes: Buffer): void {
    const length = this.#length + bytes.length
    if (length > this.#room.length) {
      const larger = Buffer.allocUnsafe(2 * length)
      this.bytes.copy(larger)
      this.#room = larger
    }
    this.#length += bytes.copy(this.#room, this.#length)
  }

  clear(): void {
    this.#length = 0
    if (this.#room.length > BATCH.bytes) this.#room = Buffer.allocUnsafe(BATCH.bytes)
  }
}

/** Whole lines that are replayed together. */
class Batch {
  /** Of each line, its number. */
  readonly numbers: number[] = []
  readonly #lines = new Gathered()

  get bytes(): Buffer {
    return this.#lines.bytes
  }

  takes(line: Buffer): boolean {
    if (this.numbers.length === 0) return true
    return this.numbers.length < BATCH.lines && this.#lines.length + line.length <= BATCH.bytes
  }

  add(line: Buffer, number: number): void {
    this.#lines.append(line)
    this.numbers.push(number)
  }

  clear(): void {
    this.#lines.clear()
    this.numbers.length = 0
  }
}

/** What is compressed says so in its first bytes: RFC 8878 and RFC 1952. */
function compression(bytes: Buffer): string {
  const magic = bytes.toString("hex", 0, 4)
  const encoding = magic === "28b52ffd" ? "zstd" : magic.startsWith("1f8b") ? "gzip" : undefined
  if (encoding === undefined) return ""
  return `, but compressed with ${encoding}: files are decompressed where their names end in .zst or .gz`
}

/** Without the space around it. */
function visible(line: Buffer): Buffer {
  let [start, end] = [0, line.length]
  while (end > 0 && (line[end - 1] as number) <= SPACE) end--
  while (start < end && (line[start] as number) <= SPACE) start++
  return line.subarray(start, end)
}

/** Without the byte order mark that some editors put first. */
function withoutMark(line: Buffer): Buffer {
  return line.toString("latin1", 0, 3) === "\u00ef\u00bb\u00bf" ? line.subarray(3) : line
}

function isJSON(text: Buffer): boolean {
  try {
    JSON.parse(text.toString())
    return true
  } catch {
    return false
  }
}
