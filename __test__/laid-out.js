"use strict"

// The package as npm lays it out, in a folder of its own, with what a test does to it; and processes that load it there.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after } = require("node:test")
const { platformName } = require("../dist/platform.js")

const root = join(__dirname, "..")
const manifest = JSON.parse(fs.readFileSync(join(root, "package.json"), "utf8"))
const { version } = manifest
/** The addon of this machine, and what the loader calls the platform. */
const platform = platformName()
const binaryName = `syncline.${platform}.node`
const binary = join(root, "native", binaryName)

const folders = []
after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true, force: true })))

/** An empty folder, gone when the suite ends. Its real path, as the system names it in errors. */
function emptyFolder() {
  const folder = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), "syncline-loading-")))
  folders.push(folder)
  return folder
}

/**
 * A project with syncline installed; `packages`: which platforms' packages are there, each with the addon of this machine
 * or what `content` holds. `dependencies`: of the root, those that are there, too.
 */
function laidOut({ packages = [platform], content, manifest: changes = {}, dependencies = [] } = {}) {
  const folder = emptyFolder()
  const target = join(folder, "node_modules", "syncline")
  fs.cpSync(join(root, "dist"), join(target, "dist"), { recursive: true })
  fs.cpSync(join(root, "native", "index.js"), join(target, "native", "index.js"))
  fs.writeFileSync(join(target, "package.json"), JSON.stringify({ ...manifest, ...changes }, null, 2))
  for (const name of packages) {
    const beside = join(folder, "node_modules", `syncline-${name}`)
    fs.cpSync(join(root, "npm", name), beside, { recursive: true })
    fs.writeFileSync(join(beside, `syncline.${name}.node`), content ?? fs.readFileSync(binary))
  }
  for (const name of dependencies) {
    const link = join(folder, "node_modules", name)
    fs.mkdirSync(join(link, ".."), { recursive: true })
    // Its own dependencies are found where it really is.
    fs.symlinkSync(join(root, "node_modules", name), link, "junction")
  }
  return folder
}

/** Where the addon of a project lies. */
const addonOf = (folder, name = platform) => join(folder, "node_modules", `syncline-${name}`, `syncline.${name}.node`)

/** In a program: what an error of loading knows, as JSON can say it. */
const TOLD = `
  function told(error) {
    const { name, code, reason, message, expected, got, path } = error
    const caused = error.cause !== undefined
    return { name, kind: error.constructor.name, code, reason, message, expected, got, path, caused }
  }
`
const USED = `
  function used({ open }) {
    open(":memory:").close()
    return { loaded: true }
  }
`
const COMMONJS = `${TOLD} ${USED}
  let answer
  try { answer = used(require("syncline")) } catch (error) { answer = told(error) }
  console.log(JSON.stringify(answer))
`
const MODULE = `${TOLD} ${USED}
  import("syncline").then(used, told).then((answer) => console.log(JSON.stringify(answer)))
`

/**
 * Loads syncline in a process of its own, and returns what it printed. It must end by itself, whatever happened, and have
 * nothing to say beside that. `preset`: JavaScript that runs first.
 */
function load(folder, { program = COMMONJS, preset, env = {}, node = process.execPath } = {}) {
  const flags = []
  if (preset !== undefined) {
    fs.writeFileSync(join(folder, "preset.js"), preset)
    flags.push("--require", join(folder, "preset.js"))
  }
  const { NAPI_RS_NATIVE_LIBRARY_PATH: _shared, SYNCLINE_ADDON_PATH: _own, ...inherited } = process.env
  const options = { cwd: folder, encoding: "utf8", env: { ...inherited, ...env } }
  const { status, signal, stdout, stderr } = spawnSync(node, [...flags, "-e", program], options)
  assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: "" })
  return JSON.parse(stdout)
}

/** Asserts why loading was refused, with which fields, and that the message has these phrases. */
function refused(answer, reason, fields, ...phrases) {
  const { name, kind, code, message } = answer
  assert.deepEqual(
    { name, kind, code },
    { name: "SyncError", kind: "SyncError", code: "ERR_ADDON_NOT_LOADED" },
    message,
  )
  assert.equal(answer.reason, reason, message)
  for (const [field, value] of Object.entries(fields)) assert.equal(answer[field], value, field)
  for (const phrase of phrases) assert.ok(message.includes(phrase), `${phrase}\nis not in\n${message}`)
  assert.doesNotMatch(message, /undefined|\[object|npm has a bug/)
}

module.exports = {
  addonOf,
  binary,
  emptyFolder,
  laidOut,
  load,
  manifest,
  MODULE,
  platform,
  refused,
  root,
  TOLD,
  version,
}
