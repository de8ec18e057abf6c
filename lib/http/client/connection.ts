import type { Store } from "../../store"
import type { Applier } from "../../follow/apply"
import { BATCH_BYTES } from "../../follow/batches"
import { unreachable } from "../../follow/failure"
import type { Progress } from "../../follow/following"
import { listen, type Dialect, type Listening, type Wanted } from "./dialect"
import { Inbox } from "./inbox"
import { Remote, type Address } from "./remote"

/**
 * One connection to a server, for as long as it lasts. It listens first and then asks for the history, which so reaches
 * at least to where listening began; what is told meanwhile waits, bounded, and is applied after it: what the history had
 * already counts as duplicate. A connection that is lost begins anew with all of that, rather than with
 * `Last-Event-ID`: the seqs that are held say more, also after a crash, and a history without news is cheap.
 */
export class Connection {
  readonly #inbox = new Inbox()
  /** Ends all its requests. */
  readonly #end = new AbortController()
  readonly #remote: Remote

  constructor(
    private readonly store: Pick<Store, "sequences">,
    private readonly applier: Applier,
    private readonly address: Address,
    private readonly listening: Listening,
    private readonly progress: Progress,
  ) {
    this.#remote = new Remote(address, this.#end.signal)
  }

  /** Rejects with what the connection ended with. */
  async run(stopped: AbortSignal): Promise<never> {
    const stop = () => this.#end.abort()
    stopped.addEventListener("abort", stop)
    if (stopped.aborted) stop()
    try {
      return await this.#run()
    } finally {
      stopped.removeEventListener("abort", stop)
      this.#end.abort()
    }
  }

  async #run(): Promise<never> {
    this.progress.connecting()
    const server = await listen(this.#remote, this.listening)
    void this.#listen(server)
    await this.#opened()
    await this.#catchUp(server)
    for (;;) {
      if (this.#inbox.lost) await this.#catchUp(server)
      await this.#resync(server)
      if (!(await this.#applyTold())) continue
      this.progress.live()
      await this.#inbox.news()
    }
  }

  /** What fails here ends everything else that the connection does. */
  async #listen(server: Dialect): Promise<void> {
    try {
      for await (const messages of server.messages()) this.#inbox.add(messages)
    } catch (error) {
      this.#inbox.fail(error)
      this.#end.abort(error)
    }
  }

  async #opened(): Promise<void> {
    const { base, connectTimeout } = this.address
    const late = () => this.#end.abort(unreachable(`${base} did not say within ${connectTimeout} ms that it tells all`))
    const timer = setTimeout(late, connectTimeout)
    try {
      await this.#inbox.opened()
    } finally {
      clearTimeout(timer)
    }
  }

  async #catchUp(server: Dialect): Promise<void> {
    this.progress.catchingUp()
    this.#inbox.forget()
    this.applier.retry()
    const { aggregates } = this.listening
    await this.#apply(server, { held: this.#held(aggregates), only: aggregates !== undefined })
  }

  /** Of single aggregates, as long as there are such. */
  async #resync(server: Dialect): Promise<void> {
    const lacking = this.#inbox.takeLacking()
    if (lacking.size === 0) return
    this.applier.retry(lacking.keys())
    await this.#apply(server, { held: this.#held(new Set(lacking.keys())), only: true })
    this.applier.settle(lacking)
  }

  /** The next piece is fetched while one is applied. */
  async #apply(server: Dialect, wanted: Omit<Wanted, "others">): Promise<void> {
    const pieces = server.history(this.#remote, { ...wanted, others: () => this.#held(undefined) })
    try {
      for (let next = pieces.next(); ;) {
        const { done, value } = await next
        this.progress.answered()
        if (done) return
        next = pieces.next()
        // It is awaited after this one has been applied.
        next.catch(() => {})
        await this.applier.history(value)
      }
    } finally {
      void pieces.return().catch(() => {})
    }
  }

  /** What has been told by now. Answers whether after it nothing is known to be missing. */
  async #applyTold(): Promise<boolean> {
    const { told, all } = this.#inbox.take(BATCH_BYTES)
    const lacking = await this.applier.live(told)
    for (const [aggregateID, lack] of lacking) this.#inbox.lack(aggregateID, lack)
    return all && !this.#inbox.lacks
  }

  #held(aggregates: ReadonlySet<string> | undefined): Map<string, number> {
    const held = this.store.sequences(aggregates)
    for (const aggregateID of aggregates ?? []) if (!held.has(aggregateID)) held.set(aggregateID, -1)
    return held
  }
}
