"use strict"

// The devices of suite 15: each a file with a store of its own, which can be killed at chosen points without a process.

const { copyFileSync, existsSync, rmSync } = require("node:fs")
const { join } = require("node:path")
const { openLedger } = require("./ledger.js")

/** What is thrown where a device is killed. */
const killed = new Error("killed")

/** A device: a file, and the store that is open on it. */
class Device {
  copies = 0
  /** After how many more projections, or points of a transaction, it is killed. */
  fuse = undefined

  constructor(name, folder) {
    this.name = name
    this.folder = folder
    this.open()
  }

  get path() {
    return join(this.folder, `${this.name}${this.copies}.db`)
  }

  open() {
    Object.assign(this, openLedger(this.path, { owner: this.name, onProject: () => this.burn() }))
  }

  /** Where it may be killed. */
  burn() {
    if (this.fuse === undefined || --this.fuse > 0) return
    this.copy()
    throw killed
  }

  /** Its files as they are now, whatever is open: what a process that ends here leaves behind. */
  copy() {
    const from = this.path
    this.copies++
    for (const side of ["", "-wal"]) if (existsSync(from + side)) copyFileSync(from + side, this.path + side)
    this.left = from
  }

  /** Goes on from the copy. */
  revive() {
    this.fuse = undefined
    this.store.close()
    rmSync(this.left, { force: true })
    this.open()
  }
}

module.exports = { Device, killed }
