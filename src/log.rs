//! Reading the log: pages by aggregate, with gaps and tombstones, and by position (`commits`). A page is bounded by rows
//! and by bytes and read in one snapshot, so that no reader holds a transaction open between pages.

pub mod commits;
pub mod text;

use rusqlite::{OptionalExtension, Row, Rows};

use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::history::{self, Range, Visit};
use crate::known::Known;
use crate::tables;

/// What a page of the log holds besides its events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// History through this seq was erased, and the deletion event if there was one (JSON text).
    pub removed: Option<(i64, Option<String>)>,
    /// `after < seq <= through` no longer exist, in order, within what the page covers.
    pub gaps: Vec<(i64, i64)>,
    /// The page reaches the end that was asked for.
    pub done: bool,
}

/// Reads a page of one aggregate's events.
pub fn read(
    connection: &Connection,
    known: &mut Known,
    aggregate_id: &str,
    range: Range,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let Some(sequence) = tables::find_sequence(connection, aggregate_id)? else {
        return Ok(());
    };
    history::by_seq(connection, known, (aggregate_id, sequence.key), range, visit)
}

/// Reads a page of one aggregate's log, `after < seq <= through`, with what the log says of missing ranges.
/// `ERR_CORRUPT` where a range is missing that it does not explain.
pub fn read_log(
    connection: &Connection,
    known: &mut Known,
    aggregate_id: &str,
    (after, through): (i64, i64),
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<LogPage> {
    let Some(sequence) = tables::find_sequence(connection, aggregate_id)? else {
        return Ok(LogPage { done: true, ..LogPage::default() });
    };
    let mut page = LogPage::default();
    let mut after = after;
    // A reader that stands exactly at the tombstone may have been there before the removal. One that has seen it gets it
    // again, which replays as a duplicate.
    if let Some(removed) = sequence.removed_seq.filter(|removed| *removed >= after) {
        page.removed = Some((removed, tombstone_event(connection, sequence.key)?));
        after = removed;
    }
    let mut statement = connection.cached(GAPS)?;
    let mut gaps = statement.query((sequence.key, after, through))?;
    let mut gap = next_gap(&mut gaps)?;
    let mut last = after;
    let mut count = 0;
    let unexplained = |last: i64, next: i64| {
        Box::new(Error::Corrupt(format!(
            "The log of aggregate \"{aggregate_id}\" has lost the events after seq {last} and before {next}"
        )))
    };
    // Where a gap leads that begins at, or before, what was read last.
    let beyond = |last: i64, (after, through): (i64, i64)| {
        if after > last { Err(unexplained(last, after + 1)) } else { Ok(through) }
    };
    let range = Range { after, before: Some(through + 1), limit, descending: false };
    history::by_seq(connection, known, (aggregate_id, sequence.key), range, &mut |event| {
        while let Some(found) = gap.filter(|(_, through)| *through < event.seq) {
            last = beyond(last, found)?;
            page.gaps.push(found);
            gap = next_gap(&mut gaps)?;
        }
        if event.seq != last + 1 {
            return Err(unexplained(last, event.seq));
        }
        (last, count) = (event.seq, count + 1);
        visit(event)
    })?;
    if count == 0 || last >= through {
        while let Some(found) = gap {
            last = beyond(last, found)?;
            page.gaps.push(found);
            gap = next_gap(&mut gaps)?;
        }
    }
    page.done = last >= through || count == 0;
    if page.done && last < through.min(sequence.seq) {
        return Err(unexplained(last, through.min(sequence.seq) + 1));
    }
    Ok(page)
}

/// The last seq of an aggregate, −1 when unknown.
pub fn sequence(connection: &Connection, aggregate_id: &str) -> Result<i64> {
    Ok(tables::find_sequence(connection, aggregate_id)?.map_or(-1, |sequence| sequence.seq))
}

/// The last seq of an aggregate, −1 when unknown, and the last position, as of one moment.
pub fn standing(connection: &Connection, aggregate_id: &str) -> Result<(i64, i64)> {
    Ok(connection
        .cached(
            "SELECT coalesce((SELECT seq FROM event_sequence WHERE aggregate_id = ?1), -1),
                    max(position_floor, coalesce((SELECT max(position) FROM event), 0))
             FROM event_meta WHERE id = 1",
        )?
        .query_row([aggregate_id], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// The last seq of the named aggregates that are known, or of all. One indexed query, however many ids there are.
pub fn sequences(connection: &Connection, ids: Option<&[String]>) -> Result<Vec<(String, i64)>> {
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let collected = match ids {
        Some(ids) => connection
            .cached(
                "SELECT aggregate_id, seq FROM event_sequence
                 WHERE aggregate_id IN (SELECT value FROM json_each(?1)) ORDER BY key",
            )?
            .query_map([serde_json::Value::from(ids).to_string()], pair)?
            .collect::<rusqlite::Result<_>>()?,
        None => connection
            .cached("SELECT aggregate_id, seq FROM event_sequence ORDER BY key")?
            .query_map([], pair)?
            .collect::<rusqlite::Result<_>>()?,
    };
    Ok(collected)
}

/// An aggregate in the order of creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Rises from one to the next: where the next page begins.
    pub key: i64,
    /// Its id.
    pub aggregate_id: String,
    /// Its last seq; −1 where it was only claimed.
    pub seq: i64,
    /// Through which seq its history was erased; −1: it was not.
    pub removed_seq: i64,
}

/// Aggregates in the order of their creation, from after a key.
pub fn created(connection: &Connection, after_key: i64, limit: usize) -> Result<Vec<Created>> {
    Ok(connection
        .cached(
            "SELECT key, aggregate_id, seq, coalesce(removed_seq, -1) FROM event_sequence
             WHERE key > ?1 ORDER BY key LIMIT ?2",
        )?
        .query_map((after_key, limit as i64), |row| {
            Ok(Created { key: row.get(0)?, aggregate_id: row.get(1)?, seq: row.get(2)?, removed_seq: row.get(3)? })
        })?
        .collect::<rusqlite::Result<_>>()?)
}

/// An aggregate in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub aggregate_id: String,
    /// Its last seq.
    pub seq: i64,
    /// Who may write it.
    pub owner: Option<String>,
    /// How many times that changed.
    pub epoch: i64,
    /// The last seq that is projected, where that is another one.
    pub projected: Option<i64>,
}

/// Aggregates whose id begins with `prefix`, ordered by id, from after an id.
pub fn aggregates(connection: &Connection, prefix: &str, after: &str, limit: usize) -> Result<Vec<Listed>> {
    let mut statement = connection.cached(
        "SELECT aggregate_id, seq, owner_id, epoch, projected_seq FROM event_sequence
         WHERE aggregate_id > ?1 AND aggregate_id >= ?2 ORDER BY aggregate_id",
    )?;
    let mut rows = statement.query((after, prefix))?;
    let mut listed = Vec::new();
    let mut last = after.to_owned();
    while listed.len() < limit {
        let Some(row) = rows.next()? else { break };
        let aggregate_id: String = rising("event_sequence", &last, row.get(0)?)?;
        if !aggregate_id.starts_with(prefix) {
            break;
        }
        last.clone_from(&aggregate_id);
        let (seq, owner, epoch, projected) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        listed.push(Listed { aggregate_id, seq, owner, epoch, projected });
    }
    Ok(listed)
}

/// The gaps within `?2 < seq <= ?3`, in order, read along with the events. Gaps do not overlap, so that the first one is
/// the last that begins at or before `?2`, or a later one.
const GAPS: &str = "
    SELECT max(after, ?2), min(through, ?3) FROM event_gap
    WHERE aggregate = ?1 AND after < ?3 AND through > ?2
      AND after >= coalesce((SELECT max(after) FROM event_gap WHERE aggregate = ?1 AND after <= ?2), -1)
    ORDER BY event_gap.after";

fn next_gap(gaps: &mut Rows<'_>) -> Result<Option<(i64, i64)>> {
    Ok(gaps.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?))).transpose()?)
}

fn tombstone_event(connection: &Connection, key: i64) -> Result<Option<String>> {
    let event: Option<Option<String>> = connection
        .cached("SELECT removed_event FROM event_sequence WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(event.flatten())
}
