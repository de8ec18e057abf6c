import { deepStrictEqual } from "node:assert"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative, resolve } from "node:path"
import { type LogItem, SyncError } from "syncline"
import { checkRows, readExpected, readRows } from "./recording"
import { answer, createSession, prompt, removePart, renameSession } from "./sessions"
import { openStore, type SessionStore } from "./store"

const usage = "usage: npm start [-- recording.jsonl] [database.db]"
// The compiled program lies in dist/, one folder below its source.
const folder = resolve(__dirname, "..")

void main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})

async function main(args: string[]): Promise<void> {
  const recording = args.find((arg) => arg.endsWith(".jsonl"))
  const database = args.find((arg) => arg.endsWith(".db"))
  if (args.some((arg) => arg !== recording && arg !== database)) {
    console.error(usage)
    process.exitCode = 2
    return
  }
  if (recording !== undefined && !existsSync(recording)) {
    console.error(`There is no recording ${recording}.\n${usage}`)
    process.exitCode = 2
    return
  }

  const path = database === undefined ? newDatabase() : resolve(database)
  const store = openStore(path)
  try {
    replayRecording(store, recording ?? join(folder, "recording", "sessions.events.jsonl"))
    runMutations(store)
    await replayElsewhere(store)
    // By itself it would do so once the store is idle.
    const { events, bytes } = await store.maintain()
    print("packed", `${events.toLocaleString("en")} events, ${(bytes / 2 ** 20).toFixed(1)} MiB of data, in segments`)
  } finally {
    store.close()
  }
  // Closing the last connection moved everything into the one file.
  print("file", `${(statSync(path).size / 2 ** 20).toFixed(1)} MiB, log and tables: ${relative(process.cwd(), path)}`)
}

function replayRecording(store: SessionStore, recording: string): void {
  const bytes = readFileSync(recording)
  const [results, time] = timed(() => store.replayAll(bytes))
  const applied = results.reduce((sum, result) => sum + result.applied, 0)
  const duplicate = results.reduce((sum, result) => sum + result.duplicate, 0)
  const held = duplicate > 0 ? ` (${format(duplicate)} were there already)` : ""
  print(
    "replay",
    `${format(applied + duplicate)} events of ${plural(results.length, "session")}${held}, ${rate(applied + duplicate, time)}`,
  )

  const rows = readRows(store)
  const counts = [
    plural(rows.session.length, "session"),
    plural(rows.message.length, "message"),
    plural(rows.part.length, "part"),
  ].join(", ")
  const expected = readExpected(recording)
  if (expected !== undefined) checkRows(store, expected)
  print("rows", `${counts}${expected === undefined ? "" : ", equal to the expected ones"}`)
}

function runMutations(store: SessionStore): void {
  let heard = 0
  const unsubscribe = store.subscribeAll((event) => {
    heard++
    print("live", `${event.type} v${event.version}, seq ${event.seq}`)
  })
  const [, time] = timed(() => {
    const info = createSession(store, "Try Syncline")
    const { messageID, partID } = prompt(store, info.id, "What is an event log?")
    answer(store, info.id, messageID, ["One table ", "that only grows, ", "and many that follow from it."])
    removePart(store, info.id, messageID, partID)
    renameSession(store, info, "What an event log is", store.sequence(info.id))
    refuseStaleRename(store, info)
  })
  unsubscribe()
  print("run", `${heard} events, printing included, ${rate(heard, time)}`)
}

/** Somebody who saw the session only at its beginning must not overwrite what happened since. */
function refuseStaleRename(store: SessionStore, info: Parameters<typeof renameSession>[1]): void {
  try {
    renameSession(store, info, "Too late", 0)
  } catch (error) {
    if (!(error instanceof SyncError && error.code === "ERR_CONFLICT")) throw error
    print("refused", `${error.code}: ${error.message}`)
  }
}

/** What another device would do: read each session's log, replay it into a file of its own, and hold the same. */
async function replayElsewhere(source: SessionStore): Promise<void> {
  const elsewhere = mkdtempSync(join(tmpdir(), "agent-session-"))
  const replica = openStore(join(elsewhere, "replica.db"))
  try {
    const items: LogItem[] = []
    for (const aggregateID of source.sequences().keys()) {
      for await (const item of source.log({ aggregateID })) items.push(item)
    }
    const [results, time] = timed(() => replica.replayAll(items))
    const applied = results.reduce((sum, result) => sum + result.applied, 0)

    deepStrictEqual(readRows(replica), readRows(source))
    deepStrictEqual(readLogs(replica), readLogs(source))
    print("again", `${format(applied)} events into a second file, ${rate(applied, time)}: tables and logs are equal`)
  } finally {
    replica.close()
    rmSync(elsewhere, { recursive: true, force: true })
  }
}

function readLogs(store: SessionStore) {
  const ids = [...store.sequences().keys()].toSorted()
  return ids.map((aggregateID) => [aggregateID, store.read(aggregateID)])
}

/** The database of a run without arguments. It is made anew each time and left for a look with any SQLite shell. */
function newDatabase(): string {
  const path = join(folder, "agent-session.db")
  for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true })
  return path
}

function timed<T>(fn: () => T): [result: T, milliseconds: number] {
  const started = performance.now()
  return [fn(), performance.now() - started]
}

function rate(events: number, milliseconds: number): string {
  return `${milliseconds.toFixed(0)} ms (${format(Math.round((events * 1000) / milliseconds))} a second)`
}

function format(count: number): string {
  return count.toLocaleString("en")
}

function plural(count: number, noun: string): string {
  return `${format(count)} ${noun}${count === 1 ? "" : "s"}`
}

function print(label: string, text: string): void {
  console.log(`${label.padEnd(8)} ${text}`)
}
