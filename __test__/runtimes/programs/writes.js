"use strict"

// Runs an event, reads it back and closes: the least that a program does. Its argument is the path.

const { openNotes } = require("./store.js")

const { store, Written } = openNotes(process.argv.at(-1))
store.run(Written, { noteID: "a" })
const rows = store.db.prepare("SELECT id, seq FROM note").all()
store.close()
console.log(JSON.stringify({ seq: rows.at(-1).seq, rows: rows.length }))
