// npm run sanitize [-- rust | addon | valgrind]: the Rust tests and the addon under AddressSanitizer, and the core of the
// suite under valgrind. Says what ran, what it found, and what was skipped for want of a tool. Takes minutes: it is not part
// of npm test. What it builds goes to target/sanitize.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { root, run } from "./process.mjs"
import { setUp } from "./setup.mjs"

const folder = join(root, "target/sanitize")
const MINUTE = 60_000

/** What the suite's core is: recording, statements, transactions, replay, the log, removal, and projectors. */
const CORE = ["20.run", "23.project", "25.database", "30.transaction", "50.replay", "60.log", "62.remove"]
/** Under AddressSanitizer everything runs but what measures memory, which it keeps, and what looks at the package. */
const NOT_UNDER_ADDRESS = /^(85|9\d)\./

const passes = { rust, addon, valgrind }
const words = process.argv.slice(2)

await setUp()
mkdirSync(folder, { recursive: true })
for (const [name, pass] of Object.entries(passes)) {
  if (words.length > 0 && !words.includes(name)) continue
  const started = performance.now()
  const result = await pass()
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  if (result.skipped !== undefined) console.log(`- ${name}: skipped, ${result.skipped}`)
  else console.log(`${result.ok ? "✓" : "✗"} ${name}  ${seconds} s: ${result.says}`)
  if (result.ok === false) {
    console.log(`\n${result.output.trimEnd()}\n`)
    process.exitCode = 1
  }
}

/** The Rust tests, with SQLite and zstd, under AddressSanitizer, and LeakSanitizer after them. */
async function rust() {
  const { target, missing } = await sanitizer()
  if (missing) return { skipped: missing }
  const { flags, says } = await addressFlags(target)
  const command = ["cargo", "test", "--locked", "--no-fail-fast", "--target", target, "--target-dir", folder]
  const { ok, output } = await run(withEnvironment(flags, [...command, "--", "--show-output"]), {
    timeout: 120 * MINUTE,
  })
  const counts = [...output.matchAll(/^test result: .* (\d+) passed; (\d+) failed/gm)]
  const [passed, failed] = [1, 2].map((n) => counts.reduce((sum, match) => sum + Number(match[n]), 0))
  return { ok, output, says: `${passed} Rust tests passed, ${failed} failed, under AddressSanitizer${says}` }
}

/** The addon, in a Node that the sanitizer's runtime was loaded into. */
async function addon() {
  const { target, missing } = await sanitizer()
  if (missing) return { skipped: missing }
  const runtime = (await run(["gcc", "-print-file-name=libasan.so"])).output.trim()
  if (!runtime.startsWith("/")) return { skipped: "gcc has no libasan.so" }
  const { flags, says: where } = await addressFlags(target)
  const built = await buildAddon(
    "address.node",
    { ...flags, RUSTFLAGS: `${flags.RUSTFLAGS} -Clink-arg=-Wl,-z,undefs` },
    target,
  )
  if (!built.ok) return built
  const files = testFiles().filter((name) => !NOT_UNDER_ADDRESS.test(name))
  const environment = {
    NAPI_RS_NATIVE_LIBRARY_PATH: built.path,
    // What Node itself never gives back is no leak of ours.
    ASAN_OPTIONS: "detect_leaks=0:verify_asan_link_order=0:quarantine_size_mb=16",
    LD_PRELOAD: runtime,
  }
  const paths = files.map((name) => `__test__/${name}`)
  const command = [process.execPath, "--test", "--test-concurrency=1", "--test-timeout=1200000", ...paths]
  const { ok, output } = await run(withEnvironment(environment, command), { timeout: 180 * MINUTE })
  const found = output.match(/ERROR: AddressSanitizer/g)?.length ?? 0
  const says = `${files.length} files, ${testCounts(output)}, ${found} reports of AddressSanitizer${where}`
  return { ok: ok && found === 0, output, says }
}

/** Some files of the suite under valgrind. V8 trips over it in places; what counts is the addon's. */
async function valgrind() {
  if (!(await run(["valgrind", "--version"])).ok) return { skipped: "there is no valgrind" }
  const built = await buildAddon("plain.node", {})
  if (!built.ok) return built
  const says = []
  let [ok, output] = [true, ""]
  for (const name of testFiles().filter((file) => CORE.some((core) => file.startsWith(core)))) {
    const report = join(folder, `${name}.xml`)
    rmSync(report, { force: true })
    const checked = ["--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40", "--error-limit=no"]
    const command = ["valgrind", ...checked, "--xml=yes", `--xml-file=${report}`]
    const node = [process.execPath, "--test-timeout=3600000", `__test__/${name}`]
    const environment = { NAPI_RS_NATIVE_LIBRARY_PATH: built.path }
    const done = await run(withEnvironment(environment, [...command, ...node]), { timeout: 120 * MINUTE })
    const text = existsSync(report) ? readFileSync(report, "utf8") : ""
    const errors = [...text.matchAll(/<error>[^]*?<\/error>/g)].map(([error]) => error)
    const ours = errors.filter((error) => isOurs(error, built.path))
    ok &&= done.ok && ours.length === 0 && text.includes("</valgrindoutput>")
    if (!done.ok) output += done.output
    output += ours.join("\n")
    const line = `${name.replace(".test.js", "")}: ${testCounts(done.output)}, ${ours.length} errors of the addon`
    console.log(`  ${line}, ${errors.length - ours.length} of Node's own`)
    says.push(line)
  }
  return { ok, output, says: `${says.length} files of the suite under valgrind` }
}

/**
 * A wrong access counts when the addon is anywhere in its stack, a leak when it was the addon that allocated. What Node
 * allocates for it (the wrapper of an external value) is freed by V8's collector, which does not run before the end.
 */
function isOurs(error, path) {
  const objects = [...error.matchAll(/<obj>(.*?)<\/obj>/g)].map(([, object]) => object)
  if (!error.includes("<kind>Leak_")) return objects.includes(path)
  return objects.find((object) => !/vgpreload|libc\.so|libstdc\+\+/.test(object)) === path
}

/** Where the sanitizer's runtime is missing it cannot be had without another toolchain. */
async function sanitizer() {
  const { output } = await run(["rustc", "--print", "sysroot"])
  const target = /^host: (.*)$/m.exec((await run(["rustc", "-vV"])).output)?.[1] ?? ""
  const libraries = join(output.trim(), "lib/rustlib", target, "lib")
  const has = existsSync(libraries) && readdirSync(libraries).some((name) => name.endsWith("_rt.asan.a"))
  return { target, missing: has ? undefined : `this Rust toolchain (${target}) has no AddressSanitizer` }
}

/** Rust code is instrumented by rustc, SQLite and zstd by gcc, as far as there is one. */
async function addressFlags(target) {
  // Sanitizers are unstable; the compiler that the library is built with has them all the same.
  // Its frames are several times larger than those that the stacks of threads are made for.
  const flags = {
    RUSTC_BOOTSTRAP: "1",
    RUST_MIN_STACK: String(64 << 20),
    RUSTFLAGS: "-Zsanitizer=address -Cforce-frame-pointers=yes",
  }
  const gcc = await run(["gcc", "--version"])
  if (!gcc.ok) return { flags, says: " (SQLite and zstd without it: there is no gcc)" }
  flags[`CFLAGS_${target.replaceAll("-", "_")}`] = "-fsanitize=address -fno-omit-frame-pointer"
  return { flags, says: ", SQLite and zstd included" }
}

/** Builds the addon with names in it, and puts it where the loader can be told to find it. */
async function buildAddon(name, environment, target) {
  const profile = {
    CARGO_PROFILE_RELEASE_LTO: "false",
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS: "16",
    CARGO_PROFILE_RELEASE_STRIP: "none",
    CARGO_PROFILE_RELEASE_DEBUG: "line-tables-only",
  }
  const [targets, inside] = target === undefined ? [[], ""] : [["--target", target], target]
  const command = ["cargo", "build", "--locked", "--release", "--lib", "--target-dir", folder, ...targets]
  const { ok, output } = await run(withEnvironment({ ...profile, ...environment }, command), { timeout: 60 * MINUTE })
  const path = join(folder, name)
  if (ok) copyFileSync(join(folder, inside, "release/libsyncline.so"), path)
  return { ok, output, says: "the addon cannot be built", path }
}

function testFiles() {
  return readdirSync(join(root, "__test__"))
    .filter((name) => name.endsWith(".test.js"))
    .toSorted()
}

/** What node:test says at the end. */
function testCounts(output) {
  const count = (what) => Number(new RegExp(`^(?:ℹ|#) ${what} (\\d+)`, "m").exec(output)?.[1] ?? 0)
  return `${count("pass")} passed, ${count("fail")} failed`
}

function withEnvironment(environment, command) {
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  return ["env", ...settings, ...command]
}
