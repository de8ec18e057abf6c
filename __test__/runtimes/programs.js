"use strict"

// The programs beside this file, which a runtime is given to run, and what they say: a line of JSON each time.

const { spawn } = require("node:child_process")
const { mkdtempSync, rmSync } = require("node:fs")
const { tmpdir } = require("node:os")
const { join } = require("node:path")
const { after } = require("node:test")

const folders = []
const children = new Set()

after(async () => {
  for (const child of children) child.kill("SIGKILL")
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
})

const program = (name) => join(__dirname, "programs", `${name}.js`)

/** A folder that is removed at the end. */
function folder() {
  const made = mkdtempSync(join(tmpdir(), "syncline-runtime-"))
  folders.push(made)
  return made
}

const linesOf = (text) =>
  text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line))

/** Starts a program that goes on. `lines(n)` resolves to what it has said, once that is so many lines. */
function spawned(binary, args) {
  const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1" } })
  children.add(child)
  let [stdout, stderr] = ["", ""]
  child.stdout.setEncoding("utf8")
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text))
  const lines = (count) =>
    new Promise((resolve, reject) => {
      child.stdout.on("data", (text) => {
        stdout += text
        const whole = linesOf(stdout.slice(0, stdout.lastIndexOf("\n") + 1))
        if (whole.length >= count) resolve(whole)
      })
      child.on("close", (code) => (children.delete(child), reject(new Error(`It ended with ${code}: ${stderr}`))))
    })
  return { child, lines }
}

/** Starts a program that goes on, and resolves to the first line that it says. */
const started = (binary, args) => spawned(binary, args).lines(1)

module.exports = { folder, linesOf, program, spawned, started }
