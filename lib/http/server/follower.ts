import { SyncError } from "../../errors"
import type { Capacity } from "../../stream"
import { comment, type EventFrame } from "./frame"

/** What a follower is interested in, and how it is told. */
export interface Wants {
  readonly event: (frame: EventFrame) => boolean
  readonly aggregate: (aggregateID: string) => boolean
  readonly encode: (frame: EventFrame) => Buffer
}

/** Bytes that go out together. */
const CHUNK = 64 * 1024

/** What waits for one client of the tail, up to its capacity. */
export class Follower {
  #waiting: Buffer[] = []
  #bytes = 0
  /** Of a `next` that waits. */
  #resume: (() => void) | undefined
  #ended = false
  #failure: { readonly error: unknown } | undefined
  readonly #timer: NodeJS.Timeout

  constructor(
    private readonly wants: Wants,
    private readonly capacity: Capacity,
    /** Milliseconds. */
    heartbeat: number,
    /** Called, once, where more waits than may: then all of it is dropped. */
    private readonly overflows: (error: SyncError) => void,
    private readonly left: () => void,
  ) {
    this.#timer = setInterval(this.#beat, heartbeat).unref()
  }

  give(frame: EventFrame): void {
    if (!this.#ended && this.wants.event(frame)) this.#push(this.wants.encode(frame))
  }

  giveErased(aggregateID: string, told: Buffer): void {
    if (!this.#ended && this.wants.aggregate(aggregateID)) this.#push(told)
  }

  /** What waits, or a part of it, as soon as there is something; undefined at the end. Not to be called while it waits. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#waiting.length === 0) {
      if (this.#failure !== undefined) throw this.#failure.error
      if (this.#ended) return undefined
      await new Promise<void>((resolve) => void (this.#resume = resolve))
      this.#resume = undefined
    }
    let size = 0
    let count = 0
    while (count < this.#waiting.length && size < CHUNK) size += (this.#waiting[count++] as Buffer).length
    this.#bytes -= size
    return Buffer.concat(this.#waiting.splice(0, count), size)
  }

  /** After what waits, `next` tells of the end, or of why there is no more. */
  end(failure?: { readonly error: unknown }): void {
    if (this.#ended) return
    this.#ended = true
    this.#failure = failure
    clearInterval(this.#timer)
    this.left()
    this.#resume?.()
  }

  #push(bytes: Buffer): void {
    const { events: most, bytes: mostBytes } = this.capacity
    if (this.#waiting.length >= most) return this.#overflow(most, "events")
    if (this.#waiting.length > 0 && this.#bytes + bytes.length > mostBytes) return this.#overflow(mostBytes, "bytes")
    this.#waiting.push(bytes)
    this.#bytes += bytes.length
    this.#resume?.()
  }

  #overflow(limit: number, what: string): void {
    this.#waiting = []
    this.end()
    const message = `More than ${limit} ${what} wait for a follower that does not read them, which ends its connection`
    this.overflows(new SyncError("ERR_OVERFLOW", message, { limit }))
  }

  /** To a client that reads and has nothing to read: what others do not take must not pile up. */
  readonly #beat = (): void => {
    if (this.#waiting.length === 0 && this.#resume !== undefined) this.#push(comment("heartbeat"))
  }
}
