"use strict"

// The public symbols, as the sources of the entry points declare them, with their doc comments. The sources are read, as
// text: the declarations in dist/ say the same without the lines, and the installed compiler has no stable API to ask.

const { readFileSync } = require("node:fs")
const { join, posix } = require("node:path")

const root = join(__dirname, "..")

/** The entry points: the name to import, and its source. */
const entryPoints = {
  syncline: "lib/index.ts",
  "syncline/drizzle": "lib/drizzle.ts",
  "syncline/sync-event": "lib/sync-event.ts",
  "syncline/http": "lib/http.ts",
  "syncline/nats": "lib/nats.ts",
}

const DECLARATION = /^export (?:declare |async )?(const|function|(?:abstract )?class|interface|type)\*? (\w+)/
const MEMBER = /^  (?:(?:declare|override|readonly|async|get) )*(\*?\w+|\*?\[[\w.]+\])(\??:(?: |$)|[<(])/

/**
 * `{file, name, kind, line, comment, members}` of everything that a source exports, also from others; `comment` is
 * undefined where there is none. Classes and interfaces have members of the same form; theirs are of the kind "method" or
 * "property". What is `@internal` is left out, as it is of the declarations.
 */
function publicSymbols(file, read = (name) => readFileSync(join(root, name), "utf8")) {
  const lines = read(file).split("\n")
  const own = lines.flatMap((text, at) => {
    const [, kind, name] = DECLARATION.exec(text) ?? []
    if (name === undefined) return []
    const symbol = { file, name, kind, text, line: at + 1, ...commentBefore(lines, at) }
    const closed = !/class|interface/.test(kind) || text.endsWith("{}")
    return [{ ...symbol, members: closed ? [] : membersOf(symbol, lines, at) }]
  })
  const passedOn = [...lines.join("\n").matchAll(/^export (?:type )?\{([^}]*)\} from "(\.[^"]+)"/gm)]
  const others = passedOn.flatMap(([, list, path]) => {
    const names = new Set(list.split(",").map((name) => name.trim().replace(/^type /, "")))
    const from = `${posix.join(posix.dirname(file), path)}.ts`
    return publicSymbols(from, read).filter(({ name }) => names.has(name))
  })
  return unique([...own, ...others]).filter(({ comment }) => !/@internal/.test(comment ?? ""))
}

/** Of a class or interface, up to the brace that closes it at the left margin. */
function membersOf({ file, name: owner }, lines, from) {
  const end = lines.indexOf("}", from)
  const members = lines.slice(from + 1, Math.max(from + 1, end)).flatMap((text, offset) => {
    const [, name, opening] = MEMBER.exec(text) ?? []
    if (name === undefined || name === "constructor") return []
    const at = from + 1 + offset
    const kind = /[<(]/.test(opening) && !text.startsWith("  get ") ? "method" : "property"
    return [{ file, name: `${owner}.${name}`, kind, line: at + 1, ...commentBefore(lines, at), members: [] }]
  })
  return unique(members).filter(({ comment }) => !/@internal/.test(comment ?? ""))
}

/** Overloads come one after the other, and the first one has the comment. */
function unique(symbols) {
  return symbols.filter(({ name }, index) => symbols.findIndex((other) => other.name === name) === index)
}

/** The text of the doc comment that ends right before a line, and the line at which it begins. */
function commentBefore(lines, at) {
  if (!lines[at - 1]?.endsWith("*/")) return {}
  let first = at - 1
  while (first > 0 && !/^\s*\/\*\*/.test(lines[first])) first--
  const comment = lines.slice(first, at).map((line) => line.replace(/^\s*(?:\/\*\* ?|\*(?!\/) ?)/, ""))
  return { comment: comment.join("\n").replace(/\s*\*\/$/, ""), commentLine: first + 1 }
}

/** `{code, line}` of each `@example`: its fenced code where it has some, else all of it. */
function examplesOf({ comment = "", commentLine }) {
  const lines = comment.split("\n")
  const starts = lines.flatMap((line, at) => (/^@example\b/.test(line) ? [at] : []))
  return starts.map((start) => {
    const next = lines.findIndex((line, at) => at > start && /^@\w/.test(line))
    const body = lines.slice(start, next < 0 ? undefined : next)
    body[0] = body[0].replace(/^@example ?/, "")
    const open = body.findIndex((line) => line.startsWith("```"))
    const close = body.findIndex((line, at) => at > open && line.startsWith("```"))
    const from = open < 0 ? body.findIndex((line) => line.trim() !== "") : open + 1
    const code = body.slice(from, open < 0 || close < 0 ? undefined : close)
    return { code: code.join("\n").trimEnd(), line: commentLine + start + Math.max(0, from) }
  })
}

module.exports = { entryPoints, examplesOf, publicSymbols }
