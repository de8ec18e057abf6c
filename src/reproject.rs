//! Projects what an aggregate holds beyond what is projected, once its types are known: in order, a page in a transaction.

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::history::{self, Range};
use crate::known::Known;
use crate::project::Definitions;
use crate::projected;
use crate::replay::input::{self, EventItem, Item, Text};
use crate::replay::{Batch, PAGE_ITEMS};
use crate::tables::{self, Sequence};

/// Events that wait, with their positions, and the text that they are slices of.
#[derive(Default)]
struct Waiting {
    source: String,
    events: Vec<(EventItem, i64)>,
    /// An unknown type comes after them.
    stopped: bool,
}

/// The next events that are to be projected, up to the first of an unknown type; inside the open transaction, in which they
/// are then applied. A batch of none: nothing more can be done now.
pub fn page(
    connection: &Connection,
    known: &mut Known,
    definitions: &Definitions,
    aggregate_id: &str,
    max_event_bytes: usize,
) -> Result<Batch> {
    let found = tables::find_sequence(connection, aggregate_id)?;
    let behind = found.as_ref().and_then(|sequence| Some((sequence, sequence.projected?)));
    let Some((sequence, projected)) = behind else {
        return Ok(Batch::of_stored(String::new(), Vec::new(), aggregate_id, found, false, max_event_bytes));
    };
    let done = projected.max(sequence.removed_seq.unwrap_or(-1));
    let waiting = match deletion(connection, sequence, projected)? {
        Some((source, event)) if definitions.find(&event.type_name).is_some() => {
            Waiting { source, events: vec![(event, 0)], stopped: false }
        }
        Some(_) => Waiting { stopped: true, ..Waiting::default() },
        None => read(connection, known, definitions, (aggregate_id, sequence.key), done)?,
    };
    let Waiting { source, events, stopped } = waiting;
    let last = events.last().map_or(done, |(event, _)| event.seq);
    let ends = !stopped && (last >= sequence.seq || is_last(connection, known, (aggregate_id, sequence.key), last)?);
    Ok(Batch::of_stored(source, events, aggregate_id, Some(sequence.clone()), ends, max_event_bytes))
}

/// A page of events after a seq.
fn read(
    connection: &Connection,
    known: &mut Known,
    definitions: &Definitions,
    aggregate: (&str, i64),
    after: i64,
) -> Result<Waiting> {
    let mut waiting = Waiting::default();
    let range = Range { after, before: None, limit: PAGE_ITEMS, descending: false };
    history::by_seq(connection, known, aggregate, range, &mut |event| {
        waiting.stopped |= definitions.find(event.type_name).is_none();
        if !waiting.stopped {
            waiting.events.push((item(&mut waiting.source, event), event.position));
        }
        Ok(())
    })?;
    Ok(waiting)
}

fn item(source: &mut String, event: &StoredEvent<'_>) -> EventItem {
    let mut slice = |text: &str| {
        let start = source.len();
        source.push_str(text);
        Text::Slice(start..source.len())
    };
    EventItem {
        id: event.id.into(),
        type_name: event.type_name.into(),
        aggregate_id: event.aggregate_id.into(),
        seq: event.seq,
        created: event.created,
        metadata: event.metadata.map(&mut slice),
        data: slice(event.data),
        canonical: true,
    }
}

fn is_last(connection: &Connection, known: &mut Known, aggregate: (&str, i64), seq: i64) -> Result<bool> {
    let mut last = true;
    let range = Range { after: seq, before: None, limit: 1, descending: false };
    history::by_seq(connection, known, aggregate, range, &mut |_| {
        last = false;
        Ok(())
    })?;
    Ok(last)
}

/// The deletion event of a tombstone, and the text that it is a slice of, where it is not projected.
fn deletion(connection: &Connection, sequence: &Sequence, projected: i64) -> Result<Option<(String, EventItem)>> {
    let Some((_, json)) = projected::deletion(connection, sequence.key, sequence.removed_seq, projected)? else {
        return Ok(None);
    };
    let items = input::read_text(&json, usize::MAX / 16)
        .map_err(|error| Error::Corrupt(format!("The deletion event of a removed aggregate is unreadable: {error}")))?;
    Ok(items.into_iter().next().and_then(|item| match item {
        Item::Event(event) => Some((json, EventItem { canonical: true, ..event })),
        _ => None,
    }))
}
