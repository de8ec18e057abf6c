import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Command } from "commander"
import { createColors } from "picocolors"
import { addCluster } from "./cluster"
import { addCompletion } from "./completion"
import { EXIT, report } from "./failure"
import { addLog } from "./log"
import { addLook } from "./look"
import { addMend } from "./mend"
import { Output, isColorful } from "./output"
import { addMove } from "./move"
import { addOwn } from "./own"
import { addServe } from "./serve"
import { addShare } from "./share"

/** Runs one command line; resolves to what the process exits with. */
export async function main(args: readonly string[]): Promise<number> {
  const output = new Output(wantsJSON(args))
  const program = createProgram(output)
  try {
    await program.parseAsync(args, { from: "user" })
    return await ended(output, Number(process.exitCode ?? EXIT.done))
  } catch (error) {
    return report(error, output).then(
      (code) => ended(output, code),
      () => EXIT.failed,
    )
  }
}

/** With everything written, by commander too; nobody reading it is no failure. */
function ended(output: Output, code: number): Promise<number> {
  return output.flush().then(
    () => code,
    () => code,
  )
}

function createProgram(output: Output): Command {
  const program = new Command("syncline")
    .description(
      "Looks into, mends, moves and shares event logs of Syncline.\n\nIt needs no definitions of the program's: events are shown as recorded, and nothing is projected.",
    )
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .addHelpText("after", EPILOGUE)
    .showHelpAfterError("(syncline --help lists the commands)")
    .exitOverride()
    .configureHelp({
      styleTitle: (title) => createColors(true).bold(title),
      subcommandTerm: (command) => command.name(),
    })
    .configureOutput({
      getOutHasColors: () => isColorful(process.stdout),
      getErrHasColors: () => isColorful(process.stderr),
      // Errors as JSON are one document; what commander adds to them for people is not.
      writeErr: (text) => void (output.json || process.stderr.write(text)),
      outputError: (text) => void complain(output, text).catch(() => {}),
    })
  program.commandsGroup("To look:")
  addLook(program)
  addLog(program)
  program.commandsGroup("To mend:")
  addMend(program)
  program.commandsGroup("To decide:")
  addOwn(program)
  program.commandsGroup("To move:")
  addMove(program)
  program.commandsGroup("To share:")
  addServe(program)
  addShare(program)
  addCluster(program)
  program.commandsGroup("Further:")
  addCompletion(program)
  program.helpCommand("help [command]", "print the help of a command")
  return program
}

/** Also where the command line cannot be understood. */
function wantsJSON(args: readonly string[]): boolean {
  const end = args.indexOf("--")
  return args.slice(0, end < 0 ? undefined : end).includes("--json")
}

function version(): string {
  const manifest = readFileSync(join(__dirname, "..", "..", "package.json"), "utf8")
  return (JSON.parse(manifest) as { version: string }).version
}

/** What commander has to say about a command line that it does not understand. */
function complain(output: Output, text: string): Promise<void> {
  const [message = "", ...hints] = text.trim().split("\n")
  const plain = message.replace(/^error: /, "")
  return output.error(plain, { code: "ERR_INVALID_ARGUMENT", message: plain }, hints.join("\n") || undefined)
}

const EPILOGUE = `
Every command takes --json. Exit codes: 0 done, 1 refused or failed, 2 wrong
command line, 3 done, but there is something to look at, 130 interrupted.`
