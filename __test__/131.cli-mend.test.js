"use strict"

// The command's mending and deciding: verify, maintain, adopt, claim, rm. What a signal interrupts leaves the file whole.

const assert = require("node:assert/strict")
const { existsSync, readFileSync } = require("node:fs")
const { setTimeout: pause } = require("node:timers/promises")
const { describe, test } = require("node:test")
const command = require("./command.js")
const { assertSound, fixture, inFile, olderTables } = require("./older-tables.js")
const { dump, file, history, kept, notes, openNotes, rows } = require("./stores.js")

const { json, linesOf, logFile, refused, start, startOnTerminal, syncline, told, well } = command

/** Waits until the file shows that work on it has begun. */
async function untilSome(path, count) {
  while (inFile(path, (db) => db.prepare(`SELECT EXISTS (${count})`).pluck().get()) === 0) await pause(1)
}

/** A file with rows of everything, made by a program that has tables of its own. */
function program(path = file()) {
  const given = notes()
  const store = openNotes(given, { path, packing: false })
  store.replayAll(history("a", 300))
  store.replayAll(history("b", 20))
  return { path, store, ...given }
}

describe("verify", () => {
  test("a sound file, whose types only its program knows", async () => {
    const { path, store } = program()
    store.close()
    assert.equal(await well(["verify", path]), "Sound: 320 events of 2 aggregates checked.\n")
    const { bytes, ...result } = await json(["verify", path, "--repair"])
    assert.deepEqual(result, { sound: true, aggregates: 2, events: 320, findings: [] })
    assert.ok(bytes > 0)
  })

  test("tells of damage with exit code 3, and mends what can be mended", async () => {
    const { path, store } = program()
    store.db.exec("UPDATE event_sequence SET seq = 5 WHERE aggregate_id = 'a'")
    store.close()
    const before = readFileSync(path)
    const found = await syncline(["verify", path])
    assert.deepEqual({ code: found.code, stderr: found.stderr }, { code: 3, stderr: "" })
    assert.match(found.stdout, /^error sequence-behind: .*\n1 finding; 320 events of 2 aggregates checked\.\n$/)
    const { code, stdout } = await syncline(["verify", path, "--json"])
    const { sound, findings } = JSON.parse(stdout)
    assert.deepEqual([code, sound, findings.length, findings[0].code], [3, false, 1, "sequence-behind"])
    assert.deepEqual(readFileSync(path), before)
    const mended = await well(["verify", path, "--repair"])
    assert.match(mended, /^error sequence-behind: .*\n {2}repaired: .*\n1 finding, 1 mended; /)
    assert.match(await well(["verify", path]), /^Sound/)
  })
})

describe("maintain", () => {
  test("packs everything, and says so", async () => {
    const { path, store } = program()
    const events = store.readAll({ limit: 1_000 }).map((event) => ({ ...event }))
    store.close()
    assert.match(
      await well(["maintain", path]),
      /^Packed 320 events \(.* KiB\); the file gave back [\d.]+ (B|KiB)\.\n$/,
    )
    const { phase, complete, skipped } = await json(["maintain", path, "--rewrite"])
    assert.deepEqual({ phase, complete, skipped }, { phase: "done", complete: true, skipped: [] })
    const after = openNotes(notes(), { path, packing: false })
    assert.equal(rows(after, "SELECT count(*) FROM event")[0][0], 0)
    assert.deepEqual(
      after.readAll({ limit: 1_000 }).map((event) => ({ ...event })),
      events,
    )
  })

  test("names what it cannot read, and exits with 3", async () => {
    const { path, store } = program()
    await store.maintain()
    store.db.exec(`INSERT INTO event SELECT 9000, key, 7, 'other', 1, NULL, NULL, '{"noteID":"b"}'
                   FROM event_sequence WHERE aggregate_id = 'b'`)
    store.close()
    const { code, stderr } = await syncline(["maintain", path])
    assert.equal(code, 3)
    assert.match(stderr, /^warning: 1 aggregate could not be read and was left: b\. syncline verify says/)
    const again = await syncline(["maintain", path, "--json"])
    assert.equal(again.code, 3)
    assert.deepEqual(JSON.parse(again.stdout).skipped, ["b"])
    assert.deepEqual(JSON.parse(again.stderr).skipped, ["b"])
  })

  test("Ctrl-C ends it after the step that it is at", async () => {
    const path = logFile(Array.from({ length: 15 }, (_, n) => history(`note ${n}`, 2_000)).flat())
    const before = await told(path)
    const one = start(["maintain", path])
    await untilSome(path, "SELECT 1 FROM made.event_segment")
    // From here on it cannot go on, and waits.
    const holder = kept(path, { packing: false })
    holder.db.exec("BEGIN IMMEDIATE")
    assert.ok(rows(holder, "SELECT count(*) FROM event")[0][0] > 0, "it was done before it could be interrupted")
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130)
    assert.match(one.stdout + one.stderr, /^(Stopping after this step.*\n)?Interrupted by SIGINT\.\n$/)
    holder.db.exec("ROLLBACK")
    holder.close()
    assert.deepEqual(await told(path), before)
    assert.match(await well(["verify", path]), /^Sound: 30,000 events/)
    assert.match(await well(["maintain", path]), /^Packed /)
  })

  test(
    "on a terminal Ctrl-C is a key, and does the same",
    { skip: !command.terminals && "script of util-linux is not there" },
    async () => {
      const path = logFile(Array.from({ length: 15 }, (_, n) => history(`note ${n}`, 2_000)).flat())
      const one = startOnTerminal(["maintain", path])
      await untilSome(path, "SELECT 1 FROM made.event_segment")
      const holder = kept(path, { packing: false })
      holder.db.exec("BEGIN IMMEDIATE")
      one.type("\u0003")
      assert.equal(await one.ended, 130)
      assert.match(one.screen(), /Interrupted by SIGINT\./)
      holder.db.exec("ROLLBACK")
    },
  )
})

describe("adopt", () => {
  test("converts older tables, and says what there was to find", async () => {
    const path = fixture("older", file())
    await refused(["ls", path], 1, /table "event" that syncline did not make/, { code: "ERR_FOREIGN_SCHEMA" })
    assert.match((await syncline(["ls", path])).stderr, /syncline adopt <db>/)
    assert.match(await well(["adopt", path]), /^Adopted [\d,]+ events \(.*\) of \d+ aggregates\.\n$/)
    assert.equal(await well(["adopt", path]), "The file has no older tables: nothing was changed.\n")
    assert.equal(await json(["adopt", path]), null)
    await assertSound(kept(path))

    const damaged = await syncline(["adopt", fixture("older-damaged", file("damaged.db"))])
    assert.equal(damaged.code, 3)
    assert.match(damaged.stdout, /\d+ findings, all in the table event_adoption_finding:\nKIND +WHAT\n/)
    const { code, stdout } = await syncline(["adopt", fixture("older-damaged", file("again.db")), "--json"])
    const { findings, findingCount } = JSON.parse(stdout)
    assert.deepEqual([code, findings.length], [3, findingCount])
  })

  test("leaves other databases as they are, and makes none", async () => {
    const path = file("plain.db")
    inFile(path, (db) => db.exec("CREATE TABLE made.own (a)"))
    const before = readFileSync(path)
    assert.match(await well(["adopt", path]), /nothing was changed/)
    assert.deepEqual(readFileSync(path), before)
    await refused(["adopt", file("none.db")], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
    assert.ok(!existsSync(file("none.db")))
  })

  test("Ctrl-C ends it after the step that it is at, and it goes on when it is called again", async () => {
    const path = file()
    const events = Array.from({ length: 40 }, (_, n) => history(`note ${n}`, 1_000)).flat()
    olderTables(path, events, { created: true })
    const one = start(["adopt", path])
    await untilSome(path, "SELECT 1 FROM made.sqlite_schema WHERE name = 'event_segment'")
    await untilSome(path, "SELECT 1 FROM made.event_segment")
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130, one.stdout)
    assert.match(one.stdout + one.stderr, /^(Stopping after this step.*\n)?Interrupted by SIGINT\.\n$/)
    await refused(["ls", path], 1, /adopt/, { code: "ERR_FOREIGN_SCHEMA" })
    const { events: adopted, findingCount } = await json(["adopt", path])
    assert.deepEqual([adopted, findingCount], [40_000, 0])
    assert.match(await well(["verify", path]), /^Sound: 40,000 events of 40 aggregates/)
  })
})

describe("claim", () => {
  test("gives, takes and releases", async () => {
    const path = logFile(history("a", 3))
    assert.equal(await well(["claim", path, "a", "laptop"]), "laptop owns a (epoch 1).\n")
    assert.equal(await well(["claim", path, "a", "phone"]), "phone owns a (epoch 2, before: laptop).\n")
    assert.equal(await well(["claim", path, "a", "phone"]), "phone owns a (epoch 2).\n")
    assert.deepEqual(await json(["claim", path, "a", "--release"]), { aggregateID: "a", owner: null, epoch: 3 })
    assert.equal(await well(["claim", path, "a", "--release"]), "Nobody owns a (epoch 3).\n")
    assert.match(await well(["claim", path, "new", "phone"]), /It is new to this log, and has no events yet\.\n$/)
  })

  test("--expected-epoch refuses what has changed since", async () => {
    const path = logFile(history("a", 3))
    await well(["claim", path, "a", "laptop", "--expected-epoch", "0"])
    const fields = { code: "ERR_CONFLICT", expected: 0, got: 1 }
    await refused(["claim", path, "a", "phone", "--expected-epoch", "0"], 1, /epoch/, fields)
    assert.deepEqual(kept(path, { readonly: true }).owner("a"), { owner: "laptop", epoch: 1 })
  })

  test("wants an owner or --release", async () => {
    const path = logFile(history("a", 3))
    await refused(["claim", path, "a"], 2, /name of the new owner, or --release/)
    await refused(["claim", path, "a", "phone", "--release"], 2, /not both/)
  })
})

describe("rm", () => {
  test("erases the events, and leaves the program's own tables as they are", async () => {
    const { path, store } = program()
    const [own] = dump(store).filter(([name]) => name === "note")
    store.close()
    await refused(["rm", path, "a"], 2, /needs --yes/)
    await refused(["rm", path, "nobody", "--yes"], 1, /There is no aggregate "nobody"/, { code: "ERR_NOT_FOUND" })
    assert.equal(
      await well(["rm", path, "a", "--yes"]),
      "Erased the events of a through seq 299; the program's own tables are as they were.\n",
    )
    assert.deepEqual(await json(["rm", path, "b", "--yes"]), { aggregateID: "b", seq: 19, removed: true })
    const after = openNotes(notes(), { path, packing: false })
    assert.deepEqual(
      dump(after).filter(([name]) => name === "note"),
      [own],
    )
    assert.deepEqual(after.readAll({ limit: 10 }), [])
    assert.equal(after.sequence("a"), 299)
  })

  test(
    "asks on a terminal, and takes nothing but yes for it",
    { skip: !command.terminals && "script of util-linux is not there" },
    async () => {
      const path = logFile(history("a", 3))
      for (const [keys, code] of [
        ["\n", 1],
        ["no\n", 1],
        ["\u0004", 1],
        ["\u0003", 130],
      ]) {
        const one = startOnTerminal(["rm", path, "a"])
        await one.until(/\[y\/N\]/)
        one.type(keys)
        assert.equal(await one.ended, code, one.screen())
        assert.equal(kept(path, { readonly: true }).read("a").length, 3)
      }
      const one = startOnTerminal(["rm", path, "a"])
      await one.until(/The program's own tables are left as they are\.[^]*\[y\/N\]/)
      one.type("y\n")
      assert.equal(await one.ended, 0, one.screen())
      assert.equal(kept(path, { readonly: true }).read("a").length, 0)
    },
  )
})

describe("files", () => {
  test("that are busy are waited for, and those of other programs are left alone", async () => {
    const path = logFile(history("a", 3))
    const holder = kept(path, { packing: false })
    holder.db.exec("BEGIN IMMEDIATE")
    const one = start(["claim", path, "a", "phone"])
    holder.db.exec("COMMIT")
    assert.equal(await one.ended, 0, one.stderr)
    const plain = file("plain.db")
    inFile(plain, (db) => db.exec("CREATE TABLE made.own (a)"))
    const before = readFileSync(plain)
    for (const args of [
      ["verify", plain, "--repair"],
      ["maintain", plain],
      ["claim", plain, "a", "b"],
    ]) {
      await refused(args, 1, /has no event log/, { code: "ERR_NOT_FOUND" })
    }
    assert.deepEqual(readFileSync(plain), before)
    assert.equal(linesOf(await well(["ls", path])).length, 2)
  })
})
