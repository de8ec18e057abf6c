"use strict"

// Makes databases as a crash leaves them, damages copies of them in ways that follow from a seed, and opens what is left.
// It is a process of its own: before each case it tells which one that is, so that whoever started it knows what killed it.

const assert = require("node:assert/strict")
const { createHash } = require("node:crypto")
const { existsSync, readFileSync, rmSync, writeFileSync, writeSync } = require("node:fs")
const { join } = require("node:path")
const { SyncError } = require("syncline")
const { openLedger, projected, refusal, removeQuietly, replayed } = require("./ledger.js")
const { dump } = require("./notes.js")
const { random } = require("./soak.js")

const digest = (value) => createHash("sha1").update(JSON.stringify(value)).digest("hex")

/** Every row of every table. */
const everything = (store) => digest(dump(store.db))
/** What the log gives, packed or not. */
const logOf = (store) => digest([store.aggregates(), store.readAll({ limit: 1_000_000 })])
const tablesOf = (store) => digest(projected(store))

/** One commit of some kind. */
function commit({ store, ...given }, numbers) {
  const account = `account ${numbers.integer(3)}`
  const text = `${numbers.integer(1_000)} `.repeat(1 + numbers.integer(numbers.chance(0.1) ? 4_000 : 200))
  const types = [given.Added, given.Added, given.Tagged, given.Noted, given.Labelled]
  const pair = () => [numbers.one(types), { account, text, tag: "tag", key: `${numbers.integer(3)}` }]
  const pairs = () => Array.from({ length: 1 + numbers.integer(8) }, pair)
  switch (numbers.integer(12)) {
    case 0:
      return store.remove(account, { event: [given.Closed, { account }] })
    case 1:
      return removeQuietly(store, account)
    case 2:
      return store.claim(account, numbers.one(["me", "you", null]))
    case 3:
    case 4:
      return store.transaction(() => {
        store.runAll(pairs())
        try {
          store.run(given.Added, { account, text, refused: true })
        } catch (error) {
          // In a damaged file it may fail for another reason.
          if (error !== refusal) throw error
        }
        store.runAll(pairs())
      })
    case 5:
    case 6: {
      const seq = store.sequence("copy")
      const data = { account: "copy", text }
      return store.replayAll(
        Array.from({ length: 1 + numbers.integer(10) }, (_, n) => {
          return { id: `evt_${seq + 1 + n}`, type: "entry.added.1", seq: seq + 1 + n, aggregateID: "copy", data }
        }),
      )
    }
    case 7:
    case 8:
      return store.runAll(pairs())
    default:
      return store.run(...pair())
  }
}

/**
 * A database with its WAL as they are while it is open, and the states that it has been through: after how many bytes of
 * the WAL, and what it held. `older`: there are commits before those of the WAL. `copied`: a checkpoint has been there.
 */
async function make(folder, numbers, { older, copied }) {
  const path = join(folder, "made.db")
  let given = openLedger(path)
  if (older) {
    for (let n = 0; n < 40; n++) commit(given, numbers)
    await given.store.maintain()
    for (let n = 0; n < 10; n++) commit(given, numbers)
  }
  // The last to close copies the WAL back; a new one begins.
  if (older || numbers.chance(0.5)) {
    given.store.close()
    given = openLedger(path)
  }
  const { store } = given
  const wal = `${path}-wal`
  const states = []
  const remember = () => {
    const bytes = existsSync(wal) ? readFileSync(wal).length : 0
    states.push({ bytes, all: everything(store), log: logOf(store), tables: tablesOf(store) })
  }
  remember()
  const many = 25 + numbers.integer(25)
  const [holdAt, copyAt] = [numbers.integer(many), numbers.integer(many)].toSorted((one, other) => one - other)
  const [held, copying] = copied ? [store.connect(), store.connect()] : []
  for (let n = 0; n < many; n++) {
    commit(given, numbers)
    remember()
    if (!copied) continue
    // It is copied back as far as the snapshot that somebody holds, and goes on.
    if (n === holdAt && numbers.chance(0.7)) (held.exec("BEGIN"), held.prepare("SELECT count(*) FROM event").get())
    if (n === copyAt) copying.pragma("wal_checkpoint(PASSIVE)")
  }
  const made = { db: readFileSync(path), wal: existsSync(wal) ? readFileSync(wal) : Buffer.alloc(0), states }
  held?.close()
  copying?.close()
  store.close()
  made.closed = readFileSync(path)
  rmSync(path)
  return made
}

/** Copies of the bytes with some of them different; answers what was done, and from where on they differ. */
function damaged(bytes, numbers) {
  const at = numbers.integer(bytes.length)
  const copy = Buffer.from(bytes)
  const some = 1 + numbers.integer(Math.min(10_000, bytes.length - at))
  const how = numbers.one(["cut", "flip", "flip", "flip", "zero", "noise", "repeat", "append"])
  const noise = (length) => Buffer.from(Array.from({ length }, () => numbers.integer(256)))
  switch (how) {
    case "cut":
      return { how, at, content: copy.subarray(0, Math.max(at, 1)) }
    case "flip":
      copy[at] ^= 1 << numbers.integer(8)
      return { how, at, content: copy }
    case "zero":
      copy.fill(0, at, at + some)
      break
    case "noise":
      noise(Math.min(some, 500)).copy(copy, at)
      break
    case "repeat":
      bytes.copy(copy, at, 0, some)
      break
    case "append":
      return { how, at: bytes.length, content: Buffer.concat([bytes, noise(1 + numbers.integer(9_000))]) }
  }
  const differs = copy.findIndex((byte, index) => byte !== bytes[index])
  return { how, at: differs < 0 ? bytes.length : differs, content: copy }
}

/** Pages that are gone, others or elsewhere. */
function damagedPages(bytes, numbers) {
  const count = bytes.length / 4096
  const copy = Buffer.from(bytes)
  const page = () => 4096 * numbers.integer(count)
  const [at, other] = [page(), page()]
  switch (numbers.integer(4)) {
    case 0:
      return { how: "page zeroed", at, content: copy.fill(0, at, at + 4096) }
    case 1:
      bytes.copy(copy, at, other, other + 4096)
      return { how: "page copied over another", at, content: copy }
    case 2:
      // Of an empty file nobody can tell that it has been another.
      return { how: "pages cut off", at, content: copy.subarray(0, Math.max(at, 4096)) }
    default: {
      const flips = 1 + numbers.integer(20)
      // The head of a page is what says how to read the rest.
      for (let n = 0; n < flips; n++)
        copy[at + numbers.integer(numbers.chance(0.5) ? 16 : 4096)] ^= 1 << numbers.integer(8)
      return { how: "page with flipped bits", at, content: copy }
    }
  }
}

/** Opens a file, asks it for all it has, and writes. Answers the first coded error, the findings, and what it held. */
async function look(path, numbers) {
  const seen = { findings: 0 }
  /** Any error but a coded one is a failure of the test. */
  const attempt = (act) => {
    try {
      return act()
    } catch (error) {
      assert.ok(error instanceof SyncError, `${error?.stack ?? error} is coded`)
      assert.notEqual(error.code, "ERR_POISONED", error.stack)
      seen.code ??= error.code
      return undefined
    }
  }
  const given = attempt(() => openLedger(path))
  if (given === undefined) return { ...seen, unopened: true }
  const { store } = given
  try {
    seen.all = attempt(() => everything(store))
    seen.log = attempt(() => logOf(store))
    seen.tables = attempt(() => tablesOf(store))
    await attemptAsync(attempt, async () => (seen.replayed = digest(await replayed(store))))
    const ids = attempt(() => store.aggregates().map(({ aggregateID }) => aggregateID)) ?? []
    for (const aggregateID of ids) {
      attempt(() => store.read(aggregateID))
      await attemptAsync(attempt, async () => {
        for await (const item of store.log({ aggregateID })) void item
      })
    }
    await attemptAsync(attempt, async () => (seen.findings = (await store.verify()).length))
    if (numbers.chance(0.3)) attempt(() => store.stats())
    attempt(() => store.run(given.Added, { account: "after", text: "" }))
    if (numbers.chance(0.3)) attempt(() => commit(given, numbers))
    if (numbers.chance(0.2)) await attemptAsync(attempt, () => store.maintain())
    if (numbers.chance(0.1)) await attemptAsync(attempt, () => store.verify({ repair: true }))
  } finally {
    attempt(() => store.close())
  }
  return seen
}

async function attemptAsync(attempt, act) {
  let failure
  await act().catch((error) => (failure = { error }))
  attempt(() => {
    if (failure !== undefined) throw failure.error
  })
}

/** A WAL that no checkpoint has touched: what is open holds exactly the commits before the first damaged byte. */
async function checkPrefix(made, path, numbers) {
  const { how, at, content } = damaged(made.wal, numbers)
  writeFileSync(path, made.db)
  writeFileSync(`${path}-wal`, content)
  // What is left of the index that all share is of no consequence.
  if (numbers.chance(0.2)) writeFileSync(`${path}-shm`, content.subarray(0, 32_768))
  const expected = made.states.findLast(({ bytes }) => bytes <= at) ?? made.states[0]
  const seen = await look(path, numbers)
  const commits = made.states.indexOf(expected)
  const found = made.states.findIndex(({ all }) => all === seen.all)
  const story = `${how} at ${at} of ${made.wal.length}: after commit ${commits}, found ${found}; ${JSON.stringify(seen)}`
  assert.equal(seen.code, undefined, story)
  assert.equal(seen.findings, 0, story)
  assert.equal(seen.all, expected.all, story)
  return { how, commits }
}

/** A WAL that has been copied back in part: nothing is wrong that nobody says. */
async function checkCopied(made, path, numbers) {
  const { how, content } = damaged(made.wal, numbers)
  writeFileSync(path, made.db)
  writeFileSync(`${path}-wal`, content)
  const seen = await look(path, numbers)
  return { how, outcome: outcomeOf(made, seen) }
}

/** The file itself, closed well before. */
async function checkFile(made, path, numbers) {
  const { how, content } = numbers.chance(0.5) ? damagedPages(made.closed, numbers) : damaged(made.closed, numbers)
  writeFileSync(path, content)
  const seen = await look(path, numbers)
  return { how, outcome: outcomeOf(made, seen) }
}

/** What came of it. What was held and is not as it was must not go unnoticed, where SQLite can notice it. */
function outcomeOf({ states }, seen) {
  if (seen.unopened) return `refused with ${seen.code}`
  if (seen.code !== undefined) return `read and written with ${seen.code}`
  if (states.some(({ all }) => all === seen.all)) return "as after a commit"
  if (seen.findings > 0) return "found by verify"
  const known = states.filter(({ log }) => log === seen.log)
  if (known.length === 0) return "another log"
  if (known.some(({ tables }) => tables === seen.tables)) return "as after a commit"
  // Nothing in the program's own tables says which commit they are from. The log can make them anew.
  return known.some(({ tables }) => tables === seen.replayed) ? "sound log beside other tables" : "another replay"
}

const CHECKS = { wal: checkPrefix, copied: checkCopied, file: checkFile }

/** As many seeds share one database; which one follows from the seed, so that each can be tried again alone. */
const SHARED = 25

/** Cases of one kind, each from a seed of its own. */
async function work({ folder, kind, seeds }) {
  const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)
  let [base, made] = []
  for (const seed of seeds) {
    tell({ trying: seed })
    try {
      const wanted = seed - (seed % SHARED)
      if (wanted !== base) {
        const numbers = random(wanted)
        made = await make(folder, numbers, { older: numbers.chance(0.5), copied: kind === "copied" })
        base = wanted
      }
      const path = join(folder, "damaged.db")
      const outcome = await CHECKS[kind](made, path, random(seed))
      for (const side of ["", "-wal", "-shm"]) rmSync(path + side, { force: true })
      tell({ seed, ...outcome })
    } catch (error) {
      error.message += ` (SYNCLINE_SEED=${seed})`
      throw error
    }
  }
}

if (require.main === module) void work(JSON.parse(process.argv[2]))
