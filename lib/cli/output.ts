import { createColors } from "picocolors"
import type { Progress } from "./progress"
import { jsonLine, printable } from "./text"

/** Where a command's results go: stdout; and what it says about them: stderr. */
export class Output {
  /** Of stdout. */
  readonly colors = createColors(isColorful(process.stdout))
  /** Columns of the terminal; undefined where stdout is none, or does not know (0): text may be as wide as it is. */
  readonly width: number | undefined = (process.stdout.isTTY && process.stdout.columns) || undefined
  readonly #errorColors = createColors(isColorful(process.stderr))
  #progress: Progress | undefined
  #signal: AbortSignal | undefined

  /** `json`: one document on stdout, or one a line, and nothing else anywhere but errors and warnings as JSON. */
  constructor(readonly json: boolean) {
    // Whoever writes hears of it; without a listener it would end the process with a stack.
    for (const stream of [process.stdout, process.stderr])
      if (stream.listenerCount("error") === 0) stream.on("error", ignore)
  }

  /** Shown above everything else that is written to the terminal, until it ends. */
  set progress(progress: Progress | undefined) {
    this.#progress = progress
  }

  /** Once it aborts nobody waits any more for whoever reads stdout, and nothing more is written there. */
  set signal(signal: AbortSignal) {
    this.#signal = signal
  }

  /** Lines for people, printable already. */
  print(...lines: string[]): Promise<void> {
    return this.printLines(lines)
  }

  /** The same of any number of lines. */
  printLines(lines: readonly string[]): Promise<void> {
    return this.#write(process.stdout, lines)
  }

  /** Documents for programs. */
  async printJSON(...values: unknown[]): Promise<void> {
    await this.#write(
      process.stdout,
      values.map((value) => jsonLine(value, process.stdout.isTTY)),
    )
  }

  /** Text or bytes, as they are. */
  async write(chunk: string | Uint8Array): Promise<void> {
    await this.#written(process.stdout, chunk)
  }

  /** Something that people want to know, and that is no result. */
  async note(text: string): Promise<void> {
    if (!this.json) await this.#write(process.stderr, [this.#errorColors.dim(text)])
  }

  /** Something that went otherwise than was asked for. `fields`: of the JSON. */
  async warn(message: string, fields: object = {}): Promise<void> {
    const text = `${this.#errorColors.yellow("warning:")} ${printable(message)}`
    await this.#write(process.stderr, [
      this.json ? jsonLine({ warning: message, ...fields }, process.stderr.isTTY) : text,
    ])
  }

  /** Why the command ends. `hint`: what to do about it. */
  async error(message: string, fields: object, hint?: string): Promise<void> {
    const { red, dim } = this.#errorColors
    const text = [`${red("error:")} ${printable(message)}`, ...(hint === undefined ? [] : [dim(hint)])]
    await this.#write(process.stderr, this.json ? [jsonLine(fields, process.stderr.isTTY)] : text)
  }

  /** Resolves when everything has left this process. */
  async flush(): Promise<void> {
    await Promise.all([this.#written(process.stdout, ""), this.#written(process.stderr, "")])
  }

  async #write(stream: NodeJS.WriteStream, lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return
    await this.#written(stream, `${lines.join("\n")}\n`)
  }

  /** Resolves when the chunk has left this process, so that a reader who is slow slows down the writer. */
  #written(stream: NodeJS.WriteStream, chunk: string | Uint8Array): Promise<void> {
    if (stream.isTTY) this.#progress?.hide()
    const signal = stream === process.stdout ? this.#signal : undefined
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal?.reason)
      if (signal?.aborted) return abort()
      signal?.addEventListener("abort", abort, { once: true })
      stream.write(chunk, (error) => {
        signal?.removeEventListener("abort", abort)
        if (error) reject(error)
        else resolve()
      })
    })
  }
}

/** Only on a terminal, whatever the environment says, and not where somebody asks for none (no-color.org). */
export function isColorful(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb"
}

/** Nobody reads what is written any more: `| head` has ended. */
export function isBrokenPipe(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown }
  return code === "EPIPE" || code === "ERR_STREAM_DESTROYED"
}

function ignore() {}
