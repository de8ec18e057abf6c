import { resolve } from "node:path"
import { checkName, checkOptions, checkUncut } from "./argument"
import type { WriteContext } from "./context"
import { invalidArgument } from "./errors"
import { runJob, type JobOptions } from "./job"
import { native } from "./native"

/**
 * How far a backup is.
 * @example
 * const onProgress = ({ pages, totalPages }: BackupProgress) => console.log(pages / totalPages)
 * await store.backup("copy.db", { onProgress }) // prints 1
 */
export interface BackupProgress {
  /** Pages of the database that have been copied. */
  pages: number
  /** All of its pages, as of the moment that is copied. */
  totalPages: number
  /** What the copied pages take. */
  bytes: number
}

/**
 * What `backup` resolves to.
 * @example
 * const { bytes, pages }: BackupResult = await store.backup("copy.db")
 * bytes / pages // → 4096
 */
export interface BackupResult {
  /** The size of the copy. */
  bytes: number
  /** Its pages. */
  pages: number
}

/**
 * What `backup` takes. When it is aborted, no file is left.
 * @example
 * const options: BackupOptions = { signal: AbortSignal.abort() }
 * await store.backup("copy.db", options) // throws ERR_ABORTED
 */
export type BackupOptions = JobOptions<BackupProgress>

/** Copies the database into another file. */
export async function backup(context: WriteContext, path: string, options?: BackupOptions): Promise<BackupResult> {
  const target = checkName("backup: path", checkUncut("backup: path", path))
  if (target === ":memory:") throw invalidArgument('backup needs the path of a file, not ":memory:"')
  const given = checkOptions("backup", options, ["signal", "onProgress"])
  const begin = () => native.backup(context.handle, resolve(target))
  const { report } = await runJob<BackupProgress>(context, "backup", begin, given)
  return { bytes: report.bytes, pages: report.pages }
}
