import { statSync } from "node:fs"
import { createRegistry } from "../define"
import { SyncError, show } from "../errors"
import { open, type Store } from "../store"

/**
 * What a command does to the file: reads a log, writes one that is there, or makes one where there is none. Only the last
 * writes into a file that has no log yet.
 */
export type Access = "read" | "write" | "create"

/**
 * Opens a log without the program's definitions, for as long as some work takes. It packs nothing by itself: which events
 * stay rows is for the program to say, and `maintain` for who calls it.
 */
export async function withStore<T>(
  path: string,
  access: Access,
  work: (store: Store) => T | Promise<T>,
  owner?: string,
): Promise<T> {
  const store = openLog(path, access, owner)
  try {
    return await work(store)
  } finally {
    store.close()
  }
}

/** The same, for who closes it himself. */
export function openLog(path: string, access: Access, owner?: string): Store {
  if (access === "create") return openFile(path, false, owner)
  assertExists(path)
  try {
    // Opening for writing would make a log in whatever database this is.
    const store = openFile(path, true)
    if (access === "read") return store
    store.close()
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== "ERR_READONLY") throw error
    throw new SyncError(
      "ERR_NOT_FOUND",
      `${show(path)} has no event log: it is empty, or the database of a program that does not use syncline`,
    )
  }
  return openFile(path, false, owner)
}

/** `ERR_NOT_FOUND` where there is no file, with what more there is to say about that. */
export function assertExists(path: string, more = ", and this command makes none"): void {
  try {
    statSync(path)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code !== "ENOENT" && code !== "ENOTDIR") return
    throw new SyncError("ERR_NOT_FOUND", `There is no file ${show(path)}${more}`, { cause })
  }
}

function openFile(path: string, readonly: boolean, owner?: string): Store {
  // A registry of its own: the default one is not frozen for it, and knows nothing either.
  return open(path, { registry: createRegistry(), readonly, packing: false, owner })
}
