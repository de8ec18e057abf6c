// A reporter for node --test that writes its counts as JSON: reading them from another reporter's text would break with a
// release of Node.
import { resolve } from "node:path"

export default async function* totals(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  const empty = new Set()
  const seen = new Set()
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue
    // Node 20 reports a file without tests as one passed test, and a file that ended early as one failed test.
    if (data.file !== undefined && resolve(data.name) === data.file) {
      if (type === "test:fail") counts.failed++
      else if (!seen.has(data.file)) empty.add(data.file)
      continue
    }
    seen.add(data.file)
    if (data.details?.type === "suite") continue
    if (data.skip !== undefined || data.todo !== undefined) counts.skipped++
    else if (type === "test:pass") counts.passed++
    else counts.failed++
  }
  yield JSON.stringify({ ...counts, empty: [...empty] })
}
