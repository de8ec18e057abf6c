//! Reading the log: pages by aggregate and by position, gaps, tombstones. A page is bounded by rows and by bytes and
//! read in one statement, so that no reader holds a transaction open between pages.

use rusqlite::{OptionalExtension, Row, Rows};
use rustc_hash::FxHashSet;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::limits::{MAX_PAGE_ROWS, MAX_SEQ, PAGE_BYTES};
use crate::replay::input::{self, Item};
use crate::tables::{self, Names};

/// Receives each event of a page.
pub type Visit<'v> = dyn FnMut(&StoredEvent<'_>) -> Result<()> + 'v;

/// Which events of an aggregate to read: `after < seq < before`.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Exclusive; −1 from the start.
    pub after: i64,
    /// Exclusive; `None` to the end.
    pub before: Option<i64>,
    /// Rows at most.
    pub limit: usize,
    /// Newest first.
    pub descending: bool,
}

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
    names: &mut Names,
    aggregate_id: &str,
    range: Range,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let Some(sequence) = tables::find_sequence(connection, aggregate_id)? else {
        return Ok(());
    };
    read_rows(connection, names, (aggregate_id, sequence.key), range, visit)
}

/// Reads a page of all events in the order of commits, from after a position.
pub fn read_all(
    connection: &Connection,
    names: &mut Names,
    after_position: i64,
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut statement = connection.cached(READ_ALL)?;
    let mut rows = statement.query((after_position, limit.min(MAX_PAGE_ROWS) as i64))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let aggregate_id = names.of_aggregate(connection, row.get(7)?)?;
        bytes += visit_row(connection, names, row, &aggregate_id, visit)?;
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(())
}

/// Reads a page of one aggregate's log, `after < seq <= through`, with what the log says of missing ranges.
/// `ERR_CORRUPT` where a range is missing that it does not explain.
pub fn read_log(
    connection: &Connection,
    names: &mut Names,
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
        Error::Corrupt(format!(
            "The log of aggregate \"{aggregate_id}\" has lost the events after seq {last} and before {next}"
        ))
    };
    let range = Range { after, before: Some(through + 1), limit, descending: false };
    read_rows(connection, names, (aggregate_id, sequence.key), range, &mut |event| {
        while let Some(found) = gap.filter(|(_, through)| *through < event.seq) {
            last = found.1;
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
            last = found.1;
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

/// Reads a page of what was committed after a position, in the order of commits, with the deletion events that stand in
/// tombstones in place of erased history. Answers the position through which the page reaches, and whether that was
/// the end.
pub fn read_committed(
    connection: &Connection,
    names: &mut Names,
    after_position: i64,
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<(i64, bool)> {
    let last = tables::last_position(connection)?;
    if last <= after_position {
        return Ok((last, true));
    }
    let mut statement = connection.cached(
        "SELECT removed_at, key FROM event_sequence
         WHERE removed_event IS NOT NULL AND removed_at > ?1 ORDER BY removed_at LIMIT ?2",
    )?;
    let mut rows = statement.query((after_position, limit as i64))?;
    let mut next_tombstone = || -> Result<Option<(i64, i64)>> {
        Ok(rows.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?))).transpose()?)
    };
    let mut tombstone = next_tombstone()?;
    let (mut through, mut count, mut bytes) = (after_position, 0, 0);
    let mut reached = |position: i64, size: usize| {
        (through, count, bytes) = (position, count + 1, bytes + size);
        count < limit && bytes < PAGE_BYTES
    };
    let mut more = true;
    let mut statement = connection.cached(READ_ALL)?;
    let mut rows = statement.query((after_position, limit as i64))?;
    while more {
        let Some(row) = rows.next()? else { break };
        let position: i64 = row.get(6)?;
        while more && let Some((at, key)) = tombstone.take_if(|(at, _)| *at < position) {
            let json = tombstone_event(connection, key)?.unwrap_or_default();
            visit_tombstone(&json, at, visit)?;
            more = reached(at, json.len());
            tombstone = next_tombstone()?;
        }
        if more {
            let aggregate_id = names.of_aggregate(connection, row.get(7)?)?;
            more = reached(position, visit_row(connection, names, row, &aggregate_id, visit)?);
        }
    }
    while more && let Some((at, key)) = tombstone {
        let json = tombstone_event(connection, key)?.unwrap_or_default();
        visit_tombstone(&json, at, visit)?;
        more = reached(at, json.len());
        tombstone = next_tombstone()?;
    }
    Ok(if more { (last, true) } else { (through, through >= last) })
}

/// Which aggregates moved after a position.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The position through which this was looked for.
    pub through: i64,
    /// Whether that is the last one.
    pub done: bool,
    /// Each aggregate once, in the order in which they moved first, with its last seq.
    pub aggregates: Vec<(String, i64)>,
}

/// Looks for the aggregates that moved after a position, at most `limit` by their event rows and as many by an index of
/// what left no row: whoever asks again from where it ends reads what is new, never history.
pub fn moved(connection: &Connection, after_position: i64, limit: usize) -> Result<Moved> {
    let last = tables::last_position(connection)?;
    let mut moved = Moved { through: last, done: true, aggregates: Vec::new() };
    if last <= after_position {
        return Ok(moved);
    }
    let mut keys = Vec::new();
    let mut seen = FxHashSet::default();
    // What moved in the rows that are looked at, then what moved without one and no further than they reach.
    for sql in [
        "SELECT position, aggregate FROM event WHERE position > ?1 AND position <= ?3 ORDER BY position LIMIT ?2",
        "SELECT moved_at, key FROM event_sequence WHERE moved_at > ?1 AND moved_at <= ?3 ORDER BY moved_at LIMIT ?2",
    ] {
        let mut statement = connection.cached(sql)?;
        let mut rows = statement.query((after_position, limit as i64, moved.through))?;
        let (mut count, mut reached) = (0, moved.through);
        while let Some(row) = rows.next()? {
            (count, reached) = (count + 1, row.get(0)?);
            let key: i64 = row.get(1)?;
            if seen.insert(key) {
                keys.push(key);
            }
        }
        if count == limit {
            moved.through = reached;
        }
    }
    moved.done = moved.through >= last;
    let mut statement = connection.cached("SELECT aggregate_id, seq FROM event_sequence WHERE key = ?1")?;
    for key in keys {
        moved.aggregates.extend(statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?);
    }
    Ok(moved)
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
}

/// Aggregates whose id begins with `prefix`, ordered by id, from after an id.
pub fn aggregates(connection: &Connection, prefix: &str, after: &str, limit: usize) -> Result<Vec<Listed>> {
    let mut statement = connection.cached(
        "SELECT aggregate_id, seq, owner_id, epoch FROM event_sequence
         WHERE aggregate_id > ?1 AND aggregate_id >= ?2 ORDER BY aggregate_id",
    )?;
    let mut rows = statement.query((after, prefix))?;
    let mut listed = Vec::new();
    while listed.len() < limit {
        let Some(row) = rows.next()? else { break };
        let aggregate_id: String = row.get(0)?;
        if !aggregate_id.starts_with(prefix) {
            break;
        }
        listed.push(Listed { aggregate_id, seq: row.get(1)?, owner: row.get(2)?, epoch: row.get(3)? });
    }
    Ok(listed)
}

fn read_rows(
    connection: &Connection,
    names: &mut Names,
    (aggregate_id, key): (&str, i64),
    range: Range,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut statement = connection.cached(if range.descending {
        "SELECT seq, id, type, created, metadata, data, position FROM event
         WHERE aggregate = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4"
    } else {
        "SELECT seq, id, type, created, metadata, data, position FROM event
         WHERE aggregate = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT ?4"
    })?;
    let before = range.before.unwrap_or(MAX_SEQ + 1);
    let mut rows = statement.query((key, range.after, before, range.limit.min(MAX_PAGE_ROWS) as i64))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += visit_row(connection, names, row, aggregate_id, visit)?;
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(())
}

/// Hands over one row and says how many bytes of data it had.
fn visit_row(
    connection: &Connection,
    names: &mut Names,
    row: &Row<'_>,
    aggregate_id: &str,
    visit: &mut Visit<'_>,
) -> Result<usize> {
    let data = row.get_ref(5)?.as_str().map_err(unreadable)?;
    visit(&StoredEvent {
        id: row.get_ref(1)?.as_str().map_err(unreadable)?,
        type_name: &names.of_type(connection, row.get(2)?)?,
        seq: row.get(0)?,
        aggregate_id,
        created: row.get(3)?,
        metadata: row.get_ref(4)?.as_str_or_null().map_err(unreadable)?,
        data,
        position: row.get(6)?,
    })?;
    Ok(data.len())
}

/// Hands over the deletion event that a tombstone keeps.
pub fn visit_tombstone(json: &str, position: i64, visit: &mut Visit<'_>) -> Result<()> {
    let items = input::read_text(json, usize::MAX)
        .map_err(|error| Error::Corrupt(format!("The deletion event of a removed aggregate is unreadable: {error}")))?;
    match items.first() {
        Some(Item::Event(event)) => visit(&event.as_stored(json, position)),
        _ => Ok(()),
    }
}

fn unreadable(error: rusqlite::types::FromSqlError) -> Error {
    Error::Corrupt(format!("An event row holds what syncline never writes: {error}"))
}

const READ_ALL: &str = "
    SELECT seq, id, type, created, metadata, data, position, aggregate FROM event
    WHERE position > ?1 ORDER BY position LIMIT ?2";

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
