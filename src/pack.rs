//! Packing: the oldest rows of an aggregate become a segment. What a slice needs is read and compressed without any lock;
//! under the lock rows go and the segment comes, in one transaction, if nothing has touched them meanwhile. Rows are never
//! changed and never come back, so that their number tells.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use rustc_hash::FxHashMap;

use crate::compact::{self, Rules, Survey};
use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::history;
use crate::known::{self, Known};
use crate::limits::{
    MAX_ID_BYTES, MAX_SAFE_INTEGER, MAX_SEQ, PACK_LEAST_BYTES, PACK_LEAST_EVENTS, ROW_BYTES, SEGMENT_BYTES,
    SEGMENT_EVENTS,
};
use crate::segment::{self, Effort, Entry, Owned, Packed, Place, Segment};
use crate::tables;

/// Pages that the rows of a slice stand on, at most, as far as their positions tell: some 5 µs of the lock each. Beside a
/// working program a slice is a pause of less than half a millisecond, and what is packed is put together with the next
/// slices' rows until the segment is full; `maintain` does more at once, and compresses less often.
const MOST_PAGES: f64 = 96.0;
const MOST_PAGES_WHEN_ASKED: f64 = 256.0;

/// Rows of such a short slice, at most: about a microsecond of the lock each.
const MOST_ROWS: usize = 256;

/// Bytes of a page, where it does not matter whether a file has others.
const PAGE_ESTIMATE: f64 = 4096.0;

/// How much is written of an aggregate between two looks at it: a part of what is worth a segment, so that what has grown to
/// that is found soon.
const LOOK_EVENTS: usize = PACK_LEAST_EVENTS / 4;
const LOOK_BYTES: usize = PACK_LEAST_BYTES / 4;

/// Rows that are counted in one reading.
const TALLIED_ROWS: usize = 10_000;

/// Aggregates whose counts are kept, at most.
const TALLIED_AGGREGATES: usize = 100_000;

/// How many of an aggregate's newest events stay rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// At most so many.
    pub events: usize,
    /// With at most so many bytes of data and metadata.
    pub bytes: usize,
}

/// What to pack, and how hard to press.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What stays rows of an aggregate that is being written.
    pub keep: Keep,
    /// Aggregates whose newest row stands at or before this position are idle: nothing of them stays rows.
    pub idle_through: i64,
    /// How hard to compress.
    pub effort: Effort,
}

/// What a slice did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Events that went from rows into segments, or were written anew.
    pub events: u64,
    /// Bytes of their data and metadata.
    pub bytes: u64,
    /// Events that later ones had superseded.
    pub dropped: u64,
}

/// The next aggregate, by key, that has rows.
pub fn next_aggregate(connection: &Connection, after: i64) -> Result<Option<i64>> {
    let mut statement =
        connection.cached("SELECT aggregate FROM event WHERE aggregate > ?1 ORDER BY aggregate, seq LIMIT 1")?;
    let next: Option<i64> = statement.query_row([after], |row| row.get(0)).optional()?;
    next.map(|next| rising("event", &after, next)).transpose()
}

/// How much has been written of each aggregate since it was looked at last, as far as the log has been read.
#[derive(Default)]
pub struct Tally {
    through: i64,
    written: FxHashMap<i64, (usize, usize)>,
}

impl Tally {
    /// Counts what is committed after a position.
    pub fn after(position: i64) -> Self {
        Tally { through: position, ..Tally::default() }
    }

    /// Reads what has been committed since the last time, a bounded number of rows. Answers the aggregates, by key in
    /// falling order, of which enough has been written to look at them, and whether there is more to read.
    pub fn read(&mut self, connection: &Connection) -> Result<(Vec<i64>, bool)> {
        let mut statement = connection.cached(
            "SELECT position, aggregate, octet_length(data) + coalesce(octet_length(metadata), 0) FROM event
             WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let mut rows = statement.query((self.through, TALLIED_ROWS as i64))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            self.through = rising("event", &self.through, row.get(0)?)?;
            let (events, bytes) = self.written.entry(row.get(1)?).or_default();
            (*events, *bytes) = (*events + 1, *bytes + row.get::<_, i64>(2)?.unsigned_abs() as usize);
        }
        let mut enough = Vec::new();
        self.written.retain(|key, (events, bytes)| {
            let is_enough = *events >= LOOK_EVENTS || *bytes >= LOOK_BYTES;
            if is_enough {
                enough.push(*key);
            }
            !is_enough
        });
        if self.written.len() > TALLIED_AGGREGATES {
            // Idleness, or `maintain`, packs what is forgotten here.
            self.written.clear();
        }
        enough.sort_unstable_by(|one, other| other.cmp(one));
        Ok((enough, count == TALLIED_ROWS))
    }
}

/// Bytes that count for the bound of a segment.
pub fn weight(entry: &Entry<'_>) -> usize {
    entry.data.len() + entry.metadata.map_or(0, str::len)
}

/// Rows that are to be packed, and the segment that they extend.
pub struct Load {
    aggregate: i64,
    rows: Vec<Owned>,
    tail: Option<(Place, Arc<Segment>)>,
    /// Through which seq the aggregate is projected; `None`: all of it.
    projected: Option<i64>,
    effort: Effort,
}

/// Reads the oldest rows of an aggregate that may go and fill a segment. `None`: there are none, or too few for it to be
/// worth it. Whoever calls holds one snapshot: somebody else may pack the same rows, into another segment than the newest
/// that is seen here.
pub fn load(connection: &Connection, known: &mut Known, aggregate: i64, plan: &Plan) -> Result<Option<Load>> {
    let Some((kept_from, idle)) = kept_from(connection, aggregate, plan)? else { return Ok(None) };
    let tail = tail(connection, known, aggregate)?;
    let through = tail.as_ref().map_or(-1, |(place, _)| place.seq);
    let (held_events, held_bytes) = tail.as_ref().map_or((0, 0), |(_, segment)| (segment.len(), segment.bytes()));
    // A segment that is more than half full would be written anew for ever less.
    let half = held_events <= SEGMENT_EVENTS / 2 && held_bytes <= SEGMENT_BYTES / 2;
    let mut tail = tail.filter(|_| half || plan.effort == Effort::Thorough);
    let (mut events, mut bytes) = if tail.is_some() { (held_events, held_bytes) } else { (0, 0) };

    let mut statement = connection.cached(
        "SELECT seq, id, type, created, metadata, data, position FROM event
         WHERE aggregate = ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query((aggregate, kept_from, SEGMENT_EVENTS as i64))?;
    let mut loaded: Vec<Owned> = Vec::new();
    let (mut weighed, mut pages, mut cut) = (0, 0.0, false);
    let (most_rows, most_pages) = match plan.effort {
        Effort::Quick => (MOST_ROWS, MOST_PAGES),
        Effort::Thorough => (SEGMENT_EVENTS, MOST_PAGES_WHEN_ASKED),
    };
    while let Some(row) = rows.next()? {
        let entry = history::entry(row)?;
        if entry.seq <= through {
            let seq = entry.seq;
            return Err(
                Error::Corrupt(format!("Seq {seq} of aggregate {aggregate} is a row behind packed events")).into()
            );
        }
        if !segment::fits(events, bytes, weight(&entry)) {
            cut = !loaded.is_empty();
            if cut {
                break;
            }
            // Not even one more fits to what is there.
            (tail, events, bytes) = (None, 0, 0);
        }
        // Each page that a row is deleted from is written anew while the lock is held.
        pages += loaded.last().map_or(1.0, |before| pages_between(before.position, &entry));
        cut = loaded.len() >= most_rows || pages > most_pages;
        if cut {
            break;
        }
        (events, bytes, weighed) = (events + 1, bytes + weight(&entry), weighed + weight(&entry));
        loaded.push(Owned::of(&entry));
    }
    let worth_it = idle || cut || loaded.len() >= PACK_LEAST_EVENTS || weighed >= PACK_LEAST_BYTES;
    if loaded.is_empty() || !worth_it {
        return Ok(None);
    }
    let projected = tables::projected(connection, aggregate)?;
    Ok(Some(Load { aggregate, rows: loaded, tail, projected, effort: plan.effort }))
}

/// How many more pages a row reaches to than the one before: none where it stands beside it, one where enough others stand
/// between them to fill one.
fn pages_between(before: i64, entry: &Entry<'_>) -> f64 {
    let distance = (entry.position - before) as f64;
    (distance * (weight(entry) as f64 + ROW_BYTES as f64) / PAGE_ESTIMATE).min(1.0)
}

/// The seq from which on an aggregate's events stay rows, and whether it is idle; `None` where it has no other rows.
fn kept_from(connection: &Connection, aggregate: i64, plan: &Plan) -> Result<Option<(i64, bool)>> {
    let mut statement = connection.cached(
        "SELECT seq, position, octet_length(data) + coalesce(octet_length(metadata), 0) FROM event
         WHERE aggregate = ?1 ORDER BY seq DESC LIMIT ?2",
    )?;
    let mut rows = statement.query((aggregate, plan.keep.events.saturating_add(1) as i64))?;
    let (mut kept_from, mut events, mut bytes) = (i64::MAX, 0, 0);
    while let Some(row) = rows.next()? {
        let (seq, position, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if events == 0 && position <= plan.idle_through {
            return Ok(Some((i64::MAX, true)));
        }
        (events, bytes) = (events + 1, bytes + size.unsigned_abs() as usize);
        if events > plan.keep.events || bytes > plan.keep.bytes {
            return Ok(Some((kept_from, false)));
        }
        kept_from = seq;
    }
    Ok(None)
}

/// The newest segment of an aggregate.
fn tail(connection: &Connection, known: &mut Known, aggregate: i64) -> Result<Option<(Place, Arc<Segment>)>> {
    let mut statement = connection.cached(
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE aggregate = ?1 ORDER BY seq DESC LIMIT 1",
    )?;
    let mut rows = statement.query([aggregate])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let place = known::place(row)?;
    let segment = known.segment(connection, &place)?;
    Ok(Some((place, segment)))
}

/// Events as they are to stand in a segment, compressed, with what they replace.
pub struct Ready {
    aggregate: i64,
    /// The new segments, in order; none where every event is superseded.
    segments: Vec<(Place, Packed)>,
    effort: Effort,
    /// Segments that it replaces.
    replaced: Vec<Place>,
    /// Seqs of the first and the last row that it replaces, and their number.
    rows: Option<(i64, i64, usize)>,
    /// What is superseded among them: `after < seq <= through`.
    gaps: Vec<(i64, i64)>,
    moved: Moved,
}

/// Compacts and compresses what was loaded. Takes no lock, and most of the time that packing takes.
pub fn prepare(connection: &Connection, known: &mut Known, load: &Load, rules: &Rules) -> Result<Ready> {
    let packed = load.tail.iter().flat_map(|(_, segment)| segment.entries());
    let entries: Vec<Entry<'_>> = packed.chain(load.rows.iter().map(Owned::entry)).collect();
    let mut survey = Survey::default();
    if rules.fingerprint() != 0 {
        // Nothing that is still to be projected supersedes or is superseded: what of it ends a key's life is not known yet.
        for entry in entries.iter().filter(|entry| load.projected.is_none_or(|projected| entry.seq <= projected)) {
            survey.see(rules, &known.of_type(connection, entry.type_key)?, entry.seq, entry.data);
        }
    }
    let dropped = survey.superseded();
    let replaced: Vec<Place> = load.tail.iter().map(|(place, _)| *place).collect();
    let rows = (load.rows[0].seq, load.rows[load.rows.len() - 1].seq, load.rows.len());
    ready(load.aggregate, &entries, &dropped, replaced, Some(rows), load.effort)
}

/// The first event that would not come back out of a segment as it goes in: out of order, or with what no event has.
fn unpackable(entries: &[Entry<'_>]) -> Option<i64> {
    let mut before = (-1, 0);
    for entry in entries {
        let created = entry.created.unwrap_or(0).unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs();
        let rises = entry.seq > before.0 && entry.position > before.1;
        if !rises || !created || entry.seq > MAX_SEQ || entry.type_key < 0 || entry.id.len() > MAX_ID_BYTES {
            return Some(entry.seq);
        }
        before = (entry.seq, entry.position);
    }
    None
}

/// Compresses `entries`, into as many segments as they take, without those whose seqs are in `dropped`, which is sorted.
pub fn ready(
    aggregate: i64,
    entries: &[Entry<'_>],
    dropped: &[i64],
    replaced: Vec<Place>,
    rows: Option<(i64, i64, usize)>,
    effort: Effort,
) -> Result<Ready> {
    let kept: Vec<Entry<'_>> =
        entries.iter().filter(|entry| dropped.binary_search(&entry.seq).is_err()).copied().collect();
    if let Some(seq) = unpackable(&kept) {
        return Err(Error::Corrupt(format!("Seq {seq} of aggregate {aggregate} is not what syncline writes")).into());
    }
    let generation = replaced.iter().map(|place| place.generation.saturating_add(1)).max().unwrap_or(0);
    let mut segments = Vec::new();
    let mut rest = kept.as_slice();
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0, 0);
        while count < rest.len() && segment::fits(count, bytes, weight(&rest[count])) {
            (count, bytes) = (count + 1, bytes + weight(&rest[count]));
        }
        let (full, left) = rest.split_at(count);
        let packed = segment::encode(aggregate, full, effort).map_err(|error| Error::Pack(error.to_string()))?;
        segments.push((Place::of(aggregate, full, generation), packed));
        rest = left;
    }
    let moved = Moved {
        events: kept.len() as u64,
        bytes: kept.iter().map(|entry| weight(entry) as u64).sum(),
        dropped: (entries.len() - kept.len()) as u64,
    };
    let gaps = compact::ranges(entries.iter().map(|entry| entry.seq).filter(|seq| dropped.binary_search(seq).is_ok()));
    Ok(Ready { aggregate, segments, effort, replaced, rows, gaps, moved })
}

impl Ready {
    /// Where the last of the new segments is to stand, if there are any.
    pub fn last(&self) -> Option<Place> {
        self.segments.last().map(|(place, _)| *place)
    }

    /// Whether it took more than one segment.
    pub fn is_split(&self) -> bool {
        self.segments.len() > 1
    }
}

/// Puts a segment in the place of what it replaces, inside the open transaction. `None`: somebody has touched that
/// meanwhile, and the transaction is to be rolled back.
pub fn store(connection: &Connection, ready: &Ready) -> Result<Option<Moved>> {
    let aggregate = ready.aggregate;
    for place in &ready.replaced {
        if !tables::delete_segment(connection, place)? {
            return Ok(None);
        }
    }
    if let Some((first, last, count)) = ready.rows {
        let deleted = connection
            .cached("DELETE FROM event WHERE aggregate = ?1 AND seq >= ?2 AND seq <= ?3")?
            .execute((aggregate, first, last))?;
        if deleted != count {
            return Ok(None);
        }
        // It may have been the newest row of all. The newest event of each key is kept, so that there is a segment.
        if let Some(place) = ready.last() {
            tables::raise_position_floor(connection, place.position)?;
        }
    }
    for (after, through) in &ready.gaps {
        tables::open_gap(connection, aggregate, *after, *through)?;
    }
    for (place, packed) in &ready.segments {
        tables::store_segment(connection, place, packed, ready.effort)?;
    }
    Ok(Some(ready.moved))
}
