"use strict"

// Three NATS servers with JetStream on this machine, which a test kills, pauses and sets back; and a way to them that it cuts.

const { spawn } = require("node:child_process")
const { once } = require("node:events")
const { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require("node:fs")
const { connect: connectTo, createServer } = require("node:net")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after, test } = require("node:test")
const { setTimeout: pause } = require("node:timers/promises")
const { jetstreamManager } = require("@nats-io/jetstream")
const { connect } = require("@nats-io/transport-node")
const { noServer, serverBinary } = require("../nats-binary.js")

const binary = serverBinary()
const skip = binary === undefined && noServer({ isRequired: true })
// A suite that is skipped has no tests, and a file without tests is an error.
if (skip) test("needs a nats-server", { skip }, () => {})

/** Milliseconds until a cluster has to be ready. */
const PATIENCE = 60_000

const running = new Set()
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")))

/** Closes what was started, at the end of the test file that loads this one. */
const opened = new Set()
after(() => Promise.all([...opened].map((close) => close())))

/** One server: its process ends with this one. */
class Node {
  #child
  #ended

  constructor(name, folder, port, config, path) {
    Object.assign(this, { name, folder, port, url: `127.0.0.1:${port}`, path })
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, "server.conf"), config)
  }

  start() {
    const child = spawn(this.path, ["-c", join(this.folder, "server.conf")], { stdio: "ignore" })
    // Reads the end of its input once this process is gone, however it went.
    const watchdog = spawn("sh", ["-c", 'read -r _; kill -9 "$0"', child.pid], { stdio: ["pipe", "ignore", "ignore"] })
    watchdog.unref()
    watchdog.stdin.unref()
    this.#child = child
    this.#ended = once(child, "exit").finally(() => watchdog.kill("SIGKILL"))
    running.add(child)
  }

  async kill() {
    if (this.#child === undefined) return
    this.#child.kill("SIGKILL")
    await this.#ended
    running.delete(this.#child)
    this.#child = undefined
  }

  get isUp() {
    return this.#child !== undefined
  }

  pause() {
    this.#child.kill("SIGSTOP")
  }

  resume() {
    this.#child.kill("SIGCONT")
  }

  /** Keeps what is on its disk now. */
  snapshot() {
    if (this.isUp) this.pause()
    rmSync(join(this.folder, "kept"), { recursive: true, force: true })
    cpSync(join(this.folder, "data"), join(this.folder, "kept"), { recursive: true })
    if (this.isUp) this.resume()
  }

  /** While it is down: its disk is as it was at the last `snapshot`. What came later, it has acknowledged and lost. */
  rollback() {
    if (this.isUp) throw new Error(`${this.name} is up`)
    rmSync(join(this.folder, "data"), { recursive: true, force: true })
    cpSync(join(this.folder, "kept"), join(this.folder, "data"), { recursive: true })
  }

  get log() {
    try {
      return readFileSync(join(this.folder, "log"), "utf8").slice(-4_000)
    } catch {
      return ""
    }
  }
}

/** Starts servers, which are gone when the test file ends. `path`: another server than the newest. */
async function startCluster({ size = 3, path = binary.path, maxPayload = 1024 * 1024 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "syncline-cluster-"))
  const ports = await freePorts(2 * size)
  const routes = ports.slice(size).map((port) => `nats://127.0.0.1:${port}`)
  const nodes = ports.slice(0, size).map((port, index) => {
    const own = join(folder, `n${index}`)
    const clustered = `cluster { name: test, listen: "127.0.0.1:${ports[size + index]}", no_advertise: true, routes: ${JSON.stringify(routes)} }`
    const config = `
      server_name: n${index}
      listen: "127.0.0.1:${port}"
      max_payload: ${maxPayload}
      jetstream { store_dir: "${join(own, "data")}" }
      ${size > 1 ? clustered : ""}
      log_file: "${join(own, "log")}"`
    return new Node(`n${index}`, own, port, config, path)
  })
  const connections = new Set()
  const cluster = {
    nodes,
    urls: nodes.map(({ url }) => url),
    /** A connection to any of the servers, or to those given, which lives through whatever happens to them. */
    async connect(options) {
      // A server that is paused for longer is left for another one.
      const common = {
        pingInterval: 1_000,
        maxPingOut: 4,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 100,
        waitOnFirstConnect: true,
        noAsyncTraces: true,
      }
      const connection = await connect({ servers: this.urls, ...common, ...options })
      connections.add(connection)
      return connection
    },
    /** Resolves once each server is up and there is somebody to ask. */
    async ready() {
      const until = performance.now() + PATIENCE
      for (let failure; ; await pause(100)) {
        let connection
        try {
          connection = await connect({ servers: this.urls, timeout: 2_000 })
          const manager = await jetstreamManager(connection, { timeout: 2_000 })
          // It is made on as many servers as there are, so that all have to have joined.
          const probe = { name: "probe", subjects: ["probe"], num_replicas: size, storage: "memory" }
          await manager.streams.add(probe)
          await manager.streams.delete("probe")
          return
        } catch (error) {
          failure = error
        } finally {
          await connection?.close()
        }
        if (performance.now() > until) {
          throw new Error(
            `The cluster is not ready: ${failure?.message}\n${nodes.map(({ log }) => log).join("\n---\n")}`,
          )
        }
      }
    },
    /** The server that leads a stream; undefined while there is none. */
    async leaderOf(stream, connection) {
      const info = await (await jetstreamManager(connection)).streams.info(stream).catch(() => undefined)
      return nodes.find(({ name }) => name === info?.cluster?.leader)
    },
    async close() {
      await Promise.all([...connections].map((connection) => connection.close().catch(() => {})))
      await Promise.all(nodes.map((node) => node.kill()))
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
  opened.add(() => cluster.close())
  for (const node of nodes) node.start()
  await cluster.ready()
  return cluster
}

/** Ports that nobody has now, below those that systems give outgoing connections: a server that is down gets its own again. */
async function freePorts(count) {
  const servers = []
  while (servers.length < count) {
    const port = 15_000 + Math.floor(Math.random() * 17_000)
    const server = await listening(createServer(), port).catch(() => undefined)
    if (server !== undefined) servers.push(server)
  }
  const ports = servers.map((server) => server.address().port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

async function listening(server, port = 0) {
  server.listen(port, "127.0.0.1")
  await once(server, "listening")
  return server
}

/** A way to a server that can be cut: `cut` ends what is open, and while it is `stalled` no byte passes. */
async function startProxy(target) {
  const [host, port] = target.split(":")
  const pairs = new Set()
  let stalled = false
  const server = await listening(
    createServer((client) => {
      const upstream = connectTo(Number(port), host)
      const pair = [client, upstream]
      pairs.add(pair)
      for (const [from, to] of [pair, [upstream, client]]) {
        from.pipe(to)
        from.on("error", () => {})
        from.on("close", () => (to.destroy(), pairs.delete(pair)))
        if (stalled) from.pause()
      }
    }),
  )
  opened.add(() => (pairs.forEach((pair) => pair.forEach((socket) => socket.destroy())), server.close()))
  const every = (act) => pairs.forEach((pair) => pair.forEach(act))
  return {
    url: `127.0.0.1:${server.address().port}`,
    cut: () => every((socket) => socket.destroy()),
    stall: () => ((stalled = true), every((socket) => socket.pause())),
    go: () => ((stalled = false), every((socket) => socket.resume())),
  }
}

/** Random numbers from 0 below 1 that a seed repeats: mulberry32, by Tommy Ettinger. */
function random(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

module.exports = { binary, random, skip, startCluster, startProxy }
