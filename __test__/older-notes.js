"use strict"

// The program of stores.js before it knew all of its types, and after it has learnt them.

const { z } = require("zod")
const { createRegistry, define, project } = require("syncline")
const { file, notes, openNotes, serialized } = require("./stores.js")

const recording = { unknown: "record" }
const written = (noteID, seq, text = `text ${seq}`) => serialized("written", seq, { noteID, text })
const tagged = (noteID, seq, tag = `tag ${seq}`) => serialized("tagged", seq, { noteID, tag })

/** The program of `notes()`, before it knew `note.tagged` and `note.seen`. */
function older() {
  const { projectors } = notes()
  const registry = createRegistry()
  const schema = z.object({ noteID: z.string(), text: z.string().default("untitled") })
  const Written = define({ type: "note.written", version: 1, aggregate: "noteID", schema, registry })
  return { registry, Written, projectors: [project(Written, projectors[0].apply)] }
}

let files = 0
const anotherFile = () => file(`${files++}.db`)

const openOlder = (path, options) => openNotes(older(), { path, ...options })
const openNewer = (path, options) => openNotes(notes(), { path, ...options })

/** What the older program makes of items, then the newer one's store on the same file. */
function upgraded(items) {
  const path = anotherFile()
  const store = openOlder(path)
  store.replayAll(items, recording)
  store.close()
  return openNewer(path)
}

/** The items in batches, cut at these places as far as they have them. */
function cutAt(items, cuts) {
  const bounds = [...new Set([0, ...cuts.filter((cut) => cut < items.length), items.length])].toSorted((a, b) => a - b)
  return bounds.slice(1).map((end, n) => items.slice(bounds[n], end))
}

module.exports = { anotherFile, cutAt, older, openNewer, openOlder, recording, tagged, upgraded, written }
