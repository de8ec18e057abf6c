"use strict"

// A device that writes accounts of the ledger and serves its log. It tells its port once it listens, and the last seqs once
// the file holds as many events as were wanted; until then it writes on, wherever it was killed before.

const { writeSync } = require("node:fs")
const { serve } = require("@hono/node-server")
const { syncRoutes } = require("syncline/http")
const { openLedger } = require("./ledger")
const { random } = require("./soak")

const { path, port, token, events, seed } = JSON.parse(process.argv.at(-1))
const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)
const { store, Added, Tagged, Noted, Closed, Labelled, Set } = openLedger(path)
const { integer, chance } = random(seed)

const app = syncRoutes(store, { authorize: { token } })
serve({ fetch: app.fetch, port, hostname: "127.0.0.1" }, ({ port }) => {
  tell(["listening", port])
  goOn()
})

/** How many events were ever recorded here, those that were erased included. */
const written = () => [...store.sequences().values()].reduce((sum, seq) => sum + seq + 1, 0)

function pair(n) {
  const account = `account ${integer(30)}`
  const text = `text of number ${n}`.padEnd(20 + integer(300), ".")
  const kind = integer(20)
  if (kind < 12) return [Added, { account, text }]
  if (kind < 14) return [Tagged, { account, tag: text }]
  if (kind < 16) return [Noted, { account, text }]
  return kind < 19 ? [Labelled, { account, key: `key ${integer(3)}`, text }] : [Set, { account, text, n }]
}

function goOn() {
  const from = written()
  if (from >= events) return tell(["done", [...store.sequences()]])
  const count = Math.min(events - from, 1 + integer(400))
  store.runAll(Array.from({ length: count }, (_, n) => pair(from + n)))
  const account = `account ${integer(30)}`
  if (chance(0.1) && store.sequence(account) >= 0) store.remove(account, { event: [Closed, { account }] })
  if (chance(0.02)) void store.maintain({ idle: true }).then(goOn, goOn)
  else setTimeout(goOn, integer(60))
}
