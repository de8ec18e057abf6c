import { createHash } from "node:crypto"

/** Longest token that spells an id out: a server refuses a subject whose line has more than 4 kB, and keys cost memory. */
const LONGEST_TOKEN = 200

/**
 * An aggregate's id as one token of a subject and as a key: letters, digits, `-` and `_` as they are, any other byte of its
 * UTF-8 as `=` and two hexadecimal digits. Of what would be longer than 200 characters, `=h` and its SHA-256.
 */
export function tokenOf(aggregateID: string): string {
  const token = escaped(aggregateID)
  return token.length <= LONGEST_TOKEN ? token : `=h${createHash("sha256").update(aggregateID).digest("hex")}`
}

/** The id that a token spells out; undefined for a hash, and for what is no such token. */
export function aggregateOf(token: string): string | undefined {
  return token.startsWith("=h") ? undefined : unescaped(token)
}

/** Any text within the characters that subjects, keys and headers have in common. */
export function escaped(text: string): string {
  return text.replace(/[^A-Za-z0-9_-]/gu, (character) =>
    Array.from(Buffer.from(character), (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  )
}

/** What was unescaped last: the subjects and types of a stream are few beside its messages. */
const known = new Map<string, string | undefined>()

const MOST_KNOWN = 10_000

/** Undefined for what `escaped` does not give. */
export function unescaped(escapedText: string): string | undefined {
  if (escapedText === "") return undefined
  if (known.has(escapedText)) return known.get(escapedText)
  const text = unescapedAnew(escapedText)
  if (known.size >= MOST_KNOWN) known.clear()
  known.set(escapedText, text)
  return text
}

function unescapedAnew(escapedText: string): string | undefined {
  if (!/^(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+$/.test(escapedText)) return undefined
  const bytes = Buffer.from(
    escapedText.replace(/=(..)/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16))),
    "latin1",
  )
  const text = bytes.toString()
  return escaped(text) === escapedText ? text : undefined
}
