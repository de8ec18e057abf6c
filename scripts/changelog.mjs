// node scripts/changelog.mjs <version>: prints what CHANGELOG.md says of that version, for the notes of its release. Fails
// where there is nothing, and where a manifest or lockfile has another version.
// node scripts/changelog.mjs --tag <tag>: the same for the version that a tag releases; then its section must also have a
// date, and nothing may still stand under [Unreleased].
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "./process.mjs"

try {
  console.log(notes(process.argv.slice(2)))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

function notes([option, tag]) {
  const released = option === "--tag"
  if (released && !/^v\d/.test(tag ?? "")) throw new Error(`A release has a tag like v1.2.3, and not ${tag}.`)
  const version = released ? tag.slice(1) : option
  if (version === undefined) throw new Error("Usage: node scripts/changelog.mjs <version> | --tag <tag>")
  const others = versions().filter(([, found]) => found !== version)
  if (others.length > 0) {
    const list = others.map(([file, found]) => `${file} has ${found ?? "none"}`).join(", ")
    throw new Error(`Not all files have version ${version}: ${list}.`)
  }
  const { heading, text } = section(version)
  if (text === undefined)
    throw new Error(`CHANGELOG.md says nothing of ${version}: it needs a section "## [${version}]".`)
  if (released) {
    if (!/ - \d{4}-\d\d-\d\d$/.test(heading))
      throw new Error(`CHANGELOG.md: "${heading}" has no date (… - 2026-01-31).`)
    if (section("Unreleased").text) throw new Error(`CHANGELOG.md: what is under [Unreleased] belongs to ${version}.`)
  }
  return text
}

/** The version in each file that has it. */
function versions() {
  const platforms = readdirSync(join(root, "npm")).map((folder) => `npm/${folder}/package.json`)
  const manifests = ["package.json", "package-lock.json", ...platforms].map((file) => [
    file,
    JSON.parse(read(file)).version,
  ])
  const crate = /^\[package\]\nname = "syncline"\nversion = "([^"]+)"/m.exec(read("Cargo.toml"))
  const locked = /^name = "syncline"\nversion = "([^"]+)"/m.exec(read("Cargo.lock"))
  return [...manifests, ["Cargo.toml", crate?.[1]], ["Cargo.lock", locked?.[1]]]
}

/** The heading of a version's section, and what stands under it; no text when there is none. */
function section(version) {
  const [, ...sections] = read("CHANGELOG.md").split(/^(?=## )/m)
  const found = sections.find((text) => text.startsWith(`## [${version}]`))
  const [heading, ...lines] = found?.split("\n") ?? []
  return { heading, text: lines.join("\n").trim() || undefined }
}

function read(file) {
  return readFileSync(join(root, file), "utf8").replaceAll("\r\n", "\n")
}
