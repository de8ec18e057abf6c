//! What a file holds and what that costs, without reading a payload: segments tell through their summaries, rows through
//! the lengths in their headers. Many rows are sampled; how many there are is known without reading any, since seqs are
//! contiguous but for gaps. The cost grows with the number of aggregates and segments, not with that of events.

use rusqlite::{OptionalExtension, Row};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::limits::{ROW_BYTES, STATS_EXACT_ROWS, STATS_SAMPLED_ROWS};
use crate::segment;
use crate::tables;

/// Reads of `event` and `event_segment`. `length` and `octet_length` read the header of a row, not the value.
const SEGMENTS: &str =
    "SELECT aggregate, seq, length(summary) + length(head), length(body), summary FROM event_segment";
const EVERY_ROW: &str = "SELECT aggregate, seq, type, octet_length(data), octet_length(metadata) FROM event";
const PLACE: &str = "SELECT position FROM event WHERE aggregate = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1";
const ROWS_FROM: &str = "SELECT aggregate, seq, type, octet_length(data), octet_length(metadata) FROM event
                         WHERE position >= ?1 ORDER BY position LIMIT ?2";

/// Rows of the sample that stand side by side: they share a page, and reading pages is what the sample costs.
const ROWS_A_PLACE: i64 = 8;

/// An aggregate's own rows count as if so many average ones of the whole log had been seen beside them.
const PRIOR_ROWS: f64 = 8.0;

/// The files of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// Bytes of it that are in use.
    pub wal_used_bytes: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages of the database.
    pub pages: u64,
    /// Those that hold nothing.
    pub free_pages: u64,
    /// Free pages can be given back to the file system.
    pub reclaims: bool,
}

/// Events and their bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// How many.
    pub events: u64,
    /// Bytes of their data.
    pub raw_bytes: u64,
    /// Bytes that they take in the file, about.
    pub stored_bytes: u64,
    /// The part of `raw_bytes` that is in segments.
    pub packed_share: f64,
}

/// The share of a type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfType {
    /// `type.version`
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its events.
    #[serde(flatten)]
    pub share: Share,
}

/// The share of an aggregate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfAggregate {
    /// Its id.
    #[serde(rename = "aggregateID")]
    pub aggregate_id: String,
    /// Its events.
    #[serde(flatten)]
    pub share: Share,
}

/// One large event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Large {
    /// Its aggregate.
    #[serde(rename = "aggregateID")]
    pub aggregate_id: String,
    /// Its seq.
    pub seq: i64,
    /// `type.version`
    #[serde(rename = "type")]
    pub type_name: String,
    /// Bytes of its data.
    pub bytes: u64,
}

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The last position that was used.
    pub last_position: i64,
    /// Known aggregates, removed ones included.
    pub aggregate_count: u64,
    /// Bytes of rows, their types and the largest of them are estimates.
    pub sampled: bool,
    /// All events.
    #[serde(flatten)]
    pub total: Share,
    /// Of every type that has events, the one with the most bytes first.
    pub types: Vec<OfType>,
    /// Of aggregates, likewise.
    pub aggregates: Vec<OfAggregate>,
    /// The largest events first.
    pub largest: Vec<Large>,
}

/// Looks at the files. Outside a transaction, it tells of the WAL as all connections have left it.
pub fn files(connection: &Connection) -> Result<Files> {
    let pragma = |name| -> Result<u64> {
        Ok(connection.cached(&format!("PRAGMA main.{name}"))?.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    let (page_size, pages) = (connection.page_size(), pragma("page_count")?);
    // Only their lengths: to open and close one of these files would drop the locks that this process has on it.
    let length = |path: std::path::PathBuf| path.metadata().map_or(0, |file| file.len());
    let file = connection.sqlite().path().filter(|path| !path.is_empty()).map(|path| length(path.into()));
    // Within a transaction SQLite does not tell.
    let used = connection.checkpoint("NOOP").map_or_else(|_| connection.wal_bytes(), |(_, used)| used);
    let wal_bytes = connection.wal_path().map_or(0, length);
    Ok(Files {
        file_bytes: file.unwrap_or(page_size * pages),
        wal_bytes,
        wal_used_bytes: used.min(wal_bytes),
        page_size,
        pages,
        free_pages: pragma("freelist_count")?,
        reclaims: pragma("auto_vacuum")? == 2,
    })
}

/// Adds up what the log holds; with at most so many of the largest events, and aggregates. Inside one snapshot.
pub fn log(connection: &Connection, known: &mut Known, largest: usize, aggregates: usize) -> Result<Log> {
    let mut count = Count { most: largest, ..Count::default() };
    count.sequences(connection)?;
    let aggregate_count = count.spans.len() as u64;
    count.segments(connection)?;
    count.gaps(connection)?;
    let rows: i64 = count.spans.iter().map(|span| span.rows()).sum();
    let sampled = rows > STATS_EXACT_ROWS;
    if sampled {
        count.sample(connection, rows)?
    } else {
        count.every_row(connection)?
    }

    let mut total = Sum::default();
    count.types.values().for_each(|sum| total.add(sum));
    let mut types = Vec::new();
    for (key, sum) in first(count.types, usize::MAX) {
        types.push(OfType { type_name: known.of_type(connection, key)?.to_string(), share: sum.share() });
    }
    let mut listed = Vec::new();
    for (key, sum) in first(count.aggregates, aggregates) {
        listed.push(OfAggregate { aggregate_id: known.of_aggregate(connection, key)?.to_string(), share: sum.share() });
    }
    let mut larges = Vec::new();
    count.largest.sort_unstable_by(|a, b| b.cmp(a));
    count.largest.dedup();
    for (bytes, aggregate, seq, type_key) in count.largest.into_iter().take(largest) {
        let aggregate_id = known.of_aggregate(connection, aggregate)?.to_string();
        larges.push(Large { aggregate_id, seq, type_name: known.of_type(connection, type_key)?.to_string(), bytes });
    }
    Ok(Log {
        last_position: tables::last_position(connection)?,
        aggregate_count,
        sampled,
        total: total.share(),
        types,
        aggregates: listed,
        largest: larges,
    })
}

/// Those with the most bytes.
fn first(sums: FxHashMap<i64, Sum>, most: usize) -> Vec<(i64, Sum)> {
    let mut list: Vec<(i64, Sum)> = sums.into_iter().filter(|(_, sum)| sum.events >= 0.5).collect();
    list.sort_unstable_by(|(a, left), (b, right)| right.raw.total_cmp(&left.raw).then(a.cmp(b)));
    list.truncate(most);
    list
}

/// Seqs of an aggregate at which rows may stand: `after < seq <= through`, but for gaps.
struct Span {
    aggregate: i64,
    after: i64,
    through: i64,
    gaps: i64,
}

impl Span {
    fn rows(&self) -> i64 {
        (self.through - self.after - self.gaps).max(0)
    }
}

/// A sum of exact numbers or of estimates; far below 2^53, a float adds both.
#[derive(Debug, Clone, Default)]
struct Sum {
    events: f64,
    raw: f64,
    stored: f64,
    packed: f64,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        self.events += other.events;
        self.raw += other.raw;
        self.stored += other.stored;
        self.packed += other.packed;
    }

    fn times(&self, factor: f64) -> Sum {
        Sum {
            events: self.events * factor,
            raw: self.raw * factor,
            stored: self.stored * factor,
            packed: self.packed * factor,
        }
    }

    fn share(&self) -> Share {
        let whole = |value: f64| value.round() as u64;
        Share {
            events: whole(self.events),
            raw_bytes: whole(self.raw),
            stored_bytes: whole(self.stored),
            packed_share: if self.raw > 0.0 { (self.packed / self.raw).min(1.0) } else { 0.0 },
        }
    }
}

/// An event row, but for its payload.
struct Seen {
    aggregate: i64,
    seq: i64,
    type_key: i64,
    bytes: u64,
    sum: Sum,
}

impl Seen {
    fn of(row: &Row<'_>) -> Result<Self> {
        let bytes: i64 = row.get(3)?;
        let beside = row.get::<_, Option<i64>>(4)?.unwrap_or(0) as f64 + ROW_BYTES as f64;
        let sum = Sum { events: 1.0, raw: bytes as f64, stored: bytes as f64 + beside, packed: 0.0 };
        let bytes = bytes.unsigned_abs();
        Ok(Seen { aggregate: row.get(0)?, seq: row.get(1)?, type_key: row.get(2)?, bytes, sum })
    }
}

#[derive(Default)]
struct Count {
    /// In the order of keys.
    spans: Vec<Span>,
    types: FxHashMap<i64, Sum>,
    aggregates: FxHashMap<i64, Sum>,
    /// Bytes, aggregate, seq, type.
    largest: Vec<(u64, i64, i64, i64)>,
    most: usize,
}

impl Count {
    fn sequences(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.cached("SELECT key, removed_seq, seq FROM event_sequence ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let after = row.get::<_, Option<i64>>(1)?.unwrap_or(-1);
            self.spans.push(Span { aggregate: row.get(0)?, after, through: row.get(2)?, gaps: 0 });
        }
        Ok(())
    }

    fn span(&mut self, aggregate: i64) -> Option<&mut Span> {
        let at = self.spans.binary_search_by_key(&aggregate, |span| span.aggregate).ok()?;
        self.spans.get_mut(at)
    }

    fn segments(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.cached(SEGMENTS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (aggregate, seq): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (head, body): (f64, f64) = (row.get::<_, i64>(2)? as f64, row.get::<_, i64>(3)? as f64);
            let unreadable = |reason: &str| {
                Error::Corrupt(format!("The summary of the segment of aggregate {aggregate} at seq {seq}: {reason}"))
            };
            let summary = row.get_ref(4)?.as_blob().map_err(|_| unreadable("it is no blob"))?;
            let shares = segment::shares(summary).map_err(unreadable)?;
            let events = shares.iter().map(|share| share.count).sum::<u64>().max(1) as f64;
            let bytes = shares.iter().map(|share| share.bytes).sum::<u64>().max(1) as f64;
            for share in shares {
                let (count, raw) = (share.count as f64, share.bytes as f64);
                // Types are packed together: each has cost what its part of the events and of the bytes has.
                let stored = head * count / events + body * raw / bytes;
                self.add(aggregate, share.type_key, &Sum { events: count, raw, stored, packed: raw });
                self.offer((share.largest, aggregate, share.largest_seq, share.type_key));
            }
            if let Some(span) = self.span(aggregate) {
                span.after = span.after.max(seq);
            }
        }
        Ok(())
    }

    fn gaps(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.cached("SELECT aggregate, after, through FROM event_gap")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (after, through): (i64, i64) = (row.get(1)?, row.get(2)?);
            if let Some(span) = self.span(row.get(0)?) {
                span.gaps += (through.min(span.through) - after.max(span.after)).max(0);
            }
        }
        Ok(())
    }

    fn every_row(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.cached(EVERY_ROW)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let seen = Seen::of(row)?;
            self.add(seen.aggregate, seen.type_key, &seen.sum);
            self.offer((seen.bytes, seen.aggregate, seen.seq, seen.type_key));
        }
        Ok(())
    }

    /// Looks at some rows in each of so many equal parts of all rows, in the order of aggregates and seqs: every row is as
    /// likely to be seen as any other. Which ones is chance, since what is written has its rhythms, and yet always the same.
    fn sample(&mut self, connection: &Connection, rows: i64) -> Result<()> {
        let (mut place, mut statement) = (connection.cached(PLACE)?, connection.cached(ROWS_FROM)?);
        let spans: Vec<(i64, i64, i64, i64)> = self
            .spans
            .iter()
            .filter(|span| span.rows() > 0)
            .map(|span| (span.aggregate, span.after, span.through, span.rows()))
            .collect();
        let mut seen: FxHashMap<i64, Sum> = FxHashMap::default();
        let mut types: FxHashMap<i64, Sum> = FxHashMap::default();
        let mut all = Sum::default();
        let (mut at, mut before) = (0, 0);
        let places = STATS_SAMPLED_ROWS / ROWS_A_PLACE;
        let part = rows as f64 / places as f64;
        for index in 0..places {
            let target = ((index as f64 + chance(index)) * part) as i64;
            while at + 1 < spans.len() && target >= before + spans[at].3 {
                before += spans[at].3;
                at += 1;
            }
            let (aggregate, after, through, count) = spans[at];
            let seq = after + 1 + (target - before).clamp(0, count - 1) * (through - after) / count;
            let found = place.query_row((aggregate, seq), |row| row.get::<_, i64>(0)).optional()?;
            let Some(position) = found else { continue };
            let mut found = statement.query((position, ROWS_A_PLACE))?;
            while let Some(row) = found.next()? {
                let row = Seen::of(row)?;
                seen.entry(row.aggregate).or_default().add(&row.sum);
                types.entry(row.type_key).or_default().add(&row.sum);
                all.add(&row.sum);
                self.offer((row.bytes, row.aggregate, row.seq, row.type_key));
            }
        }
        if all.events == 0.0 {
            return Ok(());
        }
        for (key, sum) in types {
            self.types.entry(key).or_default().add(&sum.times(rows as f64 / all.events));
        }
        let prior = all.times(PRIOR_ROWS / all.events);
        for (aggregate, _, _, count) in spans {
            let mut sum = seen.remove(&aggregate).unwrap_or_default();
            sum.add(&prior);
            self.aggregates.entry(aggregate).or_default().add(&sum.times(count as f64 / sum.events));
        }
        Ok(())
    }

    fn add(&mut self, aggregate: i64, type_key: i64, sum: &Sum) {
        self.types.entry(type_key).or_default().add(sum);
        self.aggregates.entry(aggregate).or_default().add(sum);
    }

    /// Keeps the largest, and as many again until they are sorted.
    fn offer(&mut self, large: (u64, i64, i64, i64)) {
        self.largest.push(large);
        if self.largest.len() > 2 * self.most + 16 {
            self.largest.sort_unstable_by(|a, b| b.cmp(a));
            self.largest.dedup();
            self.largest.truncate(self.most);
        }
    }
}

/// A number from 0 up to 1 that looks like chance (splitmix64).
fn chance(index: i64) -> f64 {
    let mut bits = index.unsigned_abs().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
