import { Argument, type Command } from "commander"
import { CutShort } from "../compression"
import { SyncError, show } from "../errors"
import type { ExportTotals } from "../export"
import type { ImportResult } from "../import"
import { openSource } from "../source"
import type { Store } from "../store"
import { DB, addCommand, does, repeatedOption } from "./command"
import { assertExists, withStore } from "./database"
import { EXIT } from "./failure"
import type { Output } from "./output"
import { counted, jsonText, size } from "./text"
import { noteUnprojected, warnOfLeft } from "./unapplied"
import { watched } from "./watched"

/** `export`, `import`: a log as a file. */
export function addMove(program: Command): void {
  const exporting = addCommand(program, "export", {
    summary: "write a log, or a part of it, into a file",
    about: `JSON lines: events, gaps and removals, with a header, and a closing line by which a cut file is recognised. The file
is there once it is complete; it replaces none. Names that end in .zst or .gz are compressed.`,
    examples: [
      ["export app.db app.jsonl.zst", "everything, compressed"],
      ["export app.db --aggregate ses_1 | ssh host syncline import app.db -", "one session, to another machine"],
      ["export app.db monday.jsonl.zst --since sunday.jsonl.zst", "what came after an earlier export"],
    ],
  })
  exporting
    .addArgument(DB)
    .addArgument(new Argument("[file]", "where to write it; without one, to stdout"))
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(repeatedOption("--since <export>", "only what this earlier export has not; may be given again"))
  does(exporting, exportLog)

  const importing = addCommand(program, "import", {
    summary: "read what export has written",
    about: `Makes the database where there is none. What it holds already is recognised, so that importing again does no harm.
A file that was cut is imported up to there (exit code 3). Events are stored and not projected: the program does that with
\`reproject\`, and until then it cannot write those aggregates.`,
    examples: [
      ["import app.db app.jsonl.zst", "everything that is in it"],
      ["import app.db -", "from stdin, not compressed"],
    ],
  })
    .addArgument(DB)
    .addArgument(new Argument("<file>", "what export has written, or events a line; -: stdin"))
  does(importing, importLog)
}

interface ExportFlags {
  aggregate?: string[]
  since?: string[]
}

async function exportLog(output: Output, flags: ExportFlags, db: string, file?: string): Promise<void> {
  const { aggregate: aggregates, since = [] } = flags
  const after = await heldBy(since)
  await withStore(db, "read", async (store) => {
    const total = totalOf(store, aggregates, after)
    let done: ExportTotals | undefined
    await watched(output, "Exporting", "events", async (progress, signal) => {
      const onProgress = (totals: ExportTotals) => {
        done = totals
        progress.to(totals.events, total)
      }
      const exported = store.export({ aggregates, after, signal, onProgress })
      if (file !== undefined) done = await exported.toFile(file)
      else for await (const chunk of exported) await output.write(process.stdout.isTTY ? jsonText(chunk) : chunk)
    })
    if (done === undefined) return
    const { events, aggregates: exported, bytes } = done
    const text = `Exported ${counted(events, "event")} of ${counted(exported, "aggregate")} (${size(bytes)}).`
    if (file === undefined) await output.note(text)
    else await (output.json ? output.printJSON({ file, ...done }) : output.print(text))
  })
}

/** How many events will be exported, about: what was removed or compacted is counted as if it were there. */
function totalOf(
  store: Store,
  aggregates: string[] | undefined,
  after: ReadonlyMap<string, number>,
): number | undefined {
  if (aggregates === undefined && after.size === 0) return store.stats({ largest: 0, aggregates: 0 }).events
  const seqs = store.sequences(aggregates)
  return [...seqs].reduce((sum, [aggregateID, seq]) => sum + Math.max(0, seq - (after.get(aggregateID) ?? -1)), 0)
}

/** The last seqs that earlier exports hold: of each aggregate that stands in one to its end. */
async function heldBy(exports: readonly string[]): Promise<Map<string, number>> {
  const held = new Map<string, number>()
  for (const path of exports) {
    assertExists(path, "")
    let isFirst = true
    let number = 0
    for await (const line of linesOf(path)) {
      number++
      if (isFirst && !startsWith(line, HEADER)) throw noExport(path)
      isFirst = false
      if (!startsWith(line, SYNCED)) continue
      const { aggregateID, seq } = syncedOf(line, path, number)
      held.set(aggregateID, Math.max(seq, held.get(aggregateID) ?? -1))
    }
    if (isFirst) throw noExport(path)
  }
  return held
}

const HEADER = Buffer.from('{"syncline":"export"')
const SYNCED = Buffer.from('{"kind":"synced"')
const LINE_FEED = 0x0a

/** A header has less than 100 as yet. */
const MAX_HEADER_BYTES = 64 * 1024

function startsWith(line: Buffer, beginning: Buffer): boolean {
  return line.subarray(0, beginning.length).equals(beginning)
}

function noExport(path: string): SyncError {
  return new SyncError("ERR_INVALID_EXPORT", `${show(path)} is no export: it does not begin with the header of one`, {
    line: 1,
  })
}

function syncedOf(line: Buffer, path: string, number: number): { aggregateID: string; seq: number } {
  try {
    const { aggregateID, seq } = JSON.parse(line.toString()) as Record<string, unknown>
    if (typeof aggregateID === "string" && Number.isSafeInteger(seq)) return { aggregateID, seq: seq as number }
  } catch {
    // The error of JSON does not say where.
  }
  throw new SyncError("ERR_INVALID_EXPORT", `${show(path)} is damaged: line ${number} is no log item`, { line: number })
}

/** The whole lines of an export; one that was cut has fewer. */
async function* linesOf(path: string): AsyncGenerator<Buffer, void> {
  const source = await openSource(path, undefined)
  let parts: Uint8Array[] = []
  let size = 0
  let isFirst = true
  try {
    for await (const chunk of source.chunks) {
      let at = 0
      for (let end; (end = chunk.indexOf(LINE_FEED, at)) >= 0; at = end + 1) {
        yield Buffer.concat([...parts, chunk.subarray(at, end)])
        parts = []
        size = 0
        isFirst = false
      }
      parts.push(chunk.subarray(at))
      size += chunk.length - at
      // Something else may be one line of any length.
      if (isFirst && size > MAX_HEADER_BYTES) throw noExport(path)
    }
  } catch (error) {
    if (!(error instanceof CutShort)) throw error
  } finally {
    await source.close()
  }
}

async function importLog(output: Output, _options: object, db: string, file: string): Promise<number> {
  // Before a database is made for it.
  if (file !== "-") assertExists(file, "")
  return withStore(db, "create", async (store) => {
    const source = file === "-" ? process.stdin : file
    const { parked, ...result } = await watched(output, "Importing", "bytes", (progress, signal) => {
      const onProgress = ({ bytes, totalBytes }: { bytes: number; totalBytes?: number }) =>
        progress.to(bytes, totalBytes)
      return store.import(source, { unknown: "record", onError: "park", signal, onProgress })
    })
    if (output.json)
      await output.printJSON({ ...result, parked: parked.map(({ aggregateID, line }) => ({ aggregateID, line })) })
    else await output.print(summary(result))
    if (result.complete === false) {
      await output.warn(
        "The file was cut: what stands before the cut is imported. Importing the whole file goes on from there.",
      )
    }
    await warnOfLeft(output, parked)
    await noteUnprojected(output, store)
    return result.complete === false || parked.length > 0 ? EXIT.findings : EXIT.done
  })
}

function summary({ applied, duplicate, events, gaps, removed }: Omit<ImportResult, "parked">): string {
  const read = [
    counted(events, "event"),
    ...(gaps > 0 ? [counted(gaps, "gap")] : []),
    ...(removed > 0 ? [counted(removed, "removal")] : []),
  ]
  const last = read.length > 1 ? ` and ${read.pop()}` : ""
  const known = counted(duplicate, "was", "were")
  return `Read ${read.join(", ")}${last}: ${counted(applied, "was new", "were new")}, ${known} there already.`
}
