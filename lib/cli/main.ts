#!/usr/bin/env node
// With `require`, and in syntax that an old Node understands, so that what keeps Syncline from being loaded is told like
// any other error, and not as a crash.
try {
  // oxlint-disable-next-line import/no-unassigned-import
  require("../runtime")
  const { main } = require("./program") as typeof import("./program")
  // All that was written has been taken, and whatever else may still wait for something is not waited for.
  void main(process.argv.slice(2)).then((code) => process.exit(code))
} catch (error) {
  const { code, message } = error as { code?: string; message: string }
  if (code !== "ERR_UNSUPPORTED_RUNTIME" && code !== "ERR_ADDON_NOT_LOADED") throw error
  const [first, ...others] = message.split("\n")
  const text = [`error: ${first} (${code})`, ...others].join("\n")
  const document = JSON.stringify(Object.assign({ code, message }, error))
  process.stderr.write((process.argv.indexOf("--json") < 0 ? text : document) + "\n")
  process.exitCode = 1
}
