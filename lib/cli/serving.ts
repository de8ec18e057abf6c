import { once } from "node:events"
import type { Server } from "node:http"
import type { AddressInfo } from "node:net"
import { createAdaptorServer } from "@hono/node-server"
import { syncRoutes, type SyncRoutesOptions } from "../http/server/routes"
import type { Store } from "../store"
import { untilStopped } from "./interrupt"
import type { Output } from "./output"
import { printable } from "./text"

/** What is still being answered when it is stopped has this long, in milliseconds. */
const GRACE = 2_000

/** Between two looks for connections that are done, in milliseconds. */
const SWEEP = 20

/** Where a store is served, and for whom. */
export interface Serving {
  /** As it was named. */
  readonly db: string
  readonly host: string
  readonly port: number
  readonly authorize: SyncRoutesOptions["authorize"]
}

/** Answers until a signal ends it; the store is closed then. */
export async function serveStore(output: Output, store: Store, serving: Serving): Promise<void> {
  const { db, host, port, authorize } = serving
  const onError = (error: unknown) =>
    void output.warn(`A request failed: ${(error as Error)?.message ?? error}`).catch(() => {})
  const { fetch } = syncRoutes(store, { authorize, unknown: "record", onError })
  const server = createAdaptorServer({ fetch }) as Server
  server.listen(port, host)
  // Rejects with what the system has against the address.
  await once(server, "listening")
  const { address, family, port: actual } = server.address() as AddressInfo
  const url = `http://${family === "IPv6" ? `[${address}]` : address}:${actual}`
  await untilStopped(output, async (signal) => {
    if (output.json) await output.printJSON({ url })
    else
      await output.print(
        `Serving ${printable(db)} at ${url}, ${authorize === "none" ? "to everybody" : "with a token"}. Ctrl-C stops it.`,
      )
    if (!isLoopback(address)) {
      const told =
        authorize === "none"
          ? "whoever reaches it may read and change everything"
          : "the token included, unless a server with TLS stands before it"
      await output.warn(
        `Other machines can reach ${address}, and what goes over the network is not encrypted: ${told}.`,
      )
    }
    if (!signal.aborted) await once(signal, "abort")
  })
  await stop(server, store)
  await output.note("Stopped.")
}

/** No new requests; streams end; what is half answered has a moment. */
async function stop(server: Server, store: Store): Promise<void> {
  const closed = once(server, "close")
  server.close()
  // On connections that are there already: to their clients the server is gone, and not one that answers with errors.
  server.prependListener("request", ({ socket }) => socket.destroy())
  store.close()
  // A connection is idle, and kept for more, once its stream has come to its end.
  const idle = setInterval(() => server.closeIdleConnections(), SWEEP)
  const late = setTimeout(() => server.closeAllConnections(), GRACE)
  await closed
  clearInterval(idle)
  clearTimeout(late)
}

function isLoopback(address: string): boolean {
  return address === "::1" || address.startsWith("127.") || address.startsWith("::ffff:127.")
}
