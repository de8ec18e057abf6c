// Compiles lib/ to dist/: one CommonJS build by tsc, then the entries that programs import. Comments go to the
// declarations, where editors show them, and not to the JavaScript, of which they are a quarter.
import { rmSync } from "node:fs"
import { join } from "node:path"
import { root, run, tool } from "./process.mjs"

// What a deleted source left behind must not be packed.
rmSync(join(root, "dist"), { recursive: true, force: true })
const commands = [
  tool("typescript", "-p", ".", "--emitDeclarationOnly"),
  tool("typescript", "-p", ".", "--declaration", "false", "--removeComments"),
  [process.execPath, "scripts/entries.mjs"],
]
for (const command of commands) {
  const { ok } = await run(command, { show: true })
  if (!ok) process.exit(1)
}
