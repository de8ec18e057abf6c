"use strict"

// A device that follows the ledger of another one into a file of its own, until it is killed. It tells what it goes through.

const { writeSync } = require("node:fs")
const { follow } = require("syncline/http")
const { openLedger } = require("./ledger")

const { path, url, token } = JSON.parse(process.argv.at(-1))
const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)
const { store } = openLedger(path)

void follow(store, {
  url,
  token,
  publish: true,
  connectTimeout: 2_000,
  backoff: { initial: 10, longest: 200 },
  onStatus: (status) => tell(["status", status]),
  onError: (error, { aggregateID } = {}) => tell(["error", String(error.code ?? error), aggregateID ?? null]),
}).then(
  () => tell(["ended"]),
  (error) => tell(["failed", String(error)]),
)
