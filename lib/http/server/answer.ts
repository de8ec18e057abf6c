import type { ServerResponse } from "node:http"
import { constants, type Http2ServerResponse } from "node:http2"
import type { UnderlyingSource } from "node:stream/web"
import type { Context } from "hono"
import { SyncError, syncErrorOf } from "../../errors"
import { errorBody, statusOf } from "../status"

/** Seconds after which a server that is busy, or about to be opened again, is worth another try. */
const RETRY_AFTER = "1"

/** Answers are about one moment, and for one reader. */
const UNCACHED = { "cache-control": "no-store" }

export function answerJson(value: unknown): Response {
  return new Response(JSON.stringify(value), {
    headers: { "content-type": "application/json", ...UNCACHED },
  })
}

/** An error as an answer. What is none of the library's own is not shown: it is the server's, who is told of it. */
export function answerError(thrown: unknown, headers: Record<string, string> = {}): Response {
  const error = syncErrorOf(thrown) ?? new SyncError("ERR_INTERNAL", "The server failed: its own log says why")
  const status = statusOf(error)
  const more: Record<string, string> = { ...headers }
  if (status === 401) more["www-authenticate"] = "Bearer"
  if (status === 503) more["retry-after"] = RETRY_AFTER
  return new Response(JSON.stringify(errorBody(error)), {
    status,
    headers: { "content-type": "application/json", ...UNCACHED, ...more },
  })
}

/** Whether whoever runs the server should hear of it: what it, its file or its program did wrong. */
export function isServersFault(thrown: unknown): boolean {
  const error = syncErrorOf(thrown)
  if (error === undefined) return true
  return statusOf(error) >= 500 && !["ERR_BUSY", "ERR_CLOSED", "ERR_ABORTED"].includes(error.code)
}

/** The other end of an answer that is made while it is read. */
export interface Connection {
  /** Aborts when the client has gone, or the answer was broken off. */
  readonly signal: AbortSignal
  /** Ends the connection at once, also where the client does not read, and so that nobody takes it for complete. */
  readonly breakOff: (error: unknown) => void
}

/**
 * An answer that is made as it is read: nothing is done for a client that does not. Where making it fails, `report` is told
 * and the connection breaks off.
 */
export function answerStream(
  context: Context,
  headers: Record<string, string>,
  chunksFor: (connection: Connection) => AsyncGenerator<Uint8Array, void>,
  report: (error: unknown) => void,
): Response {
  const gone = new AbortController()
  const outgoing = outgoingOf(context)
  let controller: ReadableStreamDefaultController<Uint8Array>
  const breakOff = (error: unknown): void => {
    if (gone.signal.aborted) return
    gone.abort()
    if (outgoing === undefined) controller.error(error)
    else cut(outgoing)
  }
  const chunks = chunksFor({ signal: gone.signal, breakOff })
  const source: UnderlyingSource<Uint8Array> = {
    start: (given) => void (controller = given),
    pull: async () => {
      try {
        const { done, value } = await chunks.next()
        if (gone.signal.aborted) return
        if (done) controller.close()
        else controller.enqueue(value)
      } catch (error) {
        report(error)
        breakOff(error)
      }
    },
    cancel: async () => {
      gone.abort()
      await chunks.return()
    },
  }
  // Adapters that look whether a short answer is complete take one that fails at once for it, unless they are told this. Only
  // HTTP/1.1 knows it: in HTTP/2 it is forbidden, in HTTP/1.0 nobody would understand.
  const chunked = (outgoing?.req.httpVersion ?? "1.1") === "1.1" && { "transfer-encoding": "chunked" }
  const all = { ...UNCACHED, ...chunked, ...headers }
  return new Response(new ReadableStream(source, { highWaterMark: 0 }), { headers: all })
}

type Outgoing = ServerResponse | Http2ServerResponse

/** Under Node's adapter the answer that it writes to. */
function outgoingOf({ env }: Context): Outgoing | undefined {
  const outgoing = (env as { outgoing?: Partial<Outgoing> } | undefined)?.outgoing
  return typeof outgoing?.destroy === "function" ? (outgoing as Outgoing) : undefined
}

/**
 * By hand, since the adapter would print an error of the stream as its own failure, and write it into the answer; and it would
 * wait for a client that does not read before it ended.
 */
function cut(outgoing: Outgoing): void {
  // Without a code an HTTP/2 stream would end as a whole one does.
  if ("stream" in outgoing) outgoing.stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  outgoing.destroy()
}
