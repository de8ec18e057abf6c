import { checkBoolean, checkName, checkOptions, checkUncut } from "./argument"
import { bindable } from "./bind"
import { invalidArgument, show } from "./errors"
import { keepThrown, native, STATE, type Handle } from "./native"
import { Connection, Statement, type RunResult } from "./statement"
import { refuseAsync, type TransactionGate, type TransactionMode } from "./transaction"

export { type BindValue } from "./bind"
export { Statement, type RunResult } from "./statement"
export { type ColumnDefinition } from "./row"

/**
 * A function that runs in a transaction: immediate by itself, or in the mode of the property that is called.
 * @example
 * const rename: TransactionFunction<unknown, [title: string], RunResult> = store.db.transaction((title: string) =>
 *   store.db.prepare("UPDATE session SET title = ?").run(title),
 * )
 * rename.deferred("Ship it").changes // → 1
 */
export interface TransactionFunction<This, Args extends unknown[], Result> {
  (this: This, ...args: Args): Result
  /** The same as the function itself: immediate. */
  readonly default: (this: This, ...args: Args) => Result
  /** Takes the write lock with the first statement that writes, which may be too late for it: `ERR_BUSY`. */
  readonly deferred: (this: This, ...args: Args) => Result
  /** Takes the write lock at once, waiting for it up to `busyTimeout`. */
  readonly immediate: (this: This, ...args: Args) => Result
  /** As immediate: with a WAL, readers go on. */
  readonly exclusive: (this: This, ...args: Args) => Result
  /** The connection that it runs on. */
  readonly database: Database
}

/**
 * Options of an application-defined function; each is false by default.
 * @example
 * const options: FunctionOptions = { deterministic: true }
 * store.db.function("shout", options, (text: string) => `${text}!`)
 * store.db.prepare("SELECT shout(title) AS title FROM session").get() // → { title: "Fix the build!" }
 */
export interface FunctionOptions {
  /** Any number of arguments, instead of exactly `fn.length`. */
  varargs?: boolean | undefined
  /** The same arguments always give the same result: SQLite may use it in indexes and call it less often. */
  deterministic?: boolean | undefined
  /** Not callable from triggers, views and the schema. */
  directOnly?: boolean | undefined
  /** INTEGER arguments arrive as bigints. */
  safeIntegers?: boolean | undefined
}

/**
 * A compiled query of a query builder that only compiles, such as kysely's `query.compile()`.
 * @example
 * const query: CompiledStatement = { sql: "SELECT title FROM session WHERE id = ?", parameters: ["ses_1"] }
 * store.db.get(query) // → { title: "Fix the build" }
 */
export interface CompiledStatement {
  /** One statement, with `?` for each parameter. */
  readonly sql: string
  /** The values to bind, in order: see `BindValue`. */
  readonly parameters: readonly unknown[]
}

/** What a Database is told about its connection. */
export interface DatabaseOptions {
  memory: boolean
  readonly: boolean
  gate: TransactionGate
  /** Called once, when the handle has been closed. */
  onClose?: () => void
}

/**
 * A connection with better-sqlite3's surface. `store.db` is the store's own (its transactions are the store's);
 * `store.connect()` gives a second one that its caller closes.
 * @example
 * const titles = (db: Database) => db.prepare("SELECT title FROM session").pluck().all()
 * titles(store.db) // → ["Fix the build"]
 */
export class Database {
  /** The path the database was opened with. */
  readonly name: string
  /** Whether the database lives in memory alone. */
  readonly memory: boolean
  /** Whether the connection was opened to read only. */
  readonly readonly: boolean

  readonly #connection: Connection
  readonly #gate: TransactionGate
  readonly #onClose: (() => void) | undefined
  #open = true

  /** @internal */
  constructor(handle: Handle, name: string, options: DatabaseOptions) {
    this.name = name
    this.memory = options.memory
    this.readonly = options.readonly
    this.#connection = new Connection(handle, options.gate)
    this.#gate = options.gate
    this.#onClose = options.onClose
  }

  /** Whether the connection is open: closing a store closes its `db`, and the other way round. */
  get open(): boolean {
    return this.#open
  }

  /** Whether a transaction is open now. False once SQLite has rolled one back by itself. */
  get inTransaction(): boolean {
    if (!this.#open) return false
    const state = native.state(this.#connection.handle)
    return state === STATE.transaction || state === STATE.raw
  }

  /**
   * Prepares one statement; more than one or none: `ERR_INVALID_ARGUMENT` or `ERR_SQLITE`. Compiled statements are
   * kept by their text (the 1,000 used last), so preparing again costs little; each call returns a Statement of its
   * own, with its own modes.
   * @example store.db.prepare("SELECT title FROM session WHERE id = ?").get("ses_1") // → { title: "Fix the build" }
   */
  prepare<BindParameters extends unknown[] | {} = unknown[], Result = unknown>(
    sql: string,
  ): BindParameters extends unknown[] ? Statement<BindParameters, Result> : Statement<[BindParameters], Result>
  prepare(sql: string): Statement {
    return new Statement(this, this.#connection, this.#connection.plan(checkUncut("The SQL", sql)))
  }

  /**
   * Executes every statement of the text, in order, up to the first failure. Returns the database.
   * @example store.db.exec("CREATE TABLE tag (name TEXT); INSERT INTO tag VALUES ('new')")
   */
  exec(sql: string): this {
    const connection = this.#connection
    const before = native.state(connection.handle)
    native.exec(connection.handle, checkUncut("The SQL", sql))
    if (before !== STATE.autocommit) connection.afterControl()
    return this
  }

  /**
   * Wraps a function so that calling it runs it in a transaction: committed when it returns, rolled back when it
   * throws (the very value reaches the caller), a savepoint when a transaction is open already. `this` and the
   * arguments are passed on. Immediate unless `.deferred` or `.exclusive` is called; an async function or a promise
   * as its result: `ERR_ASYNC_TRANSACTION`.
   * @example
   * const rename = store.db.transaction((title: string) => store.db.prepare("UPDATE session SET title = ?").run(title))
   * rename("Ship it").changes // → 1
   */
  transaction<This, Args extends unknown[], Result>(
    fn: (this: This, ...args: Args) => Result,
  ): TransactionFunction<This, Args, Result> {
    refuseAsync(fn)
    const gate = this.#gate
    const inMode = (mode: TransactionMode) =>
      function (this: This, ...args: Args): Result {
        return gate.transaction(mode, () => fn.apply(this, args))
      }
    const immediate = inMode("immediate")
    const functions = { immediate, deferred: inMode("deferred"), exclusive: inMode("exclusive") }
    const properties: PropertyDescriptorMap = {
      default: { value: immediate },
      immediate: { value: immediate },
      deferred: { value: functions.deferred },
      exclusive: { value: functions.exclusive },
      database: { value: this, enumerable: true },
    }
    for (const each of Object.values(functions)) Object.defineProperties(each, properties)
    return immediate as TransactionFunction<This, Args, Result>
  }

  /**
   * Runs `PRAGMA source`: all rows of the result, or with `simple` the first column of the first row.
   * @example
   * store.db.pragma("journal_mode", { simple: true }) // → "wal"
   * store.db.pragma("journal_mode") // → [{ journal_mode: "wal" }]
   */
  pragma(source: string, options?: { simple?: boolean | undefined }): unknown {
    const simple = checkBoolean("simple", checkOptions("pragma", options, ["simple"]).simple, false)
    const statement = new Statement(
      this,
      this.#connection,
      this.#connection.compile(`PRAGMA ${checkUncut("The pragma", source)}`),
    )
    if (statement.reader) return simple ? statement.pluck().get() : statement.all()
    statement.run()
    return simple ? undefined : []
  }

  /**
   * Registers a function for SQL on this connection; one of the same name and number of arguments is replaced. What
   * it throws reaches the statement's caller as the very value. While it runs, the connection is busy (`ERR_BUSY`).
   * @example
   * store.db.function("shout", (text: string) => `${text}!`)
   * store.db.prepare("SELECT shout(title) AS title FROM session").get() // → { title: "Fix the build!" }
   */
  function(name: string, fn: (...args: any[]) => unknown): this
  function(name: string, options: FunctionOptions, fn: (...args: any[]) => unknown): this
  function(
    name: string,
    first: FunctionOptions | ((...args: any[]) => unknown),
    second?: (...args: any[]) => unknown,
  ): this {
    const [options, fn] = typeof first === "function" ? [{}, first] : [first ?? {}, second]
    checkName("The function's name", checkUncut("The function's name", name))
    if (typeof fn !== "function") throw invalidArgument(`A function for SQL must be a function, not ${show(fn)}`)
    if (typeof options !== "object") throw invalidArgument(`The options must be an object, not ${show(options)}`)
    const { varargs, deterministic, directOnly, safeIntegers } = options
    const flags = {
      arguments: checkBoolean("varargs", varargs, false) ? -1 : arity(fn),
      deterministic: checkBoolean("deterministic", deterministic, false),
      directOnly: checkBoolean("directOnly", directOnly, false),
      safeIntegers: checkBoolean("safeIntegers", safeIntegers, false),
    }
    const { handle } = this.#connection
    native.createFunction(handle, name, flags, keepingThrown(name, new WeakRef(fn)))
    const kept = functions.get(handle) ?? new Map<string, Function>()
    functions.set(handle, kept.set(`${name.toLowerCase()}/${flags.arguments}`, fn))
    return this
  }

  /**
   * Executes a compiled query: kysely runs asynchronously, so a projector compiles with it and runs here.
   * @example store.db.run({ sql: "UPDATE session SET title = ?", parameters: ["Ship it"] }).changes // → 1
   */
  run(query: CompiledStatement): RunResult {
    const { sql, parameters } = checkCompiled("run", query)
    return this.prepare(sql).run(...parameters)
  }

  /**
   * The first row of a compiled query, or undefined.
   * @example
   * store.db.get({ sql: "SELECT title FROM session WHERE id = ?", parameters: ["ses_1"] }) // → { title: "Fix the build" }
   */
  get<Row = unknown>(query: CompiledStatement): Row | undefined {
    const { sql, parameters } = checkCompiled("get", query)
    return this.prepare<unknown[], Row>(sql).get(...parameters)
  }

  /**
   * Every row of a compiled query.
   * @example store.db.all({ sql: "SELECT id FROM session", parameters: [] }) // → [{ id: "ses_1" }]
   */
  all<Row = unknown>(query: CompiledStatement): Row[] {
    const { sql, parameters } = checkCompiled("all", query)
    return this.prepare<unknown[], Row>(sql).all(...parameters)
  }

  /**
   * Closes the connection and its open iterators; closing again does nothing. On `store.db` it closes the store.
   * Refused inside a transaction (`ERR_IN_TRANSACTION`), a projector (`ERR_IN_PROJECTOR`), and a function that SQL
   * calls (`ERR_BUSY`).
   * @example
   * const db = store.connect()
   * db.close().open // → false
   */
  close(): this {
    if (!this.#open) return this
    native.close(this.#connection.handle)
    this.#open = false
    this.#connection.forget()
    this.#onClose?.()
    return this
  }
}

function checkCompiled(call: string, query: CompiledStatement): CompiledStatement {
  if (typeof query?.sql === "string" && Array.isArray(query.parameters)) return query
  throw invalidArgument(`${call} needs a compiled query, { sql, parameters }, not ${show(query)}`)
}

const MAX_ARGUMENTS = 100

function arity(fn: Function): number {
  const count: unknown = fn.length
  if (typeof count !== "number" || !Number.isInteger(count) || count < 0 || count > MAX_ARGUMENTS) {
    throw invalidArgument(`A function for SQL takes 0 to ${MAX_ARGUMENTS} arguments`)
  }
  return count
}

/**
 * The functions of each connection, as long as its handle is reachable. What Rust holds is never collected: were it these, a
 * store that somebody drops would be kept for good by a function of its own that mentions it.
 */
const functions = new WeakMap<Handle, Map<string, Function>>()

/** SQLite carries an error's message only: the value itself is kept until the failing statement returns. */
function keepingThrown(name: string, held: WeakRef<(...args: unknown[]) => unknown>) {
  return (...args: unknown[]): unknown => {
    try {
      const result = bindable(held.deref()?.(...args))
      if (result === undefined)
        throw invalidArgument(`User-defined function ${name}() returned a value that SQLite cannot hold`)
      return result
    } catch (error) {
      keepThrown(error)
      throw error
    }
  }
}
