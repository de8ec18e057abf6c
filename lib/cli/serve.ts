import { Option, type Command } from "commander"
import type { SyncRoutesOptions } from "../http/server/routes"
import { DB, addCommand, does, integerOption } from "./command"
import { withStore } from "./database"
import { UsageError } from "./failure"
import { addTokenOptions, tokenOf, type TokenOptions } from "./token"

/** `serve`: a log for other machines. */
export function addServe(program: Command): void {
  const serve = addCommand(program, "serve", {
    summary: "serve a log to other machines",
    about: `They follow it, push to it and claim aggregates over HTTP, with a token; whoever has that may do everything. What
is pushed is stored and not projected: the program does that with \`reproject\`. It serves plain HTTP: for other machines put a
server with TLS in front of it. Runs until Ctrl-C.`,
    examples: [
      ["serve app.db --token-file token.txt", "on this machine, for who knows the token"],
      ["serve app.db --port 0 --no-auth --json", "for a test: any port, told as JSON, for every program here"],
      ["serve hub.db --create --host 0.0.0.0", "a new log for other machines, with SYNCLINE_TOKEN"],
    ],
  })
    .addArgument(DB)
    .addOption(integerOption("--port <n>", "0: any that is free", 0, 65_535).default(DEFAULT_PORT))
    .addOption(new Option("--host <address>", "the address to listen on").default("127.0.0.1"))
  addTokenOptions(serve)
    .addOption(
      new Option("--no-auth", "no token: whoever reaches it may do everything").conflicts(["token", "tokenFile"]),
    )
    .option("--create", "make the file if there is none")
  does(serve, async (output, options: ServeOptions, db: string) => {
    const authorize = authorizeOf(options)
    // Only now: the server and what answers take as long to load as all else together.
    const { serveStore } = await import("./serving.js")
    const { host, port, create } = options
    await withStore(db, create ? "create" : "write", (store) =>
      serveStore(output, store, { db, host, port, authorize }),
    )
  })
}

const DEFAULT_PORT = 7433

interface ServeOptions extends TokenOptions {
  port: number
  host: string
  auth: boolean
  create?: boolean
}

function authorizeOf(options: ServeOptions): SyncRoutesOptions["authorize"] {
  if (!options.auth) return "none"
  const token = tokenOf(options)
  if (token === undefined) {
    throw new UsageError(
      "Nothing is served without a token: give --token-file <file>, or SYNCLINE_TOKEN in the environment; or say --no-auth",
    )
  }
  return { token }
}
