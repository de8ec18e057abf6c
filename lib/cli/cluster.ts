import { Argument, Option, type Command } from "commander"
import type { Store } from "../store"
import { DB, addCommand, does, integerOption, repeatedOption } from "./command"
import { connected, loadClient, serversOf, type Client, type Servers } from "./connection"
import { withStore } from "./database"
import { LEFT, STORED, followed, type Told } from "./following"
import type { Output } from "./output"

const URLS = new Argument(
  "[url...]",
  "servers of the cluster: nats://user:password@host:4222; else NATS_URL of the environment",
)

/** `relay`, `replicate`: a log and a cluster. */
export function addCluster(program: Command): void {
  const relaying = addCommand(program, "relay", {
    summary: "publish a log on a NATS JetStream cluster",
    about: `Publishes what the cluster lacks, then what any program commits to the file, as it comes, over broken connections,
until Ctrl-C. Makes the stream where there is none. It keeps no state: what the cluster has says where it goes on. An aggregate
that cannot be published is told of, and others are (exit code 3).`,
    examples: [
      ["relay app.db nats://10.0.0.1 nats://10.0.0.2 --owner laptop", "what laptop may write, until Ctrl-C"],
      ["relay app.db localhost --replicas 1 --once", "what there is, to a single server"],
    ],
  })
    .addArgument(DB)
    .addArgument(URLS)
  addClusterOptions(relaying)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "publish for this owner; leave what another one owns"))
    .addOption(integerOption("--replicas <n>", "servers that keep what it makes there (default: 3)", 1, 5))
    .addOption(integerOption("--window <n>", "events of each aggregate left on the stream (default: 1000)", 1))
    .option("--once", "end when all is published, or when the cluster cannot be reached")
  does(relaying, relayLog)

  const replicating = addCommand(program, "replicate", {
    summary: "keep a log up with a NATS JetStream cluster",
    about: `Catches up, then takes what is published there as it comes, over broken connections, until Ctrl-C. Makes the database
where there is none. Events are stored and not projected: the program does that with \`reproject\`, and until then it cannot
write those aggregates. An aggregate that cannot go on is told of, and others do (exit code 3).`,
    examples: [
      ["replicate copy.db nats://10.0.0.1 --creds reader.creds", "everything, until Ctrl-C"],
      ["replicate copy.db localhost --aggregate ses_1 --once", "one session, as it is now"],
    ],
  })
    .addArgument(DB)
    .addArgument(URLS)
  addClusterOptions(replicating)
    .addOption(repeatedOption("--aggregate <id>", "only this aggregate; may be given again"))
    .addOption(new Option("--owner <name>", "claim what it brings for this owner; leave what another one owns"))
    .option("--once", "end when it has caught up, or when the cluster cannot be reached")
  does(replicating, replicateLog)
}

/** Where on the cluster a log is, and who gets in. */
function addClusterOptions(command: Command): Command {
  return command
    .addOption(new Option("--stream <name>", "the stream").default("syncline"))
    .addOption(new Option("--prefix <text>", "what its subjects begin with; default: the stream's name"))
    .addOption(new Option("--creds <file>", "a user's credentials; else NATS_CREDS, NATS_USER or NATS_TOKEN"))
}

interface ClusterFlags {
  stream: string
  prefix?: string
  creds?: string
  aggregate?: string[]
  owner?: string
  once?: boolean
}

interface RelayFlags extends ClusterFlags {
  replicas?: number
  window?: number
}

async function relayLog(output: Output, flags: RelayFlags, db: string, urls: string[]): Promise<number> {
  const { aggregate: aggregates, owner, once, replicas, window } = flags
  const servers = serversOf(urls, flags.creds)
  const client = await loadClient()
  const work = (store: Store) => {
    const relaying = (place: Place, told: Told) =>
      client.relay(store, { ...place, aggregates, replicas, window, ...told })
    const start = (told: Told) => withCluster(client, servers, flags, told, relaying)
    return followed(output, store, { place: servers.place, once, brings: false, left: "is not published", start })
  }
  return withStore(db, "write", work, owner)
}

async function replicateLog(output: Output, flags: ClusterFlags, db: string, urls: string[]): Promise<number> {
  const { aggregate: aggregates, owner, once } = flags
  // Before a database is made for it.
  const servers = serversOf(urls, flags.creds)
  const client = await loadClient()
  return withStore(db, "create", (store) => {
    const replicating = (place: Place, told: Told) =>
      client.replicate(store, { ...place, aggregates, owner, ...told, ...STORED })
    const start = (told: Told) => withCluster(client, servers, flags, told, replicating)
    return followed(output, store, { place: servers.place, once, brings: true, left: LEFT, start })
  })
}

type Place = Pick<Parameters<Client["relay"]>[1], "connection" | "stream" | "prefix">

/** Connects, for as long as some work takes. */
async function withCluster(
  client: Client,
  servers: Servers,
  { stream, prefix = stream }: ClusterFlags,
  told: Told,
  work: (place: Place, told: Told) => Promise<void>,
): Promise<void> {
  const connection = await connected(client, servers, told)
  if (connection === undefined) return
  try {
    await work({ connection, stream, prefix }, told)
  } finally {
    await connection.close()
  }
}
