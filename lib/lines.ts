import { native } from "./native"
import type { ReadContext } from "./read"

/** Which part of the log of many aggregates a reader lacks. */
export interface Lacking {
  /** The last seq that the reader holds of an aggregate; undefined where it knows none. */
  readonly after: (aggregateID: string) => number | undefined
  /** These aggregates alone. Default: all, in the order of their creation. */
  readonly only?: Iterable<string> | undefined
}

/** A part of one aggregate's log as lines of JSON text: log items, the last of all being its `synced`. */
export interface Lines {
  readonly aggregateID: string
  /** UTF-8; each line ends with a line feed. */
  readonly bytes: Uint8Array
  /** How many events are in it, deletion events in tombstones not among them. */
  readonly events: number
  readonly gaps: number
  readonly removed: number
}

/** An aggregate as a reader of many sees it first. */
export interface Listed {
  readonly aggregateID: string
  readonly seq: number
  /** The seq of its tombstone; -1: it has none. */
  readonly removed: number
}

/** Rows of a page; a page has at most about 1 MiB of data beside that. */
const PAGE_ROWS = 1_000

/** Aggregates that are listed at once. */
const LISTED = 1_000

/**
 * The log of many aggregates, one after the other, each up to its last seq when it was listed, with those next to it. What the
 * reader holds already is left out, aggregates without news altogether; a tombstone exactly where the reader stands is told,
 * since it may have been there before the removal. Each part is read in a snapshot of its own, when it is asked for.
 */
export function* lines(context: ReadContext, { after, only }: Lacking): Generator<Lines, void> {
  for (const listed of only === undefined ? created(context) : named(context, only)) {
    const held = after(listed.aggregateID)
    if (hasNews(listed, held)) yield* linesOf(context, listed.aggregateID, held ?? -1, listed.seq)
  }
}

/** Whether there may be something to tell a reader who holds an aggregate through a seq, or knows nothing of it. */
export function hasNews({ seq, removed }: Listed, held: number | undefined): boolean {
  return seq >= 0 && (held === undefined || held < seq || removed >= held)
}

/** The aggregates in the order of their creation, a page at a time. */
export function* createdPages({ handle, transactions }: ReadContext): Generator<Listed[], void> {
  for (let key = 0; ;) {
    transactions.assertOpen()
    const flat = native.created(handle, key, LISTED)
    if (flat.length === 0) return
    const page: Listed[] = []
    for (let at = 0; at < flat.length; at += 4) {
      page.push({ aggregateID: flat[at + 1] as string, seq: flat[at + 2] as number, removed: flat[at + 3] as number })
    }
    key = flat.at(-4) as number
    yield page
  }
}

/** The log of one aggregate from after a seq up to another, and `synced`; nothing where there is nothing to tell. */
export function* linesOf(
  { handle, transactions }: ReadContext,
  aggregateID: string,
  after: number,
  through: number,
): Generator<Lines, void> {
  let last = after
  let told = -1
  let any = false
  for (let done = false; !done;) {
    transactions.assertOpen()
    const [text, reached, isLast, events, gaps, removed] = native.logText(handle, aggregateID, last, through, PAGE_ROWS)
    done = isLast || reached >= through
    last = reached
    // One that came while this is read stands before everything that is left.
    const isNew = removed !== null && removed > told
    told = Math.max(told, removed ?? -1)
    any ||= events > 0 || gaps > 0 || isNew
    // Whoever stands there already, and was not left behind by a removal, hears nothing, also not that this is the end.
    if (done && !any) return
    const synced = { kind: "synced", aggregateID, seq: Math.max(last, through) }
    const bytes = done ? Buffer.concat([text, Buffer.from(`${JSON.stringify(synced)}\n`)]) : text
    yield { aggregateID, bytes, events, gaps, removed: isNew ? 1 : 0 }
  }
}

function* created(context: ReadContext): Generator<Listed, void> {
  for (const page of createdPages(context)) yield* page
}

/** Whether one of these has a tombstone shows when it is read. */
function* named({ handle, transactions }: ReadContext, only: Iterable<string>): Generator<Listed, void> {
  for (const aggregateID of only) {
    transactions.assertOpen()
    const seq = native.sequence(handle, aggregateID)
    yield { aggregateID, seq, removed: seq }
  }
}
