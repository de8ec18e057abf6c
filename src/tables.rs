//! The rows of Syncline's own tables: the sequence row of an aggregate, event rows, interned types, positions, gaps.
//! Whoever calls holds the write lock, or reads inside one statement.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use rustc_hash::FxHashMap;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::limits::{KNOWN_AGGREGATES, MAX_AGGREGATE_KEY};

/// The sequence row of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Key of the aggregate in the other tables.
    pub key: i64,
    /// The last seq given; −1 where only a claim was made.
    pub seq: i64,
    /// Who may write.
    pub owner: Option<String>,
    /// How many times that changed.
    pub epoch: i64,
    /// Through which seq history was erased.
    pub removed_seq: Option<i64>,
}

/// Reads the sequence row of an aggregate.
pub fn find_sequence(connection: &Connection, aggregate_id: &str) -> Result<Option<Sequence>> {
    let mut statement = connection
        .cached("SELECT key, seq, owner_id, epoch, removed_seq FROM event_sequence WHERE aggregate_id = ?1")?;
    Ok(statement
        .query_row([aggregate_id], |row| {
            Ok(Sequence {
                key: row.get(0)?,
                seq: row.get(1)?,
                owner: row.get(2)?,
                epoch: row.get(3)?,
                removed_seq: row.get(4)?,
            })
        })
        .optional()?)
}

/// Makes the sequence row of a new aggregate, owned by nobody (epoch 0) or by `owner`.
pub fn insert_sequence(
    connection: &Connection,
    aggregate_id: &str,
    owner: Option<&str>,
    epoch: i64,
) -> Result<Sequence> {
    connection
        .cached("INSERT INTO event_sequence (aggregate_id, seq, owner_id, epoch) VALUES (?1, -1, ?2, ?3)")?
        .execute((aggregate_id, owner, epoch))?;
    let key = connection.sqlite().last_insert_rowid();
    if key > MAX_AGGREGATE_KEY {
        return Err(Error::TooLarge {
            what: "The number of aggregates".to_owned(),
            size: key.unsigned_abs(),
            limit: MAX_AGGREGATE_KEY.unsigned_abs(),
            index: None,
        });
    }
    Ok(Sequence { key, seq: -1, owner: owner.map(str::to_owned), epoch, removed_seq: None })
}

/// Writes the last seq.
pub fn update_seq(connection: &Connection, key: i64, seq: i64) -> Result<()> {
    connection.cached("UPDATE event_sequence SET seq = ?2 WHERE key = ?1")?.execute((key, seq))?;
    Ok(())
}

/// Writes owner and epoch.
pub fn update_owner(connection: &Connection, key: i64, owner: Option<&str>, epoch: i64) -> Result<()> {
    connection
        .cached("UPDATE event_sequence SET owner_id = ?2, epoch = ?3 WHERE key = ?1")?
        .execute((key, owner, epoch))?;
    Ok(())
}

/// An event row that is to be written.
pub struct EventRow<'a> {
    /// Key of the aggregate.
    pub aggregate: i64,
    /// Its seq.
    pub seq: i64,
    /// Its id.
    pub id: &'a str,
    /// Key of its type.
    pub type_key: i64,
    /// Unix milliseconds.
    pub created: Option<i64>,
    /// JSON object text.
    pub metadata: Option<&'a str>,
    /// JSON text.
    pub data: &'a str,
}

/// Appends an event row at `position`.
pub fn insert_event(connection: &Connection, position: i64, row: &EventRow<'_>) -> Result<()> {
    connection
        .cached(
            "INSERT INTO event (position, aggregate, seq, id, type, created, metadata, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((position, row.aggregate, row.seq, row.id, row.type_key, row.created, row.metadata, row.data))?;
    Ok(())
}

/// The position after every position ever used. The newest row is found at the tree's right edge, without a scan.
pub fn next_position(connection: &Connection) -> Result<i64> {
    Ok(connection
        .cached(
            "SELECT 1 + max(position_floor, coalesce((SELECT max(position) FROM event), 0))
             FROM event_meta WHERE id = 1",
        )?
        .query_row([], |row| row.get(0))?)
}

/// The last position that was used: of the newest row, or of what left none.
pub fn last_position(connection: &Connection) -> Result<i64> {
    Ok(next_position(connection)? - 1)
}

/// Notes that an aggregate moved at a position at which no event row will stand.
pub fn move_without_row(connection: &Connection, key: i64, position: i64) -> Result<()> {
    raise_position_floor(connection, position)?;
    connection.cached("UPDATE event_sequence SET moved_at = ?2 WHERE key = ?1")?.execute((key, position))?;
    Ok(())
}

/// Notes that every position up to `position` has been used, before the rows that show it go.
pub fn raise_position_floor(connection: &Connection, position: i64) -> Result<()> {
    connection
        .cached("UPDATE event_meta SET position_floor = max(position_floor, ?1) WHERE id = 1")?
        .execute([position])?;
    Ok(())
}

/// Whether a gap of the aggregate covers `seq`. Gaps do not overlap: only the last that begins before it can.
pub fn in_gap(connection: &Connection, key: i64, seq: i64) -> Result<bool> {
    Ok(connection
        .cached(
            "SELECT 1 FROM (
               SELECT through FROM event_gap WHERE aggregate = ?1 AND after < ?2 ORDER BY after DESC LIMIT 1
             ) WHERE through >= ?2",
        )?
        .exists((key, seq))?)
}

/// Notes that `after < seq <= through` no longer exist, past all gaps known. If the last one ends where this one begins,
/// it grows instead.
pub fn insert_gap(connection: &Connection, key: i64, after: i64, through: i64) -> Result<()> {
    let grown = connection
        .cached(
            "UPDATE event_gap SET through = ?3 WHERE aggregate = ?1 AND through = ?2
             AND after = (SELECT max(after) FROM event_gap WHERE aggregate = ?1)",
        )?
        .execute((key, after, through))?;
    if grown == 0 {
        connection
            .cached("INSERT INTO event_gap (aggregate, after, through) VALUES (?1, ?2, ?3)")?
            .execute((key, after, through))?;
    }
    Ok(())
}

/// Names by key and, for types, keys by name: of event types and of aggregates. The rows never change, so that only a
/// rollback, which may take back a row that this cache has seen, makes it forget.
#[derive(Default)]
pub struct Names {
    type_keys: FxHashMap<Arc<str>, i64>,
    types: FxHashMap<i64, Arc<str>>,
    aggregates: FxHashMap<i64, Arc<str>>,
}

impl Names {
    /// The key of a type, made where it has none yet.
    pub fn type_key(&mut self, connection: &Connection, name: &str) -> Result<i64> {
        if let Some(key) = self.type_keys.get(name) {
            return Ok(*key);
        }
        let found = connection
            .cached("SELECT key FROM event_type WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let key = match found {
            Some(key) => key,
            None => {
                connection.cached("INSERT INTO event_type (name) VALUES (?1)")?.execute([name])?;
                connection.sqlite().last_insert_rowid()
            }
        };
        let name: Arc<str> = name.into();
        self.type_keys.insert(Arc::clone(&name), key);
        self.types.insert(key, name);
        Ok(key)
    }

    /// The name of a type. `ERR_CORRUPT` where no row has its key.
    pub fn of_type(&mut self, connection: &Connection, key: i64) -> Result<Arc<str>> {
        named(&mut self.types, connection, "SELECT name FROM event_type WHERE key = ?1", key)
    }

    /// The id of an aggregate. `ERR_CORRUPT` where no row has its key.
    pub fn of_aggregate(&mut self, connection: &Connection, key: i64) -> Result<Arc<str>> {
        if self.aggregates.len() >= KNOWN_AGGREGATES {
            self.aggregates.clear();
        }
        named(&mut self.aggregates, connection, "SELECT aggregate_id FROM event_sequence WHERE key = ?1", key)
    }

    /// Forgets everything; called when a transaction, or a part of one, was rolled back.
    pub fn forget(&mut self) {
        self.type_keys.clear();
        self.types.clear();
        self.aggregates.clear();
    }
}

fn named(names: &mut FxHashMap<i64, Arc<str>>, connection: &Connection, sql: &str, key: i64) -> Result<Arc<str>> {
    if let Some(name) = names.get(&key) {
        return Ok(Arc::clone(name));
    }
    let name: Option<String> = connection.cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    let missing = || Error::Corrupt(format!("An event names key {key}, which no row has ({sql})"));
    let name: Arc<str> = name.ok_or_else(missing)?.into();
    names.insert(key, Arc::clone(&name));
    Ok(name)
}
