"use strict"

// The examples run as their documents say, on files of their own.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")
const { serverBinary, noServer } = require("./nats-binary.js")

const example = path.resolve(__dirname, "..", "examples", "agent-session")

describe("examples/agent-session", () => {
  let folder
  before(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "syncline-example-"))))
  after(() => fs.rmSync(folder, { recursive: true, force: true }))

  function run(...args) {
    return spawnSync(process.execPath, [path.join(example, "dist", "main.js"), ...args], {
      cwd: folder,
      encoding: "utf8",
    })
  }

  test("replays the recording into the expected rows, and again into a second file", () => {
    const { status, stdout, stderr } = run("sessions.db")
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^replay +2,204 events of 14 sessions, /m)
    assert.match(stdout, /^rows +14 sessions, 199 messages, 673 parts, equal to the expected ones$/m)
    assert.equal(stdout.match(/^live /gm).length, 10)
    assert.match(stdout, /^refused +ERR_CONFLICT: /m)
    assert.match(stdout, /^again +2,214 events into a second file, .*: tables and logs are equal$/m)
    assert.match(stdout, /^packed +2,214 events, [\d.]+ MiB of data, in segments$/m)
    assert.match(stdout, /^file +[\d.]+ MiB, log and tables: sessions\.db$/m)
    assert.deepEqual(fs.readdirSync(folder), ["sessions.db"])
  })

  test("keeps a database file that is given, and finds only duplicates the second time", () => {
    const { status, stdout, stderr } = run("sessions.db")
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^replay +2,204 events of 14 sessions \(2,204 were there already\)/m)
    assert.match(stdout, /equal to the expected ones$/m)
    assert.match(stdout, /^again +2,224 events/m)
  })

  test("takes another recording", () => {
    const lines = fs.readFileSync(path.join(example, "recording", "sessions.events.jsonl"), "utf8").split("\n")
    fs.writeFileSync(path.join(folder, "first.events.jsonl"), lines.slice(0, 100).join("\n"))
    const { status, stdout, stderr } = run("first.events.jsonl", "first.db")
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^replay +100 events of 1 session, /m)
  })

  test("says how it is used when it does not understand an argument", () => {
    const { status, stderr } = run("--help")
    assert.equal(status, 2)
    assert.match(stderr, /^usage: npm start/)
  })
})

describe("examples/two-devices", () => {
  test("kills both devices at random, and finds their tables equal at the end", () => {
    const { status, stdout, stderr } = start("two-devices", "1000")
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^written +1000 events; the writer was killed \d+ times, the reader \d+$/m)
    assert.match(stdout, /^reader .*\blive \d+/m)
    assert.match(stdout, /^equal +sessions, messages and sequences of both devices; both files verify$/m)
  })

  test("says how it is used when it does not understand an argument", () => {
    const { status, stderr } = start("two-devices", "many")
    assert.equal(status, 2)
    assert.match(stderr, /^usage: node examples\/two-devices\/dist\/main\.js/)
  })
})

describe("examples/existing-server", () => {
  test("serves its own routes and the store's, in Hono and in Express", () => {
    const { status, stdout, stderr } = start("existing-server")
    assert.equal(status, 0, stderr)
    for (const name of ["Hono", "Express"]) {
      assert.match(stdout, new RegExp(`^${name} +its own route: The page of the ${name} server$`, "m"))
      assert.match(stdout, new RegExp(`^${name} +without token: 401$`, "m"))
      assert.match(stdout, new RegExp(`^${name} +followed: +Written on the ${name} server$`, "m"))
    }
  })
})

describe("examples/cluster", () => {
  const server = serverBinary()

  test("kills and pauses servers, hands a session over, and finds all equal", { skip: !server && noServer() }, () => {
    process.env.SYNCLINE_NATS_SERVER = server.path
    const { status, stdout, stderr } = start("cluster", "3", "400")
    delete process.env.SYNCLINE_NATS_SERVER
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^servers +three of nats-server \d/m)
    assert.match(stdout, /^handed +ses_\w+ to reader-1 at seq \d+ in .* epoch \d+; it wrote [1-9]\d* more$/m)
    assert.match(stdout, /^broken +servers were killed \d+ times and paused \d+ times \(seed 3\)$/m)
    const equal = stdout
      .match(/^equal .*$/gm)
      .map((line) => line.replace(/^equal +([\w-]+) .* ([\d,]+) events.*$/, "$1 $2"))
    assert.deepEqual(equal.slice(0, 3), ["writer 400", "reader-1 400", "reader-2 400"])
    assert.match(equal[3], /^reader-3 [1-3]\d\d$/)
  })

  test("says how it is used when it does not understand an argument", () => {
    const { status, stderr } = start("cluster", "many")
    assert.equal(status, 2)
    assert.match(stderr, /^usage: npm start/)
  })
})

function start(name, ...args) {
  const program = path.resolve(__dirname, "..", "examples", name, "dist", "main.js")
  return spawnSync(process.execPath, [program, ...args], { encoding: "utf8", timeout: 120_000 })
}
