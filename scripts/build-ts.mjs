// Compiles lib/ to dist/: one CommonJS build by tsc, then the ESM entries that re-export it by name.
import { rmSync } from "node:fs"
import { join } from "node:path"
import { root, run, tool } from "./process.mjs"

// What a deleted source left behind must not be packed.
rmSync(join(root, "dist"), { recursive: true, force: true })
for (const command of [tool("typescript", "-p", "."), [process.execPath, "scripts/esm.mjs"]]) {
  const { ok } = await run(command, { show: true })
  if (!ok) process.exit(1)
}
