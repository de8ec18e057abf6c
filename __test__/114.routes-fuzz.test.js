"use strict"

// Requests as their OpenAPI document describes them, and then not quite: wrong methods, paths, parameters, types, sizes,
// encodings, tokens, and garbage. Whatever comes, the answer is one that the document knows, and the store stays sound.

const assert = require("node:assert/strict")
const { maxHeaderSize } = require("node:http")
const { describe, test } = require("node:test")
const { gzipSync } = require("node:zlib")
const fc = require("fast-check")
const fzstd = require("fzstd")
const { assertDescribed, description } = require("./described")
const { served } = require("./serving")
const { extent, seeds, soak } = require("./soak")
const { history } = require("./stores")

const TOKEN = "the-token"
const MAX_BODY_BYTES = 20_000

/** Values of a schema: of as much of JSON Schema as the document uses. */
function valuesOf(document, schema) {
  const of = (inner) => valuesOf(document, inner)
  if (schema.$ref !== undefined) {
    return of(
      schema.$ref
        .slice(2)
        .split("/")
        .reduce((at, name) => at[name], document),
    )
  }
  if ("const" in schema) return fc.constant(schema.const)
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  const choices = schema.oneOf ?? schema.anyOf
  if (choices !== undefined) return fc.oneof(...choices.map(of))
  if (Array.isArray(schema.type)) return fc.oneof(...schema.type.map((type) => of({ ...schema, type })))
  switch (schema.type) {
    case "null":
      return fc.constant(null)
    case "integer":
      // Small ones mostly: they are seqs and epochs that somebody may have.
      return fc.oneof(
        { arbitrary: fc.integer({ min: Math.max(schema.minimum ?? -5, -5), max: 5 }), weight: 5 },
        fc.bigInt({ min: BigInt(schema.minimum ?? -(2 ** 53)), max: BigInt(schema.maximum ?? 2 ** 53) }).map(Number),
      )
    case "string":
      if (schema.pattern !== undefined)
        return fc.constantFrom("note.written.1", "note.seen.1", "note.tagged.1", "note.burnt.7")
      return fc.oneof(
        { arbitrary: fc.constantFrom("a", "b", "c"), weight: 4 },
        fc.string({ minLength: schema.minLength ?? 0, maxLength: 20, unit: "binary" }),
      )
    case "array":
      return fc.array(of(schema.items), { minLength: schema.minItems ?? 0, maxLength: 4 })
    case "object": {
      const { properties, required = [], additionalProperties } = schema
      if (properties === undefined)
        return fc.dictionary(
          fc.constantFrom("a", "b", "__proto__", "x"),
          typeof additionalProperties === "object" ? of(additionalProperties) : fc.jsonValue(),
        )
      return fc.record(Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, of(inner)])), {
        requiredKeys: required,
      })
    }
    default:
      return fc.oneof(fc.constantFrom({ noteID: "a" }, { noteID: "b", text: "t" }), fc.jsonValue())
  }
}

const junk = fc.oneof(
  fc.constantFrom(null, -1, 1e99, 0.5, "", "\ud800", [], {}, true, "x".repeat(9_000)),
  fc.jsonValue(),
)

/** A value with one of its parts replaced, taken away, or put where it does not belong. */
function mutated(value, path, put) {
  if (typeof value !== "object" || value === null) return put
  const keys = Object.keys(value)
  if (keys.length === 0 || path.length === 0) return put
  const [first, ...rest] = path
  const key = keys[first % keys.length]
  const copy = Array.isArray(value) ? [...value] : { ...value }
  if (first % 3 === 0) delete copy[key]
  else if (first % 3 === 1) copy[`${key}x`] = put
  else copy[key] = mutated(value[key], rest, put)
  return copy
}

/** A body as text or bytes, whose type and encoding are to be told, and need not be true. */
function bodies(document, operation) {
  const content = operation.requestBody?.content
  const schema = content?.["application/json"]?.schema
  const valid = schema === undefined ? fc.jsonValue() : valuesOf(document, schema)
  const value = fc.oneof(
    { arbitrary: valid, weight: 3 },
    {
      arbitrary: fc.tuple(valid, fc.array(fc.nat(11), { maxLength: 4 }), junk).map((given) => mutated(...given)),
      weight: 3,
    },
    junk,
  )
  const json = value.map((given) => JSON.stringify(given) ?? "")
  const items = fc.array(fc.oneof(valuesOf(document, { $ref: "#/components/schemas/LogItem" }), junk), { maxLength: 4 })
  const lines = items.map((list) => list.map((item) => `${JSON.stringify(item)}\n`).join(""))
  const cut = fc.tuple(json, fc.nat(200)).map(([text, at]) => text.slice(0, at))
  const large = fc.constantFrom(MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES).map((size) => " ".repeat(size))
  return fc.oneof(
    { arbitrary: json, weight: 8 },
    { arbitrary: lines, weight: content !== undefined && "application/x-ndjson" in content ? 6 : 1 },
    cut,
    large,
    fc.uint8Array({ maxLength: 100 }),
    fc.constant(undefined),
  )
}

const TYPES = [
  "application/json",
  "application/x-ndjson",
  "application/json; charset=utf-8",
  "application/json;charset=latin1",
  "text/plain",
  "multipart/form-data",
  "nonsense",
  "",
]
const ENCODINGS = [undefined, "gzip", "zstd", "identity", "br", "gzip, gzip"]
const METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"]
const TOKENS = [
  undefined,
  "",
  "Bearer",
  "Bearer wrong",
  `Bearer ${TOKEN}x`,
  `Basic ${TOKEN}`,
  TOKEN,
  `Bearer ${TOKEN} ${TOKEN}`,
]

/** A query string of the parameters that an operation has, some of them wrong. */
function queries(document, { parameters = [] }) {
  const inQuery = parameters.filter((parameter) => parameter.in === "query")
  const pair = ({ name, schema }) => {
    const one = valuesOf(document, schema.type === "array" ? schema.items : schema)
    return fc
      .oneof({ arbitrary: one, weight: 3 }, junk)
      .map((value) => [name, typeof value === "string" ? value.toWellFormed() : JSON.stringify(value)])
  }
  const others = fc.tuple(fc.constantFrom("unknown", "aggregate", "after", "limit", "only"), fc.string())
  const pairs = fc.array(fc.oneof(...inQuery.map(pair), others), { maxLength: 3 })
  return pairs.map((list) => (list.length === 0 ? "" : `?${new URLSearchParams(list)}`))
}

function requests(document) {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )
  // Made once each: to make them takes longer than to use them.
  const each = operations.map(({ path, method, operation }) =>
    fc.record({
      method: fc.oneof({ arbitrary: fc.constant(method), weight: 6 }, fc.constantFrom(...METHODS)),
      path: fc.oneof(
        { arbitrary: fc.constant(path), weight: 12 },
        fc.constantFrom(`${path}/`, `${path}%2f`, "/", "/sync", "/sync/../etc", "/%ff", "//sync/history"),
      ),
      query: queries(document, operation),
      body: bodies(document, operation),
      type: fc.oneof(
        { arbitrary: fc.constantFrom("application/json", "application/x-ndjson"), weight: 6 },
        fc.constantFrom(...TYPES),
      ),
      encoding: fc.oneof({ arbitrary: fc.constant(undefined), weight: 6 }, fc.constantFrom(...ENCODINGS)),
      isEncoded: fc.boolean(),
      token: fc.oneof({ arbitrary: fc.constant(`Bearer ${TOKEN}`), weight: 5 }, fc.constantFrom(...TOKENS)),
      more: fc.dictionary(
        fc.constantFrom("accept", "accept-encoding", "last-event-id"),
        fc.constantFrom("application/x-ndjson", "gzip;q=x", "zstd", "*", "0", "-1", "99", "é", ";;,,", "1e3"),
      ),
    }),
  )
  return fc.oneof(...each)
}

/** Sends one; of an answer that does not end only the head is looked at. */
async function answerTo(url, { method, path, query, body, type, encoding, isEncoded, token, more }) {
  const headers = {
    ...more,
    ...(token !== undefined && { authorization: token }),
    ...(encoding !== undefined && { "content-encoding": encoding }),
  }
  const mayHaveBody = body !== undefined && method !== "GET" && method !== "HEAD"
  if (mayHaveBody && type !== "") headers["content-type"] = type
  const bytes = typeof body === "string" ? Buffer.from(body) : body
  const sent = mayHaveBody && encoding === "gzip" && isEncoded ? gzipSync(bytes) : bytes
  const leaving = new AbortController()
  const response = await fetch(url + path + query, {
    method,
    headers,
    signal: leaving.signal,
    ...(mayHaveBody && { body: sent }),
  })
  const contentType = response.headers.get("content-type")
  const isEndless = contentType === "text/event-stream"
  const answered = isEndless ? new Uint8Array() : new Uint8Array(await response.arrayBuffer())
  // `fetch` of a newer Node, and of Bun, has decoded it by itself.
  const isPacked = response.headers.get("content-encoding") === "zstd" && answered[0] === 0x28 && answered[1] === 0xb5
  const text = Buffer.from(isPacked ? fzstd.decompress(answered) : answered).toString()
  leaving.abort()
  const json = contentType === "application/json" && text !== "" ? JSON.parse(text) : undefined
  return { status: response.status, type: contentType, text, json }
}

describe("requests of all kinds", () => {
  test("are answered as described, let in nobody without the token, and leave the store sound", async () => {
    const { document } = await description()
    const { store, url, errors, call, Seen } = await served({
      authorize: { token: TOKEN },
      maxBodyBytes: MAX_BODY_BYTES,
    })
    store.replayAll([...history("a", 3), ...history("b", 1)])
    store.claim("c", "somebody")
    const refusal = await call("GET", "/")
    const statuses = new Map()
    const property = fc.asyncProperty(requests(document), async (request) => {
      const answer = await answerTo(url, request)
      const { method, path, query, token } = request
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
      // A head that is too long for Node is refused by Node, without a word, before the routes hear of it.
      if (answer.status === 431) {
        assert.ok(path.length + query.length + JSON.stringify(request.more).length > maxHeaderSize / 2)
        return assert.equal(answer.text, "")
      }
      if (token !== `Bearer ${TOKEN}`) {
        assert.equal(answer.status, 401)
        assert.equal(answer.text, method === "HEAD" ? "" : refusal.text)
        return
      }
      assert.notEqual(answer.status, 401)
      assert.ok(answer.status < 500 || answer.status === 503, answer.text)
      if (answer.status >= 400 && method !== "HEAD") assert.equal(typeof answer.json?.message, "string")
      // What URLs make of a path is what was asked for.
      const { pathname } = new URL(url + path + query)
      const methods = Object.keys(document.paths[pathname] ?? {}).map((name) => name.toUpperCase())
      if (methods.includes("GET")) methods.push("HEAD")
      assert.equal(answer.status === 404, methods.length === 0)
      assert.equal(answer.status === 405, methods.length > 0 && !methods.includes(method))
      await assertDescribed(method, pathname, undefined, answer)
    })
    await fc.assert(property, { numRuns: extent(1_000, 12_000), seed: soak ? seeds(1, 1)[0] : 20_260_601 })
    // The dice are not so loaded that only refusals were looked at, or none.
    for (const status of [200, 400, 401, 404, 405, 409, 413, 415]) {
      assert.ok(statuses.get(status) >= 5, `${status}: ${JSON.stringify([...statuses])}`)
    }
    assert.deepEqual(
      errors.map(({ error }) => error),
      [],
    )
    assert.deepEqual(await store.verify(), [])
    const { seq } = store.run(Seen, { noteID: "a" })
    assert.equal(store.sequence("a"), seq)
  })
})
