export function isThenable(value: unknown): value is PromiseLike<unknown> {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false
  return typeof (value as { then?: unknown }).then === "function"
}

/** Keeps the rejection of a refused promise, which nobody else will ever see, from ending the process. */
export function quiet(promise: PromiseLike<unknown>): void {
  promise.then(undefined, () => {})
}
