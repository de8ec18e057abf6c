//! Which aggregates are not projected to their end: from its first event of a type on that the program did not know when it
//! was replayed, an aggregate is only stored. `reproject.rs` goes on from there.

use rusqlite::OptionalExtension;
use serde::Serialize;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::known::{self, Known};
use crate::limits::MAX_UNPROJECTED;
use crate::payload;
use crate::tables::Sequence;

/// An aggregate that is not projected to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unprojected {
    /// Its id.
    #[serde(rename = "aggregateID")]
    pub aggregate_id: String,
    /// The last seq that it holds.
    pub seq: i64,
    /// The last that is projected; −1 for none.
    pub projected: i64,
    /// `type.version` of the first event after that; empty where it cannot be read.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// The aggregates that are not projected to their end, in the order of their creation; as many as are told of. An index
/// finds them.
pub fn list(connection: &Connection, known: &mut Known) -> Result<Vec<Unprojected>> {
    let mut statement = connection.cached(
        "SELECT key, aggregate_id, seq, removed_seq, projected_seq
         FROM event_sequence INDEXED BY event_sequence_unprojected
         WHERE projected_seq IS NOT NULL ORDER BY key LIMIT ?1",
    )?;
    let mut rows = statement.query([MAX_UNPROJECTED as i64])?;
    let mut listed = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, projected) = (row.get(0)?, row.get(4)?);
        let type_name = match first(connection, known, key, row.get(3)?, projected) {
            // What cannot be read is a matter for `verify`.
            Err(error) if error.is_damage() => String::new(),
            found => found?.map_or_else(String::new, |(_, name)| name),
        };
        listed.push(Unprojected { aggregate_id: row.get(1)?, seq: row.get(2)?, projected, type_name });
    }
    Ok(listed)
}

/// `ERR_UNKNOWN_EVENT` where an aggregate is not projected to its end.
pub fn check(connection: &Connection, known: &mut Known, aggregate_id: &str, sequence: &Sequence) -> Result<()> {
    let Some(projected) = sequence.projected else { return Ok(()) };
    let (seq, type_name) = first(connection, known, sequence.key, sequence.removed_seq, projected)?
        .unwrap_or_else(|| (projected + 1, String::new()));
    Err(Error::Unprojected { type_name, aggregate_id: aggregate_id.to_owned(), seq, projected }.into())
}

/// Seq and text of the deletion event that a tombstone keeps, where it is not projected.
pub fn deletion(
    connection: &Connection,
    key: i64,
    removed_seq: Option<i64>,
    projected: i64,
) -> Result<Option<(i64, String)>> {
    let Some(removed) = removed_seq.filter(|removed| *removed > projected) else { return Ok(None) };
    let json: Option<Option<String>> = connection
        .cached("SELECT removed_event FROM event_sequence WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(json.flatten().map(|json| (removed, json)))
}

/// Seq and type of the first event that is not projected. No payload is read, but for that of a deletion event.
fn first(
    connection: &Connection,
    known: &mut Known,
    key: i64,
    removed_seq: Option<i64>,
    projected: i64,
) -> Result<Option<(i64, String)>> {
    if let Some((seq, json)) = deletion(connection, key, removed_seq, projected)? {
        let type_name = payload::field(&json, "type").and_then(payload::as_string).unwrap_or_default();
        return Ok(Some((seq, type_name)));
    }
    let after = projected.max(removed_seq.unwrap_or(-1));
    let mut statement = connection.cached(
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE aggregate = ?1 AND seq > ?2 ORDER BY seq LIMIT 1",
    )?;
    let mut places = statement.query((key, after))?;
    let packed = match places.next()?.map(known::place).transpose()? {
        Some(place) => known.head(connection, &place)?.first_after(after),
        None => None,
    };
    let found = match packed {
        Some(found) => Some(found),
        None => connection
            .cached("SELECT seq, type FROM event WHERE aggregate = ?1 AND seq > ?2 ORDER BY seq LIMIT 1")?
            .query_row((key, after), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?,
    };
    let Some((seq, type_key)) = found else { return Ok(None) };
    Ok(Some((seq, known.of_type(connection, type_key)?.to_string())))
}
