import { open, type FileHandle } from "node:fs/promises"
import { types } from "node:util"
import { checkName, checkUncut } from "./argument"
import { decompressed, encodingOf, type Chunks, type Encoding } from "./compression"
import { SyncError, invalidArgument, show, syncErrorOf } from "./errors"

/**
 * Where an import comes from: the path of a file, bytes, or whatever gives text or bytes in chunks, cut anywhere.
 * @example
 * const source: ImportSource = store.read("ses_1").map((event) => `${JSON.stringify(event)}\n`)
 * const result = await open("phone.db", session).import(source) // → { complete: undefined, applied: 2, … }
 */
export type ImportSource = string | Uint8Array | AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>

/** Bytes that are read at once from a file. */
const READ_BYTES = 256 * 1024

/** An opened source. */
export interface Source {
  /** Its bytes, decompressed. What is cut in compressed form throws `CutShort` at its end. */
  readonly chunks: AsyncIterable<Uint8Array>
  /** How many of its bytes have been read, as they lie there. */
  readonly read: number
  /** How many there are; undefined where that does not show. */
  readonly totalBytes: number | undefined
  close(): Promise<void>
}

/** Files are decompressed where their names end in `.zst` or `.gz`. */
export async function openSource(source: ImportSource, signal: AbortSignal | undefined): Promise<Source> {
  if (typeof source === "string") return fileSource(source, signal)
  const whole = types.isUint8Array(source)
  if (!whole && !isIterable(source)) {
    throw invalidArgument(`import needs a path, bytes, or an iterable of text or bytes, not ${show(source)}`)
  }
  const chunks = whole ? [source] : source
  return new Reading(chunks, { signal, totalBytes: whole ? source.length : undefined, close: async () => {} })
}

async function fileSource(given: string, signal: AbortSignal | undefined): Promise<Source> {
  const path = checkName("import: path", checkUncut("import: path", given))
  let file: FileHandle | undefined
  try {
    file = await open(path, "r")
    const status = await file.stat()
    if (status.isDirectory()) throw new Error("it is a folder")
    const reading = new Reading(chunksOf(file, path), {
      signal,
      totalBytes: status.isFile() ? status.size : undefined,
      close: () => (file as FileHandle).close(),
    })
    const encoding = encodingOf(path)
    if (encoding !== undefined) reading.chunks = unpacked(reading.chunks, encoding)
    return reading
  } catch (cause) {
    await file?.close()
    throw invalidArgument(`import cannot read "${path}": ${(cause as Error).message}`, cause)
  }
}

/** What was compressed cannot be read any further, though it is not at its end. */
export class Damaged extends Error {}

async function* unpacked(chunks: Chunks, encoding: Encoding): AsyncGenerator<Uint8Array, void> {
  try {
    yield* decompressed(chunks, encoding)
  } catch (error) {
    if (syncErrorOf(error)?.code !== "ERR_INVALID_ARGUMENT") throw error
    throw new Damaged((error as Error).message, { cause: error })
  }
}

async function* chunksOf(file: FileHandle, path: string): AsyncGenerator<Uint8Array, void> {
  for (;;) {
    // The length is said: without it, Node 20.3 reads nothing.
    const room = Buffer.allocUnsafe(READ_BYTES)
    const { bytesRead, buffer } = await file.read(room, 0, READ_BYTES).catch((cause: Error) => {
      const message = `"${path}" cannot be read on: ${cause.message}`
      throw new SyncError("ERR_SQLITE", message, { sqliteCode: "SQLITE_IOERR_READ", cause })
    })
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
  }
}

interface Origin {
  readonly signal: AbortSignal | undefined
  readonly totalBytes: number | undefined
  readonly close: () => Promise<void>
}

class Reading implements Source {
  chunks: AsyncIterable<Uint8Array>
  read = 0
  readonly totalBytes: number | undefined
  readonly close: () => Promise<void>
  /** The first half of a character at the end of a text. */
  #half = ""

  constructor(given: Chunks, { signal, totalBytes, close }: Origin) {
    this.totalBytes = totalBytes
    this.close = close
    this.chunks = this.#bytes(given, signal)
  }

  /** By hand, since `for await` would wait for a source that keeps silent, signal or not. */
  async *#bytes(given: Chunks, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
    const iterator = Symbol.asyncIterator in given ? given[Symbol.asyncIterator]() : given[Symbol.iterator]()
    const step = { pending: false, over: false }
    const next = async () => {
      step.pending = true
      try {
        const result = await iterator.next()
        step.over = result.done === true
        return result
      } catch (error) {
        step.over = true
        throw error
      } finally {
        step.pending = false
      }
    }
    try {
      for (;;) {
        const { done, value } = await unlessAborted(next(), signal)
        if (done) break
        const bytes = this.#encoded(value)
        this.read += bytes.length
        yield bytes
      }
    } finally {
      const ended = step.over ? undefined : Promise.resolve(iterator.return?.())
      // One that is waited for may never answer; and what has ended the reading counts more than what this may throw.
      if (step.pending) ended?.catch(() => {})
      else await ended?.catch(() => {})
    }
    if (this.#half !== "") yield Buffer.from(this.#half)
  }

  #encoded(chunk: unknown): Uint8Array {
    if (types.isUint8Array(chunk)) return chunk
    if (typeof chunk !== "string") throw invalidArgument(`import needs chunks of text or bytes, not ${show(chunk)}`)
    const text = this.#half + chunk
    const isCut = (text.charCodeAt(text.length - 1) & 0xfc00) === 0xd800
    this.#half = isCut ? text.slice(-1) : ""
    return Buffer.from(isCut ? text.slice(0, -1) : text)
  }
}

function isIterable(source: unknown): source is Chunks {
  return typeof source === "object" && source !== null && (Symbol.asyncIterator in source || Symbol.iterator in source)
}

/** What is waited for, or `ERR_ABORTED` as soon as the signal says so. */
function unlessAborted<T>(wait: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return wait
  return new Promise((resolve, reject) => {
    const abort = () => reject(new SyncError("ERR_ABORTED", "The import was aborted", { cause: signal.reason }))
    const settled = () => signal.removeEventListener("abort", abort)
    wait.then(
      (value) => (settled(), resolve(value)),
      (error: unknown) => (settled(), reject(error)),
    )
    if (signal.aborted) abort()
    else signal.addEventListener("abort", abort, { once: true })
  })
}
