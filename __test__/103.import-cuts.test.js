"use strict"

// An export that does not arrive as it was written, and what is none: cut, in other pieces, changed, or something else.

const assert = require("node:assert/strict")
const { readFileSync, writeFileSync } = require("node:fs")
const { describe, test } = require("node:test")
const fc = require("fast-check")
const { exported, exportOf, line, textOf } = require("./exports.js")
const { coded, dump, file, history, notes, openNotes, serialized } = require("./stores.js")

/** A small log with something of every kind, in letters of one to four bytes. */
async function small() {
  const given = notes()
  const store = openNotes(given, { path: ":memory:" })
  store.replayAll([
    ...history("a", 3),
    { kind: "gap", aggregateID: "a", after: 2, through: 4 },
    serialized("written", 5, { noteID: "a", text: "a é … 🙂" }, { created: 5, metadata: { by: "ü" } }),
    ...history("ö", 2),
  ])
  store.remove("ö", { event: [given.Seen, { noteID: "ö" }] })
  store.run(given.Written, { noteID: "ö", text: "\u2028" })
  store.run(given.Tagged, { noteID: "b", tag: "🙂" })
  return store
}
const bytesOf = async (store) => Buffer.from(await textOf(store))
const reader = () => openNotes(notes(), { path: ":memory:" })

/** Every table once these lines of an export were replayed, as any program would. */
function replayed(lines) {
  const store = reader()
  const items = lines.filter((line) => !/^\{"(syncline|kind":"end)"/.test(line))
  if (items.length > 0) store.replayAll(items.join("\n"))
  const tables = dump(store)
  store.close()
  return tables
}

/** Chunks of these bytes, as long as `sizes` say, over and over. */
async function* chunked(bytes, sizes) {
  for (let at = 0, n = 0; at < bytes.length; n++) {
    const end = at + sizes[n % sizes.length]
    yield bytes.subarray(at, end)
    at = end
  }
}
const sizes = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 5 })

describe("a cut export", () => {
  test("is imported up to its cut and says so; the whole one completes it, to the tables of a replay", async () => {
    const bytes = await bytesOf(await small())
    const lines = bytes.toString().trimEnd().split("\n")
    const whole = replayed(lines)
    const all = Array.from({ length: bytes.length + 1 }, (_, cut) => [cut, [1_000]])
    const property = fc.asyncProperty(fc.nat(bytes.length), sizes, async (cut, sizes) => {
      const store = reader()
      const result = await store.import(chunked(bytes.subarray(0, cut), sizes))
      // The closing line is whole without its line feed.
      assert.equal(result.complete, cut >= bytes.length - 1)
      const text = bytes.subarray(0, cut).toString()
      const read = text.split("\n")
      const last = read.at(-1)
      const isWhole = last !== "" && lines.includes(last)
      if (!isWhole) read.pop()
      assert.equal(result.lines, read.length)
      assert.equal(result.bytes, isWhole ? cut : Buffer.byteLength(text) - Buffer.byteLength(last))
      assert.deepEqual(dump(store), replayed(read))
      const { complete, applied, duplicate } = await store.import([bytes])
      assert.equal(complete, true)
      assert.equal(duplicate, result.applied)
      // All but the header, the ends of the three aggregates and the closing line.
      assert.equal(applied + duplicate, lines.length - 5)
      assert.deepEqual(dump(store), whole)
      store.close()
    })
    await fc.assert(property, {
      numRuns: Math.ceil(all.length / 4),
      examples: all.filter(([cut]) => cut % 5 === 0 || bytes[cut] === 10),
    })
  })

  test("plain events that were cut say so, too; whole ones cannot", async () => {
    const text = history("a", 3)
      .map((event) => JSON.stringify(event))
      .join("\n")
    for (const [given, complete, applied] of [
      [text, undefined, 3],
      [`${text}\n`, undefined, 3],
      [text.slice(0, -1), false, 2],
      [text.slice(0, 20), false, 0],
    ]) {
      const result = await reader().import([given])
      assert.deepEqual([result.complete, result.applied], [complete, applied])
    }
  })

  for (const suffix of [".zst", ".gz"]) {
    test(`compressed as ${suffix} is imported as far as it can be read`, async () => {
      // More than one block, of what does not compress well.
      const store = reader()
      const text = (n) =>
        Array.from({ length: 200 }, (_, k) => Math.imul(n * 200 + k, 2654435761).toString(36)).join("")
      store.replayAll(Array.from({ length: 300 }, (_, n) => serialized("seen", n, { noteID: "a", text: text(n) })))
      await store.export().toFile(file(`whole${suffix}`))
      const bytes = readFileSync(file(`whole${suffix}`))
      const whole = dump(store)
      let most = 0
      for (const share of [0, 0.001, 0.2, 0.5, 0.9, 0.999]) {
        writeFileSync(file(`cut${suffix}`), bytes.subarray(0, Math.floor(share * bytes.length)))
        const half = reader()
        const { complete, applied } = await half.import(file(`cut${suffix}`))
        assert.equal(complete, false)
        assert.equal(half.sequence("a"), applied - 1)
        assert.ok(applied >= most, `${applied} at ${share}`)
        most = applied
        assert.equal((await half.import(file(`whole${suffix}`))).complete, true)
        assert.deepEqual(dump(half), whole)
      }
      assert.ok(most > 100, `${most} of 300`)
      // Of the end of a gzip member nothing is needed: the closing line has said that this is all.
      if (suffix === ".gz") {
        writeFileSync(file("cut.gz"), bytes.subarray(0, -1))
        assert.equal((await reader().import(file("cut.gz"))).complete, true)
      }
    })
  }
})

describe("chunks", () => {
  test("may be cut anywhere, also within letters, as bytes and as text", async () => {
    const store = await small()
    const bytes = await bytesOf(store)
    const text = bytes.toString()
    const whole = replayed(text.trimEnd().split("\n"))
    const cutText = (sizes) => {
      const chunks = []
      for (let at = 0, n = 0; at < text.length; at += sizes[n++ % sizes.length]) {
        chunks.push(text.slice(at, at + sizes[n % sizes.length]))
      }
      return chunks
    }
    const property = fc.asyncProperty(sizes, fc.boolean(), async (sizes, asText) => {
      const one = reader()
      const result = await one.import(asText ? cutText(sizes) : chunked(bytes, sizes))
      assert.equal(result.complete, true)
      assert.equal(result.bytes, bytes.length)
      assert.deepEqual(dump(one), whole)
      one.close()
    })
    await fc.assert(property, {
      numRuns: 60,
      examples: [
        [[1], true],
        [[1], false],
        [[3], false],
        [[2], true],
      ],
    })
  })

  test("may be empty, and may be filled anew once the next one is asked for", async () => {
    const bytes = await bytesOf(await small())
    const room = Buffer.alloc(50)
    async function* reusing() {
      for (let at = 0; at < bytes.length; at += 50) {
        yield ""
        yield room.subarray(0, bytes.copy(room, 0, at, at + 50))
        room.fill("x")
        yield new Uint8Array(0)
      }
    }
    const store = reader()
    assert.equal((await store.import(reusing())).complete, true)
    assert.deepEqual(dump(store), replayed(bytes.toString().trimEnd().split("\n")))
  })
})

describe("a changed export", () => {
  test("each byte of it counts: nothing of a small one is imported, and the error names a line", async () => {
    const bytes = await bytesOf(await small())
    const store = reader()
    const before = dump(store)
    const lines = bytes.toString().trimEnd().split("\n").length
    for (let at = 0; at < bytes.length - 1; at++) {
      for (const by of [1, 0x20, 0x80]) {
        const changed = Buffer.from(bytes)
        changed[at] ^= by
        const outcome = await store.import([changed]).catch((error) => error)
        assert.equal(outcome.code, "ERR_INVALID_EXPORT", `byte ${at} (${by}): ${outcome}`)
        assert.ok(outcome.line >= 1 && outcome.line <= lines, `byte ${at}: line ${outcome.line}`)
        assert.match(outcome.message, /^Invalid export: line \d+ .*\. Nothing was imported$/)
      }
    }
    assert.deepEqual(dump(store), before)
  })

  test("lines that were left out, doubled or moved are noticed", async () => {
    const lines = (await bytesOf(await small())).toString().trimEnd().split("\n")
    const store = reader()
    for (let at = 1; at < lines.length - 1; at++) {
      for (const changed of [
        [...lines.slice(0, at), ...lines.slice(at + 1)],
        [...lines.slice(0, at), lines[at], ...lines.slice(at)],
      ]) {
        const said = coded("ERR_INVALID_EXPORT", /says (events|gaps|removed|aggregates) \d+, and before it is \d+/, {
          line: changed.length,
        })
        await assert.rejects(store.import([changed.join("\n")]), said)
      }
    }
    const moved = [lines[0], lines[2], lines[1], ...lines.slice(3)]
    await assert.rejects(
      store.import([moved.join("\n")]),
      coded("ERR_INVALID_EXPORT", /says sha256/, { field: "sha256" }),
    )
    assert.equal(store.sequences().size, 0)
  })

  for (const suffix of [".zst", ".gz"]) {
    test(`as ${suffix}, it is said where it could be read no further`, async () => {
      const store = await small()
      await store.export().toFile(file(`whole${suffix}`))
      const whole = reader()
      await whole.import(file(`whole${suffix}`))
      const bytes = readFileSync(file(`whole${suffix}`))
      for (let at = 0; at < bytes.length; at += 3) {
        const changed = Buffer.from(bytes)
        changed[at] ^= 0x10
        writeFileSync(file(`changed${suffix}`), changed)
        const given = reader()
        const outcome = await given.import(file(`changed${suffix}`)).catch((error) => error)
        // Gzip's header says things that change nothing, and both have bits that nobody uses: then it is the text as it was.
        if (outcome.complete) assert.deepEqual(dump(given), dump(whole), `byte ${at}`)
        else if (outcome.complete === undefined) {
          assert.equal(outcome.code, "ERR_INVALID_EXPORT", `byte ${at}: ${outcome}`)
        }
      }
      writeFileSync(file("whole under another name"), bytes)
      await assert.rejects(
        reader().import(file("whole under another name")),
        coded("ERR_INVALID_EXPORT", /line 1 is no JSON object, but compressed with (zstd|gzip): /, { line: 1 }),
      )
      writeFileSync(file(`none${suffix}`), "no such thing, and not even near to it")
      await assert.rejects(
        reader().import(file(`none${suffix}`)),
        coded("ERR_INVALID_EXPORT", /line 1 cannot be read: (zstd|gzip): /, { line: 1 }),
      )
    })
  }
})

describe("what is no export is ERR_INVALID_EXPORT", () => {
  const items = exported(history("a", 2))
  const whole = exportOf(items)
  for (const [name, text, wanted, number] of [
    ["other text", "hello\n", /line 1 is no JSON object/, 1],
    ["other text in one line", "hello", /line 1 is no JSON object/, 1],
    ["other bytes", Buffer.from([0, 255, 10, 0]), /line 1 is no JSON object/, 1],
    ["broken JSON", "{nothing}\n", /line 1 is no JSON: /, 1],
    ["a JSON array", JSON.stringify(history("a", 2)), /line 1 is no JSON object/, 1],
    ["another object", '{"name":"syncline"}\n', /line 1 is neither the header of an export nor an event/, 1],
    ["another file of syncline's", '{"syncline":"backup","version":1}\n', /no export, but "backup"/, 1],
    [
      "an export of a newer version",
      whole.replace('"version":1', '"version":2'),
      /has version 2, .* reads 1: upgrade/,
      1,
    ],
    ["a version that is none", whole.replace('"version":1', '"version":"1"'), /has version "1"/, 1],
    ["a version before the first", whole.replace('"version":1', '"version":0'), /has version 0, .* reads 1\./, 1],
    ["a version between two", whole.replace('"version":1', '"version":0.5'), /has version 0\.5, .* reads 1\./, 1],
    [
      "a line that is no item",
      exportOf([...items, '{"kind":"note"}']),
      /line 5 is no log item: kind: must be event, gap/,
      5,
    ],
    ["an item that lacks something", exportOf([line({ id: "e" })]), /line 2 is no log item: type: is missing/, 2],
    ["a list of items in a line", exportOf([JSON.stringify(items)]), /line 2 is no JSON object/, 2],
    [
      "two items in a line",
      exportOf([line(history("a", 1)[0]) + line(history("b", 1)[0])]),
      /line 2 is no log item: json/,
      2,
    ],
    ["an item on two lines", exportOf([line(history("a", 1)[0]).replace(":", ":\n")]), /line 2 is no JSON object/, 2],
    ["an empty line", exportOf([...items, ""]), /line 5 is no JSON object/, 5],
    ["more after the closing line", `${whole}{"kind":"end"}\n`, /line 6 stands after the closing line/, 6],
    ["half a line after the closing line", `${whole}{"ki`, /line 6 stands after the closing line/, 6],
    ["a second export", whole + whole, /line 6 stands after the closing line/, 6],
    ["a closing line that says nothing", exportOf(items, { sha256: undefined }), /line 5 says sha256 undefined/, 5],
    ["counts that differ", exportOf(items, { events: 3 }), /line 5 says events 3, and before it is 2/, 5],
    ["a size that differs", exportOf(items, { bytes: 1 }), /line 5 says bytes 1/, 5],
  ]) {
    test(name, async () => {
      const store = reader()
      await assert.rejects(store.import([text]), coded("ERR_INVALID_EXPORT", wanted, { line: number }))
      assert.equal(store.sequences().size, 0)
    })
  }

  test("its fields say what was expected and found", async () => {
    const newer = coded("ERR_INVALID_EXPORT", /./, { expected: 1, got: 2 })
    await assert.rejects(reader().import([whole.replace('"version":1', '"version":2')]), newer)
    const fewer = coded("ERR_INVALID_EXPORT", /./, { field: "events", expected: 3, got: 2 })
    await assert.rejects(reader().import([exportOf(items, { events: 3 })]), fewer)
  })

  test("space after the closing line, and a byte order mark before the header, are no harm", async () => {
    for (const text of [`${whole}\n \r\n`, `${whole}  `, `\ufeff${whole}`]) {
      assert.equal((await reader().import([text])).complete, true)
    }
  })

  test("plain events and items may be spaced as JSON lines are", async () => {
    const [first, second] = history("a", 2)
    const text = `\ufeff\r\n ${JSON.stringify(first)} \r\n\n\t${JSON.stringify({ event: second, kind: "event" }, null, " ").replaceAll("\n", "")}\r\n\n`
    const { complete, lines, applied } = await reader().import([text])
    assert.deepEqual([complete, lines, applied], [undefined, 5, 2])
    const wrong = text.replace("note.tagged.1", "unknown.1")
    await assert.rejects(
      reader().import([wrong]),
      coded("ERR_UNKNOWN_EVENT", /\(line 4\)/, { line: 4, type: "unknown.1" }),
    )
  })
})
