import { existsSync } from "node:fs"
import { isAbsolute, join, resolve } from "node:path"
import { readBinary, type Binary } from "./binary"
import { SyncError, type AddonFailure, type ErrorFields } from "./errors"
import {
  glibcVersion,
  installedPackage,
  installedPlatforms,
  isLocked,
  packageFolder,
  platformName,
  PLATFORMS,
} from "./platform"

/** Names a binary to load instead of the installed one: absolute, or relative to the working directory. */
const OWN_VARIABLE = "SYNCLINE_ADDON_PATH"
/** The same for every package made with napi at once; the generated loader heeds it. */
const SHARED_VARIABLE = "NAPI_RS_NATIVE_LIBRARY_PATH"
/** The oldest glibc that the published addons load with. */
const LOWEST_GLIBC = "2.17"

/** Which addon is to be loaded. */
interface Attempt {
  /** Of the JavaScript, which the addon's has to equal. */
  readonly version: string
  /** The environment variable that names the addon. */
  readonly variable?: string
  /** The file, where it is known before the generated loader has found it. */
  readonly path?: string | undefined
}

/**
 * The exports of the addon, which `generated` loads unless the environment names another. Whatever keeps it from loading
 * ends as `ERR_ADDON_NOT_LOADED`, with the command that mends it.
 */
export function loadAddon(generated: () => unknown, version: string): object {
  const attempt = { version, ...locate() }
  refuseUnfit(attempt)
  let addon: unknown
  try {
    addon = attempt.variable === OWN_VARIABLE ? loadFile(attempt.path) : generated()
  } catch (error) {
    throw explained(error, attempt)
  }
  return checked(addon, attempt)
}

function locate(): Omit<Attempt, "version"> {
  const own = process.env[OWN_VARIABLE]
  if (own) return { variable: OWN_VARIABLE, path: resolve(own) }
  const shared = process.env[SHARED_VARIABLE]
  // It is passed to `require`: it may name a package, and a relative path of it does not begin in the working directory.
  if (shared) return { variable: SHARED_VARIABLE, path: isAbsolute(shared) ? shared : undefined }
  const folder = packageFolder()
  if (folder === undefined) return {}
  const name = `syncline.${platformName()}.node`
  const built = join(folder, "native", name)
  if (existsSync(built)) return { path: built }
  const installed = installedPackage(`syncline-${platformName()}`)
  return installed === undefined ? {} : { path: join(installed, name) }
}

/** Not by `require`, which takes a file of another ending for JavaScript, and into whose arguments bundlers look. */
function loadFile(path = ""): unknown {
  const module = { exports: {} }
  process.dlopen(module, path)
  return module.exports
}

/** Looks at the file before the system does: loading one that was cut short can end the process. */
function refuseUnfit(attempt: Attempt): void {
  const { path } = attempt
  // What is no addon by its name may be JavaScript that loads one.
  if (path === undefined || (attempt.variable === SHARED_VARIABLE && !path.endsWith(".node"))) return
  let binary: Binary | undefined
  try {
    binary = readBinary(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "ENOENT" || code === "ENOTDIR") throw fileMissing(error, attempt)
    if (code === "EISDIR") throw damaged("is a folder", error, attempt)
    // Whoever may not look at the file may still be allowed to load it.
    return
  }
  if (binary === undefined) throw damaged("holds no machine code", undefined, attempt)
  const { platform, architectures, whole } = binary
  const fits = architectures.length === 0 || architectures.includes(process.arch)
  if (platform !== undefined && !(isOfSystem(platform) && fits)) {
    throw wrongPlatform([platform, architectures.join("+")].filter(Boolean).join("/"), undefined, attempt)
  }
  if (!whole) throw damaged("is cut short", undefined, attempt)
}

/** Systems that are not among those with packages have files like Linux's. */
function isOfSystem(platform: Binary["platform"]): boolean {
  const { platform: own } = process
  return platform === (own === "darwin" || own === "win32" ? own : "linux")
}

/** Whatever was loaded must be Syncline's, and of this very version: calls between two releases need not fit. */
function checked(addon: unknown, attempt: Attempt): object {
  const exports = (addon ?? {}) as { version?: unknown; replayParse?: unknown }
  if (typeof exports.replayParse !== "function" || typeof exports.version !== "function") {
    // Bundlers can put a path, or nothing, in the addon's place.
    throw isNowhere(attempt) ? bundled(attempt) : foreign(undefined, attempt)
  }
  const got = String(exports.version())
  if (got !== attempt.version) throw versionMismatch(got, attempt)
  return exports
}

/** Why it could not be loaded, as far as loader, system and folders tell. */
function explained(error: unknown, attempt: Attempt): SyncError {
  const [first = "", ...others] = messagesOf(error)
  const wasm = ["NAPI_RS_FORCE_WASI", "NAPI_RS_WASI_FLAVOR"].filter((name) => process.env[name])
  if (/WASI/.test(first) && wasm.length > 0) return wasmWanted(wasm, error, attempt)
  // The generated loader's own message comes first, and then one of each place where it looked.
  const told = [...others, first].find((message) => !NOT_FOUND.test(message))
  // That it is not there is told better by what is: the places where it was looked for would only hide that.
  if (told === undefined) return isNowhere(attempt) ? absent(attempt) : fileMissing(undefined, attempt)
  const cause = told === first ? error : new Error(told)
  const glibc = /version [`']?GLIBC_([\d.]+)'? not found/.exec(told)?.[1]
  if (glibc !== undefined) return glibcTooOld(glibc, cause, attempt)
  if (/libc\.musl|ld-musl|ld-linux|Error relocating/.test(told)) return wrongLibc(told, cause, attempt)
  if (/incompatible architecture|wrong ELF class|not a valid Win32 application/i.test(told)) {
    return wrongPlatform("another platform", cause, attempt)
  }
  if (/invalid ELF header|file too short|truncated|not a mach-o/i.test(told)) {
    return damaged("cannot be read", cause, attempt)
  }
  if (/did not self-register|NODE_MODULE_VERSION/.test(told)) return foreign(cause, attempt)
  return refused(told, cause, attempt)
}

function isNowhere({ variable, path }: Attempt): boolean {
  return variable === undefined && path === undefined
}

/** How Node, Bun, Deno, Plug'n'Play and the generated loader say that a module is not there. */
const NOT_FOUND = /cannot find|tried to access|no such (module|package)|^Unsupported (OS|architecture)|wasm32/i

/** How many errors behind one another are looked at. */
const MAX_CAUSES = 16

function messagesOf(thrown: unknown): string[] {
  const messages: string[] = []
  let error = thrown
  while (error instanceof Error && messages.length < MAX_CAUSES) {
    messages.push(error.message)
    error = error.cause
  }
  return messages
}

// What is wrong, in one sentence each, and what mends it.

function absent(attempt: Attempt): SyncError {
  const platform = platformName()
  const name = `syncline-${platform}`
  const folder = packageFolder()
  const fields = { expected: platform }
  if (folder !== undefined && isCheckout()) {
    return failure("missing", "this is a checkout of Syncline, and its addon is not built.", [BUILD], fields)
  }
  if (!PLATFORMS.includes(platform)) {
    const what = `there is none for ${platform}, only for ${PLATFORMS.join(", ")}.`
    return failure("unsupported-platform", what, fromSource(), fields)
  }
  if (folder === undefined) return bundled(attempt)
  const others = installedPlatforms()
  if (others.length > 0) return installedElsewhere(others)
  const locked = isLocked(name)
  const optional = `the package ${name} is not installed. It is an optional dependency of syncline`
  const what =
    locked === undefined
      ? `${optional}, left out by --omit=optional or --no-optional, or missing in a lockfile made on another platform.`
      : locked
        ? `${optional}, and optional ones were left out (--omit=optional, --no-optional).`
        : `${optional}, and package-lock.json does not list it: it was made on another platform.`
  const remedies = [
    ["Install optional packages, too:", "npm install --include=optional"],
    ["Make the lockfile anew:", REMAKE],
  ]
  const fitting = locked === undefined ? remedies : [remedies[locked ? 0 : 1] as string[]]
  return failure("missing", what, [...fitting, installOne(attempt), OTHER_INSTALLERS], fields)
}

/** What is installed is for others than this process. */
function installedElsewhere(others: string[]): SyncError {
  const platform = platformName()
  const fields = { expected: platform, got: others.join(", ") }
  const remedies = [reinstall(), installFor(platform), OTHER_INSTALLERS]
  const packages = others.map((name) => `syncline-${name}`).join(", ")
  const [system, arch] = platform.split("-")
  const sameMachine = others.filter((name) => name.startsWith(`${system}-${arch}-`))
  if (sameMachine.length > 0) {
    const [own, other] = platform.endsWith("musl") ? ["musl", "glibc"] : ["glibc", "musl"]
    const what = `this system's C library is ${own}, and what is installed (${packages}) is for ${other}.`
    return failure("wrong-libc", what, remedies, fields)
  }
  const sameSystem = others.filter((name) => name.startsWith(`${system}-`))
  if (sameSystem.length > 0) {
    const what = `this Node is built for ${arch}, and what is installed (${packages}) is not.`
    const emulated = [
      `If this machine is not ${arch}, this Node is emulated (on macOS by Rosetta): run one of the machine's own architecture. See which one runs:`,
      "node -p process.arch",
    ]
    return failure("wrong-platform", what, [emulated, ...remedies], fields)
  }
  const what = `syncline-${platform} is not installed, but ${packages} is: node_modules was installed on another platform.`
  return failure("wrong-platform", what, remedies, fields)
}

function bundled(attempt: Attempt): SyncError {
  const what = "Syncline's JavaScript runs from a bundle, away from its package, and finds no addon there."
  const external = [
    "Keep syncline and its entry points out of the bundle, as external:",
    "esbuild, bun: --external:syncline, --external syncline",
    'webpack:      externals: { syncline: "commonjs syncline" }',
    'Rollup, Vite: external: ["syncline"], ssr: { external: ["syncline"] }',
    'Next.js:      serverExternalPackages: ["syncline"]',
  ]
  const install = ["and install it where the bundle runs:", `npm install syncline@${attempt.version}`]
  return failure("bundled", what, [external, install], { expected: platformName() })
}

function fileMissing(cause: unknown, attempt: Attempt): SyncError {
  const what = attempt.variable
    ? `${subject(attempt)} is not there.`
    : `${subject(attempt)} is not there, though its package is.`
  return failure("missing", what, mended(attempt), { cause, ...pathOf(attempt) })
}

function damaged(how: string, cause: unknown, attempt: Attempt): SyncError {
  return failure("damaged", `${subject(attempt)} ${how}.`, mended(attempt), { cause, ...pathOf(attempt) })
}

function foreign(cause: unknown, attempt: Attempt): SyncError {
  return failure("foreign", `${subject(attempt)} is no addon of Syncline.`, mended(attempt), {
    cause,
    ...pathOf(attempt),
  })
}

function wrongPlatform(got: string, cause: unknown, attempt: Attempt): SyncError {
  const expected = `${process.platform}/${process.arch}`
  const what = `${subject(attempt)} is built for ${got}, and this process runs on ${expected}.`
  return failure("wrong-platform", what, mended(attempt), { cause, expected, got, ...pathOf(attempt) })
}

function wrongLibc(told: string, cause: unknown, attempt: Attempt): SyncError {
  const what = `${subject(attempt)} is built for another C library (glibc, musl) than that of this process: ${firstLine(told)}`
  const remedies = [...mended(attempt), installFor(platformName())]
  return failure("wrong-libc", what, remedies, { cause, expected: platformName(), ...pathOf(attempt) })
}

function glibcTooOld(expected: string, cause: unknown, attempt: Attempt): SyncError {
  const got = glibcVersion() ?? "an older one"
  const what = `${subject(attempt)} needs glibc ${expected}, and this system has ${got}. The published one needs ${LOWEST_GLIBC}.`
  const remedies = [...mended(attempt), installOne(attempt), ["Or run on a newer system."]]
  return failure("glibc-too-old", what, remedies, { cause, expected, got, ...pathOf(attempt) })
}

function versionMismatch(got: string, attempt: Attempt): SyncError {
  const expected = attempt.version
  const what = `${subject(attempt)} is of version ${got}, and Syncline's JavaScript of version ${expected}.`
  const remedies = [...mended(attempt), ...(attempt.variable ? [] : [installOne(attempt)])]
  return failure("version-mismatch", what, remedies, { expected, got, ...pathOf(attempt) })
}

function wasmWanted(set: readonly string[], cause: unknown, attempt: Attempt): SyncError {
  const what = `${set.join(" and ")} asks for WebAssembly, and there is no such build of Syncline.`
  return failure("refused", what, set.map(unset), { cause, ...pathOf(attempt) })
}

function refused(told: string, cause: unknown, attempt: Attempt): SyncError {
  return failure("refused", `${subject(attempt)} was refused: ${told.trim()}`, mended(attempt), {
    cause,
    ...pathOf(attempt),
  })
}

/** What is to be done, and the commands that do it. */
type Remedy = readonly string[]

const REMAKE = "rm -rf node_modules package-lock.json && npm install"
const BUILD: Remedy = ["Build it, with Rust installed:", "npm run build"]
const OTHER_INSTALLERS: Remedy = [
  "pnpm and Yarn: name this platform in `supportedArchitectures`, too, and install again.",
]

function failure(reason: AddonFailure, what: string, remedies: readonly Remedy[], fields: ErrorFields): SyncError {
  const { cause, ...others } = fields
  const lines = remedies.flatMap(([title = "", ...commands]) => [title, ...commands.map((command) => `    ${command}`)])
  return new SyncError("ERR_ADDON_NOT_LOADED", [`Cannot load Syncline's native addon: ${what}`, ...lines].join("\n"), {
    reason,
    ...others,
    ...(cause === undefined ? {} : { cause }),
  })
}

/** What mends an addon that is there: another one in its place. */
function mended({ variable }: Attempt): readonly Remedy[] {
  if (variable === OWN_VARIABLE) return [unset(variable)]
  if (variable !== undefined) {
    return [
      [`${variable} speaks to every package made with napi; ${OWN_VARIABLE} to Syncline alone, and it goes first.`],
      unset(variable),
    ]
  }
  return [isCheckout() ? BUILD : reinstall()]
}

function unset(variable: string): Remedy {
  const command = process.platform === "win32" ? `set ${variable}=` : `unset ${variable}`
  return [`Correct ${variable}, or do without it:`, command]
}

function reinstall(): Remedy {
  const keepsLock = isLocked(`syncline-${platformName()}`) !== false
  return ["Install again, here:", keepsLock ? "rm -rf node_modules && npm install" : REMAKE]
}

function installOne({ version }: Attempt): Remedy {
  return ["Or install that package alone:", `npm install --save-optional syncline-${platformName()}@${version}`]
}

function installFor(platform: string): Remedy {
  const [os, cpu, abi] = platform.split("-")
  const libc = os === "linux" ? ` --libc=${abi === "musl" ? "musl" : "glibc"}` : ""
  return ["Or, where node_modules is made for this platform:", `npm install --os=${os} --cpu=${cpu}${libc}`]
}

function fromSource(): readonly Remedy[] {
  const name = `export ${OWN_VARIABLE}=<checkout>/native/syncline.<platform>.node`
  return [["Build it in a checkout of Syncline, with Rust installed, and name the file:", "npm run build", name]]
}

function isCheckout(): boolean {
  const folder = packageFolder()
  return folder !== undefined && existsSync(join(folder, "Cargo.toml"))
}

function subject({ variable, path }: Attempt): string {
  const file = path ?? process.env[variable ?? ""] ?? "what was found"
  return variable === undefined ? file : `${file}, which ${variable} names,`
}

function pathOf({ path }: Attempt): { path?: string } {
  return path === undefined ? {} : { path }
}

function firstLine(text: string): string {
  return text.trim().split("\n", 1)[0] as string
}
