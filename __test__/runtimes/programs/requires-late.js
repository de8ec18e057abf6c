"use strict"

// Requires a module inside a projector for the first time, while something waits in a promise, and says whether that ran in the
// midst of the transaction. It is the same with the library's own first look at what a runtime makes only then.

const { openNotes } = require("./store.js")

const ran = []
const { store, Held } = openNotes(":memory:", {
  inProjector({ what }) {
    let isInTransaction = true
    void Promise.resolve().then(() => isInTransaction && ran.push(what))
    // oxlint-disable-next-line import/no-unassigned-import -- what matters is that it happens here
    if (what === "require") require("node:http")
    else void globalThis.Buffer
    isInTransaction = false
  },
})
// On Deno it depends on what is beneath: the main module is itself run by something that waits.
setTimeout(() => {
  store.run(Held, { noteID: "a", what: "Buffer" })
  store.run(Held, { noteID: "a", what: "require" })
  store.close()
  console.log(JSON.stringify(ran))
}, 1)
