// The targets that a release is built for, and how their packages and addons are named.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "./process.mjs"

const { napi } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

/** Rust's names of them: `x86_64-unknown-linux-gnu`. */
export const targets = napi.targets

/** A target as napi names its package: `linux-x64-gnu`. */
export function platformOf(target) {
  const [cpu, , system, abi] = target.split("-")
  const names = { x86_64: "x64", aarch64: "arm64", windows: "win32" }
  return [names[system] ?? system, names[cpu], abi].filter(Boolean).join("-")
}

/** The file name of a platform's addon. */
export function addonOf(platform) {
  return `${napi.binaryName}.${platform}.node`
}
