import { readFileSync } from "node:fs"
import type { NatsConnection, NodeConnectionOptions } from "@nats-io/transport-node"
import { Backoff, pause } from "../follow/backoff"
import { failureOf } from "../nats/failure"
import { assertExists } from "./database"
import { UsageError } from "./failure"
import type { Told } from "./following"

/** For as long as it takes; a server that says nothing for about half a minute is left for another one. */
const PATIENCE = { maxReconnectAttempts: -1, pingInterval: 10_000, noAsyncTraces: true }

/** The packages that a project which uses a cluster has beside this one. */
const PACKAGES = "@nats-io/transport-node @nats-io/jetstream @nats-io/kv @nats-io/obj"

/** The servers of a cluster, and how one gets in. */
export interface Servers {
  /** As they are told: without what nobody may read. */
  readonly place: string
  readonly options: NodeConnectionOptions
  /** A file with a user's credentials. */
  readonly creds: string | undefined
}

/** Who gets in, if no address says it: what other programs for NATS take, too. */
const { NATS_URL, NATS_CREDS, NATS_USER, NATS_PASSWORD, NATS_TOKEN } = process.env

/** Reads addresses, each `[nats://|tls://][user:password@]host[:port]`, and what the environment says. */
export function serversOf(given: readonly string[], creds: string | undefined): Servers {
  const addresses = (given.length > 0 ? given : [NATS_URL ?? ""])
    .flatMap((text) => text.split(","))
    .map((text) => text.trim())
  if (addresses.join("") === "") throw new UsageError("Name a server of the cluster, or several, or set NATS_URL")
  const urls = addresses.map(urlOf)
  const { username = "", password = "" } = urls.find((url) => url.username !== "") ?? {}
  const [user, pass] = [decodeURIComponent(username), decodeURIComponent(password)]
  const named = user === "" ? byEnvironment() : pass === "" ? { token: user } : { user, pass }
  const file = creds ?? (NATS_CREDS || undefined)
  if (file !== undefined) assertExists(file, "")
  return {
    place: urls.map(({ host }) => host).join(", "),
    // Known before a connection is made, so that what is wrong with it is told at once.
    options: { servers: urls.map(({ host }) => host), ...named, ...(urls.some(isEncrypted) && { tls: {} }) },
    creds: file,
  }
}

function byEnvironment(): NodeConnectionOptions {
  if (NATS_USER) return { user: NATS_USER, pass: NATS_PASSWORD ?? "" }
  return NATS_TOKEN ? { token: NATS_TOKEN } : {}
}

function urlOf(text: string): URL {
  try {
    const url = new URL(text.includes("://") ? text : `nats://${text}`)
    if (/^(nats|tls):$/.test(url.protocol) && url.hostname !== "") return url
  } catch {
    // It is told as what is no address.
  }
  // There may be a password in it.
  throw new UsageError("An address must be [nats://]host[:port], or tls://host[:port]")
}

function isEncrypted({ protocol }: URL): boolean {
  return protocol === "tls:"
}

/** What `syncline/nats` is made of. Not there: a `UsageError`. */
export async function loadClient() {
  try {
    const [{ connect, credsAuthenticator }, { relay }, { replicate }] = await Promise.all([
      import("@nats-io/transport-node"),
      import("../nats/relay.js"),
      import("../nats/replicate.js"),
    ])
    return { connect, credsAuthenticator, relay, replicate }
  } catch (error) {
    if (!/Cannot find (package|module) '@nats-io\//.test(String(error))) throw error
    throw new UsageError(`A cluster needs packages that are not installed here: npm install ${PACKAGES}`)
  }
}

export type Client = Awaited<ReturnType<typeof loadClient>>

/** Connects, again and again until it goes well; once: or throws. Undefined: it has been ended. */
export async function connected(
  { connect, credsAuthenticator }: Client,
  { place, options, creds }: Servers,
  { signal, onStatus }: Told,
): Promise<NatsConnection | undefined> {
  const authenticator = creds === undefined ? {} : { authenticator: credsAuthenticator(readFileSync(creds)) }
  const backoff = new Backoff(undefined)
  while (!signal.aborted) {
    onStatus("connecting", {})
    try {
      return await connect({ ...options, ...authenticator, name: "syncline", ...PATIENCE })
    } catch (thrown) {
      const error = failureOf(thrown, `The cluster at ${place} cannot be reached`)
      if (error.code !== "ERR_UNREACHABLE") throw error
      const delay = backoff.next()
      onStatus("waiting", { error, attempt: backoff.failures, delay })
      await pause(delay, signal)
    }
  }
  return undefined
}
