"use strict"

// Writes notes into one file as a process of its own, some in each transaction. Before each round it waits for a word, so
// that whoever started it can keep it in step with others; after each it tells how many events it has written.

const { readSync, writeSync } = require("node:fs")
const { openNotes } = require("./notes")

const { path, writer, rounds, transactions, batch, aggregates } = JSON.parse(process.argv[2])
const { store, Written } = openNotes(path)
let written = 0

/** The next events; writers begin at different notes, and each comes to all of them. */
function nextBatch() {
  return Array.from({ length: batch }, () => {
    const n = written++
    return [Written, { noteID: `note ${(writer * 7 + n) % aggregates}`, text: `${writer} ${n}` }]
  })
}

for (let round = 0; round < rounds; round++) {
  readSync(0, Buffer.alloc(1))
  for (let n = 0; n < transactions; n++) store.runAll(nextBatch())
  writeSync(3, `${written}\n`)
}
store.close()
