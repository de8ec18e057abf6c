//! The rows of Syncline's own tables: the sequence row of an aggregate, event rows, segments, positions,
//! gaps.
//! Whoever calls holds the write lock, or reads inside one statement.

use rusqlite::OptionalExtension;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::limits::MAX_AGGREGATE_KEY;
use crate::segment::{self, Effort, Entry, Packed, Place};

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
    /// The last seq that is projected, −1 for none; `None`: all of them.
    pub projected: Option<i64>,
}

/// Reads the sequence row of an aggregate.
pub fn find_sequence(connection: &Connection, aggregate_id: &str) -> Result<Option<Sequence>> {
    let mut statement = connection.cached(
        "SELECT key, seq, owner_id, epoch, removed_seq, projected_seq FROM event_sequence WHERE aggregate_id = ?1",
    )?;
    Ok(statement
        .query_row([aggregate_id], |row| {
            Ok(Sequence {
                key: row.get(0)?,
                seq: row.get(1)?,
                owner: row.get(2)?,
                epoch: row.get(3)?,
                removed_seq: row.get(4)?,
                projected: row.get(5)?,
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
        }
        .into());
    }
    Ok(Sequence { key, seq: -1, owner: owner.map(str::to_owned), epoch, removed_seq: None, projected: None })
}

/// Writes the last seq.
pub fn update_seq(connection: &Connection, key: i64, seq: i64) -> Result<()> {
    connection.cached("UPDATE event_sequence SET seq = ?2 WHERE key = ?1")?.execute((key, seq))?;
    Ok(())
}

/// Writes through which seq the aggregate is projected; `None`: all of it.
pub fn update_projected(connection: &Connection, key: i64, projected: Option<i64>) -> Result<()> {
    connection.cached("UPDATE event_sequence SET projected_seq = ?2 WHERE key = ?1")?.execute((key, projected))?;
    Ok(())
}

/// Through which seq the aggregate is projected; `None`: all of it.
pub fn projected(connection: &Connection, key: i64) -> Result<Option<i64>> {
    let mut statement = connection.cached("SELECT projected_seq FROM event_sequence WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?.flatten())
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

/// Packs events of one aggregate into a segment. `generation` is above that of any segment that ended with the same event.
pub fn insert_segment(
    connection: &Connection,
    aggregate: i64,
    entries: &[Entry<'_>],
    generation: i64,
    effort: Effort,
) -> Result<()> {
    let packed = segment::encode(aggregate, entries, effort).map_err(|error| Error::Pack(error.to_string()))?;
    store_segment(connection, &Place::of(aggregate, entries, generation), &packed, effort)
}

/// Writes what [`segment::encode`] has packed.
pub fn store_segment(connection: &Connection, place: &Place, packed: &Packed, effort: Effort) -> Result<()> {
    connection
        .cached(
            "INSERT INTO event_segment
               (position, first, aggregate, first_seq, seq, generation, effort, summary, head, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            place.position,
            place.first,
            place.aggregate,
            place.first_seq,
            place.seq,
            place.generation,
            effort as i64,
            &packed.summary,
            &packed.head,
            &packed.body,
        ))?;
    Ok(())
}

/// Deletes a segment; `false` where it is not, or no longer, as `place` says.
pub fn delete_segment(connection: &Connection, place: &Place) -> Result<bool> {
    let deleted = connection
        .cached("DELETE FROM event_segment WHERE position = ?1 AND generation = ?2 AND first_seq = ?3")?
        .execute((place.position, place.generation, place.first_seq))?;
    Ok(deleted == 1)
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

/// Notes that `after < seq <= through`, between events that are there, no longer exist; joins it with gaps that touch it.
pub fn open_gap(connection: &Connection, key: i64, after: i64, through: i64) -> Result<()> {
    let touching = connection
        .cached(
            "SELECT coalesce(min(after), ?2), coalesce(max(through), ?3) FROM event_gap
             WHERE aggregate = ?1 AND after <= ?3 AND through >= ?2
               AND after >= coalesce((SELECT max(after) FROM event_gap WHERE aggregate = ?1 AND after <= ?2), -1)",
        )?
        .query_row((key, after, through), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let (reached, after, through) = (through, touching.0.min(after), touching.1.max(through));
    // Not as far as the joined one reaches: one that begins there has not been joined.
    connection
        .cached("DELETE FROM event_gap WHERE aggregate = ?1 AND after >= ?2 AND after <= ?3")?
        .execute((key, after, reached))?;
    connection
        .cached("INSERT INTO event_gap (aggregate, after, through) VALUES (?1, ?2, ?3)")?
        .execute((key, after, through))?;
    Ok(())
}
