import { deepStrictEqual } from "node:assert"
import { type ChildProcess, fork } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { type Node, makeCluster } from "./cluster"
import type { Answer, Order } from "./place"
import { findServer } from "./server"
import { contents, openSessions, recorded } from "./sessions"

// Three servers, a writer and three readers, each a process. While the writer writes, servers are killed and paused at random, so
// that now and then there is no majority; half-way a session changes its owner. At the end all devices must hold the same.

const [seed = "1", events = "2204", extra] = process.argv.slice(2)
if (!/^\d+$/.test(seed) || !/^\d+$/.test(events) || Number(events) < 2 || extra !== undefined) {
  console.error("usage: npm start [-- seed [how many events]]")
  process.exit(2)
}

/** Milliseconds in which the writer writes; the reader that gets a session has a third of that to write on. */
const DURATION = 6_000 + 8 * Number(events)
const HEIR = "reader-1"

/** A process, with what it has told. */
class Device {
  readonly #process: ChildProcess
  readonly told: Answer[] = []

  constructor(
    readonly name: string,
    readonly file: string,
    program: string,
    args: string[],
  ) {
    this.#process = fork(join(__dirname, program), args)
    this.#process.on("message", (answer: Answer) => this.told.push(answer))
    this.#process.on("exit", (code) => code === 0 || this.told.push({ wrong: `it ended with ${code}` }))
  }

  tell(order: Order): void {
    this.#process.send(order)
  }

  /** Waits for the answer that has this. */
  async hear<Name extends keyof Answer>(name: Name): Promise<NonNullable<Answer[Name]>> {
    for (;;) {
      const wrong = this.told.find((answer) => answer.wrong !== undefined)
      if (wrong !== undefined) throw new Error(`${this.name}: ${wrong.wrong}`)
      const found = this.told.find((answer) => answer[name] !== undefined)?.[name]
      if (found !== undefined) return found
      await pause(20)
    }
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve))
    this.tell({ end: true })
    await ended
  }

  kill(): void {
    this.#process.kill("SIGKILL")
  }
}

async function main(): Promise<void> {
  const began = performance.now()
  const folder = mkdtempSync(join(tmpdir(), "syncline-example-"))
  const server = findServer()
  print("servers", `three of ${server.told}`)
  const nodes = await makeCluster(server.path, folder)
  const servers = nodes.map(({ url }) => url).join(",")

  const all = recorded(Number(events))
  const sequences: Record<string, number> = {}
  for (const { sessionID } of all) sequences[sessionID] = (sequences[sessionID] ?? -1) + 1
  const sessions = Object.keys(sequences)
  const some = sessions.filter((_, index) => index % 3 === 0)

  const file = (name: string) => join(folder, `${name}.db`)
  const start = (name: string, more: string[] = []) =>
    new Device(name, file(name), "reader.js", [name, file(name), servers, events, String(DURATION / 3), ...more])
  const writer = new Device("writer", file("writer"), "writer.js", [
    file("writer"),
    servers,
    events,
    String(DURATION),
    HEIR,
  ])
  const heir = start(HEIR)
  const readers = [heir, start("reader-2"), start("reader-3", [some.join(",")])]
  const devices = [writer, ...readers]
  // Whatever happens, nothing is left running.
  process.on("exit", () => {
    for (const device of devices) device.kill()
    for (const node of nodes) void node.kill()
  })

  for (const node of nodes) node.start()
  const chaos = new Chaos(nodes, Number(seed))
  const breaking = chaos.run()
  const handing = writer.hear("handed").then(async (handed) => {
    heir.tell({ goOn: handed })
    return { ...handed, written: await heir.hear("written") }
  })
  const written = await writer.hear("written")
  const handed = await handing
  chaos.stop()
  await breaking
  print("written", `${format(written)} events of ${sessions.length} sessions by the writer, in ${since(began)}`)
  const { sessionID, seq, epoch, after } = handed
  const told = `at seq ${seq} in ${after.toFixed(0)} ms, epoch ${epoch}`
  print("handed", `${sessionID} to ${HEIR} ${told}; it wrote ${format(handed.written)} more`)
  print("broken", `servers were killed ${chaos.kills} times and paused ${chaos.pauses} times (seed ${seed})`)

  const mended = performance.now()
  const waits = await Promise.all(
    devices.map(async (device) => {
      const own = device === readers[2] ? some : sessions
      device.tell({ reach: Object.fromEntries(own.map((id) => [id, sequences[id] as number])) })
      const { waited } = await device.hear("reached")
      return `${device.name} ${waited}`
    }),
  )
  print("caught", `up ${since(mended)} after the last server was back; times that they waited: ${waits.join(", ")}`)
  await Promise.all(devices.map((device) => device.end()))
  await compare(devices, sessions, some)
  print("done", `in ${since(began)}`)
  await Promise.all(nodes.map((node) => node.kill()))
  rmSync(folder, { recursive: true })
}

async function compare([writer, ...readers]: Device[], sessions: string[], some: string[]): Promise<void> {
  const here = openSessions((writer as Device).file, "writer")
  for (const { name, file } of [writer as Device, ...readers]) {
    const there = openSessions(file, name)
    const own = name === "reader-3" ? some : sessions
    deepStrictEqual([...there.sequences().keys()].toSorted(), own.toSorted())
    deepStrictEqual(contents(there, own), contents(here, own))
    deepStrictEqual(await there.verify(), [])
    const count = (table: string) => there.db.prepare(`SELECT count(*) FROM ${table}`).pluck().get() as number
    const tables = ["session", "message", "part"].map((table) => `${format(count(table))} ${table}s`).join(", ")
    print(
      "equal",
      `${name.padEnd(8)} ${tables}, ${format(there.stats().events)} events, owners and epochs; it verifies`,
    )
    there.close()
  }
  here.close()
}

/** Kills or pauses a server, or two, and starts them again, until it is stopped. The same seed does the same. */
class Chaos {
  kills = 0
  pauses = 0
  readonly #stop = new AbortController()
  #state: number

  constructor(
    private readonly nodes: Node[],
    seed: number,
  ) {
    this.#state = seed
  }

  stop(): void {
    this.#stop.abort()
  }

  async run(): Promise<void> {
    // Until the stream has been made.
    await this.#pause(4_000)
    while (!this.#stop.signal.aborted) {
      const first = this.#below(this.nodes.length)
      // Without a majority nothing can be published. Everybody waits until there is one again.
      const broken = this.#below(4) === 0 ? [first, (first + 1) % this.nodes.length] : [first]
      await Promise.all(broken.map((index) => this.#break(this.nodes[index] as Node)))
      await this.#pause(1_000 + this.#below(2_000))
    }
  }

  async #break(node: Node): Promise<void> {
    const length = 500 + this.#below(2_500)
    if (this.#below(2) === 0) {
      this.kills++
      await node.kill()
      await this.#pause(length)
      node.start()
    } else {
      this.pauses++
      node.pause()
      await this.#pause(length)
      node.resume()
    }
  }

  async #pause(milliseconds: number): Promise<void> {
    await pause(milliseconds, undefined, { signal: this.#stop.signal }).catch(() => {})
  }

  /** Tommy Ettinger's mulberry32. */
  #below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound)
  }
}

function since(began: number): string {
  return `${((performance.now() - began) / 1000).toFixed(1)} s`
}

function format(count: number): string {
  return count.toLocaleString("en")
}

function print(label: string, text: string): void {
  console.log(`${label.padEnd(8)} ${text}`)
}

void main().catch((error: unknown) => {
  console.error(error)
  process.exit(1)
})
