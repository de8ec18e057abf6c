// npm runs it as `prepare`: in a clone after `npm install`, and where a project depends on the repository itself, before it
// packs the clone that it made. The tarball then holds the addon for this platform; the published package has no script.
import { build } from "./setup.mjs"

try {
  await build()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
