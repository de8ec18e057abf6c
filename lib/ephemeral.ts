import { accept, assertNesting } from "./accept"
import type { WriteContext } from "./context"
import type { EphemeralDefinition } from "./define"
import { native } from "./native"
import { lazyEphemeral } from "./payload"

/** Tells listeners of an event that is never stored; inside a transaction, once that has been committed. */
export function publish(context: WriteContext, definition: EphemeralDefinition, data: unknown): void {
  const { handle, transactions, dispatcher, projections } = context
  transactions.assertUsable("publish")
  projections.assertPublishable(definition)
  const { aggregateID, text } = accept(context, definition, data)
  assertNesting(text, { type: definition.name, aggregateID })
  const [id, created, after, position, index] = native.stamp(handle, aggregateID)
  const { type, version } = definition
  const event = lazyEphemeral(id, type, version, aggregateID, after, created, text)
  const pending = { event, text, position, recorded: false, publish: true }
  if (index < 0) dispatcher.publish([pending])
  else transactions.hold(index, pending)
}
