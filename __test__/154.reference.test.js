"use strict"

// What the doc comments show of every public symbol works as a reader would type it: each example compiles, runs, and gives
// what it says. How they are written is said in worked-examples.js.

const assert = require("node:assert/strict")
const { mkdirSync, mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const { entryPoints, examplesOf, publicSymbols } = require("./documented")
const { noServer } = require("./nats-server")
const { compile, programsOf, run } = require("./worked-examples")

const LONGEST = 8
const surface = Object.entries(entryPoints).map(([entry, file]) => ({ entry, symbols: publicSymbols(file) }))
let folder

before(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-reference-"))
})

after(() => rmSync(folder, { recursive: true, force: true }))

describe("every public symbol", () => {
  for (const { entry, symbols } of surface) {
    test(`of ${entry} has a doc comment with an example`, () => {
      assert.deepEqual(symbols.flatMap(shortcomings), [])
    })
  }

  test("is found: what the entry points export when they are loaded, and their classes' methods, is among them", () => {
    for (const { entry, symbols } of surface) {
      const found = new Set(symbols.flatMap(({ name, members }) => [name, ...members.map((member) => member.name)]))
      const exported = require(entry)
      const methods = Object.entries(exported).flatMap(([name, value]) =>
        String(value).startsWith("class ")
          ? Object.getOwnPropertyNames(value.prototype).map((method) => `${name}.${method}`)
          : [],
      )
      const missing = [...Object.keys(exported), ...methods].filter((name) => !found.has(name))
      assert.deepEqual(
        missing.filter((name) => !/\.(constructor|name)$|^default$/.test(name)),
        [],
      )
    }
    const members = new Set(surface[0].symbols.flatMap(({ members }) => members.map(({ name }) => name.split(".")[1])))
    const { open } = require("syncline")
    const store = open(":memory:")
    for (const object of [store, store.db, store.db.prepare("SELECT 1"), store.export()]) {
      for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) {
        assert.ok(name === "constructor" || members.has(name), name)
      }
    }
    store.close()
  })
})

describe("every example", () => {
  // What several entry points export goes on from the programs of the first one.
  const shown = new Set()
  const programs = surface.flatMap(({ entry, symbols }) => {
    const own = symbols.filter(({ file, name }) => !shown.has(`${file} ${name}`))
    for (const { file, name } of own) shown.add(`${file} ${name}`)
    return programsOf(entry, own)
  })

  test("compiles, strictly", async () => {
    assert.deepEqual(await compile(folder, programs), [])
  })

  test("runs, and gives, throws and prints what it says", async () => {
    const started = performance.now()
    assert.deepEqual(await run(folder, programs), [])
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    const count = surface.reduce((sum, { symbols }) => sum + symbols.length, 0)
    const left = noServer ? programs.filter(({ onServer }) => onServer).length : 0
    if (left > 0) console.log(`NOT RUN: ${left} examples of syncline/nats. ${noServer}.`)
    console.log(
      `figures ${programs.length - left} examples of ${count} public symbols and their methods, run in ${seconds} s`,
    )
  })
})

describe("what is wrong is named with its file, line and symbol:", () => {
  test("no comment, no example, a method without one, a line that reads differently without semicolons", () => {
    const symbols = invented(
      "export interface Bare {",
      "  bare: string",
      "}",
      "/** Described. */",
      "export class Shown {",
      "  /** Described. */",
      "  method(): void {}",
      "}",
      "/**",
      " * Described.",
      " * @example",
      " * const a = store",
      " * (a)",
      " */",
      "export const split = 1",
      "/** @internal */",
      "export const hidden = 1",
    )
    assert.deepEqual(symbols.flatMap(shortcomings), [
      "lib/invented.ts:1 (Bare): no doc comment",
      "lib/invented.ts:2 (Bare.bare): no doc comment",
      "lib/invented.ts:5 (Shown): no example",
      "lib/invented.ts:7 (Shown.method): no example",
      "lib/invented.ts:13 (split): the line before would go on with this one",
    ])
  })

  test("a type error, and a promise of one that is none", async () => {
    const symbols = invented(
      example('store.sequence("ses_1").length'),
      example('store.sequence("ses_1") // does not compile'),
      example("store.sequence(1) // does not compile"),
    )
    assert.deepEqual(await compile(own("types"), programsOf("syncline", symbols)), [
      "lib/invented.ts:3 (wrong): error TS2339: Property 'length' does not exist on type 'number'.",
      "lib/invented.ts:8 (wrong): error TS2578: Unused '@ts-expect-error' directive.",
    ])
  })

  test("another value, error or text than is said, what is never reached, and a process that ends", async () => {
    const symbols = invented(
      example('store.sequence("ses_1") // → 2'),
      example('store.get("ses_1", 0) // → { seq: 0 }'),
      example("store.readAll({ limit: 9 }) // → [{ seq: 0, … }]"),
      example("const last = [1, 2] // → [1]"),
      example("store.run(Renamed, { sessionID: 'a', title: 'b' }, { expectedSeq: 7 }) // throws ERR_CLOSED"),
      example("store.sequence('ses_1') // throws ERR_CLOSED"),
      example("console.log(1) // 2"),
      example("console.log(3)"),
      example('for (const seq of [] as number[]) store.get("ses_1", seq) // prints nothing'),
      example('if (store.sequence("ses_1") > 5) {\n *   store.sequence("ses_1") // → 5\n * }'),
      example("throw new Error('thrown')"),
      example('process.emitWarning("warned")'),
      example("process.exit(0)"),
    )
    const programs = programsOf("syncline", symbols)
    const wrong = own("values")
    assert.deepEqual(await compile(wrong, programs), [])
    const complaints = await run(wrong, programs, 1)
    const expected = [
      /^lib\/invented\.ts:3 \(wrong\): it gives 1$/,
      /^lib\/invented\.ts:8 \(wrong\): it gives \{/,
      /^lib\/invented\.ts:13 \(wrong\): it gives \[/,
      /^lib\/invented\.ts:18 \(wrong\): it gives \[ 1, 2 \]$/,
      /^lib\/invented\.ts:23 \(wrong\): it throws SyncError: .* \{/s,
      /^lib\/invented\.ts:28 \(wrong\): it throws nothing$/,
      /^lib\/invented\.ts:33 \(wrong\): it should print \[ '2' \], and prints \[ '1' \]$/,
      /^lib\/invented\.ts:38 \(wrong\): it should print \[\], and prints \[ '3' \]$/,
      /^lib\/invented\.ts:43 \(wrong\): it should print \[ 'nothing' \], and prints \[\]$/,
      /^lib\/invented\.ts:49 \(wrong\): it is never reached$/,
      /^lib\/invented\.ts:55 \(wrong\): Error: thrown/,
      /^lib\/invented\.ts:60 \(wrong\): a process warning: warned$/,
      /^lib\/invented\.ts:65 \(wrong\): the process ended/,
    ]
    assert.equal(complaints.length, expected.length, complaints.join("\n"))
    expected.forEach((pattern, index) => assert.match(complaints[index], pattern))
  })

  function own(name) {
    mkdirSync(join(folder, name))
    return join(folder, name)
  }

  function example(code) {
    return `/**\n * @example\n * ${code}\n */\nexport const wrong = 1`
  }

  /** What a source of these lines would export; names may be used again. */
  function invented(...parts) {
    const lines = parts.join("\n").split("\n")
    let count = 0
    const text = lines.map((line) => line.replace(/^export const wrong/, () => `export const wrong${count++}`))
    const symbols = publicSymbols("lib/invented.ts", () => text.join("\n"))
    return symbols.map((symbol) => ({ ...symbol, name: symbol.name.replace(/\d+$/, "") }))
  }
})

/** What a symbol and its members lack. The fields of `SyncError` are described where `ErrorFields` has them. */
function shortcomings(symbol) {
  const { file, name, kind, line, comment, members } = symbol
  const said = (at, what) => `${file}:${at} (${name}): ${what}`
  const examples = examplesOf(symbol)
  const found = examples.flatMap(({ code, line: first }) => {
    const lines = code.split("\n")
    const split = lines.flatMap((text, at) =>
      at > 0 && /^([([`+-]|\/[^/])/.test(text) ? [said(first + at, "the line before would go on with this one")] : [],
    )
    return lines.length > LONGEST ? [said(first, `more than ${LONGEST} lines`), ...split] : split
  })
  if (comment === undefined && !name.startsWith("SyncError.")) found.push(said(line, "no doc comment"))
  else if (examples.length === 0 && kind !== "property") found.push(said(line, "no example"))
  return [...found, ...members.flatMap(shortcomings)]
}
