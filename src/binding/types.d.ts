/** An open store or connection. Opaque; used on the thread that opened it. */
export type Handle = { readonly __handle: unique symbol }
/** The whole input of one replay. */
export type Batch = { readonly __batch: unique symbol }
/** A prepared statement of some connection. */
export type Statement = { readonly __statement: unique symbol }
/** Eight values an event: id, type.version, seq, aggregateID, created, metadata text, data text, position. */
export type FlatEvents = (string | number | null)[]
/** Eight values an item: index, def, seq, id, aggregateID, created, metadata text, data text. */
export type FlatItems = (string | number | null)[]

