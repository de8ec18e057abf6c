import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"

/** The platforms that have a package, as it is named: `syncline-linux-x64-gnu`. */
export const PLATFORMS: readonly string[] = [
  "linux-x64-gnu",
  "linux-x64-musl",
  "linux-arm64-gnu",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
  "win32-x64-msvc",
]

/** What the generated loader takes this process for, where there may be a package for it. */
export function platformName(): string {
  const { platform, arch } = process
  if (platform === "win32") return `win32-${arch}-msvc`
  return platform === "linux" ? `linux-${arch}-${isMusl() ? "musl" : "gnu"}` : `${platform}-${arch}`
}

/** By the same signs, in the same order, as the generated loader goes by. */
function isMusl(): boolean {
  const ldd = textOf("/usr/bin/ldd")
  if (ldd !== undefined) return ldd.includes("musl")
  const { header, sharedObjects = [] } = report()
  return header?.glibcVersionRuntime === undefined && sharedObjects.some((file) => /libc\.musl-|ld-musl-/.test(file))
}

/** That which this process runs with, if it does and tells. */
export function glibcVersion(): string | undefined {
  // Deno tells one and the same everywhere.
  return process.versions["deno"] === undefined ? report().header?.glibcVersionRuntime : undefined
}

/** What the runtime tells of its process. */
function report(): { header?: { glibcVersionRuntime?: string }; sharedObjects?: string[] } {
  const own = process.report as (NodeJS.ProcessReport & { excludeNetwork?: boolean }) | undefined
  if (own === undefined) return {}
  // Looking up the names of all that is connected takes seconds.
  own.excludeNetwork = true
  return own.getReport() as ReturnType<typeof report>
}

/** The folder of this package; undefined where a bundler has taken its JavaScript elsewhere. */
export function packageFolder(): string | undefined {
  if (typeof __dirname === "undefined") return undefined
  const folder = dirname(__dirname)
  const manifest = textOf(join(folder, "package.json"))
  try {
    return manifest !== undefined && JSON.parse(manifest).name === "syncline" ? folder : undefined
  } catch {
    return undefined
  }
}

/** The folder of a package that this one would find. */
export function installedPackage(name: string): string | undefined {
  return modulesFolders()
    .map((folder) => join(folder, name))
    .find((folder) => existsSync(folder))
}

/** Which platforms' packages this one would find. */
export function installedPlatforms(): string[] {
  const found = new Set(modulesFolders().flatMap(namesIn))
  return PLATFORMS.filter((platform) => found.has(`syncline-${platform}`))
}

/** Whether npm's lockfile lists a package; undefined where there is none, or it knows nothing of Syncline. */
export function isLocked(name: string): boolean | undefined {
  for (const folder of ancestors(packageFolder())) {
    const lock = textOf(join(folder, "package-lock.json"))
    if (lock !== undefined) {
      return lock.includes('node_modules/syncline"') ? lock.includes(`node_modules/${name}"`) : undefined
    }
  }
  return undefined
}

/** Where `require` looks for packages from here. */
function modulesFolders(): string[] {
  return ancestors(packageFolder()).map((folder) => join(folder, "node_modules"))
}

/** A folder and those that it is in. */
function ancestors(folder: string | undefined): string[] {
  if (folder === undefined) return []
  const parent = dirname(folder)
  return parent === folder ? [folder] : [folder, ...ancestors(parent)]
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return undefined
  }
}
