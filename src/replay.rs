//! A reader's act: the same rows as the writer's, with the id and seq that the writer gave. The checks stand in the
//! order of the rules: shape and size (`input.rs`) · known type · aggregate · schema (JavaScript) · owner and epoch ·
//! sequence.

pub mod apply;
mod compare;
pub mod input;

use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result, within};
use crate::event::{ReplayResult, StoredEvent, is_versioned};
use crate::limits::REPLAY_PAGE_BYTES;
use crate::payload;
use crate::project::{Definition, Definitions};
use crate::tables::Sequence;
use input::{EventItem, Item, Text};

/// Items that JavaScript sees at a time, at most.
pub const PAGE_ITEMS: usize = 500;

/// What a replay does with what it cannot apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Events of unknown types are stored. From the first one on, its aggregate is not projected.
    pub record: bool,
    /// Aggregates can be parked, and what was done since `mark` be forgotten.
    pub park: bool,
}

/// The whole input of one replay, and how far it has come.
pub struct Batch {
    policy: Policy,
    source: String,
    items: Vec<Item>,
    /// The items are stored already, and are to be projected.
    stored: Option<Stored>,
    /// The item that `apply` failed on.
    failed: Option<usize>,
    any_parked: bool,
    /// How the aggregates that were touched since `mark` stood then, and the next position.
    saved: (FxHashMap<usize, State>, Option<i64>),
    /// What a SQL projector gets as `:data` instead of the stored text, by index.
    projected: FxHashMap<usize, Box<str>>,
    aggregates: Vec<Progress>,
    by_id: FxHashMap<Box<str>, usize>,
    next_position: Option<i64>,
    max_event_bytes: usize,
    /// What SQL projectors did not do, by the indices of the items.
    pub(crate) skipped: Vec<(usize, Error)>,
}

/// How one aggregate stands within the batch. Its sequence row is written once, at the end.
struct Progress {
    aggregate_id: Box<str>,
    /// Its items from this one on are left.
    parked: Option<usize>,
    state: State,
}

#[derive(Default, Clone)]
struct State {
    sequence: Option<Sequence>,
    /// Its last seq is to be written.
    moved: bool,
    /// How far it is projected is to be written.
    reprojected: bool,
    applied: u32,
    duplicate: u32,
}

struct Stored {
    /// By index.
    positions: Vec<i64>,
    /// After the last item nothing more is stored.
    ends: bool,
}

impl Batch {
    /// Reads JSON text: an array, lines, or one object.
    pub fn from_text(source: String, max_event_bytes: usize) -> Result<Self> {
        let items = input::read_text(&source, max_event_bytes)?;
        Ok(Self::new(source, items, max_event_bytes))
    }

    /// Reads JSON bytes. `ERR_INVALID_EVENT` where they are not UTF-8.
    pub fn from_bytes(bytes: Vec<u8>, max_event_bytes: usize) -> Result<Self> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let index = items_before(&error.as_bytes()[..valid]);
            Error::InvalidEvent { index, field: "json", message: format!("is not UTF-8 at byte {valid}") }
        })?;
        Self::from_text(text, max_event_bytes)
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
        Ok(Self::new(source, items, max_event_bytes))
    }

    fn new(source: String, items: Vec<Item>, max_event_bytes: usize) -> Self {
        let mut batch = Batch {
            policy: Policy::default(),
            source,
            items,
            stored: None,
            failed: None,
            any_parked: false,
            saved: (FxHashMap::default(), None),
            projected: FxHashMap::default(),
            aggregates: Vec::new(),
            by_id: FxHashMap::default(),
            next_position: None,
            max_event_bytes,
            skipped: Vec::new(),
        };
        for index in 0..batch.items.len() {
            let aggregate_id = aggregate_of(&batch.items[index]);
            if !batch.by_id.contains_key(aggregate_id) {
                batch.by_id.insert(aggregate_id.into(), batch.aggregates.len());
                batch.aggregates.push(Progress::new(aggregate_id));
            }
        }
        batch
    }

    /// Events of one aggregate that are stored already, with their positions, and are to be projected. `ends`: nothing more
    /// is stored of it.
    pub fn of_stored(
        source: String,
        events: Vec<(EventItem, i64)>,
        aggregate_id: &str,
        sequence: Option<Sequence>,
        ends: bool,
        max_event_bytes: usize,
    ) -> Self {
        let (items, positions) = events.into_iter().map(|(event, position)| (Item::Event(event), position)).unzip();
        let mut batch = Self::new(source, items, max_event_bytes);
        if batch.aggregates.is_empty() {
            batch.aggregates.push(Progress::new(aggregate_id));
        }
        batch.aggregates[0].state.sequence = sequence;
        batch.stored = Some(Stored { positions, ends });
        batch
    }

    /// With another policy than the default one, which refuses.
    pub fn with(self, policy: Policy) -> Self {
        Batch { policy, ..self }
    }

    /// What is done from here on can be forgotten by `rewind`.
    pub fn mark(&mut self) {
        self.saved.0.clear();
        self.saved.1 = self.next_position;
        self.failed = None;
    }

    /// Forgets what was done since `mark`, which the caller has rolled back.
    pub fn rewind(&mut self) {
        for (at, state) in self.saved.0.drain() {
            self.aggregates[at].state = state;
        }
        self.next_position = self.saved.1;
    }

    /// Leaves the items of an item's aggregate from that one on. Answers the aggregate.
    pub fn park(&mut self, index: usize) -> Option<&str> {
        let at = self.by_id[aggregate_of(self.items.get(index)?)];
        let progress = &mut self.aggregates[at];
        self.any_parked = true;
        progress.parked = Some(progress.parked.map_or(index, |parked| parked.min(index)));
        Some(&progress.aggregate_id)
    }

    fn is_parked(&self, index: usize) -> bool {
        let parked = || self.aggregates[self.by_id[aggregate_of(&self.items[index])]].parked;
        self.any_parked && parked().is_some_and(|parked| parked <= index)
    }

    /// The item that the last call of `apply` failed on, where it was an item.
    pub fn failed(&self) -> Option<usize> {
        self.failed
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
            if seen.len() >= PAGE_ITEMS || bytes >= REPLAY_PAGE_BYTES {
                return Ok((index, seen));
            }
            let Some(event) = self.event(index).filter(|_| !self.is_parked(index)) else { continue };
            match self.check(definitions, index, event) {
                Ok(definition) if !event.canonical || definition.is_some_and(Definition::needs_javascript) => {
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
        for (what, text) in [("data", Some(&data)), ("metadata", metadata.as_ref())] {
            let size = text.map_or(0, String::len);
            within(|| format!("The {what} of the event at index {index}"), size, self.max_event_bytes, Some(index))?;
        }
        match self.items.get_mut(index) {
            Some(Item::Event(event) | Item::Removed { event: Some(event), .. }) => {
                event.data = Text::Owned(data.into());
                event.metadata = metadata.map(|text| Text::Owned(text.into()));
                event.canonical = true;
            }
            _ => return Err(Error::InvalidArgument(format!("No event has index {index}")).into()),
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

    /// What each aggregate came to, in order of appearance.
    pub fn results(&self) -> Vec<ReplayResult> {
        self.aggregates
            .iter()
            .map(|progress| ReplayResult {
                aggregate_id: progress.aggregate_id.to_string(),
                applied: progress.state.applied,
                duplicate: progress.state.duplicate,
                seq: progress.state.sequence.as_ref().map_or(-1, |sequence| sequence.seq),
                projected: progress.state.sequence.as_ref().and_then(|sequence| sequence.projected),
            })
            .collect()
    }

    /// Known type, and `data[aggregate]` equal to the envelope's. The latter waits for `set_data` where the text is
    /// not in its stored form. `None`: the type is unknown, and the event is to be stored. One without a version will never
    /// be known.
    fn check<'d>(
        &self,
        definitions: &'d Definitions,
        index: usize,
        event: &EventItem,
    ) -> Result<Option<&'d Definition>> {
        let definition = match definitions.find(&event.type_name) {
            Some(found) => definitions.get(found)?,
            None if self.policy.record && is_versioned(&event.type_name) => return Ok(None),
            None => {
                return Err(Error::UnknownEvent {
                    type_name: event.type_name.to_string(),
                    aggregate_id: event.aggregate_id.to_string(),
                    seq: event.seq,
                    index,
                }
                .into());
            }
        };
        if event.canonical {
            let data = event.data.of(&self.source);
            let literal = payload::inspect(data, &definition.aggregate_key).field.map(|range| &data[range]);
            if literal.and_then(payload::as_string).as_deref() != Some(&event.aggregate_id) {
                return Err(Error::AggregateMismatch {
                    index: self.stored.is_none().then_some(index),
                    type_name: definition.name.clone(),
                    field: definition.aggregate.clone(),
                    aggregate_id: event.aggregate_id.to_string(),
                    seq: event.seq,
                    got: payload::shortened(literal.unwrap_or("missing")).into_owned(),
                }
                .into());
            }
        }
        Ok(Some(definition))
    }
}

impl Progress {
    fn new(aggregate_id: &str) -> Self {
        Progress { aggregate_id: aggregate_id.into(), parked: None, state: State::default() }
    }
}

/// How many items stand whole before bytes that cannot be read.
fn items_before(valid: &[u8]) -> usize {
    let items = std::str::from_utf8(valid).map(|text| input::read_text(text, usize::MAX / 16));
    match items {
        Ok(Ok(items)) => items.len(),
        Ok(Err(error)) => match *error {
            Error::InvalidEvent { index, .. } => index,
            _ => 0,
        },
        Err(_) => 0,
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

/// The event of an item, where it has one.
fn event_of(item: &Item) -> Option<&EventItem> {
    match item {
        Item::Event(event) | Item::Removed { event: Some(event), .. } => Some(event),
        _ => None,
    }
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
