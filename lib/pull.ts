/** How an iteration ends. */
export const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined })

/** What a pulled iterator asks for: page after page of items. Between two pages it may wait, until `stopped`. */
export type Pages<T> = (stopped: AbortSignal) => AsyncGenerator<readonly T[], undefined>

/**
 * Iterates over the items of pages that are asked for when the one before is used up, so that a slow consumer costs no
 * memory. The signal, and `return`, end it without an error and at once, also while a `next` is pending.
 */
export class Pulled<T> implements AsyncIterableIterator<T, undefined> {
  readonly #stop = new AbortController()
  readonly #pages: AsyncGenerator<readonly T[], undefined>
  #page: readonly T[] = []
  /** How many items of the page have been given. */
  #given = 0
  /** Answers that wait for a page are given in the order in which they were asked for. */
  #last: Promise<unknown> = Promise.resolve()
  #pending = 0
  #started = false
  #over = false

  constructor(
    pages: Pages<T>,
    private readonly signal: AbortSignal | undefined,
    /** Asked before each item: true ends the iteration, also within a page that has been read. May throw. */
    private readonly ended: () => boolean,
  ) {
    this.#pages = pages(this.#stop.signal)
  }

  next(): Promise<IteratorResult<T, undefined>> {
    if (!this.#started) this.#start()
    // Most items are at hand: an async function, or a generator's promise for each, would double what they cost.
    if (this.#pending === 0 && this.#given < this.#page.length) {
      try {
        return Promise.resolve(this.#ready() ?? DONE)
      } catch (error) {
        return Promise.reject(this.#failed(error))
      }
    }
    this.#pending++
    const answer = this.#last.then(() => this.#pull())
    const answered = () => void this.#pending--
    this.#last = answer.then(answered, answered)
    return answer
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.#end()
    return Promise.resolve(DONE)
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Only when it is iterated: one that nobody iterates must not stay with a signal that outlives it. */
  #start(): void {
    this.#started = true
    if (this.signal?.aborted) this.#end()
    if (!this.#over) this.signal?.addEventListener("abort", this.#end, { once: true })
  }

  /** The next item, if it is at hand. */
  #ready(): IteratorResult<T, undefined> | undefined {
    if (this.#over) return DONE
    if (this.ended()) {
      this.#end()
      return DONE
    }
    if (this.#given === this.#page.length) return undefined
    return { done: false, value: this.#page[this.#given++] as T }
  }

  async #pull(): Promise<IteratorResult<T, undefined>> {
    try {
      for (;;) {
        const ready = this.#ready()
        if (ready !== undefined) return ready
        const { done, value } = await this.#pages.next()
        if (done) this.#end()
        else this.#turn(value)
      }
    } catch (error) {
      throw this.#failed(error)
    }
  }

  #turn(page: readonly T[]): void {
    this.#page = page
    this.#given = 0
  }

  #failed(error: unknown): unknown {
    this.#end()
    return error
  }

  readonly #end = (): void => {
    if (this.#over) return
    this.#over = true
    this.signal?.removeEventListener("abort", this.#end)
    this.#stop.abort()
    this.#turn([])
    // Where it waits, the wait has just ended; where it stands at a page, this is what lets go of what it holds.
    void this.#pages.return(undefined)
  }
}
