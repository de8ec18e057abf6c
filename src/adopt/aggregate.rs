//! One aggregate of the older tables, a segment at a time.

use rusqlite::OptionalExtension;
use rusqlite::types::ValueRef;
use rustc_hash::FxHashMap;

use super::Turn;
use super::event::{Row, integer};
use super::shape::has_column;
use crate::connection::Connection;
use crate::error::Result;
use crate::known::Known;
use crate::limits::{MAX_OWNER_BYTES, MAX_SEQ, SEGMENT_BYTES, SEGMENT_EVENTS};
use crate::segment::{self, Effort, Entry, Owned};
use crate::tables;

/// The index that finds an aggregate's events, where the older table brought none.
const OWN_INDEX: &str = "event_older_aggregate_seq";

/// The statements that read the older tables, as their columns are.
pub struct Source {
    events: String,
    sequence: String,
    event_aside: String,
    sequence_aside: String,
}

/// What an aggregate's sequence row said.
struct Sequence {
    seq: Option<i64>,
    owner: Option<String>,
    owner_is_odd: bool,
}

/// Drops the indexes of the older tables but for one that finds an aggregate's events: each would be maintained at every
/// step, and their room is needed.
pub fn drop_indexes(connection: &Connection) -> Result<()> {
    let kept = usable_index(connection, "event")?;
    let mut statement = connection.sqlite().prepare(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'index' AND sql IS NOT NULL AND lower(tbl_name) IN ('event', 'event_sequence')",
    )?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    for name in names {
        // Whose name is one of ours makes room for ours.
        if crate::schema::is_ours(&name) || kept.as_deref() != Some(name.as_str()) {
            connection.sqlite().execute_batch(&format!("DROP INDEX main.{}", quoted(&name)))?;
        }
    }
    Ok(())
}

fn usable_index(connection: &Connection, table: &str) -> Result<Option<String>> {
    let mut statement = connection.sqlite().prepare(
        "SELECT list.name FROM pragma_index_list(?1, 'main') AS list
         WHERE list.partial = 0 AND (
           SELECT group_concat(lower(coalesce(info.name, '')) || ' ' || info.\"desc\" || ' ' || info.coll, ', ')
           FROM pragma_index_xinfo(list.name, 'main') AS info WHERE info.key = 1
         ) = 'aggregate_id 0 BINARY, seq 0 BINARY'",
    )?;
    Ok(statement.query_row([table], |row| row.get(0)).optional()?)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Source {
    /// For older tables that have been put aside. Makes the index that is needed where there is none.
    pub fn new(connection: &Connection) -> Result<Self> {
        let index = match usable_index(connection, "event_older")? {
            Some(index) => index,
            None => {
                connection.sqlite().execute_batch(&format!(
                    "CREATE INDEX main.{OWN_INDEX} ON event_older (aggregate_id COLLATE BINARY, seq COLLATE BINARY)"
                ))?;
                OWN_INDEX.to_owned()
            }
        };
        let created = if has_column(connection, "event_older", "created")? { "created" } else { "NULL" };
        let owner = if has_column(connection, "event_sequence_older", "owner_id")? { "owner_id" } else { "NULL" };
        Ok(Source {
            events: format!(
                "SELECT rowid, seq, id, type, data, {created} FROM event_older INDEXED BY {}
                 WHERE aggregate_id = ?1 COLLATE BINARY ORDER BY seq COLLATE BINARY, rowid LIMIT ?2",
                quoted(&index)
            ),
            sequence: format!("SELECT seq, {owner} FROM event_sequence_older WHERE rowid = ?1"),
            event_aside: format!(
                "INSERT INTO event_adoption_finding (kind, message, aggregate_id, seq, id, type, created, data)
                 SELECT ?2, ?3, aggregate_id, seq, id, type, {created}, iif(?4, data, NULL)
                 FROM event_older WHERE rowid = ?1 RETURNING coalesce(octet_length(data), 0)"
            ),
            sequence_aside: format!(
                "INSERT INTO event_adoption_finding (kind, message, aggregate_id, seq, owner_id)
                 SELECT ?2, ?3, aggregate_id, seq, {owner} FROM event_sequence_older WHERE rowid = ?1"
            ),
        })
    }

    /// Moves up to a segment's worth of an aggregate's events; `rowid` is that of its sequence row. Also answers whether
    /// that was the last of it.
    pub fn adopt(
        &self,
        connection: &Connection,
        known: &mut Known,
        aggregate_id: &str,
        rowid: Option<i64>,
        last_rowid: i64,
    ) -> Result<(Turn, bool)> {
        let older = match rowid {
            Some(rowid) => Some(self.sequence(connection, rowid)?),
            None => None,
        };
        let sequence = match tables::find_sequence(connection, aggregate_id)? {
            Some(sequence) => sequence,
            None => {
                let owner = older.as_ref().and_then(|older| older.owner.as_deref());
                if older.is_none() {
                    note(connection, "orphan", "its sequence row was missing, and was made", aggregate_id, None)?;
                }
                tables::insert_sequence(connection, aggregate_id, owner, owner.is_some().into())?
            }
        };
        let key = sequence.key;
        let mut position = connection
            .cached("SELECT position FROM event_segment WHERE aggregate = ?1 ORDER BY seq DESC LIMIT 1")?
            .query_row([key], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        let mut fresh = tables::next_position(connection)?;
        // The last seq that the log has, or tells of as a gap; and the last one that was there, in the log or not.
        let (mut last, mut seen) = (sequence.seq, sequence.seq);
        let (mut taken, mut held, mut gone, mut turn) = (Vec::new(), 0, Vec::new(), Turn::default());
        let mut unversioned: FxHashMap<String, i64> = FxHashMap::default();
        let mut ended = false;

        let mut statement = connection.cached(&self.events)?;
        let mut rows = statement.query((aggregate_id, SEGMENT_EVENTS as i64 + 1))?;
        let mut weighed = 0;
        loop {
            let Some(row) = rows.next()? else {
                ended = gone.len() <= SEGMENT_EVENTS;
                break;
            };
            let row = Row::of(row)?;
            if !segment::fits(taken.len(), held, row.weight()) || (!gone.is_empty() && weighed >= SEGMENT_BYTES) {
                break;
            }
            weighed += row.weight();
            if let Some(seq) = row.seq().filter(|seq| *seq > seen) {
                if seq > seen + 1 {
                    note(connection, "gap", "they are missing", aggregate_id, Some((seen + 1, seq - 1)))?;
                }
                seen = seq;
            }
            gone.push(row.rowid);
            let event = match row.event() {
                Ok(event) if event.seq > last => event,
                Ok(_) => {
                    self.set_event_aside(connection, row.rowid, "duplicate", "another event has its seq")?;
                    continue;
                }
                Err(reason) => {
                    self.set_event_aside(connection, row.rowid, "event", &reason)?;
                    continue;
                }
            };
            if event.created_is_odd {
                connection.cached(&self.event_aside)?.query_row(
                    (row.rowid, "created", "its created is no integer; the event was adopted without it", false),
                    |_| Ok(()),
                )?;
            }
            if let std::borrow::Cow::Owned(_) = event.type_name {
                *unversioned.entry(event.type_name.to_string()).or_default() += 1;
            }
            if event.seq > last + 1 {
                tables::insert_gap(connection, key, last, event.seq - 1)?;
            }
            last = event.seq;
            let rowid_serves = row.rowid > position && row.rowid <= last_rowid;
            position = if rowid_serves { row.rowid } else { fresh };
            fresh += i64::from(!rowid_serves);
            held += event.data.len();
            taken.push(Owned::of(&Entry {
                seq: event.seq,
                position,
                type_key: known.type_key(connection, &event.type_name)?,
                created: event.created,
                id: event.id,
                metadata: None,
                data: event.data,
            }));
        }
        drop(rows);
        drop(statement);

        // First they go, so that their room is there for the segment.
        self.delete(connection, &gone)?;
        if !taken.is_empty() {
            let entries: Vec<Entry<'_>> = taken.iter().map(Owned::entry).collect();
            tables::insert_segment(connection, key, &entries, 0, Effort::Quick)?;
        }
        tables::raise_position_floor(connection, fresh - 1)?;
        for (type_name, count) in unversioned {
            note_unversioned(connection, &type_name, count)?;
        }
        turn.rows = gone.len() + 1;
        (turn.events, turn.bytes) = (taken.len(), held);
        if ended {
            last = self.end(connection, aggregate_id, key, (last, seen), older.as_ref().zip(rowid))?;
        }
        tables::update_seq(connection, key, last)?;
        Ok((turn, ended))
    }

    /// Compares with the sequence row, which then goes. Answers the last seq.
    fn end(
        &self,
        connection: &Connection,
        aggregate_id: &str,
        key: i64,
        (last, seen): (i64, i64),
        older: Option<(&Sequence, i64)>,
    ) -> Result<i64> {
        // An event that the log could not take had its seq; where a sequence row is, that knows better.
        let Some((older, rowid)) = older else {
            self.close(connection, key, last, seen)?;
            return Ok(last.max(seen));
        };
        let through = match older.seq {
            Some(seq) => seq,
            None => {
                let message = "the seq of its sequence row is no integer from -1; it was taken from its events";
                self.sequence_aside(connection, rowid, "sequence", message)?;
                seen
            }
        };
        if through > last.max(seen) {
            let (kind, message) =
                if last.max(seen) < 0 { ("empty", "it has no events") } else { ("gap", "they are missing") };
            note(connection, kind, message, aggregate_id, Some((last.max(seen) + 1, through)))?;
        } else if through < last {
            let message = format!("its sequence row had the seq {through}, its last event has {last}");
            note(connection, "sequence", &message, aggregate_id, Some((last, last)))?;
        }
        if older.owner_is_odd {
            let message = "its owner_id is no text, or too long; nobody owns it now";
            self.sequence_aside(connection, rowid, "owner", message)?;
        }
        self.close(connection, key, last, through)?;
        connection.cached("DELETE FROM event_sequence_older WHERE rowid = ?1")?.execute([rowid])?;
        Ok(last.max(through))
    }

    /// A gap at the end takes a position, as any gap does that no event follows.
    fn close(&self, connection: &Connection, key: i64, last: i64, through: i64) -> Result<()> {
        if through > last {
            tables::insert_gap(connection, key, last, through)?;
            tables::move_without_row(connection, key, tables::next_position(connection)?)?;
        }
        Ok(())
    }

    fn sequence(&self, connection: &Connection, rowid: i64) -> Result<Sequence> {
        Ok(connection.cached(&self.sequence)?.query_row([rowid], |row| {
            let (owner, owner_is_odd) = match row.get_ref(1)? {
                ValueRef::Null => (None, false),
                ValueRef::Text(text) => match std::str::from_utf8(text) {
                    Ok(owner) if !owner.is_empty() && owner.len() <= MAX_OWNER_BYTES => (Some(owner.to_owned()), false),
                    _ => (None, true),
                },
                _ => (None, true),
            };
            let seq = integer(row.get_ref(0)?).filter(|seq| (-1..=MAX_SEQ).contains(seq));
            Ok(Sequence { seq, owner, owner_is_odd })
        })?)
    }

    /// Keeps an event that the log cannot hold, as it is, and says how many bytes of data it has.
    pub fn set_event_aside(&self, connection: &Connection, rowid: i64, kind: &str, reason: &str) -> Result<usize> {
        let bytes: i64 = connection
            .cached(&self.event_aside)?
            .query_row((rowid, kind, format!("{reason}; it is kept in event_adoption_finding"), true), |row| {
                row.get(0)
            })?;
        Ok(bytes.unsigned_abs() as usize)
    }

    /// Moves a sequence row to what was found that names no aggregate.
    pub fn set_sequence_aside(&self, connection: &Connection, rowid: i64) -> Result<()> {
        self.sequence_aside(
            connection,
            rowid,
            "aggregate",
            "the aggregate_id of a sequence row is no text, or too long",
        )?;
        connection.cached("DELETE FROM event_sequence_older WHERE rowid = ?1")?.execute([rowid])?;
        Ok(())
    }

    fn sequence_aside(&self, connection: &Connection, rowid: i64, kind: &str, message: &str) -> Result<()> {
        connection.cached(&self.sequence_aside)?.execute((rowid, kind, message))?;
        Ok(())
    }

    /// Deletes older events.
    pub fn delete(&self, connection: &Connection, rowids: &[i64]) -> Result<()> {
        let mut statement = connection.cached("DELETE FROM event_older WHERE rowid = ?1")?;
        for rowid in rowids {
            statement.execute([rowid])?;
        }
        Ok(())
    }
}

fn note(
    connection: &Connection,
    kind: &str,
    message: &str,
    aggregate_id: &str,
    seqs: Option<(i64, i64)>,
) -> Result<()> {
    connection
        .cached("INSERT INTO event_adoption_finding (kind, message, aggregate_id, seq, through) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((kind, message, aggregate_id, seqs.map(|seqs| seqs.0), seqs.map(|seqs| seqs.1)))?;
    Ok(())
}

/// One finding a type, with the number of its events.
fn note_unversioned(connection: &Connection, type_name: &str, count: i64) -> Result<()> {
    let known = connection
        .cached("UPDATE event_adoption_finding SET events = events + ?2 WHERE kind = 'type' AND type = ?1")?
        .execute((type_name, count))?;
    if known == 0 {
        connection
            .cached("INSERT INTO event_adoption_finding (kind, message, type, events) VALUES ('type', ?1, ?2, ?3)")?
            .execute(("the type had no version; its events are of version 1 now", type_name, count))?;
    }
    Ok(())
}
