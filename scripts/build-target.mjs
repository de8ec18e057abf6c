// npm run build:target -- [TARGET]: builds the addon that is published for a platform into native/, and checks that it is
// what it should be. TARGET is one of package.json's `napi.targets`; without it, this machine's own. The release workflow runs
// this for each of them, so that what it builds can be built by anybody.
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { LOWEST_GLIBC } from "./bounds.mjs"
import { root, run, tool } from "./process.mjs"
import { checkCompilers } from "./setup.mjs"
import { addonOf, platformOf, targets } from "./targets.mjs"

/**
 * By the end of a target's name: flags of `napi build`, and what scripts/check-binary.mjs is to allow. What a machine's own
 * compiler links asks for the machine's own glibc, so Linux has others: gcc with glibc 2.17, the distributions of 2014, and zig,
 * which brings musl. The other systems are built for on themselves.
 */
const SYSTEMS = {
  "linux-gnu": { flags: ["--use-napi-cross"], glibc: LOWEST_GLIBC, needs: unpacker },
  "linux-musl": { flags: ["--cross-compile"], glibc: "none", needs: zig },
  "apple-darwin": { flags: [] },
  "pc-windows-msvc": { flags: [] },
}

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

try {
  await build(process.argv[2] ?? (await ownTarget()))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function build(target) {
  if (!targets.includes(target))
    throw new Error(`No addon is published for ${target}. There are:\n${targets.join("\n")}`)
  await checkCompilers()
  const [, { flags, glibc, needs }] = Object.entries(SYSTEMS).find(([system]) => target.endsWith(system))
  const library = join((await answer("rustc", "--print", "sysroot")).trim(), "lib/rustlib", target, "lib")
  if (!existsSync(library)) throw new Error(`Rust has no standard library for ${target}: rustup target add ${target}`)
  await needs?.()

  const built = await run([...napi(), "--target", target, ...flags, "--", "--locked"], { show: true })
  if (!built.ok) throw new Error(`The addon for ${target} could not be built.`)
  const addon = `native/${addonOf(platformOf(target))}`
  if (glibc === undefined) return console.log(`${addon}: ${statSync(join(root, addon)).size} bytes`)
  const check = [process.execPath, "scripts/check-binary.mjs", addon, "--glibc", glibc]
  if (!(await run(check, { show: true })).ok) throw new Error("Not to be published.")
}

/** What Rust builds for where nothing else is said. */
async function ownTarget() {
  await checkCompilers()
  return /^host: (.*)$/m.exec(await answer("rustc", "-vV"))?.[1]
}

/** What `npm run build:native` runs, which chooses the place and the names of what it makes. */
function napi() {
  const [, ...words] = manifest.scripts["build:native"].split(" ")
  return tool("@napi-rs/cli", ...words)
}

/** The toolchain comes from npm, and what unpacks it is an addon itself. On an older Node it fails with a riddle. */
async function unpacker() {
  const [major, minor] = process.versions.node.split(".").map(Number)
  if (major > 22 || (major === 22 && minor >= 20)) return
  throw new Error(`The toolchain with glibc 2.17 is unpacked by Node 22.20 or later; this is ${process.version}.`)
}

async function zig() {
  if ((await run(["zig", "version"])).ok) return
  throw new Error("Addons for musl are compiled and linked by zig, which was not found: https://ziglang.org/download")
}

/** What a program prints, or nothing where there is no such program. */
async function answer(...command) {
  return (await run(command)).output
}
