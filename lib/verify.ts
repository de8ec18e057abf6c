import { checkBoolean, checkFunction, checkOptions } from "./argument"
import type { WriteContext } from "./context"
import { runJob, type JobOptions } from "./job"
import { native } from "./native"

/**
 * Something in the file that is not as Syncline writes it.
 * @example const findings: Finding[] = await store.verify() // → []
 */
export interface Finding {
  /** Its kind; stable, unlike the message. */
  code:
    | "aggregate-unreadable"
    | "event-conflict"
    | "event-duplicate"
    | "event-invalid"
    | "event-order"
    | "event-removed"
    | "event-unreadable"
    | "events-missing"
    | "file-damaged"
    | "foreign-key"
    | "gap-covers-events"
    | "gap-invalid"
    | "gap-overlap"
    | "index-damaged"
    | "orphan"
    | "position-floor"
    | "position-order"
    | "position-twice"
    | "row-behind-segment"
    | "segment-unreadable"
    | "sequence-behind"
    | "sequence-invalid"
    | "table-unchecked"
    | "tombstone-unreadable"
    | "too-many-findings"
    | "type-missing"
    | "unknown-type"
  /** `"warning"`: nothing is damaged, but this store cannot use all of it. */
  severity: "error" | "warning"
  /** What it means, and what to do. */
  message: string
  /** Whose; absent where it is about no single aggregate. */
  aggregateID?: string
  /** Of a range, `after < seq <= through`. */
  after?: number
  /** See `after`. */
  through?: number
  /** Of a single event. */
  seq?: number
  /** The event's type, with its version: `session.updated.1`. */
  type?: string
  /** What `repair` did about it. Absent: nothing. */
  repaired?: string
}

/**
 * How far `verify` is.
 * @example
 * const onProgress = ({ phase, events }: VerifyProgress) => phase === "done" && console.log(events)
 * await store.verify({ onProgress }) // prints 2
 */
export interface VerifyProgress {
  /**
   * What it is at: SQLite's own checks, each one long step that reads the whole file in one snapshot, or the events, in
   * steps of some megabytes. `signal` is heeded between steps.
   */
  phase: "file" | "events" | "done"
  /** Aggregates that have been checked. */
  aggregates: number
  /** Their events. */
  events: number
  /** Bytes of their data. */
  bytes: number
  /** How many findings there are so far. */
  findings: number
}

/**
 * What `verify` takes.
 * @example
 * const options: VerifyOptions = { repair: true }
 * const findings = await store.verify(options) // → []
 */
export interface VerifyOptions extends JobOptions<VerifyProgress> {
  /** Mends what can be mended without loss, and says in each finding's `repaired` what it did. Default false. */
  repair?: boolean | undefined
}

/** Looks whether the file holds what Syncline writes. */
export async function verify(context: WriteContext, options?: VerifyOptions): Promise<Finding[]> {
  const { repair, signal, onProgress } = checkOptions("verify", options, ["repair", "signal", "onProgress"])
  const repairs = checkBoolean("repair", repair, false)
  checkFunction("onProgress", onProgress)
  const begin = () => native.verification(context.handle, repairs)
  let findings: Finding[] = []
  await runJob<VerifyProgress & { found?: Finding[] }>(context, "verify", begin, {
    signal,
    onProgress({ found, ...progress }) {
      if (found !== undefined) findings = found
      onProgress?.(progress)
    },
  })
  return findings
}
