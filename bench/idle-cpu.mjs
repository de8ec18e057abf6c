// How much of a processor does a process take while it only watches a file that nobody writes, against the same process
// with the store open and not watching? User and system time of all its threads, in 20 s of a process of its own, which
// nothing but one timer keeps alive: what is more than in the process that does not watch is the watcher's.
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { measure } from "./harness.mjs"

const script = fileURLToPath(new URL("idle-cpu.child.mjs", import.meta.url))
// Some seconds after a program has come to rest, V8 collects its garbage twice more, for about 50 ms in all, and never
// again. That belongs to what went before, and it would hide everything that is asked here.
const flags = ["--expose-gc", "--no-memory-reducer"]

function idleSide(name, options = {}) {
  return {
    name,
    ...options,
    sample() {
      const output = execFileSync(process.execPath, [...flags, script, name], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
      })
      const { figure, ...more } = JSON.parse(output)
      return { figure, more }
    },
  }
}

await measure({
  question: "idle-cpu",
  title: "processor time of a process that waits for other processes' commits, while there are none",
  unit: "ms/s",
  rounds: 1,
  warmup: 0,
  sides: [
    idleSide("better-sqlite3 each 10 ms"),
    idleSide("syncline, not watching", { syncline: true }),
    idleSide("syncline, watching", { syncline: true }),
  ],
})
