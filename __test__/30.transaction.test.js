"use strict"

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { drizzle } = require("syncline/drizzle")
const { coded, noteRows, notes, openNotes, refused, serialized, tagRows, turns } = require("./stores.js")

/** A store with the names of what it published, and a shorthand that writes a note. */
function noting(options) {
  const given = notes()
  const store = openNotes(given, options)
  const heard = []
  store.subscribeAll(({ data, seq }) => heard.push(`${data.noteID}${seq}`))
  const write = (noteID) => store.run(given.Written, { noteID })
  const ids = () => noteRows(store).map(([id]) => id)
  return { given, store, heard, write, ids }
}

const boom = new Error("boom")
const throws = () => {
  throw boom
}
const isBoom = (error) => error === boom

describe("rule 10: transaction", () => {
  test("rule 10: everything inside commits together, and nothing is published before", () => {
    const { given, store, heard, write, ids } = noting()
    const other = store.connect()
    const result = store.transaction((tx) => {
      assert.equal(tx, store.db)
      assert.equal(store.db.inTransaction, true)
      const { seq } = write("a")
      store.run(given.Tagged, { noteID: "a", tag: "t" })
      tx.exec("INSERT INTO tag VALUES ('own', 'row', 7)")
      assert.equal(other.prepare("SELECT count(*) FROM note").pluck().get(), 0)
      assert.equal(store.sequence("a"), 1)
      assert.deepEqual(heard, [])
      return { seq }
    })
    other.close()
    assert.deepEqual(result, { seq: 0 })
    assert.deepEqual(heard, ["a0", "a1"])
    assert.deepEqual(ids(), ["a"])
    assert.deepEqual(tagRows(store), [
      ["a", "t", 1],
      ["own", "row", 7],
    ])
  })

  test("rule 10: a throw takes back everything and reaches the caller as it is", () => {
    const { store, heard, write } = noting()
    const fn = () => {
      write("a")
      store.db.exec("INSERT INTO tag VALUES ('own', 'row', 7)")
      throws()
    }
    refused(store, () => store.transaction(fn), isBoom)
    refused(store, () => store.db.transaction(fn)(), isBoom)
    assert.deepEqual(heard, [])
  })

  test("rule 10, mistake 3: a nested transaction that fails and is caught leaves nothing", () => {
    const { store, heard, write, ids } = noting()
    store.transaction(() => {
      write("a")
      assert.throws(
        () =>
          store.transaction(() => {
            write("b")
            store.transaction(() => write("c"))
            throws()
          }),
        isBoom,
      )
      store.transaction(() => write("d"))
      assert.deepEqual(ids(), ["a", "d"])
    })
    assert.deepEqual(heard, ["a0", "d0"])
    assert.equal(store.sequence("b"), -1)
    assert.equal(store.sequence("c"), -1)
  })

  test("rule 10: a run that fails and is caught takes back its rows and its event alone", () => {
    const { given, store, heard, write, ids } = noting()
    store.db.exec("CREATE UNIQUE INDEX once ON tag (tag)")
    store.transaction(() => {
      write("a")
      const tag = () => store.run(given.Tagged, { noteID: "a", tag: "t" })
      tag()
      assert.throws(tag, coded("ERR_SQLITE"))
      assert.throws(() => write(1), coded("ERR_AGGREGATE_REQUIRED"))
      assert.throws(() =>
        store.runAll([
          [given.Written, { noteID: "x" }],
          [given.Tagged, { noteID: "x", tag: "t" }],
        ]),
      )
      assert.equal(write("a").seq, 2)
    })
    assert.deepEqual(heard, ["a0", "a1", "a2"])
    assert.deepEqual(ids(), ["a"])
  })

  test("rule 10: a replay inside is a savepoint, and publishes with the rest", () => {
    const { store, heard, write, ids } = noting()
    const item = (seq, noteID) => serialized("written", seq, { noteID })
    store.transaction(() => {
      write("a")
      store.replayAll([item(0, "r"), item(1, "r")], { publish: true })
      assert.throws(
        () => store.replayAll([item(2, "r"), item(4, "r")], { publish: true }),
        coded("ERR_SEQUENCE_MISMATCH"),
      )
      store.replay(item(0, "silent"))
      write("b")
      assert.deepEqual(heard, [])
    })
    assert.deepEqual(heard, ["a0", "r0", "r1", "b0"])
    assert.deepEqual(ids(), ["a", "b", "r", "silent"])
    assert.equal(store.sequence("r"), 1)
  })

  test("rule 10: publish: false holds its place among the others", () => {
    const { given, store, heard, write } = noting()
    store.transaction(() => {
      write("a")
      store.run(given.Written, { noteID: "silent" }, { publish: false })
      assert.throws(() => store.transaction(() => (write("b"), throws())), isBoom)
      write("c")
    })
    assert.deepEqual(heard, ["a0", "c0"])
  })

  test("rule 10: claim and remove inside are taken back with the rest", () => {
    const { store, write } = noting()
    write("a")
    refused(
      store,
      () =>
        store.transaction(() => {
          store.claim("a", "me")
          store.remove("a")
          throws()
        }),
      isBoom,
    )
    assert.deepEqual(store.owner("a"), { owner: null, epoch: 0 })
  })

  test("rule 10: a transaction that reads only, or is empty, publishes nothing", () => {
    const { store, heard } = noting()
    assert.equal(
      store.transaction(() => 7),
      7,
    )
    assert.equal(
      store.transaction(() => undefined),
      undefined,
    )
    assert.deepEqual(heard, [])
  })

  test("rule 10: an async function is refused before it runs, a promise's rejection is caught", async () => {
    const { store, write } = noting()
    let called = 0
    const refuse = (fn) => {
      refused(store, () => store.transaction(fn), coded("ERR_ASYNC_TRANSACTION"))
      refused(store, () => store.db.transaction(fn)(), coded("ERR_ASYNC_TRANSACTION"))
    }
    refuse(async () => void called++)
    refuse(function* () {
      yield called++
    })
    refuse(async function* () {
      yield called++
    })
    assert.equal(called, 0)
    refuse(() => {
      write("a")
      return Promise.reject(boom)
    })
    // oxlint-disable-next-line unicorn/no-thenable -- what is no promise may still be one to whoever awaits it.
    refuse(() => ({ then() {} }))
    for (const fn of [undefined, null, 1, {}]) {
      refused(store, () => store.transaction(fn), coded("ERR_INVALID_ARGUMENT"))
    }
    await turns()
  })

  test("rule 10: query gives transaction and projectors the caller's builder, made once", () => {
    const given = notes()
    let made = 0
    const store = openNotes(given, { query: (db) => (made++, { prepare: (text) => db.prepare(text), mine: true }) })
    assert.equal(made, 1)
    store.transaction((tx) => {
      assert.equal(tx.mine, true)
      store.run(given.Written, { noteID: "a" })
    })
    store.transaction((tx) => assert.equal(tx.mine, true))
    assert.equal(made, 1)
    assert.equal(noteRows(store).length, 1)
  })
})

describe("rule 10: store.db's transactions are the store's", () => {
  test("rule 10: in every mode, with run inside, and nested both ways", () => {
    const { store, heard, write, ids } = noting()
    for (const mode of ["default", "deferred", "immediate", "exclusive"]) {
      const before = heard.length
      const transaction = store.db.transaction(() => {
        write(mode)
        store.transaction(() => write(mode))
        assert.equal(heard.length, before)
      })
      transaction[mode]()
      assert.deepEqual(heard.slice(before), [`${mode}0`, `${mode}1`])
    }
    store.transaction(() => {
      assert.throws(
        store.db.transaction(() => (write("x"), throws())),
        isBoom,
      )
      store.db.transaction(() => write("y"))()
    })
    assert.deepEqual(heard.slice(8), ["y0"])
    assert.deepEqual(ids(), ["default", "deferred", "exclusive", "immediate", "y"])
  })

  test("rule 10: it is immediate unless deferred is asked for", () => {
    const { store } = noting({ busyTimeout: 0 })
    const other = store.connect()
    other.exec("BEGIN IMMEDIATE")
    assert.throws(() => store.transaction(() => {}), coded("ERR_BUSY"))
    assert.throws(() => store.db.transaction(() => {})(), coded("ERR_BUSY"))
    assert.equal(store.db.transaction(() => store.db.prepare("SELECT 1").pluck().get()).deferred(), 1)
    other.exec("ROLLBACK")
    other.close()
  })

  test("rule 10: run inside a raw BEGIN is refused, and leaves that BEGIN alone", () => {
    const { given, store, write, ids } = noting()
    for (const begin of ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT own"]) {
      store.db.exec(begin)
      store.db.exec("INSERT INTO note VALUES ('own', '', 0)")
      assert.throws(() => write("a"), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.runAll([[given.Written, { noteID: "a" }]]), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.run(given.Tagged, { noteID: "a", tag: "t" }), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.replay(serialized("written", 0, { noteID: "a" })), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.claim("a", "me"), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.remove("a", { event: [given.Seen, { noteID: "a" }] }), coded("ERR_IN_TRANSACTION"))
      assert.deepEqual(ids(), ["own"])
      store.db.exec("DELETE FROM note; COMMIT")
      assert.equal(store.db.inTransaction, false)
    }
    assert.deepEqual(store.aggregates(), [])
    assert.equal(write("a").seq, 0)
  })

  test("rule 10: raw BEGIN, COMMIT and ROLLBACK inside are refused, and nothing is lost", () => {
    const { store, heard, write, ids } = noting()
    store.transaction(() => {
      write("a")
      for (const text of ["BEGIN", "COMMIT", "END", "ROLLBACK", "RELEASE syncline_1"]) {
        assert.throws(
          () => store.db.exec(text),
          (error) => ["ERR_IN_TRANSACTION", "ERR_SQLITE"].includes(error.code),
        )
      }
      assert.throws(() => store.db.prepare("COMMIT").run(), coded("ERR_IN_TRANSACTION"))
      assert.equal(store.db.inTransaction, true)
    })
    assert.deepEqual(heard, ["a0"])
    assert.deepEqual(ids(), ["a"])
  })

  test("rule 10: close inside is refused", () => {
    const { store, write } = noting()
    store.transaction(() => {
      assert.throws(() => store.close(), coded("ERR_IN_TRANSACTION"))
      assert.throws(() => store.db.close(), coded("ERR_IN_TRANSACTION"))
      write("a")
    })
    assert.equal(store.sequence("a"), 0)
  })
})

describe("rule 10: raw savepoints move the pending events with them", () => {
  test("rule 10: ROLLBACK TO takes back events, RELEASE keeps them", () => {
    const { store, heard, write, ids } = noting()
    store.transaction(() => {
      write("a")
      store.db.exec("SAVEPOINT one")
      write("b")
      store.db.exec("SAVEPOINT two")
      write("c")
      store.db.exec("RELEASE two")
      store.db.exec("ROLLBACK TO one")
      write("d")
      store.db.exec("RELEASE one")
      store.db.prepare("SAVEPOINT three").run()
      write("e")
      store.db.prepare("ROLLBACK TRANSACTION TO SAVEPOINT three").run()
      write("f")
    })
    assert.deepEqual(heard, ["a0", "d0", "f0"])
    assert.deepEqual(ids(), ["a", "d", "f"])
  })

  test("rule 10: names in quotes, in other cases, doubled, and behind comments", () => {
    const { store, heard, write, ids } = noting()
    store.transaction(() => {
      store.db.exec('/* ; */ SAVEPOINT "a b"; -- c')
      write("a")
      store.db.exec("rollback to [A B]; SAVEPOINT x; SAVEPOINT x")
      write("b")
      store.db.exec("ROLLBACK TO X")
      write("c")
      store.db.exec("release savepoint x; SAVEPOINT `y`")
      write("d")
      store.db.exec("ROLLBACK TO 'y'; RELEASE x")
      write("e")
    })
    assert.deepEqual(heard, ["c0", "e0"])
    assert.deepEqual(ids(), ["c", "e"])
  })

  test("rule 10: a savepoint left open ends with the transaction around it", () => {
    const { store, heard, write, ids } = noting()
    store.transaction(() => {
      store.transaction(() => {
        store.db.exec("SAVEPOINT left")
        write("a")
      })
      assert.throws(() => store.db.exec("ROLLBACK TO left"), coded("ERR_SQLITE", /no such savepoint/))
      assert.throws(() => store.transaction(() => (store.db.exec("SAVEPOINT left"), write("b"), throws())), isBoom)
      write("c")
    })
    assert.deepEqual(heard, ["a0", "c0"])
    assert.deepEqual(ids(), ["a", "c"])
  })

  test("rule 10: a savepoint outside a nested transaction cannot be ended inside it", () => {
    const { store, heard, write } = noting()
    store.transaction(() => {
      store.db.exec("SAVEPOINT outer")
      store.transaction(() => {
        write("a")
        assert.throws(() => store.db.exec("ROLLBACK TO outer"), coded("ERR_IN_TRANSACTION"))
        assert.throws(() => store.db.exec("RELEASE outer"), coded("ERR_IN_TRANSACTION"))
      })
      store.db.exec("ROLLBACK TO outer")
      write("b")
    })
    assert.deepEqual(heard, ["b0"])
  })

  test("rule 10: drizzle's nested transactions are these savepoints", () => {
    const { store, heard, write, ids } = noting()
    const db = drizzle(store.db)
    db.transaction((tx) => {
      write("a")
      assert.throws(() =>
        tx.transaction((inner) => {
          write("b")
          inner.rollback()
        }),
      )
      tx.transaction(() => write("c"))
      assert.deepEqual(heard, [])
    })
    assert.deepEqual(heard, ["a0", "c0"])
    assert.deepEqual(ids(), ["a", "c"])
    assert.throws(() => db.transaction(() => (write("d"), throws())), isBoom)
    assert.equal(store.sequence("d"), -1)
  })
})
