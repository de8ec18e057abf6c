//! A SQLite connection as Syncline uses it. In `open`, the only place that opens SQLite: flags, pragmas in their order; in
//! `busy`, waiting for locks; in `effects`, what a statement does; in `file`, which file it is; and in `refusal`, why the
//! file system refuses.

mod busy;
mod effects;
mod file;
mod open;
mod refusal;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection as Sqlite};

pub use self::busy::OnThread;
use self::busy::Waiting;
pub use self::effects::{Change, Control, Effects, Written};
pub use self::file::{Beside, Identity};
pub use self::open::open_copy;
pub use self::refusal::{full, is_full};
use crate::error::Result;
use crate::limits::STATEMENT_CACHE;
use crate::wal::Gather;

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
    looked: Cell<Option<Instant>>,
}

impl Connection {
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
            looked: Cell::default(),
        }
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
        let done = done.map_err(|error| self.refused(self.waiting.explain(&self.path, *error)).into());
        self.waiting.call_ended();
        done
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
