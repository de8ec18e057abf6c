"use strict"

// The command's moving: export and import, whole, in part, from stdin, cut, changed and interrupted.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { createWriteStream, existsSync, readFileSync, readdirSync, statSync, writeFileSync } = require("node:fs")
const { dirname } = require("node:path")
const { setTimeout: pause } = require("node:timers/promises")
const { describe, test } = require("node:test")
const command = require("./command.js")
const { file, history, kept, notes, openNotes, serialized } = require("./stores.js")

const { json, linesOf, logFile, onTerminal, refused, start, startOnTerminal, syncline, told, well, withLog } = command

/** A log of everything that an export can tell: events, a gap, a removal with its event. */
function everything(path = file()) {
  const given = notes()
  const store = openNotes(given, { path, packing: false })
  store.replayAll(history("a", 30))
  store.replayAll([{ kind: "gap", aggregateID: "b", after: -1, through: 4 }, ...history("b", 3, 5)])
  store.replayAll(history("c", 3))
  store.remove("c", { event: [given.Seen, { noteID: "c" }] })
  store.close()
  return path
}

const aggregatesIn = (text) => [...text.matchAll(/^\{"kind":"synced","aggregateID":"(\w+)"/gm)].map(([, id]) => id)
const STORED = "Some aggregates are stored, and not in the program's tables yet: the program has to `reproject` them.\n"

describe("export and import", () => {
  for (const end of ["", ".zst", ".gz"]) {
    test(`bring everything over${end && `, compressed as ${end}`}`, async () => {
      const path = everything()
      const exported = file(`app.jsonl${end}`)
      assert.match(await well(["export", path, exported]), /^Exported 33 events of 3 aggregates \(.* KiB\)\.\n$/)
      assert.equal(statSync(exported).mode & 0o777, 0o600)
      const copy = file("copy.db")
      const first = await syncline(["import", copy, exported])
      assert.deepEqual(first, {
        code: 0,
        stdout: "Read 33 events, 1 gap and 1 removal: 35 were new, 0 were there already.\n",
        stderr: STORED,
      })
      assert.deepEqual(await told(copy), await told(path))
      const again = await json(["import", copy, exported])
      assert.deepEqual([again.complete, again.applied, again.parked], [true, 0, []])
      assert.match(await well(["verify", copy]), /^Sound: 33 events/)
    })
  }

  test("through a pipe, from stdout to stdin", async () => {
    const path = everything()
    const copy = file("copy.db")
    const { stdout, stderr } = await syncline(["export", path])
    assert.equal(stderr, `Exported 33 events of 3 aggregates (${(Buffer.byteLength(stdout) / 1024).toFixed(1)} KiB).\n`)
    assert.equal((await syncline(["export", path, "--json"])).stderr, "")
    assert.match((await syncline(["import", copy, "-"], { input: stdout })).stdout, /35 were new/)
    assert.deepEqual(await told(copy), await told(path))
  })

  test("tell it as JSON", async () => {
    const path = everything()
    const exported = file("app.jsonl")
    const { file: name, bytes, ...totals } = await json(["export", path, exported])
    assert.deepEqual([name, bytes], [exported, statSync(exported).size])
    assert.deepEqual(totals, { aggregates: 3, events: 33, gaps: 1, removed: 1 })
    const result = await json(["import", file("copy.db"), exported])
    assert.deepEqual(result, { ...totals, complete: true, lines: 40, bytes, applied: 35, duplicate: 0, parked: [] })
  })

  test("plain events, a line each, are imported, too", async () => {
    const copy = file("copy.db")
    const input = history("a", 3).map((event) => `${JSON.stringify(event)}\n`)
    const { code, stdout } = await syncline(["import", copy, "-", "--json"], { input: input.join("") })
    assert.equal(code, 0)
    assert.equal(JSON.parse(stdout).applied, 3)
  })

  test("what is imported waits for the program, which finds it in order", async () => {
    const path = everything()
    const copy = file("copy.db")
    await syncline(["import", copy, "-"], { input: (await syncline(["export", path])).stdout })
    const { Written, ...given } = notes()
    const store = openNotes(given, { path: copy, packing: false })
    assert.throws(() => store.run(Written, { noteID: "a" }), { code: "ERR_UNKNOWN_EVENT" })
    assert.equal(store.reproject("a").projected, 29)
    store.run(Written, { noteID: "a" })
    assert.equal(store.db.prepare("SELECT seq FROM note WHERE id = 'a'").pluck().get(), 30)
  })
})

describe("a part", () => {
  test("of some aggregates", async () => {
    const { stdout } = await syncline(["export", everything(), "--aggregate", "b", "--aggregate", "a"])
    assert.deepEqual(aggregatesIn(stdout).toSorted(), ["a", "b"])
    await refused(["export", everything(file("other.db")), "--aggregate", "x"], 2, /no aggregate "x"/)
  })

  test("that earlier exports have not: --since, also of several, of compressed and of cut ones", async () => {
    const path = everything()
    const [first, second] = [file("1.jsonl.zst"), file("2.jsonl")]
    await well(["export", path, first])
    withLog(path, (store) => store.replayAll([...history("a", 2, 30), ...history("new", 2)], { unknown: "record" }))
    await well(["export", path, second, "--since", first])
    // Of a removal a reader is told who stands exactly there: it may have been there before.
    assert.deepEqual(aggregatesIn(readFileSync(second, "utf8")), ["a", "c", "new"])
    withLog(path, (store) => store.replayAll(history("new", 1, 2), { unknown: "record" }))
    const third = (await syncline(["export", path, "--since", first, "--since", second])).stdout
    assert.deepEqual(aggregatesIn(third), ["c", "new"])
    assert.match(third, /"seq":2,/)
    assert.doesNotMatch(third, /"seq":1,/)

    const copy = file("copy.db")
    for (const part of [first, second]) await syncline(["import", copy, part])
    await syncline(["import", copy, "-"], { input: third })
    assert.deepEqual(await told(copy), await told(path))

    // An aggregate that does not stand in it to its end is exported again.
    const text = readFileSync(second, "utf8")
    writeFileSync(second, text.slice(0, text.indexOf('{"kind":"synced","aggregateID":"new"')))
    const since = (await syncline(["export", path, "--since", first, "--since", second])).stdout
    assert.match(since, /"aggregateID":"new","seq":0|"seq":0,"aggregateID":"new"/)
  })

  test("what is no export is refused before anything is written", async () => {
    const path = everything()
    const other = file("other.jsonl")
    writeFileSync(other, "{}\n")
    const endless = file("endless")
    writeFileSync(endless, Buffer.alloc(1_000_000))
    const damaged = ['{"kind":"synced","a":\u001b[2J}', '{"kind":"synced","aggregateID":5,"seq":0}'].map((line, n) => {
      const name = file(`damaged-${n}.jsonl`)
      writeFileSync(name, `{"syncline":"export","version":1,"created":1}\n${line}\n`)
      return [name, /is damaged: line 2 is no log item/, "ERR_INVALID_EXPORT"]
    })
    for (const [name, message, code] of [
      [other, /is no export/, "ERR_INVALID_EXPORT"],
      [endless, /is no export/, "ERR_INVALID_EXPORT"],
      ...damaged,
      [file("none.jsonl"), /There is no file/, "ERR_NOT_FOUND"],
    ]) {
      await refused(["export", path, file("new.jsonl"), "--since", name], 1, message, { code })
    }
    assert.ok(!existsSync(file("new.jsonl")))
  })
})

describe("files", () => {
  test("an export replaces none, and an import makes no database for a file that is not there", async () => {
    const path = everything()
    const exported = file("app.jsonl")
    writeFileSync(exported, "precious")
    await refused(["export", path, exported], 2, /exists already/, { code: "ERR_INVALID_ARGUMENT" })
    assert.equal(readFileSync(exported, "utf8"), "precious")
    await refused(["import", file("copy.db"), file("none.jsonl")], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
    await refused(["export", file("none.db"), file("x.jsonl")], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
    assert.deepEqual(
      readdirSync(dirname(path)).filter((name) => /copy|none|x\.jsonl/.test(name)),
      [],
    )
  })

  test("one that was cut is imported up to there: exit code 3, and the whole goes on from there", async () => {
    const path = everything()
    const exported = file("app.jsonl")
    await well(["export", path, exported])
    const whole = readFileSync(exported)
    const cut = file("cut.jsonl")
    writeFileSync(cut, whole.subarray(0, whole.length / 2))
    const copy = file("copy.db")
    const { code, stdout, stderr } = await syncline(["import", copy, cut])
    assert.equal(code, 3)
    assert.match(stdout, /^Read \d+ events: /)
    assert.match(stderr, /^warning: The file was cut: what stands before the cut is imported\./)
    const asJson = await syncline(["import", copy, cut, "--json"])
    assert.deepEqual([asJson.code, JSON.parse(asJson.stdout).complete], [3, false])
    assert.match(JSON.parse(asJson.stderr).warning, /was cut/)
    assert.equal((await json(["import", copy, exported])).complete, true)
    assert.deepEqual(await told(copy), await told(path))
  })

  test("one that was changed is refused, with its line", async () => {
    const exported = (await syncline(["export", everything()])).stdout
    const input = exported.replace("text 3", "text 4")
    const { code, stderr } = await syncline(["import", file("copy.db"), "-", "--json"], { input })
    assert.equal(code, 1)
    const error = JSON.parse(stderr)
    assert.deepEqual([error.code, error.line], ["ERR_INVALID_EXPORT", linesOf(exported).length])
  })

  test("an aggregate that went another way is left as it is, and others go on: exit code 3", async () => {
    const copy = logFile([serialized("written", 0, { noteID: "a", text: "another history" })], "copy.db")
    const input = (await syncline(["export", everything()])).stdout
    const { code, stdout, stderr } = await syncline(["import", copy, "-"], { input })
    assert.equal(code, 3)
    assert.match(stdout, /: 5 were new/)
    assert.match(stderr, /^warning: a was left as it was at line 2: .*"a".*\n/)
    const asJson = await syncline(["import", copy, "-", "--json"], { input })
    assert.deepEqual(JSON.parse(asJson.stdout).parked, [{ aggregateID: "a", line: 2 }])
    const { aggregateID, code: why, line } = JSON.parse(asJson.stderr)
    assert.deepEqual([aggregateID, why, line], ["a", "ERR_REPLAY_DIVERGED", 2])
    assert.equal(kept(copy, { readonly: true }).read("a").length, 1)
  })
})

describe("interrupted", () => {
  const many = (count = 5) => Array.from({ length: count }, (_, n) => history(`note ${n}`, 2_000)).flat()

  test("an export into a file leaves nothing", async () => {
    const path = logFile(many(20))
    const exported = file("app.jsonl.gz")
    const isHere = (pattern) => readdirSync(dirname(path)).some((name) => pattern.test(name))
    // It may be done before this process is given its turn.
    for (let copies = 0; copies < 5; copies++) {
      const one = start(["export", path, exported.replace("app", `app${copies}`)])
      while (!isHere(/-export-/) && one.code === undefined) await pause(1)
      one.child.kill("SIGINT")
      if ((await one.ended) === 0) continue
      assert.equal(one.code, 130, one.stderr)
      assert.match(one.stderr, /Interrupted by SIGINT\.\n$/)
      assert.ok(!isHere(/-export-/))
      assert.ok(!existsSync(exported.replace("app", `app${copies}`)))
      return
    }
    assert.fail("it was never interrupted")
  })

  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ]) {
    test(`an export into a pipe that nobody reads ends at ${signal}`, async () => {
      const one = start(["export", logFile(many()), "--json"])
      one.child.stdout.once("data", () => one.child.stdout.pause())
      await one.until(/"syncline"/)
      one.child.kill(signal)
      await one.until(/ERR_ABORTED/, "stderr")
      one.child.stdout.resume()
      assert.equal(await one.ended, code, one.stderr)
      assert.deepEqual(
        linesOf(one.stderr).map((line) => JSON.parse(line).code),
        ["ERR_ABORTED"],
      )
      assert.doesNotMatch(one.stdout, /"kind":"end"/)
    })
  }

  test("an import keeps what it has, and another one goes on from there", async () => {
    const path = logFile(many())
    const text = (await syncline(["export", path])).stdout
    const copy = file("copy.db")
    const one = start(["import", copy, "-"], { input: null })
    one.child.stdin.write(text.slice(0, text.length / 2))
    const held = () => withLog(copy, (store) => store.stats().events)
    while (!existsSync(copy) || held() === 0) await pause(5)
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130, one.stderr)
    assert.match(one.stderr, /Interrupted by SIGINT\.\n$/)
    const events = held()
    assert.ok(events > 0 && events < 10_000)
    assert.match(await well(["verify", copy]), /^Sound/)
    const { stdout } = await syncline(["import", copy, "-", "--json"], { input: text })
    const { applied, duplicate, complete } = JSON.parse(stdout)
    assert.deepEqual({ applied, duplicate, complete }, { applied: 10_000 - events, duplicate: events, complete: true })
    assert.deepEqual(await told(copy), await told(path))
  })

  test("whoever reads an export may leave", () => {
    const line = `"$0" "$1" export "$2" | head -n 1; echo "\${PIPESTATUS[@]}"`
    const { stdout, stderr } = spawnSync("bash", ["-c", line, process.execPath, command.binary, logFile(many())], {
      encoding: "utf8",
    })
    assert.match(stdout, /^\{"syncline":"export".*\n0 0\n$/)
    assert.equal(stderr, "")
  })
})

describe("on a terminal", { skip: !command.terminals && "script of util-linux is not there" }, () => {
  test("a bar tells how far an import is, how fast and how long, and is gone at its end", async () => {
    const path = logFile(history("a", 10_000))
    const pipe = file("slow")
    assert.equal(spawnSync("mkfifo", [pipe]).status, 0)
    const text = (await syncline(["export", path])).stdout
    const one = startOnTerminal(["import", file("copy.db"), pipe], { columns: 80 })
    const feed = createWriteStream(pipe)
    feed.write(text.slice(0, text.length / 2))
    // Nothing more comes until it has told how far it is.
    await one.until(/Importing .* [KM]?i?B\/s/)
    feed.end(text.slice(text.length / 2))
    assert.equal(await one.ended, 0, one.screen())
    assert.match(one.screen(), /Read 10,000 events: 10,000 were new, 0 were there already\.\n/)
  })

  test("an export's data cannot do anything to it, and means the same", async () => {
    const text = "\u009b2J\u202e\u0007"
    const path = logFile([serialized("written", 0, { noteID: "a", text })])
    const screen = await onTerminal(["export", path])
    const [, line] = linesOf(screen)
    assert.doesNotMatch(line, /[\p{Cc}\p{Cf}]/u)
    assert.equal(JSON.parse(line).event.data.text, text)
  })
})
