// node scripts/stage.mjs [--artifacts folder] [--out folder] [--all]: makes what is published, in a folder that is emptied
// first: the root package and one package for each platform whose addon is found under the artifacts (default: native), as
// folders and as tarballs, and packages.json, which names them in the order in which they are published.
// --all: fails unless every platform is there, as for a release. A clone is never published itself: its manifest has what
// only a clone needs, and native/ may hold a binary.
import { createHash } from "node:crypto"
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs"
import { writeFileSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { LINUX_ADDON, ROOT_TARBALL } from "./bounds.mjs"
import { npm, root, run, tool } from "./process.mjs"
import { addonOf, platformOf, targets as known } from "./targets.mjs"

const { values } = parseArgs({
  options: {
    artifacts: { type: "string", default: join(root, "native") },
    out: { type: "string", default: join(root, "target/stage") },
    all: { type: "boolean", default: false },
  },
})
const artifacts = resolve(values.artifacts)
const out = resolve(values.out)
const manifest = readJSON(join(root, "package.json"))

try {
  await stage()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function stage() {
  const targets = targetsFound()
  empty(out)
  const optionalDependencies = await stagePlatforms(targets)
  await stageRoot(optionalDependencies)
  const packages = []
  for (const name of [...Object.keys(optionalDependencies), manifest.name]) packages.push(await pack(name))
  holdBounds(packages)
  writeJSON(join(out, "packages.json"), packages)
}

/** Makes a package for each target by the cli's own steps, and returns what the root is to name. */
async function stagePlatforms(targets) {
  const workspace = join(out, "workspace")
  const platforms = targets.map(platformOf)
  for (const platform of platforms) {
    cpSync(join(root, "npm", platform), join(workspace, "npm", platform), { recursive: true })
    // Where the binary is, the licences of what is in it have to be.
    for (const file of ["LICENSE", "THIRD_PARTY_LICENSES"])
      cpSync(join(root, file), join(workspace, "npm", platform, file))
  }
  // The cli refuses a manifest that names a target whose addon is missing.
  writeJSON(join(workspace, "package.json"), { ...manifest, napi: { ...manifest.napi, targets } })
  const cli = (command, ...args) =>
    checked(tool("@napi-rs/cli", command, "--cwd", workspace, "--npm-dir", "npm", ...args))
  await cli("artifacts", "--output-dir", artifacts)
  await cli("pre-publish", "--tag-style", "npm", "--skip-optional-publish", "--no-gh-release")
  const { optionalDependencies } = readJSON(join(workspace, "package.json"))
  for (const platform of platforms) {
    const { name, ...rest } = readJSON(join(workspace, "npm", platform, "package.json"))
    writeJSON(join(workspace, "npm", platform, "package.json"), { name, ...rest, ...repository() })
    renameSync(join(workspace, "npm", platform), join(out, name))
  }
  rmSync(workspace, { recursive: true })
  return optionalDependencies
}

/**
 * Copies what npm would pack of the clone, without the addon that a clone has for itself. The manifest loses what only a
 * clone needs: nothing may run where the package is installed.
 */
async function stageRoot(optionalDependencies) {
  const [{ files }] = JSON.parse(
    await checked(npm("pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error")),
  )
  for (const { path } of files.filter(({ path }) => !path.endsWith(".node"))) {
    mkdirSync(dirname(join(out, manifest.name, path)), { recursive: true })
    cpSync(join(root, path), join(out, manifest.name, path))
  }
  const { scripts: _, devDependencies: __, napi: ___, ...published } = manifest
  const patterns = manifest.files.filter((pattern) => !pattern.endsWith(".node"))
  writeJSON(join(out, manifest.name, "package.json"), {
    ...published,
    files: patterns,
    optionalDependencies,
    ...repository(),
  })
}

/** The targets of package.json whose addon is under the artifacts. */
function targetsFound() {
  if (!existsSync(join(root, "dist/index.mjs"))) throw new Error("dist is not built: run `npm run build:ts` first.")
  const found = new Set(
    existsSync(artifacts) ? readdirSync(artifacts, { recursive: true }).map((name) => basename(name)) : [],
  )
  const [present, missing] = [true, false].map((wanted) =>
    known.filter((target) => found.has(addonOf(platformOf(target))) === wanted),
  )
  if (present.length === 0) throw new Error(`${artifacts} holds no addon: run \`npm run build:native\` first.`)
  if (values.all && missing.length > 0) {
    const names = missing.map((target) => `${target} (${addonOf(platformOf(target))})`)
    throw new Error(`${artifacts} lacks the addons of ${missing.length} targets: ${names.join(", ")}`)
  }
  return present
}

/** What an earlier staging left must not be published; a folder that holds anything else is not ours to empty. */
function empty(folder) {
  const names = existsSync(folder) ? readdirSync(folder) : []
  if (names.length > 0 && !names.includes("packages.json")) {
    throw new Error(`${folder} holds files that staging has not made: name an empty folder.`)
  }
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  // From here on this folder is ours, even where staging ends half-way.
  writeJSON(join(folder, "packages.json"), [])
}

/** Provenance names the repository that the workflow ran in, and npm compares it with the manifest's. */
function repository() {
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: name } = process.env
  return server && name ? { repository: { type: "git", url: `git+${server}/${name}.git` } } : {}
}

async function pack(name) {
  const folder = join(out, name)
  const { version } = readJSON(join(folder, "package.json"))
  await checked(npm("pack", folder, "--pack-destination", out, "--ignore-scripts", "--loglevel=error"))
  const tarball = `${name}-${version}.tgz`
  const bytes = readFileSync(join(out, tarball))
  const addon = readdirSync(folder).find((file) => file.endsWith(".node"))
  return {
    name,
    version,
    tarball,
    integrity: `sha512-${createHash("sha512").update(bytes).digest("base64")}`,
    packed: bytes.length,
    ...(addon && { addon: statSync(join(folder, addon)).size }),
  }
}

function holdBounds(packages) {
  const problems = []
  for (const { name, version, packed, addon } of packages) {
    const unpacked = addon === undefined ? "" : `, the addon ${addon} bytes`
    console.log(`${name} ${version}: ${packed} bytes packed${unpacked}`)
    const bound = addon === undefined ? ROOT_TARBALL : name.includes("-linux-") ? LINUX_ADDON : Infinity
    const size = addon ?? packed
    if (size >= bound) problems.push(`${name} has ${size} bytes, and must have fewer than ${bound}`)
  }
  if (problems.length > 0) throw new Error(problems.join("\n"))
}

async function checked(command) {
  const { ok, output } = await run(command)
  if (!ok) throw new Error(`${command.slice(0, 3).join(" ")} failed.\n${output}`)
  return output
}

function readJSON(path) {
  return JSON.parse(readFileSync(path, "utf8"))
}

function writeJSON(path, value) {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
}
