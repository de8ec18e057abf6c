"use strict"

// Stores that read a cluster, and one that writes there.

const { join } = require("node:path")
const { after } = require("node:test")
const { relay } = require("syncline/nats")
const { memoryFolder, openNotes } = require("../notes.js")

/** Milliseconds until what has to happen is given up. */
const PATIENCE = 30_000

const folder = memoryFolder()
let stores = 0

/** Where a store may be. */
const path = () => join(folder, `${stores++}.db`)

/** A store that is closed when the suite ends. */
function notes(options) {
  const opened = openNotes(path(), options)
  after(() => opened.store.close())
  const write = (noteID, text = "") => opened.store.run(opened.Written, { noteID, text })
  return { ...opened, write, seq: (noteID) => opened.store.sequence(noteID) }
}

/** Something that goes on until it is ended, with what it has told of itself. */
function going(work, store, options) {
  const ended = new AbortController()
  const statuses = []
  const errors = []
  const waiting = new Set()
  const told = () => waiting.forEach((look) => look())
  const onStatus = (status, detail) => (statuses.push({ status, ...detail }), told())
  const onError = (error, { aggregateID }) => (errors.push({ code: error.code, aggregateID, error }), told())
  const backoff = { initial: 20, longest: 200 }
  const done = work(store, { backoff, ...options, onStatus, onError, signal: ended.signal })
  done.catch(told)
  const one = {
    statuses,
    errors,
    done,
    /** Resolves once that holds of what was told. */
    until(isSo) {
      return new Promise((resolve, reject) => {
        const look = () => isSo({ statuses, errors }) && (clearTimeout(timer), waiting.delete(look), resolve())
        const late = () => reject(new Error(`not told within ${PATIENCE} ms: ${JSON.stringify({ statuses, errors })}`))
        const timer = setTimeout(late, PATIENCE)
        waiting.add(look)
        look()
      })
    },
    live: (times = 1) => one.until(() => statuses.filter(({ status }) => status === "live").length >= times),
    async end() {
      ended.abort()
      await done
    },
  }
  return one
}

/** One server with the stream of a writer on it, which is `place`. */
async function writing(cluster, { window = Infinity } = {}) {
  const connection = await cluster.connect()
  const name = `notes${stores}`
  const place = { connection, stream: name, prefix: name }
  const writer = notes()
  const relaying = going(relay, writer.store, { ...place, replicas: 1, window })
  await relaying.live()
  return { place, writer, relaying }
}

/** Events as another writer would record them. */
function events(noteID, seqs, text = "") {
  return seqs.map((seq) => ({
    id: `evt_${noteID}_${seq}_${text}`,
    type: "note.written.1",
    seq,
    aggregateID: noteID,
    created: 1,
    data: { noteID, text: `${text}${seq}` },
  }))
}

const logOf = (store) =>
  [...store.sequences().keys()].toSorted().map((id) => store.read(id).map((event) => ({ ...event })))

module.exports = { PATIENCE, events, going, logOf, notes, path, writing }
