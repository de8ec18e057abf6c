import { Option, type Command } from "commander"
import type { AggregateSummary } from "../read"
import type { Stats } from "../stats"
import type { Store } from "../store"
import { DB, addCommand, does, integerOption } from "./command"
import { withStore } from "./database"
import type { Output } from "./output"
import { count, counted, percent, printable, size, table, type Column } from "./text"

/** `ls`, `stats`: what a file holds. */
export function addLook(program: Command): void {
  const ls = addCommand(program, "ls", {
    summary: "list the aggregates of a log",
    about: `Each with its last seq, how many events it has and how many bytes of data, and who owns it. "projected" is
there where some events are only stored, and wait for the program's \`reproject\`.`,
    examples: [
      ["ls app.db", "all of them, ordered by id"],
      ["ls app.db --prefix ses_ --limit 20", "the first 20 whose ids begin with ses_"],
      ["ls app.db --json | jq -r '.[].aggregateID'", "their ids, exactly"],
    ],
  })
  ls.addArgument(DB)
    .addOption(new Option("--prefix <text>", "only aggregates whose ids begin with it"))
    .addOption(integerOption("--limit <n>", "at most so many", 0))
  does(ls, (output, options: LsOptions, db: string) => withStore(db, "read", (store) => list(output, store, options)))

  const stats = addCommand(program, "stats", {
    summary: "tell what a file holds, and what takes the room",
    about: "No payload is read: it takes milliseconds. Of many events that are not packed, sizes are estimates.",
    examples: [
      ["stats app.db", "totals, types, the largest aggregates and events"],
      ["stats app.db --json | jq .fileBytes", "one figure"],
    ],
  }).addArgument(DB)
  does(stats, (output, _options: object, db: string) =>
    withStore(db, "read", (store) => (output.json ? output.printJSON(store.stats()) : tell(output, db, store.stats()))),
  )
}

interface LsOptions {
  prefix?: string
  limit?: number
}

/** As many as `stats` lists. */
const MOST_SIZED = 10_000

/** An aggregate with what `stats` knows of it: null where there are more than it lists. */
interface Sized extends AggregateSummary {
  events: number | null
  /** Of data. */
  bytes: number | null
}

async function list(output: Output, store: Store, { prefix, limit }: LsOptions): Promise<void> {
  const { aggregates, aggregateCount, sampled } = store.stats({ largest: 0, aggregates: MOST_SIZED })
  const shares = new Map(aggregates.map((share) => [share.aggregateID, share]))
  // What is not listed has no events, unless the list was cut.
  const absent = aggregateCount > MOST_SIZED ? null : 0
  const listed: Sized[] = store.aggregates({ prefix, limit }).map((summary) => {
    const { events = absent, rawBytes: bytes = absent } = shares.get(summary.aggregateID) ?? {}
    const { aggregateID, seq, ...rest } = summary
    return { aggregateID, seq, events, bytes, ...rest }
  })
  if (output.json) return output.printJSON(listed)
  if (listed.length === 0) return output.note("There are no aggregates.")
  const unprojected = listed.some(({ projected }) => projected !== undefined)
  const columns: Column[] = [
    { title: "AGGREGATE", shrinks: true },
    { title: "SEQ", right: true },
    { title: "EVENTS", right: true },
    { title: sampled ? "~BYTES" : "BYTES", right: true },
    { title: "OWNER", shrinks: true },
    { title: "EPOCH", right: true },
    ...(unprojected ? [{ title: "PROJECTED", right: true }] : []),
  ]
  const rows = listed.map(({ aggregateID, seq, events, bytes, owner, epoch, projected }) => [
    aggregateID,
    String(seq),
    events === null ? "?" : count(events),
    bytes === null ? "?" : size(bytes),
    owner ?? "-",
    String(epoch),
    ...(unprojected ? [String(projected ?? seq)] : []),
  ])
  await printTable(output, columns, rows)
  if (absent === null) await output.note(`EVENTS and BYTES are known of the ${count(MOST_SIZED)} largest aggregates.`)
}

async function tell(output: Output, db: string, stats: Stats): Promise<void> {
  const { bold } = output.colors
  const about = stats.sampled ? "about " : ""
  const packed = `${percent(stats.packedShare)} packed`
  const facts = [
    [
      "events",
      `${count(stats.events)} in ${counted(stats.aggregateCount, "aggregate")}, last position ${stats.lastPosition}`,
    ],
    ["data", `${about}${size(stats.rawBytes)}, stored in ${about}${size(stats.storedBytes)}, ${packed}`],
    [
      "file",
      `${size(stats.fileBytes)}: ${counted(stats.pages, "page")} of ${size(stats.pageSize)}, ${count(stats.freePages)} free`,
    ],
    ["WAL", `${size(stats.walBytes)}, ${size(stats.walUsedBytes)} in use${stats.walHeld ? ", held by a reader" : ""}`],
  ]
  await output.print(bold(printable(db)), ...facts.map(([name = "", fact]) => `  ${name.padEnd(8)}${fact}`))
  const shares: Column[] = [
    { title: "EVENTS", right: true },
    { title: "BYTES", right: true },
    { title: "STORED", right: true },
    { title: "PACKED", right: true },
  ]
  const shareOf = (share: Stats["types"][number] | Stats["aggregates"][number]) => [
    count(share.events),
    size(share.rawBytes),
    size(share.storedBytes),
    percent(share.packedShare),
  ]
  await section(
    output,
    "Types",
    [{ title: "TYPE", shrinks: true }, ...shares],
    stats.types.map((share) => [share.type, ...shareOf(share)]),
  )
  const aggregates = stats.aggregates.slice(0, 10).map((share) => [share.aggregateID, ...shareOf(share)])
  await section(output, "Largest aggregates", [{ title: "AGGREGATE", shrinks: true }, ...shares], aggregates)
  const events = stats.largest.map(({ aggregateID, seq, type, bytes }) => [`${aggregateID}@${seq}`, type, size(bytes)])
  const event: Column[] = [
    { title: "EVENT", shrinks: true },
    { title: "TYPE", shrinks: true },
    { title: "BYTES", right: true },
  ]
  await section(output, "Largest events", event, events)
  const waiting = stats.unprojected.map(({ aggregateID, seq, projected, type }) => [
    aggregateID,
    String(projected),
    String(seq),
    type,
  ])
  const unprojected: Column[] = [
    { title: "AGGREGATE", shrinks: true },
    { title: "PROJECTED", right: true },
    { title: "SEQ", right: true },
    { title: "FIRST UNKNOWN", shrinks: true },
  ]
  await section(output, "Waiting for reproject", unprojected, waiting)
}

async function section(output: Output, title: string, columns: Column[], rows: string[][]): Promise<void> {
  if (rows.length === 0) return
  await output.print("", output.colors.bold(title))
  await printTable(output, columns, rows)
}

/** A table whose heading is dim on a terminal. */
export async function printTable(output: Output, columns: Column[], rows: string[][]): Promise<void> {
  const [heading = "", ...lines] = table(columns, rows, output.width)
  await output.printLines([output.colors.dim(heading), ...lines])
}
