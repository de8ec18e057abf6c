import type { Consumer, ConsumerInfo } from "@nats-io/jetstream"
import { createInbox, type Msg, type MsgHdrs, type NatsConnection, type Subscription } from "@nats-io/transport-node"
import { BATCH_BYTES } from "../follow/batches"
import { protocolError, unreachable } from "../follow/failure"
import type { Raw } from "./message"

/** What is asked for at once: of messages, of bytes at least, and for how many nanoseconds. */
const PULL = { batch: 5_000, bytes: 2 * 1024 * 1024, expires: 10e9 }

/** Milliseconds after which a server that has nothing to give says so, and how many times it may fail to. */
const HEARTBEAT = { every: 2_000, most: 3 }

/** Milliseconds that a message waits at most for those that are said to follow it: servers are wrong about that for moments. */
const LINGER = 50

/** What ends a pull, and is no failure: what was asked for has been given, or its time is over. */
const OVER = /^(batch completed|message size exceeds maxbytes)/i

/**
 * What a consumer delivers, pulled so that a bounded part of it waits here, whatever its reader does meanwhile: the next pull is
 * made when the one before is over and the reader has taken the rest of those before that. The client's own iterators ask a
 * hundred messages at a time where bytes are the bound.
 */
export class Delivery<T extends { readonly body: Uint8Array }> {
  readonly #inbox: string
  readonly #subscription: Subscription
  readonly #subject: string
  readonly #request: string
  readonly #beat: NodeJS.Timeout
  readonly #waiting: T[] = []
  #bytes = 0
  /** The present pull. What a server says of one before it came too late. */
  #pulls = 0
  /** Messages that it may still give; 0: it is over. */
  #left = 0
  #delivered = 0
  /** Messages that were still to follow the last one. */
  #pending: number
  /** Runs while something waits. */
  #linger: NodeJS.Timeout | undefined
  /** What waits has waited for long enough. */
  #late = false
  /** Something has come since it was asked for, though it may have been left out. */
  #came = false
  /** The server has said that it has nothing to give. */
  #idle = false
  /** Times that it should have said something, and has not. */
  #silent = 0
  #wake: (() => void) | undefined

  constructor(
    private readonly connection: NatsConnection,
    private readonly consumer: Consumer,
    { mostBytes, info }: { readonly mostBytes: number; readonly info: ConsumerInfo },
    /** Of what it answers undefined for, nothing is kept. */
    private readonly open: (raw: Raw) => T | undefined,
    /** Ends with it, and ends it, with the reason why. */
    private readonly end: AbortController,
  ) {
    this.#pending = info.num_pending
    this.#subject = `$JS.API.CONSUMER.MSG.NEXT.${info.stream_name}.${info.name}`
    // What was set for the connection, since others may not be permitted.
    const { options } = connection as { options?: { inboxPrefix?: string } }
    this.#inbox = createInbox(options?.inboxPrefix)
    const { batch, bytes, expires } = PULL
    const max_bytes = Math.max(bytes, 2 * mostBytes)
    this.#request = JSON.stringify({ batch, max_bytes, expires, idle_heartbeat: HEARTBEAT.every * 1e6 })
    this.#subscription = connection.subscribe(`${this.#inbox}.*`, {
      callback: (error, message) => (error === null ? this.#receive(message) : this.#fail(error.message, error)),
    })
    this.#beat = setInterval(() => this.#listen(), HEARTBEAT.every).unref()
    end.signal.addEventListener("abort", () => this.#wake?.())
    this.#pull()
  }

  /** Whether all has been taken that there was. */
  async isDrained(): Promise<boolean> {
    if (this.#waiting.length > 0) return false
    if (this.#pending === 0 || !this.#idle) return this.#pending === 0
    // What was said to follow has been removed from the stream, or the server is slow.
    const { num_pending } = await this.consumer.info()
    if (this.#idle) this.#pending = num_pending
    return this.#pending === 0
  }

  /**
   * Resolves when there is enough to be taken at once, or all that there is, which may be nothing; throws what this has ended
   * with.
   */
  async news(): Promise<void> {
    this.#idle = false
    this.#late = false
    this.#came = this.#waiting.length > 0
    if (this.#came) this.#wait()
    while (!this.#isReady && !this.end.signal.aborted) await new Promise<void>((resolve) => (this.#wake = resolve))
    this.end.signal.throwIfAborted()
  }

  /** What waits, in its order, up to so many bytes or one message. */
  take(bytes: number): T[] {
    let count = 0
    let size = 0
    while (count < this.#waiting.length && (size === 0 || size < bytes)) {
      size += sizeOf(this.#waiting[count++] as T)
    }
    this.#bytes -= size
    const taken = this.#waiting.splice(0, count)
    this.#pull()
    return taken
  }

  close(): void {
    clearInterval(this.#beat)
    clearTimeout(this.#linger)
    if (this.connection.isClosed()) return
    this.#subscription.unsubscribe()
    void this.consumer.delete().catch(() => {})
  }

  get #isReady(): boolean {
    return this.#idle || this.#late || this.#bytes >= BATCH_BYTES || (this.#pending === 0 && this.#came)
  }

  #wait(): void {
    this.#linger ??= setTimeout(() => {
      this.#linger = undefined
      this.#late = this.#waiting.length > 0
      if (this.#late) this.#wake?.()
    }, LINGER).unref()
  }

  #pull(): void {
    if (this.#left > 0 || this.#bytes >= PULL.bytes || this.end.signal.aborted || this.connection.isClosed()) return
    this.#left = PULL.batch
    this.#silent = 0
    this.connection.publish(this.#subject, this.#request, { reply: `${this.#inbox}.${++this.#pulls}` })
  }

  #receive(message: Msg): void {
    this.#silent = 0
    const { subject, headers } = message
    if (!subject.startsWith(this.#inbox)) this.#keep(message)
    else if (subject === `${this.#inbox}.${this.#pulls}`) this.#hear(headers)
    if (this.#isReady) this.#wake?.()
  }

  #keep(message: Msg): void {
    const { position, delivered, pending } = placeOf(message.reply ?? "")
    // Nobody sends again what was lost on the way.
    if (delivered !== ++this.#delivered) this.#fail(`message ${this.#delivered} of it did not come`)
    const { subject, headers, data } = message
    // At once, so that all else of a message is short-lived.
    const opened = this.open({ subject, seq: position, headers, data })
    if (opened !== undefined) {
      this.#waiting.push(opened)
      this.#bytes += sizeOf(opened)
      this.#wait()
    }
    this.#came = true
    this.#pending = pending
    this.#idle = false
    if (--this.#left === 0) this.#pull()
  }

  /** What a server says of a pull. */
  #hear(status: MsgHdrs | undefined): void {
    const { code = 0, description = "" } = status ?? {}
    if (code === 100) return void (this.#idle = true)
    if (code !== 404 && code !== 408 && !(code === 409 && OVER.test(description))) {
      return this.#fail(`${code} ${description}`)
    }
    const isEmpty = this.#left === PULL.batch
    if (code === 409 && isEmpty) {
      return this.end.abort(protocolError("The stream has a message that is larger than the server takes"))
    }
    this.#idle = isEmpty
    this.#left = 0
    this.#pull()
  }

  /** Counted in times rather than measured: while nothing is read here, nobody is silent. */
  #listen(): void {
    if (this.#left > 0 && ++this.#silent > HEARTBEAT.most) this.#fail("the server is silent")
  }

  #fail(why: string, cause?: unknown): void {
    this.end.abort(unreachable(`The consumer of the stream was lost: ${why}`, cause))
  }
}

/** Bytes, or so, without headers. */
function sizeOf({ body }: { readonly body: Uint8Array }): number {
  return body.length + 256
}

/** `$JS.ACK.<stream>.<consumer>.<times>.<position>.<delivered>.<time>.<pending>`, or with domain and account before the stream. */
function placeOf(reply: string): { position: number; delivered: number; pending: number } {
  const tokens = reply.split(".")
  const at = tokens.length > 9 ? 7 : 5
  return { position: Number(tokens[at]), delivered: Number(tokens[at + 1]), pending: Number(tokens[at + 3]) }
}
