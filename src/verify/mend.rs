//! What can be mended without loss: each in a transaction of its own, which looks again under the lock.

use crate::connection::Connection;
use crate::error::Result;
use crate::history;
use crate::known::{self, Known};
use crate::segment::Place;
use crate::tables;
use crate::turn::Turns;

/// How to mend a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mend {
    /// Builds an index anew.
    Index(String),
    /// Raises the last position used.
    Floor(i64),
    /// Raises the last seq of an aggregate.
    Sequence { key: i64, seq: i64 },
    /// Deletes rows, `after < seq <= through`, that stand in segments, too.
    Duplicates { key: i64, after: i64, through: i64 },
    /// Takes `after < seq <= through`, which are held, out of the gaps.
    Shrink { key: i64, after: i64, through: i64 },
    /// Joins gaps that overlap, and drops those that hold no seq.
    Join { key: i64 },
}

impl Mend {
    /// Does it, and says what was done; `None` where there was nothing to be done any more.
    pub(super) fn apply(&self, connection: &Connection, known: &mut Known, turns: &Turns) -> Result<Option<String>> {
        turns.slice(connection, || match self {
            Mend::Index(name) => {
                let quoted = name.replace('"', "\"\"");
                connection.sqlite().execute_batch(&format!("REINDEX main.\"{quoted}\""))?;
                Ok(Some(format!("Built the index \"{name}\" anew.")))
            }
            Mend::Floor(position) => {
                tables::raise_position_floor(connection, *position)?;
                Ok(Some(format!("Raised the last position used to {position}.")))
            }
            Mend::Sequence { key, seq } => {
                // A seq that was given once stays given, whatever has become of its event.
                let raised = connection
                    .cached("UPDATE event_sequence SET seq = ?2 WHERE key = ?1 AND seq < ?2")?
                    .execute((key, seq))?;
                Ok((raised == 1).then(|| format!("Raised the last seq to {seq}.")))
            }
            Mend::Duplicates { key, after, through } => delete_duplicates(connection, *key, (*after, *through)),
            Mend::Shrink { key, after, through } => shrink_gaps(connection, known, *key, (*after, *through)),
            Mend::Join { key } => join_gaps(connection, *key),
        })
    }
}

/// Segments that reach into `after < seq <= through`.
fn places_in(connection: &Connection, key: i64, (after, through): (i64, i64)) -> Result<Vec<Place>> {
    let places = history::segments(connection, key)?.into_iter();
    Ok(places.filter(|place| place.seq > after && place.first_seq <= through).collect())
}

fn delete_duplicates(connection: &Connection, key: i64, (after, through): (i64, i64)) -> Result<Option<String>> {
    let mut deleted = 0;
    for place in places_in(connection, key, (after, through))? {
        let Ok(segment) = known::decode(connection, &place)? else { continue };
        let mut same = Vec::new();
        let mut statement = connection.cached(
            "SELECT seq, id, type, created, metadata, data, position FROM event
             WHERE aggregate = ?1 AND seq > ?2 AND seq <= ?3 AND seq >= ?4 AND seq <= ?5",
        )?;
        let mut rows = statement.query((key, after, through, place.first_seq, place.seq))?;
        while let Some(row) = rows.next()? {
            let entry = history::entry(row)?;
            if segment.seqs().binary_search(&entry.seq).is_ok_and(|at| segment.get(at) == entry) {
                same.push(entry.position);
            }
        }
        for position in same {
            // It may be the newest row of all.
            tables::raise_position_floor(connection, position)?;
            deleted += connection.cached("DELETE FROM event WHERE position = ?1")?.execute([position])?;
        }
    }
    Ok((deleted > 0).then(|| format!("Deleted {deleted} rows; the same events stay in their segments.")))
}

fn shrink_gaps(
    connection: &Connection,
    known: &mut Known,
    key: i64,
    (after, through): (i64, i64),
) -> Result<Option<String>> {
    let mut held: i64 = connection
        .cached("SELECT count(*) FROM event WHERE aggregate = ?1 AND seq > ?2 AND seq <= ?3")?
        .query_row((key, after, through), |row| row.get(0))?;
    for place in places_in(connection, key, (after, through))? {
        let segment = known.segment(connection, &place)?;
        held += segment.seqs().iter().filter(|seq| **seq > after && **seq <= through).count() as i64;
    }
    if held != through - after {
        return Ok(None);
    }
    let mut statement = connection
        .cached("SELECT after, through FROM event_gap WHERE aggregate = ?1 AND after < ?3 AND through > ?2")?;
    let gaps = statement
        .query_map((key, after, through), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (from, to) in &gaps {
        connection.cached("DELETE FROM event_gap WHERE aggregate = ?1 AND after = ?2")?.execute((key, from))?;
        for (from, to) in [(*from, after), (through, *to)] {
            if from < to {
                connection
                    .cached("INSERT OR REPLACE INTO event_gap (aggregate, after, through) VALUES (?1, ?2, ?3)")?
                    .execute((key, from, to))?;
            }
        }
    }
    Ok((!gaps.is_empty()).then(|| format!("Took the seqs after {after} through {through} out of the gap.")))
}

fn join_gaps(connection: &Connection, key: i64) -> Result<Option<String>> {
    let mut statement =
        connection.cached("SELECT after, through FROM event_gap WHERE aggregate = ?1 ORDER BY after")?;
    let mut rows = statement.query([key])?;
    let mut joined: Vec<(i64, i64)> = Vec::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (after, through): (i64, i64) = (row.get(0)?, row.get(1)?);
        count += 1;
        match joined.last_mut() {
            _ if through <= after => {}
            Some(last) if after < last.1 => last.1 = last.1.max(through),
            _ => joined.push((after, through)),
        }
    }
    if count == joined.len() {
        return Ok(None);
    }
    connection.cached("DELETE FROM event_gap WHERE aggregate = ?1")?.execute([key])?;
    let mut insert = connection.cached("INSERT INTO event_gap (aggregate, after, through) VALUES (?1, ?2, ?3)")?;
    for (after, through) in &joined {
        insert.execute((key, after, through))?;
    }
    Ok(Some(format!("Made {} gaps of {count}.", joined.len())))
}
