import { checkUncut } from "./argument"
import { invalidArgument } from "./errors"

/**
 * One SQL statement, as the tag `sql` makes it.
 * @example
 * const statement: Sql = sql`DELETE FROM session WHERE id = :aggregateID`
 * statement.text // → "DELETE FROM session WHERE id = :aggregateID"
 */
export class Sql {
  constructor(
    /** The statement's text. */
    readonly text: string,
  ) {
    Object.freeze(this)
  }
}

/**
 * One statement that Rust runs as a projector. It may use the named parameters `:data` (the stored JSON text),
 * `:aggregateID`, `:seq`, `:id`, `:type` (unversioned), `:version` and `:created` (milliseconds or NULL).
 * Values cannot be interpolated: `ERR_INVALID_ARGUMENT`.
 * @example project(Deleted, sql`DELETE FROM session WHERE id = :aggregateID`).sql.length // → 1
 */
export function sql(strings: TemplateStringsArray, ...values: never[]): Sql {
  if (!Array.isArray(strings) || !("raw" in strings)) {
    throw invalidArgument("sql is a template tag: write sql`…`")
  }
  if (values.length > 0) {
    throw invalidArgument("sql`…` takes no values: use the named parameters, such as :data and :aggregateID")
  }
  const text: string | undefined = strings[0]
  if (text === undefined) throw invalidArgument("sql`…` holds a malformed escape sequence")
  if (text.trim() === "") throw invalidArgument("sql`…` must hold one statement")
  return new Sql(checkUncut("sql`…`", text))
}
