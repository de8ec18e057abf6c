import { invalidArgument } from "./errors"

/**
 * A value that SQLite can hold: numbers are bound as REAL, bigints as INTEGER, views of bytes as BLOB, undefined as NULL.
 * @example
 * const values: BindValue[] = [1, 1n, new Uint8Array([1])]
 * store.db.prepare("SELECT typeof(?), typeof(?), typeof(?)").raw().get(...values) // → ["real", "integer", "blob"]
 */
export type BindValue = number | bigint | string | ArrayBufferView | null | undefined

/** What a statement asks for: one item a parameter, its name without prefix or null for a positional one. */
export interface StatementParameters {
  readonly parameters: readonly (string | null)[]
  /** Whether any of them has a name. */
  readonly named: boolean
}

/** The parameters in SQLite's order. Positional values fill the nameless parameters, one plain object the named ones. */
export function gather(plan: StatementParameters, params: unknown[]): unknown[] {
  const { parameters } = plan
  if (!plan.named && params.length === parameters.length && bindInPlace(params)) return params
  const values = new Array<unknown>(parameters.length)
  let index = -1
  let count = 0
  let object = false
  const place = (value: unknown): void => {
    do index++
    while (typeof parameters[index] === "string")
    if (index >= parameters.length) throw invalidArgument("Too many parameter values were provided")
    values[index] = bound(value)
    count++
  }
  for (const param of params) {
    if (Array.isArray(param)) {
      // Not forEach, which skips holes: a hole is undefined, and binds as NULL.
      for (const value of param as unknown[]) place(value)
    } else if (isPlainObject(param)) {
      if (object) throw invalidArgument("You cannot specify named parameters in two different objects")
      object = true
      count += placeNamed(parameters, values, param)
    } else if (plan.named && typeof param === "object" && param !== null && !ArrayBuffer.isView(param)) {
      throw invalidArgument("Named parameters can only be passed within plain objects")
    } else {
      place(param)
    }
  }
  if (count < parameters.length) {
    throw invalidArgument(plan.named && !object ? "Missing named parameters" : "Too few parameter values were provided")
  }
  return values
}

/** A bound statement keeps the bytes of that moment, whatever the caller writes into the view later. */
export function copyBytes(value: unknown): unknown {
  if (!(value instanceof Uint8Array)) return value
  try {
    return new Uint8Array(value)
  } catch (error) {
    throw invalidArgument("The bound buffer has been transferred, or cut", error)
  }
}

/** SQLite's value for a JavaScript one, or undefined where there is none. */
export function bindable(value: unknown): number | bigint | string | Uint8Array | null | undefined {
  switch (typeof value) {
    case "number":
      return value
    case "string":
      // UTF-8 has no lone surrogates; they become U+FFFD, as they do in better-sqlite3.
      return value.isWellFormed() ? value : value.toWellFormed()
    case "bigint":
      return BigInt.asIntN(64, value) === value ? value : undefined
    case "undefined":
      return null
    case "object":
      if (value === null) return null
      if (value instanceof Uint8Array) return value
      if (ArrayBuffer.isView(value)) return bytesOf(value)
  }
  return undefined
}

/** Undefined where the view's buffer has been transferred, or cut below it. */
function bytesOf(view: ArrayBufferView): Uint8Array | undefined {
  try {
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  } catch {
    return undefined
  }
}

/** The common case, positional values alone: replaced where they stand. False when one of them is a container. */
function bindInPlace(params: unknown[]): boolean {
  for (let index = 0; index < params.length; index++) {
    const value = bindable(params[index])
    if (value === undefined) return false
    params[index] = value
  }
  return true
}

function placeNamed(parameters: readonly (string | null)[], values: unknown[], object: object): number {
  let count = 0
  parameters.forEach((name, index) => {
    if (name === null) return
    if (!Object.hasOwn(object, name)) throw invalidArgument(`Missing named parameter "${name}"`)
    values[index] = bound((object as Record<string, unknown>)[name])
    count++
  })
  return count
}

function bound(value: unknown): unknown {
  const result = bindable(value)
  if (result !== undefined) return result
  if (typeof value === "bigint") throw invalidArgument("The bound string, buffer, or bigint is too big")
  throw invalidArgument("SQLite3 can only bind numbers, strings, bigints, buffers, and null")
}

/** A prototype that has none itself is some realm's Object.prototype: objects of a vm context count, instances do not. */
function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || isForeignRoot(prototype as object)
}

function isForeignRoot(prototype: object): boolean {
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, "hasOwnProperty")
}
