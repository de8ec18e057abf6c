/**
 * drizzle over a connection of Syncline, for projectors, transactions and whatever reads the tables.
 * @module syncline/drizzle
 */

import { entityKind } from "drizzle-orm/entity"
import { DefaultLogger, NoopLogger, type Logger } from "drizzle-orm/logger"
import { readMigrationFiles, type MigrationConfig } from "drizzle-orm/migrator"
import {
  createTableRelationsHelpers,
  extractTablesRelationalConfig,
  type ExtractTablesWithRelations,
  type RelationalSchemaConfig,
  type TablesRelationalConfig,
} from "drizzle-orm/relations"
import { fillPlaceholders, sql, type Query, type SQL } from "drizzle-orm/sql"
import {
  BaseSQLiteDatabase,
  SQLitePreparedQuery,
  SQLiteSession,
  SQLiteSyncDialect,
  SQLiteTransaction,
  type PreparedQueryConfig,
  type SelectedFieldsOrdered,
  type SQLiteExecuteMethod,
  type SQLiteTransactionConfig,
} from "drizzle-orm/sqlite-core"
import * as drizzleUtils from "drizzle-orm/utils"
import type { DrizzleConfig } from "drizzle-orm/utils"
import { checkOptions } from "./argument"
import { Database, type RunResult, type Statement } from "./database"
import { invalidArgument, show } from "./errors"
import { refuseAsync, synchronous } from "./transaction"

/**
 * drizzle's own options, all absent by default: `schema` for relational queries, `logger`, `casing`.
 * @example
 * const config: SynclineDrizzleConfig<{ sessions: typeof sessions }> = { schema: { sessions } }
 * drizzle(store, config).query.sessions.findFirst().sync() // → { id: "ses_1", title: "Fix the build" }
 */
export type SynclineDrizzleConfig<TSchema extends Record<string, unknown> = Record<string, never>> = Omit<
  DrizzleConfig<TSchema>,
  "cache"
>

/**
 * drizzle's synchronous SQLite database, as with `drizzle-orm/better-sqlite3`, over a connection of Syncline.
 * @example
 * const titles = (db: SynclineDatabase) => db.select({ title: sessions.title }).from(sessions).all()
 * titles(drizzle(store)) // → [{ title: "Fix the build" }]
 */
export class SynclineDatabase<
  TSchema extends Record<string, unknown> = Record<string, never>,
> extends BaseSQLiteDatabase<"sync", RunResult, TSchema> {
  static override readonly [entityKind]: string = "SynclineDatabase"
  /** The connection underneath. */
  readonly $client: Database

  /** @internal */
  constructor(
    session: SynclineSession<TSchema, ExtractTablesWithRelations<TSchema>>,
    schema: RelationalSchemaConfig<ExtractTablesWithRelations<TSchema>> | undefined,
  ) {
    super("sync", session.dialect, session, schema)
    this.$client = session.client
  }
}

/**
 * Opens drizzle over `store.db`, a second connection from `store.connect()`, or a store itself. Pass it to `open` as
 * `query: (db) => drizzle(db, { schema })` and projectors and `store.transaction` receive it as their `tx`.
 *
 * Everything is synchronous: `.run()`, `.all()`, `.get()`, `.values()`, `.sync()`. `transaction` is the store's own
 * transaction and immediate unless `{ behavior: "deferred" }` is asked for; a nested one is a savepoint. Statements
 * throw `SyncError` (`ERR_SQLITE`), never wrapped.
 * @example drizzle(store).select().from(sessions).all() // → [{ id: "ses_1", title: "Fix the build" }]
 */
export function drizzle<TSchema extends Record<string, unknown> = Record<string, never>>(
  source: Database | { readonly db: Database },
  options?: SynclineDrizzleConfig<TSchema>,
): SynclineDatabase<TSchema> {
  const client = source instanceof Database ? source : (source as Partial<typeof source> | null | undefined)?.db
  if (!(client instanceof Database)) {
    throw invalidArgument(`drizzle needs a store, or a database of Syncline, not ${show(source)}`)
  }
  const config = checkOptions("drizzle", options, ["schema", "logger", "casing"])
  const dialect = new SQLiteSyncDialect(config.casing === undefined ? {} : { casing: config.casing })
  const schema = config.schema === undefined ? undefined : relationalSchema(config.schema)
  return new SynclineDatabase<TSchema>(new SynclineSession(client, dialect, schema, loggerOf(config.logger)), schema)
}

/**
 * Applies the migrations that drizzle-kit generated and this database lacks, all in one transaction. Also works inside
 * the `migrate` hook of `open`: `migrate: (db) => migrate(drizzle(db), { migrationsFolder: "drizzle" })`.
 *
 * A migration that rebuilds a table which others refer to needs `PRAGMA foreign_keys` off before the transaction
 * begins, as SQLite ignores the pragma inside one: run such a migration on a connection of its own.
 * @example
 * migrate(drizzle(store), { migrationsFolder })
 * store.db.prepare("SELECT count(*) FROM tag").pluck().get() // → 0
 */
export function migrate<TSchema extends Record<string, unknown>>(
  db: SynclineDatabase<TSchema>,
  config: MigrationConfig,
): void {
  const migrations = readMigrationFiles(config)
  const table = sql.identifier(config.migrationsTable ?? "__drizzle_migrations")
  db.transaction((tx) => {
    tx.run(sql`CREATE TABLE IF NOT EXISTS ${table} (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)`)
    const [last] = tx.values<[number]>(sql`SELECT created_at FROM ${table} ORDER BY created_at DESC LIMIT 1`)
    for (const { folderMillis, hash, sql: statements } of migrations) {
      if (last !== undefined && Number(last[0]) >= folderMillis) continue
      for (const statement of statements) db.$client.exec(statement)
      tx.run(sql`INSERT INTO ${table} (hash, created_at) VALUES (${hash}, ${folderMillis})`)
    }
  })
}

/** @internal */
class SynclineSession<
  TFullSchema extends Record<string, unknown>,
  TSchema extends TablesRelationalConfig,
> extends SQLiteSession<"sync", RunResult, TFullSchema, TSchema> {
  static override readonly [entityKind]: string = "SynclineSession"
  readonly client: Database
  readonly dialect: SQLiteSyncDialect
  readonly schema: RelationalSchemaConfig<TSchema> | undefined
  readonly #logger: Logger

  constructor(
    client: Database,
    dialect: SQLiteSyncDialect,
    schema: RelationalSchemaConfig<TSchema> | undefined,
    logger: Logger,
  ) {
    super(dialect)
    this.client = client
    this.dialect = dialect
    this.schema = schema
    this.#logger = logger
  }

  override prepareQuery(
    query: Query,
    fields: SelectedFieldsOrdered | undefined,
    executeMethod: SQLiteExecuteMethod,
    isResponseInArrayMode: boolean,
    customResultMapper?: ResultMapper,
  ): PreparedQuery {
    const statement = this.client.prepare(query.sql)
    return new PreparedQuery(
      statement,
      query,
      this.#logger,
      fields,
      executeMethod,
      isResponseInArrayMode,
      customResultMapper,
    )
  }

  /** drizzle wraps what `run` throws, and only that: here every statement throws the same plain `SyncError`. */
  override run(query: SQL): RunResult {
    return this.prepareQuery(this.dialect.sqlToQuery(query), undefined, "run", false).run()
  }

  override transaction<T>(
    fn: (tx: SynclineTransaction<TFullSchema, TSchema>) => T,
    config: SQLiteTransactionConfig = {},
  ): T {
    return this.client.transaction(fn)[config.behavior ?? "immediate"](new SynclineTransaction(this))
  }
}

/** @internal */
class SynclineTransaction<
  TFullSchema extends Record<string, unknown>,
  TSchema extends TablesRelationalConfig,
> extends SQLiteTransaction<"sync", RunResult, TFullSchema, TSchema> {
  static override readonly [entityKind]: string = "SynclineTransaction"
  readonly #session: SynclineSession<TFullSchema, TSchema>

  constructor(session: SynclineSession<TFullSchema, TSchema>, nestedIndex = 0) {
    super("sync", session.dialect, session, session.schema, nestedIndex)
    this.#session = session
  }

  /** A savepoint; what it did is undone, and it is gone, when the function throws. */
  override transaction<T>(fn: (tx: SynclineTransaction<TFullSchema, TSchema>) => T): T {
    refuseAsync(fn)
    const { client } = this.#session
    const savepoint = `sp${this.nestedIndex}`
    client.prepare(`SAVEPOINT ${savepoint}`).run()
    try {
      const nested = new SynclineTransaction(this.#session, this.nestedIndex + 1)
      const result = synchronous(fn(nested), "A transaction function")
      client.prepare(`RELEASE ${savepoint}`).run()
      return result
    } catch (error) {
      // Where SQLite has rolled everything back by itself there is no savepoint left to return to.
      if (client.inTransaction) {
        client.prepare(`ROLLBACK TO ${savepoint}`).run()
        client.prepare(`RELEASE ${savepoint}`).run()
      }
      throw error
    }
  }
}

type ResultMapper = (rows: unknown[][], mapColumnValue?: (value: unknown) => unknown) => unknown

/** @internal */
class PreparedQuery extends SQLitePreparedQuery<PreparedQueryConfig & { type: "sync"; run: RunResult }> {
  static override readonly [entityKind]: string = "SynclinePreparedQuery"
  /** Set by the select builder: which joined tables may be absent, so that their object becomes null. */
  declare joinsNotNullableMap: Record<string, boolean> | undefined
  readonly #statement: Statement
  readonly #logger: Logger
  readonly #fields: SelectedFieldsOrdered | undefined
  readonly #isResponseInArrayMode: boolean
  readonly #customResultMapper: ResultMapper | undefined

  constructor(
    statement: Statement,
    query: Query,
    logger: Logger,
    fields: SelectedFieldsOrdered | undefined,
    executeMethod: SQLiteExecuteMethod,
    isResponseInArrayMode: boolean,
    customResultMapper: ResultMapper | undefined,
  ) {
    super("sync", executeMethod, query)
    this.#statement = statement
    this.#logger = logger
    this.#fields = fields
    this.#isResponseInArrayMode = isResponseInArrayMode
    this.#customResultMapper = customResultMapper
  }

  override run(placeholderValues?: Record<string, unknown>): RunResult {
    return this.#statement.run(...this.#params(placeholderValues))
  }

  override all(placeholderValues?: Record<string, unknown>): unknown {
    if (!this.#isMapped) return this.#statement.raw(false).all(...this.#params(placeholderValues))
    const rows = this.values(placeholderValues)
    return this.#customResultMapper ? this.#customResultMapper(rows) : rows.map((row) => this.#map(row))
  }

  override get(placeholderValues?: Record<string, unknown>): unknown {
    const params = this.#params(placeholderValues)
    if (!this.#isMapped) return this.#statement.raw(false).get(...params)
    const row = this.#statement.raw().get(...params) as unknown[] | undefined
    if (row === undefined) return undefined
    return this.#customResultMapper ? this.#customResultMapper([row]) : this.#map(row)
  }

  override values(placeholderValues?: Record<string, unknown>): unknown[][] {
    return this.#statement.raw().all(...this.#params(placeholderValues)) as unknown[][]
  }

  /** Part of drizzle's internal contract with its drivers. */
  isResponseInArrayMode(): boolean {
    return this.#isResponseInArrayMode
  }

  get #isMapped(): boolean {
    return this.#fields !== undefined || this.#customResultMapper !== undefined
  }

  #map(row: unknown[]): unknown {
    return mapResultRow(this.#fields ?? [], row, this.joinsNotNullableMap)
  }

  #params(placeholderValues: Record<string, unknown> = {}): unknown[] {
    const params = fillPlaceholders(this.query.params, placeholderValues)
    this.#logger.logQuery(this.query.sql, params)
    return params
  }
}

/** Every driver of drizzle maps rows by this function, which its declarations leave out. */
const { mapResultRow } = drizzleUtils as unknown as {
  mapResultRow(
    fields: SelectedFieldsOrdered,
    row: unknown[],
    joinsNotNullableMap: Record<string, boolean> | undefined,
  ): unknown
}

function relationalSchema<TSchema extends Record<string, unknown>>(
  fullSchema: TSchema,
): RelationalSchemaConfig<ExtractTablesWithRelations<TSchema>> {
  const { tables, tableNamesMap } = extractTablesRelationalConfig<ExtractTablesWithRelations<TSchema>>(
    fullSchema,
    createTableRelationsHelpers,
  )
  return { fullSchema, schema: tables, tableNamesMap }
}

function loggerOf(logger: boolean | Logger | undefined): Logger {
  if (logger === undefined || logger === false) return new NoopLogger()
  return logger === true ? new DefaultLogger() : logger
}
