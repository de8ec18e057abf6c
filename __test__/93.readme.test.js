"use strict"

// What the documents show works as a reader would type it: each snippet compiles, runs, and prints what it says it prints.

const assert = require("node:assert/strict")
const { spawn, spawnSync } = require("node:child_process")
const {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} = require("node:fs")
const { tmpdir } = require("node:os")
const { dirname, join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const { noServer, startServer } = require("./nats-server")

const root = join(__dirname, "..")
const documents = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
documents.push(...readdirSync(join(root, "examples")).map((name) => `examples/${name}/README.md`))
documents.push(...readdirSync(join(root, "docs")).map((name) => `docs/${name}`))
const texts = new Map(documents.map((name) => [name, readFileSync(join(root, name), "utf8")]))
const snippets = documents.flatMap(snippetsOf)
let folder

before(() => {
  folder = mkdtempSync(join(tmpdir(), "syncline-readme-"))
  for (const scope of ["@types", "@hono", "@nats-io"])
    mkdirSync(join(folder, "node_modules", scope), { recursive: true })
  const link = (target, name) => symlinkSync(target, join(folder, "node_modules", name), "junction")
  link(root, "syncline")
  const packages = [
    "zod",
    "drizzle-orm",
    "kysely",
    "hono",
    "@hono/node-server",
    "@types/node",
    "@nats-io/transport-node",
  ]
  for (const name of packages) link(join(root, "node_modules", name), name)
  for (const { name, code } of snippets) {
    // Saved as ESM and as CommonJS: a reader's project may be either.
    for (const extension of ["mts", "cts"]) writeFileSync(join(folder, `${name}.${extension}`), code)
  }
})

after(() => rmSync(folder, { recursive: true, force: true }))

describe("snippets", () => {
  test("there are some", () => assert.ok(snippets.length >= 6))

  test("compile, strictly, as ESM and as CommonJS", () => {
    const options = ["--strict", "--target", "es2023", "--lib", "es2023,esnext.disposable", "--types", "node"]
    // drizzle-orm's own declarations name databases that are not installed here.
    options.push("--module", "node16", "--moduleResolution", "node16", "--skipLibCheck", "--outDir", "out")
    const programs = snippets.flatMap(({ name }) => [`${name}.mts`, `${name}.cts`])
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
    const { stdout, stderr } = spawnSync(process.execPath, [tsc, ...options, ...programs], {
      cwd: folder,
      encoding: "utf8",
    })
    assert.equal(`${stdout}${stderr}`, "")
  })

  for (const { name, title, code, runs, prints } of snippets) {
    if (!runs) continue
    // What connects to a cluster has a server of its own.
    const onServer = code.includes("@nats-io/")
    test(`${title} runs, and prints what it says`, { skip: onServer && noServer }, async (t) => {
      const own = join(folder, `run-${name}`)
      mkdirSync(own)
      const compiled = join(folder, "out", `${name}.mjs`)
      const server = onServer ? await startServer() : undefined
      t.after(() => server?.stop())
      const { status, output, errors } = await run(compiled, own, { ...process.env, NATS_URL: server?.url })
      assert.equal(status, 0, errors)
      assert.equal(errors, "")
      if (prints !== undefined) assert.equal(output.trim(), prints.trim())
      assertPrinted(code, output)
    })
  }

  test("the first needs no compiler", async () => {
    const own = join(folder, "run-plain")
    mkdirSync(own)
    const plain = join(folder, "plain.mjs")
    writeFileSync(plain, snippets[0].code)
    const { status, output, errors } = await run(plain, own)
    assert.deepEqual({ status, errors }, { status: 0, errors: "" })
    assert.equal(output.trim(), snippets[0].prints.trim())
  })
})

describe("documents", () => {
  test("link to what exists", () => {
    for (const [name, text] of texts) {
      for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
        assert.ok(existsSync(join(root, dirname(name), target)), `${name} links to ${target}`)
      }
    }
  })

  test("name commands that exist", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    for (const [name, text] of texts) {
      for (const [, script] of text.matchAll(/`npm (?:run )?([\w:]+)/g)) {
        assert.ok(["install", "pack", "ci"].includes(script) || script in scripts, `${name}: npm ${script}`)
      }
    }
  })

  test("name tests and benchmarks that exist", () => {
    const suites = readdirSync(__dirname)
    const questions = readdirSync(join(root, "bench"))
    let found = 0
    for (const [name, text] of texts) {
      for (const [, words] of text.matchAll(/`npm test -- ([\w. -]+)`/g)) {
        found++
        for (const word of words.split(" ").filter((word) => /\d/.test(word)))
          assert.ok(
            suites.some((suite) => suite.endsWith(".test.js") && suite.startsWith(word)),
            `${name}: npm test -- ${word}`,
          )
      }
      for (const [, words] of text.matchAll(/`npm run bench -- ([\w -]+)`/g)) {
        found++
        for (const word of words.split(" ")) assert.ok(questions.includes(`${word}.mjs`), `${name}: bench ${word}`)
      }
    }
    assert.ok(found >= 15)
  })

  test("name files of the source that exist", () => {
    for (const [name, text] of texts) {
      for (const [path] of text.matchAll(
        /\b(?:src|lib|scripts|__test__|bench|docs)\/[\w./-]*\w\.(?:rs|ts|mjs|js|sql|md)\b/g,
      )) {
        assert.ok(existsSync(join(root, path)) || path === "bench/RESULTS.md", `${name} names ${path}`)
      }
    }
  })

  test("hold nothing that was left to be done", () => {
    for (const [name, text] of texts) assert.doesNotMatch(text, /\bTODO\b|\bFIXME\b|\bTBD\b|lorem ipsum/i, name)
  })
})

/** `{name, title, code, runs, prints}` of each TypeScript or JavaScript snippet; a text block after one is what it prints. */
function snippetsOf(document) {
  const blocks = [...texts.get(document).matchAll(/^```(\w+)([^\n]*)\n([\s\S]*?)^```$/gm)].map((match) => {
    const [whole, language, options, body] = match
    return { language, options, body, start: match.index, end: match.index + whole.length }
  })
  return blocks.flatMap(({ language, options, body, start, end }, index) => {
    if (!/^(ts|js|mjs|cjs|typescript|javascript)$/.test(language)) return []
    const next = blocks[index + 1]
    const between = next === undefined ? "" : texts.get(document).slice(end, next.start)
    const prints = next?.language === "text" && /^\s*It prints:?\s*$/.test(between) ? next.body : undefined
    const line = texts.get(document).slice(0, start).split("\n").length
    const name = `${document.replaceAll(/\W+/g, "-")}-${line}`
    return [{ name, title: `${document}:${line}`, code: body, runs: !/\bno-run\b/.test(options), prints }]
  })
}

/** `console.log(…) // what` is a promise: the lines promised must be among those printed, in that order. */
function assertPrinted(code, output) {
  const lines = output.split("\n").map(quotedAlike)
  let next = 0
  for (const [, promised] of code.matchAll(/^\s*console\.log\(.*\) \/\/ (.+)$/gm)) {
    const wanted = quotedAlike(promised)
    const at = lines.findIndex((line, index) => index >= next && (wanted === line || wanted.startsWith(`${line}: `)))
    assert.ok(at >= 0, `"${promised}" was not printed in its place:\n${output}`)
    next = at + 1
  }
}

function quotedAlike(text) {
  return text.replaceAll('"', "'").trim()
}

function run(program, cwd, env = process.env) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program], { cwd, env, timeout: 30_000 })
    const result = { output: "", errors: "" }
    child.stdout.on("data", (chunk) => (result.output += chunk))
    child.stderr.on("data", (chunk) => (result.errors += chunk))
    child.on("close", (status) => resolve({ ...result, status }))
  })
}
