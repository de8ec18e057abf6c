"use strict"

// The reference is made from the doc comments, by typedoc, which this installs on the first run: `npm run docs`.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const { entryPoints, examplesOf, publicSymbols } = require("../documented")

const root = join(__dirname, "..", "..")
const made = join(root, "target", "reference")

const declares = (entry, { file, name }) => publicSymbols(entry).some((one) => one.file === file && one.name === name)

describe("npm run docs", () => {
  let folder
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "syncline-docs-"))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test("makes a page for each entry point and each public symbol, with their examples, whole", () => {
    const started = performance.now()
    const { status, output } = node("scripts/docs.mjs")
    assert.equal(status, 0, output)
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    const pages = readdirSync(made, { recursive: true }).map((name) => name.replaceAll("\\", "/"))
    const pageOf = (...names) => {
      const files = names.map((name) => `${name.replaceAll("/", "_")}.html`)
      const found = pages.filter((page) => files.includes(page.split("/").at(-1)))
      assert.equal(found.length, 1, `${names.join(", ")}: ${found.length} pages`)
      return textOf(readFileSync(join(made, found[0]), "utf8"))
    }
    let symbols = 0
    let examples = 0
    for (const [entry, file] of Object.entries(entryPoints)) {
      const contents = pageOf(entry)
      for (const symbol of publicSymbols(file)) {
        symbols++
        assert.ok(contents.includes(symbol.name), `${entry} does not list ${symbol.name}`)
        // What several of them pass on has its page with one, to which the others lead.
        const homes = Object.entries(entryPoints).filter(([, each]) => declares(each, symbol))
        const page = pageOf(...homes.map(([home]) => `${home}.${symbol.name}`))
        for (const { name, code } of [symbol, ...symbol.members].flatMap(shown)) {
          examples++
          for (const line of code.split("\n")) assert.ok(page.includes(line.trim()), `${name}: ${line}`)
        }
      }
    }
    console.log(`figures the reference: ${symbols} symbols and ${examples} examples, in ${seconds} s`)
  })

  test("has a front page, which says what the examples go on from", () => {
    const page = textOf(readFileSync(join(made, "index.html"), "utf8"))
    const programs = readFileSync(join(root, "scripts", "reference", "README.md"), "utf8").matchAll(/^const \w+/gm)
    for (const [declared] of programs) assert.ok(page.includes(declared), declared)
  })

  const refused = {
    "a link to nothing": [
      "/** See {@link nowhere}. */\nexport const linked = 1",
      /Failed to resolve link to "nowhere"/,
    ],
    "a type that is shown and not exported": [
      "interface Hidden {}\nexport declare function shows(): Hidden",
      /Hidden, defined in .*, is referenced by shows but not included/,
    ],
  }
  for (const [what, [source, message]] of Object.entries(refused)) {
    test(`fails on ${what}`, () => {
      const config = JSON.parse(readFileSync(join(root, "scripts", "reference", "typedoc.json"), "utf8"))
      const own = { entryPoints: ["wrong.ts"], tsconfig: "tsconfig.json", out: "out", readme: "none" }
      const compilerOptions = { types: [] }
      write("package.json", JSON.stringify({ name: "wrong", version: "1.0.0" }))
      write("wrong.ts", source)
      write("tsconfig.json", JSON.stringify({ compilerOptions, files: ["wrong.ts"] }))
      const options = write("typedoc.json", JSON.stringify({ ...config, ...own, intentionallyNotExported: [] }))
      const typedoc = join(root, "target", "reference-tools", "node_modules", "typedoc", "bin", "typedoc")
      const { status, output } = node(typedoc, "--options", options)
      assert.notEqual(status, 0, output)
      assert.match(output, message)
    })
  }

  function write(name, text) {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
})

function shown(symbol) {
  return examplesOf(symbol).map(({ code }) => ({ name: symbol.name, code }))
}

function node(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" })
  return { status, output: `${stdout}${stderr}` }
}

/** What a page says, without its markup. */
function textOf(html) {
  const named = { lt: "<", gt: ">", quot: '"', amp: "&", nbsp: " " }
  return html
    .replace(/<br\s*\/?>/g, "\n")
    .replace(/<[^>]+>/g, "")
    .replace(/&(?:#x([\da-f]+)|#(\d+)|(\w+));/gi, (entity, hex, decimal, name) =>
      name === undefined ? String.fromCodePoint(hex ? parseInt(hex, 16) : Number(decimal)) : (named[name] ?? entity),
    )
}
