//! The file under a connection: made for its owner alone, and known again. In WAL mode SQLite does not notice that the
//! file was moved, deleted or replaced. Commits would go where nobody looks for them, and checkpoints into a file that
//! somebody else may have opened under its new name, with locks of its own.
//!
//! Nothing here opens a database: to close a descriptor drops every lock that the process has on that file.

use std::ffi::c_int;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{TransactionState, ffi};

use super::{Connection, OpenOptions};
use crate::error::{Error, Result};

/// Bytes of a WAL without a frame.
const WAL_HEADER: u64 = 32;

/// Before one BEGIN after the other the files are looked for only so often: each look costs as much as all of a small BEGIN.
/// What went into a file shortly before it was moved or deleted is no more lost than what went in shortly after.
const LOOKS: Duration = Duration::from_millis(1);

/// Which file it is, whatever its name. Not on Windows, where nobody can move or delete a file that SQLite has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what is at the path, behind symbolic links; `None` where there is nothing.
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        path.metadata().ok().map(|found| Identity { device: found.dev(), inode: found.ino() })
    }

    #[cfg(not(unix))]
    pub fn of(_: &Path) -> Option<Self> {
        None
    }
}

/// How to open a further connection to a file that a store has open: that file, and no other that has taken its path.
#[derive(Debug, Clone)]
pub struct Beside {
    pub(super) options: OpenOptions,
    pub(super) file: Option<Identity>,
    pub(super) wal: Option<(PathBuf, Identity)>,
}

impl Beside {
    /// With another patience for locks.
    pub fn waiting(self, busy_timeout: Duration) -> Self {
        Beside { options: OpenOptions { busy_timeout, ..self.options }, ..self }
    }

    /// Neither the file nor its WAL has been replaced.
    pub(super) fn check(&self) -> Result<()> {
        let path = Path::new(&self.options.path);
        if self.file.is_some() && Identity::of(path) != self.file {
            return Err(gone(path, false));
        }
        match &self.wal {
            // SQLite would make a new one.
            Some((path, identity)) if Identity::of(path) != Some(*identity) => Err(gone(path, true)),
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// How to open a further connection to this one's file, with these options but for their path: that may have come to
    /// mean another file.
    pub fn beside(&self, options: &OpenOptions) -> Beside {
        let path = self.real_path().to_owned();
        let wal = self.wal.clone().filter(|_| !self.gather.is_closed());
        Beside { options: OpenOptions { path, ..options.clone() }, file: self.file, wal }
    }

    /// `ERR_FILE_GONE` where the database or its WAL is no longer where it was opened.
    pub fn check_in_place(&self) -> Result<()> {
        self.check_database_in_place()?;
        match &self.wal {
            // SQLite itself has let go of the WAL where the program has chosen another journal mode.
            Some((path, identity)) if Identity::of(path) != Some(*identity) && !self.gather.is_closed() => {
                Err(gone(path, true))
            }
            _ => Ok(()),
        }
    }

    /// The same for each BEGIN of a writer, once a millisecond.
    pub fn check_at_begin(&self) -> Result<()> {
        if self.looked.get().is_some_and(|looked| looked.elapsed() < LOOKS) {
            return Ok(());
        }
        self.check_in_place()?;
        self.looked.set(Some(Instant::now()));
        Ok(())
    }

    /// The same for a COMMIT of what began without the write lock, and may have taken it since.
    pub fn check_at_commit(&self) -> Result<()> {
        match self.sqlite.transaction_state(Some("main"))? {
            TransactionState::Write => self.check_in_place(),
            _ => Ok(()),
        }
    }

    fn check_database_in_place(&self) -> Result<()> {
        if self.is_memory() || !self.has_moved() { Ok(()) } else { Err(gone(Path::new(self.real_path()), false)) }
    }

    /// Remembers which file the WAL is. It is open, so that nobody deletes it who keeps to the locks.
    pub(super) fn know_wal(&mut self) {
        self.wal = self.wal_path().and_then(|path| Identity::of(&path).map(|identity| (path, identity)));
    }

    /// Which file was opened; `None` where that is not certain.
    pub(super) fn opened_file(&self) -> Option<Identity> {
        if self.is_memory() || self.has_moved() { None } else { Identity::of(Path::new(self.real_path())) }
    }

    /// The path as SQLite knows it, behind symbolic links.
    pub(super) fn real_path(&self) -> &str {
        self.sqlite.path().filter(|path| !path.is_empty()).unwrap_or(&self.path)
    }

    fn has_moved(&self) -> bool {
        let mut moved: c_int = 0;
        // SAFETY: the handle is open, and this file control stores an `int` through its argument.
        #[allow(unsafe_code)]
        let status = unsafe {
            let control = ffi::SQLITE_FCNTL_HAS_MOVED;
            ffi::sqlite3_file_control(self.sqlite.handle(), c"main".as_ptr(), control, (&raw mut moved).cast())
        };
        status == ffi::SQLITE_OK && moved != 0
    }
}

/// SQLite copies a WAL back and deletes it by its name when the last connection closes. Where another WAL has taken that
/// name, it is another's, and may hold the only copy of its commits. A database that was moved SQLite leaves alone.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((path, identity)) = &self.wal
            && !self.gather.is_closed()
            && Identity::of(path).is_some_and(|found| found != *identity)
        {
            let _ = self.sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

fn gone(path: &Path, wal: bool) -> Box<Error> {
    let now = match path.metadata() {
        Ok(_) => "another file is there now".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "it was moved or deleted".to_owned(),
        Err(error) => error.to_string(),
    };
    let path = path.display();
    Error::FileGone(if wal {
        format!(
            "The write-ahead log that this store has open is no longer at \"{path}\": {now}. Nothing of this was stored, \
             and reading goes on. Put it back, and this store writes on; or close every store of this database, which \
             copies what was committed into it if no other log has taken the name, and open it again"
        )
    } else {
        format!(
            "The file that this store has open is no longer at \"{path}\": {now}. Nothing of this was stored, and reading \
             goes on, so that `backup` can save what this store has. Put the file back, and its \"-wal\" beside it, and \
             this store writes on; or close it and open another"
        )
    })
    .into()
}

/// Held while a file is made and while one is opened. Where a file can only be made by opening it, closing it would drop
/// the locks of another thread that has come in between.
pub(super) fn opening() -> MutexGuard<'static, ()> {
    static OPENING: Mutex<()> = Mutex::new(());
    OPENING.lock()
}

/// Makes an empty file that its owner alone may read and write; what is there already stays as it is. `ERR_FILE_GONE`
/// where nothing is there but a WAL with commits: SQLite would take it for a leftover and delete it.
pub(super) fn make(path: &Path) -> Result<()> {
    if !is_missing(path) {
        return Ok(());
    }
    let path = target(path.to_owned());
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    // Missing still: a database does not come and go, so that the WAL is not that of one which was made just now.
    if wal.metadata().is_ok_and(|wal| wal.len() > WAL_HEADER) && is_missing(&path) {
        return Err(Error::FileGone(format!(
            "\"{}\" is not there, but \"{}\" is, with commits that are nowhere else: a new database would delete them. \
             Put the database back that was moved away, or delete the log",
            path.display(),
            wal.display()
        ))
        .into());
    }
    if path.as_os_str().len() > super::refusal::LONGEST_PATH {
        // SQLite refuses it: then there should be no file.
        return Ok(());
    }
    match make_private(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(super::refusal::cannot_make(&path, &error).into())
        }
        _ => Ok(()),
    }
}

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Where a symbolic link to nothing leads: there SQLite would make the file.
fn target(mut path: PathBuf) -> PathBuf {
    for _ in 0..40 {
        let Ok(link) = path.read_link() else { break };
        path = path.parent().map(|folder| folder.join(&link)).unwrap_or(link);
    }
    path
}

#[cfg(unix)]
fn make_private(path: &Path) -> io::Result<()> {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    const OWNER: u32 = 0o600;
    // Where the system can make a file without opening it, nobody's locks are in danger.
    #[cfg(target_os = "linux")]
    let made = {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(OWNER), 0).map_err(io::Error::from)
    };
    #[cfg(not(target_os = "linux"))]
    let made: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            File::options().write(true).create_new(true).mode(OWNER).open(path)?;
        }
        made => made?,
    }
    // A umask can only have taken rights from the owner.
    if fs::metadata(path)?.permissions().mode() & 0o777 != OWNER {
        fs::set_permissions(path, Permissions::from_mode(OWNER))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> io::Result<()> {
    // Its rights are those of its folder, and SQLite makes it.
    Ok(())
}
