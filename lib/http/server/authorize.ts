import { createHash, timingSafeEqual } from "node:crypto"
import { checkOptions } from "../../argument"
import { SyncError, invalidArgument, show } from "../../errors"

/**
 * What a request wants to do: to read the log, to add to it, or to change who owns an aggregate.
 * @example
 * const readable: SyncAccess[] = ["read"]
 * const routes = syncRoutes(store, { authorize: (_request, what) => readable.includes(what) })
 */
export type SyncAccess = "read" | "write" | "claim"

/**
 * What is decided about a request: true lets it in; false, as "unauthorized", answers 401, and "forbidden" 403.
 * @example
 * const decision: AuthorizeDecision = "forbidden"
 * const { status } = await syncRoutes(store, { authorize: () => decision }).request("/sync/sequences")
 * status // → 403
 */
export type AuthorizeDecision = boolean | "unauthorized" | "forbidden"

/**
 * Bearer tokens, each of which may do everything.
 * @example
 * const authorize: AuthorizeTokens = { token: ["new", "old"] }
 * const headers = { authorization: "Bearer old" }
 * const { status } = await syncRoutes(store, { authorize }).request("/sync/sequences", { headers })
 * status // → 200
 */
export interface AuthorizeTokens {
  /** One, or several, so that they can be changed one after the other. Visible ASCII without spaces. */
  readonly token: string | readonly string[]
}

/**
 * Decides about a request by its method, address and headers. It must leave the request's body alone.
 * @example
 * const authorize: AuthorizeFunction = ({ headers }, what) => what === "read" || headers.get("x-role") === "admin"
 * const { status } = await syncRoutes(store, { authorize }).request("/sync/sequences")
 * status // → 200
 */
export type AuthorizeFunction = (request: Request, what: SyncAccess) => AuthorizeDecision | Promise<AuthorizeDecision>

/**
 * Who may do what: `"none"` lets everybody do everything.
 * @example
 * const authorize: Authorize = "none"
 * const { status } = await syncRoutes(store, { authorize }).request("/sync/sequences")
 * status // → 200
 */
export type Authorize = "none" | AuthorizeTokens | AuthorizeFunction

/** Answers `ERR_UNAUTHORIZED` or `ERR_FORBIDDEN`, unless the request is let in. What it throws is the program's own failure. */
export type Authorizer = (request: Request, what: SyncAccess) => Promise<SyncError | undefined>

/** There is no default: who serves a log says for whom. */
export function authorizer(authorize: unknown): Authorizer {
  if (authorize === "none") return async () => undefined
  if (typeof authorize === "function") return byFunction(authorize as AuthorizeFunction)
  if (typeof authorize === "object" && authorize !== null && !Array.isArray(authorize)) {
    return byToken(checkOptions("authorize", authorize as AuthorizeTokens, ["token"]).token)
  }
  throw invalidArgument(
    `syncRoutes: authorize must be "none", {token: …} or a function, not ${show(authorize)}: nothing is served unless it says for whom`,
  )
}

const VERB = { read: "read", write: "write", claim: "claim anything" } as const satisfies Record<SyncAccess, string>

function byFunction(decide: AuthorizeFunction): Authorizer {
  return async (request, what) => {
    const decision: unknown = await decide(request, what)
    if (decision === true) return undefined
    if (decision === false || decision === "unauthorized") return unauthorized()
    if (decision === "forbidden") return new SyncError("ERR_FORBIDDEN", `Whoever sent this may not ${VERB[what]} here`)
    throw invalidArgument(`authorize must answer with a boolean, "unauthorized" or "forbidden", not ${show(decision)}`)
  }
}

function byToken(token: unknown): Authorizer {
  const tokens: readonly unknown[] = Array.isArray(token) ? token : [token]
  if (tokens.length === 0) throw invalidArgument("syncRoutes: authorize.token must not be an empty list")
  const known = tokens.map((one) => digest(checkToken(one)))
  return async (request) => {
    const given = /^Bearer +([!-~]+)$/i.exec(request.headers.get("authorization") ?? "")?.[1]
    // All are compared, by digests of one length: how long it takes says nothing of any token.
    const offered = digest(given ?? "")
    let matches = 0
    for (const one of known) matches |= timingSafeEqual(one, offered) ? 1 : 0
    return given === undefined || matches === 0 ? unauthorized() : undefined
  }
}

function checkToken(token: unknown): string {
  if (typeof token === "string" && /^[!-~]+$/.test(token)) return token
  // What was given in a token's place may be a secret, too.
  throw invalidArgument("syncRoutes: a token must be a string of visible ASCII characters, without spaces")
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest()
}

function unauthorized(): SyncError {
  return new SyncError("ERR_UNAUTHORIZED", "This needs a valid token: Authorization: Bearer …")
}
