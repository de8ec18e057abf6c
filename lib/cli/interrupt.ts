import { SyncError } from "../errors"
import type { Output } from "./output"

/** What ends a command from outside: Ctrl-C, or whoever asks it to end. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const

/** What stops sooner needs no explanation, in milliseconds. */
const SLOW = 300

type Name = keyof typeof SIGNALS

/** A signal ended the command before it was done; what has been done stays done. */
export class Interrupted extends Error {
  readonly exitCode: number

  constructor(signal: Name) {
    super(`Interrupted by ${signal}`)
    this.exitCode = SIGNALS[signal]
  }
}

/**
 * Does long work that a signal ends cleanly: the step that it is at is finished, and it rejects with {@link Interrupted}. A
 * second signal ends the process at once, by the system's own means, since this program may be in the middle of a long call.
 */
export async function interruptible<T>(output: Output, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  output.signal = controller.signal
  const listeners = (Object.keys(SIGNALS) as Name[]).map((name) => [name, () => stop(name)] as const)
  const release = () => {
    for (const [name, listener] of listeners) process.off(name, listener)
  }
  let slow: NodeJS.Timeout | undefined
  const stop = (name: Name) => {
    release()
    const patience = () => void output.note("Stopping after this step. Once more stops at once.").catch(() => {})
    slow = setTimeout(patience, SLOW)
    controller.abort(new Interrupted(name))
  }
  for (const [name, listener] of listeners) process.on(name, listener)
  try {
    return await work(controller.signal)
  } catch (error) {
    const { aborted, reason } = controller.signal
    throw aborted && isAbort(error, reason) ? reason : error
  } finally {
    release()
    clearTimeout(slow)
  }
}

/** For work that has no end of its own: to be stopped is its end, and no error. */
export async function untilStopped(output: Output, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  try {
    await interruptible(output, work)
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
  }
}

function isAbort(error: unknown, reason: unknown): boolean {
  return error === reason || (error instanceof SyncError && error.code === "ERR_ABORTED")
}
