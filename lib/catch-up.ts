import { native, type Handle } from "./native"
import { eventCount, pageEvent } from "./payload"
import type { PendingEvent } from "./transaction"

/** An event on its way to listeners, and to which of them. */
export interface Delivery extends PendingEvent {
  /** Those of this store's own events. */
  readonly toProcess: boolean
  /** Those of everything that is committed to the database. */
  readonly toDatabase: boolean
}

/** Events read at once: all that waits in memory for the listeners of the database, however far they are behind. */
const ROWS = 256

/**
 * Puts what this store commits into one order, that of positions, with what others commit, for listeners of the whole
 * database. While it is live it reads only where its own events leave room for others. Once more has been committed than
 * one page holds it is behind: then these listeners are fed from the log, page after page, its own events included, while
 * the listeners of the store's own events go on hearing those at once.
 */
export class CatchUp {
  /** Through here the database's listeners have been given everything. */
  #position: number | undefined
  #behind = false
  /** Of this store, not in the log, and to come after what they build on. */
  readonly #held: Delivery[] = []

  constructor(
    private readonly handle: Handle,
    /** Undefined inside a transaction, when nothing tells what of the log is committed. */
    position: number | undefined,
  ) {
    this.#position = position
  }

  /** After that transaction, if it has not been merged. */
  begin(): void {
    this.#position ??= native.lastPosition(this.handle)
  }

  get position(): number {
    return this.#position ?? native.lastPosition(this.handle)
  }

  /** There is more in the log than has been given. */
  get behind(): boolean {
    return this.#behind
  }

  /** What this store has just committed, in its order, with what is found before it. `mayRead`: a page may be read now. */
  merge(local: readonly PendingEvent[], mayRead: boolean): Delivery[] {
    if (this.#behind) return this.aside(local)
    const last = native.lastPosition(this.handle)
    this.#position ??= (local.find(({ recorded }) => recorded)?.position ?? last + 1) - 1
    if (this.#follows(local, last)) {
      this.#position = last
      return local.map(forAll)
    }
    return mayRead ? this.#read(local) : this.aside(local)
  }

  /** The same without reading: those who hear the whole database get it from the log, later. */
  aside(local: readonly PendingEvent[]): Delivery[] {
    this.#behind = true
    return this.#aside(local.map(forAll))
  }

  /** The next page of what was committed. */
  next(): Delivery[] {
    return this.#read([])
  }

  /** Drops what is too much of what no page of the log will bring again. */
  bound(most: number): Delivery[] {
    return this.#held.splice(most)
  }

  /** Whether these events are all that lies between the position and the last one. */
  #follows(local: readonly PendingEvent[], last: number): boolean {
    let { position } = this
    for (const event of local) if (event.recorded && event.position !== ++position) return false
    return position >= last
  }

  /** A page of the log in the order of positions, with own events in their places. */
  #read(local: readonly PendingEvent[]): Delivery[] {
    const [page, through, done] = native.committed(this.handle, this.position, ROWS)
    const own = [...this.#held.splice(0), ...local.map(forAll)]
    const deliveries: Delivery[] = []
    let next = 0
    // What has no place in the log follows the position that it names; what has one and is not found there is erased again.
    const giveBelow = (position: number) => {
      while (next < own.length && (own[next] as Delivery).position < position) deliveries.push(own[next++] as Delivery)
    }
    for (let index = 0; index < eventCount(page); index++) {
      const found = pageEvent(page, index)
      giveBelow(found.position)
      const itself = own[next]?.recorded && own[next]?.position === found.position ? own[next++] : undefined
      deliveries.push(itself ?? { ...found, recorded: true, publish: false, toProcess: false, toDatabase: true })
    }
    giveBelow(done ? Infinity : through + 1)
    if (done) while (next < own.length) deliveries.push(own[next++] as Delivery)
    this.#position = through
    this.#behind = !done
    return [...deliveries, ...this.#aside(own.slice(next))]
  }

  /** While the log is still to be read: at once for the one kind of listeners, from the log or later for the other. */
  #aside(own: readonly Delivery[]): Delivery[] {
    for (const event of own) if (!event.recorded) this.#held.push({ ...event, toProcess: false })
    return own.filter(({ toProcess }) => toProcess).map((event) => ({ ...event, toDatabase: false }))
  }
}

/** For listeners of both kinds. */
export function forAll(event: PendingEvent): Delivery {
  return { ...event, toProcess: event.publish, toDatabase: true }
}
