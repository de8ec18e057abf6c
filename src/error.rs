//! One error enum with stable codes. `binding/coded_error.rs` is the only place that turns it into a JavaScript error.
//! The code is the contract; the message names the aggregate, type and numbers involved; `fields` carries them.

mod sqlite;

use serde_json::{Map, Value, json};

pub use self::sqlite::sqlite_code_name;

/// What every fallible function of the core returns. In a box, because every `?` on the way moves the error, which is large:
/// that alone was a ninth of the core's machine code.
pub type Result<T> = std::result::Result<T, Box<Error>>;

/// Everything that can go wrong in the core. `docs/errors.md` says what a caller should do for each code.
// The variants are documented; their fields are what the messages name.
#[allow(missing_docs)]
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A replayed item has a missing, wrongly typed or malformed field.
    #[error("Invalid event at index {index}: {field}: {message}")]
    InvalidEvent { index: usize, field: &'static str, message: String },
    /// Data that may not be stored: too deeply nested.
    #[error("Invalid data for {type_name} of aggregate \"{aggregate_id}\": {message}")]
    InvalidData { type_name: String, aggregate_id: String, message: String },
    /// Data, or a name, over one of the limits.
    #[error("{what} is too large: {size}, the limit is {limit}")]
    TooLarge { what: String, size: u64, limit: u64, index: Option<usize> },
    /// A replayed type that no definition knows.
    #[error(
        "Unknown event type \"{type_name}\" (aggregate \"{aggregate_id}\", seq {seq}); \
         a serialized type ends in its version, as in \"session.updated.1\""
    )]
    UnknownEvent { type_name: String, aggregate_id: String, seq: i64, index: usize },
    /// Something new would be projected before what is only stored.
    #[error(
        "Unknown event type \"{type_name}\" was recorded at seq {seq} of aggregate \"{aggregate_id}\", which is \
         projected through seq {projected} only: reproject it before anything new is recorded"
    )]
    Unprojected { type_name: String, aggregate_id: String, seq: i64, projected: i64 },
    /// `data[aggregate]` differs from the envelope's aggregate id.
    #[error(
        "Aggregate mismatch at {}: data.{field} of {type_name} is {got}, the envelope says \"{aggregate_id}\"",
        index.map_or_else(|| format!("seq {seq}"), |index| format!("index {index}"))
    )]
    AggregateMismatch {
        index: Option<usize>,
        type_name: String,
        field: String,
        aggregate_id: String,
        seq: i64,
        got: String,
    },
    /// The next replayed seq is not the one after the last held.
    #[error("Sequence mismatch for aggregate \"{aggregate_id}\": expected {expected}, got {got}")]
    SequenceMismatch { aggregate_id: String, expected: i64, got: i64, index: usize },
    /// The stored event at this seq is another one.
    #[error("Replay diverged for aggregate \"{aggregate_id}\" at seq {seq} ({type_name}): the stored {what} differs")]
    ReplayDiverged { aggregate_id: String, seq: i64, type_name: String, what: &'static str, index: usize },
    /// Another owner, or a newer epoch, holds the aggregate.
    #[error("Aggregate \"{aggregate_id}\" is owned by {} at epoch {epoch}, not by {}", shown(owner), shown(got))]
    NotOwner { aggregate_id: String, owner: Option<String>, epoch: i64, got: Option<String>, got_epoch: Option<i64> },
    /// `expectedSeq` or `expectedEpoch` differs from what is stored.
    #[error("Conflict on aggregate \"{aggregate_id}\": expected {what} {expected}, got {got}")]
    Conflict { aggregate_id: String, what: &'static str, expected: i64, got: i64 },
    /// A recorded type that nothing projects.
    #[error(
        "No projector for {type_name}, and no upcast leads from it to one (aggregate \"{aggregate_id}\", seq {seq})"
    )]
    NoProjector { type_name: String, aggregate_id: String, seq: i64, index: Option<usize> },
    /// A projector tried what projectors may not do.
    #[error("A projector may not {0}")]
    InProjector(&'static str),
    /// The call does not fit the transaction that is, or is not, open.
    #[error("{0}")]
    InTransaction(&'static str),
    /// SQLite ended the transaction by itself; nothing of it was kept.
    #[error("SQLite rolled the transaction back by itself, and no statement runs until it has ended: {cause}")]
    TransactionLost { cause: Box<Error> },
    /// The lock was not to be had in time, or the connection is in the middle of a query.
    #[error("{message}")]
    Busy { message: String, waited: Option<u64>, sqlite_code: Option<String> },
    /// The store, statement or iterator was closed.
    #[error("The {0} is closed")]
    Closed(&'static str),
    /// A write through a read-only connection or file.
    #[error("{message}")]
    Readonly { message: String, sqlite_code: String },
    /// There is no room for what would be written.
    #[error("{message}")]
    DiskFull { message: String, sqlite_code: String },
    /// The open file is no longer at its path.
    #[error("{0}")]
    FileGone(String),
    /// The file is something else than a SQLite database.
    #[error("\"{path}\" is not a database: {message}")]
    NotADatabase { path: String, message: String },
    /// Stored bytes that cannot be what Syncline wrote.
    #[error("{0}")]
    Corrupt(String),
    /// An event that must be there is not.
    #[error("Aggregate \"{aggregate_id}\" has lost the event at seq {seq}")]
    LostEvent { aggregate_id: String, seq: i64 },
    /// SQLite says that the file is damaged.
    #[error("{message}")]
    Malformed { message: String, sqlite_code: String },
    /// Compression failed, for want of memory.
    #[error("Events cannot be packed: {0}")]
    Pack(String),
    /// A segment of packed events that cannot be read.
    #[error("The packed events {first} to {last} of aggregate \"{aggregate_id}\" cannot be read: {reason}")]
    CorruptSegment { aggregate_id: String, first: i64, last: i64, reason: &'static str },
    /// A later version of the library made the file.
    #[error("\"{path}\" has format {found}; this version of syncline reads up to {supported}")]
    SchemaNewer { path: String, found: i64, supported: i64 },
    /// A table that is not ours stands under one of our names.
    #[error("\"{path}\" has a {object} that syncline did not make; it was left as it is{advice}")]
    ForeignSchema { path: String, object: String, advice: &'static str },
    /// Older tables that cannot be adopted.
    #[error("\"{path}\" has an older event log that cannot be adopted; it was left as it is: {reason}")]
    NotAdoptable { path: String, reason: String },
    /// A wrong argument.
    #[error("{0}")]
    InvalidArgument(String),
    /// SQLite refused. Where it was the file system, the connection knows more: `Connection::explained`.
    #[error("{message}")]
    Sqlite { message: String, sqlite_code: String },
    /// A constraint of the caller's tables failed.
    #[error("{message}")]
    Constraint { message: String, sqlite_code: String, table: Option<String>, constraint: Option<String> },
    /// The file system refused, for a reason that the message names.
    #[error("{message}")]
    File { message: String, sqlite_code: String },
    /// SQLite refused a statement of a SQL projector, or the commit of what one did.
    #[error("{failure}: in the SQL projector of {type_name} (aggregate \"{aggregate_id}\", seq {seq})")]
    Projection { failure: Box<Error>, type_name: String, aggregate_id: String, seq: i64 },
    /// A panic in the core; the store answers nothing any more.
    #[error("An internal failure poisoned this store; close it and open it again: {0}")]
    Poisoned(String),
}

fn shown(owner: &Option<String>) -> String {
    owner.as_ref().map_or_else(|| "nobody".to_owned(), |name| format!("\"{name}\""))
}

impl Error {
    /// The stable code, as JavaScript sees it.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidEvent { .. } => "ERR_INVALID_EVENT",
            Error::InvalidData { .. } => "ERR_INVALID_DATA",
            Error::TooLarge { .. } => "ERR_TOO_LARGE",
            Error::UnknownEvent { .. } | Error::Unprojected { .. } => "ERR_UNKNOWN_EVENT",
            Error::AggregateMismatch { .. } => "ERR_AGGREGATE_MISMATCH",
            Error::SequenceMismatch { .. } => "ERR_SEQUENCE_MISMATCH",
            Error::ReplayDiverged { .. } => "ERR_REPLAY_DIVERGED",
            Error::NotOwner { .. } => "ERR_NOT_OWNER",
            Error::Conflict { .. } => "ERR_CONFLICT",
            Error::NoProjector { .. } => "ERR_NO_PROJECTOR",
            Error::InProjector(_) => "ERR_IN_PROJECTOR",
            Error::InTransaction(_) => "ERR_IN_TRANSACTION",
            Error::Busy { .. } => "ERR_BUSY",
            Error::Closed(_) => "ERR_CLOSED",
            Error::Readonly { .. } => "ERR_READONLY",
            Error::DiskFull { .. } => "ERR_DISK_FULL",
            Error::FileGone(_) => "ERR_FILE_GONE",
            Error::NotADatabase { .. } => "ERR_NOT_A_DATABASE",
            Error::Corrupt(_) | Error::CorruptSegment { .. } | Error::LostEvent { .. } | Error::Malformed { .. } => {
                "ERR_CORRUPT"
            }
            Error::SchemaNewer { .. } => "ERR_SCHEMA_NEWER",
            Error::ForeignSchema { .. } | Error::NotAdoptable { .. } => "ERR_FOREIGN_SCHEMA",
            Error::InvalidArgument(_) => "ERR_INVALID_ARGUMENT",
            Error::TransactionLost { cause } if matches!(**cause, Error::DiskFull { .. }) => "ERR_DISK_FULL",
            Error::Pack(_)
            | Error::Sqlite { .. }
            | Error::Constraint { .. }
            | Error::File { .. }
            | Error::TransactionLost { .. }
            | Error::Projection { .. } => "ERR_SQLITE",
            Error::Poisoned(_) => "ERR_POISONED",
        }
    }

    /// The values that the message names, for programs.
    pub fn fields(&self) -> Map<String, Value> {
        let fields = match self {
            Error::InvalidEvent { index, field, .. } => json!({"index": index, "field": field}),
            Error::InvalidData { type_name, aggregate_id, .. } => {
                json!({"type": type_name, "aggregateID": aggregate_id})
            }
            Error::TooLarge { size, limit, index, .. } => json!({"size": size, "limit": limit, "index": index}),
            Error::UnknownEvent { type_name, aggregate_id, seq, index } => {
                json!({"type": type_name, "aggregateID": aggregate_id, "seq": seq, "index": index})
            }
            Error::Unprojected { type_name, aggregate_id, seq, projected } => {
                json!({"type": type_name, "aggregateID": aggregate_id, "seq": seq, "projected": projected})
            }
            Error::AggregateMismatch { index, type_name, field, aggregate_id, seq, got } => json!({
                "index": index, "type": type_name, "field": field, "aggregateID": aggregate_id, "seq": seq,
                "expected": aggregate_id, "got": serde_json::from_str::<Value>(got).unwrap_or(Value::Null),
            }),
            Error::SequenceMismatch { aggregate_id, expected, got, index } => {
                json!({"aggregateID": aggregate_id, "expected": expected, "got": got, "index": index})
            }
            Error::ReplayDiverged { aggregate_id, seq, type_name, what, index } => {
                json!({"aggregateID": aggregate_id, "seq": seq, "type": type_name, "field": what, "index": index})
            }
            Error::NotOwner { aggregate_id, owner, epoch, got, got_epoch } => json!({
                "aggregateID": aggregate_id, "expected": owner, "got": got, "epoch": epoch, "gotEpoch": got_epoch,
            }),
            Error::Conflict { aggregate_id, expected, got, .. } => {
                json!({"aggregateID": aggregate_id, "expected": expected, "got": got})
            }
            Error::NoProjector { type_name, aggregate_id, seq, index } => {
                json!({"type": type_name, "aggregateID": aggregate_id, "seq": seq, "index": index})
            }
            Error::Projection { failure, type_name, aggregate_id, seq } => {
                let mut fields = failure.fields();
                fields.extend([
                    ("type".to_owned(), json!(type_name)),
                    ("aggregateID".to_owned(), json!(aggregate_id)),
                    ("seq".to_owned(), json!(seq)),
                ]);
                Value::Object(fields)
            }
            Error::Constraint { sqlite_code, table, constraint, .. } => {
                json!({"sqliteCode": sqlite_code, "table": table, "constraint": constraint})
            }
            Error::LostEvent { aggregate_id, seq } => json!({"aggregateID": aggregate_id, "seq": seq}),
            Error::CorruptSegment { aggregate_id, first, last, .. } => {
                json!({"aggregateID": aggregate_id, "first": first, "last": last})
            }
            Error::Busy { waited, sqlite_code, .. } => json!({"waited": waited, "sqliteCode": sqlite_code}),
            Error::NotADatabase { .. } => json!({"sqliteCode": "SQLITE_NOTADB"}),
            Error::FileGone(_) => json!({"sqliteCode": "SQLITE_READONLY_DBMOVED"}),
            Error::SchemaNewer { found, supported, .. } => json!({"expected": supported, "got": found}),
            Error::Pack(_) => json!({"sqliteCode": "SQLITE_NOMEM"}),
            Error::Sqlite { sqlite_code, .. }
            | Error::File { sqlite_code, .. }
            | Error::Readonly { sqlite_code, .. }
            | Error::DiskFull { sqlite_code, .. }
            | Error::Malformed { sqlite_code, .. } => json!({"sqliteCode": sqlite_code}),
            Error::TransactionLost { cause } => {
                json!({"sqliteCode": cause.fields().remove("sqliteCode").unwrap_or_else(|| "SQLITE_ABORT".into())})
            }
            _ => json!({}),
        };
        match fields {
            Value::Object(mut map) => {
                // An absent field is left out; `got: null` of an owner or a mismatch is a value and stays.
                map.retain(|key, value| !value.is_null() || key == "got" || key == "expected");
                map
            }
            _ => Map::new(),
        }
    }

    /// SQLite's own name of the error, where it is one of SQLite's.
    pub fn sqlite_code(&self) -> Option<String> {
        match self.fields().remove("sqliteCode") {
            Some(Value::String(code)) => Some(code),
            _ => None,
        }
    }

    /// Whether some events are not what Syncline writes, while the file around them is sound.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Corrupt(_) | Error::CorruptSegment { .. } | Error::LostEvent { .. })
    }

    /// Whether a constraint of the caller's tables failed, in a projector or outside.
    pub fn is_constraint(&self) -> bool {
        match self {
            Error::Projection { failure, .. } => failure.is_constraint(),
            other => matches!(other, Error::Constraint { .. }),
        }
    }

    /// Whether somebody else's lock was in the way, so that trying again can help.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Busy { .. })
    }
}

/// `ERR_TOO_LARGE` for a size over its limit; `what` is asked only then.
pub fn within(what: impl FnOnce() -> String, size: usize, limit: usize, index: Option<usize>) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what: what(), size: size as u64, limit: limit as u64, index }.into())
}

/// `next`, which a scan of a table in rising order has found after `before`. In a damaged file an index or a table can be
/// out of order, and who goes on from the last row would go round for ever: `ERR_CORRUPT`.
pub fn rising<T: PartialOrd>(table: &str, before: &T, next: T) -> Result<T> {
    if next > *before {
        return Ok(next);
    }
    let message = format!(
        "The rows of \"{table}\" are out of order: verify says what is wrong, and mends it where only an index is"
    );
    Err(Error::Malformed { message, sqlite_code: "SQLITE_CORRUPT".to_owned() }.into())
}
