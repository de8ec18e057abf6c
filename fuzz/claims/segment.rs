//! `segment`: whatever the bytes are, decoding them ends with a reason or a segment, and what was encoded comes back.

use syncline::segment::{Effort, Entry, Owned, Packed, Place, Segment, decode, encode, shares};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::Source;

/// The first byte says how the others are to be read.
pub fn segment(bytes: &[u8]) {
    let mut source = Source(bytes);
    match source.byte() % 3 {
        0 => {
            let (summary, head, body) = (source.bytes(), source.bytes(), source.bytes());
            arbitrary(&mut source, summary, head, body);
        }
        1 => framed(&mut source),
        _ => round_trip(&mut source),
    }
}

/// Bytes as they come.
fn arbitrary(source: &mut Source<'_>, summary: &[u8], head: &[u8], body: &[u8]) {
    let mut number = || source.number().cast_signed();
    let place = Place {
        aggregate: number(),
        first_seq: number(),
        seq: number(),
        first: number(),
        position: number(),
        generation: number(),
    };
    let _ = shares(summary);
    check(&place, summary, head, body);
}

/// Frames that zstd can read, around numbers, ids and text as they come.
fn framed(source: &mut Source<'_>) {
    let (summary, steps, columns, ids, text) =
        (source.bytes(), source.bytes(), source.bytes(), source.bytes(), source.bytes());
    let body = frame(text);
    let checksum = body.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes).into());
    let count = shares(summary).map_or(0, |shares| shares.iter().map(|share| share.count).sum::<u64>());
    if count > 1_024 {
        return;
    }
    let mut numbers = Vec::new();
    for number in [1, 7, count, checksum] {
        put(&mut numbers, number);
    }
    // Seqs and positions have steps of some bytes, so that the row can tell of the same ones.
    let step = |n: u64| steps.get(n as usize % steps.len().max(1)).map_or(0, |step| u64::from(*step));
    let (mut last, mut ends) = (0, [0_i64; 4]);
    for column in 0..2 {
        for n in 0..count {
            put(&mut numbers, step(n + column));
            last = if n == 0 { step(column) } else { last + step(n + column) + 1 };
            if n == 0 {
                ends[column as usize * 2] = last.cast_signed();
            }
        }
        ends[column as usize * 2 + 1] = last.cast_signed();
    }
    numbers.extend_from_slice(columns);
    let mut head = frame(&numbers);
    head.extend(frame(ids));
    let [first_seq, seq, first, position] = ends;
    let place = Place { aggregate: 7, first_seq, seq, first, position, generation: 0 };
    check(&place, summary, &head, &body);
}

/// Events, and then changes of what they were packed to.
fn round_trip(source: &mut Source<'_>) {
    let (effort, count) = (source.byte(), usize::from(source.byte() % 40) + 1);
    let effort = if effort % 2 == 0 { Effort::Quick } else { Effort::Thorough };
    let aggregate = i64::from(source.byte());
    let mut before = (i64::from(source.byte()), i64::from(source.byte()));
    let events: Vec<(Entry<'_>, String, String, String)> = (0..count)
        .map(|n| {
            let flags = source.byte();
            let step = |byte: u8| if n == 0 { 0 } else { i64::from(byte) + 1 };
            before = (before.0 + step(flags & 3), before.1 + step(source.byte()));
            let created = (flags & 4 != 0).then(|| (source.number() >> 11).cast_signed() - (1 << 52));
            let entry = Entry {
                seq: before.0,
                position: before.1,
                type_key: i64::from(source.byte() % 5),
                created,
                id: "",
                metadata: (flags & 8 != 0).then_some(""),
                data: "",
            };
            (entry, source.text(), source.text(), source.text())
        })
        .collect();
    let entries: Vec<Entry<'_>> = events
        .iter()
        .map(|(entry, id, data, metadata)| Entry {
            id: (0..=id.len().min(255)).rev().find_map(|end| id.get(..end)).unwrap_or(""),
            data,
            metadata: entry.metadata.map(|_| metadata.as_str()),
            ..*entry
        })
        .collect();
    let packed = encode(aggregate, &entries, effort).unwrap();
    let place = Place::of(aggregate, &entries, 0);
    let decoded = decode(&place, &packed.summary, &packed.head, &packed.body).unwrap();
    assert!(decoded.entries().eq(entries.iter().copied()), "{entries:?}");
    let counted: u64 = shares(&packed.summary).unwrap().iter().map(|share| share.count).sum();
    assert_eq!(counted, entries.len() as u64);

    // Damage is found, or changes nothing.
    let Packed { mut summary, mut head, mut body } = packed;
    let damaged = match source.byte() % 3 {
        0 => &mut summary,
        1 => &mut head,
        _ => &mut body,
    };
    let (at, change) = (source.number() as usize % damaged.len(), source.byte());
    damaged[at] ^= change;
    if source.byte().is_multiple_of(4) {
        damaged.truncate(at);
    }
    if let Ok(decoded) = decode(&place, &summary, &head, &body) {
        assert!(decoded.entries().eq(entries.iter().copied()), "damage was read as something else: {entries:?}");
    }
}

/// What decodes is sound: it can be read, and encoded once more.
fn check(place: &Place, summary: &[u8], head: &[u8], body: &[u8]) {
    match decode(place, summary, head, body) {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(segment) => {
            let entries: Vec<Entry<'_>> = segment.entries().collect();
            assert_eq!((segment.len(), segment.bytes()), (entries.len(), text_bytes(&segment)));
            assert!(entries.is_sorted_by(|one, other| one.seq < other.seq && one.position < other.position));
            assert_eq!(
                entries,
                entries.iter().map(Owned::of).collect::<Vec<_>>().iter().map(Owned::entry).collect::<Vec<_>>()
            );
            let packed = encode(place.aggregate, &entries, Effort::Quick).unwrap();
            assert_eq!(packed.summary, summary);
            let again = decode(place, &packed.summary, &packed.head, &packed.body).unwrap();
            assert!(again.entries().eq(entries.iter().copied()));
        }
    }
}

fn text_bytes(segment: &Segment) -> usize {
    segment.entries().map(|entry| entry.data.len() + entry.metadata.map_or(0, str::len)).sum()
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(1).unwrap();
    compressor.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
    compressor.compress(bytes).unwrap()
}

/// LEB128.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
