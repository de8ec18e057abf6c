"use strict"

// The older tables: what becomes of them with `adopt: true`, sound or damaged, at once or after any interruption.

const assert = require("node:assert/strict")
const { readFileSync, readdirSync, statSync } = require("node:fs")
const { dirname, join } = require("node:path")
const { describe, test } = require("node:test")
const { open } = require("syncline")
const { endOf, start, untilTold } = require("./children.js")
const { assertSound, fixture, inFile, olderEvents, olderTables } = require("./older-tables.js")
const { inOrder, openSessions, sessionState, sessionsExpected, sessionsText } = require("./sessions.js")
const { coded, file, kept, notes, openNotes, rows } = require("./stores.js")

const recording = sessionsText()
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line))

/** A small file with one session of so many events. */
function small(shape = {}, count = 5, path = file("small.db")) {
  const events = Array.from({ length: count }, (_, seq) => note("a", seq))
  olderTables(path, events, shape)
  return path
}

const note = (aggregateID, seq, more = {}) => ({
  id: `evt_${aggregateID}_${seq}`,
  aggregateID,
  seq,
  type: "note.written.1",
  data: { noteID: aggregateID, text: `text ${seq}` },
  ...more,
})

const adopted = (path, options) => kept(path, { adopt: true, packing: false, ...options })
const names = (store) => rows(store, "SELECT name FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").flat()

/** The folder of a file, byte for byte. */
function folderOf(path) {
  const folder = dirname(path)
  return readdirSync(folder).map((name) => [name, readFileSync(join(folder, name)).toString("base64")])
}

/** Opening so is refused, and leaves everything as it is. */
function refused(path, expected, options = { adopt: true }) {
  const before = folderOf(path)
  assert.throws(() => open(path, options), expected)
  assert.deepEqual(folderOf(path), before)
}

describe("sound older tables", () => {
  test("the recording, adopted, replays into the same tables elsewhere", () => {
    const path = file("recording.db")
    olderTables(path, recording, { created: true })
    const store = adopted(path)
    const other = openSessions(file("other.db"))
    other.replayAll(store.readAll({ limit: 100_000 }))
    assert.deepEqual(sessionState(other), inOrder(sessionsExpected()))
  })

  test("seqs and positions go on where they were", () => {
    const given = notes()
    const store = openNotes(given, { path: small({}, 3), adopt: true })
    assert.deepEqual(store.replayAll([2, 3].map((seq) => note("a", seq))), [
      { aggregateID: "a", applied: 1, duplicate: 1, seq: 3 },
    ])
    assert.equal(store.run(given.Written, { noteID: "a", text: "five" }).seq, 4)
    assert.equal(store.run(given.Written, { noteID: "b", text: "other" }).seq, 0)
    assert.deepEqual(
      store.readAll({ limit: 10 }).map((event) => event.position),
      [1, 2, 3, 4, 5, 6],
    )
  })

  test("opening again, with or without the option, finds a log like any other", () => {
    const path = small()
    adopted(path).close()
    for (const options of [{ adopt: true }, {}, { readonly: true }]) {
      const store = kept(path, options)
      assert.equal(store.adopted, undefined)
      assert.equal(store.read("a").length, 5)
      store.close()
    }
  })

  test("a file without tables, and one that is not there, open as ever", () => {
    const path = file("new.db")
    const store = adopted(path)
    assert.equal(store.adopted, undefined)
    store.close()
    const other = file("application.db")
    inFile(other, (db) => db.exec("CREATE TABLE made.note (id)"))
    assert.equal(adopted(other).adopted, undefined)
  })

  test("empty older tables are adopted, too", () => {
    const path = small({}, 0)
    const store = adopted(path)
    assert.deepEqual(store.adopted, { aggregates: 0, events: 0, bytes: 0, findings: [], findingCount: 0 })
    assert.deepEqual(names(store), names(kept(":memory:")))
  })

  test("an aggregate of more events than a segment holds, and one event larger than a segment", async () => {
    const path = file("large.db")
    const text = "x".repeat(9 * 2 ** 20)
    const events = Array.from({ length: 2_500 }, (_, seq) => note("a", seq, seq === 1_500 ? { data: { text } } : {}))
    olderTables(path, events)
    const store = adopted(path)
    assert.equal(store.get("a", 1_500).data.text, text)
    assert.deepEqual(rows(store, "SELECT first_seq, seq FROM event_segment ORDER BY seq"), [
      [0, 1_023],
      [1_024, 1_499],
      [1_500, 1_500],
      [1_501, 2_499],
    ])
    await assertSound(store)
  })

  test("progress is told, counts up, and ends at the result", () => {
    const path = fixture("older", file("older.db"))
    const told = []
    const store = adopted(path, { onProgress: (progress) => told.push(progress) })
    const { aggregates, events, bytes } = store.adopted
    assert.deepEqual(told.at(-1), { aggregates, events, bytes, remainingAggregates: 0 })
    assert.deepEqual(
      told,
      told.toSorted((a, b) => a.events - b.events),
    )
  })
})

describe("what belongs to the application", () => {
  test("its tables, views, triggers and indexes stay, to the letter", () => {
    const path = small()
    inFile(path, (db) => {
      db.exec(`
        CREATE TABLE made.note (id TEXT PRIMARY KEY, aggregate_id TEXT REFERENCES event_sequence (aggregate_id) ON DELETE CASCADE);
        CREATE INDEX made.note_aggregate ON note (aggregate_id);
        CREATE VIEW made.recent AS SELECT id, aggregate_id FROM event;
        CREATE VIEW made.notes AS SELECT id FROM note;
        CREATE TRIGGER made.note_trigger AFTER INSERT ON note BEGIN UPDATE note SET id = id; END;
        INSERT INTO made.note VALUES ('n', 'a');
        PRAGMA made.user_version = 7;
      `)
    })
    const own =
      "SELECT type, name, sql FROM made.sqlite_schema WHERE name LIKE 'note%' OR name = 'recent' ORDER BY name"
    const before = inFile(path, (db) => db.prepare(own).raw().all())
    const store = adopted(path)
    assert.deepEqual(rows(store, own.replace("made.", "")), before)
    assert.deepEqual(rows(store, "SELECT * FROM note"), [["n", "a"]])
    assert.equal(store.db.pragma("user_version", { simple: true }), 7)
    assert.deepEqual(
      store.adopted.findings.map(({ kind, message }) => [kind, /"(\w+)"/.exec(message)[1]]),
      [["view", "recent"]],
    )
    // Its reference holds in the new table.
    store.db.exec("INSERT INTO note VALUES ('m', 'a')")
    assert.throws(() => store.db.exec("INSERT INTO note VALUES ('o', 'unknown')"), coded("ERR_SQLITE", /FOREIGN KEY/))
  })

  for (const [what, sql, pattern] of [
    [
      "a trigger on an older table",
      "CREATE TRIGGER made.told AFTER INSERT ON event BEGIN SELECT 1; END",
      /trigger "told"/,
    ],
    [
      "a trigger elsewhere that uses one",
      "CREATE TABLE made.x (a); CREATE TRIGGER made.t DELETE ON x BEGIN DELETE FROM event WHERE id = old.a; END",
      /trigger of "x"/,
    ],
    ["a reference to events", "CREATE TABLE made.x (a REFERENCES event (id))", /"x" refers to "event"/],
    [
      "a reference to a table's key",
      "CREATE TABLE made.x (a REFERENCES event_sequence)",
      /"x" refers to "event_sequence"/,
    ],
    ["one more column", "ALTER TABLE made.event ADD COLUMN origin TEXT", /"event" has a column "origin"/],
    ["one more column of a sequence", "ALTER TABLE made.event_sequence ADD COLUMN epoch", /has a column "epoch"/],
    ["a column less", "ALTER TABLE made.event DROP COLUMN type", /"event" has no column "type"/],
    ["a name that is taken", "CREATE TABLE made.event_older (a)", /the name "event_older"/],
    ["another table of our names", "CREATE TABLE made.event_type (a)", /"event_type"/],
  ]) {
    test(`${what} is refused, and the file stays as it is`, () => {
      const path = small()
      inFile(path, (db) => db.exec(sql))
      refused(path, coded("ERR_FOREIGN_SCHEMA", pattern))
    })
  }

  for (const [what, seq, end, pattern] of [
    ["seqs that are text", "seq TEXT", "", /"seq" of "event" holds text/],
    ["tables without rowids", "seq INTEGER", " WITHOUT ROWID", /"event" is no ordinary table/],
  ]) {
    test(`${what} are refused`, () => {
      const path = file("shape.db")
      inFile(path, (db) => {
        db.exec(`
          CREATE TABLE made.event (id TEXT PRIMARY KEY, aggregate_id TEXT, ${seq}, type TEXT, data TEXT)${end};
          CREATE TABLE made.event_sequence (aggregate_id TEXT PRIMARY KEY, seq INTEGER);
        `)
      })
      refused(path, coded("ERR_FOREIGN_SCHEMA", pattern))
    })
  }

  test("tables of which no event can be adopted are refused: JSONB", () => {
    const path = small({}, 100)
    inFile(path, (db) => db.exec("UPDATE made.event SET data = jsonb(data)"))
    refused(path, coded("ERR_FOREIGN_SCHEMA", /of 64 events looked at, none can be: .*JSONB/))
  })

  test("without the option, and read-only, the file stays as it is", () => {
    const path = small()
    for (const options of [{}, { adopt: false }, { readonly: true }]) {
      refused(path, coded("ERR_FOREIGN_SCHEMA", /older event log: open it with adopt: true/), options)
    }
  })
})

describe("arguments", () => {
  for (const [options, pattern, path = file("none.db")] of [
    [{ adopt: "yes" }, /adopt must be a boolean, not "yes"/],
    [{ adopt: 1 }, /adopt must be a boolean/],
    [{ adopt: true, readonly: true }, /adopt needs a store that is not readonly/],
    [{ adopt: true, onProgress: true }, /onProgress must be a function/],
    [{ onProgress: "x" }, /onProgress must be a function/],
    [{ adopt: true }, /adopt needs a file/, ":memory:"],
  ]) {
    test(`${JSON.stringify(options)} of ${path === ":memory:" ? path : "a file"}: ERR_INVALID_ARGUMENT`, () => {
      assert.throws(() => open(path, options), coded("ERR_INVALID_ARGUMENT", pattern))
    })
  }

  test("what onProgress throws passes through, and the next open goes on", () => {
    const path = fixture("older", file("older.db"))
    const events = olderEvents(path)
    const thrown = new Error("enough")
    const onProgress = () => {
      throw thrown
    }
    assert.throws(
      () => open(path, { adopt: true, onProgress }),
      (error) => error === thrown,
    )
    const store = adopted(path)
    assert.equal(store.readAll({ limit: 10_000 }).length, events.length)
  })
})

describe("interruptions", () => {
  const copies = 6
  const many = Array.from({ length: copies }, (_, copy) =>
    recording.map((event) => ({ ...event, id: `${event.id}_${copy}`, aggregateID: `${event.aggregateID}_${copy}` })),
  ).flat()

  function large() {
    const path = file("many.db")
    olderTables(path, many, { created: true, index: true })
    return path
  }

  /** Without opening the log: each older event is in the one place or in the other. */
  function assertWhole(path) {
    inFile(path, (db) => {
      const has = (name) => db.prepare("SELECT 1 FROM made.sqlite_schema WHERE name = ?").get(name) !== undefined
      const count = (sql) => db.prepare(sql).pluck().get()
      assert.equal(count("PRAGMA made.integrity_check"), "ok")
      if (!has("event_meta")) return assert.equal(count("SELECT count(*) FROM made.event"), many.length)
      if (!has("event_adoption")) return undefined
      const moved = count("SELECT events FROM made.event_adoption")
      assert.equal(count("SELECT count(*) FROM made.event_older") + moved, many.length)
      return undefined
    })
  }

  function assertAll(store) {
    const found = store.readAll({ limit: 100_000 })
    assert.equal(found.length, many.length)
    found.forEach((event, index) => {
      const { id, aggregateID, seq, type, data } = many[index]
      assert.deepEqual([event.id, event.aggregateID, event.seq, event.type], [id, aggregateID, seq, type])
      if (index % 50 === 0) assert.deepEqual(event.data, data)
    })
  }

  test("killed again and again, and resumed: every event is there once", async () => {
    const path = large()
    let kills = 0
    for (let moment = 0; ; moment++) {
      const child = start("adopter.js", { path })
      await untilTold(child, 1)
      // At the very beginning at first, then after ever more slices.
      if (moment < 4) await new Promise((resolve) => setTimeout(resolve, moment * 4))
      else await untilTold(child, (told) => told.length > moment % 3 || told.at(-1).adopted !== undefined)
      child.child.kill("SIGKILL")
      const code = await child.ended
      const done = child.told.at(-1).adopted !== undefined || code === 0
      if (!done) kills++
      assertWhole(path)
      if (done) break
    }
    assert.ok(kills >= 4, `${kills} kills`)
    const store = adopted(path)
    assertAll(store)
    await assertSound(store)
    assert.ok(!names(store).some((name) => /older|adopt/.test(name)))
  })

  test("a part of it adopted: refused without the option, whoever asks", () => {
    const path = large()
    assert.throws(
      () =>
        open(path, {
          adopt: true,
          onProgress: () => {
            throw new Error("enough")
          },
        }),
      /enough/,
    )
    for (const options of [{}, { readonly: true }]) {
      assert.throws(() => open(path, options), coded("ERR_FOREIGN_SCHEMA", /a part .*adopt: true/))
    }
    const store = adopted(path)
    assert.equal(store.adopted.events, many.length, "the report covers what was done before")
    assertAll(store)
  })

  test("several processes at once share the work", async () => {
    const path = large()
    const children = [1, 2, 3].map(() => start("adopter.js", { path }))
    const told = await Promise.all(children.map(endOf))
    assert.ok(told.some((messages) => messages.at(-1).adopted?.events === many.length))
    const store = adopted(path)
    assertAll(store)
    await assertSound(store)
  })

  test("file and WAL hardly grow meanwhile, and what is freed is used", () => {
    const path = large()
    const size = () =>
      ["", "-wal"].reduce((sum, end) => sum + (statSync(path + end, { throwIfNoEntry: false })?.size ?? 0), 0)
    const before = size()
    let largest = 0
    const store = adopted(path, { onProgress: () => (largest = Math.max(largest, size())) })
    assert.ok(largest < before + 20 * 2 ** 20, `${largest} bytes, of ${before} at first`)
    store.close()
    assert.ok(size() <= before + 2 ** 20)
  })
})
