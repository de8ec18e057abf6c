import { SyncError, invalidArgument, show } from "./errors"

/** Longest aggregate id, in UTF-8 bytes. Rust holds the same bounds; these are checked here because the call is here. */
export const MAX_AGGREGATE_ID_BYTES = 8 * 1024
export const MAX_OWNER_BYTES = 255
export const MAX_TYPE_BYTES = 255
export const MAX_NESTING = 1_000
export const MAX_SEQ = 2 ** 32 - 1
/** SQLite's own bound on one value. */
export const MAX_MAX_EVENT_BYTES = 1_000_000_000
export const DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024

/** The options of `call`, which may have no others than `names`. */
export function checkOptions<T extends object>(call: string, options: T | undefined, names: readonly string[]): T {
  if (options === undefined) return {} as T
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw invalidArgument(`The options of ${call} must be an object, not ${show(options)}`)
  }
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw invalidArgument(`${call} has no option ${show(name)}; it has ${names.join(", ")}`)
    }
  }
  return options
}

export function checkBoolean(name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (typeof value !== "boolean") throw invalidArgument(`${name} must be a boolean, not ${show(value)}`)
  return value
}

export function checkInteger(name: string, value: unknown, from: number, through = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || (value as number) < from || (value as number) > through) {
    throw invalidArgument(`${name} must be an integer from ${from} through ${through}, not ${show(value)}`)
  }
  return value as number
}

export function checkChoice<T extends string>(name: string, value: unknown, choices: readonly T[], fallback: T): T {
  if (value === undefined) return fallback
  if (!choices.includes(value as T)) {
    throw invalidArgument(`${name} must be ${choices.map(show).join(" or ")}, not ${show(value)}`)
  }
  return value as T
}

export function checkFunction<T>(name: string, value: T): T {
  if (value !== undefined && typeof value !== "function") {
    throw invalidArgument(`${name} must be a function, not ${show(value)}`)
  }
  return value
}

/** A string that UTF-8 can carry: no lone surrogates. */
export function checkText(name: string, value: unknown, maxBytes = Infinity): string {
  if (typeof value !== "string") throw invalidArgument(`${name} must be a string, not ${show(value)}`)
  if (!value.isWellFormed()) throw invalidArgument(`${name} holds a lone surrogate: ${show(value)}`)
  if (exceeds(value, maxBytes)) throw tooLarge(name, value, maxBytes)
  return value
}

/** `ERR_TOO_LARGE` for a text that has more bytes in UTF-8 than its limit; `type` where it is an event's. */
export function tooLarge(name: string, text: string, limit: number, type?: string): SyncError {
  const size = Buffer.byteLength(text)
  const fields = type === undefined ? { size, limit } : { type, size, limit }
  return new SyncError("ERR_TOO_LARGE", `${name} has ${size} bytes, the limit is ${limit} bytes`, fields)
}

export function checkName(name: string, value: unknown, maxBytes = Infinity): string {
  if (value === "") throw invalidArgument(`${name} must not be empty`)
  return checkText(name, value, maxBytes)
}

/** Text for C: what SQLite reads as SQL, names and paths ends at a NUL, and the rest would be ignored in silence. */
export function checkUncut(name: string, value: unknown): string {
  const text = checkText(name, value)
  if (text.includes("\0")) throw invalidArgument(`${name} holds a NUL character`)
  return text
}

export function checkAggregateID(value: unknown): string {
  return checkName("aggregateID", value, MAX_AGGREGATE_ID_BYTES)
}

/** Any iterable but a string, which is one of characters. */
export function checkAggregateIDs(name: string, value: Iterable<string>): Set<string> {
  if (typeof value !== "string" && typeof value?.[Symbol.iterator] === "function") {
    return new Set([...value].map(checkAggregateID))
  }
  throw invalidArgument(`${name} must be an iterable of aggregate ids, not ${show(value)}`)
}

/**
 * Seqs by aggregate id.
 * @example
 * const held: Sequences = store.sequences()
 * const totals = await store.export({ after: held }).toFile("news.jsonl") // → { events: 0, … }
 */
export type Sequences = { readonly [aggregateID: string]: number } | ReadonlyMap<string, number>

/** One seq an aggregate, from -1: none. `what` names the argument. */
export function checkSequences(what: string, seqs: Sequences): Map<string, number> {
  if (typeof seqs !== "object" || seqs === null || Array.isArray(seqs)) {
    throw invalidArgument(`${what} needs an object or a Map of seqs by aggregate id, not ${show(seqs)}`)
  }
  const checked = new Map<string, number>()
  for (const [id, seq] of seqs instanceof Map ? seqs : Object.entries(seqs)) {
    checked.set(checkAggregateID(id), checkInteger(`${what}: the seq of aggregate ${show(id)}`, seq, -1))
  }
  return checked
}

export function checkOwner(name: string, value: unknown): string | null {
  return value === undefined || value === null ? null : checkName(name, value, MAX_OWNER_BYTES)
}

export function checkSignal(value: unknown): AbortSignal | undefined {
  if (value === undefined || isSignal(value)) return value
  throw invalidArgument(`signal must be an AbortSignal, not ${show(value)}`)
}

/** What only inherits from one refuses to be asked, in the middle of whatever is asked later. */
function isSignal(value: unknown): value is AbortSignal {
  try {
    return value instanceof AbortSignal && typeof value.aborted === "boolean"
  } catch {
    return false
  }
}

/** Whether the text has more bytes in UTF-8 than the bound. A UTF-16 unit makes three at most. */
export function exceeds(text: string, maxBytes: number): boolean {
  return text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes
}
