import type { SyncError } from "./errors"
import type { Event } from "./payload"
import { isThenable } from "./promise"
import { described } from "./publish"
import type { Skipped } from "./transaction"

/**
 * Hears of an event whose projector failed on a constraint and is to be skipped (`onConstraint: "skip"`). What it throws or
 * rejects with becomes a process warning.
 * @example
 * const insert = project(Created, sql`INSERT INTO session VALUES (:aggregateID, '')`, { onConstraint: "skip" })
 * const onSkipped: SkippedHandler = ({ constraint }, { seq }) => console.log(seq, constraint)
 * const other = open(":memory:", { ...session, projectors: [insert], onSkipped })
 * other.run(Created, { sessionID: "ses_2", title: "Untitled" })
 * other.run(Created, { sessionID: "ses_2", title: "Untitled" }) // prints 1 session.id
 */
export type SkippedHandler = (error: SyncError, event: Event) => void

/** Tells of skipped projectors, in the order of their commits. */
export class Skips {
  readonly #queue: Skipped[] = []
  #telling = false

  constructor(private readonly onSkipped: SkippedHandler = warn) {}

  /** To be called before the same commit is published: a listener may commit, too, and that comes later. */
  add(skipped: readonly Skipped[]): void {
    this.#queue.push(...skipped)
  }

  /** Tells of everything that waits, unless a call further up the stack will go on with it. */
  tell(): void {
    if (this.#telling || this.#queue.length === 0) return
    this.#telling = true
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) this.#tellOf(next)
    } finally {
      this.#telling = false
    }
  }

  #tellOf({ error, event }: Skipped): void {
    try {
      const result: unknown = this.onSkipped(error, event)
      if (isThenable(result)) Promise.resolve(result).catch((thrown: unknown) => failed(thrown, event))
    } catch (thrown) {
      failed(thrown, event)
    }
  }
}

/** What is skipped in silence is found when it is too late. */
function warn(error: SyncError, { type, aggregateID, seq }: Event): void {
  process.emitWarning(
    `What an event changes in the tables was skipped ("${type}" of aggregate "${aggregateID}", seq ${seq}): ${error.message}`,
    { type: "SynclineWarning", code: "PROJECTOR_SKIPPED" },
  )
}

function failed(thrown: unknown, { type, aggregateID, seq }: Event): void {
  const { code, reason } = described(thrown)
  process.emitWarning(
    `onSkipped failed for an event of "${type}" (aggregate "${aggregateID}", seq ${seq}): ${reason}`,
    { type: "SynclineWarning", code },
  )
}
