//! The writer's act: under the write lock, owner, expected seq, seq = last + 1, sequence row, event row.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::connection::Connection;
use crate::error::{Error, Result, within};
use crate::event::{NewEvent, Recorded, StoredEvent, check_aggregate_id, check_type};
use crate::id::Ids;
use crate::known::Known;
use crate::limits::{MAX_NESTING, MAX_SEQ};
use crate::owner;
use crate::payload;
use crate::project::Definition;
use crate::projected;
use crate::tables::{self, EventRow, Sequence};

/// What does not need the lock: names and nesting.
pub fn check(definition: &Definition, event: &NewEvent<'_>, max_event_bytes: usize) -> Result<()> {
    check_type(&definition.name)?;
    check_aggregate_id(event.aggregate_id, None)?;
    for (what, text) in [("data", Some(event.data)), ("metadata", event.metadata)] {
        let Some(text) = text else { continue };
        let whose = || format!("The {what} of {} for aggregate \"{}\"", definition.name, event.aggregate_id);
        within(whose, text.len(), max_event_bytes, None)?;
        if nests_too_deep(text) {
            return Err(Error::InvalidData {
                type_name: definition.name.clone(),
                aggregate_id: event.aggregate_id.to_owned(),
                message: format!("{what} nests deeper than {MAX_NESTING} levels"),
            }
            .into());
        }
    }
    Ok(())
}

/// Counting brackets first, strings included, spares most payloads the exact pass.
fn nests_too_deep(text: &str) -> bool {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    brackets > MAX_NESTING && payload::inspect(text, "").depth > MAX_NESTING
}

/// Records one event inside the open transaction, in a sequence that is [`writable`].
pub fn record(
    connection: &Connection,
    known: &mut Known,
    ids: &mut Ids,
    definition: &Definition,
    event: &NewEvent<'_>,
    sequence: &Sequence,
) -> Result<Recorded> {
    let seq = following(event.aggregate_id, sequence.seq)?;
    let recorded = stamped(ids, event, seq, tables::next_position(connection)?);
    tables::update_seq(connection, sequence.key, seq)?;
    let row = EventRow {
        aggregate: sequence.key,
        seq,
        id: &recorded.id,
        type_key: known.type_key(connection, &definition.name)?,
        created: Some(recorded.created),
        metadata: event.metadata,
        data: event.data,
    };
    tables::insert_event(connection, recorded.position, &row)?;
    Ok(recorded)
}

/// The sequence row that `writer` may write, made where there is none. `ERR_UNKNOWN_EVENT` where it is not projected to its
/// end: what is new would be projected before what is older.
pub fn writable(
    connection: &Connection,
    known: &mut Known,
    aggregate_id: &str,
    writer: Option<&str>,
    expected_seq: Option<i64>,
) -> Result<Sequence> {
    let held = tables::find_sequence(connection, aggregate_id)?;
    if let Some(sequence) = &held {
        owner::check_writer(aggregate_id, sequence, writer)?;
        projected::check(connection, known, aggregate_id, sequence)?;
    }
    let last = held.as_ref().map_or(-1, |sequence| sequence.seq);
    if let Some(expected) = expected_seq.filter(|expected| *expected != last) {
        return Err(Error::Conflict { aggregate_id: aggregate_id.to_owned(), what: "seq", expected, got: last }.into());
    }
    match held {
        Some(sequence) => Ok(sequence),
        None => tables::insert_sequence(connection, aggregate_id, writer, i64::from(writer.is_some())),
    }
}

/// The seq after `last`.
pub fn following(aggregate_id: &str, last: i64) -> Result<i64> {
    if last < MAX_SEQ {
        return Ok(last + 1);
    }
    Err(Error::TooLarge {
        what: format!("The next seq of aggregate \"{aggregate_id}\""),
        size: last.unsigned_abs() + 1,
        limit: MAX_SEQ.unsigned_abs(),
        index: None,
    }
    .into())
}

/// What a new event gets besides its rows: an id and a time.
pub fn stamped(ids: &mut Ids, event: &NewEvent<'_>, seq: i64, position: i64) -> Recorded {
    Recorded { seq, id: ids.make(), created: event.created.unwrap_or_else(now), position, pending: 0 }
}

/// Unix milliseconds.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok())
        .unwrap_or(0)
}

/// The event as its projector sees it.
pub fn as_stored<'a>(definition: &'a Definition, event: &NewEvent<'a>, recorded: &'a Recorded) -> StoredEvent<'a> {
    StoredEvent {
        id: &recorded.id,
        type_name: &definition.name,
        seq: recorded.seq,
        aggregate_id: event.aggregate_id,
        created: Some(recorded.created),
        metadata: event.metadata,
        data: event.data,
        position: recorded.position,
    }
}
