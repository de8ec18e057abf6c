import { Hono, type Context } from "hono"
import { checkChoice, checkFunction, checkInteger, checkOptions } from "../../argument"
import { SyncError, invalidArgument, show } from "../../errors"
import { isThenable } from "../../promise"
import { described } from "../../publish"
import { Store } from "../../store"
import { checkCapacity, type StreamCapacity } from "../../stream"
import { answerError, answerJson, isServersFault } from "./answer"
import { authorizer, type Authorize, type SyncAccess } from "./authorize"
import { answerHistory } from "./history"
import { answerReplay } from "./incoming"
import { answerLive } from "./live"
import { openApi } from "./openapi"
import { answerClaim, answerSequences, answerSteal } from "./ownership"
import { Tail } from "./tail"

/**
 * What `syncRoutes` takes.
 * @example
 * const options: SyncRoutesOptions = { authorize: { token: "secret" }, heartbeat: 5_000, maxBodyBytes: 1024 * 1024 }
 * const { status } = await syncRoutes(store, options).request("/sync/sequences")
 * status // → 401
 */
export interface SyncRoutesOptions {
  /**
   * Who may do what; there is no default. `"none"`: everybody everything. `{token}`: who sends one of these as
   * `Authorization: Bearer …`. A function decides itself, request by request.
   */
  authorize: Authorize
  /** How many bytes a request's body may have, as sent and as decompressed. Default 64 MiB. */
  maxBodyBytes?: number | undefined
  /**
   * After so many milliseconds followers that there was nothing to tell get a sign of life. Default 15,000. It must be less
   * than whatever is between cuts after: `Bun.serve` by itself after 10 seconds.
   */
  heartbeat?: number | undefined
  /** How much may wait for a follower that does not read; more ends its connection. Default 1,000 events, 8 MiB. */
  capacity?: StreamCapacity | undefined
  /**
   * What is sent of types that this store does not define: "error" refuses it, "record" stores it, until `reproject`, as in
   * `replay`. Default "error".
   */
  unknown?: "error" | "record" | undefined
  /**
   * Hears of what clients are told of as the server's failure and no more: what projectors and `authorize` threw, a damaged
   * file, a full disk. Default: a process warning.
   */
  onError?: ((error: unknown, request: Request) => unknown) | undefined
}

interface Route {
  readonly method: "GET" | "POST"
  readonly what: SyncAccess
  readonly answer: (context: Context, report: (error: unknown) => void) => Response | Promise<Response>
}

const DEFAULT_MAX_BODY_BYTES = 64 * 1024 * 1024
const MOST_BODY_BYTES = 1024 * 1024 * 1024
const DEFAULT_HEARTBEAT = 15_000
/** What a timer can wait. */
const LONGEST_HEARTBEAT = 2 ** 31 - 1

const OPTIONS = ["authorize", "maxBodyBytes", "heartbeat", "capacity", "unknown", "onError"]

/**
 * The routes by which other machines read, follow and write a store, as a Hono app: its `fetch` serves by itself, and
 * `host.route("/prefix", syncRoutes(…))` puts it into another app, of which it answers its own paths alone. Each request is
 * authorized before anything else is looked at. It answers no `OPTIONS`: for browsers of other origins put Hono's `cors` in
 * front. Wrong arguments, a store that does not record among them: `ERR_INVALID_ARGUMENT`.
 * @example
 * const routes = syncRoutes(store, { authorize: "none" })
 * const answer = await routes.request("/sync/sequences")
 * await answer.json()
 */
export function syncRoutes<Tx>(store: Store<Tx>, options: SyncRoutesOptions): Hono {
  const context = Store.contextOf(store)
  if (context === undefined) throw invalidArgument(`syncRoutes needs a store made by open, not ${show(store)}`)
  if (!context.record) throw invalidArgument("syncRoutes needs a store that records (record: true)")
  const given = checkOptions("syncRoutes", options, OPTIONS)
  const authorize = authorizer(given.authorize)
  const { maxBodyBytes = DEFAULT_MAX_BODY_BYTES, heartbeat = DEFAULT_HEARTBEAT, onError = warn } = given
  const maxBytes = checkInteger("maxBodyBytes", maxBodyBytes, 1, MOST_BODY_BYTES)
  const beat = checkInteger("heartbeat", heartbeat, 1, LONGEST_HEARTBEAT)
  const capacity = checkCapacity(given.capacity)
  const unknown = checkChoice<"error" | "record">("unknown", given.unknown, ["error", "record"], "error")
  checkFunction("onError", onError)

  const tell = (error: unknown, request: Request): void => {
    try {
      const result = onError(error, request)
      if (isThenable(result)) Promise.resolve(result).catch(warn)
    } catch (another) {
      warn(another)
    }
  }
  const live = { store: context, tail: new Tail(context, beat), capacity }
  const routes: Readonly<Record<string, Route>> = {
    "/sync-events": { method: "GET", what: "read", answer: (c, report) => answerLive(c, live, report) },
    "/sync/history": {
      method: "POST",
      what: "read",
      answer: (c, report) => answerHistory(c, context, maxBytes, report),
    },
    "/sync/replay": {
      method: "POST",
      what: "write",
      answer: (c) => answerReplay(c, store, { maxBodyBytes: maxBytes, unknown }),
    },
    "/sync/sequences": { method: "GET", what: "read", answer: (c) => answerSequences(c, context) },
    "/sync/claim": { method: "POST", what: "claim", answer: (c) => answerClaim(c, context, maxBytes) },
    "/sync/steal": { method: "POST", what: "claim", answer: (c) => answerSteal(c, context, maxBytes) },
    "/sync/openapi.json": { method: "GET", what: "read", answer: (c) => answerJson(openApi(c.req.path)) },
  }

  const answer = async (c: Context, route: Route | undefined): Promise<Response> => {
    const { raw: request, path } = c.req
    let refusal
    try {
      refusal = await authorize(request, route?.what ?? "read")
    } catch (error) {
      tell(error, request)
      // Whatever it is, it is none of the client's business.
      return answerError(undefined)
    }
    if (refusal !== undefined) return answerError(refusal)
    if (route === undefined) return answerError(notFound(path))
    const report = (error: unknown) => {
      if (isServersFault(error)) tell(error, request)
    }
    // Hono answers HEAD as GET, and drops the body.
    const allowed = route.method === "GET" ? ["GET", "HEAD"] : [route.method]
    if (!allowed.includes(request.method)) {
      return answerError(wrongMethod(request.method, path, allowed), { allow: allowed.join(", ") })
    }
    try {
      return await route.answer(c, report)
    } catch (error) {
      report(error)
      return answerError(error)
    }
  }

  const app = new Hono()
  for (const [path, route] of Object.entries(routes)) app.all(path, (c) => answer(c, route))
  // By itself alone: an app that it is put into has its own answer for all other paths.
  app.notFound((c) => answer(c, undefined))
  return app
}

function notFound(path: string): SyncError {
  return new SyncError("ERR_NOT_FOUND", `There is nothing at ${show(path)}`)
}

function wrongMethod(method: string, path: string, allowed: readonly string[]): SyncError {
  const message = `${show(path)} takes ${allowed.join(" and ")}, not ${show(method)}`
  return new SyncError("ERR_METHOD_NOT_ALLOWED", message, { expected: allowed[0] as string, got: method })
}

function warn(error: unknown): void {
  const { reason } = described(error)
  process.emitWarning(`A request failed: ${reason}`, { type: "SynclineWarning", code: "REQUEST_FAILED" })
}
