"use strict"

// What suite 18 does to a store: where a call looks at what it was given, what may be done there, and values and names that
// nobody expects.

const assert = require("node:assert/strict")
const { written } = require("./notes")

/** An object of which one property, when somebody asks for it, calls `at` first. */
const asked = (at, name, value, others = {}) =>
  Object.defineProperty({ ...others }, name, { enumerable: true, get: () => (at(), value) })

/** Data of a note whose text is asked for by `at` first. */
const toJSON = (at, noteID = "x") => ({ toJSON: () => (at(), { noteID }) })

function* iterating(at, item) {
  at()
  yield item
}

/** Every place where a call looks at what it was given: `at` is called there. */
const PLACES = {
  "toJSON of data": (store, Written, at) => store.run(Written, toJSON(at)),
  "a getter of data": (store, Written, at) => store.run(Written, asked(at, "text", "t", { noteID: "x" })),
  "a Proxy as data": (store, Written, at) =>
    store.run(Written, new Proxy({ noteID: "x" }, { ownKeys: (of) => (at(), Reflect.ownKeys(of)) })),
  "toJSON of metadata": (store, Written, at) => store.run(Written, { noteID: "x" }, { metadata: toJSON(at) }),
  "an option of run": (store, Written, at) => store.run(Written, { noteID: "x" }, asked(at, "publish", true)),
  "toJSON in runAll": (store, Written, at) => {
    const second = [Written, { noteID: "y" }]
    return store.runAll([[Written, toJSON(at)], second])
  },
  "a pair of runAll": (store, Written, at) =>
    store.runAll([new Proxy([Written, { noteID: "x" }], { get: (of, key) => (at(), Reflect.get(of, key)) })]),
  "toJSON in runAsync": (store, Written, at) => store.runAsync(Written, toJSON(at)),
  "the signal of runAsync": (store, Written, at) => store.runAsync(Written, { noteID: "x" }, asked(at, "signal")),
  "an event's data": (store, _, at) => store.replay(asked(at, "data", { noteID: "p" }, next(store))),
  "an option of replay": (store, _, at) => store.replay(next(store), asked(at, "owner")),
  "the iterable of replayAllAsync": (store, _, at) => store.replayAllAsync(iterating(at, next(store))),
  "the deletion event": (store, Written, at) => store.remove("x", asked(at, "event", [Written, { noteID: "x" }])),
  "an option of claim": (store, _, at) => store.claim("x", "me", asked(at, "expectedEpoch")),
  "an option of read": (store, _, at) => store.read("kept", asked(at, "after", -1)),
  "an option of readAll": (store, _, at) => store.readAll(asked(at, "limit", 9)),
  "the ids of sequences": (store, _, at) => store.sequences(iterating(at, "kept")),
  "an option of aggregates": (store, _, at) => store.aggregates(asked(at, "prefix", "k")),
  "the seqs of waitFor": (store, _, at) => store.waitFor(asked(at, "kept", 0)),
  "an option of log": (store, _, at) => store.log(asked(at, "aggregateID", "kept")).next(),
  "an option of stream": (store, _, at) => store.stream(asked(at, "types", ["note.written"])).return(),
  "an option of changes": (store, _, at) => store.changes(asked(at, "signal")).return(),
  "an option of subscribeAll": (store, _, at) => store.subscribeAll(() => {}, asked(at, "scope", "database"))(),
  "an option of stats": (store, _, at) => store.stats(asked(at, "largest", 1)),
  "an option of maintain": (store, _, at) => store.maintain(asked(at, "budget", 100)),
  "an option of verify": (store, _, at) => store.verify(asked(at, "repair", false)),
  "a parameter of a statement": (store, _, at) =>
    store.db.prepare("UPDATE note SET text = :text").run(asked(at, "text", "t")),
  "a parameter of an iterator": (store, _, at) => [
    ...store.db.prepare("SELECT :text AS a").iterate(asked(at, "text", 1)),
  ],
  "an option of a function": (store, _, at) => store.db.function("f", asked(at, "deterministic", true), () => 1),
}

/** The next event of an aggregate that only comes by replay. */
const next = (store) => written("p", store.sequence("p") + 1)

const inner = { noteID: "inner" }

/** What is done there. */
const ACTS = {
  runs: (store, Written) => store.run(Written, inner),
  replays: (store) => store.replayAll([written("inner", store.sequence("inner") + 1)]),
  "opens a transaction": (store, Written) =>
    store.transaction(() => store.transaction(() => store.run(Written, inner).seq)),
  "fails a transaction": (store, Written) => {
    const fail = () => {
      throw store.run(Written, inner)
    }
    assert.throws(() => store.transaction(fail), { aggregateID: "inner" })
  },
  removes: (store) => store.remove("inner"),
  "begins by SQL, and takes it back": (store) => store.db.exec("BEGIN; UPDATE note SET text = 'other'; ROLLBACK"),
  "waits to run": (store, Written) => void store.runAsync(Written, inner),
}

/** Texts that mean something in SQL, in paths, in JavaScript, or to an eye. */
// prettier-ignore
const NAMES = [
  "'; DROP TABLE event; --", '"event"', "a' OR 1=1", "%", "_", "*", "[a-z]", "?1", ":aggregateID", "NULL",
  "../../etc/passwd", "/dev/null", "C:\\con", "file:///x?mode=memory", ".", "..", ":memory:", "-wal", "a\nb",
  "a\r\nb", "\t", " ", "\u0000", "\u202eevil", "\u200b", "👩‍👩‍👧‍👦", "e\u0301", "é", "İ", "ß", "\u{10ffff}",
  "__proto__", "constructor", "toString", "hasOwnProperty", "then", "length", "0", "-1", "NaN", "undefined",
  '{"a":1}', "${x}", "$&", "\\", "\\u0000", "x".repeat(8_000), "\u{1f600}".repeat(2_000),
]

/** A Standard Schema of what `validate` answers. */
const schemaOf = (validate) => ({ "~standard": { version: 1, vendor: "test", validate } })

/** Values that nobody expects to be thrown. */
function strangeValues() {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  const looked = () => {
    throw new Error("somebody looked at it")
  }
  const guarded = new Proxy(new Error("guarded"), { get: looked, getPrototypeOf: looked, ownKeys: looked })
  return { null: null, undefined, symbol: Symbol("s"), frozen: Object.freeze(new Error("f")), guarded, revoked: proxy }
}

module.exports = { ACTS, NAMES, PLACES, schemaOf, strangeValues }
