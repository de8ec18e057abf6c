// node scripts/make-old-files.mjs: makes the files of __test__/fixtures that only an earlier program would make: databases with
// the older tables, sound and damaged, and one of the present format. Each is committed, since what made it will be gone; run
// it again only for a file that is missing, or while the format has not been released.
import { readFileSync, rmSync, mkdtempSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { root } from "./process.mjs"

const require = createRequire(import.meta.url)
const { createRegistry, define, open } = require("../dist/index.js")
const { damaged, olderTables } = require("../__test__/older-tables.js")

const folder = mkdtempSync(join(tmpdir(), "syncline-fixtures-"))
const recording = readFileSync(join(root, "examples/agent-session/recording/sessions.events.jsonl"), "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line))
/** The smaller sessions of the recording, so that the files are small, too. */
const events = recording.filter(
  ({ aggregateID }, _, all) => all.filter((event) => event.aggregateID === aggregateID).length <= 150,
)

await keep("older", (path) => olderTables(path, events, { created: true, owner: true, index: true }))
await keep("older-bare", (path) => olderTables(path, events, { shuffled: true }))
await keep("older-damaged", (path) => {
  olderTables(path, events, { created: true, owner: true, unique: false })
  damaged(path)
})
await keep("format-1", format1)
rmSync(folder, { recursive: true })

async function keep(name, make) {
  const path = join(folder, `${name}.db`)
  await make(path)
  const bytes = gzipSync(readFileSync(path), { level: 9 })
  writeFileSync(join(root, `__test__/fixtures/${name}.db.gz`), bytes)
  console.log(`${name}.db.gz: ${bytes.length} bytes`)
}

/** Rows, segments, a gap, a tombstone with its event, an owner, metadata. */
async function format1(path) {
  const registry = createRegistry()
  const schema = { "~standard": { version: 1, vendor: "fixture", validate: (value) => ({ value }) } }
  const note = (name) =>
    define({ type: `note.${name}`, version: 1, aggregate: "noteID", schema, projector: "none", registry })
  const [Written, Removed] = [note("written"), note("removed")]
  const store = open(path, { registry, packing: false })
  const event = (noteID, seq) => ({
    id: `evt_${noteID}_${seq}`,
    type: "note.written.1",
    seq,
    aggregateID: noteID,
    data: { noteID, text: `text ${seq}` },
    created: 1_700_000_000_000 + seq,
  })
  const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n)
  store.replayAll(range(0, 300).map((seq) => event("packed", seq)))
  store.replayAll(range(0, 3).map((seq) => event("gone", seq)))
  store.replayAll([
    ...range(0, 5).map((seq) => event("gappy", seq)),
    { kind: "gap", aggregateID: "gappy", after: 4, through: 8 },
    ...range(9, 12).map((seq) => event("gappy", seq)),
  ])
  store.remove("gone", { event: [Removed, { noteID: "gone" }] })
  await store.maintain()
  // What comes now stays rows.
  store.replayAll(range(300, 320).map((seq) => event("packed", seq)))
  store.run(Written, { noteID: "rows" }, { created: 1_700_000_000_000, metadata: { by: "somebody" } })
  store.claim("rows", "somebody")
  store.close()
}
