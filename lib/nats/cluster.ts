import { setImmediate } from "node:timers/promises"
import { isDeepStrictEqual } from "node:util"
import { AckPolicy, DeliverPolicy, DiscardPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream"
import type { Consumer, JetStreamClient, JetStreamManager, StoredMsg } from "@nats-io/jetstream"
import { Kvm, type KV } from "@nats-io/kv"
import { Objm, type ObjectStore } from "@nats-io/obj"
import type { NatsConnection } from "@nats-io/transport-node"
import { checkInteger, checkText } from "../argument"
import { SyncError, invalidArgument, show } from "../errors"
import { unreachable } from "../follow/failure"
import { failureOf, isNotThere, isRefusal } from "./failure"
import { decode, encode, type Message, type Stored } from "./message"
import { tokenOf } from "./token"

/**
 * Where on a cluster a log is.
 * @example
 * const place: ClusterOptions = { connection, stream: "sessions", prefix: "sessions" }
 * await relay(store, { ...place, replicas: 1, signal: AbortSignal.timeout(1_000) })
 */
export interface ClusterOptions {
  /** What `connect` of a NATS client gives. It stays open, and is the caller's to close. */
  connection: NatsConnection
  /**
   * The stream's name: letters, digits, `-` and `_`. Beside it there are two buckets of keys, `<stream>-owners` and
   * `<stream>-segments`, and one of objects, `<stream>-segments`.
   */
  stream: string
  /** What its subjects begin with: one token or more, with dots between. An aggregate's is `<prefix>.<its id, escaped>`. */
  prefix: string
}

/** {@link ClusterOptions}, checked. */
export interface Place {
  readonly connection: NatsConnection
  readonly stream: string
  readonly prefix: string
}

export const CLUSTER_OPTIONS = ["connection", "stream", "prefix"]

export function checkPlace({ connection, stream, prefix }: ClusterOptions): Place {
  if (typeof connection?.publish !== "function" || typeof connection.isClosed !== "function") {
    throw invalidArgument(`connection must be what connect of a NATS client gives, not ${show(connection)}`)
  }
  // As the name of a bucket, it is a token too.
  if (!/^[A-Za-z0-9_-]{1,100}$/.test(checkText("stream", stream))) {
    throw invalidArgument(`stream must be letters, digits, "-" and "_", at most 100 of them, not ${show(stream)}`)
  }
  const tokens = checkText("prefix", prefix).split(".")
  if (prefix.length > 200 || !tokens.every((token) => /^[A-Za-z0-9_-]+$/.test(token))) {
    throw invalidArgument(
      `prefix must be tokens of letters, digits, "-" and "_" with dots between, not ${show(prefix)}`,
    )
  }
  return { connection, stream, prefix }
}

/** How many servers keep each message. */
export function checkReplicas(replicas: unknown): number {
  return replicas === undefined ? 3 : checkInteger("replicas", replicas, 1, 5)
}

/** Who owns an aggregate, as the cluster has it. */
export interface Owned {
  /** Null: it was released. */
  readonly owner: string | null
  /** The revision of its key. */
  readonly epoch: number
}

/** A part of an aggregate's log as an object: JSON lines, compressed with zstd. */
export interface Segment {
  /** Of the object. */
  readonly name: string
  /** The seq before its first item. */
  readonly after: number
  /** Its last seq. */
  readonly through: number
  /** The highest removal that the log had told of when this was written: what was removed later is not to be read from here. */
  readonly removed: number
  /** Of its lines, before they are compressed. */
  readonly bytes: number
}

/** An aggregate's segments, in their order, as its key lists them. */
export interface Segments {
  readonly list: readonly Segment[]
  /** Of the key: what a later list has to replace. 0: there is none yet. */
  readonly revision: number
}

/** What a consumer begins with. */
export type From = { readonly position: number } | "last of each"

/** What a connection says of itself when it is another one than before. */
const LOST: ReadonlySet<string> = new Set(["disconnect", "reconnect", "close"])

/** Milliseconds until an answer is given up: an election takes less, where the machines are well. */
const PATIENCE = 5_000

/**
 * The stream, the buckets and the requests that are made of them. What fails is a `SyncError`: `ERR_UNREACHABLE` for what may
 * go well another time, `ERR_FORBIDDEN`, `ERR_NOT_FOUND`, `ERR_PROTOCOL`.
 */
export class Cluster {
  readonly #client: JetStreamClient
  #manager: JetStreamManager | undefined
  #owners: KV | undefined
  #segments: KV | undefined
  #objects: ObjectStore | undefined

  constructor(readonly place: Place) {
    this.#client = jetstream(place.connection, { timeout: PATIENCE })
  }

  /** Bytes of a message, headers and all, past which the server takes none. */
  get mostBytes(): number {
    return this.place.connection.info?.max_payload ?? 1024 * 1024
  }

  /** Whether a consumer may name several subjects: servers do from 2.10 on. */
  get #takesSubjects(): boolean {
    const [major = 0, minor = 0] = (this.place.connection.info?.version ?? "").split(".").map(Number)
    return major > 2 || (major === 2 && minor >= 10)
  }

  /** Whether a consumer can leave out all but these aggregates. */
  selects({ size }: ReadonlySet<string>): boolean {
    return size === 1 || (size > 1 && this.#takesSubjects)
  }

  subject(aggregateID: string): string {
    return `${this.place.prefix}.${tokenOf(aggregateID)}`
  }

  /** Finds the stream and the buckets, or makes them with so many replicas. */
  async make(replicas: number): Promise<void> {
    const { stream, prefix, connection } = this.place
    await asked(`The stream "${stream}" cannot be made`, async () => {
      // Readers look for the stream, and find everything once it is there.
      const options = { replicas, history: 1, allow_direct: false }
      for (const bucket of this.#keys()) {
        if (!(await this.#isThere(`KV_${bucket}`))) await new Kvm(connection).create(bucket, options)
      }
      const objects = `${stream}-segments`
      if (!(await this.#isThere(`OBJ_${objects}`))) await new Objm(connection).create(objects, { replicas })
      if (!(await this.#isThere(stream, [`${prefix}.*`]))) {
        await (
          await this.#manage()
        ).streams.add({
          name: stream,
          description: "Event logs of Syncline",
          subjects: [`${prefix}.*`],
          num_replicas: replicas,
          allow_direct: true,
          // A full stream refuses what is new, and keeps what it has acknowledged.
          discard: DiscardPolicy.New,
        })
      }
      await this.#open()
    })
  }

  /** Finds the stream. `ERR_NOT_FOUND`: there is none yet. */
  async find(): Promise<void> {
    const { stream, prefix } = this.place
    await asked(`The stream "${stream}" cannot be read`, async () => {
      if (!(await this.#isThere(stream, [`${prefix}.*`]))) {
        throw new SyncError("ERR_NOT_FOUND", `The cluster has no stream "${stream}"`)
      }
      await this.#open()
    })
  }

  /** The last message of an aggregate, as the stream's leader has it. */
  async head(aggregateID: string): Promise<Stored | undefined> {
    return this.#message({ last_by_subj: this.subject(aggregateID) }, `The head of aggregate "${aggregateID}"`)
  }

  /** Its first message at or after a position of the stream. */
  async next(aggregateID: string, position: number): Promise<Stored | undefined> {
    const query = { seq: position, next_by_subj: this.subject(aggregateID) }
    return this.#message(query, `A message of aggregate "${aggregateID}"`)
  }

  /** The id of whatever message is there. */
  async idAt(position: number): Promise<string | undefined> {
    const { stream } = this.place
    const found = await asked(`Message ${position} of the stream "${stream}" cannot be read`, async () => {
      return (await this.#manage()).streams.getMessage(stream, { seq: position })
    })
    return found?.header?.get("Nats-Msg-Id")
  }

  /**
   * Publishes where the aggregate's last message is at `expected`, 0 for none: answers the new one's position and whether the
   * server had it already. Undefined: another message is the last one.
   */
  async publish(
    message: Message,
    expected: number,
    identified = true,
  ): Promise<{ position: number; duplicate: boolean } | undefined> {
    const { headers, body } = encode(message)
    const { aggregateID, id, seq } = message
    const options = { headers, expect: { lastSubjectSequence: expected }, timeout: PATIENCE }
    await this.#together()
    try {
      const done = await this.#client.publish(this.subject(aggregateID), body, {
        ...options,
        ...(identified && { msgID: id }),
      })
      return { position: done.seq, duplicate: done.duplicate }
    } catch (error) {
      if (isRefusal(error)) return undefined
      throw failureOf(error, `Seq ${seq} of aggregate "${aggregateID}" cannot be published`)
    }
  }

  /** Drops the messages of an aggregate before a position. */
  async purge(aggregateID: string, position: number): Promise<void> {
    const { stream } = this.place
    await asked(`Aggregate "${aggregateID}" cannot be purged`, async () => {
      await (await this.#manage()).streams.purge(stream, { filter: this.subject(aggregateID), seq: position })
    })
  }

  /** Undefined: nobody has claimed it. */
  async owner(aggregateID: string): Promise<Owned | undefined> {
    const entry = await asked(`The owner of aggregate "${aggregateID}" cannot be read`, () =>
      this.#bucket(this.#owners).get(tokenOf(aggregateID)),
    )
    if (entry === null) return undefined
    const { owner = null } = entry.json<{ owner?: string | null }>()
    return { owner, epoch: entry.revision }
  }

  /** Writes who owns it in place of what has the epoch `expected`, 0 for nothing. Undefined: somebody was faster. */
  async own(aggregateID: string, owner: string | null, expected: number): Promise<Owned | undefined> {
    const value = JSON.stringify({ aggregateID, owner })
    const epoch = await this.#replace(this.#bucket(this.#owners), aggregateID, value, expected)
    return epoch === undefined ? undefined : { owner, epoch }
  }

  async segments(aggregateID: string): Promise<Segments> {
    const entry = await asked(`The segments of aggregate "${aggregateID}" cannot be read`, () =>
      this.#bucket(this.#segments).get(tokenOf(aggregateID)),
    )
    if (entry === null) return { list: [], revision: 0 }
    return { list: entry.json<{ segments: Segment[] }>().segments, revision: entry.revision }
  }

  /** Undefined: somebody was faster. */
  async list(aggregateID: string, segments: readonly Segment[], revision: number): Promise<Segments | undefined> {
    const value = JSON.stringify({ aggregateID, segments })
    const replaced = await this.#replace(this.#bucket(this.#segments), aggregateID, value, revision)
    return replaced === undefined ? undefined : { list: segments, revision: replaced }
  }

  async keep(name: string, bytes: Uint8Array): Promise<void> {
    // As pieces of at most what the server takes.
    const options = { max_chunk_size: Math.min(128 * 1024, Math.floor(this.mostBytes / 2)) }
    await asked(`The segment "${name}" cannot be written`, () =>
      this.#bucket(this.#objects).putBlob({ name, options }, bytes),
    )
  }

  async hasObject(name: string): Promise<boolean> {
    const info = await asked(`The segment "${name}" cannot be found`, () => this.#bucket(this.#objects).info(name))
    return info !== null && !info.deleted
  }

  /** Undefined: there is none, or no more. */
  async object(name: string): Promise<Uint8Array | undefined> {
    const bytes = await asked(`The segment "${name}" cannot be read`, () => this.#bucket(this.#objects).getBlob(name))
    return bytes ?? undefined
  }

  async drop(name: string): Promise<void> {
    if (!(await this.hasObject(name))) return
    await asked(`The segment "${name}" cannot be deleted`, () => this.#bucket(this.#objects).delete(name))
  }

  /** What some aggregates, or all, have published: everything from a position on, or the headers of the last message of each. */
  async consumer(from: From, aggregates: ReadonlySet<string> | undefined): Promise<Consumer> {
    const { stream, prefix } = this.place
    const every = aggregates === undefined || !this.selects(aggregates)
    const subjects = every ? [`${prefix}.*`] : Array.from(aggregates, (aggregateID) => this.subject(aggregateID))
    return asked(`The stream "${stream}" cannot be read`, async () => {
      const manager = await this.#manage()
      const info = await manager.consumers.add(stream, {
        ...(subjects.length === 1 ? { filter_subject: subjects[0] as string } : { filter_subjects: subjects }),
        ...(from === "last of each"
          ? { deliver_policy: DeliverPolicy.LastPerSubject, headers_only: true }
          : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: Math.max(1, from.position) }),
        // Where it stands is known here: a server that keeps nothing of it loses nothing.
        ack_policy: AckPolicy.None,
        mem_storage: true,
        num_replicas: 1,
        inactive_threshold: 30e9,
      })
      return this.#client.consumers.getConsumerFromInfo(info)
    })
  }

  /**
   * Ends an attempt once the connection is lost, also for a moment: what was on its way may be lost as well. Once it is there
   * again too: what was asked meanwhile may never have been sent.
   */
  watch(end: AbortController): void {
    const statuses = this.place.connection.status() as AsyncIterable<{ type: string }> & { stop(): void }
    end.signal.addEventListener("abort", () => statuses.stop())
    const listen = async () => {
      for await (const { type } of statuses) {
        if (LOST.has(type)) end.abort(unreachable("The connection to the cluster was lost"))
      }
    }
    void listen().catch(() => {})
  }

  async #manage(): Promise<JetStreamManager> {
    return (this.#manager ??= await jetstreamManager(this.place.connection, { timeout: PATIENCE }))
  }

  /**
   * Those who come in one turn of the event loop go on together in the next: the client then writes their messages at once, and
   * servers agree on them at once. One by one they cost both several times as much.
   */
  #together(): Promise<void> {
    this.#turn ??= setImmediate().then(() => (this.#turn = undefined))
    return this.#turn
  }
  #turn: Promise<void> | undefined

  #keys(): [owners: string, segments: string] {
    const { stream } = this.place
    return [`${stream}-owners`, `${stream}-segments`]
  }

  async #open(): Promise<void> {
    const { stream, connection } = this.place
    const keys = new Kvm(connection)
    const [owners, segments] = this.#keys()
    // Both are asked of their leader: another server may not have heard of a claim yet.
    this.#owners = await keys.open(owners, { allow_direct: false })
    this.#segments = await keys.open(segments, { allow_direct: false })
    this.#objects = await new Objm(connection).open(`${stream}-segments`)
  }

  /** Whether there is a stream of that name, which has these subjects and no others. */
  async #isThere(name: string, subjects?: readonly string[]): Promise<boolean> {
    try {
      const { config } = await (await this.#manage()).streams.info(name)
      if (subjects === undefined || isDeepStrictEqual(config.subjects, subjects)) return true
      const has = config.subjects?.join(", ")
      throw invalidArgument(`The stream "${name}" has the subjects ${has}, and not ${subjects.join(", ")}`)
    } catch (error) {
      if ((error as Error).name === "StreamNotFoundError") return false
      throw error
    }
  }

  async #message(query: object, what: string): Promise<Stored | undefined> {
    const { stream } = this.place
    const found = await asked(`${what} cannot be read`, async () => {
      const manager = await this.#manage()
      return manager.streams.getMessage(stream, query as { seq: number }).catch((error: unknown) => {
        if (isNotThere(error)) return null
        throw error
      })
    })
    return found === null ? undefined : stored(found)
  }

  async #replace(bucket: KV, aggregateID: string, value: string, expected: number): Promise<number | undefined> {
    const key = tokenOf(aggregateID)
    try {
      return await (expected === 0 ? bucket.create(key, value) : bucket.update(key, value, expected))
    } catch (error) {
      if (isRefusal(error)) return undefined
      throw failureOf(error, `The key of aggregate "${aggregateID}" cannot be written`)
    }
  }

  #bucket<T>(bucket: T | undefined): T {
    if (bucket === undefined) throw unreachable(`The buckets of the stream "${this.place.stream}" are not open`)
    return bucket
  }
}

function stored({ subject, seq, header, data }: StoredMsg): Stored {
  return decode({ subject, seq, headers: header, data })
}

/** What a client throws is said in our own terms. */
async function asked<T>(what: string, request: () => Promise<T>): Promise<T> {
  try {
    return await request()
  } catch (error) {
    throw failureOf(error, what)
  }
}
