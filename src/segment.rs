//! A segment: consecutive events of one aggregate, packed. Pure bytes, no SQL. `docs/storage.md` draws it.
//!
//! The head holds what is small and alike, column by column, so that zstd finds it alike: numbers as LEB128 deltas, ids
//! front-coded (Witten, Moffat, Bell, "Managing Gigabytes", 4.1). The body holds the payloads' text. Both are zstd frames
//! with zstd's own checksum; the head holds that of the body, so that neither is ever read beside another's. The summary is
//! not compressed: statistics need nothing else. It follows from the events, and is compared with them.

mod columns;
mod decode;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use self::columns::{Numbers, put, put_steps, shared_prefix, zigzag};
pub use self::decode::{Head, decode, decode_head};
use crate::limits::{MAX_SEQ, SEGMENT_BYTES, SEGMENT_EVENTS};

/// First byte of a head.
const VERSION: u64 = 1;

/// Bytes of the checksum at the end of a zstd frame.
const CHECKSUM_BYTES: usize = 4;

/// Bytes of one type in a summary, at least.
const LEAST_SHARE_BYTES: usize = 5;

/// log2 of zstd's window: a segment of the largest size is one window, so that every repetition in it is found.
const WINDOW_LOG: u32 = 23;

/// zstd's level while the program works: some 900 MB/s on sessions, 4 GB/s on repeated tool output.
const QUICK_LEVEL: i32 = 3;

/// The level of `maintain`: 320 MB/s, a tenth smaller.
const THOROUGH_LEVEL: i32 = 9;

/// The level for a segment that the quick one shrank to less than this part: few literals are left, so that even the
/// slowest search is quick (60 MB/s), and halves it again.
const REPETITIVE_LEVEL: i32 = 19;
const REPETITIVE_RATIO: usize = 32;

/// One event in or for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Place in the aggregate.
    pub seq: i64,
    /// Place in the order of commits.
    pub position: i64,
    /// Key of the type.
    pub type_key: i64,
    /// Unix milliseconds.
    pub created: Option<i64>,
    /// The event's id.
    pub id: &'a str,
    /// JSON object text.
    pub metadata: Option<&'a str>,
    /// JSON text.
    pub data: &'a str,
}

/// The same, which borrows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Place in the aggregate.
    pub seq: i64,
    /// Place in the order of commits.
    pub position: i64,
    type_key: i64,
    created: Option<i64>,
    id: Box<str>,
    metadata: Option<Box<str>>,
    data: Box<str>,
}

impl Owned {
    /// Copies an entry.
    pub fn of(entry: &Entry<'_>) -> Self {
        Owned {
            seq: entry.seq,
            position: entry.position,
            type_key: entry.type_key,
            created: entry.created,
            id: entry.id.into(),
            metadata: entry.metadata.map(Into::into),
            data: entry.data.into(),
        }
    }

    /// What it is.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            seq: self.seq,
            position: self.position,
            type_key: self.type_key,
            created: self.created,
            id: &self.id,
            metadata: self.metadata.as_deref(),
            data: &self.data,
        }
    }
}

/// How much work to put into compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Beside a working program.
    Quick,
    /// When asked to.
    Thorough,
}

/// What a segment holds of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Key of the type.
    pub type_key: i64,
    /// Events of it.
    pub count: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Bytes of the largest one's data.
    pub largest: u64,
    /// Its seq.
    pub largest_seq: i64,
}

/// A segment as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// See [`shares`].
    pub summary: Vec<u8>,
    /// Everything but payloads.
    pub head: Vec<u8>,
    /// Payloads.
    pub body: Vec<u8>,
}

/// Where a segment stands, as its row says; decoding compares it with what the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Key of the aggregate.
    pub aggregate: i64,
    /// Seq of its first event.
    pub first_seq: i64,
    /// Seq of its last event.
    pub seq: i64,
    /// Position of its first event.
    pub first: i64,
    /// Position of its last event.
    pub position: i64,
    /// How often a segment that ends here has been written anew.
    pub generation: i64,
}

impl Place {
    /// Where a segment of these events stands, which are at least one.
    pub fn of(aggregate: i64, entries: &[Entry<'_>], generation: i64) -> Self {
        let (first, last) = (entries[0], entries[entries.len() - 1]);
        let (first_seq, seq) = (first.seq, last.seq);
        Place { aggregate, first_seq, seq, first: first.position, position: last.position, generation }
    }
}

/// A decoded segment.
#[derive(Debug)]
pub struct Segment {
    seqs: Vec<i64>,
    positions: Vec<i64>,
    types: Vec<i64>,
    created: Vec<Option<i64>>,
    ids: String,
    id_ends: Vec<usize>,
    /// Data of all events, then metadata of all.
    text: String,
    data_ends: Vec<usize>,
    /// Where metadata begins and ends.
    metadata: Vec<Option<(usize, usize)>>,
}

/// Whether one more event of `bytes` (data and metadata) fits to `count` events of `held` bytes. One over the bound is
/// alone.
pub fn fits(count: usize, held: usize, bytes: usize) -> bool {
    count == 0 || (count < SEGMENT_EVENTS && held + bytes <= SEGMENT_BYTES)
}

/// Whether a segment of so many events and bytes is not worth being written anew to be filled up.
pub fn is_well_filled(count: usize, bytes: usize) -> bool {
    count > SEGMENT_EVENTS / 4 * 3 || bytes > SEGMENT_BYTES / 4 * 3
}

/// Packs events of one aggregate, which stand in the order of their seqs and within the bounds of [`fits`].
pub fn encode(aggregate: i64, entries: &[Entry<'_>], effort: Effort) -> std::io::Result<Packed> {
    let Some(first) = entries.first() else {
        return Err(std::io::Error::other("a segment holds at least one event"));
    };
    let mut text = String::with_capacity(entries.iter().map(|entry| entry.data.len()).sum());
    for entry in entries {
        text.push_str(entry.data);
    }
    for entry in entries {
        text.push_str(entry.metadata.unwrap_or(""));
    }
    let body = match effort {
        Effort::Quick => compress(text.as_bytes(), QUICK_LEVEL)?,
        Effort::Thorough => {
            let body = compress(text.as_bytes(), THOROUGH_LEVEL)?;
            if body.len() < text.len() / REPETITIVE_RATIO { compress(text.as_bytes(), REPETITIVE_LEVEL)? } else { body }
        }
    };
    let mut numbers = Vec::with_capacity(entries.len() * 8 + 32);
    for value in [VERSION, aggregate.unsigned_abs(), entries.len() as u64, checksum(&body)] {
        put(&mut numbers, value);
    }
    put_steps(&mut numbers, first.seq, entries.iter().map(|entry| entry.seq));
    put_steps(&mut numbers, first.position, entries.iter().map(|entry| entry.position));
    for entry in entries {
        put(&mut numbers, entry.type_key.unsigned_abs());
    }
    let mut before = 0;
    for entry in entries {
        // Zero says none; a delta is one more than its zigzag form.
        put(&mut numbers, entry.created.map_or(0, |created| zigzag(created - before) + 1));
        before = entry.created.unwrap_or(before);
    }
    let mut ids = String::new();
    let mut before = "";
    let shared: Vec<usize> = entries
        .iter()
        .map(|entry| {
            let shared = shared_prefix(before, entry.id);
            ids.push_str(&entry.id[shared..]);
            before = entry.id;
            shared
        })
        .collect();
    for shared in &shared {
        put(&mut numbers, *shared as u64);
    }
    for (entry, shared) in entries.iter().zip(&shared) {
        put(&mut numbers, (entry.id.len() - shared) as u64);
    }
    for entry in entries {
        put(&mut numbers, entry.data.len() as u64);
    }
    for entry in entries {
        put(&mut numbers, entry.metadata.map_or(0, |metadata| metadata.len() as u64 + 1));
    }
    // Two frames, one after the other: numbers and ids have nothing in common.
    let level = if effort == Effort::Quick { QUICK_LEVEL } else { REPETITIVE_LEVEL };
    let mut head = compress(&numbers, level)?;
    head.extend(compress(ids.as_bytes(), level)?);
    Ok(Packed { summary: summary(entries.iter().copied()), head, body })
}

/// What a segment holds, type by type, out of its summary.
pub fn shares(summary: &[u8]) -> Result<Vec<Share>, &'static str> {
    if summary.len() > SEGMENT_EVENTS * LEAST_SHARE_BYTES * 10 {
        return Err("its summary is longer than that of any segment");
    }
    let mut numbers = Numbers { bytes: summary };
    let mut shares = Vec::new();
    while !numbers.bytes.is_empty() {
        shares.push(Share {
            type_key: numbers.within(i64::MAX)?,
            count: numbers.within(SEGMENT_EVENTS as i64)?.unsigned_abs(),
            bytes: numbers.next()?,
            largest: numbers.next()?,
            largest_seq: numbers.within(MAX_SEQ)?,
        });
    }
    Ok(shares)
}

impl Segment {
    /// How many events it holds.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.seqs.len()
    }

    /// Bytes of data and metadata.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        self.text.len() + self.ids.len() + self.len() * 80
    }

    /// Seqs in their order.
    pub fn seqs(&self) -> &[i64] {
        &self.seqs
    }

    /// Positions in their order.
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// The event at an index below [`Segment::len`].
    pub fn get(&self, index: usize) -> Entry<'_> {
        let start = |ends: &[usize]| index.checked_sub(1).map_or(0, |before| ends[before]);
        Entry {
            seq: self.seqs[index],
            position: self.positions[index],
            type_key: self.types[index],
            created: self.created[index],
            id: &self.ids[start(&self.id_ends)..self.id_ends[index]],
            metadata: self.metadata[index].map(|(start, end)| &self.text[start..end]),
            data: &self.text[start(&self.data_ends)..self.data_ends[index]],
        }
    }

    /// All events in their order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

fn summary<'e>(entries: impl Iterator<Item = Entry<'e>>) -> Vec<u8> {
    let mut shares: Vec<Share> = Vec::new();
    for entry in entries {
        let size = entry.data.len() as u64;
        let share = match shares.iter_mut().find(|share| share.type_key == entry.type_key) {
            Some(share) => share,
            None => {
                let new = Share { type_key: entry.type_key, count: 0, bytes: 0, largest: 0, largest_seq: entry.seq };
                shares.push(new);
                shares.last_mut().expect("one was just pushed")
            }
        };
        (share.count, share.bytes) = (share.count + 1, share.bytes + size);
        if size > share.largest {
            (share.largest, share.largest_seq) = (size, entry.seq);
        }
    }
    let mut bytes = Vec::new();
    for share in shares {
        let (key, seq) = (share.type_key.unsigned_abs(), share.largest_seq.unsigned_abs());
        for value in [key, share.count, share.bytes, share.largest, seq] {
            put(&mut bytes, value);
        }
    }
    bytes
}

fn compress(bytes: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    compressor.compress(bytes)
}

/// The checksum that ends a frame, which zstd compares with what the frame gives.
fn checksum(frame: &[u8]) -> u64 {
    let bytes = frame.last_chunk::<CHECKSUM_BYTES>();
    bytes.map_or(u64::MAX, |bytes| u32::from_le_bytes(*bytes).into())
}
