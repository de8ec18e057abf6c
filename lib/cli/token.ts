import { readFileSync } from "node:fs"
import { Option, type Command } from "commander"
import { assertExists } from "./database"
import { UsageError } from "./failure"

/** Where a token comes from. */
export interface TokenOptions {
  token?: string
  tokenFile?: string
}

/** The ways to give a token that all commands have which need one; its text is never printed. */
export function addTokenOptions(command: Command): Command {
  return command
    .addOption(new Option("--token <token>", "the server's token; other users of this machine can see it so"))
    .addOption(
      new Option(
        "--token-file <file>",
        "a file with the token; else it is SYNCLINE_TOKEN of the environment",
      ).conflicts("token"),
    )
}

/** The token that was given; undefined: none. */
export function tokenOf({ token, tokenFile }: TokenOptions): string | undefined {
  if (tokenFile === undefined) return token ?? (process.env["SYNCLINE_TOKEN"] || undefined)
  assertExists(tokenFile, "")
  const text = readFileSync(tokenFile, "utf8").trim()
  if (text === "") throw new UsageError(`The file ${tokenFile} has no token in it`)
  return text
}
