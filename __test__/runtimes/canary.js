"use strict"

// Tests whose outcomes are known: whoever runs them proves that it counts what passes, fails and is skipped, wherever it
// stands, and that hooks and children are what the suite takes them for.

const assert = require("node:assert/strict")
const { spawnSync } = require("node:child_process")
const { after, afterEach, before, beforeEach, describe, test } = require("node:test")

const hooks = []
before(() => hooks.push("before"))
beforeEach(() => hooks.push("beforeEach"))
afterEach(async () => hooks.push("afterEach"))
after(() => assert.ok(hooks.includes("before")))

test("passes", () => assert.deepEqual(hooks, ["before", "beforeEach"]))
test("passes later", async () => {
  await new Promise((resolve) => setTimeout(resolve, 10))
  assert.deepEqual(hooks.slice(2), ["afterEach", "beforeEach"])
})
test("fails", () => assert.equal(1, 2))
test("fails later", async () => {
  await new Promise((resolve) => setTimeout(resolve, 10))
  throw new Error("as it should")
})
test("is skipped", { skip: "as it should" }, () => assert.fail("it was not"))
test("can be told what to do at its end", (t) => {
  t.diagnostic("it tells something")
  t.after(() => hooks.push("after"))
})

describe("a suite", () => {
  let ready = false
  before(async () => (ready = true))
  test("passes inside", () => assert.ok(ready))
  describe("in a suite", { concurrency: 2 }, () => {
    test("fails inside", () => assert.ok(!ready))
    test('has a name with "quotes", <brackets> & more', () => assert.ok(hooks.includes("after")))
  })
})

test("what process.execPath starts is the same runtime", () => {
  const program = "console.log(JSON.stringify(process.versions))"
  const { stdout, stderr } = spawnSync(process.execPath, ["-e", program], { encoding: "utf8" })
  assert.deepEqual(JSON.parse(stdout), { ...process.versions }, stderr)
})
