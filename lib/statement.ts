import { checkBoolean } from "./argument"
import { copyBytes, gather, type StatementParameters } from "./bind"
import type { Database } from "./database"
import { invalidArgument, SyncError, syncErrorOf } from "./errors"
import { native, STATE, type Handle, type StatementHandle } from "./native"
import { rowReaders, type ColumnDefinition, type RowReaders } from "./row"
import type { TransactionGate } from "./transaction"

/** How many compiled statements a connection keeps; the one that was used longest ago goes first. */
export const CACHED_STATEMENTS = 1_000

/**
 * What a statement that returns no rows did.
 * @example
 * const result: RunResult = store.db.prepare("UPDATE session SET title = ?").run("Ship it")
 * result.changes // → 1
 */
export interface RunResult {
  /** Rows inserted, updated or deleted by the statement itself: not by triggers or cascades. */
  changes: number
  /** The rowid of the connection's latest insert; a bigint under `safeIntegers`. */
  lastInsertRowid: number | bigint
}

type Mode = keyof RowReaders

/**
 * A prepared statement with better-sqlite3's surface, made by `Database.prepare`.
 *
 * Parameters are given as positional values, as arrays of them, as one plain object of named values (`:name`, `@name`
 * or `$name` in SQL, the bare name in the object), or mixed. Misuse throws `ERR_INVALID_ARGUMENT`, SQLite's own
 * refusals `ERR_SQLITE`, a busy or iterating statement `ERR_BUSY`, a closed connection `ERR_CLOSED`.
 * @example
 * const byID: Statement<[id: string], { title: string }> = store.db.prepare("SELECT title FROM session WHERE id = ?")
 * byID.get("ses_1")?.title // → "Fix the build"
 */
export class Statement<BindParameters extends unknown[] = unknown[], Result = unknown> {
  /** The connection that prepared this statement. */
  readonly database: Database
  /** The SQL text, as it was given to `prepare`. */
  readonly source: string
  /** Whether the statement returns rows: then `get`, `all` and `iterate` apply. */
  readonly reader: boolean
  /** Whether the statement changes no row of the file (application-defined functions aside). */
  readonly readonly: boolean

  readonly #connection: Connection
  #plan: Plan
  #mode: Mode = "object"
  #safeIntegers = false
  #bound: unknown[] | undefined

  /** @internal */
  constructor(database: Database, connection: Connection, plan: Plan) {
    this.database = database
    this.source = plan.source
    this.reader = plan.reader
    this.readonly = plan.readonly
    this.#connection = connection
    this.#plan = plan
  }

  /**
   * Executes the statement to its end; rows it returns are stepped over and dropped.
   * @example store.db.prepare("UPDATE session SET title = :title").run({ title: "Ship it" }).changes // → 1
   */
  run(...params: BindParameters): RunResult {
    const connection = this.#connection
    const plan = this.#free()
    const before = plan.endsTransaction ? native.state(connection.handle) : STATE.autocommit
    const values = this.#values(plan, params)
    const [changes, lastInsertRowid] = native.statementRun(connection.handle, plan.handle, values, this.#safeIntegers)
    if (before !== STATE.autocommit) connection.afterControl()
    return { changes, lastInsertRowid }
  }

  /**
   * The first row, or undefined when there is none. Refused (`ERR_INVALID_ARGUMENT`) for a statement without rows.
   * @example store.db.prepare("SELECT title FROM session WHERE id = ?").get("ses_9") // → undefined
   */
  get(...params: BindParameters): Result | undefined {
    const connection = this.#connection
    const plan = this.#read("get")
    const values = this.#values(plan, params)
    const flat = native.statementGet(connection.handle, plan.handle, values, this.#safeIntegers)
    if (flat === null) return undefined
    return plan.readers(connection.handle, flat[0] as number)[this.#mode](flat, 1) as Result
  }

  /**
   * Every row. Refused (`ERR_INVALID_ARGUMENT`) for a statement without rows.
   * @example store.db.prepare("SELECT * FROM session").all() // → [{ id: "ses_1", title: "Fix the build" }]
   */
  all(...params: BindParameters): Result[] {
    const connection = this.#connection
    const plan = this.#read("all")
    const values = this.#values(plan, params)
    const flat = native.statementAll(connection.handle, plan.handle, values, this.#safeIntegers)
    if (flat.length <= 1) return []
    const readers = plan.readers(connection.handle, flat[0] as number)
    const read = readers[this.#mode]
    const width = plan.width
    const rows: Result[] = []
    for (let at = 1; at < flat.length; at += width) rows.push(read(flat, at) as Result)
    return rows
  }

  /**
   * Steps row by row. Until the iterator is finished (or left by `break`, or collected as garbage), this statement and every
   * write on the connection are refused with `ERR_BUSY`; reading with other statements works.
   * @example
   * for (const row of store.db.prepare("SELECT id FROM session").iterate()) console.log(row) // { id: 'ses_1' }
   */
  iterate(...params: BindParameters): IterableIterator<Result> {
    const plan = this.#read("iterate")
    const values = this.#values(plan, params)
    return new RowIterator<Result>(this, this.#connection, plan, values, this.#safeIntegers, this.#mode)
  }

  /**
   * Binds the parameters for good; may be called once, and later calls then take none. Returns the statement.
   * @example
   * store.db.prepare("SELECT title FROM session WHERE id = ?").bind("ses_1").get() // → { title: "Fix the build" }
   */
  bind(...params: BindParameters): this {
    if (this.#bound !== undefined)
      throw invalidArgument("The bind() method can only be invoked once per statement object")
    this.#bound = gather(this.#free(), params).map(copyBytes)
    return this
  }

  /**
   * Rows are their first column's value alone. Returns the statement.
   * @example store.db.prepare("SELECT title FROM session").pluck().get() // → "Fix the build"
   */
  pluck(toggle = true): this {
    return this.#toggle("pluck", toggle)
  }

  /**
   * Rows are arrays of values in the order of the columns. Returns the statement.
   * @example store.db.prepare("SELECT * FROM session").raw().get() // → ["ses_1", "Fix the build"]
   */
  raw(toggle = true): this {
    return this.#toggle("raw", toggle)
  }

  /**
   * Rows are objects of objects: one for each table, and `$` for columns that stem from none. Returns the statement.
   * @example
   * store.db.prepare("SELECT id, 1 AS n FROM session").expand().get() // → { session: { id: "ses_1" }, $: { n: 1 } }
   */
  expand(toggle = true): this {
    return this.#toggle("expand", toggle)
  }

  /**
   * INTEGER values are returned as bigints (without it: as numbers, exact up to 2^53). Returns the statement.
   * @example store.db.prepare("SELECT 9007199254740993").pluck().safeIntegers().get() // → 9007199254740993n
   */
  safeIntegers(toggle = true): this {
    this.#free()
    this.#safeIntegers = checkBoolean("safeIntegers", toggle, true)
    return this
  }

  /**
   * The result's columns as they are now: after ALTER TABLE, `SELECT *` has others. Refused for a statement without rows.
   * @example
   * store.db.prepare("SELECT id FROM session").columns()[0] // → { name: "id", table: "session", type: "TEXT", … }
   */
  columns(): ColumnDefinition[] {
    if (!this.reader) throw invalidArgument("The columns() method is only for statements that return data")
    return columnsOf(this.#connection.handle, this.#plan.handle)
  }

  #toggle(mode: Mode, toggle: boolean): this {
    if (!this.reader) throw invalidArgument(`The ${mode}() method is only for statements that return data`)
    this.#free()
    if (checkBoolean(mode, toggle, true)) this.#mode = mode
    else if (this.#mode === mode) this.#mode = "object"
    return this
  }

  #read(method: string): Plan {
    if (!this.reader) throw invalidArgument(`This statement does not return data: use run() instead of ${method}()`)
    return this.#free()
  }

  /** Statements of the same text share a plan; one whose plan another statement is iterating gets its own. */
  #free(): Plan {
    const { iterating } = this.#plan
    if (iterating === undefined) return this.#plan
    if (iterating === this) throw new SyncError("ERR_BUSY", "This statement is busy executing a query")
    return (this.#plan = this.#connection.compile(this.source))
  }

  #values(plan: Plan, params: unknown[]): unknown[] {
    if (this.#bound === undefined) return gather(plan, params)
    if (params.length > 0) throw invalidArgument("This statement already has bound parameters")
    return this.#bound
  }
}

/**
 * What a Database and its statements share: the handle, and the compiled statements by SQL text.
 *
 * @internal
 */
export class Connection {
  readonly handle: Handle
  readonly #gate: TransactionGate
  readonly #plans = new Map<string, Plan>()
  /** An iterator that was neither finished nor left keeps writes out: once it is collected, nobody can finish it any more. */
  readonly #abandoned = new FinalizationRegistry<OpenCursor>((open) => this.closeQuietly(open))

  constructor(handle: Handle, gate: TransactionGate) {
    this.handle = handle
    this.#gate = gate
  }

  /** The compiled statement for this text, from the cache where it is free. */
  plan(sql: string): Plan {
    const known = this.#plans.get(sql)
    if (known === undefined || known.iterating !== undefined) {
      const plan = this.compile(sql)
      if (known === undefined && plan.cacheable) this.#remember(plan)
      return plan
    }
    this.#plans.delete(sql)
    this.#plans.set(sql, known)
    return known
  }

  /** Begins an iteration, which is `closed` or, once its iterator is collected, closed by itself. */
  open(iterator: object, plan: Plan, values: unknown[]): OpenCursor {
    const open = { plan, cursor: native.cursorOpen(this.handle, plan.handle, values) }
    this.#abandoned.register(iterator, open, iterator)
    return open
  }

  close(iterator: object, { cursor }: OpenCursor): void {
    native.cursorClose(this.handle, cursor)
    this.#abandoned.unregister(iterator)
  }

  /** Where nobody hears of an error: after another one, or of an iterator that is gone. */
  closeQuietly({ plan, cursor }: OpenCursor): void {
    plan.iterating = undefined
    try {
      native.cursorClose(this.handle, cursor)
    } catch {
      return
    }
  }

  /** Compiles anew, past the cache. */
  compile(sql: string): Plan {
    return new Plan(this.handle, sql)
  }

  /** Drops the compiled statements, so that each later `prepare` meets the closed handle. */
  forget(): void {
    this.#plans.clear()
  }

  /** After a statement that may have ended the outermost transaction and found one open: tells the store if it did. */
  afterControl(): void {
    if (native.state(this.handle) === STATE.autocommit) this.#gate.committed()
  }

  #remember(plan: Plan): void {
    this.#plans.set(plan.source, plan)
    if (this.#plans.size <= CACHED_STATEMENTS) return
    for (const oldest of this.#plans.keys()) {
      this.#plans.delete(oldest)
      return
    }
  }
}

/** An iteration that has begun. It does not know its iterator, which could not be collected then. */
interface OpenCursor {
  readonly plan: Plan
  readonly cursor: number
}

/** One compiled statement: what every Statement of the same text shares. */
class Plan implements StatementParameters {
  readonly source: string
  readonly handle: StatementHandle
  readonly reader: boolean
  readonly readonly: boolean
  readonly parameters: readonly (string | null)[]
  readonly named: boolean
  /** Flag pragmas take effect when they are compiled, not when they run: a cached one would do nothing. */
  readonly cacheable: boolean
  readonly endsTransaction: boolean
  /** The statement whose open iterator holds this plan. */
  iterating: object | undefined
  width = 0

  #generation: number | undefined
  #readers: RowReaders | undefined

  constructor(connection: Handle, source: string) {
    const [handle, reader, readonly, parameters] = native.prepare(connection, source)
    const keyword = firstKeyword(source)
    this.source = source
    this.handle = handle
    this.reader = reader
    this.readonly = readonly
    this.parameters = parameters
    this.named = parameters.some((name) => name !== null)
    this.cacheable = keyword !== "PRAGMA"
    this.endsTransaction = ENDS_TRANSACTION.has(keyword)
  }

  /** How to read a row, made again whenever SQLite compiled the statement anew (its columns may be others). */
  readers(connection: Handle, generation: number): RowReaders {
    if (this.#readers !== undefined && generation === this.#generation) return this.#readers
    const columns = columnsOf(connection, this.handle)
    this.width = columns.length
    this.#generation = generation
    return (this.#readers = rowReaders(columns))
  }
}

/** Written out rather than a generator: an iterator that is returned before its first step must close its cursor too. */
class RowIterator<Result> implements IterableIterator<Result> {
  readonly #connection: Connection
  readonly #plan: Plan
  readonly #mode: Mode
  readonly #safeIntegers: boolean
  readonly #cursor: OpenCursor
  #open = true

  constructor(
    statement: object,
    connection: Connection,
    plan: Plan,
    values: unknown[],
    safeIntegers: boolean,
    mode: Mode,
  ) {
    this.#connection = connection
    this.#plan = plan
    this.#mode = mode
    this.#safeIntegers = safeIntegers
    this.#cursor = connection.open(this, plan, values)
    plan.iterating = statement
  }

  next(): IteratorResult<Result> {
    if (!this.#open) return { done: true, value: undefined }
    const connection = this.#connection
    let flat: unknown[] | null
    try {
      flat = native.cursorNext(connection.handle, this.#plan.handle, this.#cursor.cursor, this.#safeIntegers)
    } catch (error) {
      // Inside a function that this very cursor is calling, it is only busy: the rows go on afterwards.
      if (!isBusy(error)) this.#finish()
      throw error
    }
    if (flat === null) {
      this.#close()
      return { done: true, value: undefined }
    }
    const row = this.#plan.readers(connection.handle, flat[0] as number)[this.#mode](flat, 1)
    return { done: false, value: row as Result }
  }

  return(value?: unknown): IteratorResult<Result> {
    if (this.#open) this.#close()
    return { done: true, value }
  }

  [Symbol.iterator](): this {
    return this
  }

  #close(): void {
    this.#connection.close(this, this.#cursor)
    this.#open = false
    this.#plan.iterating = undefined
  }

  /** After a failed step: SQLite has reset the statement, and a second error must not hide the first. */
  #finish(): void {
    this.#connection.closeQuietly(this.#cursor)
    this.#open = false
  }
}

function isBusy(thrown: unknown): boolean {
  return syncErrorOf(thrown)?.code === "ERR_BUSY"
}

function columnsOf(connection: Handle, statement: StatementHandle): ColumnDefinition[] {
  const flat = native.columns(connection, statement)
  const columns: ColumnDefinition[] = []
  for (let at = 0; at < flat.length; at += 5) {
    columns.push({
      name: flat[at] as string,
      column: flat[at + 1] ?? null,
      table: flat[at + 2] ?? null,
      database: flat[at + 3] ?? null,
      type: flat[at + 4] ?? null,
    })
  }
  return columns
}

const ENDS_TRANSACTION = new Set(["COMMIT", "END", "RELEASE", "ROLLBACK"])

const FIRST_KEYWORD = /^(?:[\s;]|--[^\n]*(?:\n|$)|\/\*[^]*?(?:\*\/|$))*([A-Za-z]+)/

function firstKeyword(sql: string): string {
  return FIRST_KEYWORD.exec(sql)?.[1]?.toUpperCase() ?? ""
}
