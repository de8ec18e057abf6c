import { checkFunction } from "./argument"
import { native, type NativeOpenOptions } from "./native"

/**
 * How far adopting older tables is, counted over all the times that it was interrupted.
 * @example
 * const onProgress = ({ events, remainingAggregates }: AdoptProgress) => console.log(events, remainingAggregates)
 * open(older, { adopt: true, onProgress }) // prints 2 0
 */
export interface AdoptProgress {
  /** Aggregates that are done. */
  aggregates: number
  /** Events that are in the log. */
  events: number
  /** Bytes of their data. */
  bytes: number
  /** Rows of the older `event_sequence` that are left. */
  remainingAggregates: number
}

/**
 * What was found in older tables that is not as it should be. Nothing of it is lost: `event_adoption_finding` has a row for
 * each, with the values as they were where the log could not take them. It belongs to the application, which may drop it.
 * @example
 * const [finding]: readonly AdoptionFinding[] = open(older, { adopt: true }).adopted?.findings ?? []
 * finding // → { kind: "orphan", aggregateID: "ses_b", … }
 */
export interface AdoptionFinding {
  /** The row of `event_adoption_finding`. */
  key: number
  /**
   * - "orphan": events without a sequence row, which was made.
   * - "empty": a sequence row without events; the log tells of a gap from `seq` through `through`.
   * - "gap": seqs from `seq` through `through` had no event; the log tells of a gap.
   * - "sequence": a sequence row that was behind its events, or no number; the last event's seq was taken.
   * - "duplicate": a second event with the seq of another; the one that was inserted first is in the log, this one is kept.
   * - "event": an event that the log cannot hold, as `message` says; it is kept, and the log tells of a gap in its place.
   * - "aggregate": an event or a sequence row whose aggregate id the log cannot hold; it is kept.
   * - "type": a type without a version; its events are in the log as version 1, as `type` says.
   * - "created": an event whose time is no integer; it is in the log without one, and the time is kept.
   * - "owner": an owner that is no text, or too long; nobody owns the aggregate, and the value is kept.
   * - "view": a view of the application that reads the older tables; it was not touched, and may fail now.
   */
  kind:
    | "orphan"
    | "empty"
    | "gap"
    | "sequence"
    | "duplicate"
    | "event"
    | "aggregate"
    | "type"
    | "created"
    | "owner"
    | "view"
  /** What it is, in words that may change. */
  message: string
  /** Whose; absent where it is about none, or the log cannot hold its id. */
  aggregateID?: string
  /** Of the event, or the first of a gap; as the older row had it where it is kept. */
  seq?: number
  /** The last seq of a gap. */
  through?: number
  /** The event's type: for a kept one as the older row had it. */
  type?: string
  /** How many events it concerns, for a type. */
  events?: number
}

/**
 * What adopting older tables did.
 * @example
 * const adopted: Adopted | undefined = open(older, { adopt: true }).adopted
 * adopted // → { aggregates: 2, events: 2, findingCount: 1, … }
 */
export interface Adopted {
  /** Aggregates that it took. */
  aggregates: number
  /** Events that are now in the log. */
  events: number
  /** Bytes of their data. */
  bytes: number
  /** What was not as it should be, in the order in which it was found; at most 1,000. */
  findings: readonly AdoptionFinding[]
  /** How many there are; the rest are rows of `event_adoption_finding`. */
  findingCount: number
}

/** How long one native call goes on, in milliseconds. */
const STRETCH = 25

/** One step of adopting; the last one says what all of them did. */
export interface AdoptStep {
  readonly progress: AdoptProgress
  readonly adopted: Adopted | undefined
}

/** Converts the older tables of a file; undefined where it has none. What `onProgress` throws interrupts it. */
export function adopt(
  path: string,
  options: NativeOpenOptions,
  onProgress: ((progress: AdoptProgress) => void) | undefined,
): Adopted | undefined {
  checkFunction("onProgress", onProgress)
  let done: Adopted | undefined
  for (const { progress, adopted } of adoption(path, options)) {
    onProgress?.(progress)
    done = adopted
  }
  return done
}

/** The same, a step each time that it is asked; none where there is nothing to convert. Who stops asking interrupts it. */
export function* adoption(path: string, options: NativeOpenOptions): Generator<AdoptStep, void> {
  const handle = native.adoptBegin(path, options)
  if (handle === null) return
  try {
    for (;;) {
      const { more, report } = JSON.parse(native.adoptStep(handle, STRETCH)) as
        { more: true; report: AdoptProgress } | { more: false; report: AdoptProgress & Adopted }
      const { aggregates, events, bytes, remainingAggregates } = report
      const progress = { aggregates, events, bytes, remainingAggregates }
      if (more) yield { progress, adopted: undefined }
      else {
        const { findings, findingCount } = report
        yield { progress, adopted: { aggregates, events, bytes, findings, findingCount } }
        return
      }
    }
  } finally {
    native.adoptEnd(handle)
  }
}
