"use strict"

// Lists of items, by board: what is compacted by key, with a foreign key and columns that keep what was seen first.

const { z } = require("zod")
const { createRegistry, define, project } = require("syncline")
const { collected, file, kept, rows } = require("./stores.js")

const TABLES = `
  CREATE TABLE IF NOT EXISTS list (id TEXT PRIMARY KEY, title TEXT);
  CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, list TEXT NOT NULL REFERENCES list (id),
    first_seen INTEGER NOT NULL, first_text TEXT NOT NULL, text TEXT NOT NULL);
`

const KEY = "item.id"

/**
 * Lists with items: an item belongs to a list by a foreign key, and keeps what it was at first. `itemKey` and `listKey` are
 * the keys by which they are compacted; by default with every barrier that they need.
 */
function lists({ itemKey, listKey } = {}) {
  const registry = createRegistry()
  const schema = z.looseObject({ board: z.string() })
  const make = (type, compactKey, version = 1) =>
    define({ type, version, aggregate: "board", schema, registry, ...(compactKey && { compactKey }) })
  const ItemRemoved = make("item.removed")
  const ListRemoved = make("list.removed")
  const barriers = [ItemRemoved, ListRemoved]
  const Item = make("item.saved", itemKey === undefined ? { path: KEY, barriers } : itemKey)
  const List = make("list.saved", listKey === undefined ? { path: "list.id", barriers: [ListRemoved] } : listKey)
  const projectors = [
    project(List, (tx, { list }) =>
      tx
        .prepare("INSERT INTO list VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET title = excluded.title")
        .run(list.id, list.title ?? null),
    ),
    project(Item, (tx, { item }, { seq }) =>
      tx
        .prepare("INSERT INTO item VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET text = excluded.text")
        .run(String(item?.id), item?.list ?? "l", seq, String(item?.text), String(item?.text)),
    ),
    project(ItemRemoved, (tx, { id }) => tx.prepare("DELETE FROM item WHERE id = ?").run(id)),
    project(ListRemoved, (tx, { id }) => {
      tx.prepare("DELETE FROM item WHERE list = ?").run(id)
      tx.prepare("DELETE FROM list WHERE id = ?").run(id)
    }),
  ]
  return { registry, projectors, Item, List, ItemRemoved, ListRemoved }
}

function openLists({ registry, projectors }, path = file(), options = {}) {
  const migrate = (db) => db.exec(TABLES)
  return kept(path, { registry, projectors, migrate, packing: false, ...options })
}

const seqs = (store, aggregateID = "b") => store.read(aggregateID).map((event) => event.seq)

const gaps = async (store, aggregateID = "b", after = -1) =>
  (await collected(store.log({ aggregateID, after })))
    .filter(({ kind }) => kind === "gap")
    .map((gap) => [gap.after, gap.through])

/** The state that the log projects to. */
const tables = (store) => [rows(store, "SELECT * FROM list ORDER BY id"), rows(store, "SELECT * FROM item ORDER BY id")]

/** A board that has one list, and then items by their keys; a key that is an array is a whole event. */
function board(given, store, events) {
  store.run(given.List, { board: "b", list: { id: "l" } })
  for (const [n, event] of events.entries()) {
    if (Array.isArray(event)) store.run(given[event[0]], { board: "b", ...event[1] })
    else store.run(given.Item, { board: "b", item: { id: event, text: `text ${n}` } })
  }
}

/** Replays a log as it is now into a new file. */
async function replica(given, store, name = `${Math.random()}.db`, open = openLists) {
  const copy = open(given, file(name))
  for (const { aggregateID } of store.aggregates()) copy.replayAll(await collected(store.log({ aggregateID })))
  return copy
}

module.exports = { board, gaps, lists, openLists, replica, seqs, tables }
