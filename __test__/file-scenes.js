"use strict"

// The folders of the suites about files: each path in one of its own.

const { mkdirSync, statSync } = require("node:fs")
const { join } = require("node:path")
const { afterEach } = require("node:test")
const { coded, openNotes, temporaryFolder } = require("./notes")

const folder = temporaryFolder()
const windows =
  process.platform === "win32" && "Windows lets nobody move or delete an open file, and has other permissions"
const opened = new Set()
let files = 0

afterEach(() => {
  for (const store of opened) store.close()
  opened.clear()
})

/** A path of its own, in a folder of its own. */
function newPath() {
  const own = join(folder, String(files++))
  mkdirSync(own)
  return join(own, "app.db")
}

/** A store that is closed after its test. */
function kept(path, options) {
  const log = openNotes(path, options)
  opened.add(log.store)
  return { ...log, path, write: (noteID, more) => log.store.run(log.Written, { noteID, ...more }) }
}

/** The permissions of a file, as octal digits. */
const mode = (path) => (statSync(path).mode & 0o777).toString(8)

/** The three files of a database. */
const sides = (path) => [path, `${path}-wal`, `${path}-shm`]

/** For assert.throws and assert.rejects. */
const gone = (message = /no longer at/) => coded("ERR_FILE_GONE", { sqliteCode: "SQLITE_READONLY_DBMOVED", message })

module.exports = { folder, gone, kept, mode, newPath, sides, windows }
