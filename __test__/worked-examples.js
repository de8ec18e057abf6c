"use strict"

// The examples of doc comments as programs: each is compiled, with the others, and run by itself.
//
// So that an example is short, it begins where the programs in scripts/reference/README.md end, the front page of the
// generated reference. Their blocks stand in front of the examples of their entry point (those of `syncline` also in front
// of the examples for drizzle, http and nats): each block that declares a name which the example uses, and what that block needs in
// its turn. Everything that the entry point exports is imported. An example runs in an empty folder, and may `await`.
//
// What an example says behind a whole statement is held to it:
//   expression // → value         it gives this value: a `…` among the properties or items stands for others, in a string for any text
//   const name = … // → value     the same
//   statement // throws ERR_CODE  it throws, or rejects with, an error of this code
//   statement // does not compile
//   console.log(…) // text        this is printed; so says `// prints text` of a statement that makes something else print
// What is printed, and not announced, fails.
//
// Those of `syncline/nats` run on one server, each in an account of its own, and only where there is a server.

const { execFile } = require("node:child_process")
const { mkdirSync, readFileSync, symlinkSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { promisify } = require("node:util")
const { entryPoints, examplesOf, publicSymbols } = require("./documented")
const { noServer, startServer } = require("./nats-server")

const root = join(__dirname, "..")
const packages = ["zod", "drizzle-orm", "hono", "@hono/node-server", "@types/node", "@nats-io/transport-node"]
const ON_SERVER = "syncline/nats"
const frontPage = readFileSync(join(root, "scripts/reference/README.md"), "utf8")

/**
 * `{name, file, line, program, lines, onServer}` of every example of these symbols; `lines` says where each line comes from,
 * `onServer` whether it takes a server.
 */
function programsOf(entry, symbols) {
  return symbols
    .flatMap((symbol) => [symbol, ...symbol.members])
    .flatMap((symbol) =>
      examplesOf(symbol).map(({ code, line }) => ({
        name: symbol.name,
        file: symbol.file,
        line,
        onServer: entry === ON_SERVER,
        ...programOf(entry, code, line),
      })),
    )
}

/** Compiles programs in a folder, all at once. Resolves to what the compiler has to say, in the lines of the sources. */
async function compile(folder, programs) {
  for (const scope of ["@types", "@hono", "@nats-io"])
    mkdirSync(join(folder, "node_modules", scope), { recursive: true })
  const link = (target, name) => symlinkSync(target, join(folder, "node_modules", name), "junction")
  link(root, "syncline")
  for (const name of packages) link(join(root, "node_modules", name), name)
  programs.forEach(({ program }, index) => writeFileSync(join(folder, `${index}.ts`), program))
  const options = [
    "--strict",
    "--exactOptionalPropertyTypes",
    "--target",
    "es2023",
    "--lib",
    "es2023,esnext.disposable",
  ]
  // drizzle-orm's own declarations name databases that are not installed here.
  options.push("--types", "node", "--module", "node16", "--skipLibCheck", "--outDir", "out", "--pretty", "false")
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
  const files = programs.map((_, index) => `${index}.ts`)
  const output = await succeeded(execFile, process.execPath, [tsc, ...options, ...files], { cwd: folder })
  return output
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [, index, at, message] = /^(\d+)\.ts\((\d+),\d+\): (.*)$/.exec(line) ?? []
      return index === undefined ? line : complaint(programs[index], programs[index].lines[at - 1], message)
    })
}

/** Runs compiled programs, in a few processes. Resolves to what went wrong with each: nothing, for all that work. */
async function run(folder, programs, processes = 4) {
  const server =
    programs.some(({ onServer }) => onServer) && !noServer ? await startServer(accounts(programs)) : undefined
  const names = programs.flatMap(({ onServer }, index) => (onServer && noServer ? [] : [String(index)]))
  const size = Math.ceil(names.length / processes)
  const parts = Array.from({ length: processes }, (_, part) => names.slice(part * size, (part + 1) * size))
  const failures = await Promise.all(
    parts.map(async (part) => {
      const runner = join(__dirname, "example-runner.js")
      const options = { timeout: 60_000, env: { ...process.env, NATS_URL: server?.url } }
      const output = await succeeded(execFile, process.execPath, [runner, folder, ...part], options)
      const results = output.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : []))
      const missing = part.find((name) => !results.some((result) => result.name === name))
      const told = results.flatMap(({ name, failures }) =>
        failures.map(({ line, message }) => complaint(programs[name], line, message)),
      )
      return missing === undefined ? told : [...told, complaint(programs[missing], 0, `the process ended:\n${output}`)]
    }),
  )
  await server?.stop()
  return failures.flat()
}

/** One for each program, so that all may use the same names. */
function accounts(programs) {
  const each = programs.map((_, index) => `user${index} { jetstream: enabled, users: [ { user: user${index} } ] }`)
  return `accounts { ${each.join("\n")} }`
}

/** What a command printed, also where it failed. */
async function succeeded(start, ...args) {
  try {
    const { stdout, stderr } = await promisify(start)(...args)
    return `${stdout}${stderr}`
  } catch (error) {
    return `${error.stdout}${error.stderr}${error.killed ? "\nIt took too long." : ""}`
  }
}

/** `at` is a line of the source. */
function complaint({ name, file, line }, at, message) {
  return `${file}:${at || line} (${name}): ${message}`
}

/** The program of one example, and of each of its lines the one of the source. */
function programOf(entry, code, line) {
  const blocks = blocksBefore(entry)
  const setting = blocks.filter(neededBy(code, blocks))
  const [imports, body] = parted(code.split("\n").map((text, offset) => [text, line + offset]))
  const [common] = parted(blocks.flatMap(linesOf))
  const [, before] = parted(setting.flatMap(linesOf))
  const names = publicSymbols(entryPoints[entry]).map(({ name }) => name)
  const promises = body.filter(([text]) => isReached(text)).map(([, at]) => at)
  const all = [
    ...common.filter(([text]) => !text.includes(`from "${entry}"`)),
    [`import { ${names.join(", ")} } from "${entry}"`],
    ...imports,
    ["export = async function (check: any, console: { log(...values: unknown[]): void }): Promise<void> {"],
    ...before,
    [`check.promised([${promises.join(", ")}])`],
    ["try {"],
    ...body.map(([text, at]) => [held(text, at), at]),
    [`} finally { check.close([${namesIn(setting.join("\n")).join(", ")}]) }`],
    ["}"],
  ]
  return {
    program: all.map(([text]) => text).join("\n"),
    lines: all.flatMap(([text, at]) => text.split("\n").map(() => at)),
  }
}

function linesOf(block) {
  return block.split("\n").map((text) => [text, undefined])
}

/** Imports may not stand in a function. */
function parted(lines) {
  const isImport = ([text]) => /^import\b/.test(text)
  return [lines.filter(isImport), lines.filter((line) => !isImport(line))]
}

const GIVES = /^(\s*)(.*?) \/\/ → (.+)$/
const THROWS = /^(\s*)(.*?) \/\/ throws (ERR_\w+)$/
const REFUSED = /^(\s*)(.*?) \/\/ does not compile(?:: .*)?$/
const PRINTS = /^(\s*)(.*?console\.log\(.*|.*(?= \/\/ prints )) \/\/ (?:prints )?(.+)$/

function isReached(text) {
  return [GIVES, THROWS, PRINTS].some((promise) => promise.test(text))
}

/** A line with what it promises turned into checks. */
function held(text, at) {
  const [, indent, statement, promise] =
    GIVES.exec(text) ?? THROWS.exec(text) ?? REFUSED.exec(text) ?? PRINTS.exec(text) ?? []
  if (statement === undefined) return text
  if (GIVES.test(text)) {
    const name = /^(?:const|let) (\w+)/.exec(statement)?.[1]
    const value = elided(promise)
    return name === undefined
      ? `${indent}check.gives(${at}, ${statement}, ${value})`
      : `${indent}${statement}; check.gives(${at}, ${name}, ${value})`
  }
  if (THROWS.test(text)) return `${indent}await check.throws(${at}, async () => { ${statement} }, "${promise}")`
  if (REFUSED.test(text)) return `${indent}void (() => {\n// @ts-expect-error\n${statement}\n})`
  return `${indent}check.announce(${at}, ${JSON.stringify(promise)}); ${statement}`
}

/** A `…` outside of strings is the rest of an object or a list. */
function elided(value) {
  return value.replace(/"[^"]*"|…/g, (found) => (found === "…" ? "...check.others" : found))
}

/** The blocks of the front page that examples of an entry point may go on from. */
function blocksBefore(entry) {
  const sections = frontPage.split(/^## /m)
  const entries = ["syncline/drizzle", "syncline/http", "syncline/nats"].includes(entry) ? ["syncline", entry] : [entry]
  return entries.flatMap((name) => {
    const section = sections.find((text) => text.startsWith(`\`${name}\`\n`)) ?? ""
    return [...section.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code.trimEnd())
  })
}

/** Whether a block declares a name that the code uses, or a later block that is needed. */
function neededBy(code, blocks) {
  const wanted = new Set()
  let text = code
  for (const block of blocks.toReversed()) {
    const plain = text.replace(/"[^"]*"/g, "")
    if (!namesIn(block).some((name) => new RegExp(`(?<!\\w|[^.]\\.)${name}\\b(?!:)`).test(plain))) continue
    wanted.add(block)
    text += block
  }
  return (block) => wanted.has(block)
}

function namesIn(code) {
  return [...code.matchAll(/^const (\w+)/gm)].map(([, name]) => name)
}

module.exports = { compile, programsOf, run }
