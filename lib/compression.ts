import { Readable, pipeline } from "node:stream"
import { createGunzip, createGzip } from "node:zlib"
import { SyncError } from "./errors"
import { native } from "./native"

/** How text is compressed in files and on the wire. */
export type Encoding = "zstd" | "gzip"

/** By the end of a file's name: `.zst` or `.gz`. */
export function encodingOf(path: string): Encoding | undefined {
  if (path.endsWith(".zst")) return "zstd"
  return path.endsWith(".gz") ? "gzip" : undefined
}

/** A source of bytes or text, as streams, files and generators are. */
export type Chunks = AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>

/**
 * How far back zstd looks for repetitions, as log2 of bytes, and so how much memory each compression takes. A file is
 * written once, and read by whoever has 8 MiB; of answers a server may have many on their way.
 */
export const WINDOW_LOG = { file: 23, wire: 21 } as const

/** Compresses what a source gives; chunks come out as the compressor fills them. */
export function compressed(
  source: Chunks,
  encoding: Encoding,
  windowLog: number = WINDOW_LOG.file,
): AsyncGenerator<Uint8Array, void> {
  return encoding === "zstd" ? zstd(source, windowLog) : gzipped(source)
}

/** Compresses a few bytes at once, with zstd. */
export function packed(bytes: Uint8Array, windowLog: number): Uint8Array {
  const compressor = native.compressor(windowLog)
  return Buffer.concat([native.compress(compressor, bytes), native.compressEnd(compressor)])
}

/** What {@link packed} gives, as it was. Cut or damaged: `ERR_INVALID_ARGUMENT`. */
export function unpacked(bytes: Uint8Array): Uint8Array {
  const decompressor = native.decompressor()
  const parts: Uint8Array[] = []
  try {
    for (let at = 0, complete = false; ;) {
      const [consumed, output, between] = native.decompress(decompressor, bytes.subarray(at))
      at += consumed
      complete = between
      if (output.length > 0) parts.push(output)
      else if (at < bytes.length) continue
      else if (complete) return Buffer.concat(parts)
      else throw new SyncError("ERR_INVALID_ARGUMENT", "The zstd frame has no end")
    }
  } finally {
    native.decompressEnd(decompressor)
  }
}

async function* zstd(source: Chunks, windowLog: number): AsyncGenerator<Uint8Array, void> {
  const compressor = native.compressor(windowLog)
  try {
    for await (const chunk of source) {
      const bytes = native.compress(compressor, bytesOf(chunk))
      if (bytes.length > 0) yield bytes
    }
    yield native.compressEnd(compressor)
  } finally {
    // Also where nobody reads on. Again: nothing.
    native.compressEnd(compressor)
  }
}

/**
 * Decompresses what a source gives, in pieces of at most 1 MiB. What is cut gives all that can be read of it, and then
 * throws {@link CutShort}; what is damaged or of another encoding throws `ERR_INVALID_ARGUMENT`.
 */
export function decompressed(source: Chunks, encoding: Encoding): AsyncGenerator<Uint8Array, void> {
  return encoding === "zstd" ? unzstd(source) : gunzipped(source)
}

/** Compressed bytes have ended before their end. */
export class CutShort extends Error {}

async function* gzipped(source: Chunks): AsyncGenerator<Uint8Array, void> {
  const gzip = createGzip()
  // What fails in the source reaches whoever iterates, through the stream.
  pipeline(Readable.from(source), gzip, () => {})
  yield* gzip as AsyncIterable<Uint8Array>
}

async function* unzstd(source: Chunks): AsyncGenerator<Uint8Array, void> {
  const decompressor = native.decompressor()
  let complete = true
  try {
    for await (const given of source) {
      const chunk = bytesOf(given)
      for (let at = 0; ;) {
        const [consumed, output, between] = native.decompress(decompressor, chunk.subarray(at))
        at += consumed
        complete = between
        if (output.length > 0) yield output
        else if (at === chunk.length) break
      }
    }
  } finally {
    native.decompressEnd(decompressor)
  }
  if (!complete) throw new CutShort("The zstd frame has no end")
}

/** Of input that is given to zlib at once: it makes at most about a thousand times as much of it. */
const SLICE = 2_048

/** By hand, since iterating over zlib's stream loses what it gave before an error. */
async function* gunzipped(source: Chunks): AsyncGenerator<Uint8Array, void> {
  const gunzip = createGunzip()
  const output: Uint8Array[] = []
  const closed = new Promise<void>((resolve) => void gunzip.once("close", resolve))
  let failure: (Error & { code?: string }) | undefined
  gunzip.on("data", (chunk: Uint8Array) => output.push(chunk))
  gunzip.on("error", (error) => (failure = error))
  try {
    for await (const chunk of source) {
      const bytes = bytesOf(chunk)
      for (let at = 0; at < bytes.length && !gunzip.destroyed; at += SLICE) {
        // After an error zlib calls nobody back.
        const written = new Promise<void>(
          (resolve) => void gunzip.write(bytes.subarray(at, at + SLICE), () => resolve()),
        )
        await Promise.race([written, closed])
        yield* output.splice(0)
      }
    }
    gunzip.end()
    await closed
    yield* output.splice(0)
    // What zlib says of input that ends too early.
    if (failure?.code === "Z_BUF_ERROR") throw new CutShort("The gzip member has no end", { cause: failure })
    if (failure !== undefined) {
      throw new SyncError("ERR_INVALID_ARGUMENT", `gzip: ${failure.message}`, { cause: failure })
    }
  } finally {
    gunzip.destroy()
  }
}

function bytesOf(chunk: Uint8Array | string): Uint8Array {
  return typeof chunk === "string" ? Buffer.from(chunk) : chunk
}
