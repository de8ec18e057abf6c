"use strict"

// The command as a whole: help, versions, wrong command lines, wrong files, completion, and that docs/cli.md says what is.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } = require("node:fs")
const { dirname, join } = require("node:path")
const { before, describe, test } = require("node:test")
const command = require("./command.js")
const { inFile } = require("./older-tables.js")
const { file, history } = require("./stores.js")

const { binary, json, linesOf, logFile, refused, syncline, well } = command

const root = join(__dirname, "..")

/** The names of all commands, as the program's own help lists them. */
const commands = []
/** By name, the help of each. */
const helps = new Map()

before(async () => {
  for (const [, name] of listed(await well(["--help"]), "To look:", "Exit")) if (name !== "help") commands.push(name)
  const texts = await Promise.all(commands.map((name) => well([name, "--help"])))
  for (const [index, name] of commands.entries()) helps.set(name, texts[index])
})

/** What stands at the beginning of the lines of a help between two of its headings. */
function listed(help, from, to) {
  const start = help.indexOf(from)
  const end = help.indexOf(to, start)
  return [...help.slice(start, end < 0 ? undefined : end).matchAll(/^ {2}(?:-\w, )?(--[\w-]+|\w+)/gm)]
}

const optionsOf = (help) => listed(help, "Options:", "Examples:").map(([, name]) => name)

describe("help", () => {
  test("of the program lists the commands, and of each tells its options, with examples that use it", async () => {
    assert.ok(commands.length >= 10, commands.join())
    for (const name of commands) {
      const help = helps.get(name)
      assert.match(help, new RegExp(`^Usage: syncline ${name} \\[options\\]`))
      assert.match(help, /^Examples:\n/m)
      const examples = linesOf(help.slice(help.indexOf("Examples:"))).filter((line) => /^ {2}\w/.test(line))
      assert.ok(examples.length > 0, name)
      for (const line of examples) {
        assert.ok(line.startsWith(`  syncline ${name} `), line)
        for (const [option] of line.replace(/ \|.*| > .*/, "").matchAll(/--[\w-]+/g)) {
          assert.ok(optionsOf(help).includes(option), `${line}: ${option}`)
        }
      }
      assert.ok(optionsOf(help).includes("--json"), name)
    }
    assert.equal(await well(["help", "log"]), helps.get("log"))
  })

  test("fits 80 columns where it is asked for in a pipe", () => {
    for (const [name, help] of helps) {
      for (const line of linesOf(help))
        if (!line.startsWith("  syncline")) assert.ok(line.length <= 80, `${name}: ${line}`)
    }
  })

  test("is what no command gets, as an error", async () => {
    const { code, stdout, stderr } = await syncline([])
    assert.deepEqual({ code, stdout }, { code: 2, stdout: "" })
    assert.match(stderr, /^Usage: syncline /)
  })

  test("--version is that of the package", async () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    for (const flag of ["--version", "-V"]) assert.equal(await well([flag]), `${version}\n`)
  })
})

describe("wrong command lines exit with 2, and say what would be right", () => {
  const invalid = { code: "ERR_INVALID_ARGUMENT" }

  test("unknown commands and options, with what may have been meant", async () => {
    await refused(["lss"], 2, /unknown command 'lss'/, invalid)
    assert.match((await syncline(["lss", "a.db"])).stderr, /Did you mean ls\?/)
    await refused(["ls", "a.db", "--prefx", "a"], 2, /unknown option '--prefx'/, invalid)
    const { stderr } = await syncline(["ls", "a.db", "--prefx", "a"])
    assert.match(stderr, /Did you mean --prefix\?\)\n\(syncline ls --help says more\)\n$/)
  })

  test("missing and superfluous arguments, and values out of range", async () => {
    await refused(["ls"], 2, /missing required argument 'db'/, invalid)
    await refused(["ls", "a.db", "b.db"], 2, /too many arguments/, invalid)
    await refused(["log", "a.db", "--after", "x"], 2, /--after <n>.* It must be an integer from -1\./, invalid)
    await refused(["log", "a.db", "--after", "1.5"], 2, /It must be an integer/, invalid)
    await refused(["ls", "a.db", "--limit", "9007199254740992"], 2, /It must be an integer/, invalid)
    assert.match((await syncline(["ls", "a.db", "--limit"])).stderr, /'--limit <n>' argument missing/)
    await refused(["completion", "tcsh"], 2, /Allowed choices are bash, zsh, fish/, invalid)
  })

  test("what the library refuses as an argument", async () => {
    const path = logFile(history("a", 1))
    await refused(["log", path, ""], 2, /aggregateID must not be empty/, invalid)
    await refused(["claim", path, "a", "x".repeat(256)], 1, /256 bytes/, { code: "ERR_TOO_LARGE", limit: 255 })
    assert.equal((await syncline(["log", path, "--", "--json"])).code, 1)
  })
})

describe("files", () => {
  /** A command line of each command that takes a database which must be there. */
  const onExisting = [
    ["stats"],
    ["log", "a"],
    ["show", "a@0"],
    ["verify", "--repair"],
    ["maintain"],
    ["claim", "a", "b"],
    ["rm", "a", "--yes"],
    ["export"],
    ["serve", "--no-auth"],
  ].map(([name, ...rest]) => (path) => [name, path, ...rest])

  test("that are not there are not made", async () => {
    const path = file("none.db")
    const message = /There is no file ".*none\.db", and this command makes none/
    await refused(["ls", path], 1, message, { code: "ERR_NOT_FOUND" })
    const results = await Promise.all(onExisting.map((line) => syncline(line(path))))
    for (const { code, stderr } of results) {
      assert.equal(code, 1)
      assert.match(stderr, message)
    }
    assert.deepEqual(readdirSync(dirname(path)), [])
  })

  test("that are something else, or newer, are refused and left as they are", async () => {
    const make = {
      "text.db": (path) => writeFileSync(path, "no database ".repeat(500)),
      "empty.db": (path) => writeFileSync(path, ""),
      "plain.db": (path) => inFile(path, (db) => db.exec("CREATE TABLE made.own (a)")),
      "foreign.db": (path) => inFile(path, (db) => db.exec("CREATE TABLE made.event (a)")),
      "newer.db": (path) => {
        logFile(history("a", 1), "newer.db")
        inFile(path, (db) => db.exec("UPDATE made.event_meta SET format = 99"))
      },
    }
    const expected = {
      "text.db": [/is not a database/, "ERR_NOT_A_DATABASE"],
      "empty.db": [/has no event log/, "ERR_NOT_FOUND"],
      "plain.db": [/has no event log/, "ERR_NOT_FOUND"],
      "foreign.db": [/that syncline did not make/, "ERR_FOREIGN_SCHEMA"],
      "newer.db": [/has format 99/, "ERR_SCHEMA_NEWER"],
    }
    for (const [name, write] of Object.entries(make)) {
      const path = file(name)
      write(path)
      const bytes = readFileSync(path)
      const [message, code] = expected[name]
      await refused(["ls", path], 1, message, { code })
      const writing = await syncline(["maintain", path])
      assert.equal(writing.code, 1)
      assert.match(writing.stderr, message)
      assert.deepEqual(readFileSync(path), bytes, name)
    }
    mkdirSync(file("folder.db"))
    await refused(["ls", file("folder.db")], 1, /it is a directory/, { code: "ERR_NOT_A_DATABASE" })
  })

  test("in memory there is nothing to look at", async () => {
    await refused(["ls", ":memory:"], 1, /There is no file ":memory:"/, { code: "ERR_NOT_FOUND" })
  })
})

describe("completion", () => {
  /** What bash offers for a command line, whose last word is the one at the cursor. */
  async function completed(...words) {
    const script = file("completion.bash")
    writeFileSync(script, await well(["completion", "bash"]))
    const program = `
      source ${script}
      COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      _syncline
      printf '%s\\n' "\${COMPREPLY[@]}"
      complete -p syncline >&2`
    const { stdout, stderr, status } = spawnSync("bash", ["--norc", "-c", program], { encoding: "utf8" })
    assert.equal(status, 0, stderr)
    assert.match(stderr, /^complete -o bashdefault -o default -F _syncline syncline$/m)
    return linesOf(stdout)
  }

  test("in bash: commands, their options, words that an argument can be; else files", async () => {
    assert.deepEqual(await completed("syncline", "ver"), ["verify"])
    assert.deepEqual((await completed("syncline", "")).toSorted(), [...commands, "help"].toSorted())
    assert.deepEqual(await completed("syncline", "verify", "a.db", "--r"), ["--repair"])
    assert.deepEqual((await completed("syncline", "log", "-")).toSorted(), optionsOf(helps.get("log")).toSorted())
    assert.deepEqual(await completed("syncline", "completion", "z"), ["zsh"])
    assert.deepEqual(await completed("syncline", "help", "cla"), ["claim"])
    assert.deepEqual(await completed("syncline", "ls", "app"), [])
  })

  for (const [shell, check] of [
    ["zsh", (script) => ["-f", "-c", `compdef() { print "$@" }; source ${script}; whence -w _syncline`]],
    ["fish", (script) => ["--no-config", "-c", `source ${script}; complete -C 'syncline ver'`]],
  ]) {
    const skip = spawnSync(shell, ["--version"]).status !== 0 && `there is no ${shell}`
    test(`in ${shell} the script loads`, { skip }, async () => {
      const script = file(`completion.${shell}`)
      writeFileSync(script, await well(["completion", shell]))
      const { stdout, stderr, status } = spawnSync(shell, check(script), { encoding: "utf8" })
      assert.deepEqual({ status, stderr }, { status: 0, stderr: "" })
      assert.match(stdout, shell === "zsh" ? /_syncline syncline\n_syncline: function/ : /^verify\t/)
    })
  }

  test("names every option of every command, in each shell", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const script = await well(["completion", shell])
      assert.equal((await json(["completion", shell])).script, script)
      for (const name of commands) {
        for (const option of optionsOf(helps.get(name))) {
          const long = shell === "fish" ? `'__fish_seen_subcommand_from ${name}' -l ${option.slice(2)} ` : option
          assert.ok(script.includes(long), `${shell}: ${name} ${option}`)
        }
      }
    }
  })
})

describe("docs/cli.md", () => {
  const text = existsSync(join(root, "docs/cli.md")) ? readFileSync(join(root, "docs/cli.md"), "utf8") : ""
  /** By command, what its section says. */
  const sections = new Map(
    text
      .split(/^## /m)
      .map((section) => [/^`syncline (\w+)`/.exec(section)?.[1], section])
      .filter(([name]) => name !== undefined),
  )

  test("has a section for each command, in the order of the help", () => {
    assert.deepEqual([...sections.keys()], commands)
  })

  test("names in each the options that there are, and no other", () => {
    for (const [name, section] of sections) {
      const named = [...section.matchAll(/^\| `(--[\w-]+)/gm)].map(([, option]) => option)
      // What all have is told once, before the sections.
      const own = optionsOf(helps.get(name)).filter((option) => option !== "--json" && option !== "--help")
      assert.deepEqual(named.toSorted(), own.toSorted(), name)
      const usage = /^Usage: (.*)$/m.exec(helps.get(name))[1].replace(" [options]", "")
      assert.ok(section.includes(`${usage}`), `${name}: ${usage}`)
      for (const [option] of section.matchAll(/(?<![\w-])--[a-z][\w-]+/g)) {
        assert.ok(optionsOf(helps.get(name)).includes(option), `${name}: ${option}`)
      }
    }
    for (const option of ["--json", "--help", "--version"]) assert.ok(text.includes(`\`${option}\``), option)
  })
})

describe("the file that is run", () => {
  test("is what package.json names, and can be executed by its first line", () => {
    const { bin } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    assert.equal(join(root, bin.syncline), binary)
    assert.match(readFileSync(binary, "utf8"), /^#!\/usr\/bin\/env node\n/)
  })
})
