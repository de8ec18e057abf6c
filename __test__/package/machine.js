"use strict"

// Somebody's machine, on which nothing was ever installed: a home folder, and empty projects that commands run in.

const { execFileSync, spawnSync } = require("node:child_process")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const { keptBy } = require("./kept.js")

class Machine {
  /**
   * `npm`: gives a command line of npm. `url`: the registry that its clients are set to; without it, npm is set as it is for
   * the one who runs the tests, and shares his cache.
   */
  constructor(npm, url) {
    this.npm = npm
    this.url = url
    this.folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "syncline-machine-")))
    this.home = path.join(this.folder, "home")
    fs.mkdirSync(this.home)
    this.env = {
      ...withoutSettings(process.env),
      HOME: this.home,
      USERPROFILE: this.home,
      // Rust is not installed in a home folder that is new.
      CARGO_HOME: process.env["CARGO_HOME"] ?? path.join(os.homedir(), ".cargo"),
      RUSTUP_HOME: process.env["RUSTUP_HOME"] ?? path.join(os.homedir(), ".rustup"),
      ...(url === undefined ? this.#asHere() : this.#setTo(url)),
      npm_config_audit: "false",
      npm_config_fund: "false",
      npm_config_update_notifier: "false",
    }
  }

  #setTo(url) {
    const settings = path.join(this.home, ".npmrc")
    fs.writeFileSync(settings, `registry=${url}\n//${new URL(url).host}/:_authToken=anybody\n`)
    // Tarballs are found by their hash, from whichever registry they came.
    return { npm_config_userconfig: settings, npm_config_cache: keptBy("npm-cache") }
  }

  #asHere() {
    return {
      npm_config_userconfig: settingHere(this.npm, "userconfig"),
      npm_config_cache: settingHere(this.npm, "cache"),
    }
  }

  /** Runs a command line to its end: `{status, stdout, stderr}`. */
  try([command, ...args], env = {}, cwd = this.home) {
    const options = { cwd, env: { ...this.env, ...env }, encoding: "utf8", timeout: 280_000 }
    const { status, stdout, stderr, error } = spawnSync(command, args, options)
    if (error) throw error
    return { status, stdout, stderr }
  }

  /** A new folder with these files; a `package.json` is added where there is none. */
  project(name, files = {}) {
    return new Project(this, path.join(this.folder, name), { "package.json": { private: true }, ...files })
  }
}

class Project {
  constructor(machine, folder, files) {
    this.machine = machine
    this.folder = folder
    fs.mkdirSync(folder)
    for (const [name, content] of Object.entries(files)) this.write(name, content)
  }

  /** An object is written as JSON. */
  write(name, content) {
    fs.mkdirSync(path.dirname(this.path(name)), { recursive: true })
    fs.writeFileSync(this.path(name), typeof content === "string" ? content : JSON.stringify(content, null, 2))
  }

  path(...names) {
    return path.join(this.folder, ...names)
  }

  read(name) {
    return fs.readFileSync(this.path(name), "utf8")
  }

  json(name) {
    return JSON.parse(this.read(name))
  }

  has(name) {
    return fs.existsSync(this.path(name))
  }

  /** Runs a command line in the project: `{status, stdout, stderr}`. */
  try(command, env) {
    return this.machine.try(command, env, this.folder)
  }

  /** The same of one that must end well. Returns its stdout. */
  run(command, env) {
    const { status, stdout, stderr } = this.try(command, env)
    if (status !== 0) throw new Error(`${command.join(" ")}: exit ${status}\n${stdout}\n${stderr}`)
    return stdout.trim()
  }

  npm(...args) {
    return this.run(this.machine.npm(...args))
  }

  node(...args) {
    return this.run([process.execPath, ...args])
  }
}

/** What npm is set to outside of any project, for the one who runs the tests. */
function settingHere(npm, name) {
  const [command, ...args] = npm("config", "get", name)
  return execFileSync(command, args, { cwd: os.tmpdir(), encoding: "utf8" }).trim()
}

/** What the one who runs the tests has set for his own clients must not reach these. */
function withoutSettings(env) {
  const settings = /^(npm|yarn|pnpm|syncline|napi|xdg|git)_|^(node_path|node_test_context|init_cwd|ci)$/i
  return Object.fromEntries(Object.entries(env).filter(([name]) => !settings.test(name)))
}

module.exports = { Machine, settingHere }
