//! A reader's act: the same rows as the writer's, with the id and seq that the writer gave. The checks stand in the
//! order of the rules: shape and size (`input.rs`) · known type · aggregate · schema (JavaScript) · owner and epoch ·
//! sequence.

pub mod input;

use std::collections::HashMap;
use std::ops::Range;

use rusqlite::OptionalExtension;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::{ReplayResult, StoredEvent};
use crate::limits::PAGE_BYTES;
use crate::owner;
use crate::payload;
use crate::project::{self, Definition, Projector};
use crate::remove;
use crate::tables::{self, EventRow, Sequence, Types};
use crate::transaction::Transactions;
use input::{EventItem, Item, Text};

/// Items that JavaScript sees at a time, at most.
const PAGE_ITEMS: usize = 500;

/// The whole input of one replay, and how far it has come.
pub struct Batch {
    source: String,
    items: Vec<Item>,
    /// What a SQL projector gets as `:data` instead of the stored text, by index.
    projected: HashMap<usize, Box<str>>,
    aggregates: Vec<Progress>,
    by_id: HashMap<Box<str>, usize>,
    next_position: Option<i64>,
}

/// How one aggregate stands within the batch. Its sequence row is written once, at the end.
struct Progress {
    aggregate_id: Box<str>,
    sequence: Option<Sequence>,
    moved: bool,
    applied: u32,
    duplicate: u32,
}

/// In whose name, and in which epoch, a replay is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Authority<'a> {
    /// Claims what nobody owns and refuses a different owner.
    pub owner: Option<&'a str>,
    /// A lower one is refused, a higher one adopted.
    pub epoch: Option<i64>,
}

/// What a call of [`Batch::apply`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the first item that has not been dealt with.
    pub stop: usize,
    /// Applied events: those whose projector is JavaScript's, or all of them if asked.
    pub indices: Vec<usize>,
}

/// Everything an item needs besides the batch.
pub struct Target<'a> {
    /// Holds the tables.
    pub connection: &'a Connection,
    /// Whose innermost frame takes the changes.
    pub transactions: &'a mut Transactions,
    /// Interned names.
    pub types: &'a mut Types,
    /// What is known of the types.
    pub definitions: &'a Definitions,
}

/// The registered definitions, by index and by name.
#[derive(Default)]
pub struct Definitions {
    list: Vec<Definition>,
    by_name: HashMap<String, usize>,
}

impl Definitions {
    /// In the order in which they were registered.
    pub fn new(list: Vec<Definition>) -> Self {
        let by_name = list
            .iter()
            .enumerate()
            .map(|(index, definition)| (definition.name.clone(), index))
            .collect();
        Definitions { list, by_name }
    }

    /// The definition of an index that this layer handed out.
    pub fn get(&self, index: usize) -> Result<&Definition> {
        self.list
            .get(index)
            .ok_or_else(|| Error::InvalidArgument(format!("No definition has index {index}")))
    }

    /// The index of a `type.version`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

/// What an item comes to.
enum Verdict {
    Nothing,
    Duplicate,
    Event { definition: usize },
    Gap { after: i64, through: i64 },
    Removed { seq: i64, definition: Option<usize> },
}

impl Batch {
    /// Reads JSON text: an array, lines, or one object.
    pub fn from_text(source: String, max_event_bytes: usize) -> Result<Self> {
        let items = input::read_text(&source, max_event_bytes)?;
        Ok(Self::new(source, items))
    }

    /// Reads JSON bytes. `ERR_INVALID_EVENT` where they are not UTF-8.
    pub fn from_bytes(bytes: &[u8], max_event_bytes: usize) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::InvalidEvent {
            index: bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count(),
            field: "json",
            message: format!("is not UTF-8 at byte {}", error.valid_up_to()),
        })?;
        Self::from_text(text.to_owned(), max_event_bytes)
    }

    /// Reads one JSON text an item.
    pub fn from_texts(texts: &[String], max_event_bytes: usize) -> Result<Self> {
        let mut source = String::with_capacity(texts.iter().map(String::len).sum());
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(texts.len());
        for text in texts {
            let start = source.len();
            source.push_str(text);
            ranges.push(start..source.len());
        }
        let items = input::read_texts(&source, &ranges, max_event_bytes)?;
        Ok(Self::new(source, items))
    }

    fn new(source: String, items: Vec<Item>) -> Self {
        let mut batch = Batch {
            source,
            items,
            projected: HashMap::new(),
            aggregates: Vec::new(),
            by_id: HashMap::new(),
            next_position: None,
        };
        for index in 0..batch.items.len() {
            let aggregate_id = aggregate_of(&batch.items[index]);
            if !batch.by_id.contains_key(aggregate_id) {
                let aggregate_id: Box<str> = aggregate_id.into();
                batch.by_id.insert(aggregate_id.clone(), batch.aggregates.len());
                batch.aggregates.push(Progress {
                    aggregate_id,
                    sequence: None,
                    moved: false,
                    applied: 0,
                    duplicate: 0,
                });
            }
        }
        batch
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items from `from` that JavaScript has to see, in a page bounded by count and bytes, and where the page ends.
    /// An unknown type or an aggregate mismatch ends the page before it, and fails when it is the first item.
    pub fn page(&self, definitions: &Definitions, from: usize) -> Result<(usize, Vec<usize>)> {
        let (mut seen, mut bytes) = (Vec::new(), 0);
        for index in from..self.items.len() {
            if seen.len() >= PAGE_ITEMS || bytes >= PAGE_BYTES {
                return Ok((index, seen));
            }
            let Some(event) = self.event(index) else { continue };
            match self.check(definitions, index, event) {
                Ok(definition) if definition.needs_javascript() || !event.canonical => {
                    seen.push(index);
                    bytes += event.data.of(&self.source).len();
                }
                Ok(_) => {}
                Err(error) if index == from => return Err(error),
                Err(_) => return Ok((index, seen)),
            }
        }
        Ok((self.items.len(), seen))
    }

    /// The event of an item, where it has one.
    pub fn event(&self, index: usize) -> Option<&EventItem> {
        self.items.get(index).and_then(event_of)
    }

    /// The text that a part of an item stands for.
    pub fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        text.of(&self.source)
    }

    /// Takes the stored form of an item's data and metadata from JavaScript. `ERR_AGGREGATE_MISMATCH` as in `page`,
    /// which could not tell before.
    pub fn set_data(
        &mut self,
        definitions: &Definitions,
        index: usize,
        data: String,
        metadata: Option<String>,
    ) -> Result<()> {
        match self.items.get_mut(index) {
            Some(Item::Event(event) | Item::Removed { event: Some(event), .. }) => {
                event.data = Text::Owned(data.into());
                event.metadata = metadata.map(|text| Text::Owned(text.into()));
                event.canonical = true;
            }
            _ => return Err(Error::InvalidArgument(format!("No event has index {index}"))),
        }
        match self.event(index) {
            Some(event) => self.check(definitions, index, event).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Takes the upcast input that a SQL projector gets as `:data`.
    pub fn set_projected(&mut self, index: usize, data: String) {
        self.projected.insert(index, data.into());
    }

    /// Applies the items of `range` in order, inside the open transaction. It stops early where a JavaScript projector
    /// has to run before the next item can be dealt with, and fails only on the first item it looks at.
    pub fn apply(
        &mut self,
        target: &mut Target<'_>,
        range: Range<usize>,
        authority: Authority<'_>,
        collect: bool,
    ) -> Result<Applied> {
        let mut applied = Applied {
            stop: range.end,
            indices: Vec::new(),
        };
        let mut javascript_waits = false;
        for index in range {
            let verdict = match self.judge(target, index, authority) {
                Ok(verdict) => verdict,
                Err(_) if javascript_waits => {
                    applied.stop = index;
                    break;
                }
                Err(error) => return Err(error),
            };
            let definition = match &verdict {
                Verdict::Event { definition }
                | Verdict::Removed {
                    definition: Some(definition),
                    ..
                } => Some(target.definitions.get(*definition)?),
                _ => None,
            };
            let projector = definition.map(|definition| &definition.projector);
            if javascript_waits && matches!(projector, Some(Projector::Sql(_))) {
                applied.stop = index;
                break;
            }
            self.perform(target, index, verdict, authority)?;
            let javascript = matches!(projector, Some(Projector::JavaScript));
            if projector.is_some() && (collect || javascript) {
                applied.indices.push(index);
            }
            javascript_waits |= javascript;
        }
        if applied.stop == self.items.len() {
            self.finish(target.connection)?;
        }
        Ok(applied)
    }

    /// What each aggregate came to, in order of appearance.
    pub fn results(&self) -> Vec<ReplayResult> {
        self.aggregates
            .iter()
            .map(|progress| ReplayResult {
                aggregate_id: progress.aggregate_id.to_string(),
                applied: progress.applied,
                duplicate: progress.duplicate,
                seq: progress.sequence.as_ref().map_or(-1, |sequence| sequence.seq),
            })
            .collect()
    }

    /// Known type, and `data[aggregate]` equal to the envelope's. The latter waits for `set_data` where the text is
    /// not in its stored form.
    fn check<'d>(&self, definitions: &'d Definitions, index: usize, event: &EventItem) -> Result<&'d Definition> {
        let definition = match definitions.find(&event.type_name) {
            Some(found) => definitions.get(found)?,
            None => {
                return Err(Error::UnknownEvent {
                    type_name: event.type_name.to_string(),
                    aggregate_id: event.aggregate_id.to_string(),
                    seq: event.seq,
                    index,
                });
            }
        };
        if event.canonical {
            let data = event.data.of(&self.source);
            let literal = payload::inspect(data, &definition.aggregate)
                .field
                .map(|range| &data[range]);
            if literal.and_then(payload::as_string).as_deref() != Some(&event.aggregate_id) {
                return Err(Error::AggregateMismatch {
                    index,
                    type_name: definition.name.clone(),
                    field: definition.aggregate.clone(),
                    aggregate_id: event.aggregate_id.to_string(),
                    got: payload::shortened(literal.unwrap_or("missing")).into_owned(),
                });
            }
        }
        Ok(definition)
    }

    /// Owner, epoch and sequence of an item. Writes nothing.
    fn judge(&mut self, target: &mut Target<'_>, index: usize, authority: Authority<'_>) -> Result<Verdict> {
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
        match item {
            Item::Synced { .. } => Ok(Verdict::Nothing),
            Item::Gap { after, through, .. } => {
                if *after > last {
                    let (expected, got) = (last + 1, after + 1);
                    return Err(Error::SequenceMismatch {
                        aggregate_id: aggregate_id(),
                        expected,
                        got,
                        index,
                    });
                }
                Ok(if *through <= last {
                    Verdict::Duplicate
                } else {
                    Verdict::Gap {
                        after: last,
                        through: *through,
                    }
                })
            }
            Item::Removed { seq, event, .. } => {
                let removed = progress
                    .sequence
                    .as_ref()
                    .and_then(|sequence| sequence.removed_seq)
                    .unwrap_or(-1);
                if *seq <= removed {
                    return Ok(Verdict::Duplicate);
                }
                let definition = match event {
                    Some(event) => Some(projectable(target.definitions, event)?),
                    None => None,
                };
                Ok(Verdict::Removed { seq: *seq, definition })
            }
            Item::Event(event) if event.seq <= last => {
                let sequence = progress.sequence.as_ref().expect("an aggregate with a seq has a row");
                compare(connection, target.types, &self.source, sequence, event, index)?;
                Ok(Verdict::Duplicate)
            }
            Item::Event(event) if event.seq > last + 1 => Err(Error::SequenceMismatch {
                aggregate_id: aggregate_id(),
                expected: last + 1,
                got: event.seq,
                index,
            }),
            Item::Event(event) => Ok(Verdict::Event {
                definition: projectable(target.definitions, event)?,
            }),
        }
    }

    /// Writes what the verdict says, and runs the item's SQL projector.
    fn perform(
        &mut self,
        target: &mut Target<'_>,
        index: usize,
        verdict: Verdict,
        authority: Authority<'_>,
    ) -> Result<()> {
        let connection = target.connection;
        let item = &self.items[index];
        let progress = &mut self.aggregates[self.by_id[aggregate_of(item)]];
        if matches!(verdict, Verdict::Nothing) {
            return Ok(());
        }
        let sequence = progress.claim(connection, authority)?;
        if matches!(verdict, Verdict::Duplicate) {
            progress.duplicate += 1;
            return Ok(());
        }
        let (definition, position) = match verdict {
            Verdict::Nothing | Verdict::Duplicate => return Ok(()),
            Verdict::Gap { after, through } => {
                tables::insert_gap(connection, sequence.key, after, through)?;
                sequence.seq = through;
                (None, 0)
            }
            Verdict::Removed { seq, definition } => {
                let position = take_position(&mut self.next_position, connection)?;
                let tombstone = event_of(item).map(|event| event.to_json(&self.source));
                remove::erase(connection, sequence.key, seq, position, tombstone.as_deref())?;
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
                        type_key: target.types.key(connection, &event.type_name)?,
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
            return Ok(());
        };
        let definition = target.definitions.get(definition)?;
        let seen = StoredEvent {
            data: self
                .projected
                .get(&index)
                .map_or(event.data.of(&self.source), |text| text),
            ..event.as_stored(&self.source, position)
        };
        project::project(connection, target.transactions, definition, &seen)
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

fn aggregate_of(item: &Item) -> &str {
    match item {
        Item::Event(event) => &event.aggregate_id,
        Item::Gap { aggregate_id, .. } | Item::Removed { aggregate_id, .. } | Item::Synced { aggregate_id } => {
            aggregate_id
        }
    }
}

/// The definition of an event that is to be applied. `ERR_NO_PROJECTOR` where nothing projects it.
fn projectable(definitions: &Definitions, event: &EventItem) -> Result<usize> {
    let unknown = || Error::InvalidArgument(format!("{} was not checked before it was applied", event.type_name));
    let found = definitions.find(&event.type_name).ok_or_else(unknown)?;
    match definitions.get(found)?.projector {
        Projector::Missing => Err(Error::NoProjector {
            type_name: event.type_name.to_string(),
        }),
        _ => Ok(found),
    }
}

/// A seq that is known already must hold the same event, unless it went with a gap or a removal.
fn compare(
    connection: &Connection,
    types: &mut Types,
    source: &str,
    sequence: &Sequence,
    event: &EventItem,
    index: usize,
) -> Result<()> {
    let mut statement = connection.cached("SELECT id, type, data FROM event WHERE aggregate = ?1 AND seq = ?2")?;
    let stored: Option<(String, i64, String)> = statement
        .query_row((sequence.key, event.seq), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((id, type_key, data)) = stored else {
        let gone = sequence.removed_seq.is_some_and(|removed| event.seq <= removed)
            || tables::in_gap(connection, sequence.key, event.seq)?;
        return if gone {
            Ok(())
        } else {
            let (aggregate_id, seq) = (&event.aggregate_id, event.seq);
            Err(Error::Corrupt(format!(
                "Aggregate \"{aggregate_id}\" has lost the event at seq {seq}"
            )))
        };
    };
    let differs = if *id != *event.id {
        "id"
    } else if *types.name(connection, type_key)? != *event.type_name {
        "type"
    } else if !payload::same_value(&data, event.data.of(source)) {
        "data"
    } else {
        return Ok(());
    };
    Err(Error::ReplayDiverged {
        aggregate_id: event.aggregate_id.to_string(),
        seq: event.seq,
        type_name: event.type_name.to_string(),
        what: differs,
        index,
    })
}

/// The event of an item, where it has one.
fn event_of(item: &Item) -> Option<&EventItem> {
    match item {
        Item::Event(event) | Item::Removed { event: Some(event), .. } => Some(event),
        _ => None,
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

impl EventItem {
    /// The event as the log gives it; `source` is the text that it was read from.
    pub fn as_stored<'a>(&'a self, source: &'a str, position: i64) -> StoredEvent<'a> {
        StoredEvent {
            id: &self.id,
            type_name: &self.type_name,
            seq: self.seq,
            aggregate_id: &self.aggregate_id,
            created: self.created,
            metadata: self.metadata.as_ref().map(|text| text.of(source)),
            data: self.data.of(source),
            position,
        }
    }

    /// The serialized event, as a tombstone keeps it.
    fn to_json(&self, source: &str) -> String {
        self.as_stored(source, 0).to_json()
    }
}
