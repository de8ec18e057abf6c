//! What the file system refuses. SQLite says little more than that; here the file and what is around it are looked at, so
//! that the message names the cause and what to do. Only after a failure: nothing of this costs a call that succeeds.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::Connection;
use crate::error::{Error, Result};

/// The longest path that SQLite takes, in bytes: 512, and room for what it keeps beside the file.
pub(super) const LONGEST_PATH: usize = 504;

impl Connection {
    /// An error of SQLite with what it does not say: the file, the cause as far as the system tells it, what to do. A full
    /// disk and what may not be written get codes of their own.
    pub(super) fn refused(&self, error: Error) -> Error {
        if self.is_memory() {
            return explain(None, self.readonly, error, None);
        }
        if error.sqlite_code().is_some_and(|code| code == "SQLITE_READONLY_DBMOVED")
            && let Err(gone) = self.check_in_place()
        {
            return *gone;
        }
        explain(Some(Path::new(self.real_path())), self.readonly, error, self.system_error())
    }

    /// What the system answered when SQLite's last attempt to open, read or write failed.
    fn system_error(&self) -> Option<io::Error> {
        // SAFETY: the handle is open.
        #[allow(unsafe_code)]
        let number = unsafe { ffi::sqlite3_system_errno(self.sqlite.handle()) };
        (number != 0).then(|| io::Error::from_raw_os_error(number))
    }
}

/// The file at `path` was not opened at all.
pub(super) fn cannot_open(path: &Path, readonly: bool, error: rusqlite::Error) -> Error {
    match Error::from(error) {
        Error::NotADatabase { message, .. } => Error::NotADatabase { path: path.display().to_string(), message },
        error => explain(Some(path), readonly, error, None),
    }
}

/// The file at `path` was opened, but not for writing.
pub(super) fn not_writable(path: &Path) -> Error {
    let message = format!("\"{}\" cannot be opened for writing", path.display());
    refused(path, false, message, "SQLITE_READONLY".to_owned())
}

/// There is no file at `path`, and none can be made.
pub(super) fn cannot_make(path: &Path, error: &io::Error) -> Error {
    let message = format!("\"{}\" cannot be made: {error}", path.display());
    let sqlite_code = "SQLITE_CANTOPEN".to_owned();
    if is_full(error) {
        return full(&message, sqlite_code);
    }
    match refused(path, false, message, sqlite_code) {
        Error::File { message, sqlite_code } if look(path, false).is_ok() => Error::File {
            message: format!("{message}: its file system takes no such file, choose another place"),
            sqlite_code,
        },
        error => error,
    }
}

/// Whether it says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// `ERR_DISK_FULL`.
pub fn full(what: &str, sqlite_code: String) -> Error {
    let message = format!(
        "{what}. There is no room: nothing of the transaction was stored, and what was committed before is safe. Free some \
         space, or raise the limit that was met (a quota, a file size, max_page_count), and try again"
    );
    Error::DiskFull { message, sqlite_code }
}

fn explain(path: Option<&Path>, readonly: bool, error: Error, system: Option<io::Error>) -> Error {
    let (Some(sqlite_code), Error::Sqlite { .. } | Error::Projection { .. }) = (error.sqlite_code(), &error) else {
        return match error {
            Error::TransactionLost { cause } => {
                Error::TransactionLost { cause: Box::new(explain(path, readonly, *cause, system)) }
            }
            other => other,
        };
    };
    let primary = sqlite_code.splitn(3, '_').take(2).collect::<Vec<_>>().join("_");
    let named = |text: String| match path {
        Some(path) => format!("\"{}\": {text}", path.display()),
        None => text,
    };
    let system = system.filter(|_| matches!(&*primary, "SQLITE_IOERR" | "SQLITE_CANTOPEN"));
    let message = match &system {
        Some(system) => named(format!("{error} ({system})")),
        None => named(error.to_string()),
    };
    let no_room = || path.and_then(Path::parent).is_some_and(has_no_room);
    match (&*primary, path) {
        ("SQLITE_FULL", _) => full(&message, sqlite_code),
        ("SQLITE_IOERR" | "SQLITE_CANTOPEN", _) if system.as_ref().is_some_and(is_full) => full(&message, sqlite_code),
        ("SQLITE_IOERR", _) if sqlite_code == "SQLITE_IOERR_SHMSIZE" && no_room() => full(&message, sqlite_code),
        ("SQLITE_READONLY", _) if readonly && sqlite_code == primary => Error::Readonly { message, sqlite_code },
        ("SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM", Some(path)) => {
            refused(path, readonly, message, sqlite_code)
        }
        ("SQLITE_READONLY", None) => Error::Readonly { message, sqlite_code },
        ("SQLITE_IOERR" | "SQLITE_NOLFS", Some(_)) => {
            let advice = if sqlite_code.starts_with("SQLITE_IOERR_SHM") {
                NO_SHARED_MEMORY
            } else if LOCKING.contains(&&*sqlite_code) {
                "its file system does not lock files as databases need it: keep the file on a local disk"
            } else {
                "the disk or its file system failed; what was committed before is as safe as the disk. See the system's \
                 log, and ask `verify` whether the file is sound"
            };
            Error::File { message: format!("{message}: {advice}"), sqlite_code }
        }
        _ => error,
    }
}

/// Why WAL mode cannot be had.
pub(super) const NO_SHARED_MEMORY: &str = "its file system has no memory that processes share (mmap of the file with \
     \"-shm\" at the end), which the write-ahead log needs: keep the file on a local disk, not on a network or a shared \
     folder of a virtual machine";

const LOCKING: [&str; 4] =
    ["SQLITE_IOERR_LOCK", "SQLITE_IOERR_UNLOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_CHECKRESERVEDLOCK"];

/// What may not be written is `ERR_READONLY`, anything else `ERR_SQLITE`.
fn refused(path: &Path, readonly: bool, message: String, sqlite_code: String) -> Error {
    let Err((kind, reason)) = look(path, readonly) else {
        return match sqlite_code.starts_with("SQLITE_READONLY") {
            true => Error::Readonly { message, sqlite_code },
            false => Error::File { message, sqlite_code },
        };
    };
    let message = format!("{message}: {reason}");
    match kind {
        Kind::Full => full(&message, sqlite_code),
        Kind::Readonly => Error::Readonly { message, sqlite_code },
        Kind::Other => Error::File { message, sqlite_code },
    }
}

enum Kind {
    Full,
    Readonly,
    Other,
}

type Look = std::result::Result<(), (Kind, String)>;

/// Looks for what keeps the file from being opened, in the order of the path.
fn look(path: &Path, readonly: bool) -> Look {
    let other = |reason: String| Err((Kind::Other, reason));
    if path.as_os_str().len() > LONGEST_PATH {
        return other(format!("SQLite takes paths of at most {LONGEST_PATH} bytes: choose a shorter one"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    for above in folder.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let shown = above.display();
        match above.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return other(format!("the folder \"{shown}\" does not exist: make it first"));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let beyond = above.parent().unwrap_or(above).display();
                return other(format!(
                    "this user may not look into the folder \"{beyond}\" (it lacks the x permission)"
                ));
            }
            Err(error) => return other(format!("\"{shown}\" cannot be looked at: {error}")),
            Ok(found) if !found.is_dir() => return other(format!("\"{shown}\" is a file, not a folder")),
            Ok(_) => {}
        }
    }
    let shown = folder.display();
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return other(format!("this user may not look into the folder \"{shown}\" (it lacks the x permission)"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && readonly => {
            return other("there is no such file, and a read-only store makes none".to_owned());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            may_write(folder, || format!("the folder \"{shown}\" may not be written"))?;
        }
        Err(error) => return other(error.to_string()),
        Ok(_) => {
            system::may_read(path)
                .map_err(|error| (Kind::Other, format!("this user may not read the file: {error}")))?;
            if !readonly {
                may_write(path, || "the file may not be written".to_owned())?;
            }
        }
    }
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut side = path.as_os_str().to_owned();
        side.push(suffix);
        let side = PathBuf::from(side);
        let name = side.display();
        match side.metadata() {
            Ok(found) if !found.is_file() => {
                return other(format!("\"{name}\", which SQLite keeps beside the file, is no file: move it away"));
            }
            Ok(_) => may_write(&side, || format!("\"{name}\", which SQLite keeps beside it, may not be written"))?,
            Err(_) => {}
        }
    }
    let beside = "in which SQLite keeps \"-wal\" and \"-shm\" beside it, also for a read-only store";
    may_write(folder, || format!("the folder \"{shown}\", {beside}, may not be written"))?;
    if has_no_room(folder) {
        return Err((Kind::Full, format!("the disk of \"{shown}\" is full")));
    }
    // Last what is not of this file: a process may have only so many open.
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => other(error.to_string()),
        _ => Ok(()),
    }
}

fn may_write(path: &Path, what: impl FnOnce() -> String) -> Look {
    system::may_write(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => "its file system is mounted read-only",
            _ => "its permissions keep this user from it",
        };
        (Kind::Readonly, format!("{}: {why}", what()))
    })
}

#[cfg(unix)]
fn has_no_room(folder: &Path) -> bool {
    // What a file system does not count is 0 of 0.
    let none = |free, of| free == 0 && of > 0;
    rustix::fs::statvfs(folder)
        .is_ok_and(|room| none(room.f_bavail, room.f_blocks) || none(room.f_favail, room.f_files))
}

#[cfg(not(unix))]
fn has_no_room(_: &Path) -> bool {
    false
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::path::Path;

    use rustix::fs::{Access, access};

    pub(super) fn may_read(path: &Path) -> io::Result<()> {
        Ok(access(path, Access::READ_OK)?)
    }

    pub(super) fn may_write(path: &Path) -> io::Result<()> {
        Ok(access(path, Access::WRITE_OK)?)
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;
    use std::path::Path;

    pub(super) fn may_read(path: &Path) -> io::Result<()> {
        path.metadata().map(|_| ())
    }

    pub(super) fn may_write(path: &Path) -> io::Result<()> {
        match path.metadata()?.permissions().readonly() {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        }
    }
}

/// Ends the setting up of a connection: its error is told with what the connection knows.
pub(super) fn set_up(
    mut connection: Connection,
    call: impl FnOnce(&mut Connection) -> Result<()>,
) -> Result<Connection> {
    let done = call(&mut connection);
    connection.explained(done)?;
    Ok(connection)
}
