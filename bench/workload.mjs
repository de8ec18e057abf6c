// What every side is given: one projected table, payloads of an exact size, and serialized events. Nothing here knows a
// database, so that no side can have an easier day than another.

/** The table that every projector writes: the same statement text on every side that takes SQL. */
export const sessionTable = `CREATE TABLE IF NOT EXISTS session (
  id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  updated INTEGER NOT NULL
)`

/** One upsert: what a projector does with one event. Parameters: id, title, updated. */
export const sessionUpsert = `INSERT INTO session (id, title, updated) VALUES (?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated = excluded.updated`

/** The unversioned type of the one event that is run and replayed; stored and sent as `session.updated.1`. */
export const eventType = "session.updated"

/** How many bytes the JSON text of a payload has, unless a question says otherwise. */
export const payloadBytes = 200

/** The id of the n-th aggregate: 30 characters, as session servers make them. */
export function aggregateID(n) {
  return `ses_${(n * 2654435761).toString(36).padStart(10, "0").slice(0, 10)}${String(n).padStart(16, "0")}`
}

/** The data of the n-th event: its `JSON.stringify` text is exactly `bytes` long. */
export function payload(n, aggregate, bytes = payloadBytes) {
  const data = { sessionID: aggregate, title: `Session ${n}`, updated: firstMillisecond + n, text: "" }
  const missing = bytes - JSON.stringify(data).length
  if (missing < 0) throw new RangeError(`A payload cannot be made in ${bytes} bytes`)
  const start = n % prose.length
  data.text = prose.repeat(2 + Math.ceil(missing / prose.length)).slice(start, start + missing)
  return data
}

/**
 * `count` payloads over `aggregates` aggregates in an order that jumps about as busy sessions do. The same `first` gives
 * the same payloads, so that all sides of a round write the same thing.
 */
export function payloads(count, aggregates, first = 0) {
  const list = []
  let random = (first + 1) >>> 0
  for (let n = first; n < first + count; n++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0
    list.push(payload(n, aggregateID(Math.floor((random / 2 ** 32) * aggregates))))
  }
  return list
}

/** One payload for each aggregate: with it a file is primed, so that a round measures no first event of an aggregate. */
export function primers(aggregates) {
  return Array.from({ length: aggregates }, (_, n) => payload(n, aggregateID(n)))
}

/** `count` serialized events over `aggregates` aggregates that take turns, as UTF-8 JSONL. */
export function serializedEvents(count, aggregates) {
  const lines = []
  for (let n = 0; n < count; n++) {
    const aggregate = aggregateID(n % aggregates)
    const seq = Math.floor(n / aggregates)
    lines.push(
      JSON.stringify({
        id: eventID(),
        type: `${eventType}.1`,
        seq,
        aggregateID: aggregate,
        data: payload(n, aggregate),
      }),
    )
  }
  return Buffer.from(lines.join("\n") + "\n")
}

/** An ascending event id of 30 characters: what the hand-written rivals call once an event, as session code does. */
export function eventID() {
  // A counter that outruns its three digits borrows the next millisecond, as monotonic ids do: never out of order.
  const now = Math.max(Date.now(), lastMillisecond)
  const overflow = now === lastMillisecond && counter === 0xfff
  counter = now !== lastMillisecond || overflow ? 0 : counter + 1
  lastMillisecond = overflow ? now + 1 : now
  const random = () => ((Math.random() * 36 ** 6) | 0).toString(36).padStart(6, "0")
  return `evt_${lastMillisecond.toString(16).padStart(12, "0")}${counter.toString(16).padStart(3, "0")}${random()}${random().slice(1)}`
}

const firstMillisecond = 1795330939720
const prose =
  "The build finished with two warnings and the tests of the parser passed; the next step is to read what the linter " +
  "said about the unused import and to move the check beside its twin. "
let lastMillisecond = 0
let counter = 0
