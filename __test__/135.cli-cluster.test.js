"use strict"

// The command's relay and replicate, between processes and a real server of its own.

const assert = require("node:assert/strict")
const { existsSync, readFileSync } = require("node:fs")
const { spawnSync } = require("node:child_process")
const { join } = require("node:path")
const { after, before, describe, test } = require("node:test")
const command = require("./command.js")
const { laidOut } = require("./laid-out.js")
const { noServer, startServer } = require("./nats-server.js")
const { file, history, kept } = require("./stores.js")

const { linesOf, logFile, refused, start, syncline, told, well, withLog } = command

const PASSWORD = "not-to-be-printed"
const skip = noServer

/** With a user who may do everything. */
let server
let url
let host
before(async () => {
  if (skip) return
  server = await startServer(`authorization { user: ann, password: "${PASSWORD}" }`)
  host = new URL(server.url).host
  url = `nats://ann:${PASSWORD}@${host}`
})
after(() => server?.stop())

let streams = 0
/** Options for a stream that no other test has. */
const place = () => ["--stream", `of-test-${streams++}`]
const statuses = (one) => linesOf(one.stdout).map((line) => JSON.parse(line).status)
const add = (path, items) => withLog(path, (store) => store.replayAll(items, { unknown: "record" }))
const relayed = (path, at, ...args) => well(["relay", path, url, "--replicas", "1", "--once", ...at, ...args])

describe("relay", { skip }, () => {
  test("publishes what there is, then what comes, and ends with 0 at Ctrl-C", async () => {
    const path = logFile([...history("a", 500), ...history("b", 3)])
    const at = place()
    const one = start(["relay", path, url, "--json", "--replicas", "1", ...at])
    await one.until(/"live"/)
    const copy = file("copy.db")
    const other = start(["replicate", copy, url, "--json", ...at])
    await other.until(/"live"/)
    assert.deepEqual(await told(copy), await told(path))
    add(path, history("a", 5, 500))
    await kept(copy, { readonly: true }).waitFor({ a: 504 })
    for (const each of [one, other]) {
      each.child.kill("SIGINT")
      assert.equal(await each.ended, 0, each.stderr)
      assert.equal(each.stderr, "")
      assert.deepEqual(statuses(each).slice(0, 3), ["connecting", "catching-up", "live"])
    }
    assert.match(await well(["verify", copy]), /^Sound: 508 events/)
  })

  test("--once says what it did, for people and as JSON, and never the password", async () => {
    const path = logFile(history("a", 3))
    const at = place()
    assert.equal(await relayed(path, at), `Connecting to ${host}.\nUp to date: everything is published.\n`)
    const asJson = await relayed(path, at, "--json")
    assert.deepEqual(
      linesOf(asJson).map((line) => JSON.parse(line)),
      [{ status: "connecting" }, { status: "catching-up" }, { status: "live" }],
    )
    const wrong = await syncline(["relay", path, `nats://ann:${PASSWORD}x@${host}`, "--once"])
    assert.equal(wrong.code, 1)
    assert.match(wrong.stderr, /Authorization Violation \(ERR_FORBIDDEN\)/)
    assert.ok(!(wrong.stdout + wrong.stderr).includes(PASSWORD))
  })

  test("takes servers and users from the environment, too", async () => {
    const path = logFile(history("a", 3))
    const line = ["relay", path, "--replicas", "1", "--once", ...place()]
    for (const env of [
      { NATS_URL: url },
      { NATS_URL: `127.0.0.1:1, ${host}`, NATS_USER: "ann", NATS_PASSWORD: PASSWORD },
    ])
      await well(line, { env })
    const without = await syncline([...line, "--json"], { env: { NATS_URL: host } })
    assert.deepEqual([without.code, JSON.parse(without.stderr).code], [1, "ERR_FORBIDDEN"])
  })

  test("--owner claims, leaves what another one owns, tells of what was taken from it, and ends with 3", async () => {
    const path = logFile([...history("a", 3), ...history("b", 3)])
    withLog(path, (store) => store.claim("b", "phone"))
    const at = place()
    await relayed(path, at, "--owner", "desk", "--aggregate", "a")
    const copy = file("copy.db")
    await well(["replicate", copy, url, "--once", "--json", ...at])
    assert.deepEqual(
      kept(copy, { readonly: true })
        .aggregates()
        .map(({ aggregateID, owner }) => [aggregateID, owner]),
      [["a", "desk"]],
    )
    const other = logFile(history("a", 4), "other.db")
    const { code, stderr, stdout } = await syncline([
      "relay",
      other,
      url,
      "--once",
      "--replicas",
      "1",
      "--owner",
      "phone",
      ...at,
    ])
    assert.equal(code, 3, stderr)
    assert.match(stderr, /^warning: a is not published: .* is of "desk" in the cluster/m)
    assert.match(stdout, /^Up to date: everything else is published\.$/m)
  })

  test("goes on when the server comes back", async () => {
    const own = await startServer()
    const path = logFile(history("a", 3))
    const one = start(["relay", path, own.url, "--json", "--replicas", "1"])
    await one.until(/"live"/)
    await own.stop()
    await one.until(/"waiting"/)
    // It has lost all.
    const again = await startServer("", new URL(own.url).port)
    await one.until(/"waiting"[^]*"live"/)
    one.child.kill("SIGTERM")
    assert.equal(await one.ended, 0, one.stderr)
    await well(["replicate", file("copy.db"), again.url, "--once", "--json"])
    assert.deepEqual(await told(file("copy.db")), await told(path))
    await again.stop()
  })
})

describe("replicate", { skip }, () => {
  test("--once, of some aggregates, for an owner", async () => {
    const path = logFile([...history("a", 3), ...history("b", 3), ...history("c", 3)])
    const at = place()
    await relayed(path, at)
    const copy = file("copy.db")
    const args = ["--once", "--aggregate", "a", "--aggregate", "c", "--owner", "desk", ...at]
    const { code, stdout, stderr } = await syncline(["replicate", copy, url, ...args])
    assert.deepEqual([code, stdout], [0, `Connecting to ${host}.\nUp to date: 6 new events.\n`])
    assert.match(stderr, /the program has to `reproject` them/)
    assert.deepEqual(
      kept(copy, { readonly: true })
        .aggregates()
        .map(({ aggregateID, owner }) => [aggregateID, owner]),
      [
        ["a", "desk"],
        ["c", "desk"],
      ],
    )
  })

  test("a stream that is not there is waited for, but not by --once", async () => {
    const at = place()
    const copy = file("copy.db")
    const once = await syncline(["replicate", copy, url, "--once", "--json", ...at])
    assert.equal(once.code, 1, once.stderr)
    assert.equal(JSON.parse(linesOf(once.stderr).at(-1)).code, "ERR_NOT_FOUND")
    const one = start(["replicate", copy, url, "--json", ...at])
    await one.until(/"waiting"/)
    await relayed(logFile(history("a", 3)), at)
    await one.until(/"live"/)
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 0, one.stderr)
    assert.match(await well(["verify", copy]), /^Sound: 3 events/)
  })

  test("tells of an aggregate that cannot go on, brings the others, and ends with 3", async () => {
    const at = place()
    await relayed(logFile([...history("a", 3), ...history("b", 3)]), at)
    const copy = file("copy.db")
    withLog(copy, (store) => store.claim("a", "phone"))
    const { code, stderr, stdout } = await syncline(["replicate", copy, url, "--once", "--owner", "desk", ...at])
    assert.equal(code, 3, stderr)
    assert.match(stderr, /^warning: a was left as it was: /m)
    assert.match(stdout, /Up to date: 3 new events/)
  })
})

test("the permissions in docs/cluster.md are enough, and nobody may do more with them", { skip }, async () => {
  const text = readFileSync(join(__dirname, "../docs/cluster.md"), "utf8")
  const [, lists] = /^```conf\n([^]*?)^```$/m.exec(text)
  const [reads, writes] = [...lists.matchAll(/\[([^\]]*)\]/g)].map(([, list]) => list)
  const user = (name, ...may) =>
    `{ user: ${name}, password: ${name}, permissions: { publish: [${may.join("\n")}], subscribe: "_INBOX.>" } }`
  const users = [
    user("admin", reads, writes, '"$JS.API.STREAM.CREATE.>"'),
    user("writer", reads, writes),
    user("reader", reads),
  ]
  const own = await startServer(`authorization { users: [${users.join("\n")}] }`)
  const as = (name) => [`${name}:${name}@${new URL(own.url).host}`, "--stream", "sessions", "--once"]
  const path = logFile([...history("a", 3_000), ...history("b", 3)])
  const relay = (name, ...args) => syncline(["relay", path, ...as(name), "--replicas", "1", "--window", "100", ...args])
  assert.equal((await relay("writer")).code, 1)
  assert.equal((await relay("admin", "--aggregate", "b")).code, 0)
  assert.deepEqual((await relay("writer")).stderr, "")
  withLog(path, (store) => store.remove("b"))
  add(path, history("a", 300, 3_000))
  assert.deepEqual((await relay("writer", "--owner", "desk")).stderr, "")
  const copy = file("copy.db")
  assert.equal((await syncline(["replicate", copy, ...as("reader")])).code, 0)
  assert.deepEqual(await told(copy), await told(path))
  const more = logFile(history("c", 1), "more.db")
  const refusal = await syncline(["relay", more, ...as("reader"), "--replicas", "1"])
  assert.equal(refusal.code, 1)
  assert.match(refusal.stderr, /Permissions Violation for Publish to .* \(ERR_FORBIDDEN\)/)
  await own.stop()
})

describe("what is wrong is told before a database is made:", () => {
  test("no address, and what is none", async () => {
    const copy = file("none.db")
    const invalid = { code: "ERR_INVALID_ARGUMENT" }
    await refused(["replicate", copy], 2, /Name a server of the cluster, or several, or set NATS_URL/, invalid)
    for (const wrong of ["http://example.org", "nats://", "nats://a:b c@", "tls://host:port", "localhost,"])
      await refused(["replicate", copy, wrong], 2, /An address must be/, invalid)
    const none = { code: "ERR_NOT_FOUND" }
    await refused(["replicate", copy, "localhost", "--creds", file("none")], 1, /There is no file/, none)
    await refused(["relay", copy, "localhost"], 1, /There is no file/, none)
    await refused(["relay", copy, "localhost", "--replicas", "6"], 2, /It must be an integer from 1 through 5/, invalid)
    assert.ok(!existsSync(copy))
  })

  test("a server that cannot be reached ends --once, and one command waits for it otherwise", async () => {
    const nobody = "127.0.0.1:1"
    const gone = await syncline(["replicate", file("copy.db"), nobody, "--once", "--json"])
    assert.deepEqual([gone.code, JSON.parse(gone.stderr).code], [1, "ERR_UNREACHABLE"])
    const one = start(["relay", logFile(history("a", 1)), nobody])
    await one.until(
      /^warning: The cluster at 127\.0\.0\.1:1 cannot be reached: .*Trying until it is there again/m,
      "stderr",
    )
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130, one.stderr)
  })

  test("the client's packages are missing", () => {
    const needed = ["commander", "cli-progress", "picocolors", "string-width", "hono", "@hono/node-server"]
    const folder = laidOut({ dependencies: [...needed, "eventsource-parser"] })
    const program = join(folder, "node_modules", "syncline", "dist", "cli", "main.js")
    for (const line of [
      ["replicate", join(folder, "none.db")],
      ["relay", join(folder, "none.db")],
    ]) {
      const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...line, "localhost"], {
        encoding: "utf8",
      })
      assert.deepEqual({ status, stdout }, { status: 2, stdout: "" }, stderr)
      const packages = "@nats-io/transport-node @nats-io/jetstream @nats-io/kv @nats-io/obj"
      assert.ok(
        stderr.includes(`error: A cluster needs packages that are not installed here: npm install ${packages}\n`),
        stderr,
      )
    }
    assert.ok(!existsSync(join(folder, "none.db")))
    assert.equal(spawnSync(process.execPath, [program, "--help"]).status, 0)
  })
})
