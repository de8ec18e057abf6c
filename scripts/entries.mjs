// Writes into dist/, after tsc, what programs import: for each entry point a file for `require` and one for `import`. There
// is one build, which both hand on, so that `SyncError` and the default registry exist once whichever way they are
// imported. Both first load what looks at the runtime, since an older Node cannot read the rest.
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const dist = fileURLToPath(new URL("../dist/", import.meta.url))
const require = createRequire(import.meta.url)
const entries = ["index", "drizzle", "sync-event", "http", "nats"]

// Node 20 reports what a CommonJS module throws under `import()` a second time, as unhandled, though it is caught: so for
// `import` it is an ES module that throws.
writeFileSync(
  `${dist}loadable.cjs`,
  `try {
  require("./runtime.js")
  require("./native.js")
} catch (error) {
  exports.fault = error
}
`,
)
writeFileSync(
  `${dist}loadable.mjs`,
  'import loadable from "./loadable.cjs"\n\nif (loadable.fault) throw loadable.fault\n',
)

for (const entry of entries) {
  const values = Object.keys(require(`${dist}${entry}.js`)).filter((name) => name !== "default")
  writeFileSync(`${dist}${entry}.cjs`, `require("./runtime.js")\nmodule.exports = require("./${entry}.js")\n`)
  writeFileSync(`${dist}${entry}.mjs`, moduleText(entry, values))
  writeFileSync(`${dist}${entry}.d.mts`, declarationText(entry))
  console.log(`dist/${entry}.mjs: ${values.join(", ")}`)
}

dropUnreachable()

/** Declarations that no entry point leads to are read by nobody, and would be a tenth of what is published. */
function dropUnreachable() {
  const reached = new Set()
  const follow = (file) => {
    if (reached.has(file)) return
    reached.add(file)
    for (const [, path] of readFileSync(file, "utf8").matchAll(/(?:from |import\()"(\.[^"]+?)(?:\.js)?"/g)) {
      const next = `${join(dirname(file), path)}.d.ts`
      if (existsSync(next)) follow(next)
    }
  }
  for (const entry of entries) follow(join(dist, `${entry}.d.ts`))
  for (const name of readdirSync(dist, { recursive: true })) {
    if (name.endsWith(".d.ts") && !reached.has(join(dist, name))) rmSync(join(dist, name))
  }
}

function moduleText(entry, values) {
  const lines = values.map((name) => `export const ${name} = commonjs.${name}`)
  return [`import "./loadable.mjs"`, `import commonjs from "./${entry}.js"`, "", ...lines, ""].join("\n")
}

/**
 * drizzle-orm declares its classes once for `import` and once for `require`, and the two do not match: the entry that
 * names them is declared in full, so that it finds the declarations of the importing side.
 */
function declarationText(entry) {
  const file = `${dist}${entry}.d.ts`
  if (entry !== "drizzle") return `export { ${exportedNames(file).join(", ")} } from "./${entry}.js"\n`
  const text = readFileSync(file, "utf8").replace(/^\/\/# sourceMappingURL=.*$/m, "")
  return text.replace(/from "(\.\/[\w-]+)"/g, 'from "$1.js"')
}

/** Every name, of a value or a type, that a declaration file exports; tsc writes them in these forms only. */
function exportedNames(file) {
  const text = readFileSync(file, "utf8")
  const names = new Set()
  const declared = /^export (?:declare )?(?:abstract )?(?:const|function|class|interface|type|enum|namespace) (\w+)/gm
  for (const [, name] of text.matchAll(declared)) names.add(name)
  for (const [, list] of text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)) {
    for (const item of list.split(",")) {
      const name = item
        .trim()
        .replace(/^type /, "")
        .split(" as ")
        .at(-1)
      if (name) names.add(name)
    }
  }
  if (/^export \*/m.test(text)) throw new Error(`${file} re-exports without names`)
  return [...names]
}
