"use strict"

// The command's looking: ls, stats, log, show, for people and as JSON, in pipes and on a terminal, whatever ids and data hold.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { describe, test } = require("node:test")
const command = require("./command.js")
const { file, history, kept, notes, openNotes, serialized } = require("./stores.js")

const { json, jsonLines, linesOf, logFile, onTerminal, refused, start, syncline, well, withLog } = command

const created = Date.UTC(2024, 4, 6, 7, 8, 9, 10)
const written = (noteID, seq, text = "…", more = {}) =>
  serialized("written", seq, { noteID, text }, { created, ...more })

/** Two notes of three events, one with an owner, the other with a gap; and one that was removed by an event. */
function threeNotes() {
  const path = file()
  const given = notes()
  const store = openNotes(given, { path, packing: false })
  store.replayAll([written("a", 0, "first"), written("a", 1, "second"), written("a", 2, "third")])
  store.claim("a", "laptop")
  store.replayAll([written("b", 0), { kind: "gap", aggregateID: "b", after: 0, through: 4 }, written("b", 5)])
  store.replayAll(history("c", 3))
  store.remove("c", { event: [given.Seen, { noteID: "c", by: "somebody" }] })
  store.close()
  return path
}

describe("ls", () => {
  test("lists aggregates with seq, events, bytes and owner", async () => {
    const path = threeNotes()
    assert.deepEqual(linesOf(await well(["ls", path])), [
      "AGGREGATE  SEQ  EVENTS  BYTES  OWNER   EPOCH",
      "a            2       3   88 B  laptop      1",
      "b            5       2   54 B  -           0",
      "c            3       0    0 B  -           0",
    ])
    assert.deepEqual(await json(["ls", path]), [
      { aggregateID: "a", seq: 2, events: 3, bytes: 88, owner: "laptop", epoch: 1 },
      { aggregateID: "b", seq: 5, events: 2, bytes: 54, owner: null, epoch: 0 },
      { aggregateID: "c", seq: 3, events: 0, bytes: 0, owner: null, epoch: 0 },
    ])
  })

  test("--prefix, --limit, and what waits for reproject", async () => {
    const path = logFile([written("ses_1", 0), written("ses_2", 0), written("x", 0)])
    const ids = async (...args) => (await json(["ls", path, ...args])).map(({ aggregateID }) => aggregateID)
    assert.deepEqual(await ids("--prefix", "ses_"), ["ses_1", "ses_2"])
    assert.deepEqual(await ids("--prefix", "ses_", "--limit", "1"), ["ses_1"])
    assert.deepEqual(await ids("--prefix", "nobody"), [])
    assert.match(await well(["ls", path]), /PROJECTED\nses_1 .*-1\n/)
    assert.equal((await json(["ls", path]))[0].projected, -1)
    const { code, stdout, stderr } = await syncline(["ls", path, "--prefix", "nobody"])
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "", stderr: "There are no aggregates.\n" })
  })
})

test("ls takes any number of aggregates", async () => {
  const path = logFile(Array.from({ length: 130_000 }, (_, n) => written(`${n}`, 0)))
  const { code, stdout } = await syncline(["ls", path])
  assert.deepEqual([code, linesOf(stdout).length], [0, 130_001])
})

describe("stats", () => {
  test("tells what the log and the file hold", async () => {
    const path = threeNotes()
    const text = await well(["stats", path])
    assert.match(text, /^ {2}events +5 in 3 aggregates, last position \d+$/m)
    assert.match(text, /^note\.written\.1 +5 +142 B/m)
    assert.match(text, /^Largest events\n/m)
    assert.doesNotMatch(text, /reproject/)
    const store = kept(path, { readonly: true })
    const { longestHold: _longest, ...stats } = store.stats()
    const { longestHold: _own, ...told } = await json(["stats", path])
    assert.deepEqual({ ...told, packing: true }, { ...stats, packing: true })
    assert.match(await well(["stats", logFile([written("a", 0)], "other.db")]), /Waiting for reproject\n.*\na +-1 +0/)
  })
})

describe("log", () => {
  test("of an aggregate: events, gaps and removals in their order", async () => {
    const path = threeNotes()
    const time = "2024-05-06T07:08:09.010Z"
    assert.deepEqual(linesOf(await well(["log", path, "a"])), [
      `0  ${time}  note.written.1  {"noteID":"a","text":"first"}`,
      `1  ${time}  note.written.1  {"noteID":"a","text":"second"}`,
      `2  ${time}  note.written.1  {"noteID":"a","text":"third"}`,
    ])
    assert.match(await well(["log", path, "b"]), /^0 .*\n1–4 {2}gap: .*\n5 /)
    assert.match(
      await well(["log", path, "c"]),
      /^0–3 {2}removed, by note\.seen\.1: \{"noteID":"c","by":"somebody"\}\n$/,
    )
    const items = await jsonLines(["log", path, "b"])
    assert.deepEqual(items, [
      { kind: "event", event: written("b", 0) },
      { kind: "gap", aggregateID: "b", after: 0, through: 4 },
      { kind: "event", event: written("b", 5) },
      { kind: "synced", aggregateID: "b", seq: 5 },
    ])
    const copy = openNotes(notes(), { path: ":memory:" })
    copy.replayAll(items)
    assert.equal(copy.sequence("b"), 5)
  })

  test("--after and --limit", async () => {
    const path = threeNotes()
    const seqs = async (...args) => {
      const items = await jsonLines(["log", path, ...args])
      return items.map((item) => item.event?.seq ?? item.kind)
    }
    assert.deepEqual(await seqs("a", "--after", "0"), [1, 2, "synced"])
    assert.deepEqual(await seqs("a", "--limit", "2"), [0, 1])
    assert.deepEqual(await seqs("a", "--after", "2"), ["synced"])
    assert.deepEqual(await seqs("a", "--after", "-1", "--limit", "1"), [0])
  })

  test("of all aggregates: by position, which --after takes", async () => {
    const path = threeNotes()
    const events = await jsonLines(["log", path])
    assert.deepEqual(
      events.map(({ aggregateID, seq }) => `${aggregateID}@${seq}`),
      ["a@0", "a@1", "a@2", "b@0", "b@5"],
    )
    const [first, second] = await jsonLines(["log", path, "--after", String(events[1].position), "--limit", "2"])
    assert.deepEqual([first, second], [events[2], events[3]])
    assert.match(linesOf(await well(["log", path]))[0], /^1 {2}a@0 {2}2024-/)
  })

  test("takes any number of events, page by page", async () => {
    const path = logFile(history("a", 2_500))
    assert.equal(linesOf(await well(["log", path, "a"])).length, 2_500)
    assert.equal((await jsonLines(["log", path])).length, 2_500)
  })

  test("shows an event without a time, and one whose time no calendar has", async () => {
    const path = logFile([written("a", 0, "…", { created: undefined }), written("a", 1, "…", { created: 2 ** 53 - 1 })])
    assert.match(await well(["log", path, "a"]), /^0 {2}- {2}note.*\n1 {2}9007199254740991 {2}note/)
  })

  for (const of of [[], ["a"]]) {
    test(`--follow ${of.length === 0 ? "hears all of" : "of one aggregate hears"} what others commit, until Ctrl-C, which ends it well`, async () => {
      const path = logFile([written("a", 0, "before")])
      const one = start(["log", path, ...of, "--follow"])
      await one.until(/"before"/)
      withLog(path, (store) => store.replayAll([written("a", 1, "later"), written("b", 0)], { unknown: "record" }))
      await one.until(/"later"/)
      if (of.length === 0) await one.until(/b@0/)
      one.child.kill("SIGINT")
      assert.equal(await one.ended, 0, one.stderr)
      assert.equal(one.stderr, "")
      assert.equal(/b@0/.test(one.stdout), of.length === 0)
    })
  }

  test("--follow waits for an aggregate that is not there yet; without it that is an error", async () => {
    const path = logFile([written("a", 0)])
    await refused(["log", path, "new"], 1, /There is no aggregate "new"/, { code: "ERR_NOT_FOUND", aggregateID: "new" })
    const one = start(["log", path, "new", "--follow", "--json"])
    await one.until(/"synced"/)
    withLog(path, (store) => store.replayAll([written("new", 0, "hello")], { unknown: "record" }))
    await one.until(/"hello"/)
    one.child.kill("SIGTERM")
    assert.equal(await one.ended, 0, one.stderr)
  })

  test("ends quietly when nobody reads on", async () => {
    const path = logFile(history("a", 20_000))
    for (const more of [[], ["--json"], ["a"]]) {
      const line = `"$0" "$1" log "$2" ${more.join(" ")} | head -n 1; echo "\${PIPESTATUS[@]}"`
      const options = { encoding: "utf8" }
      const { stdout, stderr } = spawnSync("bash", ["-c", line, process.execPath, command.binary, path], options)
      assert.equal(stderr, "")
      assert.match(stdout, /^(1|0|\{).*\n0 0\n$/)
    }
  })
})

describe("show", () => {
  test("an event by its place, or by its id", async () => {
    const path = threeNotes()
    const event = { ...written("a", 1, "second"), position: 2 }
    assert.deepEqual(await json(["show", path, "a@1"]), event)
    assert.deepEqual(await json(["show", path, "evt_a_1"]), event)
    const text = await well(["show", path, "a@1"])
    assert.match(text, /^a@1\n {2}id +evt_a_1\n {2}type +note\.written\.1\n {2}created +2024-05-06T07:08:09\.010Z\n/)
    assert.match(text, /\{\n {2}"noteID": "a",\n {2}"text": "second"\n\}\n$/)
  })

  test("also where packed, with metadata, and where aggregate or id hold an @", async () => {
    const odd = { ...written("me@home", 0, "…", { metadata: { by: "me" } }), id: "evt@7" }
    const path = logFile([odd, ...history("a", 2_000)])
    await well(["maintain", path])
    assert.deepEqual(await json(["show", path, "me@home@0"]), { ...odd, position: 1 })
    assert.deepEqual(await json(["show", path, "evt@7"]), { ...odd, position: 1 })
    assert.match(await well(["show", path, "evt@7"]), /metadata +\{"by":"me"\}/)
    assert.equal((await json(["show", path, "evt_a_1234"])).seq, 1_234)
  })

  test("the deletion event of a removal", async () => {
    const { type, data } = await json(["show", threeNotes(), "c@3"])
    assert.deepEqual({ type, data }, { type: "note.seen.1", data: { noteID: "c", by: "somebody" } })
  })

  test("says why there is none", async () => {
    const path = threeNotes()
    const missing = { code: "ERR_NOT_FOUND" }
    await refused(["show", path, "a@7"], 1, /no seq 7 of "a": its last seq is 2/, {
      ...missing,
      aggregateID: "a",
      seq: 7,
    })
    await refused(["show", path, "b@3"], 1, /Seq 3 of "b" exists no more: it lies in a gap/, missing)
    await refused(["show", path, "c@1"], 1, /Seq 1 of "c" was removed/, missing)
    await refused(["show", path, "nobody@1"], 1, /There is no aggregate "nobody"/, missing)
    await refused(["show", path, "evt_none"], 1, /No event has the id "evt_none"/, missing)
    const twice = logFile(
      [
        { ...written("a", 0), id: "same" },
        { ...written("b", 0), id: "same" },
      ],
      "twice.db",
    )
    await refused(["show", twice, "same"], 2, /a@0 or b@0/, { code: "ERR_INVALID_ARGUMENT" })
  })
})

describe("hostile ids, types and data", () => {
  const hostile = "\u001b]0;owned\u0007\u001b[31m\nred\u009b2J\u202e\u2028\u{e0001}漢字"
  const path = () => logFile([{ ...written(hostile, 0, hostile), id: `evt${hostile}` }, written("a", 0)])
  /** What may stand in text: line feeds between lines, and nothing else that a terminal does not just show. */
  const unprintable = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u

  test("are written out for people, a line each, whoever reads", async () => {
    const db = path()
    for (const args of [
      ["ls", db],
      ["stats", db],
      ["log", db],
      ["log", db, hostile],
      ["show", db, `${hostile}@0`],
    ]) {
      const text = await well(args)
      assert.doesNotMatch(text, unprintable, args[0])
      assert.match(text, /\\u001b\]0;owned/, args[0])
    }
    assert.equal(linesOf(await well(["ls", db])).length, 3)
    assert.equal(linesOf(await well(["log", db, hostile])).length, 1)
    const { stderr } = await syncline(["log", db, `no ${hostile}`])
    assert.doesNotMatch(stderr, unprintable)
  })

  test("come back as they were from JSON in a pipe", async () => {
    const db = path()
    assert.equal((await json(["ls", db]))[0].aggregateID, hostile)
    assert.equal((await json(["show", db, `${hostile}@0`])).data.text, hostile)
    assert.equal((await jsonLines(["log", db]))[0].id, `evt${hostile}`)
  })

  test("wide characters keep the columns of a table", async () => {
    const text = await well(["ls", logFile([written("漢字", 0), written("👨‍👩‍👧", 0), written("ab", 0)])])
    assert.deepEqual(
      linesOf(text).map((line) => line.replace(/ +\d+ +\d+ B .*$/, "")),
      ["AGGREGATE  SEQ  EVENTS  BYTES  OWNER  EPOCH  PROJECTED", "ab           0", "漢字         0", "👨‍👩‍👧           0"],
    )
  })
})

describe("on a terminal", { skip: !command.terminals && "script of util-linux is not there" }, () => {
  // Colours are what this program itself sends.
  const ownColours = /\p{Cc}\[[\d;]*m/gu
  const unprintable = /(?!\n)[\p{Cc}\p{Cf}]/u

  test("tables and events fit, in colours, and nothing of the database reaches it raw", async () => {
    const long = `\u001b[2J${"漢".repeat(200)}`
    const db = logFile([{ ...written(long, 0, long), id: "evt_long" }, written("a", 0)])
    for (const args of [
      ["ls", db],
      ["log", db],
      ["log", db, "a"],
      ["stats", db],
    ]) {
      const screen = await onTerminal(args, { columns: 60 })
      assert.match(screen, ownColours, args[0])
      const text = screen.replaceAll(ownColours, "")
      assert.doesNotMatch(text, unprintable, args[0])
      const wide = (line) => [...line].reduce((sum, char) => sum + (char === "漢" ? 2 : 1), 0)
      for (const line of linesOf(text)) if (!line.startsWith("  ")) assert.ok(wide(line) <= 60, `${args[0]}: ${line}`)
    }
    for (const args of [
      ["ls", db, "--json"],
      ["log", db, "--json"],
      ["show", db, `${long}@0`, "--json"],
    ]) {
      const text = await onTerminal(args)
      assert.doesNotMatch(text, unprintable, args[0])
      const values = linesOf(text).map((line) => JSON.parse(line))
      assert.ok(JSON.stringify(values).includes(JSON.stringify(long).slice(1, -1)), args[0])
    }
  })

  test("one that does not know its width is given all", async () => {
    const path = logFile([written("a", 0, "x".repeat(200))])
    assert.match(await onTerminal(["log", path], { columns: 0 }), /a@0.*"text":"x{200}"/)
    assert.match(await onTerminal(["ls", path], { columns: 0 }), /AGGREGATE .*\n.*a /)
  })

  test("colours are left away with NO_COLOR, and in a pipe also where the environment asks for them", async () => {
    const db = logFile([written("a", 0)])
    assert.match(await onTerminal(["ls", "--help"]), ownColours)
    for (const args of [
      ["log", db],
      ["ls", db],
      ["ls", "--help"],
    ]) {
      assert.doesNotMatch(await onTerminal(args, { env: { NO_COLOR: "1" } }), ownColours)
      assert.doesNotMatch(await well(args, { env: { FORCE_COLOR: "1", CI: "1" } }), ownColours)
    }
  })
})
