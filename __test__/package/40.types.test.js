"use strict"

// The declarations as consumers' compilers see them: every entry point, in each way of resolving modules, in an installation
// where only what the package names itself is found.

const assert = require("node:assert/strict")
const path = require("node:path")
const { after, before, describe, test } = require("node:test")
const { clients } = require("./clients.js")
const { release, startWithRelease } = require("./registry.js")

const { version } = require("../../package.json")

const consumer = `
import { createRegistry, define, open, project, sql, SyncError, type LogItem, type SerializedEvent } from "syncline"
import { follow, push, syncRoutes, type FollowStatus } from "syncline/http"
import { SyncEvent } from "syncline/sync-event"
import { z } from "zod"

const registry = createRegistry()
const schema = z.object({ noteID: z.string(), title: z.string() })
const Titled = define({ type: "note.titled", version: 1, aggregate: "noteID", schema, registry })
export const projector = project(Titled, (tx, { noteID, title }) => {
  tx.prepare("INSERT INTO note VALUES (?, ?)").run(noteID, title)
})
export const second = project(Titled, sql\`UPDATE note SET title = :data ->> '$.title' WHERE id = :aggregateID\`)
export const store = open(":memory:", { registry, projectors: [projector] })
store.subscribe(Titled, (event) => event.properties.title.toUpperCase())
export const last: number = store.sequence("a")
export const events: SerializedEvent[] = store.read("a")
export const routes = syncRoutes(store, { authorize: "none" })
export const run = SyncEvent.run
export const code = (error: unknown) => (error instanceof SyncError ? error.code : undefined)
export async function all(signal: AbortSignal): Promise<LogItem[]> {
  const items: LogItem[] = []
  for await (const item of store.log({ aggregateID: "a", signal })) items.push(item)
  return items
}
export const status = (value: FollowStatus) => value
export const clients = [follow, push]
// @ts-expect-error: a title is text
store.run(Titled, { noteID: "a", title: 1 })
`

const tables = `
import { eq } from "drizzle-orm"
import { sqliteTable, text } from "drizzle-orm/sqlite-core"
import { open } from "syncline"
import { drizzle } from "syncline/drizzle"
const note = sqliteTable("note", { id: text().primaryKey(), title: text() })
const db = drizzle(open(":memory:").db, { schema: { note } })
export const rows: { id: string; title: string | null }[] = db.select().from(note).where(eq(note.id, "a")).all()
`

const dependencies = { "@types/node": "^20", "drizzle-orm": "^0.45.4", syncline: "*", zod: "^4" }
const sources = {
  "consumer.ts": consumer,
  "consumer.mts": consumer,
  "consumer.cts": consumer,
  "tables.mts": tables,
  "tables.cts": tables,
}

describe("types", () => {
  let registry
  let client
  let project

  before(async () => {
    client = await clients()
    registry = await startWithRelease()
    project = registry.machine.project("types", { "package.json": { private: true, dependencies }, ...sources })
    project.run(client("pnpm", "install", "--ignore-scripts"))
  })
  after(() => registry.stop())

  const modules = { node16: "node16", nodenext: "nodenext", bundler: "esnext" }
  const compilers = { "typescript-5": ["node16", "bundler"], "typescript-7": ["node16", "nodenext", "bundler"] }

  for (const [compiler, resolutions] of Object.entries(compilers)) {
    for (const moduleResolution of resolutions) {
      test(`${compiler} compiles a consumer under ${moduleResolution}, as ESM and as CommonJS, with all declarations`, () => {
        const sources = ["consumer.ts", "consumer.mts", "consumer.cts"]
        compile(compiler, sources, { module: modules[moduleResolution], moduleResolution, skipLibCheck: false })
      })
    }
  }

  test("drizzle's tables keep their types", () => {
    // drizzle-orm's own declarations name databases that are not installed here.
    const sources = ["tables.mts", "tables.cts"]
    compile("typescript-5", sources, { module: "node16", moduleResolution: "node16", skipLibCheck: true })
    compile("typescript-7", sources, { module: "nodenext", moduleResolution: "nodenext", skipLibCheck: true })
  })

  function compile(compiler, files, options) {
    const compilerOptions = {
      target: "es2022",
      lib: ["es2023"],
      types: ["node"],
      strict: true,
      noEmit: true,
      ...options,
    }
    project.write("tsconfig.json", { compilerOptions, files })
    project.run(client(compiler, "--project", "."))
  }

  test("attw finds nothing, in any way of resolving", async () => {
    const tarball = path.join(await release(), `syncline-${version}.tgz`)
    assert.doesNotMatch(
      project.run(client("@arethetypeswrong/cli", tarball, "--no-color", "--no-emoji")),
      /failed|❌|💀/i,
    )
  })

  test("publint finds nothing, not even to suggest", async () => {
    const output = project.run(client("publint", path.join(await release(), `syncline-${version}.tgz`), "--strict"))
    assert.match(output, /All good!/)
  })
})
