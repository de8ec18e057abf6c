//! The events of one aggregate, wherever they are: rows, or packed in segments, which are older than all its rows.
//! Whoever reads here sees no difference.

use rusqlite::Row;

use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::event::StoredEvent;
use crate::known::{self, Known};
use crate::limits::{MAX_PAGE_ROWS, MAX_SEQ, PAGE_BYTES, WIDE_PAGE_BYTES};
use crate::segment::{Entry, Place};

/// Receives each event of a page.
pub type Visit<'v> = dyn FnMut(&StoredEvent<'_>) -> Result<()> + 'v;

/// Which events of an aggregate to read: `after < seq < before`.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Exclusive; −1 from the start.
    pub after: i64,
    /// Exclusive; `None` to the end.
    pub before: Option<i64>,
    /// Events at most.
    pub limit: usize,
    /// Newest first.
    pub descending: bool,
}

/// Counts what a page holds.
pub struct Page {
    /// Events that still fit.
    pub left: usize,
    bytes: usize,
    most_bytes: usize,
}

impl Page {
    /// For `limit` events at most.
    pub fn new(limit: usize) -> Self {
        Page { left: limit.min(MAX_PAGE_ROWS), bytes: 0, most_bytes: PAGE_BYTES }
    }

    /// For a reader that goes through everything and pays for each page with every segment that reaches into it.
    pub fn wide(limit: usize) -> Self {
        Page { left: limit, bytes: 0, most_bytes: WIDE_PAGE_BYTES }
    }

    /// Nothing more fits.
    pub fn is_full(&self) -> bool {
        self.left == 0 || self.bytes >= self.most_bytes
    }

    /// One more event, with so many bytes of data.
    pub fn count(&mut self, bytes: usize) {
        (self.left, self.bytes) = (self.left - 1, self.bytes + bytes);
    }
}

/// Reads a page of one aggregate's events.
pub fn by_seq(
    connection: &Connection,
    known: &mut Known,
    (aggregate_id, key): (&str, i64),
    range: Range,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut page = Page::new(range.limit);
    if range.descending {
        rows_by_seq(connection, known, (aggregate_id, key), range, &mut page, visit)?;
    }
    if !page.is_full() {
        packed_by_seq(connection, known, (aggregate_id, key), range, &mut page, visit)?;
    }
    if !range.descending && !page.is_full() {
        rows_by_seq(connection, known, (aggregate_id, key), range, &mut page, visit)?;
    }
    Ok(())
}

fn rows_by_seq(
    connection: &Connection,
    known: &mut Known,
    (aggregate_id, key): (&str, i64),
    range: Range,
    page: &mut Page,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut statement = connection.cached(if range.descending {
        "SELECT seq, id, type, created, metadata, data, position FROM event
         WHERE aggregate = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4"
    } else {
        "SELECT seq, id, type, created, metadata, data, position FROM event
         WHERE aggregate = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT ?4"
    })?;
    let mut rows = statement.query((key, range.after, before(&range), page.left as i64))?;
    let mut last = if range.descending { -before(&range) } else { range.after };
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        last = rising("event", &last, if range.descending { -seq } else { seq })?;
        page.count(visit_row(connection, known, row, aggregate_id, visit)?);
        if page.is_full() {
            break;
        }
    }
    Ok(())
}

fn packed_by_seq(
    connection: &Connection,
    known: &mut Known,
    (aggregate_id, key): (&str, i64),
    range: Range,
    page: &mut Page,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let before = before(&range);
    let mut statement = connection.cached(if range.descending {
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE aggregate = ?1 AND seq > ?2 AND first_seq < ?3 ORDER BY seq DESC"
    } else {
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE aggregate = ?1 AND seq > ?2 AND first_seq < ?3 ORDER BY seq"
    })?;
    let mut rows = statement.query((key, range.after, before))?;
    while let Some(row) = rows.next()? {
        let segment = known.segment(connection, &known::place(row)?)?;
        let start = segment.seqs().partition_point(|seq| *seq <= range.after);
        let end = segment.seqs().partition_point(|seq| *seq < before);
        for step in 0..end.saturating_sub(start) {
            let entry = segment.get(if range.descending { end - 1 - step } else { start + step });
            page.count(visit_entry(connection, known, &entry, aggregate_id, visit)?);
            if page.is_full() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn before(range: &Range) -> i64 {
    range.before.unwrap_or(MAX_SEQ + 1)
}

/// Hands over the event at a seq. `false`: there is none.
pub fn find(
    connection: &Connection,
    known: &mut Known,
    (aggregate_id, key): (&str, i64),
    seq: i64,
    visit: &mut Visit<'_>,
) -> Result<bool> {
    let mut found = false;
    let range = Range { after: seq - 1, before: Some(seq + 1), limit: 1, descending: true };
    by_seq(connection, known, (aggregate_id, key), range, &mut |event| {
        found = true;
        visit(event)
    })?;
    Ok(found)
}

/// The segments of an aggregate, in order.
pub fn segments(connection: &Connection, key: i64) -> Result<Vec<Place>> {
    let mut statement = connection.cached(
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE aggregate = ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([key])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        places.push(known::place(row)?);
    }
    Ok(places)
}

/// Hands over one row, `seq, id, type, created, metadata, data, position`, and says how many bytes of data it had.
pub fn visit_row(
    connection: &Connection,
    known: &mut Known,
    row: &Row<'_>,
    aggregate_id: &str,
    visit: &mut Visit<'_>,
) -> Result<usize> {
    visit_entry(connection, known, &entry(row)?, aggregate_id, visit)
}

/// An event out of a row `seq, id, type, created, metadata, data, position`.
pub fn entry<'r>(row: &'r Row<'_>) -> Result<Entry<'r>> {
    Ok(Entry {
        seq: row.get(0)?,
        id: row.get_ref(1)?.as_str().map_err(unreadable)?,
        type_key: row.get(2)?,
        created: row.get(3)?,
        metadata: row.get_ref(4)?.as_str_or_null().map_err(unreadable)?,
        data: row.get_ref(5)?.as_str().map_err(unreadable)?,
        position: row.get(6)?,
    })
}

/// Hands over one event and says how many bytes of data it had.
pub fn visit_entry(
    connection: &Connection,
    known: &mut Known,
    entry: &Entry<'_>,
    aggregate_id: &str,
    visit: &mut Visit<'_>,
) -> Result<usize> {
    visit(&StoredEvent {
        id: entry.id,
        type_name: &known.of_type(connection, entry.type_key)?,
        seq: entry.seq,
        aggregate_id,
        created: entry.created,
        metadata: entry.metadata,
        data: entry.data,
        position: entry.position,
    })?;
    Ok(entry.data.len())
}

fn unreadable(error: rusqlite::types::FromSqlError) -> Error {
    Error::Corrupt(format!("An event row holds what syncline never writes: {error}"))
}
