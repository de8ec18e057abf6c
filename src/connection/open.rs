//! How connections are opened: flags, guards, pragmas in their order, tables.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::{Connection as Sqlite, OpenFlags, TransactionBehavior};

use super::busy::Waiting;
use super::effects::{Effects, observe};
use super::file::{self, Beside};
use super::{Connection, MEMORY, OpenOptions, refusal};
use crate::error::{Error, Result};
use crate::limits::{JOURNAL_SIZE_LIMIT, PAGE_CACHE_KIB, STATEMENT_CACHE};
use crate::schema;
use crate::wal;

impl Connection {
    /// Opens a store's connection: guards first, so that a foreign file stays as it is, then pragmas, then tables.
    pub fn open(options: &OpenOptions) -> Result<Self> {
        Self::open_log(options).map_err(|error| named(&options.path, *error).into())
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
                    }
                    .into()),
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
        let open = || -> Result<_> {
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
        open().map_err(|error| named(&options.path, *error).into())
    }

    /// Opens a connection that a caller owns: the same pragmas, no guard, no tables, SQLite's own checkpoints.
    pub fn open_plain(options: &OpenOptions) -> Result<Self> {
        let open = || -> Result<_> {
            refusal::set_up(Self::connect(options, false)?, |connection| match options.readonly {
                true => Ok(()),
                false => connection.prepare_file(options.full),
            })
        };
        open().map_err(|error| named(&options.path, *error).into())
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
            return Err(Error::NotADatabase { path: path.to_owned(), message: "it is a directory".to_owned() }.into());
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
            return Err(refusal::not_writable(Path::new(path)).into());
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
            looked: Cell::default(),
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
            }
            .into());
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
