"use strict"

// Random programs of all operations, over five stores of one file, one of them on a thread of its own, and a store in memory:
// what each call comes to, what each store then holds, and what each listener heard, compared with a plain model.

const assert = require("node:assert/strict")
const { join } = require("node:path")
const { describe, test } = require("node:test")
const { Worker } = require("node:worker_threads")
const fc = require("fast-check")
const { temporaryFolder } = require("./notes")
const { extent, figures, seeds } = require("./soak")
const { FileModel } = require("./store-model")
const { begin, heardThrough, perform, snapshot } = require("./store-steps")

const folder = temporaryFolder()
let files = 0

// Programs are data; each event gets its number before it is tried.

const IDS = ["a", "b", "c"]
const id = fc.constantFrom(...IDS)
const often = (weight, arbitrary) => ({ weight, arbitrary })
const doing = (name, more) => fc.record({ do: fc.constant(name), ...more })
const event = fc.record({
  id,
  type: fc.oneof(often(4, fc.constantFrom("noted", "tagged", "seen")), often(6, fc.constant("state"))),
  throws: fc.oneof(often(9, fc.constant(false)), often(1, fc.constant(true))),
  key: fc.constantFrom("k", "l"),
  text: fc.constantFrom("one", "one", "x".repeat(300)),
})
const calm = event.map((one) => ({ ...one, throws: false }))
const events = fc.array(event, { minLength: 1, maxLength: 4 })
const owner = fc.constantFrom("o", "t", "p")
const offset = fc.option(fc.constantFrom(0, 0, 0, -1, 1), { freq: 3 })
const WHATS = [
  "next",
  "held",
  "diverged",
  "far",
  "unknown",
  "mismatch",
  "invalid",
  "gap",
  "removed",
  "removed with event",
]
const what = fc.oneof(often(8, fc.constantFrom("next", "held")), often(3, fc.constantFrom(...WHATS)))
const item = fc.record({ what, event, back: fc.nat(3) })
const replaying = {
  items: fc.array(item, { minLength: 1, maxLength: 5 }),
  options: fc.record(
    { publish: fc.boolean(), owner, epoch: fc.integer({ min: 1, max: 4 }) },
    { requiredKeys: ["publish"] },
  ),
}

const writing = [
  often(
    8,
    doing("run", {
      event,
      expected: offset,
      publish: fc.boolean(),
      created: fc.option(fc.integer()),
      metadata: fc.option(fc.record({ m: fc.nat() })),
    }),
  ),
  often(4, doing("run all", { events })),
  often(2, doing("publish", { event })),
  often(6, doing("replay", replaying)),
  often(3, doing("claim", { id, owner: fc.option(owner), expected: offset })),
  often(2, doing("remove", { id, event: fc.option(event) })),
]

const { step } = fc.letrec((tie) => ({
  inside: fc.oneof({ maxDepth: 2 }, ...writing, often(3, tie("transaction"))),
  transaction: doing("transaction", {
    via: fc.constantFrom("store", "database", "savepoint"),
    fails: fc.boolean(),
    steps: fc.array(tie("inside"), { maxLength: 4 }),
  }),
  step: fc.oneof(
    ...writing,
    often(6, tie("transaction")),
    often(3, doing("async", { events })),
    often(2, doing("replay async", replaying)),
    often(5, doing("maintain", {})),
    often(2, doing("reopen", {})),
    // Enough for segments, for keys that are superseded, and for the thread that packs.
    often(3, doing("run all", { events: fc.array(calm, { minLength: 20, maxLength: 40 }) })),
  ),
}))

const STORES = ["plain", "owned", "thread", "reading", "unrecorded", "memory"]
const within = fc.oneof(often(6, fc.constantFrom("plain", "owned", "thread")), often(4, fc.constantFrom(...STORES)))
const program = fc.array(fc.record({ in: within, step }), { minLength: 3, maxLength: 18, size: "max" })

/** The store on a thread of its own: one word at a time. */
class Thread {
  #worker = new Worker(join(__dirname, "store-steps.js"), { workerData: "store-steps" })

  call(...words) {
    return new Promise((resume, reject) => {
      const answered = ({ answer, failure }) => {
        this.#worker.off("error", reject)
        if (failure === undefined) resume(answer)
        else reject(new Error(failure))
      }
      this.#worker.once("error", reject).once("message", answered)
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
      this.#worker.postMessage(words)
    })
  }

  end = () => this.#worker.terminate()
}

class World {
  models = { file: new FileModel(), memory: new FileModel() }
  stores = {}
  /** What each store's listeners must have heard since it was opened. */
  due = {}
  count = 0
  tally = { steps: 0, refused: 0, committed: 0 }

  constructor(path, thread) {
    this.path = path
    this.thread = thread
  }

  async open(name) {
    this.due[name] = { own: [], database: [] }
    if (name === "thread") return this.thread.call("begin", this.path, name)
    this.stores[name] = begin(name === "memory" ? ":memory:" : this.path, name)
  }

  async close(name) {
    if (name === "thread") return this.thread.call("close")
    this.stores[name]?.store.close()
  }

  modelOf = (name) => (name === "memory" ? this.models.memory : this.models.file)

  perform = (name, step) => (name === "thread" ? this.thread.call("perform", step) : perform(this.stores[name], step))
  snapshot = (name) => (name === "thread" ? this.thread.call("snapshot") : snapshot(this.stores[name]))
  heardThrough = (name, n) =>
    name === "thread" ? this.thread.call("heardThrough", n) : heardThrough(this.stores[name], n)

  /** Gives each event of a step a number of its own. */
  numbered(value) {
    if (Array.isArray(value)) return value.map((each) => this.numbered(each))
    if (typeof value !== "object" || value === null) return value
    const all = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.numbered(each)]))
    return "type" in all ? { ...all, n: ++this.count } : all
  }

  async step({ in: name, step: given }) {
    this.tally.steps++
    // There is no other way into a database in memory than its own store.
    if (given.do === "reopen") return name === "memory" ? undefined : this.reopen(name)
    const step = this.numbered(given)
    const got = await this.perform(name, step)
    const wanted = this.modelOf(name).predict(name, step, got)
    assert.deepEqual(got, wanted, `${name}: ${JSON.stringify(step)}`)
    if (got.code !== undefined) this.tally.refused++
    this.tell(name)
    if (given.do === "maintain") this.modelOf(name).compacted(await this.snapshot(name))
  }

  async reopen(name) {
    await this.close(name)
    await this.open(name)
  }

  /** What the step has made public is due to whoever listens. */
  tell(name) {
    const model = this.modelOf(name)
    for (const { heard, publish, recorded, erased } of model.pending.splice(0)) {
      this.tally.committed++
      if (publish) this.due[name].own.push({ heard })
      for (const other of STORES) {
        const reached = other === name || (recorded && this.modelOf(other) === model)
        if (reached) this.due[other].database.push({ heard, mayMiss: erased })
      }
    }
  }

  /** After each step: an event that all hear, after which nothing of the step is still on its way. */
  async check(index) {
    for (const name of ["plain", "memory"]) {
      const event = { id: "z", type: "seen", n: ++this.count, throws: false }
      await this.step({
        in: name,
        step: { do: "run", event, expected: null, publish: true, created: null, metadata: null },
      })
    }
    for (const name of STORES) {
      const marker = this.due[name].database.at(-1).heard[2]
      const heard = await this.heardThrough(name, marker)
      for (const scope of ["own", "database"]) {
        if (heard[scope] === undefined) continue
        const there = new Set(heard[scope].map((each) => each[2]))
        const due = this.due[name][scope].filter((each) => !each.mayMiss || there.has(each.heard[2]))
        assert.deepEqual(
          heard[scope],
          due.map((each) => each.heard),
          `what ${name} heard in scope ${scope}`,
        )
      }
    }
    for (const name of [STORES[index % 5], "memory"]) {
      assert.deepEqual(await this.snapshot(name), this.modelOf(name).snapshot(), name)
    }
  }
}

const sum = (counts) => counts.reduce((a, b) => a + b, 0)

describe("issue 5: the model", () => {
  test("whatever is done in whatever store, outcomes, contents and what was heard are the model's", async () => {
    const thread = new Thread()
    const [seed] = seeds(1, 1)
    const worlds = []
    const started = performance.now()
    try {
      await fc.assert(
        fc.asyncProperty(program, async (steps) => {
          const world = new World(join(folder, `${files++}.db`), thread)
          try {
            for (const name of STORES) await world.open(name)
            for (const [index, step] of steps.entries()) {
              await world.step(step)
              await world.check(index)
            }
            for (const name of ["plain", "memory"]) {
              assert.deepEqual(await world.stores[name].store.verify(), [])
              assert.equal(world.stores[name].store.db.pragma("integrity_check", { simple: true }), "ok")
            }
          } finally {
            for (const name of STORES) await world.close(name)
          }
          worlds.push(world)
        }),
        { numRuns: extent(20, 1_500), seed, includeErrorInReport: true },
      )
    } finally {
      await thread.end()
    }
    const models = worlds.flatMap((world) => Object.values(world.models))
    figures("model", {
      seed,
      programs: worlds.length,
      steps: sum(worlds.map((world) => world.tally.steps)),
      refused: sum(worlds.map((world) => world.tally.refused)),
      events: sum(worlds.map((world) => world.tally.committed)),
      spared: sum(models.map((model) => model.spared)),
      compacted: sum(models.map((model) => model.taken)),
      took: `${Math.round((performance.now() - started) / 1_000)} s`,
    })
  })
})
