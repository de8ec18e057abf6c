import { protocolError } from "../follow/failure"

const LINE_FEED = 0x0a

const [SYNCED, REMOVED] = ['{"kind":"synced"', '{"kind":"removed"'].map((head) => Buffer.from(head)) as [Buffer, Buffer]

/** What is in a line of the log. */
export interface Content {
  readonly seq: number
  /** Of an event. */
  readonly id?: string
  readonly type?: string
}

/** One line of the log; it is parsed only where somebody asks. */
export class Item {
  #content: Content | undefined

  constructor(
    /** With its line feed. */
    readonly line: Buffer,
  ) {}

  get isRemoval(): boolean {
    return begins(this.line, REMOVED)
  }

  content(): Content {
    return (this.#content ??= contentOf(JSON.parse(this.line.toString())))
  }

  /** The last seq that a reader holds once it has this. */
  seq(): number {
    return this.content().seq
  }
}

/** The items of lines as the log gives them, without what says only where they end. */
export function* itemsOf(lines: Uint8Array): Generator<Item, void> {
  const bytes = Buffer.from(lines.buffer, lines.byteOffset, lines.length)
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf(LINE_FEED, at) + 1 || bytes.length
    const line = bytes.subarray(at, end)
    if (!begins(line, SYNCED)) yield new Item(line)
    at = end
  }
}

/** The last of some lines, as an object; undefined where there is none. */
export function lastOf(lines: Uint8Array): Record<string, unknown> | undefined {
  const bytes = Buffer.from(lines.buffer, lines.byteOffset, lines.length)
  const start = bytes.length < 2 ? 0 : bytes.lastIndexOf(LINE_FEED, bytes.length - 2) + 1
  try {
    return bytes.length === 0 ? undefined : (JSON.parse(bytes.toString("utf8", start)) as Record<string, unknown>)
  } catch (error) {
    throw protocolError("A message holds what is no log item", error)
  }
}

function contentOf(item: Record<string, unknown>): Content {
  const { kind, event } = item as { kind: string; event?: { seq: number; id: string; type: string } }
  if (kind === "event" && event !== undefined) return { seq: event.seq, id: event.id, type: event.type }
  return { seq: Number(kind === "gap" ? item["through"] : item["seq"]) }
}

function begins(line: Buffer, head: Buffer): boolean {
  return line.length > head.length && line.compare(head, 0, head.length, 0, head.length) === 0
}
