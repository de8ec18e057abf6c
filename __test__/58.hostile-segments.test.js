"use strict"

// Segments that Syncline did not write so: whatever stands in one, it is ERR_CORRUPT with the aggregate and the range, it
// takes no memory that the bytes do not need, and everything else in the file stays readable.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { coded, collected, file, history, notes, openNotes, rows } = require("./stores.js")
const { xxh64 } = require("./xxh64.js")

/** What decoding all of the files here may add to the process, in bytes. */
const GROWTH = 96 * 1024 * 1024

const A = history("a", 2_500)
const B = history("b", 300)

/** A file with `a` in three segments and `b` in one. Answers the range of the second segment of `a`. */
async function packed() {
  const path = file()
  const store = openNotes(notes(), { path, packing: false })
  store.replayAll(A)
  store.replayAll(B)
  await store.maintain()
  const segments = rows(store, "SELECT first_seq, seq FROM event_segment WHERE aggregate = 1 ORDER BY seq")
  assert.equal(segments.length, 3)
  const [first, last] = segments[1]
  return { store, path, first, last }
}

const SECOND = "(SELECT position FROM event_segment WHERE aggregate = 1 ORDER BY seq LIMIT 1 OFFSET 1)"

/** Puts a changed value into a column of the second segment of `a`; answers what puts the old one back. */
function put(store, column, change) {
  const [[position, old]] = rows(store, `SELECT position, "${column}" FROM event_segment WHERE position = ${SECOND}`)
  const where = `position = ${position} AND aggregate = 1`
  store.db.prepare(`UPDATE event_segment SET "${column}" = ? WHERE ${where}`).run(change(old))
  return () => store.db.prepare(`UPDATE event_segment SET "${column}" = ? WHERE ${where}`).run(old)
}

const SAME = (events) => events.map(({ id, seq }) => [id, seq])

/** A store that has decoded nothing yet meets the segment from every side. */
async function corrupt(path, { first, last, reason = /./ }) {
  const store = openNotes(notes(), { path, packing: false })
  const expected = coded("ERR_CORRUPT", reason, { aggregateID: "a", first, last })
  assert.throws(() => store.read("a"), expected)
  assert.throws(() => store.get("a", first), expected)
  assert.throws(() => store.readAll({ limit: 10_000 }), expected)
  await assert.rejects(collected(store.log({ aggregateID: "a" })), expected)
  assert.throws(() => store.replay(A[first]), expected)
  // Everything else is there.
  assert.deepEqual(SAME(store.read("a", { before: first })), SAME(A.slice(0, first)))
  assert.deepEqual(SAME(store.read("a", { after: last })), SAME(A.slice(last + 1)))
  assert.deepEqual(SAME(store.read("b")), SAME(B))
  // By position, too: what stands before it, at positions from 1, and what stands after it.
  assert.deepEqual(SAME(store.readAll({ limit: first })), SAME(A.slice(0, first)))
  assert.deepEqual(rows(store, `SELECT seq FROM event_history LIMIT ${first}`).at(-1), [first - 1])
  assert.deepEqual(SAME(store.readAll({ afterPosition: last + 1, limit: 10_000 })), SAME([...A.slice(last + 1), ...B]))
  const found = await store.verify()
  assert.deepEqual(
    found.map(({ code, aggregateID, after, through }) => [code, aggregateID, after, through]),
    [["segment-unreadable", "a", first - 1, last]],
  )
  store.close()
}

/** A zstd frame (RFC 8878) that says how much it gives, of blocks made by hand. */
function frame(blocks, size, checksum = Buffer.alloc(4)) {
  const header = Buffer.alloc(13)
  header.writeUInt32LE(0xfd2fb528)
  header[4] = 0xe4
  header.writeBigUInt64LE(BigInt(size), 5)
  return Buffer.concat([header, ...blocks, checksum])
}

function block(type, size, content, last) {
  const header = Buffer.alloc(3)
  header.writeUIntLE((size << 3) | (type << 1) | (last ? 1 : 0), 0, 3)
  return Buffer.concat([header, content])
}

/** What is said as it is, with its checksum. */
const plain = (content) => frame([block(0, content.length, content, true)], content.length, checksumOf(content))
const checksumOf = (content) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(Number(xxh64(content) & 0xffffffffn))
  return bytes
}

/** One byte, `count` blocks of 128 KiB of it. */
const bomb = (count, claims = count * 131_072) =>
  frame(
    Array.from({ length: count }, (_, n) => block(1, 131_072, Buffer.from("x"), n === count - 1)),
    claims,
  )

const number = (value) => {
  const bytes = []
  let left = BigInt(value)
  do {
    bytes.push(Number(left & 0x7fn) | (left > 0x7fn ? 0x80 : 0))
    left >>= 7n
  } while (left > 0n)
  return Buffer.from(bytes)
}
const numbers = (...values) => Buffer.concat(values.map(number))

/** A linear congruential generator: the same numbers each time. */
function random(seed) {
  let state = BigInt(seed)
  return (below) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn
    return Number((state >> 33n) % BigInt(below))
  }
}

describe("a hostile segment is ERR_CORRUPT with its aggregate and range", () => {
  const CASES = {
    "a body that is cut off": ["body", (old) => old.subarray(0, old.length - 7)],
    "a body cut to its first half": ["body", (old) => old.subarray(0, old.length >> 1)],
    "an empty body": ["body", () => Buffer.alloc(0)],
    "a body of four bytes": ["body", (old) => old.subarray(0, 4)],
    "a body that goes on": ["body", (old) => Buffer.concat([old, old])],
    "a head that is cut off": ["head", (old) => old.subarray(0, old.length - 1)],
    "a head of one frame": ["head", (old) => old.subarray(0, old.length >> 1)],
    "an empty head": ["head", () => Buffer.alloc(0)],
    "a head that goes on": ["head", (old) => Buffer.concat([old, Buffer.from("more")])],
    "an empty summary": ["summary", () => Buffer.alloc(0)],
    "a summary that is cut off": ["summary", (old) => old.subarray(0, old.length - 1)],
    "a summary of other bytes": ["summary", (old) => Buffer.concat([old, numbers(1, 0, 0, 0, 0)])],
    "a summary that counts as much as there can be": ["summary", () => numbers(1, 2n ** 63n, 2n ** 63n, 1, 1)],
    "a summary that counts a thousand": ["summary", () => numbers(1, 1_024, 1, 1, 1)],
    "a summary of endless numbers": ["summary", () => Buffer.alloc(100, 0xff)],
    "a summary of megabytes": ["summary", () => Buffer.alloc(20_000_000, 0)],
    "text for a body": ["body", () => "text"],
    "a number for a head": ["head", () => 5],
    "text for a summary": ["summary", () => ""],
    "a body that claims terabytes": ["body", () => bomb(1, 2n ** 42n)],
    "a body that claims all there is": ["body", () => bomb(1, 2n ** 64n - 1n)],
    "a body that grows to 2 GB": ["body", () => bomb(16_384)],
    "a head that claims terabytes": ["head", () => bomb(1, 2n ** 42n)],
    "a head that grows to 2 GB": ["head", () => bomb(16_384)],
    "a head that is larger than it claims": ["head", () => bomb(16_384, 1_000)],
    "a frame that says nothing of its size": ["head", () => Buffer.from("28b52ffd0400010000", "hex")],
    "a frame to be skipped": ["body", (old) => Buffer.concat([Buffer.from("502a4d1800000000", "hex"), old])],
  }

  test("whatever stands in summary, head and body", async () => {
    const { store, path, first, last } = await packed()
    const before = process.memoryUsage().rss
    for (const [name, [column, change]] of Object.entries(CASES)) {
      const putBack = put(store, column, change)
      await corrupt(path, { first, last }).catch((error) => assert.fail(`${name}: ${error.stack}`))
      putBack()
    }
    assert.throws(() => put(store, "body", () => null), coded("ERR_SQLITE", /NOT NULL/))
    assert.ok(process.memoryUsage().rss - before < GROWTH, "it took more memory than a segment may")
    assert.deepEqual(await store.verify(), [])
  })

  test("any one bit of it that is another", async () => {
    const { store, path, first, last } = await packed()
    const below = random(4)
    for (const column of ["summary", "head", "body"]) {
      const bits = rows(store, `SELECT length("${column}") FROM event_segment WHERE position = ${SECOND}`)[0][0] * 8
      // Those of a frame's header, all of them, and any others.
      const header = Array.from({ length: 64 }, (_, at) => at)
      for (const at of [...header, ...Array.from({ length: 50 }, () => below(bits))]) {
        const putBack = put(store, column, (old) => {
          const bytes = Buffer.from(old)
          bytes[at >> 3] ^= 1 << (at & 7)
          return bytes
        })
        const reader = openNotes(notes(), { path, readonly: true })
        const expected = coded("ERR_CORRUPT", /./, { aggregateID: "a", first, last })
        assert.throws(() => reader.get("a", first), expected, `bit ${at} of ${column}`)
        assert.equal(reader.read("b").length, 300)
        reader.close()
        putBack()
      }
    }
  })

  test("a head and a body that were made for an aggregate or a segment of its own", async () => {
    const { store, path, first, last } = await packed()
    const [[third]] = rows(store, "SELECT max(position) FROM event_segment WHERE aggregate = 1")
    const [[other]] = rows(store, "SELECT position FROM event_segment WHERE aggregate = 2")
    const original = rows(store, `SELECT summary, head, body FROM event_segment WHERE position = ${SECOND}`)[0]
    for (const from of [third, other]) {
      for (const columns of [["body"], ["head"], ["summary", "head"], ["summary", "head", "body"]]) {
        const list = columns.join(", ")
        store.db.exec(
          `UPDATE event_segment SET (${list}) = (SELECT ${list} FROM event_segment WHERE position = ${from})
           WHERE position = ${SECOND}`,
        )
        await corrupt(path, { first, last })
        store.db
          .prepare(`UPDATE event_segment SET summary = ?, head = ?, body = ? WHERE position = ${SECOND}`)
          .run(...original)
      }
    }
  })

  test("bodies of equal length are not taken for one another", async () => {
    const path = file()
    const { registry, projectors } = notes()
    const store = openNotes({ registry, projectors }, { path, packing: false })
    store.replayAll(history("x", 9))
    store.replayAll(history("y", 9))
    await store.maintain()
    store.db.exec(
      `UPDATE event_segment SET body = (SELECT body FROM event_segment WHERE aggregate = 2) WHERE aggregate = 1`,
    )
    store.close()
    const reader = openNotes(notes(), { path })
    assert.throws(() => reader.read("x"), coded("ERR_CORRUPT", /another body/, { aggregateID: "x", first: 0, last: 8 }))
    assert.equal(reader.read("y").length, 9)
  })

  test("a segment by hand, sound but for what it claims", async () => {
    const path = file()
    const store = openNotes(notes(), { path, packing: false })
    store.replayAll([A[0], A[1]])
    const data = Buffer.from('{"noteID":"a"}')
    const body = plain(data)
    const make = (body, length, more = {}) => {
      const checksum = body.readUInt32LE(body.length - 4)
      const given = { count: 1, seq: 0, position: 1, created: 0, shared: 0, id: 3, metadata: 0, ...more }
      const { count, seq, position, created, shared, id, metadata } = given
      const head = numbers(1, 1, count, checksum, seq, position, 1, created, shared, id, length, metadata)
      return [numbers(1, 1, length, length, 0), Buffer.concat([plain(head), plain(Buffer.from("evt"))]), body]
    }
    store.db.exec("DELETE FROM event WHERE seq = 0")
    const insert = store.db.prepare("INSERT INTO event_segment VALUES (1, 1, 1, 0, 0, 0, 0, ?, ?, ?)")
    const attempt = (segment) => {
      insert.run(...segment)
      const reader = openNotes(notes(), { path, readonly: true })
      try {
        return reader.read("a", { limit: 1 })
      } finally {
        reader.close()
        store.db.exec("DELETE FROM event_segment")
      }
    }
    // It is what is written: what follows fails for what it says.
    assert.deepEqual({ ...attempt(make(body, data.length))[0] }, { ...attempt(make(body, data.length))[0], id: "evt" })
    const before = process.memoryUsage().rss
    const claims = [
      make(frame([block(1, 131_072, Buffer.from("x"), true)], 999_000_000), 999_000_000),
      make(bomb(64), 1_000),
      make(bomb(1), 2n ** 40n),
      make(body, data.length, { metadata: 2n ** 62n }),
      make(body, data.length, { shared: 2n ** 63n }),
      make(body, data.length, { id: 2n ** 64n - 1n }),
      make(body, data.length, { created: 2n ** 64n - 1n, seq: 2n ** 32n }),
      make(body, data.length, { position: 2n ** 63n }),
      make(body, data.length, { count: 2n ** 40n }),
      make(plain(Buffer.from([0xff, 0xfe, 0x80])), 3),
    ]
    for (const claim of claims) {
      assert.throws(() => attempt(claim), coded("ERR_CORRUPT", /./, { aggregateID: "a", first: 0, last: 0 }))
    }
    assert.ok(process.memoryUsage().rss - before < GROWTH, "it took more memory than a segment may")
  })

  test("columns of its row that tell of other events", async () => {
    const { store, path, first, last } = await packed()
    for (const [column, change] of [
      ["first_seq", (old) => old + 1],
      ["first_seq", (old) => old - 1],
      ["seq", (old) => old - 1],
      ["first", (old) => old + 1],
      ["position", (old) => old - 1],
    ]) {
      const putBack = put(store, column, change)
      const reader = openNotes(notes(), { path, packing: false })
      assert.throws(() => reader.read("a"), coded("ERR_CORRUPT", /its row/, { aggregateID: "a" }), column)
      assert.equal(reader.read("b").length, 300)
      assert.equal(reader.read("a", { after: last }).length, 2_499 - last)
      const codes = (await reader.verify()).map(({ code }) => code)
      assert.ok(codes.includes("segment-unreadable"), `${column}: ${codes}`)
      reader.close()
      if (column === "position")
        store.db.exec(`UPDATE event_segment SET position = position + 1 WHERE first_seq = ${first}`)
      else putBack()
    }
    assert.deepEqual(await store.verify(), [])
    // Where the row tells of a place far away, nothing leads there: verify and log know.
    for (const [column, value] of [
      ["seq", 4_000_000_000],
      ["seq", -5],
      ["aggregate", 2],
      ["aggregate", 77],
      ["first_seq", "text"],
      ["generation", "text"],
    ]) {
      // prettier-ignore
      const [[position, old]] = rows(store, `SELECT position, "${column}" FROM event_segment WHERE position = ${SECOND}`)
      const set = store.db.prepare(`UPDATE event_segment SET "${column}" = ? WHERE position = ${position}`)
      set.run(value)
      const reader = openNotes(notes(), { path, packing: false })
      await assert.rejects(collected(reader.log({ aggregateID: "a" })), coded("ERR_CORRUPT"), `${column} ${value}`)
      assert.notDeepEqual(await reader.verify(), [], `${column} ${value}`)
      reader.close()
      set.run(old)
    }
    assert.deepEqual(await store.verify(), [])
  })
})

describe("what packs goes around what it cannot read", () => {
  const TAIL = "(SELECT max(position) FROM event_segment WHERE aggregate = 1)"

  test("maintain leaves such an aggregate as it is, packs the others, and names it", async () => {
    const { store, path } = await packed()
    const tail = rows(store, `SELECT body FROM event_segment WHERE position = ${TAIL}`)[0][0]
    store.db.exec(`UPDATE event_segment SET body = x'00' WHERE position = ${TAIL}`)
    store.replayAll([...history("a", 400, 2_500), ...history("b", 400, 300), ...history("c", 400)])
    store.close()
    const again = openNotes(notes(), { path, packing: false })
    const held = () => rows(again, "SELECT * FROM event WHERE aggregate = 1")
    const segments = () => rows(again, "SELECT * FROM event_segment WHERE aggregate = 1")
    const before = [held(), segments()]
    for (const options of [{}, { budget: 10_000 }, { rewrite: true }]) {
      const done = await again.maintain(options)
      assert.deepEqual([done.skipped, done.complete], [["a"], true])
      assert.deepEqual([held(), segments()], before)
    }
    assert.deepEqual(rows(again, "SELECT DISTINCT aggregate FROM event"), [[1]])
    assert.equal(again.read("b").length, 700)
    again.db.prepare(`UPDATE event_segment SET body = ? WHERE position = ${TAIL}`).run(tail)
    assert.deepEqual((await again.maintain()).skipped, [])
    assert.equal(again.read("a").length, 2_900)
    assert.deepEqual(await again.verify(), [])
  })

  test("a row that no segment could give back stays a row", async () => {
    const { store } = await packed()
    store.replayAll([...history("a", 10, 2_500), ...history("b", 10, 300), ...history("c", 10)])
    store.db.prepare("UPDATE event SET id = ? WHERE aggregate = 1 AND seq = 2505").run("x".repeat(300))
    store.db.exec("UPDATE event SET created = -9223372036854775808 WHERE aggregate = 2 AND seq = 305")
    const { skipped } = await store.maintain()
    assert.deepEqual(skipped, ["a", "b"])
    assert.deepEqual(rows(store, "SELECT aggregate, count(*) FROM event GROUP BY 1"), [[1, 10], [2, 10]]) // prettier-ignore
  })

  test("so does the thread that packs by itself", async () => {
    const { store, path } = await packed()
    store.db.exec(`UPDATE event_segment SET body = x'00' WHERE position = ${TAIL}`)
    store.close()
    const again = openNotes(notes(), { path, packing: { idle: 10 } })
    again.replayAll([...history("a", 400, 2_500), ...history("b", 400, 300)])
    const deadline = performance.now() + 20_000
    const left = (key) => rows(again, `SELECT count(*) FROM event WHERE aggregate = ${key}`)[0][0]
    while (left(2) > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10))
    assert.deepEqual([left(1), left(2)], [400, 0])
  })

  test("gaps inside such a segment, and rows that stand in it, too, are no findings of their own, and stay", async () => {
    const path = file()
    const store = openNotes(notes(), { path, packing: false })
    const gap = { kind: "gap", aggregateID: "a", after: 4, through: 8 }
    store.replayAll([...A.slice(0, 5), gap, ...A.slice(9, 20)])
    await store.maintain()
    store.db.exec("UPDATE event_segment SET body = x'00'")
    store.db.exec(`INSERT INTO event SELECT 4, 1, 3, 'x', 1, NULL, NULL, '{"noteID":"a"}'`)
    for (const repair of [false, true, false]) {
      const [found, ...others] = await store.verify({ repair })
      assert.deepEqual([found.code, found.after, found.through, others], ["segment-unreadable", -1, 19, []])
    }
    assert.deepEqual(rows(store, "SELECT after, through FROM event_gap"), [[4, 8]])
  })

  test("an aggregate with such a segment can be removed, and replayed anew", async () => {
    const { store, path } = await packed()
    store.db.exec(`UPDATE event_segment SET body = x'00' WHERE position = ${TAIL}`)
    store.close()
    const again = openNotes(notes(), { path, packing: false })
    again.remove("a")
    assert.deepEqual(await again.verify(), [])
    assert.deepEqual(again.read("a"), [])
    assert.equal(again.read("b").length, 300)
  })
})
