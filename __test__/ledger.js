"use strict"

// Accounts, of which suites 15, 97 and 98 keep books. Their tables tell what the log said and in which order: each entry
// goes into a digest of all that came before it, so that one that is lost, doubled or out of its place shows for ever.

const { z } = require("zod")
const { createRegistry, define, open, project, sql } = require("syncline")

const TABLES = `
  CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, entries INTEGER NOT NULL, digest INTEGER NOT NULL, seq INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS tag (account TEXT NOT NULL, seq INTEGER NOT NULL, tag TEXT NOT NULL CHECK (tag <> 'refused'));
  CREATE TABLE IF NOT EXISTS label (account TEXT NOT NULL, key TEXT NOT NULL, first_seq INTEGER NOT NULL, seq INTEGER NOT NULL,
    text TEXT NOT NULL, PRIMARY KEY (account, key));
  CREATE TABLE IF NOT EXISTS status (account TEXT PRIMARY KEY, seq INTEGER NOT NULL, text TEXT NOT NULL);
`

/** What a projector throws when its event asks for it, after it has written. */
const refusal = new Error("refused by the projector")

/** The digest of an account after one more entry. */
function fold(digest, seq, text) {
  let folded = Math.imul(digest ^ seq, 0x01000193)
  for (let at = 0; at < text.length; at++) folded = Math.imul(folded ^ text.charCodeAt(at), 0x01000193)
  return folded | 0
}

/** Definitions in a registry of their own, with their projectors. `onProject` is called by every JavaScript projector. */
function ledger(onProject) {
  const registry = createRegistry()
  const schema = z.looseObject({ account: z.string() })
  const base = { version: 1, aggregate: "account", schema, registry }
  const Added = define({ ...base, type: "entry.added" })
  const Tagged = define({ ...base, type: "entry.tagged" })
  const Noted = define({ ...base, type: "entry.noted", projector: "none" })
  const Closed = define({ ...base, type: "account.closed" })
  const Labelled = define({ ...base, type: "label.saved", compactKey: { path: "key", barriers: [Closed] } })
  const Set = define({
    ...base,
    type: "status.set",
    compactKey: { path: "account", barriers: [Closed] },
    dedupe: ["n"],
  })
  const add = (tx, { account, text, refused }, { seq }) => {
    const before = tx.prepare("SELECT entries, digest FROM account WHERE id = ?").get(account)
    const { entries, digest } = before ?? { entries: 0, digest: 0 }
    tx.prepare("INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?)").run(
      account,
      entries + 1,
      fold(digest, seq, text),
      seq,
    )
    onProject?.()
    if (refused) throw refusal
  }
  const projectors = [
    project(Added, add),
    project(Tagged, sql`INSERT INTO tag VALUES (:aggregateID, :seq, :data ->> '$.tag')`),
    project(Closed, (tx, { account }) => {
      erase(tx, account)
      onProject?.()
    }),
    project(
      Labelled,
      sql`INSERT INTO label VALUES (:aggregateID, :data ->> '$.key', :seq, :seq, :data ->> '$.text')
          ON CONFLICT (account, key) DO UPDATE SET seq = excluded.seq, text = excluded.text`,
    ),
    project(Set, (tx, { account, text }, { seq }) => {
      tx.prepare("INSERT OR REPLACE INTO status VALUES (?, ?, ?)").run(account, seq, text)
      onProject?.()
    }),
  ]
  return { registry, projectors, Added, Tagged, Noted, Closed, Labelled, Set }
}

/** Deletes what was projected of an account. */
function erase(db, account) {
  db.prepare("DELETE FROM account WHERE id = ?").run(account)
  for (const table of ["tag", "label", "status"]) db.prepare(`DELETE FROM ${table} WHERE account = ?`).run(account)
}

/** A store of ledgers, which packs only when it is told to. `onProject` is that of `ledger`. */
function openLedger(path, { onProject, ...options } = {}) {
  const given = ledger(onProject)
  const { registry, projectors } = given
  const migrate = options.readonly ? {} : { migrate: (db) => db.exec(TABLES) }
  return { ...given, store: open(path, { registry, projectors, packing: false, ...migrate, ...options }) }
}

/** Removes an account without a deletion event: its rows go in the same transaction. */
function removeQuietly(store, account) {
  store.transaction(() => {
    erase(store.db, account)
    store.remove(account)
  })
}

/** Replays items, all or none; a removal that has no deletion event takes the account's rows with it. */
function apply(store, items, options) {
  const isQuiet = (item) => item.kind === "removed" && item.event === undefined
  if (!items.some(isQuiet)) return store.replayAll(items, options)
  return store.transaction(() =>
    items.flatMap((item) => {
      const [result] = store.replayAll([item], options)
      if (isQuiet(item) && result.applied > 0) erase(store.db, item.aggregateID)
      return result ?? []
    }),
  )
}

const QUERIES = {
  account: "SELECT * FROM account ORDER BY id",
  tag: "SELECT * FROM tag ORDER BY account, seq",
  label: "SELECT * FROM label ORDER BY account, key",
  status: "SELECT * FROM status ORDER BY account",
}

/** The rows of the projected tables, all of them. */
function projected(store) {
  return Object.fromEntries(
    Object.entries(QUERIES).map(([table, query]) => [table, store.db.prepare(query).raw().all()]),
  )
}

/** What a log projects to when it is replayed from its beginning into a new store. */
async function replayed(store) {
  const { store: copy } = openLedger(":memory:")
  try {
    for (const { aggregateID } of store.aggregates()) {
      const items = []
      for await (const item of store.log({ aggregateID })) items.push(item)
      apply(copy, items)
    }
    return projected(copy)
  } finally {
    copy.close()
  }
}

module.exports = { apply, fold, openLedger, projected, refusal, removeQuietly, replayed }
