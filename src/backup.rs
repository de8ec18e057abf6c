//! A copy of the whole file while it is in use. One read transaction lasts as long as the copying, so that the copy is the
//! file as of one moment and never begins anew, however much is written meanwhile; nobody waits for it, but the WAL cannot
//! begin anew either. The pages go into a temporary file beside the target, which gets its name when it is complete:
//! under that name there is never half a file. This needs unsafe code: a backup borrows two connections, which Rust's
//! borrows cannot say of a value that outlives the call.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use rusqlite::Connection as Sqlite;
use rusqlite::backup::{Backup as SqliteBackup, StepResult};
use serde_json::json;

use crate::connection::{self, Connection, full, is_full};
use crate::error::{Error, Result};
use crate::id::Ids;
use crate::job::Job;
use crate::known::Known;

/// Pages of a step: with 4 KiB each some milliseconds of copying.
const STEP_PAGES: i32 = 1_024;

/// What SQLite keeps beside a database, and would take for its own beside another.
const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// A copy that is on its way.
pub struct Backup {
    target: PathBuf,
    temporary: PathBuf,
    copying: Option<Copying>,
    /// The temporary file was made, and has not got its name yet.
    made: bool,
    done: bool,
    /// The connection is the store's own: nothing is left open between two steps.
    at_once: bool,
    pages: u64,
    total_pages: u64,
    page_size: u64,
}

impl Backup {
    /// Into a file that is not there yet: whatever is at `target`, or would be taken for a part of what is to be there,
    /// stays, and is `ERR_INVALID_ARGUMENT`.
    ///
    /// `here`: it is done on the store's own connection, as in memory.
    pub fn new(connection: &Connection, target: &str, here: bool) -> Result<Self> {
        let target = PathBuf::from(target);
        check_free(&target)?;
        if let Some(database) = connection.sqlite().path().filter(|path| !path.is_empty()) {
            let real = target.parent().and_then(|folder| folder.canonicalize().ok());
            let real = real.zip(target.file_name()).map(|(folder, name)| folder.join(name));
            if COMPANIONS.iter().any(|suffix| real.as_deref() == Some(Path::new(&format!("{database}{suffix}")))) {
                let message = format!("\"{}\" is a name that SQLite uses beside \"{database}\"", target.display());
                return Err(Error::InvalidArgument(message).into());
            }
        }
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!("-backup-{}", &Ids::new().make()["evt_".len()..]));
        let temporary = PathBuf::from(temporary);
        let (pages, total_pages, page_size) = (0, 0, connection.page_size());
        let at_once = here || connection.is_memory();
        Ok(Backup {
            target,
            temporary,
            copying: None,
            made: false,
            done: false,
            at_once,
            pages,
            total_pages,
            page_size,
        })
    }

    fn begin(&mut self, connection: &Connection) -> Result<Copying> {
        let mut options = File::options();
        options.write(true).create_new(true);
        permit_as(&mut options, connection);
        options.open(&self.temporary).map_err(|error| self.failed(&error))?;
        self.made = true;
        let copy = connection::open_copy(&self.temporary).map_err(|error| self.named(*error))?;
        if connection.sqlite().is_autocommit() {
            connection.sqlite().execute_batch("BEGIN DEFERRED")?;
        }
        // The transaction begins to read with its first statement.
        connection.sqlite().query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        self.page_size =
            connection.sqlite().pragma_query_value(None, "page_size", |row| Ok(row.get::<_, u32>(0)?.into()))?;
        // SAFETY: `step` has it from a caller who drops this job before the connection, or ends it in the same step.
        unsafe { Copying::new(connection, copy) }
    }

    fn copy(&mut self, connection: &Connection, copying: Copying) -> Result<bool> {
        let pages = if self.at_once { -1 } else { STEP_PAGES };
        let stepped = copying.backup.step(pages).map_err(|error| self.named(error.into()));
        let progress = copying.backup.progress();
        self.total_pages = u64::try_from(progress.pagecount).unwrap_or(0);
        self.pages = self.total_pages - u64::try_from(progress.remaining).unwrap_or(0);
        match stepped? {
            StepResult::More => {
                self.copying = Some(copying);
                Ok(true)
            }
            StepResult::Done => {
                drop(copying);
                end_reading(connection);
                self.finish().map(|()| false)
            }
            // Nobody else knows the copy, and in WAL mode nobody keeps a reader from reading.
            _ => {
                Err(Error::Busy { message: "The database is locked".to_owned(), waited: None, sqlite_code: None }
                    .into())
            }
        }
    }

    /// What was copied is on the disk before it has its name, and the name soon after.
    fn finish(&mut self) -> Result<()> {
        let synced = File::options().write(true).open(&self.temporary).and_then(|file| file.sync_all());
        synced.map_err(|error| self.failed(&error))?;
        check_free(&self.target)?;
        match fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => _ = fs::remove_file(&self.temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(&self.target)),
            // Not every file system has links. A file that appeared in this moment would be replaced.
            Err(_) => fs::rename(&self.temporary, &self.target).map_err(|error| self.failed(&error))?,
        }
        (self.made, self.done) = (false, true);
        if let Some(folder) = self.target.parent() {
            // Windows opens no folders, and some file systems sync none.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Error {
        let sqlite_code = match (is_full(error), self.made) {
            (true, _) => "SQLITE_FULL",
            (false, true) => "SQLITE_IOERR",
            (false, false) => "SQLITE_CANTOPEN",
        };
        self.named(Error::Sqlite { message: error.to_string(), sqlite_code: sqlite_code.to_owned() })
    }

    fn named(&self, error: Error) -> Error {
        match error {
            Error::Sqlite { message, sqlite_code } => {
                let message = format!("The backup \"{}\" cannot be written: {message}", self.target.display());
                // SQLite has told nobody which of the two connections it is of; the copy writes, and the other reads.
                let no_room = sqlite_code == "SQLITE_IOERR_WRITE" && is_full(&io::Error::last_os_error());
                if sqlite_code == "SQLITE_FULL" || no_room {
                    full(&message, sqlite_code)
                } else {
                    Error::File { message, sqlite_code }
                }
            }
            other => other,
        }
    }
}

impl Job for Backup {
    fn step(&mut self, connection: &Connection, _: &mut Known) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        let copying = match self.copying.take() {
            Some(copying) => Ok(copying),
            None => self.begin(connection),
        };
        let stepped = copying.and_then(|copying| self.copy(connection, copying));
        if self.copying.is_none() {
            end_reading(connection);
        }
        if stepped.is_err() {
            self.discard();
        }
        stepped
    }

    fn report(&self) -> serde_json::Value {
        json!({"pages": self.pages, "totalPages": self.total_pages, "bytes": self.pages * self.page_size})
    }
}

impl Backup {
    fn discard(&mut self) {
        self.copying = None;
        if std::mem::take(&mut self.made) {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Whoever may not read the database may not read its copy, and nobody else what was in memory.
#[cfg(unix)]
fn permit_as(options: &mut OpenOptions, connection: &Connection) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let metadata = connection.sqlite().path().filter(|path| !path.is_empty()).map(fs::metadata);
    let mode = metadata.and_then(io::Result::ok).map_or(0, |metadata| metadata.permissions().mode());
    options.mode(mode & 0o666 | 0o600);
}

#[cfg(not(unix))]
fn permit_as(_: &mut OpenOptions, _: &Connection) {}

/// A read transaction has nothing to lose.
fn end_reading(connection: &Connection) {
    if !connection.sqlite().is_autocommit() {
        let _ = connection.sqlite().execute_batch("ROLLBACK");
    }
}

fn check_free(target: &Path) -> Result<()> {
    let taken = |path: &Path| path.symlink_metadata().is_ok();
    if taken(target) {
        return Err(exists(target));
    }
    for suffix in COMPANIONS {
        let mut companion = target.as_os_str().to_owned();
        companion.push(suffix);
        if taken(Path::new(&companion)) {
            return Err(exists(Path::new(&companion)));
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Box<Error> {
    Error::InvalidArgument(format!("\"{}\" exists already: a backup replaces no file", path.display())).into()
}

/// A backup with the connection to its copy.
struct Copying {
    backup: ManuallyDrop<SqliteBackup<'static, 'static>>,
    /// Owned; a `Box` could not be moved while `backup` borrows what is in it.
    copy: NonNull<Sqlite>,
}

// SAFETY: it is moved between threads together with the connection that it reads, as one job under one lock, and SQLite is
// compiled for connections that one thread after the other uses.
unsafe impl Send for Copying {}

impl Copying {
    /// # Safety
    ///
    /// The caller must drop this before `connection`, whose SQLite handle is boxed and does not move.
    unsafe fn new(connection: &Connection, copy: Sqlite) -> Result<Self> {
        let copy = NonNull::from(Box::leak(Box::new(copy)));
        // SAFETY: the copy stays where it is until `drop` takes it back, and nothing but `backup` touches it.
        match SqliteBackup::new(connection.sqlite(), unsafe { &mut *copy.as_ptr() }) {
            // SAFETY: the lifetimes are those that this struct and its caller keep.
            Ok(backup) => Ok(Copying { backup: ManuallyDrop::new(unsafe { extended(backup) }), copy }),
            Err(error) => {
                // SAFETY: it was leaked above, and nothing borrows it.
                drop(unsafe { Box::from_raw(copy.as_ptr()) });
                Err(error.into())
            }
        }
    }
}

unsafe fn extended(backup: SqliteBackup<'_, 'static>) -> SqliteBackup<'static, 'static> {
    // SAFETY: the two types differ in a lifetime alone, which the caller vouches for.
    unsafe { std::mem::transmute(backup) }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // SAFETY: the backup ends first, then the connection that it borrows; neither is used again.
        unsafe {
            ManuallyDrop::drop(&mut self.backup);
            drop(Box::from_raw(self.copy.as_ptr()));
        }
    }
}
