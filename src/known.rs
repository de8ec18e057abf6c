//! What a connection keeps in memory of rows that never change: interned names and decoded segments. Only a rollback,
//! which may take back a row that was seen, makes it forget.

mod window;

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};
use rustc_hash::FxHashMap;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::limits::{DECODED_BYTES, DECODED_SEGMENTS, KNOWN_AGGREGATES};
use crate::segment::{self, Head, Place, Segment};

pub use self::window::Window;

/// Names by key and, for types, keys by name, of event types and of aggregates; and decoded segments.
#[derive(Default)]
pub struct Known {
    type_keys: FxHashMap<Arc<str>, i64>,
    types: FxHashMap<i64, Arc<str>>,
    aggregates: FxHashMap<i64, Arc<str>>,
    /// Least recently used first.
    segments: Vec<(Place, Arc<Segment>)>,
    window: Option<Arc<Window>>,
}

impl Known {
    /// The key of a type, made where it has none yet.
    pub fn type_key(&mut self, connection: &Connection, name: &str) -> Result<i64> {
        if let Some(key) = self.type_keys.get(name) {
            return Ok(*key);
        }
        let found = connection
            .cached("SELECT key FROM event_type WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let key = match found {
            Some(key) => key,
            None => {
                connection.cached("INSERT INTO event_type (name) VALUES (?1)")?.execute([name])?;
                connection.sqlite().last_insert_rowid()
            }
        };
        let name: Arc<str> = name.into();
        self.type_keys.insert(Arc::clone(&name), key);
        self.types.insert(key, name);
        Ok(key)
    }

    /// The name of a type. `ERR_CORRUPT` where no row has its key.
    pub fn of_type(&mut self, connection: &Connection, key: i64) -> Result<Arc<str>> {
        named(&mut self.types, connection, "SELECT name FROM event_type WHERE key = ?1", key)
    }

    /// The id of an aggregate. `ERR_CORRUPT` where no row has its key.
    pub fn of_aggregate(&mut self, connection: &Connection, key: i64) -> Result<Arc<str>> {
        if self.aggregates.len() >= KNOWN_AGGREGATES {
            self.aggregates.clear();
        }
        named(&mut self.aggregates, connection, "SELECT aggregate_id FROM event_sequence WHERE key = ?1", key)
    }

    /// The segment at `place`, decoded. `ERR_CORRUPT` with the aggregate and the range where that fails.
    pub fn segment(&mut self, connection: &Connection, place: &Place) -> Result<Arc<Segment>> {
        match self.find_segment(connection, place)? {
            Some(segment) => Ok(segment),
            None => Err(self.unreadable(connection, place, "it is not there")?),
        }
    }

    /// The same where somebody else may have replaced it since `place` was read: `None`.
    pub fn find_segment(&mut self, connection: &Connection, place: &Place) -> Result<Option<Arc<Segment>>> {
        if let Some(at) = self.segments.iter().rposition(|(known, _)| known == place) {
            let found = self.segments.remove(at);
            self.segments.push(found);
            return Ok(Some(Arc::clone(&self.segments[self.segments.len() - 1].1)));
        }
        let Some(decoded) = read(connection, place)? else { return Ok(None) };
        let segment = match decoded {
            Ok(segment) => Arc::new(segment),
            Err(reason) => return Err(self.unreadable(connection, place, reason)?),
        };
        let mut held: usize = self.segments.iter().map(|(_, segment)| segment.size()).sum();
        while self.segments.len() >= DECODED_SEGMENTS
            || (!self.segments.is_empty() && held + segment.size() > DECODED_BYTES)
        {
            held -= self.segments.remove(0).1.size();
        }
        self.segments.push((*place, Arc::clone(&segment)));
        Ok(Some(segment))
    }

    /// The head of the segment at `place`. `ERR_CORRUPT` as [`Known::segment`] has it.
    pub fn head(&mut self, connection: &Connection, place: &Place) -> Result<Head> {
        let mut statement =
            connection.cached("SELECT summary, head FROM event_segment WHERE position = ?1 AND generation = ?2")?;
        let mut rows = statement.query((place.position, place.generation))?;
        let decoded = match rows.next()? {
            None => Err("it is not there"),
            Some(row) => match (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob()) {
                (Ok(summary), Ok(head)) => segment::decode_head(place, summary, head),
                _ => Err("it is no blob"),
            },
        };
        match decoded {
            Ok(head) => Ok(head),
            Err(reason) => Err(self.unreadable(connection, place, reason)?),
        }
    }

    fn unreadable(&mut self, connection: &Connection, place: &Place, reason: &'static str) -> Result<Box<Error>> {
        let aggregate_id = self.of_aggregate(connection, place.aggregate)?.to_string();
        Ok(Error::CorruptSegment { aggregate_id, first: place.first_seq, last: place.seq, reason }.into())
    }

    /// Forgets everything; called when a transaction, or a part of one, was rolled back.
    pub fn forget(&mut self) {
        self.type_keys.clear();
        self.types.clear();
        self.aggregates.clear();
        self.segments.clear();
        self.window = None;
    }
}

/// Reads and decodes the segment at `place`, or says what is wrong with it.
pub fn decode(connection: &Connection, place: &Place) -> Result<std::result::Result<Segment, &'static str>> {
    Ok(read(connection, place)?.unwrap_or(Err("it is not there")))
}

/// The same; `None` where there is no such segment.
fn read(connection: &Connection, place: &Place) -> Result<Option<std::result::Result<Segment, &'static str>>> {
    let mut statement =
        connection.cached("SELECT summary, head, body FROM event_segment WHERE position = ?1 AND generation = ?2")?;
    let mut rows = statement.query((place.position, place.generation))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(match (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob(), row.get_ref(2)?.as_blob()) {
        (Ok(summary), Ok(head), Ok(body)) => segment::decode(place, summary, head, body),
        _ => Err("it is no blob"),
    }))
}

/// A place out of `position, first, aggregate, first_seq, seq, generation`.
pub fn place(row: &Row<'_>) -> Result<Place> {
    Ok(Place {
        position: row.get(0)?,
        first: row.get(1)?,
        aggregate: row.get(2)?,
        first_seq: row.get(3)?,
        seq: row.get(4)?,
        generation: row.get(5)?,
    })
}

fn named(names: &mut FxHashMap<i64, Arc<str>>, connection: &Connection, sql: &str, key: i64) -> Result<Arc<str>> {
    if let Some(name) = names.get(&key) {
        return Ok(Arc::clone(name));
    }
    let name: Option<String> = connection.cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    let missing = || Error::Corrupt(format!("An event names key {key}, which no row has ({sql})"));
    let name: Arc<str> = name.ok_or_else(missing)?.into();
    names.insert(key, Arc::clone(&name));
    Ok(name)
}
