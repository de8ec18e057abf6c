import { checkInteger } from "../../argument"
import { CutShort, compressed, decompressed } from "../../compression"
import { SyncError, invalidArgument, show } from "../../errors"
import { MAX_TIMER } from "../../follow/backoff"
import { protocolError, unreachable } from "../../follow/failure"
import { errorFrom } from "../status"

/**
 * Where a server is, and how long its answers are waited for.
 * @example
 * const wrong: RemoteOptions = { ...remote, token: "wrong", connectTimeout: 2_000 }
 * await push(phone, wrong) // throws ERR_UNAUTHORIZED
 */
export interface RemoteOptions {
  /** `http:` or `https:`. The routes are below its path: `https://example.org/api` has `/api/sync/history`. */
  url: string | URL
  /** Sent as `Authorization: Bearer …`. Default: none. */
  token?: string | undefined
  /** Milliseconds until an answer begins; then `ERR_UNREACHABLE`. Default 10,000. */
  connectTimeout?: number | undefined
  /** Milliseconds without a byte of an answer that has begun; then `ERR_UNREACHABLE`. Default 45,000: three heartbeats. */
  idleTimeout?: number | undefined
}

/** The names of these options. */
export const REMOTE_OPTIONS = ["url", "token", "connectTimeout", "idleTimeout"]

/** The options, checked. */
export interface Address {
  /** Without a slash at its end. */
  readonly base: string
  readonly token: string | undefined
  readonly connectTimeout: number
  readonly idleTimeout: number
}

/** `ERR_INVALID_ARGUMENT`, which never shows the token. */
export function checkAddress({ url, token, connectTimeout = 10_000, idleTimeout = 45_000 }: RemoteOptions): Address {
  if (token !== undefined && (typeof token !== "string" || !/^[!-~]+$/.test(token))) {
    throw invalidArgument("token must be a string of visible ASCII characters")
  }
  return {
    base: checkURL(url),
    token,
    connectTimeout: checkInteger("connectTimeout", connectTimeout, 1, MAX_TIMER),
    idleTimeout: checkInteger("idleTimeout", idleTimeout, 1, MAX_TIMER),
  }
}

function checkURL(given: unknown): string {
  if (typeof given !== "string" && !(given instanceof URL)) {
    throw invalidArgument(`url must be a string or a URL, not ${show(given)}`)
  }
  let url
  try {
    url = new URL(given)
  } catch (error) {
    throw invalidArgument(`url must be a whole one, such as "https://example.org", not ${show(given)}`, error)
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidArgument(`url must begin with http: or https:, not ${show(url.protocol)}`)
  }
  if (url.username !== "" || url.password !== "") throw invalidArgument("url holds credentials: use the token for them")
  if (url.search !== "" || url.hash !== "") throw invalidArgument(`url must end with its path: ${show(url.href)}`)
  return url.href.replace(/\/+$/, "")
}

/** What a request carries. */
export interface Body {
  readonly type: string
  readonly content: Uint8Array
  /** Default: as it is. */
  readonly encoding?: "zstd"
}

/** Compressed where that is worth a server's while. */
export async function compressedBody(type: string, content: Uint8Array): Promise<Body> {
  if (content.length < WORTH_COMPRESSING) return { type, content }
  const parts = []
  for await (const part of compressed([content], "zstd")) parts.push(part)
  return { type, content: Buffer.concat(parts), encoding: "zstd" }
}

/** What is sent beside method and path. */
export interface RequestOptions {
  readonly query?: URLSearchParams | undefined
  /** The media type that is wanted. */
  readonly accept: string
  /** In which encodings the answer may come. Default: as it is. */
  readonly encodings?: string | undefined
  readonly body?: Body | undefined
  /** Milliseconds until the answer begins. Default: the address's `connectTimeout`. */
  readonly patience?: number | undefined
}

/**
 * Makes requests. By `fetch`, which Node, Bun and Deno have alike; what it does not do is done here: time-outs, and errors
 * that say what happened. What ends too early, or never begins, is `ERR_UNREACHABLE`; once the signal aborts,
 * everything rejects with its reason, where that is a `SyncError`, or with `ERR_ABORTED`.
 */
export class Remote {
  constructor(
    readonly address: Address,
    readonly signal: AbortSignal,
  ) {}

  /** The answer's head has arrived; its status may be any. To be read, or ended. */
  async request(method: "GET" | "POST", path: string, options: RequestOptions): Promise<Answer> {
    const { base, token, connectTimeout, idleTimeout } = this.address
    const { query, accept, encodings = "identity", body, patience = connectTimeout } = options
    const headers: Record<string, string> = { accept, "accept-encoding": encodings }
    if (token !== undefined) headers["authorization"] = `Bearer ${token}`
    if (body !== undefined) headers["content-type"] = body.type
    if (body?.encoding !== undefined) headers["content-encoding"] = body.encoding
    const search = query === undefined || query.size === 0 ? "" : `?${query}`
    const name = `${method} ${base}/${path}`
    const cut = new Cut(name, this.signal)
    try {
      // A redirected POST would become a GET, and a token would go to whomever the answer names.
      const init = { method, headers, redirect: "manual", signal: cut.signal } as const
      const asked = fetch(`${base}/${path}${search}`, body === undefined ? init : { ...init, body: body.content })
      return new Answer(await cut.within(patience, asked, "began no answer"), name, cut, idleTimeout)
    } catch (error) {
      cut.end()
      throw error
    }
  }
}

/** An answer that has begun. */
export class Answer {
  readonly status: number
  /** The media type, without parameters. */
  readonly type: string

  constructor(
    private readonly response: Response,
    private readonly name: string,
    private readonly cut: Cut,
    private readonly idleTimeout: number,
  ) {
    this.status = response.status
    this.type = (response.headers.get("content-type") ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? ""
  }

  /** It is what was asked for, in one of these media types. */
  is(...types: string[]): boolean {
    return this.response.ok && types.includes(this.type)
  }

  /** The body as it is meant, whether or not the runtime has decompressed it already, as newer ones do with zstd. */
  async *bytes(): AsyncGenerator<Uint8Array, void> {
    const chunks = this.#chunks()
    try {
      const head = await headOf(chunks)
      const encoding = encodingOf(head)
      const all = (async function* () {
        if (head.length > 0) yield head
        yield* chunks
      })()
      yield* encoding === undefined ? all : decompressed(all, encoding)
    } catch (error) {
      if (error instanceof CutShort) throw unreachable(`${this.name}: the answer ended too early`, error)
      if (!(error instanceof SyncError) || error.code !== "ERR_INVALID_ARGUMENT") throw error
      throw protocolError(`${this.name}: the answer is damaged: ${error.message}`, error)
    } finally {
      this.end()
    }
  }

  /** The whole body, of at most 64 MiB. `ERR_PROTOCOL` where it is no JSON. */
  async json(): Promise<unknown> {
    const parts: Uint8Array[] = []
    let size = 0
    for await (const part of this.bytes()) {
      size += part.length
      if (size > MAX_JSON_BYTES) throw protocolError(`${this.name}: the answer has more than ${MAX_JSON_BYTES} bytes`)
      parts.push(part)
    }
    try {
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)))
    } catch (error) {
      throw protocolError(`${this.name}: the answer is no JSON`, error)
    }
  }

  /** Why it is not what was asked for: the server's own error, or what can be told from status and type. */
  async refusal(wanted: string): Promise<SyncError> {
    const { status, type, name } = this
    const said = this.type === "application/json" ? errorFrom(status, await this.#said()) : undefined
    this.end()
    const error = said ?? guessed(status, `${name} was answered with status ${status} and ${type || "no type"}`, wanted)
    const seconds = Number(this.response.headers.get("retry-after") ?? Number.NaN)
    if (seconds >= 0) retryAfter.set(error, Math.min(seconds * 1_000, MAX_RETRY_AFTER))
    return error
  }

  /** Lets go of what has not been read. */
  end(): void {
    this.cut.end()
  }

  async #said(): Promise<unknown> {
    try {
      return await this.json()
    } catch (error) {
      if (error instanceof SyncError && error.code === "ERR_PROTOCOL") return undefined
      throw error
    }
  }

  async *#chunks(): AsyncGenerator<Uint8Array, void> {
    const reader = this.response.body?.getReader()
    if (reader === undefined) return this.cut.complete()
    for (;;) {
      const { done, value } = await this.cut.within(this.idleTimeout, reader.read(), "said nothing more")
      if (done) return this.cut.complete()
      yield value
    }
  }
}

/** How long a server asks for rest before the request that was so refused is made again, in milliseconds; 0: it does not. */
export function retryAfterOf(error: unknown): number {
  return error instanceof SyncError ? (retryAfter.get(error) ?? 0) : 0
}

const retryAfter = new WeakMap<SyncError, number>()
const MAX_RETRY_AFTER = 300_000

/** Bytes of a body. */
const WORTH_COMPRESSING = 4_096

/** Of an answer that is read whole. */
const MAX_JSON_BYTES = 64 * 1024 * 1024

const MAGIC_BYTES = 4
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])
const GZIP = Buffer.from([0x1f, 0x8b])

/** Enough of the first bytes to tell an encoding by, unless there are no more. */
async function headOf(chunks: AsyncGenerator<Uint8Array, void>): Promise<Uint8Array> {
  let head: Uint8Array = new Uint8Array()
  while (head.length < MAGIC_BYTES) {
    const { done, value } = await chunks.next()
    if (done) break
    head = head.length === 0 ? value : Buffer.concat([head, value])
  }
  return head
}

/** By how it begins: the header does not tell whether the runtime has decoded it. No JSON begins so. */
function encodingOf(head: Uint8Array): "zstd" | "gzip" | undefined {
  if (ZSTD.equals(head.subarray(0, ZSTD.length))) return "zstd"
  return GZIP.equals(head.subarray(0, GZIP.length)) ? "gzip" : undefined
}

/** What is answered in another form than this protocol's comes from a proxy, or from something else altogether. */
function guessed(status: number, message: string, wanted: string): SyncError {
  if (status === 401) return new SyncError("ERR_UNAUTHORIZED", message, { status })
  if (status === 500) return new SyncError("ERR_INTERNAL", message, { status })
  if (status > 500 || status === 408 || status === 429) return new SyncError("ERR_UNREACHABLE", message, { status })
  return new SyncError("ERR_PROTOCOL", `${message}, not with ${wanted}`, { status })
}

/** How one request ends: read to its end, let go of, too late, or with everything else. */
class Cut {
  readonly #controller = new AbortController()
  #complete = false

  constructor(
    private readonly name: string,
    private readonly outer: AbortSignal,
  ) {
    if (outer.aborted) this.#stop()
    else outer.addEventListener("abort", this.#stop)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Waits for a step of the request. */
  async within<T>(milliseconds: number, step: Promise<T>, late: string): Promise<T> {
    let pending = true
    const expire = () => {
      if (pending) this.#controller.abort(unreachable(`${this.name} ${late} within ${milliseconds} ms`))
    }
    // What has kept the event loop busy may have kept the answer waiting as well: that is looked at first.
    const timer = setTimeout(() => setImmediate(expire), milliseconds)
    try {
      return await step
    } catch (error) {
      if (this.signal.aborted) throw this.signal.reason
      throw failed(this.name, error)
    } finally {
      pending = false
      clearTimeout(timer)
    }
  }

  /** Everything has been read: the connection may serve another request. */
  complete(): void {
    this.#complete = true
    this.outer.removeEventListener("abort", this.#stop)
  }

  end(): void {
    if (this.#complete) return
    this.complete()
    this.#controller.abort(new SyncError("ERR_ABORTED", `${this.name} was given up`))
  }

  readonly #stop = (): void => {
    const { reason } = this.outer
    const aborted = () => new SyncError("ERR_ABORTED", `${this.name} was aborted`, { cause: reason })
    this.#controller.abort(reason instanceof SyncError ? reason : aborted())
  }
}

/** `fetch` says that it failed, and what is behind that says why. */
function failed(name: string, error: unknown): SyncError {
  const { message, cause } = error as Error
  if (!(cause instanceof Error)) return unreachable(`${name}: ${message}`, error)
  // One attempt an address of the host: the last one's reason is as good as any.
  const [one = cause] = cause instanceof AggregateError ? (cause.errors.slice(-1) as Error[]) : [cause]
  // Some ports belong to other protocols, and it never goes there.
  if (one.message === "bad port") return invalidArgument(`${name}: fetch refuses this port`, error)
  return unreachable(`${name}: ${message} (${one.message})`, error)
}
