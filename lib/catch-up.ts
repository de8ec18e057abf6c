import { native, type Handle } from "./native"
import { eventCount, pageEvent } from "./payload"
import { reaches, type PendingEvent } from "./transaction"

/** An event on its way to listeners, and to which of them. */
export interface Delivery extends PendingEvent {
  /** Those of this store's own events. */
  readonly toProcess: boolean
  /** Those of everything that is committed to the database. */
  readonly toDatabase: boolean
  /** Which call of `publish` it came with; 0 where it was read from the log. */
  readonly call: number
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
  #position: number
  #behind = false
  /** Of this store, not in the log, and to come after what they build on. */
  readonly #held: Delivery[] = []

  constructor(
    private readonly handle: Handle,
    position: number,
  ) {
    this.#position = position
  }

  /** There is more in the log than has been given. */
  get behind(): boolean {
    return this.#behind
  }

  /** What this store has just committed, in its order, with what is found before it. `mayRead`: a page may be read now. */
  merge(local: readonly Delivery[], mayRead: boolean): readonly Delivery[] {
    if (this.#behind) return this.aside(local)
    // Asked without SQL for what follows on what was given: whatever others commit later is told of later.
    if (this.#follows(local, native.committedPosition(this.handle))) return local
    if (this.#follows(local, native.lastPosition(this.handle))) return local
    return mayRead ? this.#read(local) : this.aside(local)
  }

  /** The same without reading: those who hear the whole database get it from the log, later. */
  aside(local: readonly Delivery[]): Delivery[] {
    this.#behind = true
    return this.#aside(local)
  }

  /** The next page of what was committed. */
  next(): Delivery[] {
    return this.#read([])
  }

  /** Drops what is too much of what no page of the log will bring again. */
  bound(most: number): Delivery[] {
    return this.#held.splice(most)
  }

  /** These will not be delivered after all: what of them is in the log is read again. */
  takeBack(dropped: readonly Delivery[]): void {
    const first = dropped.find(({ recorded, toDatabase }) => recorded && toDatabase)
    if (first === undefined) return
    this.#position = Math.min(this.#position, first.position - 1)
    this.#behind = true
  }

  /** Whether these events follow on what was given, with nothing of others in between; then they are given. */
  #follows(local: readonly Delivery[], last: number): boolean {
    const reached = reaches(local, this.#position, last)
    if (reached < 0) return false
    this.#position = reached
    return true
  }

  /** A page of the log in the order of positions, with own events in their places. */
  #read(local: readonly Delivery[]): Delivery[] {
    const [page, through, done] = native.committed(this.handle, this.#position, ROWS)
    const found = Array.from({ length: eventCount(page) }, (_, index) => pageEvent(page, index))
    const own = [...this.#held.splice(0), ...local]
    const deliveries: Delivery[] = []
    let next = 0
    // What has no place in the log follows the position that it names; what has one and is not found there is erased again.
    const giveBelow = (position: number) => {
      while (next < own.length && (own[next] as Delivery).position < position) deliveries.push(own[next++] as Delivery)
    }
    for (const event of found) {
      giveBelow(event.position)
      const itself = own[next]?.recorded && own[next]?.position === event.position ? own[next++] : undefined
      deliveries.push(
        itself ?? { ...event, recorded: true, publish: false, toProcess: false, toDatabase: true, call: 0 },
      )
    }
    giveBelow(done ? Infinity : through + 1)
    if (done) while (next < own.length) deliveries.push(own[next++] as Delivery)
    this.#position = through
    this.#behind = !done
    return [...deliveries, ...this.#aside(own.slice(next))]
  }

  /** While the log is still to be read: at once for the one kind of listeners, from the log or later for the other. */
  #aside(own: readonly Delivery[]): Delivery[] {
    for (const event of own) {
      if (!event.recorded) this.#held.push(event.toProcess ? { ...event, toProcess: false } : event)
    }
    return own.filter(({ toProcess }) => toProcess).map((event) => ({ ...event, toDatabase: false }))
  }
}

/** For listeners of both kinds. */
export function forAll(pending: PendingEvent, call: number): Delivery {
  const { event, text, position, recorded, publish } = pending
  return { event, text, position, recorded, publish, toProcess: publish, toDatabase: true, call }
}
