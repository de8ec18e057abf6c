import { Argument, Option, type Command } from "commander"
import { follow } from "../http/client/follow"
import { push } from "../http/client/push"
import { checkAddress } from "../http/client/remote"
import { DB, addCommand, does, repeatedOption } from "./command"
import { withStore } from "./database"
import { EXIT, described } from "./failure"
import { LEFT, STORED, followed, type Told } from "./following"
import type { Output } from "./output"
import { counted } from "./text"
import { addTokenOptions, tokenOf, type TokenOptions } from "./token"
import { warnOfLeft } from "./unapplied"
import { watched } from "./watched"

const URL_ARGUMENT = new Argument("<url>", "the server's address: https://example.org")

/** `follow`, `push`: a log and a server. */
export function addShare(program: Command): void {
  const following = addCommand(program, "follow", {
    summary: "keep a log up with a server's",
    about: `Catches up, then takes what is recorded there as it comes, over broken connections, until Ctrl-C. Makes the database
where there is none. Events are stored and not projected: the program does that with \`reproject\`, and until then it cannot
write those aggregates. An aggregate that cannot go on is told of, and others do (exit code 3).`,
    examples: [
      ["follow app.db https://example.org --token-file token.txt", "everything, until Ctrl-C"],
      ["follow app.db https://example.org --aggregate ses_1 --once", "one session, as it is now"],
    ],
  })
    .addArgument(DB)
    .addArgument(URL_ARGUMENT)
  addTokenOptions(following)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "claim what it brings for this owner; leave what another one owns"))
    .option("--once", "end when it has caught up, or when the server cannot be reached")
  does(following, (output, options: FollowFlags, db: string, url: string) => {
    // Before a database is made for it.
    const token = tokenOf(options)
    checkAddress({ url, token })
    const { aggregate: aggregates, owner, once } = options
    return withStore(db, "create", (store) => {
      const start = (told: Told) => follow(store, { url, token, aggregates, owner, ...told, ...STORED })
      return followed(output, store, { place: url, once, brings: true, left: LEFT, start })
    })
  })

  const pushing = addCommand(program, "push", {
    summary: "send a server what it lacks of a log",
    about: `Asks what the server has, and sends what is newer, in batches; whatever interrupts it, another call goes on where the
server stands. An aggregate that the server refuses is told of, and others are sent (exit code 3).`,
    examples: [
      ["push app.db https://example.org --token-file token.txt", "everything that is newer"],
      ["push app.db https://example.org --aggregate ses_1 --owner laptop", "one session, claimed there for laptop"],
    ],
  })
    .addArgument(DB)
    .addArgument(URL_ARGUMENT)
  addTokenOptions(pushing)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "claim what it sends for this owner, on the server"))
  does(pushing, pushLog)
}

interface PushFlags extends TokenOptions {
  aggregate?: string[]
  owner?: string
}

async function pushLog(output: Output, flags: PushFlags, db: string, url: string): Promise<number> {
  const { aggregate: aggregates, owner } = flags
  const token = tokenOf(flags)
  return withStore(db, "read", async (store) => {
    const { refused, ...result } = await watched(output, "Pushing", "events", (progress, signal) => {
      const onProgress = ({ events, total }: { events: number; total: number }) => progress.to(events, total)
      return push(store, { url, token, aggregates, owner, signal, onProgress })
    })
    const { aggregates: accepted, events, applied, duplicate } = result
    if (output.json) {
      const left = refused.map(({ aggregateID, error }) => ({ aggregateID, ...described(error) }))
      await output.printJSON({ ...result, refused: left })
    } else {
      const sent = `Pushed ${counted(events, "event")} of ${counted(accepted, "aggregate")}`
      const known =
        duplicate === 0
          ? ""
          : `: ${counted(applied, "was new", "were new")}, ${counted(duplicate, "was", "were")} there already`
      await output.print(`${sent}${known}.`)
    }
    await warnOfLeft(output, refused, "was refused by the server")
    return refused.length === 0 ? EXIT.done : EXIT.findings
  })
}

interface FollowFlags extends TokenOptions {
  aggregate?: string[]
  owner?: string
  once?: boolean
}
