//! The log as text, one log item a line: what is exported, and what goes over the wire. Payloads are copied as they are
//! stored; nothing is parsed.

use super::{LogPage, read_log};
use crate::connection::Connection;
use crate::error::Result;
use crate::event::{StoredEvent, write_quoted};
use crate::known::Known;

/// A page of an aggregate's log, `after < seq <= through`, as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TextPage {
    /// Log items as JSON in UTF-8, each with a line feed after it.
    pub lines: Vec<u8>,
    /// The last seq that the page tells of; that which was asked after where it tells of nothing.
    pub last: i64,
    /// The page reaches the end that was asked for.
    pub done: bool,
    /// How many events it holds, deletion events in tombstones not among them.
    pub events: u32,
    /// How many gaps.
    pub gaps: u32,
    /// The seq of the tombstone, where it holds one.
    pub removed: Option<i64>,
}

/// Reads a page of one aggregate's log: see [`read_log`].
pub fn read_text(
    connection: &Connection,
    known: &mut Known,
    aggregate_id: &str,
    (after, through): (i64, i64),
    limit: usize,
) -> Result<TextPage> {
    let mut events = Lines::default();
    let log = read_log(connection, known, aggregate_id, (after, through), limit, &mut |event| {
        events.push(event);
        Ok(())
    })?;
    let last = [after]
        .into_iter()
        .chain(log.removed.iter().map(|(seq, _)| *seq))
        .chain(log.gaps.last().map(|(_, through)| *through))
        .chain(events.ends.last().map(|(seq, _)| *seq))
        .max()
        .unwrap_or(after);
    Ok(TextPage {
        last,
        done: log.done,
        events: events.ends.len() as u32,
        gaps: log.gaps.len() as u32,
        removed: log.removed.as_ref().map(|(seq, _)| *seq),
        lines: joined(aggregate_id, events, &log),
    })
}

/// The lines of events, with the seq of each and where it ends.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    ends: Vec<(i64, usize)>,
}

impl Lines {
    fn push(&mut self, event: &StoredEvent<'_>) {
        let start = self.text.len();
        self.text.extend_from_slice(b"{\"kind\":\"event\",\"event\":");
        event.write_json(&mut self.text);
        self.text.push(b'}');
        keep_one_line(&mut self.text[start..]);
        self.text.push(b'\n');
        self.ends.push((event.seq, self.text.len()));
    }
}

/// In the order of their seqs; what was removed lies before everything else.
fn joined(aggregate_id: &str, events: Lines, log: &LogPage) -> Vec<u8> {
    if log.removed.is_none() && log.gaps.is_empty() {
        return events.text;
    }
    let mut aggregate = b",\"aggregateID\":".to_vec();
    write_quoted(&mut aggregate, aggregate_id);
    let mut lines = Vec::with_capacity(events.text.len() + 256);
    if let Some((seq, event)) = &log.removed {
        lines.extend_from_slice(b"{\"kind\":\"removed\"");
        lines.extend_from_slice(&aggregate);
        lines.extend_from_slice(format!(",\"seq\":{seq}").as_bytes());
        if let Some(json) = event {
            let start = lines.len();
            lines.extend_from_slice(format!(",\"event\":{json}").as_bytes());
            keep_one_line(&mut lines[start..]);
        }
        lines.extend_from_slice(b"}\n");
    }
    let (mut from, mut at) = (0, 0);
    for (after, through) in &log.gaps {
        while events.ends.get(at).is_some_and(|(seq, _)| seq <= after) {
            at += 1;
        }
        let to = at.checked_sub(1).map_or(0, |last| events.ends[last].1);
        lines.extend_from_slice(&events.text[from..to]);
        lines.extend_from_slice(b"{\"kind\":\"gap\"");
        lines.extend_from_slice(&aggregate);
        lines.extend_from_slice(format!(",\"after\":{after},\"through\":{through}}}\n").as_bytes());
        from = to;
    }
    lines.extend_from_slice(&events.text[from..]);
    lines
}

/// Syncline writes payloads in one line. In what somebody else wrote, a line feed can only be space between two tokens.
fn keep_one_line(text: &mut [u8]) {
    if text.contains(&b'\n') {
        text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
}
