import { interruptible } from "./interrupt"
import type { Output } from "./output"
import { Progress, type Unit } from "./progress"

/** Long work under a bar, which a signal ends. */
export async function watched<T>(
  output: Output,
  title: string,
  unit: Unit,
  work: (progress: Progress, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const progress = new Progress(title, unit, !output.json)
  output.progress = progress
  try {
    return await interruptible(output, (signal) => work(progress, signal))
  } finally {
    progress.hide()
    output.progress = undefined
  }
}
