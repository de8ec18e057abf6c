"use strict"

// The package as it would be published: what is in the tarball, and that a folder into which it was installed can use it.
// __test__/package goes on from there: it publishes and installs with real clients.

const assert = require("node:assert/strict")
const { execFileSync } = require("node:child_process")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")

const root = path.resolve(__dirname, "..")
const manifest = readJSON("package.json")
const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc")

function readJSON(file) {
  return JSON.parse(fs.readFileSync(path.resolve(root, file), "utf8"))
}

describe("platform packages", () => {
  const folders = {
    "x86_64-unknown-linux-gnu": "linux-x64-gnu",
    "x86_64-unknown-linux-musl": "linux-x64-musl",
    "aarch64-unknown-linux-gnu": "linux-arm64-gnu",
    "aarch64-unknown-linux-musl": "linux-arm64-musl",
    "x86_64-apple-darwin": "darwin-x64",
    "aarch64-apple-darwin": "darwin-arm64",
    "x86_64-pc-windows-msvc": "win32-x64-msvc",
  }

  test("npm/ has one folder for each target of package.json", () => {
    assert.deepEqual(manifest.napi.targets.toSorted(), Object.keys(folders).toSorted())
    assert.deepEqual(fs.readdirSync(path.join(root, "npm")).toSorted(), Object.values(folders).toSorted())
  })

  test("each is named as the loader asks for it and carries the version, license and engines of the root", () => {
    const loader = fs.readFileSync(path.join(root, "native", "index.js"), "utf8")
    for (const folder of Object.values(folders)) {
      const { name, version, main, license, engines } = readJSON(`npm/${folder}/package.json`)
      const { version: rootVersion, license: rootLicense, engines: rootEngines } = manifest
      assert.deepEqual(
        { name, version, main, license, engines },
        {
          name: `syncline-${folder}`,
          version: rootVersion,
          main: `syncline.${folder}.node`,
          license: rootLicense,
          engines: rootEngines,
        },
      )
      assert.ok(loader.includes(`require('${name}')`), `the loader does not ask for ${name}`)
    }
  })
})

describe("the tarball", () => {
  let folder
  let files
  let size
  const platformsBuilt = fs.readdirSync(path.join(root, "native")).filter((name) => name.endsWith(".node"))

  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "syncline-package-"))
    const staged = path.join(folder, "stage")
    node(path.join(root, "scripts", "stage.mjs"), "--out", staged)
    const packages = JSON.parse(fs.readFileSync(path.join(staged, "packages.json"), "utf8"))
    const { tarball, packed } = packages.find(({ name }) => name === "syncline")
    size = packed
    const target = path.join(folder, "node_modules", "syncline")
    fs.mkdirSync(target, { recursive: true })
    // Beside the tarball, since what stands before a colon is a machine's name to tar.
    execFileSync("tar", ["-xzf", tarball, "-C", path.relative(staged, target), "--strip-components=1"], { cwd: staged })
    files = filesIn(target)
    for (const name of [...Object.keys(manifest.dependencies), "@types/node", "undici-types"]) installDependency(name)
    // What npm would install beside the package on this platform.
    for (const { name } of packages.filter(({ addon }) => addon !== undefined)) {
      fs.renameSync(path.join(staged, name), path.join(folder, "node_modules", name))
    }
  })

  after(() => fs.rmSync(folder, { recursive: true, force: true }))

  function installDependency(name) {
    fs.cpSync(path.join(root, "node_modules", name), path.join(folder, "node_modules", name), { recursive: true })
  }

  function filesIn(target) {
    const entries = fs.readdirSync(target, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    const paths = entries.map((entry) => path.relative(target, path.join(entry.parentPath ?? entry.path, entry.name)))
    return paths.map((file) => file.replaceAll("\\", "/"))
  }

  function write(name, text) {
    fs.writeFileSync(path.join(folder, name), text)
    return path.join(folder, name)
  }

  function node(...args) {
    return execFileSync(process.execPath, args, {
      cwd: folder,
      encoding: "utf8",
    }).trim()
  }

  function exportedFiles(value) {
    return typeof value === "string" ? [value.slice(2)] : Object.values(value).flatMap(exportedFiles)
  }

  test("holds every file that exports, imports, main and types name", () => {
    const { exports, imports, main, types } = manifest
    for (const file of exportedFiles({ exports, imports, main, types })) {
      assert.ok(files.includes(file), `${file} is missing`)
    }
  })

  test("holds nothing but the build, the loader and the documents, within its bound", async () => {
    const { ROOT_TARBALL } = await import("../scripts/bounds.mjs")
    const allowed = /^(dist\/.*|native\/index\.(js|d\.ts)|package\.json|docs\/.*|[A-Z]+(\.md)?)$/
    assert.deepEqual(
      files.filter((file) => !allowed.test(file)),
      [],
    )
    assert.ok(size < ROOT_TARBALL, `${size} bytes`)
  })

  test("has nothing in its manifest that only a clone needs", () => {
    const installed = JSON.parse(fs.readFileSync(path.join(folder, "node_modules", "syncline", "package.json"), "utf8"))
    const { scripts, devDependencies, napi } = installed
    assert.deepEqual(
      { scripts, devDependencies, napi },
      { scripts: undefined, devDependencies: undefined, napi: undefined },
    )
    assert.deepEqual(Object.keys(installed.optionalDependencies).length, platformsBuilt.length)
  })

  test("needs no script while it is installed, neither it nor a platform's package", () => {
    const manifests = [
      manifest,
      ...fs.readdirSync(path.join(root, "npm")).map((name) => readJSON(`npm/${name}/package.json`)),
    ]
    for (const { name, scripts = {} } of manifests) {
      for (const script of ["preinstall", "install", "postinstall"])
        assert.ok(!(script in scripts), `${name}: ${script}`)
    }
    assert.ok(!files.includes("binding.gyp"), "npm would run node-gyp")
  })

  test("holds no source maps, since it does not hold the sources", () => {
    for (const file of files) {
      assert.doesNotMatch(file, /\.map$/)
      if (file.startsWith("dist/"))
        assert.doesNotMatch(fs.readFileSync(path.join(root, file), "utf8"), /sourceMappingURL/)
    }
  })

  test("holds what its documents link to, but for what belongs to the repository alone", () => {
    for (const file of files.filter((name) => name.endsWith(".md"))) {
      const text = fs.readFileSync(path.join(root, file), "utf8")
      for (const [, link] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
        const named = path.posix.join(path.posix.dirname(file), link)
        const ofRepository =
          /^(bench\/|examples\/|fuzz\/|src\/|lib\/|docs\/(reliability|runtimes|versioning)\.md$|(ARCHITECTURE|CHANGELOG|CONTRIBUTING|SECURITY)\.md$)/
        if (!ofRepository.test(named)) assert.ok(files.includes(named), `${file} links to ${named}`)
      }
    }
  })

  test("every exported name has a doc comment, and so has each option", () => {
    const missing = []
    for (const entry of ["index", "drizzle", "sync-event", "http", "nats"]) {
      for (const { file, name } of exportsOf(`dist/${entry}.d.ts`)) {
        const text = fs.readFileSync(path.join(root, file), "utf8")
        const kinds = "const|function|(?:abstract )?class|interface|type"
        const found = new RegExp(`(\\*/\\n)?export (?:declare )?(?:${kinds}) ${name}\\b`).exec(text)
        if (!found?.[1]) missing.push(`${file}: ${name}`)
        if (/^(Definition|\w+Options)$/.test(name)) missing.push(...undocumented(text, file, name))
      }
    }
    assert.deepEqual(missing, [])
  })

  /** The names that a declaration file exports, with the files that declare them. */
  function exportsOf(file) {
    const text = fs.readFileSync(path.join(root, file), "utf8")
    const declared = /^export (?:declare )?(?:const|function|(?:abstract )?class|interface|type) (\w+)/gm
    const own = [...text.matchAll(declared)].map(([, name]) => ({ file, name }))
    const passed = [...text.matchAll(/^export (?:type )?\{([^}]*)\} from "\.\/([\w-]+)"/gm)].flatMap(
      ([, list, from]) => {
        const names = new Set(list.split(",").map((name) => name.trim().replace(/^type /, "")))
        return exportsOf(`dist/${from}.d.ts`).filter(({ name }) => names.has(name))
      },
    )
    return [...own, ...passed]
  }

  /** The fields of an interface that no comment describes. */
  function undocumented(text, file, name) {
    const body = new RegExp(`^export interface ${name}\\b[^]*?\\{\\n([^]*?)\\n\\}`, "m").exec(text)?.[1] ?? ""
    const fields = [...body.matchAll(/(\*\/\n)?^ {4}(?:readonly )?(\w+)\??:/gm)]
    return fields.filter(([, comment]) => comment === undefined).map(([, , field]) => `${file}: ${name}.${field}`)
  }

  test("every declaration but those that name hono's, drizzle's or NATS's types compiles, without skipLibCheck, Node's types or newer libraries", () => {
    const declarations = files.filter((file) => /^dist\/(?!drizzle|http|nats|cli).*\.d\.m?ts$/.test(file))
    const installed = declarations.map((file) => path.join(folder, "node_modules", "syncline", file))
    const options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "node16"]
    assert.equal(spawn([tsc, ...options, ...installed]), "")
  })

  test("what a consumer exports can be named in declarations, and stores can be used with `using`", () => {
    const consumer = `
      import { open } from "syncline"
      export const store = open(":memory:")
      export const statement = store.db.prepare("SELECT 1")
      export const changes = () => statement.run()
      export const columns = () => statement.columns()
      export const transaction = store.db.transaction((n: number) => n)
      export function scoped() {
        using local = open(":memory:")
        return local.sequence("a")
      }
    `
    const options = ["--declaration", "--outDir", path.join(folder, "out"), "--strict", "--exactOptionalPropertyTypes"]
    const target = ["--target", "es2022", "--lib", "es2022,dom", "--module", "node16"]
    assert.equal(spawn([tsc, ...options, ...target, write("named.cts", consumer), write("named.mts", consumer)]), "")
  })

  test("require and import work and give the same objects", () => {
    const program = `
      import * as assert from "node:assert/strict"
      import { createRequire } from "node:module"
      import * as esm from "syncline"
      import * as syncEvent from "syncline/sync-event"
      const require = createRequire(import.meta.url)
      for (const [name, module] of [["syncline", esm], ["syncline/sync-event", syncEvent]]) {
        const cjs = require(name)
        const named = Object.keys(module).filter((key) => key !== "default")
        assert.deepEqual(named.toSorted(), Object.keys(cjs).toSorted())
        for (const key of named) assert.equal(module[key], cjs[key], key)
      }
      // One SyncError and one default registry, whichever way an error or a definition came about.
      const { define, SyncError } = require("syncline")
      const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }
      const options = { type: "a", version: 1, aggregate: "id", schema, projector: "none" }
      define(options)
      assert.throws(() => esm.define(options), (error) => error instanceof SyncError && error instanceof esm.SyncError)
      const store = esm.open(":memory:")
      store.close()
      console.log("same")
    `
    assert.equal(node(write("same.mjs", program)), "same")
    assert.equal(node("-e", `console.log(typeof require("syncline").open)`), "function")
  })

  test("the inside is sealed", () => {
    const program = `
      for (const inside of ["syncline/dist/index.js", "syncline/native/index.js", "syncline/lib/store.ts"]) {
        try { require(inside) } catch (error) { console.log(error.code) }
      }
    `
    assert.deepEqual(node("-e", program).split("\n"), Array(3).fill("ERR_PACKAGE_PATH_NOT_EXPORTED"))
  })

  test("TypeScript compiles a consumer under node16 and bundler, as CommonJS and as ESM, without skipLibCheck", () => {
    const consumer = `
      import { open, SyncError } from "syncline"
      import { SyncEvent } from "syncline/sync-event"
      const store = open(":memory:")
      export const last: number = store.sequence("nothing")
      export const run = SyncEvent.run
      export const code = (error: unknown) => (error instanceof SyncError ? error.code : undefined)
      store.close()
    `
    const programs = [write("consumer.cts", consumer), write("consumer.mts", consumer), write("consumer.ts", consumer)]
    for (const [module, moduleResolution] of [
      ["node16", "node16"],
      ["esnext", "bundler"],
    ]) {
      const options = [
        "--noEmit",
        "--strict",
        "--target",
        "es2023",
        "--lib",
        "es2023,esnext.disposable",
        "--types",
        "*",
      ]
      const resolution = ["--module", module, "--moduleResolution", moduleResolution]
      const result = spawn([tsc, ...options, ...resolution, ...programs])
      assert.equal(result, "", `${moduleResolution}:\n${result}`)
    }
  })

  test("drizzle's types are those of the consumer's module system", () => {
    fs.symlinkSync(
      path.join(root, "node_modules", "drizzle-orm"),
      path.join(folder, "node_modules", "drizzle-orm"),
      "junction",
    )
    const consumer = `
      import { eq } from "drizzle-orm"
      import { sqliteTable, text } from "drizzle-orm/sqlite-core"
      import { open } from "syncline"
      import { drizzle } from "syncline/drizzle"
      const note = sqliteTable("note", { id: text().primaryKey(), title: text() })
      const db = drizzle(open(":memory:").db, { schema: { note } })
      export const rows: { id: string; title: string | null }[] = db.select().from(note).where(eq(note.id, "a")).all()
      export const found: { id: string }[] = db.query.note.findMany().sync()
    `
    // drizzle-orm's own declarations name databases that are not installed here.
    const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2023", "--module", "node16"]
    const result = spawn([tsc, ...options, write("tables.cts", consumer), write("tables.mts", consumer)])
    assert.equal(result, "")
  })

  /** What a program printed, empty when it had nothing to say. */
  function spawn(args) {
    try {
      return node(...args)
    } catch (error) {
      return `${error.stdout}${error.stderr}`.trim() || String(error)
    }
  }
})
