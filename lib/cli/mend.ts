import { resolve } from "node:path"
import { setImmediate } from "node:timers/promises"
import type { Command } from "commander"
import { adoption, type Adopted, type AdoptProgress } from "../adopt"
import type { MaintainReport } from "../maintain"
import { checkSettings } from "../settings"
import type { Finding, VerifyProgress } from "../verify"
import { DB, addCommand, does } from "./command"
import { assertExists, withStore } from "./database"
import { EXIT } from "./failure"
import { printTable } from "./look"
import type { Output } from "./output"
import type { Progress } from "./progress"
import { counted, printable, size } from "./text"
import { watched } from "./watched"

/** `verify`, `maintain`, `adopt`: what keeps a file sound and small. */
export function addMend(program: Command): void {
  const verify = addCommand(program, "verify", {
    summary: "look whether a file is sound, and mend it",
    about: `Reads everything, beside programs that go on reading and writing. With --repair what can be mended without loss
is. Exits with 3 where anything is found that is not mended. Types that only the program defines are no finding here.`,
    examples: [
      ["verify app.db", "look only"],
      ["verify app.db --repair", "mend what can be mended without loss"],
      ["verify app.db --json | jq '.findings[].code'", "what kinds of damage there are"],
    ],
  })
  verify.addArgument(DB).option("--repair", "mend what can be mended without loss")
  does(verify, verifyFile)

  const maintain = addCommand(program, "maintain", {
    summary: "pack old events, and shrink the file",
    about: `Works in slices beside programs that go on writing, and can be stopped anywhere. Rules of compaction
(\`compactKey\`) belong to the program's definitions: this command drops no event.`,
    examples: [
      ["maintain app.db", "pack, and give free pages back"],
      ["maintain app.db --rewrite", "also shrink a file that cannot give pages back, in one long transaction"],
    ],
  })
  maintain
    .addArgument(DB)
    .option("--rewrite", "write the whole file anew; needs as much room again, and keeps others from writing")
  does(maintain, maintainFile)

  const adopt = addCommand(program, "adopt", {
    summary: "convert the tables of an older event log",
    about: `Tables event(id, aggregate_id, seq, type, data[, created]) and event_sequence(aggregate_id, seq[, owner_id]) become
a log of syncline, in place and without loss. It may be stopped anywhere, and goes on when it is called again; until it is done
no program can open the file. Keep a copy if older programs may need it.`,
    examples: [["adopt app.db", "convert, or go on converting"]],
  }).addArgument(DB)
  does(adopt, adoptFile)
}

async function verifyFile(output: Output, { repair = false }: { repair?: boolean }, db: string): Promise<number> {
  return withStore(db, repair ? "write" : "read", async (store) => {
    const total = store.stats().events
    let last: VerifyProgress | undefined
    const told = await watched(output, "Verifying", "events", (progress, signal) =>
      store.verify({
        repair,
        signal,
        onProgress: (report) => {
          last = report
          if (report.phase === "file") progress.to(0, undefined, "Checking the file")
          else progress.to(report.events, total, "Verifying")
        },
      }),
    )
    const findings = told.filter(({ code }) => code !== "unknown-type")
    const open = findings.filter(({ repaired }) => repaired === undefined)
    const { events = 0, aggregates = 0, bytes = 0 } = last ?? {}
    if (output.json) await output.printJSON({ sound: findings.length === 0, aggregates, events, bytes, findings })
    else {
      await output.printLines(findings.flatMap((finding) => findingLines(output, finding)))
      const checked = `${counted(events, "event")} of ${counted(aggregates, "aggregate")} checked`
      const mended = repair ? `, ${findings.length - open.length} mended` : ""
      await output.print(
        findings.length === 0
          ? `${output.colors.green("Sound:")} ${checked}.`
          : `${counted(findings.length, "finding")}${mended}; ${checked}.`,
      )
    }
    return open.length === 0 ? EXIT.done : EXIT.findings
  })
}

function findingLines(output: Output, { severity, code, message, repaired }: Finding): string[] {
  const { red, yellow, green } = output.colors
  const line = `${severity === "error" ? red(severity) : yellow(severity)} ${code}: ${printable(message)}`
  return repaired === undefined ? [line] : [line, `  ${green("repaired:")} ${printable(repaired)}`]
}

async function maintainFile(output: Output, { rewrite = false }: { rewrite?: boolean }, db: string): Promise<number> {
  return withStore(db, "write", async (store) => {
    const { complete, ...report } = await watched(output, "Packing", "events", (progress, signal) => {
      const onProgress = ({ events, phase }: MaintainReport) => progress.to(events, undefined, DOING[phase])
      return store.maintain({ rewrite, signal, onProgress })
    })
    if (output.json) await output.printJSON({ ...report, complete })
    else {
      const packed =
        report.events === 0
          ? "Nothing was left to pack"
          : `Packed ${counted(report.events, "event")} (${size(report.bytes)})`
      const held = report.truncated ? "" : " A reader keeps the WAL from being cut."
      await output.print(`${packed}; the file gave back ${size(report.freedBytes)}.${held}`)
    }
    if (report.skipped.length === 0) return EXIT.done
    const { skipped } = report
    const message = `${counted(skipped.length, "aggregate")} could not be read and ${skipped.length === 1 ? "was" : "were"} left: ${skipped.join(", ")}`
    await output.warn(`${message}. syncline verify says what is wrong.`, { skipped })
    return EXIT.findings
  })
}

const DOING: Record<MaintainReport["phase"], string> = {
  pack: "Packing",
  compact: "Pressing harder",
  rewrite: "Writing the file anew",
  vacuum: "Giving pages back",
  analyze: "Counting for SQLite",
  checkpoint: "Cutting the WAL",
  done: "Done",
}

async function adoptFile(output: Output, _options: object, db: string): Promise<number> {
  assertExists(db)
  const adopted = await watched(output, "Adopting", "aggregates", (progress, signal) =>
    adoptInSteps(db, progress, signal),
  )
  if (adopted === undefined) {
    await (output.json ? output.printJSON(null) : output.print("The file has no older tables: nothing was changed."))
    return EXIT.done
  }
  if (output.json) await output.printJSON(adopted)
  else {
    const { events, bytes, aggregates, findings, findingCount } = adopted
    await output.print(`Adopted ${counted(events, "event")} (${size(bytes)}) of ${counted(aggregates, "aggregate")}.`)
    if (findingCount > 0) {
      await output.print("", `${counted(findingCount, "finding")}, all in the table event_adoption_finding:`)
      const rows = findings.map(({ kind, message }) => [kind, message])
      await printTable(output, [{ title: "KIND" }, { title: "WHAT", shrinks: true }], rows)
    }
  }
  return adopted.findingCount === 0 ? EXIT.done : EXIT.findings
}

/** As `open` does it, but with turns of the event loop between the steps, in which a signal can be heard. */
async function adoptInSteps(db: string, progress: Progress, signal: AbortSignal): Promise<Adopted | undefined> {
  const { connection } = checkSettings({ packing: false })
  const total = ({ aggregates, remainingAggregates }: AdoptProgress) => aggregates + remainingAggregates
  let adopted: Adopted | undefined
  for (const step of adoption(resolve(db), { ...connection, log: true })) {
    progress.to(step.progress.aggregates, total(step.progress))
    adopted = step.adopted
    if (adopted === undefined) await setImmediate()
    signal.throwIfAborted()
  }
  return adopted
}
