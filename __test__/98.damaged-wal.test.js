"use strict"

// What a crash leaves, damaged: a WAL that was cut or whose bytes are others, and a file with pages that are gone or others.
// Every case is tried in a process of its own kind, so that a crash of the addon would be seen.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { mkdirSync, readFileSync, writeFileSync } = require("node:fs")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { start } = require("./children.js")
const { coded, memoryFolder, openNotes } = require("./notes.js")
const { extent, figures, seeds } = require("./soak.js")

// Each case opens a database and closes it.
const folder = memoryFolder()

/** A case that takes longer has gone round for ever: they take milliseconds. */
const LONGEST = 120_000

/** Tries so many seeds in a process. Answers what each came to. */
async function outcomes(kind, count) {
  const own = join(folder, kind)
  mkdirSync(own)
  const all = seeds(count, count)
  const one = start("damaged-files.js", { folder: own, kind, seeds: all })
  let hung = false
  const give = () => {
    hung = true
    one.child.kill("SIGKILL")
  }
  let timer = setTimeout(give, LONGEST)
  one.news.on("news", () => {
    clearTimeout(timer)
    timer = setTimeout(give, LONGEST)
  })
  const code = await one.ended
  clearTimeout(timer)
  const last = one.told.findLast(({ trying }) => trying !== undefined)?.trying
  assert.ok(!hung, `the case of SYNCLINE_SEED=${last} does not end`)
  assert.equal(code, 0, `the case of SYNCLINE_SEED=${last} ended the process with ${code}: ${one.errors}`)
  const found = one.told.filter(({ seed }) => seed !== undefined)
  assert.equal(found.length, all.length)
  return found
}

/** How many came to what. */
function counted(found, what) {
  const counts = {}
  for (const one of found) counts[one[what]] = (counts[one[what]] ?? 0) + 1
  return Object.fromEntries(Object.entries(counts).toSorted(([, one], [, other]) => other - one))
}

const timeout = 60 * 60_000

describe("a damaged WAL", () => {
  test(
    "that no checkpoint has touched: the store opens on exactly the commits before the damage",
    { timeout },
    async () => {
      const found = await outcomes("wal", extent(60, 4_000))
      const commits = found.map((one) => one.commits)
      figures("damaged WAL", {
        cases: found.length,
        ...counted(found, "how"),
        "commits kept": `0 to ${Math.max(...commits)}`,
      })
    },
  )

  test(
    "that has been copied back in part: a log that was committed, a coded error, or a finding of verify",
    { timeout },
    async () => {
      const found = await outcomes("copied", extent(60, 4_000))
      for (const { seed, how, outcome } of found) {
        assert.doesNotMatch(outcome, /^another/, `${how}, SYNCLINE_SEED=${seed}`)
      }
      figures("damaged WAL, checkpointed in part", { cases: found.length, ...counted(found, "outcome") })
    },
  )
})

describe("a damaged file", () => {
  test(
    "pages that are gone or others, a cut, bits and bytes: coded errors and findings, never a crash",
    { timeout },
    async () => {
      const found = await outcomes("file", extent(60, 4_000))
      for (const { seed, how, outcome } of found) {
        // Other bytes in a text are another text: SQLite has no checksum of a page. What is gone must show.
        if (!/zero|cut/.test(how)) continue
        assert.doesNotMatch(outcome, /^another/, `${how}, SYNCLINE_SEED=${seed}`)
      }
      figures("damaged file", { cases: found.length, ...counted(found, "outcome") })
    },
  )

  test("an event whose data or metadata is no JSON any more: ERR_CORRUPT where it is read, and a finding", async () => {
    const { store, Written } = openNotes(join(folder, "json.db"))
    for (const text of ["a", "b"]) store.run(Written, { noteID: "a", text }, { metadata: { text } })
    const corrupt = { aggregateID: "a", seq: 0, message: /data of note\.written\.1.*verify/ }
    store.db.exec(`UPDATE event SET data = '{"noteID":"a' WHERE seq = 0`)
    for (const event of [store.read("a")[0], store.get("a", 0), store.readAll({ limit: 1 })[0]]) {
      assert.throws(() => event.data, coded("ERR_CORRUPT", corrupt))
      assert.throws(() => JSON.stringify(event), coded("ERR_CORRUPT"))
    }
    store.db.exec("UPDATE event SET metadata = '{' WHERE seq = 1")
    assert.throws(() => store.read("a"), coded("ERR_CORRUPT", { seq: 1, message: /metadata of/ }))
    assert.deepEqual(
      (await store.verify()).map(({ severity, seq }) => [severity, seq]),
      [
        ["error", 0],
        ["error", 1],
      ],
    )
    store.close()
  })

  test("keys that are out of order: coded errors and findings, and nobody goes round for ever", () => {
    for (const name of ["event_sequence", "sqlite_autoindex_event_sequence_1", "event", "event_aggregate_seq"]) {
      const path = join(folder, `order ${name}.db`)
      const { store, Written } = openNotes(path)
      // Five each, so that a search of SQLite's that ends at the last but one goes on to the last.
      const several = name === "event_sequence" || name.startsWith("sqlite_")
      for (let n = 0; n < 5; n++) store.run(Written, { noteID: several ? `note ${n}` : "note" })
      const root = store.db.prepare("SELECT rootpage FROM sqlite_schema WHERE name = ?").pluck().get(name)
      store.close()
      swapLastTwo(path, root)
      const { status, stdout, stderr, signal } = spawnSync(
        process.execPath,
        ["-e", READ_ALL, join(__dirname, "notes.js"), path],
        { encoding: "utf8", timeout: LONGEST },
      )
      assert.deepEqual([status, signal, stderr], [0, null, ""], name)
      const { findings, codes } = JSON.parse(stdout)
      assert.ok(findings > 0, name)
      for (const code of codes) assert.equal(code, "ERR_CORRUPT", name)
    }
  })
})

/** Exchanges the last two cells of a page that is the leaf and the root of a tree. */
function swapLastTwo(path, root) {
  const bytes = readFileSync(path)
  const page = bytes.subarray((root - 1) * 4096, root * 4096)
  assert.ok(page[0] === 0x0d || page[0] === 0x0a, "it is a leaf")
  const count = page.readUInt16BE(3)
  assert.equal(count, 5)
  const at = 8 + 2 * (count - 2)
  const [one, other] = [page.readUInt16BE(at), page.readUInt16BE(at + 2)]
  page.writeUInt16BE(other, at)
  page.writeUInt16BE(one, at + 2)
  writeFileSync(path, bytes)
}

/** Everything that goes through a table from one row to the next. */
const READ_ALL = `
  const { openNotes } = require(process.argv[1])
  const { store } = openNotes(process.argv[2], { packing: false })
  const codes = []
  const attempt = async (act) => {
    try {
      await act()
    } catch (error) {
      codes.push(error.code)
    }
  }
  ;(async () => {
    await attempt(() => store.aggregates())
    await attempt(() => store.read("note"))
    await attempt(() => store.read("note", { order: "desc" }))
    await attempt(() => store.readAll({ limit: 1_000_000 }))
    await attempt(async () => {
      for await (const item of store.log({ aggregateID: "note" })) void item
    })
    await attempt(() => store.stats())
    const findings = await store.verify()
    await attempt(() => store.maintain())
    console.log(JSON.stringify({ codes, findings: findings.length }))
    store.close()
  })()
`
