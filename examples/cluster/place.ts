import { type NatsConnection, connect } from "@nats-io/transport-node"
import type { FollowDetail, FollowStatus } from "syncline/nats"

// Where the log is, for every device, and what all of them tell main.ts.

export const place = { stream: "sessions", prefix: "sessions" }

/** What a device is told. */
export interface Order {
  /** To the reader that gets it: the session that was handed over, up to its last seq. */
  goOn?: { sessionID: string; seq: number }
  /** The last seqs, to tell when they are held. */
  reach?: Record<string, number>
  end?: true
}

/** What it answers. */
export interface Answer {
  handed?: { sessionID: string; seq: number; epoch: number; after: number }
  /** It has nothing more to write. */
  written?: number
  reached?: { waited: number }
  /** Something that should not be. */
  wrong?: string
}

export const tell = (answer: Answer) => void process.send?.(answer)

/** A connection that comes back by itself, and soon finds out that a server says nothing any more. */
export function connectTo(servers: string): Promise<NatsConnection> {
  return connect({
    servers: servers.split(","),
    waitOnFirstConnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 200,
    pingInterval: 1_000,
    maxPingOut: 2,
  })
}

/** Between two attempts, in milliseconds: short, since this cluster fails all the time. */
const backoff = { initial: 100, longest: 1_000 }

/** What `relay` and `replicate` take beside the place: how they are ended, and whom they tell. */
export function told(signal: AbortSignal) {
  return {
    signal,
    backoff,
    onStatus: (status: FollowStatus, _detail: FollowDetail) => {
      if (status === "waiting") waited++
    },
    // What passes by itself concerns no aggregate alone.
    onError: (error: unknown, { aggregateID }: { aggregateID?: string }) => {
      if (aggregateID !== undefined) tell({ wrong: `${aggregateID}: ${String(error)}` })
    },
  }
}

let waited = 0

/** How often something was waited for. */
export const waits = () => waited
