//! What is replayed again must be what is held.

use super::input::EventItem;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history;
use crate::known::Known;
use crate::payload;
use crate::tables::{self, Sequence};

/// A seq that is known already must hold the same event, unless it went with a gap or a removal. Answers its
/// position where it is held.
pub fn compare(
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
        let lost = || Error::LostEvent { aggregate_id: event.aggregate_id.to_string(), seq: event.seq };
        return if gone { Ok(None) } else { Err(lost().into()) };
    };
    let Some(differs) = differs else { return Ok(Some(position)) };
    Err(Error::ReplayDiverged {
        aggregate_id: event.aggregate_id.to_string(),
        seq: event.seq,
        type_name: event.type_name.to_string(),
        what: differs,
        index,
    }
    .into())
}
