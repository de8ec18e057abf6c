//! Applies the items of a batch inside the open transaction: owner and epoch, sequence, rows, SQL projectors. Each item
//! is judged, which writes nothing, and then performed.

use std::ops::Range;

use super::compare::compare;
use super::input::{EventItem, Item};
use super::{Batch, Progress, aggregate_of, event_of};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::known::Known;
use crate::limits::ROW_BYTES;
use crate::owner;
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
            return Err(Error::InvalidArgument("An owner's epoch is at least 1".to_owned()).into());
        }
        self.owner.map_or(Ok(()), owner::check_name)
    }
}

/// What a call of [`Batch::apply`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the first item that has not been dealt with.
    pub stop: usize,
    /// Applied events: those whose projector is JavaScript's, and with `collect` all that listeners are to hear.
    pub events: Vec<Event>,
    /// The positions that were taken, from the first through the last; 0 for none.
    pub positions: (i64, i64),
    /// Bytes of the data that was stored.
    pub bytes: u64,
}

/// An applied event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its index in the batch.
    pub index: usize,
    /// Where it stands in the order of commits.
    pub position: i64,
    /// Its JavaScript projector is to run.
    pub project: bool,
    /// Listeners are to hear of it; with `collect` alone.
    pub publish: bool,
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
    /// `definition`: what projects it; `None`: it is only stored.
    Event {
        definition: Option<usize>,
    },
    /// It is stored already, at that position.
    Stored {
        definition: usize,
        position: i64,
    },
    Gap {
        after: i64,
        through: i64,
    },
    /// `held`: the position of the deletion event, where that came by itself before; `projected`: through which seq the
    /// aggregate is projected then.
    Removed {
        seq: i64,
        definition: Option<usize>,
        held: Option<i64>,
        projected: Option<i64>,
    },
}

impl Verdict {
    /// What projects its event now.
    fn definition(&self) -> Option<usize> {
        match self {
            Verdict::Event { definition } | Verdict::Removed { definition, .. } => *definition,
            Verdict::Stored { definition, .. } => Some(*definition),
            _ => None,
        }
    }

    /// Whether its event, where it has one, is new.
    fn is_new(&self) -> bool {
        matches!(self, Verdict::Event { .. } | Verdict::Removed { held: None, .. })
    }
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
        self.failed = None;
        for index in range {
            if self.is_parked(index) {
                continue;
            }
            let verdict = match self.judge(target, index, authority) {
                Ok(Some(verdict)) => verdict,
                Ok(None) => continue,
                Err(_) if javascript_waits => {
                    applied.stop = index;
                    break;
                }
                Err(error) => {
                    self.failed = Some(index);
                    return Err(error);
                }
            };
            let definition = verdict.definition().map(|index| target.definitions.get(index)).transpose()?;
            let publish = collect && verdict.is_new() && event_of(&self.items[index]).is_some();
            let projector = definition.map(|definition| &definition.projector);
            if javascript_waits && matches!(projector, Some(Projector::Sql(_))) {
                applied.stop = index;
                break;
            }
            let position = match self.perform(target, index, verdict, authority) {
                Ok(position) => position,
                Err(error) => {
                    self.failed = Some(index);
                    return Err(error);
                }
            };
            if position > 0 {
                applied.positions = (if applied.positions.0 == 0 { position } else { applied.positions.0 }, position);
            }
            if let (true, Item::Event(event)) = (position > 0, &self.items[index]) {
                applied.bytes += event.data.of(&self.source).len() as u64 + ROW_BYTES;
            }
            let project = matches!(projector, Some(Projector::JavaScript));
            if project || publish {
                applied.events.push(Event { index, position, project, publish });
            }
            javascript_waits |= project;
        }
        Ok(applied)
    }

    /// Owner, epoch and sequence of an item. Writes nothing. `None`: the item says nothing that is to be kept.
    fn judge(&mut self, target: &mut Target<'_>, index: usize, authority: Authority<'_>) -> Result<Option<Verdict>> {
        let connection = target.connection;
        let item = &self.items[index];
        let at = self.by_id[aggregate_of(item)];
        let progress = &mut self.aggregates[at];
        if self.policy.park {
            self.saved.0.entry(at).or_insert_with(|| progress.state.clone());
        }
        if let (Some(stored), Item::Event(event)) = (&self.stored, item) {
            let definition = projectable(target.definitions, event, None)?;
            return Ok(Some(Verdict::Stored { definition, position: stored.positions[index] }));
        }
        let state = &mut progress.state;
        if state.sequence.is_none() {
            state.sequence = tables::find_sequence(connection, &progress.aggregate_id)?;
        }
        let last = state.sequence.as_ref().map_or(-1, |sequence| sequence.seq);
        let projected = state.sequence.as_ref().and_then(|sequence| sequence.projected);
        if let (Some(sequence), false) = (&state.sequence, matches!(item, Item::Synced { .. })) {
            owner::replayed(&progress.aggregate_id, sequence, authority.owner, authority.epoch)?;
        }
        let aggregate_id = || progress.aggregate_id.to_string();
        Ok(Some(match item {
            Item::Synced { .. } => return Ok(None),
            Item::Gap { after, through, .. } => {
                if *after > last {
                    let (expected, got) = (last + 1, after + 1);
                    return Err(Error::SequenceMismatch { aggregate_id: aggregate_id(), expected, got, index }.into());
                }
                if *through <= last { Verdict::Duplicate } else { Verdict::Gap { after: last, through: *through } }
            }
            Item::Removed { seq, event, .. } => {
                let removed = state.sequence.as_ref().and_then(|sequence| sequence.removed_seq).unwrap_or(-1);
                if *seq <= removed {
                    return Ok(Some(Verdict::Duplicate));
                }
                let sequence = state.sequence.as_ref().filter(|sequence| *seq <= sequence.seq);
                let held = match (event, sequence) {
                    (Some(event), Some(sequence)) => {
                        compare(connection, target.known, &self.source, sequence, event, index)?
                    }
                    _ => None,
                };
                // What was to be projected before it is gone. Later events that wait are kept, and go on waiting.
                let through =
                    projected.filter(|projected| projected.max(seq) < &last).map(|projected| projected.max(*seq));
                let was_projected = projected.is_none_or(|projected| *seq <= projected);
                let (definition, projected) = match event {
                    // One that came by itself before was projected then, or waits.
                    Some(_) if held.is_some() && was_projected => (None, projected),
                    Some(event) if target.definitions.find(&event.type_name).is_some() => {
                        (Some(projectable(target.definitions, event, Some(index))?), through)
                    }
                    // The tombstone keeps it until its type is known. Nothing that was projected may come after it.
                    Some(_) if self.policy.record && (*seq >= last || !was_projected) => (None, Some(seq - 1)),
                    Some(event) => return Err(unknown(event, index)),
                    None => (None, through),
                };
                Verdict::Removed { seq: *seq, definition, held, projected }
            }
            Item::Event(event) if event.seq <= last => {
                let sequence = state.sequence.as_ref().expect("an aggregate with a seq has a row");
                compare(connection, target.known, &self.source, sequence, event, index)?;
                Verdict::Duplicate
            }
            Item::Event(event) if event.seq > last + 1 => {
                let (expected, got) = (last + 1, event.seq);
                return Err(Error::SequenceMismatch { aggregate_id: aggregate_id(), expected, got, index }.into());
            }
            Item::Event(event) => match target.definitions.find(&event.type_name) {
                None if self.policy.record => Verdict::Event { definition: None },
                _ => {
                    let definition = projectable(target.definitions, event, Some(index))?;
                    Verdict::Event { definition: projected.is_none().then_some(definition) }
                }
            },
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
        let definition = verdict.definition();
        let progress = &mut self.aggregates[self.by_id[aggregate_of(item)]];
        let sequence = progress.claim(connection, authority)?;
        let before = sequence.projected;
        // Where it stands for its projector, and the position that it takes.
        let (position, taken) = match verdict {
            Verdict::Duplicate => {
                progress.state.duplicate += 1;
                return Ok(0);
            }
            Verdict::Stored { position, .. } => {
                sequence.projected = event_of(item).map(|event| event.seq);
                (position, 0)
            }
            Verdict::Gap { after, through } => {
                let position = take_position(&mut self.next_position, connection)?;
                tables::insert_gap(connection, sequence.key, after, through)?;
                tables::move_without_row(connection, sequence.key, position)?;
                sequence.seq = through;
                (position, position)
            }
            Verdict::Removed { seq, held, projected, .. } => {
                let position = take_position(&mut self.next_position, connection)?;
                let tombstone = event_of(item).map(|event| event.to_json(&self.source));
                // A deletion event keeps its place, so that nobody is told of it twice.
                let told_at = held.unwrap_or(position);
                remove::erase(connection, target.known, sequence.key, seq, position, told_at, tombstone.as_deref())?;
                (sequence.seq, sequence.removed_seq) = (sequence.seq.max(seq), Some(seq));
                sequence.projected = projected;
                (position, position)
            }
            Verdict::Event { definition } => {
                let position = take_position(&mut self.next_position, connection)?;
                if let Item::Event(event) = item {
                    if definition.is_none() {
                        sequence.projected.get_or_insert(sequence.seq);
                    }
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
                (position, position)
            }
        };
        let state = &mut progress.state;
        (state.applied, state.moved) = (state.applied + 1, state.moved || taken > 0);
        state.reprojected |= state.sequence.as_ref().is_some_and(|sequence| sequence.projected != before);
        let (Some(event), Some(definition)) = (event_of(item), definition) else {
            return Ok(taken);
        };
        let definition = target.definitions.get(definition)?;
        let seen = StoredEvent {
            data: self.projected.get(&index).map_or(event.data.of(&self.source), |text| text),
            ..event.as_stored(&self.source, position)
        };
        let skipped = project::project(connection, target.transactions, definition, &seen)?;
        self.skipped.extend(skipped.map(|error| (index, error)));
        Ok(taken)
    }

    /// Writes the sequence rows that moved, at the end of the transaction.
    pub fn finish(&mut self, connection: &Connection) -> Result<()> {
        let ends = self.stored.as_ref().is_some_and(|stored| stored.ends);
        for Progress { aggregate_id, state, .. } in &mut self.aggregates {
            if state.sequence.is_none() {
                // Of one that was parked at once nobody has asked yet.
                state.sequence = tables::find_sequence(connection, aggregate_id)?;
            }
            let Some(sequence) = &mut state.sequence else { continue };
            if ends {
                (sequence.projected, state.reprojected) = (None, true);
            }
            if state.moved {
                tables::update_seq(connection, sequence.key, sequence.seq)?;
            }
            if state.reprojected {
                tables::update_projected(connection, sequence.key, sequence.projected)?;
            }
            (state.moved, state.reprojected) = (false, false);
        }
        Ok(())
    }
}

impl Progress {
    /// The aggregate's row, made where there is none, with the owner and epoch that the replay brings.
    fn claim(&mut self, connection: &Connection, authority: Authority<'_>) -> Result<&mut Sequence> {
        let (owner, epoch) = (authority.owner, authority.epoch);
        let sequence = match self.state.sequence.take() {
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
        Ok(self.state.sequence.insert(sequence))
    }
}

fn unknown(event: &EventItem, index: usize) -> Box<Error> {
    let (type_name, aggregate_id) = (event.type_name.to_string(), event.aggregate_id.to_string());
    Error::UnknownEvent { type_name, aggregate_id, seq: event.seq, index }.into()
}

/// The definition of an event that is to be applied. `ERR_NO_PROJECTOR` where nothing projects it.
fn projectable(definitions: &Definitions, event: &EventItem, index: Option<usize>) -> Result<usize> {
    let unknown = || Error::InvalidArgument(format!("{} was not checked before it was applied", event.type_name));
    let found = definitions.find(&event.type_name).ok_or_else(unknown)?;
    match definitions.get(found)?.projector {
        Projector::Missing => Err(Error::NoProjector {
            type_name: event.type_name.to_string(),
            aggregate_id: event.aggregate_id.to_string(),
            seq: event.seq,
            index,
        }
        .into()),
        _ => Ok(found),
    }
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
