"use strict"

// What is on the stream, read and written with the client alone.

const { jetstream, jetstreamManager } = require("@nats-io/jetstream")
const { Kvm } = require("@nats-io/kv")
const { headers } = require("@nats-io/transport-node")

/** The messages of an aggregate in their order, by their headers: `{position, after, seq, epoch, owner, segment, id, bytes}`. */
async function messagesOf({ connection, stream, prefix }, aggregateID) {
  const { streams } = await jetstreamManager(connection, { timeout: 30_000 })
  const token = tokenOf(aggregateID)
  const found = []
  for (let seq = 1; ; seq = found.at(-1).position + 1) {
    const message = await streams.getMessage(stream, { seq, next_by_subj: `${prefix}.${token}` })
    if (message === null) return found
    const header = (name) => message.header.get(name)
    found.push({
      position: message.seq,
      after: Number(header("Syncline-After")),
      seq: Number(header("Syncline-Seq")),
      epoch: Number(header("Syncline-Epoch") || 0),
      owner: header("Syncline-Owner") || null,
      segment: header("Syncline-Segment") || undefined,
      id: header("Nats-Msg-Id"),
      bytes: message.data.length,
    })
  }
}

/**
 * Publishes a message as a relay would, or not quite: of `events`, or of a `body` that is no log, or without either. It is
 * guarded by nothing.
 */
async function publish({ connection, prefix }, aggregateID, given) {
  const { events = [], body, after, seq, epoch, owner, aggregate, id } = given
  const token = tokenOf(aggregateID)
  const head = headers()
  const last = events.at(-1)?.seq ?? seq ?? -1
  head.set("Nats-Msg-Id", id ?? `${token}:${last}:${Math.random()}`)
  head.set("Syncline-After", String(after ?? (events[0]?.seq ?? last + 1) - 1))
  head.set("Syncline-Seq", String(last))
  if (aggregate !== undefined) head.set("Syncline-Aggregate", aggregate)
  if (epoch !== undefined) head.set("Syncline-Epoch", String(epoch))
  if (owner !== undefined) head.set("Syncline-Owner", owner)
  const lines = events.map((event) => `${JSON.stringify({ kind: "event", event })}\n`).join("")
  await jetstream(connection).publish(`${prefix}.${token}`, body ?? lines, { headers: head })
}

/** The last seq that is in an aggregate's segments. */
async function packedOf({ connection, stream }, aggregateID) {
  const keys = await new Kvm(connection).open(`${stream}-segments`)
  return (await keys.get(tokenOf(aggregateID)))?.json().segments.at(-1)?.through ?? -1
}

const tokenOf = (aggregateID) =>
  aggregateID.replace(/[^A-Za-z0-9_-]/g, (c) => `=${c.charCodeAt(0).toString(16).toUpperCase()}`)

module.exports = { messagesOf, packedOf, publish }
