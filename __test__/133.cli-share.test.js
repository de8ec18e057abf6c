"use strict"

// The command's sharing, between real processes over real HTTP: serve, follow and push, with tokens, lost servers and signals.

const assert = require("node:assert/strict")
const { existsSync, writeFileSync } = require("node:fs")
const { createServer } = require("node:http")
const { EventEmitter, once } = require("node:events")
const { setTimeout: pause } = require("node:timers/promises")
const { afterEach, describe, test } = require("node:test")
const command = require("./command.js")
const { file, history, kept } = require("./stores.js")

const { linesOf, logFile, refused, start, syncline, told, well, withLog } = command

const TOKEN = "not-to-be-printed"
const env = { SYNCLINE_TOKEN: TOKEN }
const servers = []

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

/** Serves a file; resolves to the process, with its `url`. */
async function serving(path, args = [], options = { env }) {
  const one = start(["serve", path, "--json", "--port", "0", ...args], options)
  await one.until(/\n/)
  one.url = JSON.parse(one.stdout).url
  return one
}

async function stopped(one, signal = "SIGTERM") {
  one.child.kill(signal)
  assert.equal(await one.ended, 0, one.stderr)
  return one
}

const ask = (url, path, options = {}) =>
  fetch(url + path, { ...options, headers: { authorization: `Bearer ${TOKEN}`, ...options.headers } })

/** A server of this test's own. */
async function server(answer) {
  const one = createServer(answer)
  servers.push(one)
  one.listen(0, "127.0.0.1")
  await once(one, "listening")
  return `http://127.0.0.1:${one.address().port}`
}

/** Answers as another server does, but of history only the beginning, and never to the end. */
async function passOn(url, request, response) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const { method, headers } = request
  const abort = new AbortController()
  response.on("close", () => abort.abort())
  const answer = await fetch(url + request.url, {
    method,
    headers: { ...headers, "accept-encoding": "identity" },
    body: method === "POST" ? Buffer.concat(chunks) : undefined,
    signal: abort.signal,
  })
  response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") })
  let sent = 0
  for await (const chunk of answer.body) {
    response.write(chunk)
    sent += chunk.length
    if (request.url === "/sync/history" && sent > 1_500_000) return
  }
  response.end()
}

const add = (path, items) => withLog(path, (store) => store.replayAll(items, { unknown: "record" }))

describe("serve", () => {
  test("tells its address, for people and as JSON, and never the token", async () => {
    const path = logFile(history("a", 3))
    for (const args of [["--token", TOKEN], []]) {
      const one = start(["serve", path, "--port", "0", ...args], args.length > 0 ? {} : { env })
      await one.until(/at http:\/\/127\.0\.0\.1:\d+, with a token\. Ctrl-C stops it\.\n/)
      await stopped(one, "SIGINT")
      assert.ok(!(one.stdout + one.stderr).includes(TOKEN))
      assert.equal(one.stderr, "Stopped.\n")
    }
    const one = await stopped(await serving(path))
    assert.deepEqual(Object.keys(JSON.parse(one.stdout)), ["url"])
  })

  test("answers who has the token, from the command line, a file or the environment", async () => {
    const path = logFile(history("a", 3))
    const tokens = file("token.txt")
    writeFileSync(tokens, `${TOKEN}\n`)
    for (const [args, options] of [
      [["--token", TOKEN], {}],
      [["--token-file", tokens], {}],
      [["--token-file", tokens], { env: { SYNCLINE_TOKEN: "another" } }],
    ]) {
      const { url } = await serving(path, args, options)
      assert.equal((await ask(url, "/sync/sequences")).status, 200)
      assert.equal((await fetch(`${url}/sync/sequences`)).status, 401)
    }
    const { url } = await serving(path, ["--no-auth"])
    assert.equal((await fetch(`${url}/sync/sequences`)).status, 200)
  })

  test("wants to be told for whom", async () => {
    const path = logFile(history("a", 3))
    const tokens = file("token.txt")
    writeFileSync(tokens, "\n")
    await refused(["serve", path], 2, /Nothing is served without a token: .*--no-auth/)
    await refused(["serve", path, "--token-file", tokens], 2, /has no token in it/)
    await refused(["serve", path, "--token-file", file("none")], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
    await refused(["serve", path, "--token", TOKEN, "--no-auth"], 2, /cannot be used with/)
    await refused(["serve", path, "--token", TOKEN, "--token-file", tokens], 2, /cannot be used with/)
    const spaced = await syncline(["serve", path, "--token", "two words"])
    assert.equal(spaced.code, 2)
    assert.ok(!spaced.stderr.includes("two words"))
  })

  test("warns where other machines can reach it", async () => {
    const path = logFile(history("a", 3))
    const one = await serving(path, ["--host", "0.0.0.0"])
    await one.until(/\n/, "stderr")
    await stopped(one)
    assert.match(JSON.parse(one.stderr).warning, /is not encrypted: the token included/)
  })

  test("an address that is taken is an error", async () => {
    const path = logFile(history("a", 3))
    const { url } = await serving(path)
    await refused(
      ["serve", path, "--port", new URL(url).port, "--no-auth"],
      1,
      /address already in use|Is port \d+ in use/,
      {
        code: "EADDRINUSE",
      },
    )
  })

  test("makes a file only with --create", async () => {
    await refused(["serve", file("new.db"), "--no-auth"], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
    assert.ok(!existsSync(file("new.db")))
    const { url } = await serving(file("new.db"), ["--create"])
    assert.deepEqual((await (await ask(url, "/sync/sequences")).json()).aggregates, [])
  })

  test("stores what is pushed of types that it does not know", async () => {
    const path = logFile([])
    const { url } = await serving(path)
    const headers = { "content-type": "application/json" }
    const body = JSON.stringify({ events: history("a", 3) })
    const answer = await ask(url, "/sync/replay", { method: "POST", headers, body })
    assert.equal((await answer.json()).applied, 3)
    assert.equal(kept(path, { readonly: true }).stats().unprojected[0].aggregateID, "a")
  })

  for (const signal of ["SIGINT", "SIGTERM"]) {
    test(`ends its streams at ${signal}, and leaves a closed file`, async () => {
      const path = logFile(history("a", 3))
      const one = await serving(path)
      const { body } = await ask(one.url, "/sync-events")
      const reader = body.getReader()
      await reader.read()
      one.child.kill(signal)
      for (let done = false; !done;) ({ done } = await reader.read().catch(() => ({ done: true })))
      assert.equal(await one.ended, 0, one.stderr)
      assert.equal(one.stderr, "")
      assert.ok(!existsSync(`${path}-wal`))
      await assert.rejects(fetch(one.url))
    })
  }
})

describe("follow", () => {
  const statuses = (one) => linesOf(one.stdout).map((line) => JSON.parse(line).status)
  const follow = (copy, url, args = []) => start(["follow", copy, url, "--json", ...args], { env })

  test("catches up, goes on live, comes back when the server does, and ends with 0 at Ctrl-C", async () => {
    const path = logFile([...history("a", 500), ...history("b", 3)])
    const copy = file("copy.db")
    const first = await serving(path)
    const one = follow(copy, first.url)
    await one.until(/"live"/)
    assert.deepEqual(await told(copy), await told(path))
    add(path, history("a", 5, 500))
    await kept(copy, { readonly: true }).waitFor({ a: 504 })

    const { port } = new URL(first.url)
    await stopped(first)
    await one.until(/"waiting"/)
    add(path, history("new", 2))
    await serving(path, ["--port", port])
    await kept(copy, { readonly: true }).waitFor({ new: 1 })
    await one.until(/"waiting"[^]*"live"/)
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 0, one.stderr)
    assert.equal(one.stderr, "")
    assert.deepEqual(statuses(one).slice(0, 3), ["connecting", "catching-up", "live"])
    const last = JSON.parse(linesOf(one.stdout).at(-1))
    assert.deepEqual([last.status, last.applied], ["live", 510])
    assert.deepEqual(await told(copy), await told(path))
    assert.match(await well(["verify", copy]), /^Sound: 510 events/)
  })

  test("tells people once that what it stores waits for the program, however often it connects", async () => {
    const path = logFile(history("a", 2))
    const first = await serving(path)
    const one = start(["follow", file("copy.db"), first.url], { env, input: null })
    await one.until(/^Live: 2 new events/m)
    await one.until(/reproject/, "stderr")
    await stopped(first)
    await one.until(/^warning: /m, "stderr")
    await serving(path, ["--port", new URL(first.url).port])
    await one.until(/^Live: [^]*^Live: /m)
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 0, one.stderr)
    assert.equal(one.stderr.match(/reproject/g).length, 1, one.stderr)
  })

  test("--once ends when it has caught up, and says what for people, too", async () => {
    const path = logFile(history("a", 30))
    const copy = file("copy.db")
    const { url } = await serving(path)
    const first = await syncline(["follow", copy, url, "--once"], { env })
    assert.deepEqual([first.code, first.stdout], [0, `Connecting to ${url}.\nUp to date: 30 new events.\n`])
    assert.match(first.stderr, /the program has to `reproject` them/)
    assert.match((await syncline(["follow", copy, url, "--once"], { env })).stdout, /Up to date: 0 new events\./)
    assert.deepEqual(await told(copy), await told(path))
  })

  test("--aggregate, and --owner, which claims", async () => {
    const path = logFile([...history("a", 3), ...history("b", 3), ...history("c", 3)])
    const copy = file("copy.db")
    const { url } = await serving(path)
    const args = ["--once", "--aggregate", "a", "--aggregate", "c", "--owner", "desk"]
    assert.equal((await syncline(["follow", copy, url, ...args], { env })).code, 0)
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

  test("tells of an aggregate that cannot go on, brings the others, and ends with 3", async () => {
    const path = logFile([...history("a", 3), ...history("b", 3)])
    const copy = file("copy.db")
    withLog(copy, (store) => store.claim("a", "phone"))
    const { url } = await serving(path)
    const line = ["follow", copy, url, "--once", "--owner", "desk"]
    const { code, stderr, stdout } = await syncline(line, { env })
    assert.equal(code, 3, stderr)
    assert.match(stderr, /^warning: a was left as it was: /m)
    assert.match(stdout, /Up to date: 3 new events/)
    const asJson = await syncline([...line, "--json"], { env })
    assert.equal(asJson.code, 3)
    const { aggregateID, code: why } = JSON.parse(asJson.stderr)
    assert.deepEqual([aggregateID, why], ["a", "ERR_NOT_OWNER"])
  })

  test("refused, unreachable, and no server at all", async () => {
    const path = logFile(history("a", 3))
    const copy = file("copy.db")
    const one = await serving(path)
    const wrong = await syncline(["follow", copy, one.url, "--token", "wrong"])
    assert.equal(wrong.code, 1)
    assert.match(wrong.stderr, /\(ERR_UNAUTHORIZED\)\nGive the server's token: --token-file <file>, or SYNCLINE_TOKEN/)
    await stopped(one)
    const gone = await syncline(["follow", copy, one.url, "--once", "--json"], { env })
    assert.deepEqual([gone.code, JSON.parse(gone.stderr).code], [1, "ERR_UNREACHABLE"])
    const page = await server((request, response) => response.setHeader("content-type", "text/html").end("<p>Hello"))
    const other = await syncline(["follow", copy, page, "--json"], { env })
    assert.deepEqual([other.code, JSON.parse(other.stderr).code], [1, "ERR_PROTOCOL"])
    await refused(["follow", file("none.db"), "example.org"], 2, /url must be a whole one/)
    const code = "ERR_NOT_FOUND"
    await refused(["follow", file("none.db"), page, "--token-file", file("none")], 1, /There is no file/, { code })
    assert.ok(!existsSync(file("none.db")))
    assert.ok(!(wrong.stderr + gone.stderr + other.stderr).includes(TOKEN))
  })

  test("interrupted while it catches up it exits with 130, keeps what it has, and goes on from there", async () => {
    const path = logFile(Array.from({ length: 20 }, (_, n) => history(`note ${n}`, 1_000)).flat())
    const copy = file("copy.db")
    const real = await serving(path)
    // In front of the server: what it says of history stops half-way.
    const half = await server(
      (request, response) => void passOn(real.url, request, response).catch(() => response.destroy()),
    )
    const one = follow(copy, half)
    const held = () => withLog(copy, (store) => store.stats().events)
    while (!existsSync(copy) || held() === 0) await pause(5)
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130, one.stderr)
    assert.deepEqual(statuses(one), ["connecting", "catching-up"])
    assert.equal(JSON.parse(one.stderr).code, "ERR_ABORTED")
    const events = held()
    assert.ok(events > 0 && events < 20_000)
    const { stdout } = await syncline(["follow", copy, real.url, "--once", "--json"], { env })
    assert.equal(JSON.parse(linesOf(stdout).at(-1)).applied, 20_000 - events)
    assert.match(await well(["verify", copy]), /^Sound: 20,000 events/)
  })

  test("ends quietly when nobody reads on", async () => {
    const { url } = await serving(logFile(history("a", 3)))
    const one = follow(file("copy.db"), url)
    await one.until(/"live"/)
    one.child.stdout.destroy()
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 0, one.stderr)
  })
})

describe("push", () => {
  const push = (path, url, ...args) => syncline(["push", path, url, ...args], { env })

  test("sends what the server lacks, and then nothing", async () => {
    const path = logFile([
      ...history("a", 500),
      { kind: "gap", aggregateID: "b", after: -1, through: 4 },
      ...history("b", 3, 5),
    ])
    const there = file("there.db")
    const { url } = await serving(there, ["--create"])
    assert.deepEqual(await push(path, url), { code: 0, stdout: "Pushed 503 events of 2 aggregates.\n", stderr: "" })
    assert.deepEqual(await told(there), await told(path))
    add(path, history("a", 2, 500))
    const { code, stdout } = await push(path, url, "--json")
    assert.equal(code, 0)
    assert.deepEqual(JSON.parse(stdout), { aggregates: 1, events: 2, applied: 2, duplicate: 0, refused: [] })
    assert.match((await push(path, url)).stdout, /^Pushed 0 events of 0 aggregates\.\n$/)
  })

  test("--aggregate and --owner; what the server refuses is told of, and the others are sent: exit code 3", async () => {
    const path = logFile([...history("a", 3), ...history("b", 3), ...history("c", 3)])
    const there = file("there.db")
    withLog(there, (store) => store.claim("a", "phone"))
    const { url } = await serving(there)
    const args = ["--owner", "desk", "--aggregate", "a", "--aggregate", "b"]
    const { code, stdout, stderr } = await push(path, url, ...args)
    assert.deepEqual([code, stdout], [3, "Pushed 3 events of 1 aggregate.\n"])
    assert.match(stderr, /^warning: a was refused by the server: /)
    const asJson = await push(path, url, ...args, "--json")
    const { refused: left } = JSON.parse(asJson.stdout)
    assert.deepEqual([asJson.code, left[0].aggregateID, left[0].code], [3, "a", "ERR_NOT_OWNER"])
    assert.equal(JSON.parse(asJson.stderr).aggregateID, "a")
    const held = kept(there, { readonly: true })
    assert.deepEqual(held.owner("b"), { owner: "desk", epoch: 1 })
    assert.equal(held.sequence("c"), -1)
  })

  test("the wrong token, and no aggregate of that name", async () => {
    const path = logFile(history("a", 3))
    const { url } = await serving(file("there.db"), ["--create"])
    await refused(["push", path, url, "--token", "wrong"], 1, /token/, { code: "ERR_UNAUTHORIZED" })
    await refused(["push", file("none.db"), url], 1, /There is no file/, { code: "ERR_NOT_FOUND" })
  })

  test("interrupted it exits with 130, and another one goes on from there", async () => {
    const path = logFile(Array.from({ length: 10 }, (_, n) => history(`note ${n}`, 1_000)).flat())
    const there = file("there.db")
    const real = await serving(there, ["--create"])
    // In front of the server: the second batch is never answered.
    const batches = []
    const news = new EventEmitter()
    const half = await server((request, response) => {
      if (request.url.startsWith("/sync/replay") && batches.push(request) > 1) return news.emit("second")
      return passOn(real.url, request, response).catch(() => response.destroy())
    })
    const second = once(news, "second")
    const one = start(["push", path, half, "--json"], { env })
    await second
    one.child.kill("SIGINT")
    assert.equal(await one.ended, 130, one.stderr)
    assert.equal(JSON.parse(one.stderr).code, "ERR_ABORTED")
    const { stdout } = await push(path, real.url, "--json")
    const { events, duplicate } = JSON.parse(stdout)
    assert.ok(events > 0 && events < 10_000, stdout)
    assert.equal(duplicate, 0)
    assert.deepEqual(await told(there), await told(path))
  })
})
