/** An open store or connection. Opaque; used on the thread that opened it. */
export type Handle = { readonly __handle: unique symbol }
/** The whole input of one replay. */
export type Batch = { readonly __batch: unique symbol }
/** What wakes JavaScript when others have committed. */
export type Watch = { readonly __watch: unique symbol }
/** Work on a store's file that is on its way. */
export type Job = { readonly __job: unique symbol }
/** Older tables that are being adopted. */
export type Adoption = { readonly __adoption: unique symbol }
/** A zstd frame that is being made. */
export type Compressor = { readonly __compressor: unique symbol }
/** zstd frames that are being read. */
export type Decompressor = { readonly __decompressor: unique symbol }
/** A prepared statement of some connection. */
export type Statement = { readonly __statement: unique symbol }
/**
 * A page of events: their ids and their data, each joined to one string; seven numbers each (where its id and its data
 * end, seq, created or NaN, position, index of the type, index of the aggregate); the types; the aggregates; and metadata
 * texts by event, or null where no event has any.
 */
export type EventPage = [
  ids: string,
  data: string,
  numbers: Float64Array,
  types: string[],
  aggregates: string[],
  metadata: (string | null)[] | null,
]
/** Eight values an item: index, def, seq, id, aggregateID, created, metadata text, data text. */
export type FlatItems = (string | number | null)[]
