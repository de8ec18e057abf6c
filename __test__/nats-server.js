"use strict"

// One NATS server with JetStream, for what needs no more than one.

const { spawn } = require("node:child_process")
const { once } = require("node:events")
const { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { setTimeout: pause } = require("node:timers/promises")
const binary = require("./nats-binary.js")

const found = binary.serverBinary()

/** Why what needs a server is skipped; false: there is one. */
const noServer = found === undefined && binary.noServer()

/** Starts one, which nobody else uses. `config`: text for its configuration. `port`: any that is free. Resolves to its `url`, and how it is stopped. */
async function startServer(config = "", port = -1) {
  const folder = mkdtempSync(join(tmpdir(), "syncline-nats-"))
  const text = `host: 127.0.0.1\nport: ${port}\nports_file_dir: "${folder}"\njetstream { store_dir: "${folder}" }\n${config}\n`
  writeFileSync(join(folder, "server.conf"), text)
  const child = spawn(found.path, ["-c", join(folder, "server.conf"), "-l", join(folder, "log")], { stdio: "ignore" })
  const ended = once(child, "exit")
  const stop = async () => {
    child.kill("SIGKILL")
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  while (child.exitCode === null) {
    // It writes the file when it takes connections.
    const ports = readdirSync(folder).find((name) => name.endsWith(".ports"))
    const written = ports === undefined ? "" : readFileSync(join(folder, ports), "utf8")
    if (written.trim().endsWith("}")) return { url: JSON.parse(written).nats[0], stop }
    await pause(10)
  }
  throw new Error(`The server does not start:\n${readFileSync(join(folder, "log"), "utf8")}`)
}

module.exports = { noServer, startServer }
