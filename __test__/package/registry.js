"use strict"

// What a release would publish, and a registry on this machine that it is published to.

const { execFileSync, spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const readline = require("node:readline")
const { installClients } = require("./clients.js")
const { kept, root } = require("./kept.js")
const { Machine, settingHere } = require("./machine.js")

const manifest = require("../../package.json")
const built = fs.readdirSync(path.join(root, "native")).filter((name) => name.endsWith(".node"))

/** All that a release is made of. */
const sources = [
  "scripts/stage.mjs",
  "scripts/bounds.mjs",
  "__test__/package/registry.js",
  "package.json",
  "npm",
  "native",
  "THIRD_PARTY_LICENSES",
  ...manifest.files.filter((pattern) => !pattern.includes("*")),
]

/** A folder with the addons of every target: the ones that are built here, and stand-ins that nobody here may install. */
function artifacts(folder) {
  fs.mkdirSync(folder, { recursive: true })
  for (const platform of fs.readdirSync(path.join(root, "npm"))) {
    const addon = `${manifest.napi.binaryName}.${platform}.node`
    if (built.includes(addon)) fs.copyFileSync(path.join(root, "native", addon), path.join(folder, addon))
    else fs.writeFileSync(path.join(folder, addon), `the addon for ${platform}\n`)
  }
  return folder
}

/** The folder of a whole release, as scripts/stage.mjs makes it. */
function release() {
  return kept("release", sources, (making) => {
    const found = fs.mkdtempSync(path.join(os.tmpdir(), "syncline-artifacts-"))
    stage("--all", "--artifacts", artifacts(found), "--out", making)
    fs.rmSync(found, { recursive: true })
  })
}

function stage(...args) {
  return execFileSync(process.execPath, [path.join(root, "scripts/stage.mjs"), ...args], {
    encoding: "utf8",
    stdio: "pipe",
  })
}

/** Runs scripts/publish.mjs on a machine: `{status, stdout, stderr}`. */
function publish(machine, folder, ...options) {
  return machine.try([process.execPath, path.join(root, "scripts/publish.mjs"), folder, ...options])
}

/** Starts an empty registry: `{machine, stop}`, a machine that is set to it, and what ends it and forgets both. */
async function startRegistry() {
  return start(fs.mkdtempSync(path.join(os.tmpdir(), "syncline-registry-")))
}

/** A registry to which a whole release has been published. */
async function startWithRelease() {
  const folder = await release()
  const published = await kept("published", sources, async (making) => {
    const registry = await start(making)
    const { status, stdout, stderr } = publish(registry.machine, folder)
    await registry.stop({ keep: true })
    if (status !== 0) throw new Error(stdout + stderr)
  })
  const storage = fs.mkdtempSync(path.join(os.tmpdir(), "syncline-registry-"))
  fs.cpSync(published, storage, { recursive: true })
  return start(storage)
}

async function start(storage) {
  const clients = await installClients()
  const { npm } = await import("../../scripts/process.mjs")
  const upstream = settingHere(npm, "registry")
  const args = [path.join(__dirname, "registry-process.js"), clients, storage, upstream]
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] })
  const ended = once(child, "exit")
  const port = await new Promise((resolve, reject) => {
    ended.then(([code]) => reject(new Error(`The registry ended with ${code}`)))
    readline.createInterface(child.stdout).on("line", (line) => {
      const [, port] = /^port (\d+)$/.exec(line) ?? []
      if (port) resolve(port)
      else console.log(line)
    })
  })
  const machine = new Machine(npm, `http://127.0.0.1:${port}/`)
  return {
    machine,
    async stop({ keep = false } = {}) {
      child.kill()
      await ended
      for (const each of [machine.folder, ...(keep ? [] : [storage])]) fs.rmSync(each, { recursive: true, force: true })
    },
  }
}

module.exports = { artifacts, publish, release, stage, startRegistry, startWithRelease }
