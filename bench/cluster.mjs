// Three NATS servers with JetStream on this machine, each with a disk folder of its own, for the questions about a log on a
// cluster. `SYNCLINE_NATS_SERVER` names the server's file, as for the tests.
import { spawn } from "node:child_process"
import { once } from "node:events"
import fs from "node:fs"
import net from "node:net"
import { createRequire } from "node:module"
import path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { temporaryDirectory } from "./harness.mjs"

const packageRequire = createRequire(new URL("../package.json", import.meta.url))
const { serverBinary } = packageRequire("./__test__/nats-binary.js")
export const { connect } = packageRequire("@nats-io/transport-node")
export const { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } = packageRequire("@nats-io/jetstream")
export const { relay, replicate } = packageRequire("syncline/nats")

const SERVERS = 3
/** Bare publishes that wait for their answers at a time. */
const IN_FLIGHT = 256

/** The clients of both sides are made alike; no trace of the caller is kept for each request. */
export function connectTo(urls) {
  return connect({ servers: urls, noAsyncTraces: true })
}

/** Starts the cluster and waits until it answers; its servers end with `close`, or with this process. */
export async function startCluster() {
  const binary = serverBinary()
  if (binary === undefined) throw new Error("There is no nats-server: set SYNCLINE_NATS_SERVER")
  const folder = temporaryDirectory()
  const ports = await freePorts(2 * SERVERS)
  const routes = JSON.stringify(ports.slice(SERVERS).map((port) => `nats://127.0.0.1:${port}`))
  const children = ports.slice(0, SERVERS).map((port, n) => {
    const own = path.join(folder, `n${n}`)
    fs.mkdirSync(own)
    const config = `
      server_name: n${n}
      listen: "127.0.0.1:${port}"
      jetstream { store_dir: "${path.join(own, "data")}" }
      cluster { name: bench, listen: "127.0.0.1:${ports[SERVERS + n]}", no_advertise: true, routes: ${routes} }`
    fs.writeFileSync(path.join(own, "server.conf"), config)
    return spawn(binary.path, ["-c", path.join(own, "server.conf")], { stdio: "ignore" })
  })
  const kill = () => children.forEach((child) => child.kill("SIGKILL"))
  process.on("exit", kill)
  const urls = ports.slice(0, SERVERS).map((port) => `127.0.0.1:${port}`)
  const connections = []
  const cluster = {
    urls,
    version: binary.version,
    async connect() {
      const connection = await connectTo(urls)
      connections.push(connection)
      return connection
    },
    /** Seconds of processor time that the servers have used so far, together: Linux alone tells it here. */
    cpu: () => children.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0),
    /** Bytes of memory that each server holds. */
    memory: () => children.map(({ pid }) => residentBytes(pid)),
    async close() {
      await Promise.all(connections.map((connection) => connection.close()))
      const ended = children.map((child) => once(child, "exit"))
      kill()
      await Promise.all(ended)
      process.off("exit", kill)
      fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
  await ready(urls)
  return cluster
}

async function ready(urls) {
  const until = performance.now() + 60_000
  for (;;) {
    let connection
    try {
      connection = await connect({ servers: urls, timeout: 2_000 })
      const manager = await jetstreamManager(connection, { timeout: 2_000 })
      // It is made on all servers, so that all have to have joined.
      await manager.streams.add({ name: "probe", subjects: ["probe"], num_replicas: SERVERS, storage: "memory" })
      await manager.streams.delete("probe")
      return
    } catch (error) {
      if (performance.now() > until) throw error
    } finally {
      await connection?.close()
    }
    await pause(100)
  }
}

async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, "127.0.0.1"))
  await Promise.all(servers.map((server) => once(server, "listening")))
  const ports = servers.map((server) => server.address().port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** User and system time of a process, in seconds; its ticks are hundredths on every Linux that Node runs on. */
export function cpuSeconds(pid) {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ")
  return (Number(fields[11]) + Number(fields[12])) / 100
}

export function residentBytes(pid) {
  return Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]) * 1024
}

/** A stream as `relay` makes it, for bare publishes. */
export async function makeStream(connection, name) {
  const manager = await jetstreamManager(connection)
  await manager.streams.add({
    name,
    subjects: [`${name}.*`],
    num_replicas: SERVERS,
    storage: "file",
    retention: "limits",
    allow_direct: false,
  })
}

/** Deletes what a relay, or a bare side, has made. */
export async function dropStream(connection, name) {
  const manager = await jetstreamManager(connection)
  for (const each of [name, `KV_${name}-owners`, `KV_${name}-segments`, `OBJ_${name}-segments`]) {
    await manager.streams.delete(each).catch(() => {})
  }
}

/** Bytes that one server holds: of the stream, and of the stream with its buckets. */
export async function storedBytes(connection, name) {
  const manager = await jetstreamManager(connection)
  const sizes = []
  for (const each of [name, `KV_${name}-owners`, `KV_${name}-segments`, `OBJ_${name}-segments`]) {
    sizes.push((await manager.streams.info(each)).state.bytes)
  }
  return { stream: sizes[0], all: sizes.reduce((sum, size) => sum + size, 0) }
}

/** Bare publishes, so many in flight: `await publish(subject, bytes)` waits for room alone, `await all()` for the answers. */
export function pipeline(connection) {
  const client = jetstream(connection)
  let inFlight = 0
  let failed
  let wake = () => {}
  const room = (most) =>
    new Promise((resolve, reject) => {
      wake = () => (failed ? reject(failed) : inFlight <= most && resolve())
      wake()
    })
  const settle = () => {
    inFlight--
    wake()
  }
  return {
    publish(subject, bytes) {
      inFlight++
      client
        .publish(subject, bytes)
        .catch((error) => (failed = error))
        .then(settle)
      return inFlight < IN_FLIGHT ? undefined : room(IN_FLIGHT - 1)
    },
    all: () => room(0),
  }
}

/** Consumes a stream from its beginning as a reader does, and does nothing with it. Answers how many messages there were. */
export async function consumeBare(connection, name) {
  const manager = await jetstreamManager(connection)
  const info = await manager.consumers.add(name, {
    filter_subject: `${name}.*`,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: 1,
    ack_policy: AckPolicy.None,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: 30e9,
  })
  const consumer = jetstream(connection).consumers.getConsumerFromInfo(info)
  const messages = await consumer.consume({ max_bytes: 4 * 1024 * 1024, expires: 10_000, idle_heartbeat: 2_000 })
  let count = 0
  for await (const message of messages) {
    count++
    if (message.info.pending === 0) break
  }
  await consumer.delete()
  return count
}

/** Relays until all that the store holds is published. */
export async function relayAll(store, connection, stream, options = {}) {
  await untilLive((status) => relay(store, { connection, stream, prefix: stream, ...options, ...status }))
}

/** Replicates until the store has what the cluster has. */
export async function replicateAll(store, connection, stream, options = {}) {
  await untilLive((status) => replicate(store, { connection, stream, prefix: stream, ...options, ...status }))
}

async function untilLive(start) {
  const end = new AbortController()
  await start({
    signal: end.signal,
    onStatus: (status) => status === "live" && end.abort(),
    onError(error) {
      throw error
    },
  })
}

/** A relay that goes on: `quiet()` resolves with when its last answer came, once it has been silent for a while. */
export async function startRelay(store, connection, stream, options = {}) {
  const end = new AbortController()
  let isLive
  const live = new Promise((resolve) => (isLive = resolve))
  const ended = relay(store, {
    connection,
    stream,
    prefix: stream,
    ...options,
    signal: end.signal,
    onStatus: (status) => status === "live" && isLive(),
    onError(error) {
      throw error
    },
  })
  await Promise.race([live, ended])
  return {
    /** On a connection of its own, all that goes out is a request: it is over when as many answers have come. */
    async quiet(silence = 30) {
      let last = performance.now()
      let seen = -1
      while (performance.now() - last < silence) {
        const { outMsgs, inMsgs } = connection.stats()
        if (outMsgs + inMsgs !== seen) last = performance.now()
        seen = outMsgs + inMsgs
        await pause(1)
      }
      return last
    },
    async stop() {
      end.abort()
      await ended
    },
  }
}

/** Throws where the cluster lacks anything that the store holds: the last seq that it has of each aggregate. */
export async function checkPublished(store, connection, stream) {
  const manager = await jetstreamManager(connection)
  for (const [aggregateID, seq] of store.sequences()) {
    const head = await manager.streams.getMessage(stream, { last_by_subj: `${stream}.${aggregateID}` })
    const got = Number(head?.header.get("Syncline-Seq"))
    if (got !== seq) throw new Error(`The cluster has ${aggregateID} through ${got}, and the store through ${seq}`)
  }
}
