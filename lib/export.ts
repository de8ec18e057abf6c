import { createHash, randomBytes } from "node:crypto"
import { link, lstat, open, rename, unlink } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { setImmediate } from "node:timers/promises"
import { checkAggregateIDs, checkFunction, checkName, checkOptions, checkSequences } from "./argument"
import { checkSignal, checkUncut, type Sequences } from "./argument"
import { compressed, encodingOf } from "./compression"
import { SyncError, invalidArgument, show } from "./errors"
import type { JobOptions } from "./job"
import { lines, type Lines } from "./lines"
import type { FollowContext } from "./log"
import { sequences } from "./read"

/**
 * What an export holds; while it is made, what it holds so far.
 * @example
 * const totals: ExportTotals = await store.export().toFile("all.jsonl") // → { aggregates: 1, events: 2, gaps: 0, … }
 */
export interface ExportTotals {
  /** Aggregates with something to tell. */
  aggregates: number
  /** Events; the deletion events of removals are not among them. */
  events: number
  /** Ranges of events that exist no more. */
  gaps: number
  /** Removals. */
  removed: number
  /** UTF-8 bytes of the whole text, before it is compressed. */
  bytes: number
}

/**
 * What `export` takes. An export that is aborted rejects with `ERR_ABORTED`.
 * @example
 * const options: ExportOptions = { aggregates: ["ses_1"], after: { ses_1: 0 } }
 * const totals = await store.export(options).toFile("news.jsonl.gz") // → { events: 1, … }
 */
export interface ExportOptions extends JobOptions<ExportTotals> {
  /** These aggregates alone, in this order. Default: all, in the order of their creation. */
  aggregates?: Iterable<string> | undefined
  /**
   * The last seqs that the reader holds already, as `sequences` tells them: only what came after is exported, and nothing of
   * an aggregate without news. One that is not listed is exported whole. Default: none is held.
   */
  after?: Sequences | undefined
}

/** The format's own number: a reader refuses a higher one. */
export const EXPORT_VERSION = 1

/** A chunk has this many bytes at most, as streams have, unless it is one longer line. Larger ones cost V8 more memory than time. */
const CHUNK_BYTES = 64 * 1024

/** Small aggregates are read together until they fill a chunk, or for so many milliseconds. */
const STRETCH = 4

const LINE_FEED = 0x0a

/** What an export reads, checked. */
interface Wanted {
  readonly only: ReadonlySet<string> | undefined
  readonly after: ReadonlyMap<string, number>
  readonly signal: AbortSignal
  readonly onProgress: ((totals: ExportTotals) => void) | undefined
}

/** Checks what is asked for; reading begins when the export is iterated, or written. */
export function exportOf(context: FollowContext, options?: ExportOptions): Export {
  context.transactions.assertUsable("export")
  const { aggregates, after, signal, onProgress } = checkOptions("export", options, EXPORT_OPTIONS)
  return new Export(context, {
    only: aggregates === undefined ? undefined : checkKnown(context, aggregates),
    after: after === undefined ? new Map() : checkSequences("export: after", after),
    signal: checkSignal(signal) ?? new AbortController().signal,
    onProgress: checkFunction("onProgress", onProgress),
  })
}

/**
 * The log as text: JSON lines, in chunks of whole lines, read as they are asked for. Each iteration, and each `toFile`, reads
 * anew. It rejects with `ERR_ABORTED`, `ERR_CLOSED`, `ERR_CORRUPT`, `ERR_SQLITE`, and with what `onProgress` throws.
 * @example
 * const sessions: Export = store.export({ aggregates: ["ses_1"] })
 * const { events } = await sessions.toFile("ses_1.jsonl.gz")
 * events // → 2
 */
export class Export implements AsyncIterable<string> {
  /** @internal */
  constructor(
    private readonly context: FollowContext,
    private readonly wanted: Wanted,
  ) {}

  /**
   * The text in chunks of whole lines, read from the log as they are asked for.
   * @example
   * let lines = 0
   * for await (const chunk of store.export()) lines += chunk.split("\n").length - 1
   * lines // → 5
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    const totals = nothing()
    for await (const chunk of this.#text(totals)) {
      this.wanted.onProgress?.({ ...totals })
      yield chunk
    }
  }

  /**
   * Writes it into a file that is not there yet, for its owner alone to read; compressed where the name ends in `.zst` or
   * `.gz`. The file has its name only once it is complete and on the disk: until then, and after a kill, it is the path with
   * `-export-` and 26 letters and digits. Something of that name: `ERR_INVALID_ARGUMENT`; a folder or disk that refuses:
   * `ERR_SQLITE`, `ERR_DISK_FULL`. Nothing is left of one that fails.
   * @example
   * const totals = await store.export().toFile("sessions.jsonl.zst") // → { aggregates: 1, events: 2, … }
   * await store.export().toFile("sessions.jsonl.zst") // throws ERR_INVALID_ARGUMENT
   */
  async toFile(path: string): Promise<ExportTotals> {
    const target = resolve(checkName("export: path", checkUncut("export: path", path)))
    const totals = nothing()
    const encoding = encodingOf(target)
    const text = this.#text(totals)
    const bytes = encoding === undefined ? text : compressed(text, encoding)
    await writeNew(target, bytes, () => {
      this.wanted.onProgress?.({ ...totals })
      this.#assertWanted()
    })
    return totals
  }

  async *#text(totals: ExportTotals): AsyncGenerator<string, void, undefined> {
    const { only, after } = this.wanted
    const sum = createHash("sha256")
    const parts = lines(this.context, { after: (aggregateID) => after.get(aggregateID), only })
    let begun: Uint8Array[] = [lineOf({ syncline: "export", version: EXPORT_VERSION, created: Date.now() })]
    let aggregateID: string | undefined
    for (let done = false; !done; begun = []) {
      await this.#turn()
      const started = performance.now()
      for (let size = 0; !done && size < CHUNK_BYTES && performance.now() - started < STRETCH;) {
        const { value: part } = parts.next()
        done = part === undefined
        if (part === undefined) continue
        add(totals, part, part.aggregateID !== aggregateID)
        aggregateID = part.aggregateID
        begun.push(part.bytes)
        size += part.bytes.length
      }
      const text = Buffer.concat(begun)
      sum.update(text)
      totals.bytes += text.length
      yield* chunksOf(text)
    }
    const end = lineOf({ kind: "end", ...totals, sha256: sum.digest("hex") })
    totals.bytes += end.length
    yield end.toString()
  }

  /** Leaves the event loop to others, and waits until no transaction of the store's own is open: what is in it may not last. */
  async #turn(): Promise<void> {
    await setImmediate()
    await this.context.watch.settled(this.wanted.signal)
    this.#assertWanted()
  }

  #assertWanted(): void {
    const { signal } = this.wanted
    if (signal.aborted) throw new SyncError("ERR_ABORTED", "The export was aborted", { cause: signal.reason })
  }
}

const EXPORT_OPTIONS = ["aggregates", "after", "signal", "onProgress"]

/** A name that is wrong would be missed only when the file is needed. */
function checkKnown(context: FollowContext, aggregates: Iterable<string>): Set<string> {
  const wanted = checkAggregateIDs("export: aggregates", aggregates)
  const known = sequences(context, wanted)
  for (const aggregateID of wanted) {
    if (known.has(aggregateID)) continue
    throw new SyncError("ERR_INVALID_ARGUMENT", `export: the log has no aggregate ${show(aggregateID)}`, {
      aggregateID,
    })
  }
  return wanted
}

function nothing(): ExportTotals {
  return { aggregates: 0, events: 0, gaps: 0, removed: 0, bytes: 0 }
}

function add(totals: ExportTotals, { events, gaps, removed }: Lines, isFirst: boolean): void {
  totals.aggregates += isFirst ? 1 : 0
  totals.events += events
  totals.gaps += gaps
  totals.removed += removed
}

function lineOf(value: object): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`)
}

function* chunksOf(text: Buffer): Generator<string, void> {
  for (let [at, end] = [0, 0]; at < text.length; at = end) {
    const last = text.lastIndexOf(LINE_FEED, at + CHUNK_BYTES - 1)
    end = 1 + (last < at ? text.indexOf(LINE_FEED, at) : last)
    yield text.toString("utf8", at, end)
  }
}

/** A file with all of the chunks, on the disk under its name, or none. */
async function writeNew(path: string, chunks: AsyncIterable<Uint8Array | string>, written: () => void): Promise<void> {
  await checkFree(path)
  const temporary = `${path}-export-${randomBytes(13).toString("hex")}`
  const file = await refusal(path, open(temporary, "wx", 0o600), "SQLITE_CANTOPEN")
  try {
    try {
      let bytes = 0
      for await (const chunk of chunks) {
        await refusal(path, file.writeFile(chunk))
        bytes += Buffer.byteLength(chunk)
        written()
      }
      await refusal(path, file.sync())
      checkSize(path, (await refusal(path, file.stat())).size, bytes)
    } finally {
      await file.close()
    }
    await name(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => {})
    throw error
  }
}

/** That all was taken: Node 20.3.0 writes by an io_uring that answers for a refused write as for the one before it. */
function checkSize(path: string, size: number, bytes: number): void {
  if (size === bytes) return
  const text = `The export "${path}" cannot be written: the system took ${size} of its ${bytes} bytes, and refused none`
  throw new SyncError("ERR_DISK_FULL", text, { sqliteCode: "SQLITE_FULL" })
}

/** Gives a file its name, where nothing else has it. */
async function name(temporary: string, path: string): Promise<void> {
  const linked = await link(temporary, path).then(
    () => true,
    () => false,
  )
  if (linked) {
    await unlink(temporary).catch(() => {})
  } else {
    // Something has the name, or the file system has no links; there a file that appears in this moment would be replaced.
    await checkFree(path)
    await refusal(path, rename(temporary, path))
  }
  try {
    const folder = await open(dirname(path), "r")
    await folder.sync().finally(() => folder.close())
  } catch {
    // Windows opens no folders, and some file systems sync none.
  }
}

async function checkFree(path: string): Promise<void> {
  const taken = await lstat(path).then(
    () => true,
    () => false,
  )
  if (taken) throw invalidArgument(`"${path}" exists already: an export replaces no file`)
}

/** What the file system refuses, with the codes that a backup has for it. */
async function refusal<T>(path: string, attempt: Promise<T>, sqliteCode = "SQLITE_IOERR_WRITE"): Promise<T> {
  try {
    return await attempt
  } catch (cause) {
    const { code = "", message } = cause as NodeJS.ErrnoException
    const isFull = ["ENOSPC", "EDQUOT", "EFBIG"].includes(code)
    const fields = { sqliteCode: isFull ? "SQLITE_FULL" : sqliteCode, cause }
    const text = `The export "${path}" cannot be written: ${message}`
    throw new SyncError(isFull ? "ERR_DISK_FULL" : "ERR_SQLITE", text, fields)
  }
}
