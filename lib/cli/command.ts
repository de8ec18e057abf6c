import { Argument, InvalidArgumentError, Option, type Command } from "commander"
import { Output } from "./output"

/** What every command's help shows beside arguments and options. */
export interface Help {
  /** One line, for the list of commands. */
  readonly summary: string
  /** What one has to know before using it, as paragraphs; the summary comes first by itself. */
  readonly about?: string
  /** Command lines without "syncline", each with what it does. */
  readonly examples: readonly (readonly [line: string, does: string])[]
}

/** The first argument of nearly every command. */
export const DB = new Argument("<db>", "the database file")

/** One aggregate's id, as an argument. */
export const AGGREGATE = new Argument("<aggregate>", "the id of an aggregate")

/** Adds a command with what all of them have; `does` completes it. */
export function addCommand(program: Command, name: string, { summary, about, examples }: Help): Command {
  const sentence = `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`
  // Commander breaks lines where the terminal ends, and nowhere else.
  const paragraphs = about?.replaceAll(/(?<!\n)\n(?!\n)/g, " ")
  const lines = examples.flatMap(([line, does]) => [`  syncline ${line}`, `      ${does}`])
  return program
    .command(name)
    .summary(summary)
    .description(paragraphs === undefined ? sentence : `${sentence}\n\n${paragraphs}`)
    .addHelpText("after", ["", "Examples:", ...lines].join("\n"))
    .showHelpAfterError(`(syncline ${name} --help says more)`)
}

/** What the command does, and how it ends: a code of `EXIT`, or done. */
export function does<Options, Arguments extends unknown[]>(
  command: Command,
  work: (output: Output, options: Options, ...args: Arguments) => Promise<number | void>,
): void {
  command.option("--json", "write JSON, also of errors")
  command.action(async (...given: unknown[]) => {
    // After the arguments commander gives the options, and the command.
    const options = given.at(-2) as Options & { json?: boolean }
    const output = new Output(options.json === true)
    process.exitCode = (await work(output, options, ...(given.slice(0, -2) as Arguments))) ?? 0
  })
}

const MOST = Number.MAX_SAFE_INTEGER

/** An option whose value is an integer in a range. */
export function integerOption(flags: string, description: string, from: number, through = MOST): Option {
  return new Option(flags, description).argParser((text: string) => {
    const value = Number(text)
    if (!/^-?\d+$/.test(text) || value < from || value > through) {
      const range = through === MOST ? `${from}` : `${from} through ${through}`
      throw new InvalidArgumentError(`It must be an integer from ${range}.`)
    }
    return value
  })
}

/** An option that may be given several times. */
export function repeatedOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string, before: string[] = []) => [...before, text])
}
