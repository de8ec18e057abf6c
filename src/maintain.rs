//! Maintenance in slices, each bounded in time and complete in itself, so that it can be stopped, or killed, anywhere:
//! packing, compaction, vacuum, statistics of the program's tables, and cutting the WAL. `Maintenance` is what is still to
//! be done; whoever has a connection calls `step` until that says there is nothing more.

mod file;

use std::collections::VecDeque;
use std::sync::Arc;

use rusqlite::OptionalExtension;
use rusqlite::types::ValueRef;
use serde::Serialize;

use crate::compact::{Rules, Survey};
use crate::connection::Connection;
use crate::error::{Result, rising};
use crate::history;
use crate::job::Job;
use crate::known::Known;
use crate::limits::{MAX_SKIPPED, SEGMENT_BYTES};
use crate::pack::{self, Plan};
use crate::segment::{self, Effort, Entry, Place};
use crate::tables;
use crate::turn::Turns;

/// Pages of the first slice of vacuum; the number of the next ones follows from what it took.
const FIRST_VACUUM_PAGES: i64 = 64;

/// Segments that become one in one slice, at most.
const MERGED_SEGMENTS: usize = 64;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// What to pack. With a thorough effort, what was compressed in passing is compressed anew, too.
    pub plan: Plan,
    /// Compact whole histories.
    pub compact: bool,
    /// Free pages that may stay in the file.
    pub free_pages: i64,
    /// Gather statistics for SQLite's query planner on the program's tables.
    pub analyze: bool,
    /// The store may be silent meanwhile, and its checkpoints with it.
    pub alone: bool,
    /// Cut the WAL.
    pub truncate: bool,
    /// Write the whole file anew.
    pub rewrite: bool,
}

/// What was done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Events that were written into segments.
    pub events: u64,
    /// Bytes of their data and metadata.
    pub bytes: u64,
    /// Events that later ones had superseded.
    pub dropped: u64,
    /// Bytes that were given back to the file system.
    pub freed_bytes: u64,
    /// The WAL was cut.
    pub truncated: bool,
    /// Aggregates, by id, that were left as they are because some of their events cannot be read; at most 100.
    pub skipped: Vec<String>,
    /// What it is at: `pack`, `compact`, `rewrite`, `vacuum`, `analyze`, `checkpoint` or `done`.
    pub phase: &'static str,
}

enum Phase {
    /// Of the aggregates after this key, or of those in the list, the first one last.
    Pack(i64, Option<Vec<i64>>),
    Compact(i64),
    /// The history of one aggregate, rows included, as far as it has been seen.
    Surveying(i64, i64, Survey),
    /// Segments of one aggregate that are still to be looked at, and the seqs that may go.
    Compacting {
        aggregate: i64,
        places: VecDeque<Place>,
        dropped: Vec<i64>,
        through: i64,
    },
    Rewrite,
    Vacuum {
        pages: i64,
    },
    Analyze(Vec<String>),
    Checkpoint,
    Done,
}

/// Maintenance that is on its way.
pub struct Maintenance {
    turns: Arc<Turns>,
    rules: Arc<Rules>,
    task: Task,
    phase: Phase,
    progress: Progress,
    /// Bytes of the WAL when it was copied back last.
    copied_at: u64,
}

impl Maintenance {
    /// From the beginning.
    pub fn new(task: Task, rules: Arc<Rules>, turns: Arc<Turns>) -> Self {
        let progress = Progress { phase: "pack", ..Progress::default() };
        Maintenance { turns, rules, task, phase: Phase::Pack(0, None), progress, copied_at: 0 }
    }

    /// Packs these aggregates only, given by key in falling order.
    pub fn only(mut self, aggregates: Vec<i64>) -> Self {
        self.phase = Phase::Pack(0, Some(aggregates));
        self
    }

    fn next(&mut self, connection: &Connection, known: &mut Known) -> Result<bool> {
        self.turns.stand_back();
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        self.progress.phase = match &phase {
            Phase::Pack(..) => "pack",
            Phase::Compact(_) | Phase::Surveying(..) | Phase::Compacting { .. } => "compact",
            Phase::Rewrite => "rewrite",
            Phase::Vacuum { .. } => "vacuum",
            Phase::Analyze(_) => "analyze",
            Phase::Checkpoint => "checkpoint",
            Phase::Done => "done",
        };
        let again = phase.again();
        let next = match phase {
            Phase::Pack(after, list) => self.pack(connection, known, after, list),
            Phase::Compact(after) => self.find_compactable(connection, after),
            Phase::Surveying(aggregate, through, survey) => self.survey(connection, known, aggregate, through, survey),
            Phase::Compacting { aggregate, places, dropped, through } => {
                self.compact(connection, known, (aggregate, through), places, dropped)
            }
            Phase::Rewrite => self.rewrite(connection),
            Phase::Vacuum { pages } => self.vacuum(connection, pages),
            Phase::Analyze(tables) => self.analyze(connection, tables),
            Phase::Checkpoint => self.truncate(connection),
            Phase::Done => Ok(Phase::Done),
        };
        match next {
            Ok(next) => {
                self.phase = next;
                self.bound_wal(connection)?;
            }
            Err(error) => {
                self.phase = again;
                return Err(error);
            }
        }
        if matches!(self.phase, Phase::Done) {
            self.progress.phase = "done";
            return Ok(false);
        }
        Ok(true)
    }

    fn pack(
        &mut self,
        connection: &Connection,
        known: &mut Known,
        after: i64,
        mut list: Option<Vec<i64>>,
    ) -> Result<Phase> {
        let next = match &mut list {
            None => pack::next_aggregate(connection, after)?,
            Some(list) => list.last().copied(),
        };
        let Some(aggregate) = next else {
            let compacts = self.task.compact || self.task.plan.effort == Effort::Thorough;
            return if compacts { Ok(Phase::Compact(0)) } else { self.after_packing(connection) };
        };
        let ready = connection
            .snapshot(|| pack::load(connection, known, aggregate, &self.task.plan))
            .and_then(|load| load.map(|load| pack::prepare(connection, known, &load, &self.rules)).transpose());
        let Some(ready) = self.readable(connection, known, aggregate, ready)?.flatten() else {
            list.as_mut().and_then(Vec::pop);
            return Ok(Phase::Pack(aggregate, list));
        };
        self.put(connection, &ready)?;
        // The same aggregate may have more.
        Ok(Phase::Pack(aggregate - 1, list))
    }

    /// What was made of an aggregate's events; `None` where they cannot all be read. Such an aggregate is left as it is, and
    /// the others are not kept waiting for it.
    fn readable<T>(
        &mut self,
        connection: &Connection,
        known: &mut Known,
        aggregate: i64,
        made: Result<T>,
    ) -> Result<Option<T>> {
        match made {
            Ok(made) => Ok(Some(made)),
            Err(error) if error.is_damage() => {
                // One that no sequence row names has no id that could be told.
                let aggregate_id = known.of_aggregate(connection, aggregate).unwrap_or_default().to_string();
                let skipped = &mut self.progress.skipped;
                if !aggregate_id.is_empty() && !skipped.contains(&aggregate_id) && skipped.len() < MAX_SKIPPED {
                    skipped.push(aggregate_id);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// `false`: somebody else was quicker.
    fn put(&mut self, connection: &Connection, ready: &pack::Ready) -> Result<bool> {
        let Some(moved) = self.turns.slice(connection, || pack::store(connection, ready))? else { return Ok(false) };
        self.progress.events += moved.events;
        self.progress.bytes += moved.bytes;
        self.progress.dropped += moved.dropped;
        Ok(true)
    }

    /// Looks for the next aggregate whose segments are to be written anew.
    fn find_compactable(&mut self, connection: &Connection, after: i64) -> Result<Phase> {
        let mut statement = connection.cached(
            "SELECT event_segment.aggregate, max(event_segment.seq), compacted_seq, compacted_by, min(effort), projected_seq
             FROM event_segment LEFT JOIN event_sequence ON event_sequence.key = event_segment.aggregate
             WHERE aggregate = (SELECT min(aggregate) FROM event_segment WHERE aggregate > ?1)",
        )?;
        let mut found = statement.query([after])?;
        let Some(row) = found.next()?.filter(|row| row.get_ref(0).is_ok_and(|key| key != ValueRef::Null)) else {
            return self.after_packing(connection);
        };
        let (aggregate, last) = (rising("event_segment", &after, row.get(0)?)?, row.get::<_, i64>(1)?);
        // What is still to be projected is not compacted: the rules for it may not be known yet.
        let through = row.get::<_, Option<i64>>(5)?.map_or(last, |projected| last.min(projected));
        let (compacted_seq, compacted_by): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        let effort: i64 = row.get(4)?;
        let rules = self.rules.fingerprint();
        let fresh = compacted_seq.is_none_or(|compacted| compacted < through) || compacted_by != Some(rules);
        let compacts = self.task.compact && rules != 0 && fresh && through >= 0;
        let presses = self.task.plan.effort == Effort::Thorough && effort == Effort::Quick as i64;
        if !compacts && !presses {
            return Ok(Phase::Compact(aggregate));
        }
        if compacts {
            return Ok(Phase::Surveying(aggregate, through, Survey::default()));
        }
        let places = history::segments(connection, aggregate)?.into();
        Ok(Phase::Compacting { aggregate, places, dropped: Vec::new(), through: -1 })
    }

    /// Looks at the next page of an aggregate's history.
    fn survey(
        &mut self,
        connection: &Connection,
        known: &mut Known,
        aggregate: i64,
        through: i64,
        mut survey: Survey,
    ) -> Result<Phase> {
        let after = survey.last();
        // One snapshot a page: what somebody packs meanwhile must be seen in one place or the other. It may be a barrier.
        let seen = connection.snapshot(|| {
            let before = tables::projected(connection, aggregate)?.map(|projected| projected + 1);
            let range = history::Range { after, before, limit: usize::MAX, descending: false };
            history::by_seq(connection, known, ("", aggregate), range, &mut |event| {
                survey.see(&self.rules, event.type_name, event.seq, event.data);
                Ok(())
            })
        });
        if self.readable(connection, known, aggregate, seen)?.is_none() {
            return Ok(Phase::Compact(aggregate));
        }
        if survey.last() > after {
            return Ok(Phase::Surveying(aggregate, through, survey));
        }
        let (places, dropped) = (history::segments(connection, aggregate)?.into(), survey.superseded());
        Ok(Phase::Compacting { aggregate, places, dropped, through })
    }

    /// Writes the next segments of an aggregate anew: as many as fit into one, or one more where that leaves much room.
    fn compact(
        &mut self,
        connection: &Connection,
        known: &mut Known,
        (aggregate, through): (i64, i64),
        mut places: VecDeque<Place>,
        dropped: Vec<i64>,
    ) -> Result<Phase> {
        let mut taken = Vec::new();
        let (mut events, mut bytes, mut drops, mut overflows) = (0, 0, false, false);
        let (mut read, mut goes_on) = (0, false);
        while let Some(place) = places.front().filter(|_| !overflows) {
            // Of a history that one key fills hardly anything stays: what all of it is made of must not lie in memory.
            goes_on = taken.len() > 1 && (read >= 2 * SEGMENT_BYTES || taken.len() >= MERGED_SEGMENTS);
            if goes_on {
                break;
            }
            // `None`: somebody else is at this aggregate.
            let found = known.find_segment(connection, place);
            let Some(segment) = self.readable(connection, known, aggregate, found)?.flatten() else {
                return Ok(Phase::Compact(aggregate));
            };
            let kept = || segment.entries().filter(|entry| dropped.binary_search(&entry.seq).is_err());
            let (count, size) = (kept().count(), kept().map(|entry| pack::weight(&entry)).sum());
            let fits = segment::fits(events + count.saturating_sub(1), bytes, size);
            if !taken.is_empty() && !fits && segment::is_well_filled(events, bytes) {
                break;
            }
            overflows = !fits;
            (events, bytes, drops) = (events + count, bytes + size, drops || count < segment.len());
            read += segment.bytes();
            taken.push((*place, segment));
            places.pop_front();
        }
        if taken.is_empty() {
            if through >= 0 {
                let fingerprint = self.rules.fingerprint();
                self.turns.slice(connection, || {
                    let mut statement = connection
                        .cached("UPDATE event_sequence SET compacted_seq = ?2, compacted_by = ?3 WHERE key = ?1")?;
                    Ok(Some(statement.execute((aggregate, through, fingerprint))?))
                })?;
            }
            return Ok(Phase::Compact(aggregate));
        }
        if drops || taken.len() > 1 || self.is_pressed_in_passing(connection, &taken[0].0)? {
            let entries: Vec<Entry<'_>> = taken.iter().flat_map(|(_, segment)| segment.entries()).collect();
            let replaced = taken.iter().map(|(place, _)| *place).collect();
            let ready = pack::ready(aggregate, &entries, &dropped, replaced, None, Effort::Thorough);
            let Some(ready) = self.readable(connection, known, aggregate, ready)? else {
                return Ok(Phase::Compact(aggregate));
            };
            if !self.put(connection, &ready)? {
                return Ok(Phase::Compact(aggregate));
            }
            // More may fit to what is there now.
            if let Some(place) = ready.last().filter(|_| goes_on || ready.is_split()) {
                places.push_front(place);
            }
        }
        Ok(Phase::Compacting { aggregate, places, dropped, through })
    }

    fn is_pressed_in_passing(&self, connection: &Connection, place: &Place) -> Result<bool> {
        let mut statement = connection.cached("SELECT effort FROM event_segment WHERE position = ?1")?;
        let effort: Option<i64> = statement.query_row([place.position], |row| row.get(0)).optional()?;
        Ok(self.task.plan.effort == Effort::Thorough && effort == Some(Effort::Quick as i64))
    }

    fn after_packing(&self, connection: &Connection) -> Result<Phase> {
        if self.task.rewrite {
            return Ok(Phase::Rewrite);
        }
        let incremental: i64 = connection.sqlite().pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        // 2: incremental. Other files keep their size, and use freed pages again.
        Ok(if incremental == 2 { Phase::Vacuum { pages: FIRST_VACUUM_PAGES } } else { self.after_vacuum(connection)? })
    }
}

impl Phase {
    /// The same once more, after an error.
    fn again(&self) -> Phase {
        match self {
            Phase::Pack(after, list) => Phase::Pack(*after, list.clone()),
            Phase::Compact(after) => Phase::Compact(*after),
            Phase::Surveying(aggregate, ..) | Phase::Compacting { aggregate, .. } => Phase::Compact(*aggregate - 1),
            Phase::Rewrite => Phase::Rewrite,
            Phase::Vacuum { pages } => Phase::Vacuum { pages: *pages },
            Phase::Analyze(tables) => Phase::Analyze(tables.clone()),
            Phase::Checkpoint => Phase::Checkpoint,
            Phase::Done => Phase::Done,
        }
    }
}

impl Job for Maintenance {
    fn step(&mut self, connection: &Connection, known: &mut Known) -> Result<bool> {
        self.next(connection, known)
    }

    fn report(&self) -> serde_json::Value {
        let mut report = serde_json::json!(self.progress);
        report["longestHold"] = serde_json::json!(self.turns.longest_hold().as_secs_f64() * 1000.0);
        report
    }
}

/// Pages of the file that hold nothing.
pub fn free_pages(connection: &Connection) -> Result<i64> {
    Ok(connection.sqlite().pragma_query_value(None, "freelist_count", |row| row.get(0))?)
}

/// Pages of the file.
pub fn page_count(connection: &Connection) -> Result<i64> {
    Ok(connection.sqlite().pragma_query_value(None, "page_count", |row| row.get(0))?)
}
