import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { join } from "node:path"

/** One server of a cluster, which can be killed, paused and started again, on the files that it left. */
export class Node {
  #process: ChildProcess | undefined

  constructor(
    private readonly program: string,
    private readonly config: string,
    readonly url: string,
  ) {}

  start(): void {
    this.#process = spawn(this.program, ["--config", this.config], { stdio: "ignore" })
  }

  /** As a power cut of its machine would, but for what the disk has not got yet. */
  async kill(): Promise<void> {
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await ended
  }

  /** It keeps its connections and answers nobody. */
  pause(): void {
    this.#process?.kill("SIGSTOP")
  }

  resume(): void {
    this.#process?.kill("SIGCONT")
  }
}

/** Three servers that know of each other, not started yet, with their files in a folder. */
export async function makeCluster(program: string, folder: string): Promise<Node[]> {
  const names = ["one", "two", "three"]
  const ports = await freePorts(2 * names.length)
  const routes = names.map((_, index) => `nats://127.0.0.1:${ports[names.length + index]}`)
  return names.map((name, index) => {
    const own = join(folder, name)
    mkdirSync(own)
    const config = join(own, "server.conf")
    writeFileSync(
      config,
      `server_name: ${name}
host: 127.0.0.1
port: ${ports[index]}
log_file: "${join(own, "log")}"
jetstream { store_dir: "${own}" }
cluster {
  name: example
  listen: "127.0.0.1:${ports[names.length + index]}"
  routes: [ ${routes.join(", ")} ]
}
`,
    )
    return new Node(program, config, `127.0.0.1:${ports[index]}`)
  })
}

/** They come back at the same addresses. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  await Promise.all(
    servers.map((server) => new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve))),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => void server.close(resolve))))
  return ports
}
