import { createInterface } from "node:readline/promises"
import { Argument, type Command } from "commander"
import { show } from "../errors"
import { AGGREGATE, DB, addCommand, does, integerOption } from "./command"
import { withStore } from "./database"
import { EXIT, UsageError } from "./failure"
import { unknown } from "./log"
import type { Output } from "./output"
import { printable } from "./text"

/** `claim`, `rm`: who may write an aggregate, and that it is no more. */
export function addOwn(program: Command): void {
  const claim = addCommand(program, "claim", {
    summary: "make somebody the owner of an aggregate, or release it",
    about: `Takes it from whoever owns it. It binds programs that open their store with an \`owner\`: they are refused
(ERR_NOT_OWNER) what another one owns.`,
    examples: [
      ["claim app.db ses_1 phone", "phone may write ses_1 from now on"],
      ["claim app.db ses_1 phone --expected-epoch 3", "only if its owner has not changed since epoch 3"],
      ["claim app.db ses_1 --release", "anybody may write it"],
    ],
  })
  claim
    .addArgument(DB)
    .addArgument(AGGREGATE)
    .addArgument(new Argument("[owner]", "the name of the new owner"))
    .option("--release", "nobody is to own it")
    .addOption(integerOption("--expected-epoch <n>", "refuse where it has another epoch", 0))
  does(claim, claimAggregate)

  const rm = addCommand(program, "rm", {
    summary: "erase an aggregate's events",
    about: `A tombstone stays, by which readers learn of it; the seqs are never used again. The program's own tables are left as
they are: only the program knows which rows belong to an aggregate. If it has an event for deletion, let it remove the
aggregate itself (\`store.remove\` with \`event\`).`,
    examples: [
      ["rm app.db ses_1", "asks first"],
      ["rm app.db ses_1 --yes", "does not ask, as scripts need it"],
    ],
  })
  rm.addArgument(DB).addArgument(AGGREGATE).option("--yes", "do not ask")
  does(rm, remove)
}

interface ClaimOptions {
  release?: boolean
  expectedEpoch?: number
}

async function claimAggregate(
  output: Output,
  options: ClaimOptions,
  db: string,
  aggregateID: string,
  owner?: string,
): Promise<void> {
  const { release = false, expectedEpoch } = options
  if (release && owner !== undefined) throw new UsageError("Give an owner or --release, not both")
  if (!release && owner === undefined) throw new UsageError("Give the name of the new owner, or --release")
  await withStore(db, "write", async (store) => {
    const before = store.owner(aggregateID)
    const { owner: now, epoch } = store.claim(aggregateID, owner ?? null, { expectedEpoch })
    if (output.json) return output.printJSON({ aggregateID, owner: now, epoch })
    const name = printable(aggregateID)
    const earlier = before?.owner == null || before.owner === now ? "" : `, before: ${printable(before.owner)}`
    const news = before === undefined ? " It is new to this log, and has no events yet." : ""
    await output.print(
      `${now === null ? `Nobody owns ${name}` : `${printable(now)} owns ${name}`} (epoch ${epoch}${earlier}).${news}`,
    )
  })
}

async function remove(
  output: Output,
  { yes = false }: { yes?: boolean },
  db: string,
  aggregateID: string,
): Promise<number> {
  const { seq, owner } = await withStore(db, "read", (store) => {
    const { owner } = store.owner(aggregateID) ?? {}
    if (owner === undefined) throw unknown(aggregateID)
    return { seq: store.sequence(aggregateID), owner }
  })
  if (!yes) {
    if (output.json || !process.stdin.isTTY)
      throw new UsageError("rm erases events: without a terminal to ask on, it needs --yes")
    const owned = owner === null ? "" : `, owned by ${printable(owner)}`
    await output.note("The program's own tables are left as they are.")
    const question = `Erase all events of ${printable(show(aggregateID))} (last seq ${seq}${owned}) in ${printable(db)}? [y/N] `
    if (!(await confirmed(question))) {
      await output.note("Nothing was erased.")
      return EXIT.failed
    }
  }
  await withStore(db, "write", (store) => store.remove(aggregateID))
  if (output.json) await output.printJSON({ aggregateID, seq, removed: true })
  else
    await output.print(
      `Erased the events of ${printable(aggregateID)} through seq ${seq}; the program's own tables are as they were.`,
    )
  return EXIT.done
}

/** Without the editing of lines, so that Ctrl-C ends the process as ever. */
async function confirmed(question: string): Promise<boolean> {
  const asking = createInterface({ input: process.stdin, output: process.stderr, terminal: false })
  try {
    // Input that ends leaves a question without an answer.
    const closed = new Promise<string>((resolve) => void asking.once("close", () => resolve("")))
    return /^y(es)?$/i.test((await Promise.race([asking.question(question), closed])).trim())
  } finally {
    asking.close()
  }
}
