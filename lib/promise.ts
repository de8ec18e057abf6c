import { types } from "node:util"

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false
  return typeof (value as { then?: unknown }).then === "function"
}

/**
 * Keeps the rejection of a refused promise, which nobody else will ever see, from ending the process. Other thenables
 * are left alone: a query builder's begins its work when `then` is called.
 */
export function quiet(value: PromiseLike<unknown>): void {
  if (types.isPromise(value)) Promise.prototype.then.call(value, undefined, () => {})
}
