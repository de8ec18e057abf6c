import { Hono } from "hono"
import type { Store } from "../store"

/** What `syncRoutes` takes. */
export interface SyncRoutesOptions {
  /** Who may do what; `"none"`: everybody everything. */
  authorize: "none"
}

/** The routes by which other machines read and write a store. */
export function syncRoutes<Tx>(_store: Store<Tx>, _options: SyncRoutesOptions): Hono {
  return new Hono()
}
