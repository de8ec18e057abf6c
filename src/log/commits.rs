//! The log in the order of commits: rows, packed events and the deletion events in tombstones, of all aggregates.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use rustc_hash::FxHashSet;

use super::tombstone_event;
use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::history::{self, Page, Visit};
use crate::known::{Known, Window};
use crate::limits::MAX_SAFE_INTEGER;
use crate::replay::input::{self, Item};
use crate::tables;

/// Reads a page of all events, from after a position.
pub fn read_all(
    connection: &Connection,
    known: &mut Known,
    after_position: i64,
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let between = Between::new(connection, known, after_position, limit, Vec::new())?;
    read(connection, known, after_position, Page::new(limit), between, visit).map(|_| ())
}

/// The same in wide pages. Answers where the page ended, if it was full before the log ended.
pub fn scan(
    connection: &Connection,
    known: &mut Known,
    after_position: i64,
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<Option<i64>> {
    let between = Between::new(connection, known, after_position, limit, Vec::new())?;
    read(connection, known, after_position, Page::wide(limit), between, visit)
}

/// Reads a page of what was committed after a position, with the deletion events that stand in tombstones in place of
/// erased history. Answers the position through which the page reaches, and whether that was the end.
pub fn read_committed(
    connection: &Connection,
    known: &mut Known,
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
    let tombstones = statement
        .query_map((after_position, limit as i64), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let between = Between::new(connection, known, after_position, limit, tombstones)?;
    let full = read(connection, known, after_position, Page::new(limit), between, visit)?;
    Ok(full.map_or((last, true), |through| (through, through >= last)))
}

/// Reads a page. Answers where it ended, if the page was full before the log ended.
fn read(
    connection: &Connection,
    known: &mut Known,
    after: i64,
    mut page: Page,
    mut between: Between,
    visit: &mut Visit<'_>,
) -> Result<Option<i64>> {
    let mut statement = connection.cached(
        "SELECT seq, id, type, created, metadata, data, position, aggregate FROM event
         WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut rows = statement.query((after, page.left as i64))?;
    let (mut reached, mut last) = (after, after);
    loop {
        let row = rows.next()?;
        let at = row.map_or(Ok(MAX_SAFE_INTEGER), |row| rising("event", &last, row.get(6)?))?;
        last = at;
        loop {
            let next = match between.next(connection, known, at) {
                // What cannot be read keeps back nothing that stands before it: it is the next page that fails.
                Err(error) if error.is_damage() && reached > after => return Ok(Some(reached)),
                next => next?,
            };
            let Some(position) = next.filter(|position| *position < at) else { break };
            page.count(between.visit(connection, known, visit)?);
            if page.is_full() {
                return Ok(Some(position));
            }
            reached = position;
        }
        let Some(row) = row else { return Ok(None) };
        let aggregate_id = known.of_aggregate(connection, row.get(7)?)?;
        page.count(history::visit_row(connection, known, row, &aggregate_id, visit)?);
        if page.is_full() {
            return Ok(Some(at));
        }
        reached = at;
    }
}

/// What stands between the rows: packed events, a window of them at a time, and tombstones.
struct Between {
    /// How many events a page has.
    page: usize,
    window: Arc<Window>,
    /// The last position that was handed over.
    after: i64,
    /// Positions and keys of aggregates, the first one last.
    tombstones: Vec<(i64, i64)>,
}

impl Between {
    fn new(
        connection: &Connection,
        known: &mut Known,
        after: i64,
        page: usize,
        mut tombstones: Vec<(i64, i64)>,
    ) -> Result<Self> {
        tombstones.reverse();
        Ok(Between { page, window: known.window(connection, after, page)?, after, tombstones })
    }

    /// The next position that is not a row's, where that is before `at`. Packed events after that are not looked for.
    fn next(&mut self, connection: &Connection, known: &mut Known, at: i64) -> Result<Option<i64>> {
        let tombstone = self.tombstones.last().map(|(position, _)| *position);
        let bound = at.min(tombstone.unwrap_or(i64::MAX));
        while self.window.after(self.after).is_empty() && self.window.through() < bound {
            self.after = self.after.max(self.window.through());
            self.window = known.window(connection, self.after, self.page)?;
        }
        let packed = self.window.after(self.after).first().map(|(_, event)| event.position);
        Ok(packed.into_iter().chain(tombstone).min())
    }

    /// Hands over what stands at the position that [`Between::next`] told, and goes past it. Answers its bytes.
    fn visit(&mut self, connection: &Connection, known: &mut Known, visit: &mut Visit<'_>) -> Result<usize> {
        let packed = self.window.after(self.after).first();
        if let Some((at, key)) = self.tombstones.pop_if(|(at, _)| packed.is_none_or(|(_, event)| *at < event.position))
        {
            let json = tombstone_event(connection, key)?.unwrap_or_default();
            visit_tombstone(&json, at, visit)?;
            return Ok(json.len());
        }
        let Some((aggregate, event)) = packed else { return Ok(0) };
        let aggregate_id = known.of_aggregate(connection, *aggregate)?;
        let bytes = history::visit_entry(connection, known, &event.entry(), &aggregate_id, visit)?;
        self.after = event.position;
        Ok(bytes)
    }
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
            moved.through = rising("event", &after_position, reached)?;
        }
    }
    // A segment that reaches further says as much as its events: its aggregate has moved after the position.
    let mut statement = connection
        .cached("SELECT aggregate FROM event_segment WHERE position > ?1 AND first <= ?2 ORDER BY position")?;
    let mut rows = statement.query((after_position, moved.through))?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        if seen.insert(key) {
            keys.push(key);
        }
    }
    moved.done = moved.through >= last;
    let mut statement = connection.cached("SELECT aggregate_id, seq FROM event_sequence WHERE key = ?1")?;
    for key in keys {
        moved.aggregates.extend(statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?);
    }
    Ok(moved)
}

/// Which aggregates had history erased after a position, by a removal or a gap: what no event tells. Each with its last seq,
/// in the order of positions, with the position through which this was looked for.
pub fn erased(connection: &Connection, after_position: i64, limit: usize) -> Result<(i64, Vec<(String, i64)>)> {
    let mut through = tables::last_position(connection)?;
    let mut statement = connection.cached(
        "SELECT moved_at, aggregate_id, seq FROM event_sequence WHERE moved_at > ?1 ORDER BY moved_at LIMIT ?2",
    )?;
    let mut rows = statement.query((after_position, limit as i64))?;
    let (mut found, mut reached) = (Vec::new(), after_position);
    while let Some(row) = rows.next()? {
        reached = row.get(0)?;
        found.push((row.get(1)?, row.get(2)?));
    }
    if found.len() == limit {
        through = reached;
    }
    Ok((through, found))
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
