// What does it cost to deliver one event to 1, 10 and 50 listeners of this process, against a bare EventEmitter?
//
// No commit is in it. A round runs one event after the other, in blocks that take turns: blocks that publish to the
// listeners, and blocks with `publish: false`, which do all the same work but for the publishing. The figure is the median
// of what the one block of a pair takes longer than the other: everything that listeners cost the program that runs.
// The emitter's figure is made likewise, of blocks with `publish: false` and blocks that also emit, after each run, a plain
// object with the event's fields and its data, parsed from the same text. So both sides make one object an event for all
// listeners, not the one that `run` returned, and parse once: without that, one listener could change what `run`'s caller
// holds. Nothing of Syncline's is in the emitter's objects. Every listener, here and there, reads a field of `event.data`.
// The parsing is in both figures and draws the ratio towards 1; "nothing to parse" is the same emitter without it.
//
// "in one go" is a second opinion, with no difference in it: what a transaction records is published after its commit,
// all in turn, so between the first listener's first event and its last one passes exactly what the dispatcher's loop and
// the listeners take; the emitter is timed between the same two points while it emits the events of such a transaction.
// It contains the collection of garbage, which a median leaves out, and lacks what is done before the loop.
//
// "syncline publish" is an ephemeral event's whole call: its data written and parsed, a native call for `after`, delivery.
import { EventEmitter } from "node:events"
import { measure } from "./harness.mjs"
import { syncline, zod } from "./syncline.mjs"
import { aggregateID, payload } from "./workload.mjs"

const type = "session.delivered"
const aggregate = aggregateID(1)
const data = payload(1, aggregate)
const text = JSON.stringify(data)
// Options on both sides: looking at them is no part of a delivery.
const published = { publish: true }
const unpublished = { publish: false }

const eventsPerTransaction = 1000
const transactions = 6
const runsPerBlock = 100
const pairs = 100
const emitted = 10_000

/** In memory and validated by nobody, so that a run is as short as can be beside what is measured. */
function openStore() {
  const registry = syncline.createRegistry()
  const { z } = zod
  const schema = z.object({ sessionID: z.string(), title: z.string(), updated: z.number(), text: z.string() })
  const options = { type, version: 1, aggregate: "sessionID", schema, registry }
  const Delivered = syncline.define({ ...options, projector: "none" })
  const Delta = syncline.define({ ...options, type: "session.delta", ephemeral: true })
  return { store: syncline.open(":memory:", { registry, validate: "never" }), Delivered, Delta }
}

/** As many listeners as asked for; the first one also notes when it heard its first event and its `last` one. */
function listening(count, last) {
  const heard = { events: 0, first: 0n, last: 0n, sum: 0 }
  const listeners = Array.from({ length: count }, () => (event) => void (heard.sum += event.data.sessionID.length))
  listeners[0] = (event) => {
    heard.events++
    if (heard.events === 1) heard.first = process.hrtime.bigint()
    else if (heard.events === last) heard.last = process.hrtime.bigint()
    heard.sum += event.data.sessionID.length
  }
  return { heard, listeners }
}

/** Microseconds an event between the first listener's first event and its last; `deliver` is given the listeners. */
function spanned(count, deliver) {
  let nanoseconds = 0
  for (let n = 0; n < transactions; n++) {
    const { heard, listeners } = listening(count, eventsPerTransaction)
    deliver(listeners)
    assertHeard(heard, count, eventsPerTransaction)
    nanoseconds += Number(heard.last - heard.first)
  }
  return nanoseconds / 1000 / (transactions * (eventsPerTransaction - 1))
}

/** Microseconds an event by which blocks of `notified` take longer than blocks of `alone`. */
function difference(alone, notified) {
  const differences = Array.from({ length: pairs }, (_, n) => {
    // Whoever goes second meets what the other has left in the caches: they take turns in that as well.
    const first = timed(n % 2 === 0 ? alone : notified)
    const second = timed(n % 2 === 0 ? notified : alone)
    return n % 2 === 0 ? second - first : first - second
  })
  const sorted = differences.toSorted((a, b) => a - b)
  return (sorted[pairs / 2 - 1] + sorted[pairs / 2]) / 2
}

function timed(step) {
  const start = process.hrtime.bigint()
  for (let n = 0; n < runsPerBlock; n++) step()
  return Number(process.hrtime.bigint() - start) / 1000 / runsPerBlock
}

function assertHeard({ events, sum }, count, expected) {
  if (events === expected && sum === expected * count * aggregate.length) return
  throw new Error(`${count} listeners heard ${events} of ${expected} events, or not what they say`)
}

/** A side whose store is new in each round, so that no round finds a longer log than another. */
function storeSide(name, sample) {
  let opened
  return {
    name,
    syncline: true,
    prepare: () => (opened = openStore()),
    sample,
    after: () => opened.store.close(),
  }
}

function recordMany(store, Delivered) {
  return store.transaction(() => Array.from({ length: eventsPerTransaction }, () => store.run(Delivered, data)))
}

function dispatcherSide(count) {
  return storeSide(`syncline, ${named(count)}`, ({ store, Delivered }) => {
    const inOneGo = spanned(count, (listeners) => {
      const undo = listeners.map((listener) => store.subscribe(Delivered, listener))
      recordMany(store, Delivered)
      for (const unsubscribe of undo) unsubscribe()
    })
    const { heard, listeners } = listening(count)
    for (const listener of listeners) store.subscribe(Delivered, listener)
    const figure = difference(
      () => store.run(Delivered, data, unpublished),
      () => store.run(Delivered, data, published),
    )
    assertHeard(heard, count, pairs * runsPerBlock)
    return { figure, more: { "in one go": inOneGo } }
  })
}

function emitterSide(count) {
  return storeSide(`EventEmitter, ${named(count)}`, ({ store, Delivered }) => {
    const inOneGo = spanned(count, (listeners) => {
      const emitter = emitterOf(listeners)
      for (const event of recordMany(store, Delivered)) emitter.emit(type, parsedFrom(event))
    })
    const { heard, listeners } = listening(count)
    const emitter = emitterOf(listeners)
    const figure = difference(
      () => store.run(Delivered, data, unpublished),
      () => emitter.emit(type, parsedFrom(store.run(Delivered, data, unpublished))),
    )
    assertHeard(heard, count, pairs * runsPerBlock)
    return { figure, more: { "in one go": inOneGo } }
  })
}

function publishSide(count) {
  return storeSide(`syncline publish, ${named(count)}`, ({ store, Delivered, Delta }) => {
    store.run(Delivered, data)
    const { heard, listeners } = listening(count)
    for (const listener of listeners) store.subscribe(Delta, listener)
    const start = process.hrtime.bigint()
    for (let n = 0; n < emitted; n++) store.publish(Delta, data)
    const elapsed = Number(process.hrtime.bigint() - start)
    assertHeard(heard, count, emitted)
    return elapsed / 1000 / emitted
  })
}

/** What an emitter takes where nobody keeps an event as text: the floor below any log. */
function plainSide(count) {
  return {
    name: `EventEmitter, nothing to parse, ${named(count)}`,
    sample() {
      const { heard, listeners } = listening(count)
      const emitter = emitterOf(listeners)
      const start = process.hrtime.bigint()
      for (let seq = 0; seq < emitted; seq++) {
        emitter.emit(type, { type, version: 1, id: "evt", seq, aggregateID: aggregate, created: 0, data })
      }
      const elapsed = Number(process.hrtime.bigint() - start)
      assertHeard(heard, count, emitted)
      return elapsed / 1000 / emitted
    },
  }
}

/** What a program would emit that has no dispatcher: none of Syncline's objects, and none that the caller holds. */
function parsedFrom({ id, seq, created }) {
  return { type, version: 1, id, seq, aggregateID: aggregate, created, data: JSON.parse(text) }
}

function emitterOf(listeners) {
  const emitter = new EventEmitter().setMaxListeners(0)
  for (const listener of listeners) emitter.on(type, listener)
  return emitter
}

function named(count) {
  return count === 1 ? "1 listener" : `${count} listeners`
}

const counts = [1, 10, 50]

await measure({
  question: "deliver",
  title: "delivery of one event to listeners in this process, their reading of its data included",
  unit: "µs/event",
  rounds: 7,
  sides: [
    ...counts.flatMap((count) => [dispatcherSide(count), emitterSide(count)]),
    ...counts.map(publishSide),
    ...counts.map(plainSide),
  ],
  targets: counts.map((count) => ({
    side: `syncline, ${named(count)}`,
    against: `EventEmitter, ${named(count)}`,
    atMost: 2,
  })),
})
