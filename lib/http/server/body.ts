import { CutShort, decompressed, type Encoding } from "../../compression"
import { SyncError, invalidArgument, show } from "../../errors"

/** How a body is written. */
export type Format = "json" | "ndjson"

/**
 * What the header says of the body: JSON or NDJSON. Not guessed where it is missing, and no other is taken for JSON: a
 * page of another origin can send those types without asking first. `ERR_UNSUPPORTED_MEDIA_TYPE`.
 */
export function formatOf(request: Request, allowed: readonly Format[]): Format {
  const header = request.headers.get("content-type") ?? ""
  const [type = "", ...parameters] = header.split(";").map((part) => part.trim().toLowerCase())
  const format = type === "application/json" ? "json" : type === "application/x-ndjson" ? "ndjson" : undefined
  const charset = parameters.find((part) => part.startsWith("charset="))?.slice("charset=".length)
  if (charset !== undefined && !/^"?utf-?8"?$/.test(charset)) throw unsupported("charset", charset, "utf-8")
  if (format !== undefined && allowed.includes(format)) return format
  const types = allowed.map((one) => (one === "json" ? "application/json" : "application/x-ndjson"))
  throw unsupported("Content-Type", header, types.join(" or "))
}

/**
 * The whole body, decompressed. `ERR_TOO_LARGE` as soon as it has, as sent or as decompressed, more bytes than the limit;
 * `ERR_UNSUPPORTED_MEDIA_TYPE` for an unknown `Content-Encoding`; `ERR_INVALID_ARGUMENT` for one that the bytes do not have.
 */
export async function readBody(request: Request, limit: number): Promise<Buffer> {
  const encoding = encodingOf(request)
  const length = Number(request.headers.get("content-length") ?? 0)
  if (length > limit) throw tooLarge(length, limit)
  if (request.bodyUsed) throw new Error("The body was read already, perhaps by authorize, which must leave it alone")
  if (request.body === null) return Buffer.alloc(0)
  const sent = bounded(received(request.body), limit)
  if (encoding === undefined) return collect(sent)
  try {
    return await collect(bounded(decompressed(sent, encoding), limit))
  } catch (error) {
    if (!(error instanceof CutShort)) throw error
    throw invalidArgument(`The body ends too early for ${encoding}`, error)
  }
}

/** A JSON body. `ERR_INVALID_ARGUMENT` where it is none. */
export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body))
  } catch (error) {
    throw invalidArgument("The body is not JSON in UTF-8", error)
  }
}

/** The same, which must be an object. */
export function parseObject(body: Buffer): Record<string, unknown> {
  const value = parseJson(body)
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw invalidArgument(`The body must be a JSON object, not ${show(value)}`)
}

async function* received(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  try {
    yield* body
  } catch (error) {
    throw new SyncError("ERR_ABORTED", "The client left before its whole body had come", { cause: error })
  }
}

async function* bounded(chunks: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array, void> {
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.byteLength
    if (size > limit) throw tooLarge(size, limit)
    yield chunk
  }
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const chunk of chunks) parts.push(chunk)
  return Buffer.concat(parts)
}

function encodingOf(request: Request): Encoding | undefined {
  const header = (request.headers.get("content-encoding") ?? "").trim().toLowerCase()
  if (header === "" || header === "identity") return undefined
  if (header === "gzip" || header === "zstd") return header
  throw unsupported("Content-Encoding", header, "gzip, zstd or identity")
}

function tooLarge(size: number, limit: number): SyncError {
  const message = `The body has ${size} bytes or more, the limit is ${limit} bytes`
  return new SyncError("ERR_TOO_LARGE", message, { size, limit })
}

function unsupported(header: string, got: string, expected: string): SyncError {
  const message = `${header} must be ${expected}, not ${got === "" ? "missing" : show(got)}`
  return new SyncError("ERR_UNSUPPORTED_MEDIA_TYPE", message, { expected, got })
}
