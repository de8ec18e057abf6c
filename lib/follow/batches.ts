import { protocolError, unreachable } from "./failure"

/** Bytes of lines, or so, that are applied together: some thousand small events, and so long the write lock is held. */
export const BATCH_BYTES = 1024 * 1024

/** How long a line may be that a store can do anything with: any event that a server stores by default, metadata and all. */
export function longestLine(maxEventBytes: number): number {
  return Math.max(64 * 1024 * 1024, 3 * maxEventBytes)
}

const LINE_FEED = 10

/**
 * Cuts bytes behind line feeds, without looking at anything else in them. What has come whole before an error is given
 * before it is thrown. A line over `limit` bytes: `ERR_PROTOCOL`; an end within a line: `ERR_UNREACHABLE`.
 */
export async function* wholeLines(source: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array, void> {
  let parts: Uint8Array[] = []
  let size = 0
  let failure: { readonly error: unknown } | undefined
  try {
    for await (const chunk of source) {
      let rest = chunk
      while (size + rest.length >= BATCH_BYTES) {
        const end = lineEnd(rest, BATCH_BYTES - size)
        if (end === 0) break
        yield joined([...parts, rest.subarray(0, end)])
        parts = []
        size = 0
        rest = rest.subarray(end)
      }
      parts.push(rest)
      size += rest.length
      if (size > limit + BATCH_BYTES) throw protocolError(`The answer has a line of more than ${limit} bytes`)
    }
  } catch (error) {
    failure = { error }
  }
  const left = joined(parts)
  const end = left.lastIndexOf(LINE_FEED) + 1
  if (end > 0) yield left.subarray(0, end)
  if (failure !== undefined) throw failure.error
  if (end < left.length) throw unreachable("The answer ended within a line")
}

/** Where the last line ends that ends before `before`, or else the first one; 0: none does. */
function lineEnd(bytes: Uint8Array, before: number): number {
  const last = before > 0 ? bytes.lastIndexOf(LINE_FEED, before - 1) : -1
  return (last < 0 ? bytes.indexOf(LINE_FEED) : last) + 1
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts)
}

const [SPACE, QUOTE, COMMA, OPEN_ARRAY, BACKSLASH, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = Buffer.from(
  ' ",[\\]{}',
) as unknown as [number, number, number, number, number, number, number, number]

/**
 * The elements of a JSON array as they come, each parsed: memory is needed for the largest one alone. What is no array:
 * `ERR_PROTOCOL`; an array that does not end: `ERR_UNREACHABLE`.
 */
export async function* elements(source: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<unknown[], void> {
  let depth = 0
  let quoted = false
  let escaped = false
  let over = false
  /** Of the element that is being read. */
  let parts: Uint8Array[] = []
  let size = 0
  for await (const chunk of source) {
    const found: unknown[] = []
    let from = 0
    const take = (end: number) => {
      const text = joined([...parts, chunk.subarray(from, end)])
      parts = []
      size = 0
      from = end + 1
      if (!isBlank(text)) found.push(parsed(text))
    }
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number
      if (quoted) {
        if (escaped) escaped = false
        else if (byte === BACKSLASH) escaped = true
        else if (byte === QUOTE) quoted = false
      } else if (depth === 0 && byte > SPACE && (over || byte !== OPEN_ARRAY)) {
        throw protocolError("The answer is no array of events")
      } else if (byte === QUOTE) quoted = true
      else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) {
        if (depth++ === 0) from = at + 1
      } else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) {
        if (--depth > 0) continue
        take(at)
        over = true
      } else if (byte === COMMA && depth === 1) take(at)
    }
    if (depth > 0) {
      parts.push(chunk.subarray(from))
      size += chunk.length - from
    }
    if (found.length > 0) yield found
    if (size > limit) throw protocolError(`The answer has an element of more than ${limit} bytes`)
  }
  if (!over) throw unreachable("The answer ended within its array")
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte <= SPACE)
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
  } catch (error) {
    throw protocolError("The answer has an element that is no JSON", error)
  }
}
