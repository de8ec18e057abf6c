import type { Lack, Told } from "../../follow/apply"
import type { LiveMessage } from "./dialect"

/** What may wait; past any of these bounds all of it is dropped, since the history has it. One event always may. */
const CAPACITY = { events: 1_000, characters: 8 * 1024 * 1024, aggregates: 10_000 }

/** What a server has told while something else was being done, bounded; and of what its history has to be asked for. */
export class Inbox {
  #events: Told[] = []
  #length = 0
  #lost = false
  #lacking = new Map<string, Lack>()
  #synced = false
  #failure: { readonly error: unknown } | undefined
  #wake: (() => void) | undefined

  /** Some of what was told was dropped, or the server could not tell it: all histories are to be asked for. */
  get lost(): boolean {
    return this.#lost
  }

  add(messages: readonly LiveMessage[]): void {
    for (const message of messages) {
      if (message.kind === "event") this.#keep(message)
      else if (message.kind === "erased") this.lack(message.aggregateID, { seq: message.seq, came: false })
      else if (message.kind === "sweep") this.#lose()
      else this.#synced = true
    }
    this.#wake?.()
  }

  /** The connection has ended: `news` throws once everything has been taken. */
  fail(error: unknown): void {
    this.#failure ??= { error }
    this.#wake?.()
  }

  /** One aggregate's history is to be asked for. */
  lack(aggregateID: string, { seq, came }: Lack): void {
    if (this.#lost) return
    const known = this.#lacking.get(aggregateID)
    if (known === undefined && this.#lacking.size >= CAPACITY.aggregates) return this.#lose()
    const last = Math.max(seq, known?.seq ?? -1)
    this.#lacking.set(aggregateID, { seq: last, came: came || known?.came === true })
  }

  /** To be called before all histories are asked for, which hold whatever has been lost so far. */
  forget(): void {
    this.#lost = false
    this.#lacking.clear()
  }

  /** The aggregates whose history is to be asked for, and asked for from now on. It goes before what waits. */
  takeLacking(): ReadonlyMap<string, Lack> {
    const lacking = this.#lacking
    this.#lacking = new Map()
    return lacking
  }

  /** Whether the history is to be asked for, of all or of some. */
  get lacks(): boolean {
    return this.#lost || this.#lacking.size > 0
  }

  /** What waits, in its order, up to so many characters or one event; and whether that was all. */
  take(length: number): { told: Told[]; all: boolean } {
    let count = 0
    let taken = 0
    for (; count < this.#events.length; count++) {
      const next = (this.#events[count] as Told).text.length
      if (count > 0 && taken + next > length) break
      taken += next
    }
    this.#length -= taken
    const told = this.#events.splice(0, count)
    return { told, all: this.#events.length === 0 }
  }

  /** Resolves when there is something to do; throws what the connection ended with. */
  async news(): Promise<void> {
    if (this.#events.length > 0 || this.lacks) return
    if (this.#failure !== undefined) throw this.#failure.error
    await this.#next()
  }

  /** Resolves when everything is told from now on; throws what the connection ended with before that. */
  async opened(): Promise<void> {
    while (!this.#synced) {
      if (this.#failure !== undefined) throw this.#failure.error
      await this.#next()
    }
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined
        resolve()
      }
    })
  }

  #keep({ text, aggregateID }: LiveMessage & { kind: "event" }): void {
    if (this.#lost) return
    const { events, characters } = CAPACITY
    const full = this.#events.length >= events || (this.#length > 0 && this.#length + text.length > characters)
    if (full) return this.#lose()
    this.#events.push(aggregateID === undefined ? { text } : { text, aggregateID })
    this.#length += text.length
  }

  #lose(): void {
    this.#lost = true
    this.#events = []
    this.#length = 0
    this.#lacking.clear()
  }
}
