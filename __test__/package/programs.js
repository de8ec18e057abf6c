"use strict"

// A small program that goes the whole way, as it would be written in each module system. It prints one line of JSON, `answer`.

const body = `
const schema = { "~standard": { version: 1, vendor: "program", validate: (value) => ({ value }) } }
const Titled = define({ type: "note.titled", version: 1, aggregate: "noteID", schema })
const options = {
  projectors: [project(Titled, sql\`INSERT INTO note VALUES (:aggregateID, :data ->> '$.title')
    ON CONFLICT DO UPDATE SET title = excluded.title\`)],
  migrate: (db) => db.exec("CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, title TEXT)"),
}
const laptop = open("laptop.db", options)
const heard = []
laptop.subscribe(Titled, (event) => heard.push(event.seq))
laptop.run(Titled, { noteID: "a", title: "one" })
laptop.run(Titled, { noteID: "a", title: "two" })
const phone = open("phone.db", options)
const replayed = phone.replayAll(laptop.read("a"))
const row = phone.db.prepare("SELECT * FROM note").get()
laptop.close()
phone.close()
console.log(JSON.stringify({ heard, applied: replayed[0].applied, row, others: [typeof SyncEvent.run, typeof follow] }))
`

const commonJS = `
const { define, open, project, sql } = require("syncline")
const { follow } = require("syncline/http")
const { SyncEvent } = require("syncline/sync-event")
${body}`

const esm = `
import { define, open, project, sql } from "syncline"
import { follow } from "syncline/http"
import { SyncEvent } from "syncline/sync-event"
${body}`

const answer = {
  heard: [0, 1],
  applied: 2,
  row: { id: "a", title: "two" },
  others: ["function", "function"],
}

/** A program that also has drizzle, which is no dependency: it must find the one that its project installed. It prints `true`. */
const drizzled = `
import { getTableName } from "drizzle-orm"
import { sqliteTable, text } from "drizzle-orm/sqlite-core"
import { open } from "syncline"
import { drizzle } from "syncline/drizzle"
const note = sqliteTable("note", { id: text().primaryKey() })
const store = open(":memory:", { migrate: (db) => db.exec("CREATE TABLE note (id TEXT PRIMARY KEY)") })
console.log(drizzle(store.db).select().from(note).all().length === 0 && getTableName(note) === "note")
store.close()
`

module.exports = { answer, commonJS, drizzled, esm }
