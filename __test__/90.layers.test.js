"use strict"

// What keeps the house in order and no compiler holds: who may import whom, what each layer may name, how long files are.

const assert = require("node:assert/strict")
const { readFileSync, readdirSync } = require("node:fs")
const { basename, join, posix } = require("node:path")
const { describe, test } = require("node:test")

const root = join(__dirname, "..")
const read = (file) => readFileSync(join(root, file), "utf8")
const filesIn = (folder, pattern) =>
  readdirSync(join(root, folder), { recursive: true })
    .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
    .filter((name) => pattern.test(name) && !name.includes("/node_modules/") && !name.includes("/dist/"))
    .toSorted()

describe("TypeScript imports go one way", () => {
  const SERVER = [
    "answer authorize body accept history incoming ownership frame follower continuity tail resume live schemas openapi",
    "routes",
  ].flatMap((line) => line.split(" "))
  const CLIENT = ["remote dialect inbox connection follow positions receiver push transfer"].flatMap((line) =>
    line.split(" "),
  )
  const CLUSTER = [
    "token message items failure cluster witness search segments fetch authority lane relay ownership pool delivery intake reader replicate",
  ].flatMap((line) => line.split(" "))
  /** Each file may import those before it. */
  const ORDER = [
    "runtime errors promise argument bind payload row sql platform binary loading native schema define",
    "transaction statement database project published watch catch-up publish skipped queue context",
    "job maintain backup adopt verify accept run remove ephemeral owner read stats pull log changes wait stream",
    "replayed park replay lines compression export source import settings store index",
    "drizzle foreign json-schema projection sync-event",
    "follow/backoff follow/failure follow/batches follow/apply follow/following",
    "http/status",
    ...SERVER.map((name) => `http/server/${name}`),
    ...CLIENT.map((name) => `http/client/${name}`),
    "http",
    ...CLUSTER.map((name) => `nats/${name}`),
    "nats",
    "cli/text cli/progress cli/output cli/interrupt cli/watched cli/database cli/failure cli/command cli/token cli/unapplied",
    "cli/look cli/log cli/mend cli/own cli/move cli/serving cli/serve cli/following cli/share",
    "cli/connection cli/cluster cli/completion cli/program cli/main",
  ].flatMap((line) => line.split(" "))
  /** The name of a type alone, which no running code follows. */
  const TYPES_ONLY = { statement: ["database"] }

  for (const file of filesIn("lib", /\.ts$/)) {
    const name = file.slice("lib/".length, -".ts".length)
    test(`${file} imports only what stands before it`, () => {
      assert.ok(ORDER.includes(name), `${file} has no place in the order yet`)
      for (const [statement, path] of importsOf(file)) {
        if (!path.startsWith(".")) continue
        const imported = posix.join(posix.dirname(name), path)
        const later = ORDER.indexOf(imported) >= ORDER.indexOf(name)
        const excepted = /^(import|export) type\b/.test(statement) && TYPES_ONLY[name]?.includes(imported)
        assert.ok(!later || excepted, `${file} imports ${imported}`)
      }
    })
  }

  /** Pairs of the statement's beginning and the path. */
  function importsOf(file) {
    const statements = /^((?:import|export)(?: type)? (?:\{[^}]*\}|\* as \w+|\w+)) from "([^"]+)"/gm
    return [...read(file).matchAll(statements)].map(([, statement, path]) => [statement, path])
  }

  test("the server and the client of lib/http import nothing of each other", () => {
    for (const file of filesIn("lib/http", /\.ts$/)) {
      const other = /\/server\//.test(file) ? "client" : /\/client\//.test(file) ? "server" : undefined
      for (const [, path] of importsOf(file)) assert.ok(other === undefined || !path.includes(`/${other}/`), file)
    }
  })

  test("only native.ts loads the addon, and the command may fail to", () => {
    const loading = filesIn("lib", /\.ts$/).filter((file) => /\brequire\(|"#native"/.test(read(file)))
    assert.deepEqual(loading, ["lib/cli/main.ts", "lib/native.ts"])
    assert.doesNotMatch(read("lib/cli/main.ts"), /native"/)
  })

  test("every entry point looks at the runtime before anything else", () => {
    assert.match(read("lib/cli/main.ts"), /^try \{\n(\s*\/\/.*\n)*\s*require\("\.\.\/runtime"\)$/m)
    const { exports } = JSON.parse(read("package.json"))
    const entries = Object.values(exports).flatMap((entry) => [entry.require?.default, entry.import?.default])
    assert.equal(entries.filter(Boolean).length, 10)
    for (const file of entries.filter(Boolean)) {
      assert.match(read(file), /^(require\("\.\/runtime\.js"\)|import "\.\/loadable\.mjs")\n/, file)
    }
    assert.match(read("dist/loadable.cjs"), /^try \{\n {2}require\("\.\/runtime\.js"\)\n/)
  })

  /** Which packages the files of a folder, or one file, may import. */
  const PACKAGES = [
    [/^lib\/drizzle\.ts$/, /^drizzle-orm/],
    [/^lib\/http\//, /^(hono|eventsource-parser)(\/|$)/],
    [/^lib\/cli\/connection\.ts$/, /^@nats-io\/transport-node$/],
    [/^lib\/nats\//, /^@nats-io\/(transport-node|jetstream|kv|obj)$/],
    [/^lib\/cli\//, /^(commander|cli-progress|picocolors|string-width|@hono\/node-server)(\/|$)/],
  ]

  test("the core depends on no package, each entry point on its own, and nothing is exported by a star", () => {
    for (const file of filesIn("lib", /\.ts$/)) {
      assert.doesNotMatch(read(file), /^export \*/m, file)
      const packages = importsOf(file).map(([, path]) => path)
      const foreign = packages.filter((name) => !/^(\.|node:|@standard-schema\/spec$)/.test(name))
      const allowed = PACKAGES.find(([files]) => files.test(file))?.[1] ?? /^$/
      for (const name of foreign) assert.match(name, allowed, file)
    }
  })

  test("the public values are these", () => {
    const values = (entry) => Object.keys(require(entry)).toSorted()
    assert.deepEqual(values("syncline"), [
      "SyncError",
      "createRegistry",
      "define",
      "errorCodes",
      "open",
      "project",
      "sql",
    ])
    assert.ok(values("syncline/drizzle").includes("drizzle"))
    assert.ok(values("syncline/sync-event").includes("SyncEvent"))
  })
})

describe("Rust imports go one way", () => {
  // lib.rs lists the modules in the order of the data's path; those between two empty lines stand on one level.
  const levels = read("src/lib.rs")
    .split(/\n\s*\n/)
    .map((block) => [...block.matchAll(/^(?:pub )?mod (\w+);/gm)].map(([, name]) => name))
    .filter((level) => level.length > 0)
  const levelOf = (name) => levels.findIndex((level) => level.includes(name))
  const sources = filesIn("src", /\.rs$/).filter((file) => file !== "src/lib.rs")
  const moduleOf = (file) => file.split("/")[1].replace(/\.rs$/, "")
  const imports = new Map(levels.flat().map((name) => [name, new Set()]))

  for (const file of sources) {
    test(`${file} imports only its own level and those before it`, () => {
      const name = moduleOf(file)
      assert.ok(levelOf(name) >= 0, `${name} is not in lib.rs`)
      const used = [...code(file).matchAll(/\bcrate::(\w+)/g)].map(([, used]) => used)
      const grouped = [...code(file).matchAll(/\bcrate::\{/g)]
      assert.equal(grouped.length, 0, "one line a module keeps this test simple")
      for (const each of used) {
        assert.ok(levelOf(each) >= 0 && levelOf(each) <= levelOf(name), `${file} imports ${each}`)
        if (each !== name) imports.get(name).add(each)
      }
    })
  }

  test("no module imports itself by way of others", () => {
    assert.ok([...imports.values()].some((set) => set.size > 0))
    const visit = (name, path) => {
      assert.ok(!path.includes(name), [...path, name].join(" → "))
      for (const each of imports.get(name)) visit(each, [...path, name])
    }
    for (const name of imports.keys()) visit(name, [])
  })

  test("limits and error import nothing of the crate", () => {
    for (const name of ["limits", "error"]) assert.deepEqual([...imports.get(name)], [])
  })

  test("only binding/ names napi, and it names no SQL", () => {
    for (const file of sources) {
      const inBinding = moduleOf(file) === "binding"
      if (!inBinding) assert.doesNotMatch(code(file), /\bnapi/, file)
      if (inBinding) {
        const strings = code(file).match(/"(?:[^"\\]|\\.)*"/g) ?? []
        const sql = /\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b/
        assert.deepEqual(
          strings.filter((string) => sql.test(string)),
          [],
          file,
        )
        assert.doesNotMatch(code(file), /\brusqlite::Connection\b/, file)
      }
    }
  })

  test("only connection/open.rs opens SQLite", () => {
    const opening = sources.filter((file) => /open_with_flags|open_in_memory|Sqlite::open/.test(code(file)))
    assert.deepEqual(opening, ["src/connection/open.rs"])
  })

  test("every export catches panics", () => {
    let exported = 0
    for (const file of sources) {
      for (const [attributes, kind, name] of code(file).matchAll(/^#\[napi[\s\S]*?^pub (fn|struct|enum) (\w+)/gm)) {
        if (kind !== "fn") continue
        assert.match(attributes, /^#\[napi\(\s*catch_unwind\b/, `${file}: ${name}`)
        exported++
      }
    }
    const declared = read("native/index.d.ts").match(/^export declare function/gm).length
    assert.equal(exported, declared)
  })

  test("unsafe code is allowed file by file, and says why it is sound", () => {
    for (const file of sources.filter((file) => /\bunsafe\b/.test(code(file)))) {
      assert.match(read(file), /allow\(unsafe_code\)/, file)
      assert.match(read(file), /SAFETY|# Safety/, file)
    }
    assert.match(read("Cargo.toml"), /unsafe_code = "deny"/)
  })

  test("each file of schema/ makes the one object that it is named for", () => {
    for (const file of filesIn("src/schema", /\.sql$/)) {
      const made = [...read(file).matchAll(/^CREATE (?:UNIQUE )?\w+ (\w+)/gm)].map(([, name]) => name)
      assert.deepEqual(made, [basename(file, ".sql")])
      assert.doesNotMatch(read(file), /;/, `${file} is one statement`)
    }
  })

  /** Without comments and without the tests at its end. */
  function code(file) {
    return read(file)
      .replace(/\n#\[cfg\(test\)\][\s\S]*$/, "\n")
      .replace(/^\s*\/\/.*$/gm, "")
  }
})

test("the glibc that an error of loading names is the one that releases are linked against", async () => {
  const { LOWEST_GLIBC } = await import("../scripts/bounds.mjs")
  const [, named] = /LOWEST_GLIBC = "([\d.]+)"/.exec(read("lib/loading.ts"))
  assert.equal(named, LOWEST_GLIBC)
})

describe("files", () => {
  /** Longer than 420 lines, and how long they may be: one façade, one list of checks in order, one surface, and its foes. */
  const LONGER = {
    "src/store.rs": 680,
    "lib/store.ts": 600,
    "src/replay.rs": 640,
    "__test__/25.database.test.js": 660,
    "__test__/70.errors.test.js": 480,
    "__test__/18.hostile-data.test.js": 660,
  }

  test("have at most 420 lines, but for a named few", () => {
    const folders = ["src", "lib", "scripts", "__test__", "bench", "examples"]
    const files = folders.flatMap((folder) => filesIn(folder, /\.(rs|ts|js|mjs|cjs)$/))
    assert.ok(files.length > 80)
    const tooLong = files
      .map((file) => [file, read(file).split("\n").length - 1])
      .filter(([file, lines]) => lines > (LONGER[file] ?? 420))
    assert.deepEqual(tooLong, [])
    for (const file of Object.keys(LONGER)) assert.ok(files.includes(file), `${file} is gone: take it off the list`)
  })

  test("are named for what they hold", () => {
    const files = ["src", "lib", "scripts", "__test__", "bench", "docs"].flatMap((folder) => filesIn(folder, /./))
    const vague = files.filter((file) => /^(utils?|helpers?|common|misc|shared)\b/.test(basename(file)))
    assert.deepEqual(vague, [])
  })

  test("of a suite are numbered along the path, and each number is used once", () => {
    for (const folder of ["__test__", "__test__/package"]) {
      const suites = readdirSync(join(root, folder)).filter((name) => name.endsWith(".test.js"))
      for (const name of suites) assert.match(name, /^\d\d\d?\.[a-z-]+\.test\.js$/)
      const numbers = suites.map((name) => name.split(".")[0])
      assert.deepEqual(numbers, [...new Set(numbers)])
    }
  })

  test("of npm/ are the targets of package.json", () => {
    const { version, napi } = JSON.parse(read("package.json"))
    const folderOf = (target) => {
      const [arch, , system, abi] = target.split("-")
      const cpu = { x86_64: "x64", aarch64: "arm64" }[arch]
      return [{ linux: "linux", darwin: "darwin", windows: "win32" }[system], cpu, abi].filter(Boolean).join("-")
    }
    assert.deepEqual(readdirSync(join(root, "npm")).toSorted(), napi.targets.map(folderOf).toSorted())
    const { PLATFORMS } = require("../dist/platform.js")
    assert.deepEqual(PLATFORMS.toSorted(), napi.targets.map(folderOf).toSorted(), "what an error of loading offers")
    for (const folder of readdirSync(join(root, "npm"))) {
      const manifest = JSON.parse(read(`npm/${folder}/package.json`))
      assert.equal(manifest.version, version)
      assert.equal(manifest.name, `${napi.packageName}-${folder}`)
    }
  })
})
