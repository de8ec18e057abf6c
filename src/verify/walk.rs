//! One aggregate: its sequence row, its segments, its rows, its gaps. A walk goes through them in pages; what it has found
//! is certain only where one snapshot has shown all of it.

use super::span::Sequence;
use super::{Context, Finding, named};
use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::history;
use crate::known;
use crate::limits::{MAX_FINDINGS, MAX_SAFE_INTEGER, MAX_SEQ};
use crate::segment::{Entry, Place, Segment};

/// Bytes of payloads after which a page ends, with the segment that it is at.
const PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// Events after which a page ends.
const PAGE_EVENTS: u64 = 4_096;

/// Positions of a page, at most, that are looked for elsewhere.
const MOST_TWICE: usize = 100;

/// Where a walk is.
#[derive(Clone, Copy)]
pub(super) enum At {
    Start,
    /// After the segment whose row says this seq.
    Segments(i64),
    /// After the row of this seq.
    Rows(i64),
}

/// Goes through one aggregate.
pub(super) struct Walk {
    pub(super) key: i64,
    pub(super) at: At,
    /// Everything in one page.
    pub(super) whole: bool,
    /// What has been found, certain once the walk ends where it began in one page.
    pub(super) found: Vec<Finding>,
    /// What no writer can have caused meanwhile.
    pub(super) certain: Vec<Finding>,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) aggregate_id: Option<String>,
    /// Last seq and position of what was seen, unreadable segments included.
    pub(super) last: (i64, i64),
    /// Where the run of seqs began that `last` ends.
    pub(super) run: i64,
    packed_through: i64,
    pub(super) duplicates: Vec<i64>,
    /// The segment that rows were compared with last.
    beside: Option<(Place, Option<Segment>)>,
}

impl Walk {
    pub(super) fn new(key: i64) -> Self {
        Walk {
            key,
            at: At::Start,
            whole: false,
            found: Vec::new(),
            certain: Vec::new(),
            events: 0,
            bytes: 0,
            aggregate_id: None,
            last: (-1, 0),
            run: 0,
            packed_through: -1,
            duplicates: Vec::new(),
            beside: None,
        }
    }

    /// All in one page, however much it is.
    pub(super) fn whole(key: i64) -> Self {
        Walk { whole: true, ..Walk::new(key) }
    }

    pub(super) fn begun(&self) -> bool {
        !matches!(self.at, At::Start)
    }

    /// Goes through the next page, inside one snapshot. `true`: that was the last.
    pub(super) fn page(&mut self, connection: &Connection, context: &mut Context) -> Result<bool> {
        let sequence = self.sequence(connection, context)?;
        if let At::Start = self.at {
            self.check_gaps(connection)?;
            self.at = At::Segments(i64::MIN);
        }
        let end = (self.events + PAGE_EVENTS, self.bytes + PAGE_BYTES);
        let full = |walk: &Walk| !walk.whole && (walk.events >= end.0 || walk.bytes >= end.1);
        let mut twice = Vec::new();
        if let At::Segments(after) = self.at {
            let mut statement = connection.cached(
                "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
                 WHERE aggregate = ?1 AND seq > ?2 ORDER BY seq",
            )?;
            let mut rows = statement.query((self.key, after))?;
            let mut last = after;
            while let Some(row) = rows.next()? {
                let Ok(place) = known::place(row) else {
                    let message = format!(
                        "The row of a segment of {} holds something else than numbers: nothing can read it.",
                        self.named()
                    );
                    let finding = self.of(Finding::error("segment-unreadable", message));
                    self.tell(finding);
                    continue;
                };
                self.segment(connection, context, &sequence, &place, &mut twice)?;
                self.at = At::Segments(rising("event_segment", &last, place.seq)?);
                last = place.seq;
                if full(self) {
                    break;
                }
            }
            if !full(self) {
                self.packed_through = self.last.0;
                self.at = At::Rows(-1);
            }
        }
        let mut ended = false;
        if let At::Rows(after) = self.at
            && !full(self)
        {
            let mut statement = connection.cached(
                "SELECT seq, id, type, created, metadata, data, position FROM event
                 WHERE aggregate = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq",
            )?;
            let mut rows = statement.query((self.key, after, i64::MAX))?;
            ended = true;
            let mut last = after;
            while let Some(row) = rows.next()? {
                let seq: i64 = rising("event", &last, row.get(0)?)?;
                last = seq;
                match history::entry(row) {
                    Ok(entry) => self.row(connection, context, &sequence, &entry, &mut twice)?,
                    Err(error) => self.unreadable_row(connection, &sequence, seq, &error)?,
                }
                self.at = At::Rows(seq);
                if full(self) {
                    ended = false;
                    break;
                }
            }
        }
        self.end_run(connection, &sequence)?;
        if ended {
            self.end(connection, &sequence)?;
        }
        self.told_twice(connection, &twice)?;
        context.highest = context.highest.max(self.last.1);
        Ok(ended)
    }

    fn segment(
        &mut self,
        connection: &Connection,
        context: &mut Context,
        sequence: &Option<Sequence>,
        place: &Place,
        twice: &mut Vec<i64>,
    ) -> Result<()> {
        match known::decode(connection, place)? {
            Ok(segment) => {
                for entry in segment.entries() {
                    self.see(connection, context, sequence, &entry, twice)?;
                }
            }
            Err(reason) => {
                let (first, last) = (place.first_seq, place.seq);
                let message = format!(
                    "The packed events {first} to {last} of {} cannot be read: {reason}. The others can. \
                     Restore the file from a copy, or remove the aggregate and replay it.",
                    self.named()
                );
                let finding = self.of(Finding::error("segment-unreadable", message));
                self.tell(finding.range(first.saturating_sub(1), last));
                // What it says it holds is not missing; which of that it holds, beside gaps, nobody can tell.
                if first > self.last.0 && last >= first && last <= MAX_SEQ {
                    self.end_run(connection, sequence)?;
                    self.reach(connection, sequence, first, last)?;
                    self.run = last + 1;
                    self.last.1 = self.last.1.max(place.first);
                }
                self.events += 1;
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        connection: &Connection,
        context: &mut Context,
        sequence: &Option<Sequence>,
        entry: &Entry<'_>,
        twice: &mut Vec<i64>,
    ) -> Result<()> {
        if entry.seq > self.packed_through {
            return self.see(connection, context, sequence, entry, twice);
        }
        (self.events, self.bytes) = (self.events + 1, self.bytes + entry.data.len() as u64);
        let (seq, named) = (entry.seq, self.named());
        let beside = match self.beside(connection, seq)? {
            // That it cannot be read is told already, and what it holds is not known.
            Some(None) => return Ok(()),
            Some(Some(segment)) => Some(segment),
            None => None,
        };
        let packed = beside.and_then(|segment| Some(segment.get(segment.seqs().binary_search(&seq).ok()?)));
        match packed {
            Some(packed) if packed == *entry => self.duplicates.push(seq),
            Some(_) => {
                let message = format!(
                    "Seq {seq} of {named} is held twice, as a row and packed, and they differ. \
                     Find out which one is right, and delete the other."
                );
                let finding = self.of(Finding::error("event-conflict", message)).at(seq);
                self.tell(finding);
            }
            None => {
                let message = format!(
                    "Seq {seq} of {named} is a row, though later events are packed already: it is read out of order. \
                     Restore the file from a copy, or replay the log into a new one."
                );
                let finding = self.of(Finding::error("row-behind-segment", message)).at(seq);
                self.tell(finding);
            }
        }
        Ok(())
    }

    /// The segment whose row says that it reaches over a seq; `Some(None)` where it cannot be read.
    fn beside(&mut self, connection: &Connection, seq: i64) -> Result<Option<Option<&Segment>>> {
        let held = |place: &Place| place.first_seq <= seq && seq <= place.seq;
        if !self.beside.as_ref().is_some_and(|(place, _)| held(place)) {
            let mut statement = connection.cached(
                "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
                 WHERE aggregate = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1",
            )?;
            let mut rows = statement.query((self.key, seq))?;
            self.beside = match rows.next()? {
                Some(row) => {
                    let place = known::place(row)?;
                    Some((place, known::decode(connection, &place)?.ok()))
                }
                None => None,
            };
        }
        Ok(self.beside.as_ref().filter(|(place, _)| held(place)).map(|(_, segment)| segment.as_ref()))
    }

    fn unreadable_row(
        &mut self,
        connection: &Connection,
        sequence: &Option<Sequence>,
        seq: i64,
        error: &Error,
    ) -> Result<()> {
        let message = format!("Seq {seq} of {} cannot be read: {error}.", self.named());
        let finding = self.of(Finding::error("event-unreadable", message)).at(seq);
        self.tell(finding);
        self.events += 1;
        if seq > self.last.0 {
            self.reach(connection, sequence, seq, seq)?;
        }
        Ok(())
    }

    /// The next event in order.
    fn see(
        &mut self,
        connection: &Connection,
        context: &mut Context,
        sequence: &Option<Sequence>,
        entry: &Entry<'_>,
        twice: &mut Vec<i64>,
    ) -> Result<()> {
        let Entry { seq, position, .. } = *entry;
        (self.events, self.bytes) = (self.events + 1, self.bytes + entry.data.len() as u64);
        if seq <= self.last.0 {
            let message = format!("Seq {seq} of {} is held more than once, or out of order.", self.named());
            let finding = self.of(Finding::error("event-order", message)).at(seq);
            self.tell(finding);
            return Ok(());
        }
        let before = self.last.1;
        self.reach(connection, sequence, seq, seq)?;
        self.last.1 = before.max(position);
        if position <= before || position > MAX_SAFE_INTEGER {
            let message = format!(
                "Seq {seq} of {} stands at position {position}, before an earlier one at {before}, or where none can: \
                 readers by position get it in another order.",
                self.named()
            );
            let finding = self.of(Finding::error("position-order", message)).at(seq);
            self.tell(finding);
        }
        if !self.whole && !context.positions.note(position) && twice.len() < MOST_TWICE {
            twice.push(position);
        }
        let projected = sequence.as_ref().and_then(|sequence| sequence.projected);
        self.check_type(connection, context, entry, projected)?;
        self.check_content(entry);
        Ok(())
    }

    /// Notes what was found, as far as anybody will be told of it.
    pub(super) fn tell(&mut self, finding: Finding) {
        if self.found.len() <= MAX_FINDINGS {
            self.found.push(finding);
        }
    }

    pub(super) fn named(&self) -> String {
        named(self.aggregate_id.as_deref(), self.key)
    }

    pub(super) fn of(&self, finding: Finding) -> Finding {
        Finding { aggregate_id: self.aggregate_id.clone(), ..finding }
    }
}
