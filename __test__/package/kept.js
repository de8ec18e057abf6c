"use strict"

// Folders under target/ that take long to make, so that the files of this suite and the next run share them.

const { createHash } = require("node:crypto")
const fs = require("node:fs")
const path = require("node:path")

const root = path.resolve(__dirname, "..", "..")
const folder = path.join(root, "target", "package-tests")

/**
 * The path of a folder that `make(path)` fills, once for each content of the files that it is made of. Where two processes
 * make it at the same time, one of the two is kept.
 */
async function kept(name, files, make) {
  const made = path.join(folder, `${name}-${digest(files)}`)
  if (fs.existsSync(made)) return made
  fs.mkdirSync(folder, { recursive: true })
  const making = fs.mkdtempSync(path.join(folder, `making-${name}-`))
  try {
    await make(making)
    fs.renameSync(making, made)
  } catch (error) {
    if (!fs.existsSync(made)) throw error
  } finally {
    fs.rmSync(making, { recursive: true, force: true })
  }
  return made
}

/** A folder under target/ that programs keep something in by themselves. */
function keptBy(name) {
  fs.mkdirSync(path.join(folder, name), { recursive: true })
  return path.join(folder, name)
}

function digest(files) {
  const hash = createHash("sha256").update(process.version)
  for (const file of files.flatMap(filesIn)) hash.update(`${file}\0`).update(fs.readFileSync(path.join(root, file)))
  return hash.digest("hex").slice(0, 16)
}

function filesIn(name) {
  const file = path.join(root, name)
  if (!fs.existsSync(file)) return []
  if (!fs.statSync(file).isDirectory()) return [name]
  return fs
    .readdirSync(file)
    .toSorted()
    .flatMap((child) => filesIn(`${name}/${child}`))
}

module.exports = { kept, keptBy, root }
