import { checkInteger, checkOptions } from "../argument"

/**
 * How long is waited between two attempts, in milliseconds.
 * @example
 * const backoff: BackoffOptions = { initial: 100, longest: 5_000 }
 * await push(phone, { ...remote, backoff })
 */
export interface BackoffOptions {
  /** At most so long after the first failure; twice as long after each further one. Default 500. */
  initial?: number | undefined
  /** At most so long after any. Default 30,000. */
  longest?: number | undefined
}

/** The longest that a timer can run. */
export const MAX_TIMER = 2 ** 31 - 1

/**
 * Pauses that grow with the failures in a row, each drawn at random from all of its range ("full jitter"), so that the
 * followers of a server that comes back do not come back together. Marc Brooker, "Exponential Backoff And Jitter", AWS
 * Architecture Blog, 2015.
 */
export class Backoff {
  readonly #initial: number
  readonly longest: number
  #failures = 0

  constructor(options: BackoffOptions | undefined) {
    const { initial = 500, longest = 30_000 } = checkOptions("backoff", options, ["initial", "longest"])
    this.longest = checkInteger("backoff.longest", longest, 1, MAX_TIMER)
    this.#initial = checkInteger("backoff.initial", initial, 1, this.longest)
  }

  /** How many attempts have failed since the last success. */
  get failures(): number {
    return this.#failures
  }

  /** After a failure: milliseconds until the next attempt, `atLeast` those that a server asks for. */
  next(atLeast = 0): number {
    const bound = Math.min(this.longest, this.#initial * 2 ** this.#failures++)
    return Math.round(Math.min(atLeast + Math.random() * bound, MAX_TIMER))
  }

  reset(): void {
    this.#failures = 0
  }
}

/** Resolves after so many milliseconds, or at once when the signal aborts. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener("abort", end)
      resolve()
    }
    const timer = setTimeout(end, milliseconds)
    signal.addEventListener("abort", end)
  })
}
