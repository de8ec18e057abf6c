//! Applies the items of a batch inside the open transaction: owner and epoch, sequence, rows, SQL projectors. Each item
//! is judged, which writes nothing, and then performed.

use std::ops::Range;

use super::input::{EventItem, Item};
use super::{Batch, Progress, aggregate_of, event_of};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::history;
use crate::known::Known;
use crate::limits::ROW_BYTES;
use crate::owner;
use crate::payload;
use crate::project::{self, Definitions, Projector};
use crate::remove;
use crate::tables::{self, EventRow, Sequence};
use crate::transaction::Transactions;

/// In whose name, and in which epoch, a replay is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Authority<'a> {
    /// Claims what nobody owns and refuses a different owner.
    pub owner: Option<&'a str>,
    /// A lower one is refused, a higher one adopted.
    pub epoch: Option<i64>,
}

impl Authority<'_> {
    /// `ERR_INVALID_ARGUMENT` or `ERR_TOO_LARGE` for what cannot own anything: at epoch 0 nobody has owned it yet.
    pub fn check(&self) -> Result<()> {
        if self.owner.is_some() && self.epoch == Some(0) {
            return Err(Error::InvalidArgument("An owner's epoch is at least 1".to_owned()));
        }
        self.owner.map_or(Ok(()), owner::check_name)
    }
}

/// What a call of [`Batch::apply`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the first item that has not been dealt with.
    pub stop: usize,
    /// Applied events, by index and position: those whose projector is JavaScript's, or all of them if asked.
    pub events: Vec<(usize, i64)>,
    /// The positions that were taken, from the first through the last; 0 for none.
    pub positions: (i64, i64),
    /// Bytes of the data that was stored.
    pub bytes: u64,
}

/// Everything an item needs besides the batch.
pub struct Target<'a> {
    /// Holds the tables.
    pub connection: &'a Connection,
    /// Whose innermost frame takes the changes.
    pub transactions: &'a mut Transactions,
    /// Interned names, decoded segments.
    pub known: &'a mut Known,
    /// What is known of the types.
    pub definitions: &'a Definitions,
}

/// What an item comes to.
enum Verdict {
    Duplicate,
    Event {
        definition: usize,
    },
    Gap {
        after: i64,
        through: i64,
    },
    /// `held`: the position of the deletion event, where that came by itself before.
    Removed {
        seq: i64,
        definition: Option<usize>,
        held: Option<i64>,
    },
}

impl Batch {
    /// Applies the items of `range` in order, inside the open transaction. It stops early where a JavaScript projector
    /// has to run before the next item can be dealt with. A check fails only on the first item that is looked at;
    /// SQLite may refuse a write on any.
    pub fn apply(
        &mut self,
        target: &mut Target<'_>,
        range: Range<usize>,
        authority: Authority<'_>,
        collect: bool,
    ) -> Result<Applied> {
        let mut applied = Applied { stop: range.end, ..Applied::default() };
        self.skipped.clear();
        let mut javascript_waits = false;
        for index in range {
            let verdict = match self.judge(target, index, authority) {
                Ok(Some(verdict)) => verdict,
                Ok(None) => continue,
                Err(_) if javascript_waits => {
                    applied.stop = index;
                    break;
                }
                Err(error) => return Err(error),
            };
            let definition = match &verdict {
                Verdict::Event { definition } | Verdict::Removed { definition: Some(definition), .. } => {
                    Some(target.definitions.get(*definition)?)
                }
                _ => None,
            };
            let projector = definition.map(|definition| &definition.projector);
            if javascript_waits && matches!(projector, Some(Projector::Sql(_))) {
                applied.stop = index;
                break;
            }
            let position = self.perform(target, index, verdict, authority)?;
            if position > 0 {
                applied.positions = (if applied.positions.0 == 0 { position } else { applied.positions.0 }, position);
            }
            if let (true, Item::Event(event)) = (position > 0, &self.items[index]) {
                applied.bytes += event.data.of(&self.source).len() as u64 + ROW_BYTES;
            }
            let javascript = matches!(projector, Some(Projector::JavaScript));
            if projector.is_some() && (collect || javascript) {
                applied.events.push((index, position));
            }
            javascript_waits |= javascript;
        }
        if applied.stop == self.items.len() {
            self.finish(target.connection)?;
        }
        Ok(applied)
    }

    /// Owner, epoch and sequence of an item. Writes nothing. `None`: the item says nothing that is to be kept.
    fn judge(&mut self, target: &mut Target<'_>, index: usize, authority: Authority<'_>) -> Result<Option<Verdict>> {
        let connection = target.connection;
        let item = &self.items[index];
        let progress = &mut self.aggregates[self.by_id[aggregate_of(item)]];
        if progress.sequence.is_none() {
            progress.sequence = tables::find_sequence(connection, &progress.aggregate_id)?;
        }
        let last = progress.sequence.as_ref().map_or(-1, |sequence| sequence.seq);
        if let (Some(sequence), false) = (&progress.sequence, matches!(item, Item::Synced { .. })) {
            owner::replayed(&progress.aggregate_id, sequence, authority.owner, authority.epoch)?;
        }
        let aggregate_id = || progress.aggregate_id.to_string();
        Ok(Some(match item {
            Item::Synced { .. } => return Ok(None),
            Item::Gap { after, through, .. } => {
                if *after > last {
                    let (expected, got) = (last + 1, after + 1);
                    return Err(Error::SequenceMismatch { aggregate_id: aggregate_id(), expected, got, index });
                }
                if *through <= last { Verdict::Duplicate } else { Verdict::Gap { after: last, through: *through } }
            }
            Item::Removed { seq, event, .. } => {
                let removed = progress.sequence.as_ref().and_then(|sequence| sequence.removed_seq).unwrap_or(-1);
                if *seq <= removed {
                    return Ok(Some(Verdict::Duplicate));
                }
                let sequence = progress.sequence.as_ref().filter(|sequence| *seq <= sequence.seq);
                let held = match (event, sequence) {
                    (Some(event), Some(sequence)) => {
                        compare(connection, target.known, &self.source, sequence, event, index)?
                    }
                    _ => None,
                };
                let definition = match event {
                    // One that came by itself before was projected then.
                    Some(event) if held.is_none() => Some(projectable(target.definitions, event, index)?),
                    _ => None,
                };
                Verdict::Removed { seq: *seq, definition, held }
            }
            Item::Event(event) if event.seq <= last => {
                let sequence = progress.sequence.as_ref().expect("an aggregate with a seq has a row");
                compare(connection, target.known, &self.source, sequence, event, index)?;
                Verdict::Duplicate
            }
            Item::Event(event) if event.seq > last + 1 => {
                let (expected, got) = (last + 1, event.seq);
                return Err(Error::SequenceMismatch { aggregate_id: aggregate_id(), expected, got, index });
            }
            Item::Event(event) => Verdict::Event { definition: projectable(target.definitions, event, index)? },
        }))
    }

    /// Writes what the verdict says, and runs the item's SQL projector. Answers the position that it took; 0 for none.
    fn perform(
        &mut self,
        target: &mut Target<'_>,
        index: usize,
        verdict: Verdict,
        authority: Authority<'_>,
    ) -> Result<i64> {
        let connection = target.connection;
        let item = &self.items[index];
        let progress = &mut self.aggregates[self.by_id[aggregate_of(item)]];
        let sequence = progress.claim(connection, authority)?;
        let (definition, position) = match verdict {
            Verdict::Duplicate => {
                progress.duplicate += 1;
                return Ok(0);
            }
            Verdict::Gap { after, through } => {
                let position = take_position(&mut self.next_position, connection)?;
                tables::insert_gap(connection, sequence.key, after, through)?;
                tables::move_without_row(connection, sequence.key, position)?;
                sequence.seq = through;
                (None, position)
            }
            Verdict::Removed { seq, definition, held } => {
                let position = take_position(&mut self.next_position, connection)?;
                let tombstone = event_of(item).map(|event| event.to_json(&self.source));
                // A deletion event keeps its place, so that nobody is told of it twice.
                let told_at = held.unwrap_or(position);
                remove::erase(connection, target.known, sequence.key, seq, position, told_at, tombstone.as_deref())?;
                (sequence.seq, sequence.removed_seq) = (sequence.seq.max(seq), Some(seq));
                (definition, position)
            }
            Verdict::Event { definition } => {
                let position = take_position(&mut self.next_position, connection)?;
                if let Item::Event(event) = item {
                    sequence.seq = event.seq;
                    let row = EventRow {
                        aggregate: sequence.key,
                        seq: event.seq,
                        id: &event.id,
                        type_key: target.known.type_key(connection, &event.type_name)?,
                        created: event.created,
                        metadata: event.metadata.as_ref().map(|text| text.of(&self.source)),
                        data: event.data.of(&self.source),
                    };
                    tables::insert_event(connection, position, &row)?;
                }
                (Some(definition), position)
            }
        };
        (progress.applied, progress.moved) = (progress.applied + 1, true);
        let (Some(event), Some(definition)) = (event_of(item), definition) else {
            return Ok(position);
        };
        let definition = target.definitions.get(definition)?;
        let seen = StoredEvent {
            data: self.projected.get(&index).map_or(event.data.of(&self.source), |text| text),
            ..event.as_stored(&self.source, position)
        };
        let skipped = project::project(connection, target.transactions, definition, &seen)?;
        self.skipped.extend(skipped.map(|error| (index, error)));
        Ok(position)
    }

    /// Writes the sequence rows that moved.
    fn finish(&mut self, connection: &Connection) -> Result<()> {
        for progress in self.aggregates.iter_mut().filter(|progress| progress.moved) {
            if let Some(sequence) = &progress.sequence {
                tables::update_seq(connection, sequence.key, sequence.seq)?;
            }
            progress.moved = false;
        }
        Ok(())
    }
}

impl Progress {
    /// The aggregate's row, made where there is none, with the owner and epoch that the replay brings.
    fn claim(&mut self, connection: &Connection, authority: Authority<'_>) -> Result<&mut Sequence> {
        let (owner, epoch) = (authority.owner, authority.epoch);
        let sequence = match self.sequence.take() {
            None => {
                let epoch = epoch.unwrap_or_else(|| i64::from(owner.is_some()));
                tables::insert_sequence(connection, &self.aggregate_id, owner, epoch)?
            }
            Some(mut sequence) => {
                if let Some((owner, epoch)) = owner::replayed(&self.aggregate_id, &sequence, owner, epoch)? {
                    tables::update_owner(connection, sequence.key, owner.as_deref(), epoch)?;
                    (sequence.owner, sequence.epoch) = (owner, epoch);
                }
                sequence
            }
        };
        Ok(self.sequence.insert(sequence))
    }
}

/// The definition of an event that is to be applied. `ERR_NO_PROJECTOR` where nothing projects it.
fn projectable(definitions: &Definitions, event: &EventItem, index: usize) -> Result<usize> {
    let unknown = || Error::InvalidArgument(format!("{} was not checked before it was applied", event.type_name));
    let found = definitions.find(&event.type_name).ok_or_else(unknown)?;
    match definitions.get(found)?.projector {
        Projector::Missing => Err(Error::NoProjector {
            type_name: event.type_name.to_string(),
            aggregate_id: event.aggregate_id.to_string(),
            seq: event.seq,
            index,
        }),
        _ => Ok(found),
    }
}

/// A seq that is known already must hold the same event, unless it went with a gap or a removal. Answers its
/// position where it is held.
fn compare(
    connection: &Connection,
    known: &mut Known,
    source: &str,
    sequence: &Sequence,
    event: &EventItem,
    index: usize,
) -> Result<Option<i64>> {
    let mut compared = None;
    let aggregate = (&*event.aggregate_id, sequence.key);
    history::find(connection, known, aggregate, event.seq, &mut |stored| {
        let differs = if *stored.id != *event.id {
            Some("id")
        } else if *stored.type_name != *event.type_name {
            Some("type")
        } else if !payload::same_value(stored.data, event.data.of(source)) {
            Some("data")
        } else {
            None
        };
        compared = Some((stored.position, differs));
        Ok(())
    })?;
    let Some((position, differs)) = compared else {
        let gone = sequence.removed_seq.is_some_and(|removed| event.seq <= removed)
            || tables::in_gap(connection, sequence.key, event.seq)?;
        return if gone {
            Ok(None)
        } else {
            let (aggregate_id, seq) = (&event.aggregate_id, event.seq);
            Err(Error::Corrupt(format!("Aggregate \"{aggregate_id}\" has lost the event at seq {seq}")))
        };
    };
    let Some(differs) = differs else { return Ok(Some(position)) };
    Err(Error::ReplayDiverged {
        aggregate_id: event.aggregate_id.to_string(),
        seq: event.seq,
        type_name: event.type_name.to_string(),
        what: differs,
        index,
    })
}

/// The next position; the table is asked once a batch.
fn take_position(next: &mut Option<i64>, connection: &Connection) -> Result<i64> {
    let position = match *next {
        Some(position) => position,
        None => tables::next_position(connection)?,
    };
    *next = Some(position + 1);
    Ok(position)
}
