// node scripts/publish.mjs <staged folder> [--registry URL] [--tag name] [--provenance] [--dry-run]: publishes what
// scripts/stage.mjs made, the root package last, so that whoever can install it finds what it names. A version that the
// registry has already with the same content is skipped: a release that broke half-way is run again as it was.
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { npm, run } from "./process.mjs"

try {
  await publish()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function publish() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      registry: { type: "string" },
      tag: { type: "string" },
      provenance: { type: "boolean", default: false },
      "dry-run": { type: "boolean", default: false },
    },
  })
  const folder = resolve(positionals[0] ?? "target/stage")
  const list = join(folder, "packages.json")
  const packages = existsSync(list) ? JSON.parse(readFileSync(list, "utf8")) : []
  if (packages.length === 0) throw new Error(`${folder} holds nothing staged: run \`node scripts/stage.mjs\` first.`)

  const registry = values.registry === undefined ? [] : ["--registry", values.registry]
  const options = [
    ...registry,
    ...(values.tag === undefined ? [] : ["--tag", values.tag]),
    ...(values.provenance ? ["--provenance"] : []),
    ...(values["dry-run"] ? ["--dry-run"] : []),
  ]
  const waiting = []
  // Before the first is published, so that one that cannot be is found while nothing has happened.
  for (const each of packages) {
    if (await isPublished(each, registry)) console.log(`${each.name} ${each.version} is published already`)
    else waiting.push(each)
  }
  for (const { name, version, tarball } of waiting) {
    const { ok, output } = await run(npm("publish", join(folder, tarball), "--ignore-scripts", ...options))
    if (!ok) throw new Error(`${name} ${version} was not published.\n${output}`)
    console.log(`${name} ${version} ${values["dry-run"] ? "would be published" : "published"}`)
  }
}

/** Whether the registry has this version with this content. Throws where it has it with another. */
async function isPublished({ name, version, integrity }, registry) {
  const query = ["view", `${name}@${version}`, "dist.integrity", "--json", "--prefer-online", "--loglevel=silent"]
  const { ok, output } = await run(npm(...query, ...registry))
  // Nothing is printed of a version that a known package lacks.
  const answer = output.trim() === "" ? undefined : JSON.parse(output)
  if (!ok && answer?.error?.code === "E404") return false
  if (!ok) throw new Error(`The registry did not say whether it has ${name} ${version}.\n${output}`)
  if (answer !== undefined && answer !== integrity) {
    throw new Error(`${name} ${version} is published already, with other content: raise the version.`)
  }
  return answer === integrity
}
