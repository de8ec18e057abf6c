import { checkAggregateID, checkOptions } from "./argument"
import type { WriteContext } from "./context"
import type { AnyDefinition, InputOf } from "./define"
import { SyncError, invalidArgument } from "./errors"
import { native } from "./native"
import { UNASKED, type Prepared, type Runner } from "./run"

/**
 * What `remove` takes.
 * @example
 * const options: RemoveOptions<typeof Deleted> = { event: [Deleted, { sessionID: "ses_1" }] }
 * store.remove("ses_1", options)
 */
export interface RemoveOptions<D extends AnyDefinition = AnyDefinition> {
  /** The deletion event, recorded after what is erased and kept for readers who were away. Default: none. */
  event?: readonly [definition: D, data: InputOf<D>] | undefined
}

/** Erases an aggregate; the deletion event passes the checks of any other event that is run. */
export class Remover {
  constructor(
    private readonly context: WriteContext,
    private readonly runner: Runner,
  ) {}

  remove(aggregateID: string, options?: RemoveOptions): void {
    const { handle, transactions, owner } = this.context
    transactions.assertUsable("remove")
    checkAggregateID(aggregateID)
    this.runner.assertRecording("remove")
    const { event } = checkOptions("remove", options, ["event"])
    const prepared = event === undefined ? undefined : this.#prepare(aggregateID, event)
    transactions.write(() => {
      const { index = -1, text = null } = prepared ?? {}
      const recorded = native.remove(handle, aggregateID, index, text, null, owner)
      if (recorded !== null && prepared !== undefined) this.runner.finish(prepared, UNASKED, recorded)
    })
  }

  #prepare(aggregateID: string, event: RemoveOptions["event"]): Prepared {
    if (!Array.isArray(event) || event.length !== 2) throw invalidArgument("remove: event must be [definition, data]")
    const prepared = this.runner.prepare(event[0] as AnyDefinition, event[1])
    if (prepared.aggregateID === aggregateID) return prepared
    const { name, aggregate } = prepared.target.definition
    throw new SyncError(
      "ERR_AGGREGATE_MISMATCH",
      `The deletion event ${name} has data.${aggregate} "${prepared.aggregateID}", not "${aggregateID}"`,
      { type: name, aggregateID, expected: aggregateID, got: prepared.aggregateID },
    )
  }
}
