"use strict"

// The servers of these tests do what the tests say of them.

const assert = require("node:assert/strict")
const { describe, test } = require("node:test")
const { jetstream, jetstreamManager } = require("@nats-io/jetstream")
const { binary, skip, startCluster, startProxy } = require("./servers.js")

describe("a cluster", { skip }, () => {
  test("goes on without its leader, and goes back with its disks", async () => {
    console.log(`figures cluster: nats-server ${binary.version} from ${binary.from}`)
    const cluster = await startCluster()
    const connection = await cluster.connect()
    const manager = await jetstreamManager(connection, { timeout: 30_000 })
    await manager.streams.add({ name: "S", subjects: ["s.*"], num_replicas: 3 })
    const publish = async (text) =>
      (await jetstream(connection).publish("s.a", text, { timeout: 30_000, retries: 60 })).seq
    for (let n = 1; n <= 10; n++) assert.equal(await publish(`${n}`), n)
    for (const node of cluster.nodes) node.snapshot()
    const leader = await cluster.leaderOf("S", connection)
    await leader.kill()
    assert.equal(await publish("11"), 11)
    leader.start()
    await cluster.ready()
    // Not the one that the connection is to: it would have to find that out first.
    const other = cluster.nodes.find((node) => node !== leader && node.url !== connection.getServer())
    other.pause()
    assert.equal(await publish("12"), 12)
    other.resume()
    for (const node of cluster.nodes) await node.kill()
    for (const node of cluster.nodes) node.rollback()
    for (const node of cluster.nodes) node.start()
    await cluster.ready()
    assert.equal(await publish("other"), 11)
  })

  test("is reached by a way that can be cut and stalled", async () => {
    const cluster = await startCluster({ size: 1 })
    const proxy = await startProxy(cluster.urls[0])
    const connection = await cluster.connect({ servers: [proxy.url] })
    const heard = []
    const statuses = connection.status()
    proxy.cut()
    for await (const { type } of statuses) if (heard.push(type) && type === "reconnect") break
    assert.ok(heard.includes("disconnect"), `${heard}`)
    proxy.stall()
    const answered = connection.rtt().then(() => "answered")
    assert.equal(await Promise.race([answered, new Promise((resolve) => setTimeout(resolve, 200, "silent"))]), "silent")
    proxy.go()
    assert.equal(await answered, "answered")
  })
})
