import { CommanderError } from "commander"
import { SyncError, type ErrorCode } from "../errors"
import { Interrupted } from "./interrupt"
import { isBrokenPipe, type Output } from "./output"
import { printable } from "./text"

/** How a command ends; docs/cli.md says what each means. */
export const EXIT = { done: 0, failed: 1, usage: 2, findings: 3 } as const

/** The command line asks for something that cannot be. */
export class UsageError extends Error {}

/** What to do about an error, where the command line has an answer. */
const HINTS: Partial<Record<ErrorCode, string>> = {
  ERR_FOREIGN_SCHEMA: "Tables of an older event log are taken over with: syncline adopt <db>",
  ERR_CORRUPT: "What is wrong with the file is told by: syncline verify <db>. Where that fails, too, it takes a copy.",
  ERR_BUSY: "Another program holds the file. Try again when it is done.",
  ERR_NOT_OWNER: "Who owns what is told by: syncline ls <db>",
  ERR_UNAUTHORIZED: "Give the server's token: --token-file <file>, or SYNCLINE_TOKEN in the environment.",
  ERR_UNREACHABLE: "Check the address, and that the server runs: syncline serve <db>, or a cluster's nats-server.",
  ERR_PROTOCOL: "Check the address: what answers there is no sync server.",
  ERR_UNKNOWN_EVENT: "The program that knows these events has to do this, or to `reproject` first.",
}

/** Says why a command ended, and answers with what it exits. */
export async function report(error: unknown, output: Output): Promise<number> {
  // What commander has to say it has written already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
  if (isBrokenPipe(error)) return EXIT.done
  if (error instanceof Interrupted) {
    const { message } = error
    await (output.json ? output.error(message, { code: "ERR_ABORTED", message }) : output.note(`${message}.`))
    return error.exitCode
  }
  if (error instanceof UsageError) {
    await output.error(error.message, { code: "ERR_INVALID_ARGUMENT", message: error.message })
    return EXIT.usage
  }
  if (error instanceof SyncError) {
    const { code, message } = error
    await output.error(`${message} (${code})`, { code, message, ...fieldsOf(error) }, HINTS[code])
    return code === "ERR_INVALID_ARGUMENT" ? EXIT.usage : EXIT.failed
  }
  const { code, message } = described(error)
  await output.error(message, { code, message })
  // The system's own errors say what is wrong with a file or an address; any other one is a bug, and its place matters.
  if (code === "ERR_INTERNAL" && error instanceof Error) {
    await output.note((error.stack ?? "").split("\n").map(printable).join("\n"))
  }
  return EXIT.failed
}

/** What an error knows beside code and message, as JSON can say it. */
export function fieldsOf(error: SyncError): object {
  const { name: _name, code: _code, delivered, ...fields } = { ...error, name: undefined }
  return delivered === undefined ? fields : { ...fields, delivered: Object.fromEntries(delivered) }
}

/** Code and message of whatever was thrown. */
export function described(error: unknown): { code: string; message: string } {
  const { code = "ERR_INTERNAL", message = String(error) } = (error ?? {}) as { code?: string; message?: string }
  return { code, message }
}
