// What every entry point loads before anything else. The rest of the library has syntax that an older Node cannot read, and
// an addon built for a newer Node-API level than the runtime's does not fail to load: it crashes. So whoever runs on such
// a runtime is told here, in syntax that Node 12 understands, and without `SyncError`, which it does not.

/** What has been looked for when this module is there. */
export const lowest = { node: "20.3", level: 8 }

const versions = process.versions

if (versions["bun"] === undefined && versions["deno"] === undefined && isOlder(versions.node, lowest.node)) {
  refuse(
    `Syncline needs Node ${lowest.node} or newer, and this is Node ${versions.node}.\n` +
      "Install a current one, for example:\n    nvm install --lts",
  )
}
if (!(Number(versions["napi"]) >= lowest.level)) {
  refuse(
    `Syncline needs Node-API level ${lowest.level} or newer, and this runtime has ${versions["napi"] || "none"}.\n` +
      "Install a current Node, Bun or Deno, for example:\n    nvm install --lts",
  )
}

function isOlder(version: string, than: string): boolean {
  const [major, minor] = version.split(".").map(Number) as [number, number]
  const [lowestMajor, lowestMinor] = than.split(".").map(Number) as [number, number]
  return major < lowestMajor || (major === lowestMajor && minor < lowestMinor)
}

function refuse(message: string): never {
  throw Object.assign(new Error(message), { name: "SyncError", code: "ERR_UNSUPPORTED_RUNTIME" })
}
