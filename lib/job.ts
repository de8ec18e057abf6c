import { setImmediate } from "node:timers/promises"
import { checkFunction, checkSignal } from "./argument"
import type { WriteContext } from "./context"
import { SyncError, type ErrorCode, type ErrorFields } from "./errors"
import { native, type JobHandle } from "./native"

/**
 * What every long job on the file takes.
 * @example
 * const options: JobOptions<{ phase: string }> = { onProgress: ({ phase }) => phases.add(phase) }
 * const phases = new Set<string>()
 * await store.verify(options)
 * phases.has("done") // → true
 */
export interface JobOptions<Report> {
  /** Ends it after the step that it is at; what has been done stays done. The promise rejects with `ERR_ABORTED`. */
  signal?: AbortSignal | undefined
  /** Called from time to time with what has been done so far. What it throws ends the job and rejects the promise. */
  onProgress?: ((report: Report) => void) | undefined
}

/** How long one native call goes on with steps, in milliseconds. */
const STRETCH = 25

/** Between two attempts at a step that somebody's lock has refused. */
const REST = 50

/** Steps a job until it is done, or `until` (of `performance.now`) has passed. Answers whether it is done. */
export async function runJob<Report>(
  context: WriteContext,
  call: string,
  begin: () => JobHandle,
  options: JobOptions<Report>,
  until = Infinity,
): Promise<{ report: Report; complete: boolean }> {
  const { transactions, handle, busyTimeout } = context
  const signal = checkSignal(options.signal)
  checkFunction("onProgress", options.onProgress)
  transactions.assertUsable(call)
  const job = begin()
  const here = native.jobIsHere(job)
  try {
    let report: Report | undefined
    let busySince: number | undefined
    for (;;) {
      if (signal?.aborted) throw new SyncError("ERR_ABORTED", `${call} was aborted`, { cause: signal.reason })
      if (transactions.closed) throw new SyncError("ERR_CLOSED", `The store was closed during ${call}`)
      // One step at first, so that whoever watches, or may want to stop it, hears of it at once.
      const stretch = report === undefined ? 0 : STRETCH
      const start = performance.now()
      const step = JSON.parse(here ? native.jobStepHere(handle, job, stretch) : await native.jobStep(job, stretch)) as
        { more: boolean; report: Report } | { code: ErrorCode; message: string; fields: ErrorFields }
      if ("code" in step) {
        if (step.code !== "ERR_BUSY") throw new SyncError(step.code, step.message, step.fields)
        busySince ??= start
        const waited = Math.floor(performance.now() - busySince)
        if (waited >= busyTimeout) {
          const reason = step.message.replace(/ \(waited \d+ ms\)$/, "")
          throw new SyncError(step.code, `${call}: ${reason} (waited ${waited} ms)`, { waited })
        }
        await new Promise((resolve) => setTimeout(resolve, Math.min(REST, busyTimeout - waited)))
        continue
      }
      busySince = undefined
      report = step.report
      options.onProgress?.(report)
      if (!step.more) return { report, complete: true }
      if (performance.now() >= until) return { report, complete: false }
      if (here) await setImmediate()
    }
  } finally {
    native.jobEnd(job)
  }
}
