//! Removal: history goes, a tombstone stays in the sequence row, and with it the deletion event, so that a reader who
//! was away learns of it. Sequences go on after the last one.

use crate::connection::Connection;
use crate::error::Result;
use crate::event::{NewEvent, Recorded};
use crate::history;
use crate::id::Ids;
use crate::known::Known;
use crate::owner;
use crate::project::Definition;
use crate::run;
use crate::segment::{Effort, Entry};
use crate::tables;

/// Removes an aggregate, with or without a deletion event, inside the open transaction. Answers the position that it
/// took, 0 where there was nothing to remove, and the event. An aggregate that was never known stays so, unless there is
/// an event to tell.
pub fn remove(
    connection: &Connection,
    known: &mut Known,
    ids: &mut Ids,
    aggregate_id: &str,
    writer: Option<&str>,
    event: Option<(&Definition, &NewEvent<'_>)>,
) -> Result<(i64, Option<Recorded>)> {
    let Some((definition, event)) = event else {
        if let Some(sequence) = tables::find_sequence(connection, aggregate_id)? {
            owner::check_writer(aggregate_id, &sequence, writer)?;
            // What is gone needs no projector any more.
            if sequence.projected.is_some() {
                tables::update_projected(connection, sequence.key, None)?;
            }
            if sequence.seq > sequence.removed_seq.unwrap_or(-1) {
                let position = tables::next_position(connection)?;
                erase(connection, known, sequence.key, sequence.seq, position, position, None)?;
                return Ok((position, None));
            }
        }
        return Ok((0, None));
    };
    let sequence = run::writable(connection, known, aggregate_id, writer, event.expected_seq)?;
    let seq = run::following(aggregate_id, sequence.seq)?;
    let recorded = run::stamped(ids, event, seq, tables::next_position(connection)?);
    let tombstone = run::as_stored(definition, event, &recorded).to_json();
    tables::update_seq(connection, sequence.key, seq)?;
    erase(connection, known, sequence.key, seq, recorded.position, recorded.position, Some(&tombstone))?;
    Ok((recorded.position, Some(recorded)))
}

/// Erases events and gaps up to `through` and writes the tombstone. The removal takes a position of its own, and the
/// floor rises to it, so that no position of an erased event is used again and readers find what moved. `told_at` is where
/// its event stands in the order of commits.
pub fn erase(
    connection: &Connection,
    known: &mut Known,
    key: i64,
    through: i64,
    position: i64,
    told_at: i64,
    event: Option<&str>,
) -> Result<()> {
    tables::move_without_row(connection, key, position)?;
    connection.cached("DELETE FROM event WHERE aggregate = ?1 AND seq <= ?2")?.execute((key, through))?;
    erase_packed(connection, known, key, through)?;
    connection.cached("DELETE FROM event_gap WHERE aggregate = ?1 AND through <= ?2")?.execute((key, through))?;
    connection
        .cached("UPDATE event_gap SET after = ?2 WHERE aggregate = ?1 AND after < ?2")?
        .execute((key, through))?;
    connection
        .cached("UPDATE event_sequence SET removed_seq = ?2, removed_at = ?3, removed_event = ?4 WHERE key = ?1")?
        .execute((key, through, told_at, event))?;
    Ok(())
}

/// Erases packed events up to `through`. A segment that reaches further keeps the rest.
fn erase_packed(connection: &Connection, known: &mut Known, key: i64, through: i64) -> Result<()> {
    for place in history::segments(connection, key)? {
        if place.first_seq > through {
            break;
        }
        if place.seq > through {
            let segment = known.segment(connection, &place)?;
            tables::delete_segment(connection, &place)?;
            let rest: Vec<Entry<'_>> = segment.entries().filter(|entry| entry.seq > through).collect();
            tables::insert_segment(connection, key, &rest, place.generation + 1, Effort::Quick)?;
        } else {
            tables::delete_segment(connection, &place)?;
        }
    }
    Ok(())
}
