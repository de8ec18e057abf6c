//! The log in the order of commits: rows, packed events and the deletion events in tombstones, of all aggregates.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rusqlite::OptionalExtension;
use rustc_hash::FxHashSet;

use super::tombstone_event;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history::{self, Page, Visit};
use crate::known::Known;
use crate::limits::MAX_SAFE_INTEGER;
use crate::replay::input::{self, Item};
use crate::segment::{Place, Segment};
use crate::tables;

/// Reads a page of all events, from after a position.
pub fn read_all(
    connection: &Connection,
    known: &mut Known,
    after_position: i64,
    limit: usize,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let between = Between::new(connection, after_position, Vec::new())?;
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
    let between = Between::new(connection, after_position, Vec::new())?;
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
    let between = Between::new(connection, after_position, tombstones)?;
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
    loop {
        let row = rows.next()?;
        let at: i64 = row.map_or(Ok(MAX_SAFE_INTEGER), |row| row.get(6))?;
        while let Some(position) = between.next(connection, known)?.filter(|position| *position < at) {
            page.count(between.visit(connection, known, visit)?);
            if page.is_full() {
                return Ok(Some(position));
            }
        }
        let Some(row) = row else { return Ok(None) };
        let aggregate_id = known.of_aggregate(connection, row.get(7)?)?;
        page.count(history::visit_row(connection, known, row, &aggregate_id, visit)?);
        if page.is_full() {
            return Ok(Some(at));
        }
    }
}

/// What stands between the rows. Segments of several aggregates reach over each other; each is opened when its first
/// event could be the next.
struct Between {
    after: i64,
    /// Those not opened yet, the first one last.
    waiting: Vec<Place>,
    opened: Vec<Opened>,
    /// The position of the next event of each, and its index.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    /// Positions and keys of aggregates, the first one last.
    tombstones: Vec<(i64, i64)>,
}

struct Opened {
    segment: Arc<Segment>,
    aggregate: i64,
    /// Index of its next event.
    at: usize,
}

impl Between {
    fn new(connection: &Connection, after: i64, mut tombstones: Vec<(i64, i64)>) -> Result<Self> {
        let mut statement = connection.cached(
            "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment WHERE position > ?1",
        )?;
        let mut rows = statement.query([after])?;
        let mut waiting = Vec::new();
        while let Some(row) = rows.next()? {
            waiting.push(history::place(row)?);
        }
        waiting.sort_unstable_by_key(|place| Reverse(place.first));
        tombstones.reverse();
        Ok(Between { after, waiting, opened: Vec::new(), next: BinaryHeap::new(), tombstones })
    }

    /// The next position that is not a row's.
    fn next(&mut self, connection: &Connection, known: &mut Known) -> Result<Option<i64>> {
        loop {
            let packed = self.next.peek().map(|Reverse((position, _))| *position);
            let tombstone = self.tombstones.last().map(|(position, _)| *position);
            let next = packed.into_iter().chain(tombstone).min();
            let Some(place) = self.waiting.pop_if(|place| next.is_none_or(|next| place.first < next)) else {
                return Ok(next);
            };
            let segment = known.segment(connection, &place)?;
            let at = segment.positions().partition_point(|position| *position <= self.after);
            self.next.push(Reverse((segment.positions()[at], self.opened.len())));
            self.opened.push(Opened { segment, aggregate: place.aggregate, at });
        }
    }

    /// Hands over what stands at the position that [`Between::next`] told, and goes past it. Answers its bytes.
    fn visit(&mut self, connection: &Connection, known: &mut Known, visit: &mut Visit<'_>) -> Result<usize> {
        let packed = self.next.peek().map_or(i64::MAX, |Reverse((position, _))| *position);
        if let Some((at, key)) = self.tombstones.pop_if(|(at, _)| *at < packed) {
            let json = tombstone_event(connection, key)?.unwrap_or_default();
            visit_tombstone(&json, at, visit)?;
            return Ok(json.len());
        }
        let Some(Reverse((_, index))) = self.next.pop() else { return Ok(0) };
        let Opened { segment, aggregate, at } = &mut self.opened[index];
        let aggregate_id = known.of_aggregate(connection, *aggregate)?;
        let bytes = history::visit_entry(connection, known, &segment.get(*at), &aggregate_id, visit)?;
        *at += 1;
        if let Some(position) = segment.positions().get(*at) {
            self.next.push(Reverse((*position, index)));
        }
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
            moved.through = reached;
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

/// Hands over the deletion event that a tombstone keeps.
pub fn visit_tombstone(json: &str, position: i64, visit: &mut Visit<'_>) -> Result<()> {
    let items = input::read_text(json, usize::MAX)
        .map_err(|error| Error::Corrupt(format!("The deletion event of a removed aggregate is unreadable: {error}")))?;
    match items.first() {
        Some(Item::Event(event)) => visit(&event.as_stored(json, position)),
        _ => Ok(()),
    }
}
