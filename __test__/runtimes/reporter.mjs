// A reporter for node --test: each test as a line of JSON, and each deprecation that its process warns of.
import { resolve } from "node:path"

export default async function* lines(source) {
  for await (const { type, data } of source) {
    if (type === "test:stderr") {
      for (const [warning] of data.message.matchAll(/\[DEP\d+\].*/g)) yield `${JSON.stringify({ warning })}\n`
    }
    if (type !== "test:pass" && type !== "test:fail") continue
    // A suite is no test, and a file is none either, unless it ended early.
    const isFile = data.file !== undefined && resolve(data.name) === resolve(data.file)
    if (data.details?.type === "suite" || data.details?.error?.failureType === "subtestsFailed") continue
    if (isFile && type === "test:pass") continue
    const outcome = data.skip !== undefined || data.todo !== undefined ? "skipped" : type.slice("test:".length)
    const error = data.details?.error
    yield `${JSON.stringify({ name: data.name, outcome, error: String(error?.cause?.stack ?? error?.cause ?? error ?? "") })}\n`
  }
}
