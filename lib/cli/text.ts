import stringWidth from "string-width"

/**
 * Text of a database or a server as it may be shown. What would move a terminal's cursor, colour it, reorder its text or end
 * a line is written out: `\u001b`, `\n`.
 */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => SHORT[char] ?? escaped(char))
}

/** A value as one line of JSON; for a terminal, as {@link jsonText} has it. */
export function jsonLine(value: unknown, terminal: boolean): string {
  const text = JSON.stringify(value)
  return terminal ? jsonText(text) : text
}

/** Lines of JSON in which everything is escaped that would do more to a terminal than be shown. The values are the same. */
export function jsonText(lines: string): string {
  return lines.replace(UNPRINTABLE, (char) => (char === "\n" ? char : escaped(char)))
}

/** Control and format characters and separators of lines, but for the joiners that words and emoji are made with. */
const UNPRINTABLE = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu

const SHORT: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

function escaped(char: string): string {
  const units = Array.from({ length: char.length }, (_, at) => char.charCodeAt(at))
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("")
}

/** How many columns of a terminal a printable text takes. */
export function columns(text: string): number {
  return stringWidth(text)
}

/** Printable text in at most so many columns, if there is a bound; what is cut ends with an ellipsis. */
export function fit(text: string, width: number | undefined): string {
  if (width === undefined) return text
  // No character takes less than a column for longer than this, in text that is meant to be read.
  const head = text.length > width * 8 ? text.slice(0, width * 8) : text
  if (head === text && stringWidth(text) <= width) return text
  let cut = ""
  let taken = 0
  for (const { segment } of GRAPHEMES.segment(head)) {
    taken += stringWidth(segment)
    if (taken > width - 1) break
    cut += segment
  }
  return width > 0 ? `${cut}…` : ""
}

const GRAPHEMES = new Intl.Segmenter()

/** A column of a table. */
export interface Column {
  readonly title: string
  /** Numbers stand on the right. */
  readonly right?: boolean
  /** Gives way where the table is wider than the terminal. */
  readonly shrinks?: boolean
}

/** Between two columns. */
const GAP = 2

/** No column shrinks below this. */
const LEAST = 4

/** The lines of a table, its heading first. `width`: of the terminal; undefined: the table may be as wide as it is. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[], width?: number): string[] {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => row.map(printable))]
  // Of any number of lines: as arguments of one call they would be too many.
  const widths = columns.map((_, at) => lines.reduce((most, line) => Math.max(most, stringWidth(line[at] ?? "")), 0))
  if (width !== undefined) shrink(columns, widths, width - GAP * (columns.length - 1))
  return lines.map((line) => {
    const cells = line.map((cell, at) => {
      const own = widths[at] as number
      const shown = columns[at]?.shrinks ? fit(cell, own) : cell
      const space = " ".repeat(Math.max(0, own - stringWidth(shown)))
      return columns[at]?.right ? space + shown : shown + space
    })
    return cells.join(" ".repeat(GAP)).trimEnd()
  })
}

/** Takes from the widest column that may shrink, until all fit. */
function shrink(columns: readonly Column[], widths: number[], room: number): void {
  let over = widths.reduce((sum, width) => sum + width, 0) - room
  while (over > 0) {
    const shrinking = widths.filter((width, at) => columns[at]?.shrinks && width > LEAST).toSorted((a, b) => b - a)
    const [widest, second = LEAST] = shrinking
    if (widest === undefined) return
    const taken = Math.min(over, Math.max(1, widest - Math.max(second, LEAST)))
    widths[widths.findIndex((width, at) => columns[at]?.shrinks && width === widest)] = widest - taken
    over -= taken
  }
}

/** A number as people read it: 12,345. */
export function count(value: number): string {
  return value.toLocaleString("en-US")
}

/** So many of something: "1 event", "12 events". */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`
}

/** Bytes as people read them: 1.2 MiB. */
export function size(bytes: number): string {
  let value = bytes
  let unit = 0
  for (; value >= 1024 && unit < UNITS.length - 1; unit++) value /= 1024
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]

/** A share as people read it: 98 %. */
export function percent(share: number): string {
  return `${Math.floor(share * 100)} %`
}

/** A time of the log in UTC; one that no calendar has stays a number. */
export function time(created: number | undefined): string {
  if (created === undefined) return "-"
  return Math.abs(created) <= LAST_DATE ? new Date(created).toISOString() : String(created)
}

const LAST_DATE = 8.64e15
