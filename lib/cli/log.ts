import { Argument, type Command } from "commander"
import { MAX_SEQ } from "../argument"
import { SyncError, show } from "../errors"
import type { LogItem } from "../log"
import type { PositionedEvent, SerializedEvent } from "../payload"
import type { Store } from "../store"
import { AGGREGATE, DB, addCommand, does, integerOption } from "./command"
import { withStore } from "./database"
import { UsageError } from "./failure"
import { untilStopped } from "./interrupt"
import type { Output } from "./output"
import { columns, fit, jsonLine, printable, size, time } from "./text"

/** `log`, `show`: the events themselves. */
export function addLog(program: Command): void {
  const log = addCommand(program, "log", {
    summary: "print the events of an aggregate, or of all",
    about: `With an aggregate, its log: events in the order of their seqs, gaps, and what was removed. Without one, all
events in the order of their commits, each with its position in this file; gaps and removals are not in it.

On a terminal an event is one line, cut to fit; in a pipe its data is complete. With --json each line is a log item
({"kind": "event" | "gap" | "removed" | "synced", …}), or, without an aggregate, an event with its position.`,
    examples: [
      ["log app.db ses_1", "everything about ses_1"],
      ["log app.db ses_1 --after 41", "what came after seq 41"],
      ["log app.db --follow", "all events, then those that any program commits, until Ctrl-C"],
      ["log app.db ses_1 --json | jq .event.data", "the data alone"],
    ],
  })
  log
    .addArgument(DB)
    .addArgument(new Argument("[aggregate]", AGGREGATE.description))
    .addOption(integerOption("--after <n>", "only what comes after this seq; without an aggregate, this position", -1))
    .addOption(integerOption("--limit <n>", "at most so many events", 1))
    .option("--follow", "go on with what is committed from now on, by any program, until Ctrl-C")
  does(log, (output, options: LogOptions, db: string, aggregateID?: string) => {
    const reading = (signal?: AbortSignal) =>
      withStore(db, "read", (store) => {
        const items =
          aggregateID === undefined ? everything(store, options, signal) : logOf(store, aggregateID, options, signal)
        return printAll(output, items)
      })
    return options.follow ? untilStopped(output, reading) : reading()
  })

  const show = addCommand(program, "show", {
    summary: "show one event with all its data",
    about: `By its place, which is found at once, or by its id, for which the whole log is searched.`,
    examples: [
      ["show app.db ses_1@12", "seq 12 of ses_1"],
      ["show app.db evt_01JY4ZJ7Q2X8C5W0K9B3N6M1RT", "the event with this id"],
      ["show app.db ses_1@12 --json | jq .data", "its data"],
    ],
  })
    .addArgument(DB)
    .addArgument(new Argument("<event>", "AGGREGATE@SEQ, or the id of an event"))
  does(show, (output, _options: object, db: string, name: string) =>
    withStore(db, "read", async (store) => {
      const event = await find(store, name)
      await (output.json ? output.printJSON(event) : output.print(...described(output, event)))
    }),
  )
}

interface LogOptions {
  after?: number
  limit?: number
  follow?: boolean
}

/** What a line is made of: a log item, or an event with its position. */
type Item = LogItem | PositionedEvent

/** Events that are printed at once. */
const PAGE = 500

async function* logOf(
  store: Store,
  aggregateID: string,
  options: LogOptions,
  signal: AbortSignal | undefined,
): AsyncGenerator<LogItem[]> {
  const { after = -1, limit = Infinity, follow } = options
  if (store.owner(aggregateID) === undefined && !follow) throw unknown(aggregateID)
  let page: LogItem[] = []
  let events = 0
  // A page goes out when it is full, and at once what is followed.
  let live = false
  for await (const item of store.log({ aggregateID, after, follow, signal })) {
    page.push(item)
    if (item.kind === "event" && ++events >= limit) break
    live ||= item.kind === "synced"
    if (page.length < PAGE && !live) continue
    yield page
    page = []
  }
  yield page
}

/** All events by position; with `follow`, again whenever somebody has committed. */
async function* everything(
  store: Store,
  options: LogOptions,
  signal: AbortSignal | undefined,
): AsyncGenerator<PositionedEvent[]> {
  const { after = 0, limit = Infinity, follow } = options
  let position = Math.max(0, after)
  let left = limit
  const changes = follow ? store.changes({ signal }) : [undefined]
  for await (const _ of changes) {
    for (;;) {
      const page = store.readAll({ afterPosition: position, limit: Math.min(left, PAGE) })
      if (page.length === 0) break
      yield page
      position = (page.at(-1) as PositionedEvent).position
      left -= page.length
      if (left <= 0 || signal?.aborted) return
    }
  }
}

async function printAll(output: Output, pages: AsyncIterable<Item[]>): Promise<void> {
  for await (const page of pages) {
    if (output.json) await output.printJSON(...page)
    else await output.print(...page.map((item) => line(output, item)).filter((text) => text !== undefined))
  }
}

/** One item for people; undefined for what only programs need. */
function line(output: Output, item: Item): string | undefined {
  const { yellow } = output.colors
  if (!("kind" in item))
    return eventLine(output, item, `${item.position}  ${named(output, item.aggregateID)}@${item.seq}`)
  if (item.kind === "event") return eventLine(output, item.event, String(item.event.seq))
  if (item.kind === "gap") return yellow(`${item.after + 1}–${item.through}  gap: these events exist no more`)
  if (item.kind === "synced") return undefined
  const by =
    item.event === undefined ? "" : `, by ${printable(item.event.type)}: ${preview(item.event.data, output.width)}`
  return yellow(fit(`0–${item.seq}  removed${by}`, output.width))
}

/** On a terminal an id leaves some room for what was said of it. */
function named({ width }: Output, aggregateID: string): string {
  return fit(printable(aggregateID), width && Math.max(12, Math.floor(width / 3)))
}

function eventLine({ width, colors }: Output, { created, type, data }: SerializedEvent, place: string): string {
  const { dim, cyan } = colors
  const [when, what] = [time(created), printable(type)]
  const room = width && width - columns(`${place}  ${when}  ${what}  `)
  if (room !== undefined && room < 1) return fit(`${place}  ${when}  ${what}`, width)
  return `${place}  ${dim(when)}  ${cyan(what)}  ${fit(preview(data, room), room)}`
}

/** Data on one line. Of what does not fit no more is escaped than can be seen. */
function preview(data: unknown, width: number | undefined): string {
  const text = jsonLine(data, false)
  return printable(width === undefined ? text : text.slice(0, width * 8))
}

/** An event as `show` gives it. */
type Shown = PositionedEvent | SerializedEvent

/** By place or by id. */
async function find(store: Store, name: string): Promise<Shown> {
  const [, aggregateID = "", digits = ""] = /^(.+)@(\d+)$/s.exec(name) ?? []
  const seq = Number(digits)
  const isPlace = aggregateID !== "" && seq <= MAX_SEQ
  const event = isPlace ? positioned(store, aggregateID, seq) : undefined
  if (event !== undefined) return event
  if (isPlace && store.owner(aggregateID) !== undefined) return missing(store, aggregateID, seq)
  const found = store.db
    .prepare("SELECT aggregate_id AS aggregateID, seq FROM event_history WHERE id = ? LIMIT 2")
    .all(name) as { aggregateID: string; seq: number }[]
  const [first, second] = found
  if (first !== undefined && second !== undefined) {
    const places = found.map((place) => `${place.aggregateID}@${place.seq}`)
    throw new UsageError(`Several events have this id: say which by its place, ${places.join(" or ")}`)
  }
  const only = first === undefined ? undefined : positioned(store, first.aggregateID, first.seq)
  if (only !== undefined) return only
  if (isPlace) throw unknown(aggregateID)
  throw new SyncError("ERR_NOT_FOUND", `No event has the id ${show(name)}`)
}

function positioned(store: Store, aggregateID: string, seq: number): PositionedEvent | undefined {
  const event = store.get(aggregateID, seq)
  if (event === undefined) return undefined
  const position = store.db
    .prepare("SELECT position FROM event_history(?) WHERE seq = ?")
    .pluck()
    .get(aggregateID, seq) as number
  return { ...event, position }
}

/** What the log says in the place of an event that is not there. */
async function missing(store: Store, aggregateID: string, seq: number): Promise<Shown> {
  const place = `seq ${seq} of ${show(aggregateID)}`
  for await (const item of store.log({ aggregateID, after: seq - 1 })) {
    if (item.kind === "removed" && item.event?.seq === seq) return item.event
    if (item.kind === "removed" && seq <= item.seq) throw gone(`${place} was removed`, aggregateID, seq)
    if (item.kind === "gap" && seq <= item.through)
      throw gone(`${place} exists no more: it lies in a gap`, aggregateID, seq)
    if (item.kind === "event") break
  }
  throw gone(`There is no ${place}: its last seq is ${store.sequence(aggregateID)}`, aggregateID, seq)
}

function gone(message: string, aggregateID: string, seq: number): SyncError {
  return new SyncError("ERR_NOT_FOUND", message.replace(/^seq/, "Seq"), { aggregateID, seq })
}

/** The refusal of an aggregate that the log does not know. */
export function unknown(aggregateID: string): SyncError {
  return new SyncError("ERR_NOT_FOUND", `There is no aggregate ${show(aggregateID)}`, { aggregateID })
}

function described(output: Output, event: Shown): string[] {
  const { bold, dim } = output.colors
  const { id, type, aggregateID, seq, created, metadata, data } = event
  const text = JSON.stringify(data, null, 2)
  const facts: [string, string][] = [
    ["id", id],
    ["type", type],
    ["created", time(created)],
    ...("position" in event ? [["position", String(event.position)] as [string, string]] : []),
    ...(metadata === undefined ? [] : [["metadata", JSON.stringify(metadata)] as [string, string]]),
    ["data", size(Buffer.byteLength(JSON.stringify(data)))],
  ]
  return [
    bold(`${printable(aggregateID)}@${seq}`),
    ...facts.map(([name, fact]) => `  ${dim(name.padEnd(10))}${printable(fact)}`),
    ...text.split("\n").map(printable),
  ]
}
