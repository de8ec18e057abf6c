//! The only file that opens SQLite: flags, pragmas in their order; in `busy`, waiting for locks; in `effects`, what a statement
//! does; in `file`, which file it is; and in `refusal`, why the file system refuses.

mod busy;
mod effects;
mod file;
mod refusal;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection as Sqlite, OpenFlags, TransactionBehavior};

pub use self::busy::OnThread;
use self::busy::Waiting;
use self::effects::observe;
pub use self::effects::{Change, Control, Effects, Written};
pub use self::file::{Beside, Identity};
pub use self::refusal::{full, is_full};
use crate::error::{Error, Result};
use crate::limits::{JOURNAL_SIZE_LIMIT, PAGE_CACHE_KIB, STATEMENT_CACHE};
use crate::schema;
use crate::wal::{self, Gather};

/// The path that names a database in memory.
pub const MEMORY: &str = ":memory:";

/// How to open a database.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// File path, or `:memory:`.
    pub path: String,
    /// Refuses every write; the file must exist.
    pub readonly: bool,
    /// `synchronous=FULL` instead of `NORMAL`: commits survive a power cut, not only the process.
    pub full: bool,
    /// How long to wait for somebody else's lock.
    pub busy_timeout: Duration,
}

/// A SQLite connection as Syncline uses it.
pub struct Connection {
    /// Boxed, so that its address stays the same while cursors borrow it.
    sqlite: Box<Sqlite>,
    /// Boxed, and after the connection, which asks it when a lock is taken.
    waiting: Box<Waiting>,
    path: String,
    readonly: bool,
    observed: Arc<Mutex<Effects>>,
    wal_frames: Arc<AtomicU64>,
    gather: Arc<Gather>,
    page_size: u64,
    file: Option<Identity>,
    wal: Option<(PathBuf, Identity)>,
    wal_seen: Cell<Option<Instant>>,
}

impl Connection {
    /// Opens a store's connection: guards first, so that a foreign file stays as it is, then pragmas, then tables.
    pub fn open(options: &OpenOptions) -> Result<Self> {
        Self::open_log(options).map_err(|error| named(&options.path, error))
    }

    fn open_log(options: &OpenOptions) -> Result<Self> {
        refusal::set_up(Self::connect(options, !options.readonly)?, |connection| {
            let found = schema::look_for_ours(&connection.sqlite, &options.path)?;
            if options.readonly {
                return match found {
                    schema::Found::Ours => Ok(()),
                    _ => Err(Error::Readonly {
                        message: format!(
                            "\"{}\" has no syncline tables, and a read-only store cannot make them",
                            options.path
                        ),
                        sqlite_code: "SQLITE_READONLY".to_owned(),
                    }),
                };
            }
            connection.prepare_file(options.full)?;
            connection.count_frames()?;
            connection.make_tables()?;
            connection.gather_commits();
            Ok(())
        })
    }

    fn gather_commits(&mut self) {
        wal::gather_commits(&self.sqlite, &self.gather);
        self.know_wal();
    }

    /// Opens a connection that adopts older tables; `None` where there are none. `check` looks, and changes nothing.
    pub fn open_adopting(options: &OpenOptions, check: impl FnOnce(&Connection) -> Result<()>) -> Result<Option<Self>> {
        let open = || {
            if !Path::new(&options.path).exists() {
                return Ok(None);
            }
            let connection = Self::connect(options, false)?;
            // References from and to the older tables are neither followed nor rewritten: those of the application name
            // our tables afterwards.
            connection.sqlite.pragma_update(None, "foreign_keys", false)?;
            connection.sqlite.pragma_update(None, "legacy_alter_table", true)?;
            // In one snapshot: another process may put the tables aside while they are looked at.
            let found = connection.snapshot(|| match schema::look(&connection.sqlite, &options.path)? {
                schema::Found::Nothing | schema::Found::Ours => Ok(false),
                schema::Found::Older | schema::Found::Adopting => check(&connection).map(|()| true),
            });
            if !connection.explained(found)? {
                return Ok(None);
            }
            let connection = refusal::set_up(connection, |connection| {
                connection.prepare_file(options.full)?;
                connection.count_frames()?;
                connection.gather_commits();
                Ok(())
            })?;
            Ok(Some(connection))
        };
        open().map_err(|error| named(&options.path, error))
    }

    /// Opens a connection that a caller owns: the same pragmas, no guard, no tables, SQLite's own checkpoints.
    pub fn open_plain(options: &OpenOptions) -> Result<Self> {
        let open = || {
            refusal::set_up(Self::connect(options, false)?, |connection| match options.readonly {
                true => Ok(()),
                false => connection.prepare_file(options.full),
            })
        };
        open().map_err(|error| named(&options.path, error))
    }

    /// Opens a second connection to a file that a store has open, for a background thread.
    pub fn open_beside(beside: &Beside) -> Result<Self> {
        beside.check()?;
        refusal::set_up(Self::connect(&beside.options, false)?, |connection| {
            connection.wal.clone_from(&beside.wal);
            // Once more: what is open now can no longer be replaced unnoticed.
            beside.check().and_then(|()| connection.check_in_place())
        })
    }

    /// Opens a second connection to a file that a store has open, for a background thread that writes.
    pub fn open_worker(beside: &Beside) -> Result<Self> {
        refusal::set_up(Self::open_beside(beside)?, |connection| {
            connection.prepare_file(beside.options.full)?;
            connection.count_frames()?;
            connection.gather_commits();
            Ok(())
        })
    }

    /// A second face of an open connection, for what SQLite calls with its handle. It does not close that one.
    pub(crate) fn around(sqlite: Sqlite) -> Self {
        sqlite.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        Connection {
            sqlite: Box::new(sqlite),
            waiting: Box::new(Waiting::new(Duration::ZERO, None)),
            path: String::new(),
            readonly: true,
            observed: Arc::default(),
            wal_frames: Arc::default(),
            gather: Arc::default(),
            page_size: 4096,
            file: None,
            wal: None,
            wal_seen: Cell::default(),
        }
    }

    /// Checkpoints are ours, so that the length of the WAL has to be known.
    fn count_frames(&mut self) -> Result<()> {
        self.sqlite.pragma_update(None, "wal_autocheckpoint", 0)?;
        let frames = Arc::clone(&self.wal_frames);
        self.sqlite.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            frames.store(pages.unsigned_abs().into(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(())
    }

    /// `create`: make the file where there is none. Only the store's own connection does: beside a file that has been
    /// moved away, SQLite would take the WAL for a leftover and delete it, with every commit in it.
    fn connect(options: &OpenOptions, create: bool) -> Result<Self> {
        let path = options.path.as_str();
        if Path::new(path).is_dir() {
            return Err(Error::NotADatabase { path: path.to_owned(), message: "it is a directory".to_owned() });
        }
        let access = match (options.readonly, create) {
            (true, _) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            (false, false) => OpenFlags::SQLITE_OPEN_READ_WRITE,
            (false, true) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        let opening = file::opening();
        if create && path != MEMORY {
            file::make(Path::new(path))?;
        }
        // No URI names: a path is a path, whatever it begins with. No SQLite mutex: the store's own lock is enough.
        let sqlite = Sqlite::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| refusal::cannot_open(Path::new(path), options.readonly, error))?;
        drop(opening);
        if !options.readonly && sqlite.is_readonly("main")? {
            // Before SQLite makes files beside it, which nobody could write either.
            return Err(refusal::not_writable(Path::new(path)));
        }
        // The busy handler comes before everything that can meet a lock, `journal_mode=WAL` above all: without it, five
        // of six processes fail at first open.
        let waiting = Box::new(Waiting::new(options.busy_timeout, (path != MEMORY).then_some(path)));
        waiting.install(&sqlite);
        sqlite.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        let observed = Arc::new(Mutex::new(Effects::default()));
        let mut connection = Connection {
            sqlite: Box::new(sqlite),
            waiting,
            path: path.to_owned(),
            readonly: options.readonly,
            observed: Arc::clone(&observed),
            wal_frames: Arc::new(AtomicU64::new(0)),
            gather: Arc::default(),
            page_size: 4096,
            file: None,
            wal: None,
            wal_seen: Cell::default(),
        };
        connection.file = connection.opened_file();
        connection.sqlite.authorizer(Some(move |context: AuthContext<'_>| {
            observe(&mut observed.lock(), &context);
            Authorization::Allow
        }))?;
        refusal::set_up(connection, |connection| {
            connection.page_size =
                connection.sqlite.pragma_query_value(None, "page_size", |row| Ok(row.get::<_, u32>(0)?.into()))?;
            connection.sqlite.pragma_update(None, "foreign_keys", true)?;
            Ok(connection.sqlite.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?)
        })
    }

    /// The pragmas that the file itself keeps, and those of a writer.
    fn prepare_file(&self, full: bool) -> Result<()> {
        let sqlite = &self.sqlite;
        let pages: i64 = sqlite.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if pages == 0 {
            // It cannot be set any more once the file is in WAL mode.
            sqlite.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        // The change to WAL needs the file for itself for a moment, and SQLite does not always ask the busy handler.
        let mode = self.waiting.retry(|| {
            let mut mode = String::new();
            sqlite.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
                mode = row.get(0)?;
                Ok(())
            })?;
            Ok(mode)
        })?;
        if mode != "wal" && !self.is_memory() {
            return Err(Error::File {
                message: format!(
                    "\"{}\" cannot be used in WAL mode (SQLite stays in \"{mode}\"): {}",
                    self.path,
                    refusal::NO_SHARED_MEMORY
                ),
                sqlite_code: "SQLITE_CANTOPEN".to_owned(),
            });
        }
        sqlite.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        sqlite.pragma_update_and_check(None, "journal_size_limit", JOURNAL_SIZE_LIMIT as i64, |_| Ok(()))?;
        Ok(())
    }

    fn make_tables(&mut self) -> Result<()> {
        if schema::look_for_ours(&self.sqlite, &self.path)? == schema::Found::Ours {
            return Ok(());
        }
        let transaction = self.sqlite.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have made them between the look and the lock.
        if schema::look_for_ours(&transaction, &self.path)? == schema::Found::Nothing {
            schema::create(&transaction)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Where what a statement does is noted while it is prepared, for what the authorizer cannot see.
    pub(crate) fn observed(&self) -> Arc<Mutex<Effects>> {
        Arc::clone(&self.observed)
    }

    /// The SQLite connection.
    pub fn sqlite(&self) -> &Sqlite {
        &self.sqlite
    }

    /// The path it was opened with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether there is no file.
    pub fn is_memory(&self) -> bool {
        self.path == MEMORY
    }

    /// Whether it was opened to read only.
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// The WAL file beside the database; SQLite knows the database's real path, behind symbolic links.
    pub fn wal_path(&self) -> Option<PathBuf> {
        self.sqlite.path().filter(|path| !path.is_empty()).map(|path| PathBuf::from(format!("{path}-wal")))
    }

    /// Runs `call` with another patience for locks than the connection's own.
    pub fn waiting<T>(&self, patience: Duration, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.waiting.during(&self.sqlite, patience, call)
    }

    /// How long it waits for a lock.
    pub fn patience(&self) -> Duration {
        self.waiting.own()
    }

    /// Says that this thread alone uses the connection, as long as what is answered lives, which must be dropped first:
    /// none of its other connections then waits for a lock that this one has, and who waits is seen by who has it.
    pub fn on_this_thread(&self) -> Option<OnThread> {
        self.waiting.meet_at(self.wal_path());
        if self.is_memory() { None } else { OnThread::new(&self.sqlite, &self.path) }
    }

    /// To be called at the end of each call that may have waited, or met the file system: an error is told with what SQLite
    /// does not say, how long the lock was waited for, or why the system refused and what to do.
    pub fn explained<T>(&self, done: Result<T>) -> Result<T> {
        self.waiting.leave_line();
        done.map_err(|error| self.refused(self.waiting.explain(&self.path, error)))
    }

    /// Before a BEGIN, of who may have had the lock for a while: rests if somebody waits for it, where `wait` is asked for.
    /// `false`: it should rest.
    pub fn give_way(&self, wait: bool) -> bool {
        self.waiting.give_way(wait)
    }

    /// A transaction has ended that was not ended by [`Self::commit`].
    pub fn ended(&self) {
        self.waiting.ended();
    }

    /// Whether it waits for the write lock between two calls.
    pub fn stand_in_line(&self, stand: bool) {
        self.waiting.stand_in_line(stand);
    }

    /// Makes several reads in one snapshot of the file: that of the open transaction, or one of their own.
    pub fn snapshot<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let alone = self.sqlite.is_autocommit();
        if alone {
            self.cached("BEGIN DEFERRED")?.raw_execute()?;
        }
        let done = read();
        if alone {
            // A read transaction has nothing to lose.
            let ended = self.cached("COMMIT")?.raw_execute();
            if ended.is_err() && !self.sqlite.is_autocommit() {
                let _ = self.sqlite.execute_batch("ROLLBACK");
            }
        }
        done
    }

    /// Bytes in the WAL after the newest commit of this connection.
    pub fn wal_bytes(&self) -> u64 {
        self.wal_frames.load(Ordering::Relaxed) * self.frame_bytes()
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Bytes of one WAL frame: a page and its header of 24 bytes (<https://sqlite.org/fileformat2.html#walformat>).
    pub fn frame_bytes(&self) -> u64 {
        self.page_size + 24
    }

    /// Commits the open root transaction, with one write to the WAL.
    pub fn commit(&self) -> Result<()> {
        let mut statement = self.cached("COMMIT")?;
        let committed = self.gather.during(|| statement.raw_execute());
        self.waiting.ended();
        committed?;
        Ok(())
    }

    /// Runs a checkpoint. Answers whether somebody's lock kept it from finishing, and how many bytes the WAL has in use.
    pub fn checkpoint(&self, mode: &str) -> Result<(bool, u64)> {
        self.check_in_place()?;
        let mut statement = self.cached(&format!("PRAGMA main.wal_checkpoint({mode})"))?;
        let (busy, frames) = statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        Ok((busy != 0, frames.max(0).unsigned_abs() * self.frame_bytes()))
    }

    /// A prepared statement out of the cache, where it returns when dropped.
    pub fn cached(&self, sql: &str) -> Result<CachedStatement<'_>> {
        Ok(self.sqlite.prepare_cached(sql)?)
    }
}

/// Opens the file that a backup is written into: empty, and nobody else's. It is thrown away unless it is completed, so that
/// it needs no journal.
pub fn open_copy(path: &Path) -> Result<Sqlite> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Sqlite::open_with_flags(path, flags)?;
    copy.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    Ok(copy)
}

/// Puts the path into an error of opening that should name it.
fn named(path: &str, error: Error) -> Error {
    match error {
        Error::NotADatabase { message, .. } => Error::NotADatabase { path: path.to_owned(), message },
        Error::Malformed { message, sqlite_code } if !message.contains(path) => {
            Error::Malformed { message: format!("\"{path}\": {message}"), sqlite_code }
        }
        Error::Corrupt(message) if !message.contains(path) => Error::Corrupt(format!("\"{path}\": {message}")),
        other => other,
    }
}
