// Child processes as the other scripts start them. Plain Node: these scripts run before anything is installed.
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** The root of the repository. */
export const root = fileURLToPath(new URL("..", import.meta.url))

/** The command line of a tool installed by npm. Its script is run by this very Node, so that no shell is needed anywhere. */
export function tool(packageName, ...args) {
  const folder = join(root, "node_modules", packageName)
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
  return [process.execPath, join(folder, typeof bin === "string" ? bin : Object.values(bin)[0]), ...args]
}

/** The command line of npm: the npm that started this script, or the one on the path. */
export function npm(...args) {
  const path = process.env["npm_execpath"]
  if (path?.endsWith(".js")) return [process.execPath, path, ...args]
  // Since Node 20.12 a .cmd file is only started through the shell of Windows.
  return process.platform === "win32" ? ["cmd.exe", "/d", "/s", "/c", "npm", ...args] : ["npm", ...args]
}

/**
 * Runs a command, in the repository's root unless `cwd` is given, until it ends. `show` lets it write to this terminal;
 * otherwise what it prints (both streams, as they come) is returned. Resolves to `{ok, output}` also when the command
 * cannot be started, is killed, or takes longer than `timeout` milliseconds (default: no limit).
 */
export function run([command, ...args], { cwd = root, show = false, timeout } = {}) {
  const color = process.stdout.isTTY ? { FORCE_COLOR: "1", CARGO_TERM_COLOR: "always" } : {}
  const ownGroup = timeout !== undefined && process.platform !== "win32"
  return new Promise((resolve) => {
    const stdio = ["ignore", show ? "inherit" : "pipe", show ? "inherit" : "pipe"]
    const child = spawn(command, args, { cwd, env: { ...color, ...process.env }, stdio, detached: ownGroup })
    const chunks = []
    let problem = ""
    const stop = () => endTree(child, ownGroup)
    const interrupt = () => {
      stop()
      process.exit(130)
    }
    const timer = setTimeout(
      () => {
        problem = `${command} took longer than ${timeout / 60_000} minutes\n`
        stop()
      },
      timeout ?? 2 ** 31 - 1,
    )
    // A group of its own does not hear Ctrl-C.
    if (ownGroup) process.once("SIGINT", interrupt)

    child.stdout?.on("data", (chunk) => chunks.push(chunk))
    child.stderr?.on("data", (chunk) => chunks.push(chunk))
    child.on("error", (error) => (problem = `${command}: ${error.message}\n`))
    child.on("close", (code, signal) => {
      clearTimeout(timer)
      process.removeListener("SIGINT", interrupt)
      if (signal && problem === "") problem = `${command} ended by ${signal}\n`
      resolve({ ok: code === 0 && problem === "", output: Buffer.concat(chunks).toString() + problem })
    })
  })
}

/** Ends a command with all that it started: a test process left alone would hold the pipes open for ever. */
function endTree(child, ownGroup) {
  if (child.pid === undefined) return
  try {
    if (ownGroup) process.kill(-child.pid, "SIGKILL")
    else child.kill("SIGKILL")
  } catch {
    // It has ended by itself meanwhile.
  }
}
