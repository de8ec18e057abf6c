import { type AddressInfo, type Server } from "node:net"
import { getRequestListener, serve } from "@hono/node-server"
import express from "express"
import { Hono } from "hono"
import { type Store, createRegistry, define, open } from "syncline"
import { follow, syncRoutes } from "syncline/http"
import { z } from "zod"

// The routes in servers that exist already, beside their own routes: one of Hono's, where it is one line, and one of
// Express's, through the adapter of @hono/node-server.

const registry = createRegistry()
const Noted = define({
  type: "session.noted",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), text: z.string() }),
  projector: "none",
  registry,
})

/** The server's own users would be looked up here. */
const authorize = (request: Request) => request.headers.get("authorization") === "Bearer secret"

function honoServer(store: Store): Server {
  const app = new Hono()
  app.get("/", (context) => context.text("The page of the Hono server"))
  app.route("/", syncRoutes(store, { authorize }))
  return serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Server
}

function expressServer(store: Store): Server {
  const app = express()
  app.get("/", (_request, response) => void response.send("The page of the Express server"))
  // Before anything that reads bodies, such as express.json(): the routes read, and bound, their own.
  app.use("/device", getRequestListener(syncRoutes(store, { authorize }).fetch))
  return app.listen(0, "127.0.0.1")
}

async function show(name: string, start: (store: Store) => Server, prefix: string): Promise<void> {
  const store = open(":memory:", { registry })
  const reader = open(":memory:", { registry })
  const server = start(store)
  if (!server.listening) await new Promise((resolve) => server.once("listening", resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const stop = new AbortController()
  const following = follow(reader, { url: `${url}${prefix}`, token: "secret", signal: stop.signal })

  const { seq } = store.run(Noted, { sessionID: "ses_1", text: `Written on the ${name} server` })
  await reader.waitFor({ ses_1: seq }, { timeout: 10_000 })
  console.log(name.padEnd(8), "its own route:", await (await fetch(url)).text())
  console.log(name.padEnd(8), "without token:", (await fetch(`${url}${prefix}/sync/sequences`)).status)
  for (const { data } of reader.read("ses_1"))
    console.log(name.padEnd(8), "followed:     ", (data as { text: string }).text)

  stop.abort()
  await following
  reader.close()
  store.close()
  await new Promise((resolve) => void server.close(resolve))
}

async function main(): Promise<void> {
  await show("Hono", honoServer, "")
  await show("Express", expressServer, "/device")
}

void main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
