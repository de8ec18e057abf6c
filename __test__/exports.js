"use strict"

// Exports as other programs would write them.

const { createHash } = require("node:crypto")

/** The text of a store's export. */
async function textOf(store) {
  let text = ""
  for await (const chunk of store.export()) text += chunk
  return text
}

/** An event as a line. */
const line = (event) => JSON.stringify({ kind: "event", event })

/** Items as an export with a header and a closing line that fit them. */
function exportOf(items, more = {}) {
  const lines = items.map((item) => (typeof item === "string" ? item : JSON.stringify(item)))
  const body = [JSON.stringify({ syncline: "export", version: 1, created: 0 }), ...lines].join("\n") + "\n"
  const count = (kind) => lines.filter((line) => line.startsWith(`{"kind":"${kind}"`)).length
  const totals = { aggregates: count("synced"), events: count("event"), gaps: count("gap"), removed: count("removed") }
  const sha256 = createHash("sha256").update(body).digest("hex")
  return `${body}${JSON.stringify({ kind: "end", ...totals, bytes: Buffer.byteLength(body), sha256, ...more })}\n`
}
/** The items of such histories, each with its end. */
const exported = (...histories) =>
  histories.flatMap((events) => [
    ...events.map((event) => ({ kind: "event", event })),
    { kind: "synced", aggregateID: events[0].aggregateID, seq: events.at(-1).seq },
  ])

module.exports = { exported, exportOf, line, textOf }
