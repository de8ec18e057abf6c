// A process that adopts the older tables of a file: it says when it begins, how far it is, and what it did.
"use strict"

const { writeSync } = require("node:fs")
const { open } = require("syncline")

const tell = (message) => writeSync(3, `${JSON.stringify(message)}\n`)
const { path } = JSON.parse(process.argv.at(-1))
tell("begins")
const store = open(path, { adopt: true, packing: false, onProgress: (progress) => tell(progress) })
tell({ adopted: store.adopted ?? null })
store.close()
