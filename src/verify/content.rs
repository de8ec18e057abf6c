//! What one event holds, and who stands where it stands.

use rusqlite::OptionalExtension;

use super::walk::Walk;
use super::{Context, Finding, is_json, named};
use crate::connection::Connection;
use crate::error::Result;
use crate::known;
use crate::limits::{MAX_FINDINGS, MAX_ID_BYTES};
use crate::segment::Entry;

impl Walk {
    pub(super) fn check_content(&mut self, entry: &Entry<'_>) {
        let seq = entry.seq;
        let metadata = entry.metadata.is_none_or(|text| text.starts_with('{') && is_json(text));
        let id = !entry.id.is_empty() && entry.id.len() <= MAX_ID_BYTES;
        for (fine, what) in [(is_json(entry.data), "data"), (metadata, "metadata"), (id, "id")] {
            if !fine {
                let message = format!(
                    "The {what} of seq {seq} of {} is not what syncline writes: {}.",
                    self.named(),
                    if what == "id" { "it is empty or too long" } else { "it is not valid JSON" }
                );
                let finding = self.of(Finding::error("event-invalid", message)).at(seq);
                self.tell(finding);
            }
        }
    }

    pub(super) fn check_type(
        &mut self,
        connection: &Connection,
        context: &mut Context,
        entry: &Entry<'_>,
        projected: Option<i64>,
    ) -> Result<()> {
        let (key, seq) = (entry.type_key, entry.seq);
        if context.types.contains_key(&key) || context.told.contains(&key) {
            return Ok(());
        }
        let name: Option<String> = connection
            .cached("SELECT name FROM event_type WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        let finding = match name {
            Some(name) if context.defined.contains(&name) => {
                context.types.insert(key, name.into());
                return Ok(());
            }
            // That it waits for a program that knows the type is what its sequence row says, and `stats` tells.
            Some(_) if projected.is_some_and(|projected| seq > projected) => return Ok(()),
            Some(name) => {
                let message = format!(
                    "Events of {name} are held, first seq {seq} of {}, but this store defines no such type. \
                     They are read and kept as they are; a replay of them needs the definition.",
                    self.named()
                );
                Finding { type_name: Some(name), ..Finding::warning("unknown-type", message) }
            }
            None => {
                let message = format!(
                    "Seq {seq} of {}, and maybe others, have a type (key {key}) whose name is lost: they cannot be read. \
                     Restore the file from a copy, or replay the log into a new one.",
                    self.named()
                );
                Finding::error("type-missing", message)
            }
        };
        // Once a type: rows of types are never changed.
        context.told.insert(key);
        let finding = self.of(finding).at(seq);
        self.certain.push(finding);
        Ok(())
    }

    /// Looks for everybody who stands at positions that were met before. Another event may have stood there by the
    /// time, for all that is known, and be gone; so all are looked for now.
    pub(super) fn told_twice(&mut self, connection: &Connection, twice: &[i64]) -> Result<()> {
        for position in twice {
            if self.certain.len() > MAX_FINDINGS {
                break;
            }
            let holders = holders(connection, *position)?;
            if holders.len() > 1 {
                let message = format!(
                    "Position {position} is that of {}: readers by position get one of them, or neither.",
                    holders.join(" and of ")
                );
                let finding = self.of(Finding::error("position-twice", message));
                self.certain.push(finding);
            }
        }
        Ok(())
    }
}

/// Who stands at a position, as a message names it.
fn holders(connection: &Connection, position: i64) -> Result<Vec<String>> {
    let mut found: Vec<(i64, i64)> = connection
        .cached("SELECT aggregate, seq FROM event WHERE position = ?1")?
        .query_map([position], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.cached(
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment
         WHERE position >= ?1 AND first <= ?1",
    )?;
    let mut rows = statement.query([position])?;
    while let Some(row) = rows.next()? {
        let place = known::place(row)?;
        if let Ok(segment) = known::decode(connection, &place)?
            && let Ok(at) = segment.positions().binary_search(&position)
        {
            found.push((place.aggregate, segment.seqs()[at]));
        }
    }
    found.sort_unstable();
    found.dedup();
    let mut statement = connection.cached("SELECT aggregate_id FROM event_sequence WHERE key = ?1")?;
    let mut holders = Vec::new();
    for (key, seq) in found {
        let id: Option<String> = statement.query_row([key], |row| row.get(0)).optional()?;
        holders.push(format!("seq {seq} of {}", named(id.as_deref(), key)));
    }
    Ok(holders)
}
