//! Unpacking. Nothing that the bytes say is believed before it is compared with what a segment may be.

use zstd::bulk::Decompressor;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use super::columns::{Numbers, unfold, unzigzag};
use super::{Place, Segment, VERSION, checksum, shares, summary};
use crate::limits::{MAX_ID_BYTES, MAX_SEQ, SEGMENT_BYTES, SEGMENT_EVENTS, SQLITE_MAX_LENGTH};

/// The first bytes of a zstd frame, and of the flags that follow those that are always the same: a checksum ends it, it needs
/// no dictionary, and the bits that mean nothing are not set (RFC 8878, 3.1.1).
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const FLAGS_MASK: u8 = 0b1_1111;
const FLAGS: u8 = 0b0_0100;

/// Everything of a segment but its payloads.
#[derive(Debug)]
pub struct Head {
    body_checksum: u64,
    seqs: Vec<i64>,
    positions: Vec<i64>,
    types: Vec<i64>,
    created: Vec<Option<i64>>,
    ids: String,
    id_ends: Vec<usize>,
    /// Bytes of each event's data.
    lengths: Vec<usize>,
    /// One more than the bytes of each event's metadata; 0 where there is none.
    metadata: Vec<usize>,
}

impl Head {
    /// Positions in their order.
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// Seq and type of the first event after a seq.
    pub fn first_after(&self, seq: i64) -> Option<(i64, i64)> {
        let at = self.seqs.partition_point(|held| *held <= seq);
        Some((*self.seqs.get(at)?, *self.types.get(at)?))
    }

    /// Bytes of data and metadata of the event at an index.
    pub fn size(&self, index: usize) -> usize {
        self.lengths[index] + self.metadata[index].saturating_sub(1)
    }
}

/// Unpacks the head of a segment. Whatever the bytes are, it takes no more memory than a segment may, and says what is
/// wrong.
pub fn decode_head(place: &Place, summarized: &[u8], head: &[u8]) -> Result<Head, &'static str> {
    let shares = shares(summarized)?;
    let count = shares.iter().map(|share| share.count).sum::<u64>();
    if count == 0 || count > SEGMENT_EVENTS as u64 {
        return Err("its summary counts more events than a segment holds, or none");
    }
    let count = count as usize;
    // Every number of the head has at most ten bytes; an event has eight of them and an id.
    let head = decompress(head, 2, 64 + count * (8 * 10 + MAX_ID_BYTES))?;
    let mut numbers = Numbers { bytes: &head };
    if numbers.next()? != VERSION {
        return Err("its version is unknown");
    }
    if numbers.next()? != place.aggregate.unsigned_abs() {
        return Err("it belongs to another aggregate");
    }
    if numbers.next()? != count as u64 {
        return Err("its summary and its head count different numbers of events");
    }
    let body_checksum = numbers.next()?;
    let seqs = numbers.steps(count, MAX_SEQ)?;
    let positions = numbers.steps(count, i64::MAX)?;
    let ends = (seqs[0], seqs[count - 1], positions[0], positions[count - 1]);
    if ends != (place.first_seq, place.seq, place.first, place.position) {
        return Err("its events are not those that its row tells of");
    }
    let types = numbers.list(count, |number| i64::try_from(number).ok())?;
    let mut before = 0_i64;
    let created = numbers.list(count, |number| {
        if number == 0 {
            return Some(None);
        }
        before = before.checked_add(unzigzag(number - 1))?;
        Some(Some(before))
    })?;
    let shared = numbers.list(count, |number| usize::try_from(number).ok())?;
    let rest = numbers.list(count, |number| usize::try_from(number).ok())?;
    let lengths = numbers.list(count, |number| usize::try_from(number).ok().filter(|len| *len <= SQLITE_MAX_LENGTH))?;
    let metadata =
        numbers.list(count, |number| usize::try_from(number).ok().filter(|len| *len <= SQLITE_MAX_LENGTH))?;
    let (ids, id_ends) = unfold(numbers.bytes, &shared, &rest)?;
    Ok(Head { body_checksum, seqs, positions, types, created, ids, id_ends, lengths, metadata })
}

/// Unpacks a segment, likewise.
pub fn decode(place: &Place, summarized: &[u8], head: &[u8], body: &[u8]) -> Result<Segment, &'static str> {
    let head = decode_head(place, summarized, head)?;
    if head.body_checksum != checksum(body) {
        return Err("its head is that of another body");
    }
    let Head { seqs, positions, types, created, ids, id_ends, lengths, metadata, .. } = head;
    let count = seqs.len();
    let data_bytes: usize = lengths.iter().sum();
    let bytes = data_bytes + metadata.iter().map(|length| length.saturating_sub(1)).sum::<usize>();
    if count > 1 && bytes > SEGMENT_BYTES || bytes > SQLITE_MAX_LENGTH * 2 {
        return Err("it claims more bytes than a segment holds");
    }
    let text = decompress(body, 1, bytes)?;
    if text.len() != bytes {
        return Err("its body has another length than its head says");
    }
    let text = String::from_utf8(text).map_err(|_| "its body is not UTF-8")?;
    let mut end = 0;
    let data_ends: Vec<usize> = lengths.iter().map(|length| advance(&mut end, *length)).collect();
    let metadata: Vec<Option<(usize, usize)>> =
        metadata.iter().map(|length| Some((end, advance(&mut end, length.checked_sub(1)?)))).collect();
    let mut ends = data_ends.iter().chain(metadata.iter().flatten().map(|(_, end)| end));
    if ends.any(|end| !text.is_char_boundary(*end)) {
        return Err("a payload ends inside a character");
    }
    let segment = Segment { seqs, positions, types, created, ids, id_ends, text, data_ends, metadata };
    if summary(segment.entries()) != summarized {
        return Err("its summary is not that of its events");
    }
    Ok(segment)
}

fn advance(end: &mut usize, length: usize) -> usize {
    *end += length;
    *end
}

/// The frames in `bytes`, so many, which give at most `limit` bytes. They say how many before any memory is taken.
fn decompress(bytes: &[u8], frames: usize, limit: usize) -> Result<Vec<u8>, &'static str> {
    let (mut rest, mut given) = (bytes, 0_usize);
    for _ in 0..frames {
        let flags = rest.strip_prefix(&FRAME).and_then(|rest| rest.first());
        if flags.is_none_or(|flags| flags & FLAGS_MASK != FLAGS) {
            return Err("it is not what syncline compresses");
        }
        let size = get_frame_content_size(rest).ok().flatten().and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= limit - given).ok_or("it claims more bytes than a segment holds")?;
        let length = find_frame_compressed_size(rest).map_err(|_| "it is cut off")?;
        (rest, given) = (rest.get(length..).ok_or("it is cut off")?, given + size);
    }
    if !rest.is_empty() {
        return Err("something follows its frames");
    }
    let mut text = Vec::new();
    text.try_reserve_exact(given).map_err(|_| "there is no memory for what it claims to hold")?;
    let mut decompressor = Decompressor::new().map_err(|_| "zstd has no memory")?;
    decompressor.decompress_to_buffer(bytes, &mut text).map_err(|_| "zstd cannot read it")?;
    Ok(text)
}
