//! What SQLite refuses, as errors of this library.

use super::Error;

impl From<rusqlite::Error> for Box<Error> {
    // Out of line: what almost never happens stands behind every statement.
    #[cold]
    #[inline(never)]
    fn from(error: rusqlite::Error) -> Self {
        Box::new(error.into())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi::ErrorCode;
        let message = match &error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            rusqlite::Error::UserFunctionError(inner) => inner.to_string(),
            other => other.to_string(),
        };
        let message = shortened(message);
        let Some(failure) = error.sqlite_error() else {
            return match error {
                rusqlite::Error::MultipleStatement => {
                    Error::InvalidArgument("The SQL holds more than one statement".to_owned())
                }
                rusqlite::Error::InvalidColumnType(_, name, found) => Error::Corrupt(format!(
                    "A row of syncline's tables holds what syncline never writes: {found:?} in \"{name}\""
                )),
                rusqlite::Error::NulError(_) => Error::InvalidArgument("The SQL holds a NUL character".to_owned()),
                _ => Error::Sqlite { message, sqlite_code: "SQLITE_ERROR".to_owned() },
            };
        };
        let sqlite_code = sqlite_code_name(failure.extended_code);
        match failure.code {
            ErrorCode::DatabaseBusy => Error::Busy { message, waited: None, sqlite_code: Some(sqlite_code) },
            ErrorCode::DatabaseCorrupt => Error::Malformed { message, sqlite_code },
            ErrorCode::NotADatabase => Error::NotADatabase { path: String::new(), message },
            ErrorCode::ConstraintViolation => {
                let named = ["constraint failed: ", " column "];
                let constraint = named.iter().find_map(|before| Some(message.split_once(before)?.1.to_owned()));
                // What a trigger says is the program's own text.
                let constraint = constraint.filter(|_| sqlite_code != "SQLITE_CONSTRAINT_TRIGGER");
                Error::Constraint { message, sqlite_code, table: None, constraint }
            }
            _ => Error::Sqlite { message, sqlite_code },
        }
    }
}

/// SQLite quotes what it refuses, as long as it is: of a message its beginning and its end are enough.
fn shortened(message: String) -> String {
    const HEAD: usize = 400;
    const TAIL: usize = 80;
    if message.len() <= HEAD + TAIL {
        return message;
    }
    let whole = |at: &usize| message.is_char_boundary(*at);
    let head = (0..=HEAD).rev().find(whole).unwrap_or(0);
    let tail = (message.len() - TAIL..message.len()).find(whole).unwrap_or(message.len());
    format!("{}…{}", &message[..head], &message[tail..])
}

/// SQLite's own name of a result code (<https://sqlite.org/rescode.html>), extended where it has one.
pub fn sqlite_code_name(code: i32) -> String {
    let primary = match code & 0xff {
        1 => "SQLITE_ERROR",
        2 => "SQLITE_INTERNAL",
        3 => "SQLITE_PERM",
        4 => "SQLITE_ABORT",
        5 => "SQLITE_BUSY",
        6 => "SQLITE_LOCKED",
        7 => "SQLITE_NOMEM",
        8 => "SQLITE_READONLY",
        9 => "SQLITE_INTERRUPT",
        10 => "SQLITE_IOERR",
        11 => "SQLITE_CORRUPT",
        12 => "SQLITE_NOTFOUND",
        13 => "SQLITE_FULL",
        14 => "SQLITE_CANTOPEN",
        15 => "SQLITE_PROTOCOL",
        17 => "SQLITE_SCHEMA",
        18 => "SQLITE_TOOBIG",
        19 => "SQLITE_CONSTRAINT",
        20 => "SQLITE_MISMATCH",
        21 => "SQLITE_MISUSE",
        22 => "SQLITE_NOLFS",
        23 => "SQLITE_AUTH",
        25 => "SQLITE_RANGE",
        26 => "SQLITE_NOTADB",
        _ => return format!("SQLITE_{code}"),
    };
    let extension = match (code & 0xff, code >> 8) {
        (_, 0) => return primary.to_owned(),
        (19, 1) => "CHECK",
        (19, 2) => "COMMITHOOK",
        (19, 3) => "FOREIGNKEY",
        (19, 4) => "FUNCTION",
        (19, 5) => "NOTNULL",
        (19, 6) => "PRIMARYKEY",
        (19, 7) => "TRIGGER",
        (19, 8) => "UNIQUE",
        (19, 9) => "VTAB",
        (19, 10) => "ROWID",
        (19, 11) => "PINNED",
        (19, 12) => "DATATYPE",
        (10, 1) => "READ",
        (10, 2) => "SHORT_READ",
        (10, 3) => "WRITE",
        (10, 4) => "FSYNC",
        (10, 5) => "DIR_FSYNC",
        (10, 6) => "TRUNCATE",
        (10, 7) => "FSTAT",
        (10, 15) => "LOCK",
        (10, 18) => "SHMOPEN",
        (10, 19) => "SHMSIZE",
        (10, 20) => "SHMLOCK",
        (10, 21) => "SHMMAP",
        (1, 1) => "MISSING_COLLSEQ",
        (1, 2) => "RETRY",
        (1, 3) => "SNAPSHOT",
        (4, 2) => "ROLLBACK",
        (10, 8) => "UNLOCK",
        (10, 9) => "RDLOCK",
        (10, 10) => "DELETE",
        (10, 11) => "BLOCKED",
        (10, 12) => "NOMEM",
        (10, 13) => "ACCESS",
        (10, 14) => "CHECKRESERVEDLOCK",
        (10, 16) => "CLOSE",
        (10, 17) => "DIR_CLOSE",
        (10, 22) => "SEEK",
        (10, 23) => "DELETE_NOENT",
        (10, 24) => "MMAP",
        (10, 28) => "COMMIT_ATOMIC",
        (10, 32) => "DATA",
        (10, 33) => "CORRUPTFS",
        (10, 34) => "IN_PAGE",
        (8, 1) => "RECOVERY",
        (8, 2) => "CANTLOCK",
        (8, 3) => "ROLLBACK",
        (8, 4) => "DBMOVED",
        (8, 5) => "CANTINIT",
        (8, 6) => "DIRECTORY",
        (5, 1) => "RECOVERY",
        (5, 2) => "SNAPSHOT",
        (14, 1) => "NOTEMPDIR",
        (14, 2) => "ISDIR",
        (14, 3) => "FULLPATH",
        (14, 4) => "CONVPATH",
        (14, 6) => "SYMLINK",
        (11, 1) => "VTAB",
        (11, 2) => "SEQUENCE",
        (11, 3) => "INDEX",
        _ => return format!("{primary}_{}", code >> 8),
    };
    format!("{primary}_{extension}")
}
