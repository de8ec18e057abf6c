import type { Context } from "hono"
import { checkInteger, checkOwner } from "../../argument"
import { SyncError, invalidArgument, show, syncErrorOf, type ErrorCode } from "../../errors"
import type { ReplayAsyncOptions, ReplayInput } from "../../replayed"
import type { Store } from "../../store"
import { answerJson } from "./answer"
import { formatOf, parseObject, readBody } from "./body"

interface Incoming {
  readonly input: ReplayInput
  readonly owner: unknown
  readonly epoch: unknown
}

/** `POST /sync/replay`: applies what was recorded elsewhere, in one transaction, and tells listeners and followers of it. */
export async function answerReplay<Tx>(
  { req }: Context,
  store: Store<Tx>,
  { maxBodyBytes, unknown }: { readonly maxBodyBytes: number; readonly unknown: "error" | "record" },
): Promise<Response> {
  const format = formatOf(req.raw, ["json", "ndjson"])
  const body = await readBody(req.raw, maxBodyBytes)
  const { input, owner, epoch } = format === "json" ? fromJson(body) : fromLines(body, req)
  const options: ReplayAsyncOptions = { publish: true, unknown, signal: req.raw.signal }
  const checkedOwner = checkOwner("owner", owner)
  if (checkedOwner !== null) options.owner = checkedOwner
  if (epoch !== undefined && epoch !== null) options.epoch = checkInteger("epoch", epoch, 0)
  const replayed = await store.replayAllAsync(input, options).catch((error: unknown) => {
    const code = syncErrorOf(error)?.code
    throw code === undefined || OF_REPLAY.has(code) ? error : new Error("A projector failed", { cause: error })
  })
  const results = replayed.map(({ aggregateID, applied, duplicate, seq }) => ({ aggregateID, applied, duplicate, seq }))
  const [first] = results
  if (first === undefined) throw nothing()
  return answerJson({ sessionID: first.aggregateID, ...first, results })
}

/**
 * What a replay itself ends with. Any other error of the library's was thrown by a projector, which met it elsewhere: it says
 * nothing of the request, and is not shown.
 */
const OF_REPLAY: ReadonlySet<ErrorCode> = new Set([
  "ERR_ABORTED",
  "ERR_AGGREGATE_MISMATCH",
  "ERR_ASYNC_PROJECTOR",
  "ERR_ASYNC_SCHEMA",
  "ERR_BUSY",
  "ERR_CLOSED",
  "ERR_CORRUPT",
  "ERR_DISK_FULL",
  "ERR_FILE_GONE",
  "ERR_IN_PROJECTOR",
  "ERR_IN_TRANSACTION",
  "ERR_INVALID_ARGUMENT",
  "ERR_INVALID_DATA",
  "ERR_INVALID_EVENT",
  "ERR_NOT_OWNER",
  "ERR_NO_PROJECTOR",
  "ERR_POISONED",
  "ERR_READONLY",
  "ERR_REPLAY_DIVERGED",
  "ERR_SEQUENCE_MISMATCH",
  "ERR_SQLITE",
  "ERR_TOO_LARGE",
  "ERR_UNKNOWN_EVENT",
])

/** Log items, a line each: as bytes, which nobody has to parse here. */
function fromLines(body: Buffer, req: Context["req"]): Incoming {
  if (body.length === 0) throw nothing()
  const epoch = req.query("epoch")
  if (epoch !== undefined && !/^\d{1,16}$/.test(epoch)) {
    throw invalidArgument(`epoch must be an integer, not ${show(epoch)}`)
  }
  return { input: body, owner: req.query("owner"), epoch: epoch === undefined ? undefined : Number(epoch) }
}

function fromJson(body: Buffer): Incoming {
  const { events, owner, epoch } = parseObject(body)
  if (!Array.isArray(events)) {
    throw new SyncError("ERR_INVALID_EVENT", `events must be an array, not ${show(events)}`, { field: "events" })
  }
  if (events.length === 0) throw nothing()
  return { input: events, owner, epoch }
}

function nothing(): SyncError {
  return new SyncError("ERR_INVALID_EVENT", "There is nothing to replay: not one event, gap or removal", {
    field: "events",
  })
}
