import { deepStrictEqual } from "node:assert"
import { type ChildProcess, fork } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { contents, openSessions } from "./sessions"

// Starts a writer and a reader as processes of their own, kills and restarts both at random until the writer has written all
// its events, and shows that the reader's tables are the writer's at the end.

const [events = "2000", extra] = process.argv.slice(2)
if (!/^\d+$/.test(events) || extra !== undefined) {
  console.error("usage: node examples/two-devices/dist/main.js [how many events]")
  process.exit(2)
}

interface Told {
  sequences?: Record<string, number>
  status?: string
  error?: string
  reached?: true
}

/** A device that can be killed and started again, with what it tells. */
class Device {
  #process: ChildProcess | undefined
  kills = 0

  constructor(
    private readonly program: string,
    private readonly args: string[],
    private readonly hear: (told: Told) => void,
  ) {}

  start(): void {
    const child = fork(join(__dirname, this.program), this.args)
    child.on("message", (told: Told) => this.hear(told))
    this.#process = child
  }

  /** As a power cut would: it is told nothing, and saves nothing. */
  async kill(): Promise<void> {
    const child = this.#process
    if (child === undefined) return
    const ended = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await ended
    this.kills++
  }

  tell(message: object): void {
    this.#process?.send(message)
  }
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "syncline-two-devices-"))
  const files = { writer: join(folder, "writer.db"), reader: join(folder, "reader.db") }
  const port = await freePort()
  const token = randomBytes(16).toString("hex")
  const seen: { sequences?: Record<string, number>; reached?: true; statuses: Record<string, number> } = {
    statuses: {},
  }

  const writer = new Device("writer.js", [files.writer, String(port), token, events], ({ sequences }) => {
    if (sequences !== undefined) seen.sequences = sequences
  })
  const reader = new Device("reader.js", [files.reader, `http://127.0.0.1:${port}`, token], ({ status, reached }) => {
    if (status !== undefined) seen.statuses[status] = (seen.statuses[status] ?? 0) + 1
    if (reached) seen.reached = reached
  })
  try {
    writer.start()
    reader.start()
    while (seen.sequences === undefined) {
      await pause(100 + Math.random() * 700)
      const device = Math.random() < 0.5 ? writer : reader
      await device.kill()
      await pause(Math.random() * 300)
      device.start()
    }
    // The last to be killed may have been the reader, so that it is asked until it answers.
    while (!seen.reached) {
      reader.tell(seen.sequences)
      await pause(50)
    }
    console.log(`written  ${events} events; the writer was killed ${writer.kills} times, the reader ${reader.kills}`)
    const told = Object.entries(seen.statuses).map(([status, times]) => `${status} ${times}`)
    console.log(`reader   ${told.join(", ")}`)
  } finally {
    await Promise.all([writer.kill(), reader.kill()])
  }

  const [here, there] = [openSessions(files.writer), openSessions(files.reader)]
  deepStrictEqual(contents(there), contents(here))
  deepStrictEqual([await here.verify(), await there.verify()], [[], []])
  console.log("equal    sessions, messages and sequences of both devices; both files verify")
  here.close()
  there.close()
  rmSync(folder, { recursive: true })
}

/** The writer comes back at the same address. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => void server.close(resolve))
  return port
}

void main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
