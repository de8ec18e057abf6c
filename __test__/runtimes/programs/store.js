"use strict"

// A store as the programs of this folder open it: it projects by SQL, and by a function that may be told to do something.

const { createRegistry, define, open, project, sql } = require("syncline")

const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }

function openNotes(path, { inProjector = () => {}, ...options } = {}) {
  const registry = createRegistry()
  const shape = { version: 1, aggregate: "noteID", schema, registry }
  const Written = define({ ...shape, type: "note.written" })
  const Held = define({ ...shape, type: "note.held" })
  const projectors = [
    project(Written, sql`INSERT INTO note VALUES (:aggregateID, :seq)`),
    project(Held, (tx, data) => inProjector(data)),
  ]
  const migrate = (db) => db.exec("CREATE TABLE IF NOT EXISTS note (id, seq)")
  return { store: open(path, { registry, projectors, migrate, ...options }), Written, Held }
}

module.exports = { openNotes }
