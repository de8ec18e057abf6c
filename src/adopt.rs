//! Adopting older tables: `event` and `event_sequence` as they were before there were keys, positions and segments. One
//! transaction puts them aside under other names and makes ours; then slices, each one transaction, move events of one
//! aggregate after the other into segments; at last the empty tables go. What is left in the older tables is what remains
//! to be done, so that it can be interrupted anywhere, resumed, and done by several processes at once.
//!
//! Nothing is dropped in silence: what the log cannot hold goes, as it is, to `event_adoption_finding`.

mod aggregate;
mod event;
mod shape;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row};
use serde_json::{Value, json};

use self::aggregate::Source;
use crate::connection::{Connection, OpenOptions};
use crate::error::{Error, Result};
use crate::known::Known;
use crate::limits::{MAX_AGGREGATE_ID_BYTES, MAX_TYPE_BYTES, SEGMENT_BYTES, SEGMENT_EVENTS, WAL_PASSIVE_BYTES};
use crate::payload;
use crate::schema::{self, Found};
use crate::tables;

/// Findings that a report lists; all of them stand in the table.
const LISTED: i64 = 1_000;

/// Rows of the older tables whose aggregates have no id that the log can hold, moved in one go.
const STRAY_ROWS: usize = 256;

/// Aggregates that one slice ends, at most.
const SLICE_AGGREGATES: usize = 256;

/// Highest rowid that is taken as a position; past it all events get new ones, so that there is room for more.
const LAST_ROWID: i64 = 1 << 52;

/// Older tables that are being adopted, with the connection that does it.
pub struct Adoption {
    connection: Connection,
    known: Known,
    progress: Progress,
    source: Option<Source>,
}

/// How far it is, over all processes that had a part in it.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    last_rowid: i64,
    remaining: i64,
    aggregates: i64,
    events: i64,
    bytes: i64,
}

/// What one turn at an aggregate did.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    rows: usize,
    events: usize,
    bytes: usize,
}

impl Adoption {
    /// Puts the older tables aside, or goes on where that was done; `None` where the file has none. `ERR_FOREIGN_SCHEMA`
    /// where they cannot be adopted: then nothing has been written.
    pub fn begin(options: &OpenOptions) -> Result<Option<Self>> {
        let check = |connection: &Connection| {
            if shape::untouched(connection)? { shape::check(connection) } else { Ok(()) }
        };
        let Some(connection) = Connection::open_adopting(options, check)? else { return Ok(None) };
        let mut adoption =
            Adoption { connection, known: Known::default(), progress: Progress::default(), source: None };
        if adoption.in_transaction(Self::put_aside)? { Ok(Some(adoption)) } else { Ok(None) }
    }

    /// Does the next slice. `false`: everything has been adopted.
    pub fn step(&mut self) -> Result<bool> {
        let more = self.in_transaction(Self::slice)?;
        if self.connection.wal_bytes() >= WAL_PASSIVE_BYTES {
            // A reader of old frames only delays it.
            let _ = self.connection.waiting(std::time::Duration::ZERO, || self.connection.checkpoint("RESTART"));
        }
        Ok(more)
    }

    /// What has been adopted so far.
    pub fn report(&self) -> Value {
        let Progress { aggregates, events, bytes, remaining, .. } = self.progress;
        json!({"aggregates": aggregates, "events": events, "bytes": bytes, "remainingAggregates": remaining})
    }

    /// What was found on the way, by all that had a part in it.
    pub fn findings(&self) -> Result<Value> {
        // In one snapshot: the application, whose table it is, may drop it.
        self.connection.snapshot(|| self.listed())
    }

    fn listed(&self) -> Result<Value> {
        if !has_table(&self.connection, "event_adoption_finding")? {
            return Ok(json!({"findings": [], "findingCount": 0}));
        }
        let count: i64 =
            self.connection.cached("SELECT count(*) FROM event_adoption_finding")?.query_row([], |row| row.get(0))?;
        let mut statement = self.connection.cached(
            "SELECT key, kind, message, events, through, aggregate_id, seq, type FROM event_adoption_finding
             ORDER BY key LIMIT ?1",
        )?;
        let mut rows = statement.query([LISTED])?;
        let mut findings = Vec::new();
        while let Some(row) = rows.next()? {
            findings.push(finding(row)?);
        }
        Ok(json!({"findings": findings, "findingCount": count}))
    }

    fn in_transaction(&mut self, act: fn(&mut Self) -> Result<bool>) -> Result<bool> {
        let begun = self.connection.cached("BEGIN IMMEDIATE").and_then(|mut begin| Ok(begin.raw_execute()?));
        self.connection.explained(begun)?;
        let done = self.connection.check_in_place().and_then(|()| act(self)).and_then(|more| {
            self.connection.commit()?;
            Ok(more)
        });
        if !self.connection.sqlite().is_autocommit() {
            // It fails only where SQLite has rolled back by itself.
            let _ = self.connection.sqlite().execute_batch("ROLLBACK");
        }
        if done.is_err() {
            self.known.forget();
        }
        self.connection.explained(done)
    }

    /// The first transaction. `false`: somebody else has adopted everything meanwhile.
    fn put_aside(&mut self) -> Result<bool> {
        let (connection, sqlite) = (&self.connection, self.connection.sqlite());
        match schema::look(sqlite, connection.path())? {
            Found::Nothing | Found::Ours => return Ok(false),
            Found::Adopting => return Ok(true),
            Found::Older => shape::check(connection)?,
        }
        let views = shape::views(connection)?;
        aggregate::drop_indexes(connection)?;
        sqlite.execute_batch(
            "ALTER TABLE main.event RENAME TO event_older; ALTER TABLE main.event_sequence RENAME TO event_sequence_older",
        )?;
        schema::create(sqlite)?;
        schema::create_adoption(sqlite)?;
        let last: Option<i64> = sqlite.query_row("SELECT max(rowid) FROM event_older", [], |row| row.get(0))?;
        let last = last.filter(|last| (1..=LAST_ROWID).contains(last)).unwrap_or(0);
        sqlite.execute(
            "INSERT INTO event_adoption
             VALUES (1, ?1, (SELECT count(*) FROM event_sequence_older), 0, 0, 0)",
            [last],
        )?;
        tables::raise_position_floor(connection, last)?;
        for view in views {
            let message = format!("the view \"{view}\" reads the older tables; it was left as it is, and may fail now");
            sqlite.execute("INSERT INTO event_adoption_finding (kind, message) VALUES ('view', ?1)", [message])?;
        }
        Ok(true)
    }

    fn slice(&mut self) -> Result<bool> {
        let Some(progress) = read_progress(&self.connection)? else {
            self.progress.remaining = 0;
            return Ok(false);
        };
        self.progress = progress;
        if self.source.is_none() {
            // It may have to make an index, which is a transaction of its own.
            self.source = Some(Source::new(&self.connection)?);
            return Ok(true);
        }
        let (mut rows, mut bytes) = (0, 0);
        for _ in 0..SLICE_AGGREGATES {
            let Some(turn) = self.turn()? else {
                finish(&self.connection)?;
                return Ok(false);
            };
            self.progress.events += turn.events as i64;
            self.progress.bytes += turn.bytes as i64;
            (rows, bytes) = (rows + turn.rows, bytes + turn.bytes);
            if rows >= SEGMENT_EVENTS || bytes >= SEGMENT_BYTES / 2 {
                break;
            }
        }
        let Progress { remaining, aggregates, events, bytes, .. } = self.progress;
        self.connection
            .cached("UPDATE event_adoption SET remaining = ?1, aggregates = ?2, events = ?3, bytes = ?4")?
            .execute((remaining, aggregates, events, bytes))?;
        Ok(true)
    }

    /// Moves what makes one segment of the next aggregate. `None`: nothing is left.
    fn turn(&mut self) -> Result<Option<Turn>> {
        let Some(source) = &self.source else { return Ok(None) };
        let connection = &self.connection;
        let mut statement =
            connection.cached("SELECT rowid, aggregate_id FROM event_sequence_older ORDER BY rowid LIMIT 1")?;
        let next = statement.query_row([], id_of_aggregate).optional()?;
        drop(statement);
        let (rowid, aggregate_id) = match next {
            Some((rowid, Some(aggregate_id))) => (Some(rowid), aggregate_id),
            Some((rowid, None)) => {
                source.set_sequence_aside(connection, rowid)?;
                self.progress.remaining -= 1;
                return Ok(Some(Turn { rows: 1, ..Turn::default() }));
            }
            None => {
                // Whose sequence row is missing.
                let mut statement =
                    connection.cached("SELECT rowid, aggregate_id FROM event_older ORDER BY rowid LIMIT 1")?;
                match statement.query_row([], id_of_aggregate).optional()? {
                    None => return Ok(None),
                    Some((_, Some(aggregate_id))) => (None, aggregate_id),
                    Some((rowid, None)) => {
                        drop(statement);
                        return Ok(Some(stray(connection, source, rowid)?));
                    }
                }
            }
        };
        let (turn, ended) =
            source.adopt(connection, &mut self.known, &aggregate_id, rowid, self.progress.last_rowid)?;
        if ended {
            self.progress.aggregates += 1;
            self.progress.remaining -= i64::from(rowid.is_some());
        }
        Ok(Some(turn))
    }
}

/// Puts events aside from this one on, as long as their aggregates have no id that the log can hold.
fn stray(connection: &Connection, source: &Source, first: i64) -> Result<Turn> {
    let mut rowid = first;
    let mut turn = Turn::default();
    while turn.rows < STRAY_ROWS {
        let size =
            source.set_event_aside(connection, rowid, "aggregate", "its aggregate_id is no text, or too long")?;
        source.delete(connection, &[rowid])?;
        turn = Turn { rows: turn.rows + 1, bytes: turn.bytes, ..turn };
        if size >= SEGMENT_BYTES {
            break;
        }
        let mut statement = connection.cached("SELECT rowid, aggregate_id FROM event_older ORDER BY rowid LIMIT 1")?;
        match statement.query_row([], id_of_aggregate).optional()? {
            Some((next, None)) => rowid = next,
            _ => break,
        }
    }
    Ok(turn)
}

/// A row's id, if the log can hold it.
fn id_of_aggregate(row: &Row<'_>) -> rusqlite::Result<(i64, Option<String>)> {
    let id = match row.get_ref(1)? {
        ValueRef::Text(text) if is_aggregate_id(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        _ => None,
    };
    Ok((row.get(0)?, id))
}

fn is_aggregate_id(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= MAX_AGGREGATE_ID_BYTES && std::str::from_utf8(text).is_ok()
}

fn has_table(connection: &Connection, name: &str) -> Result<bool> {
    Ok(connection.cached("SELECT 1 FROM main.sqlite_schema WHERE name = ?1")?.exists([name])?)
}

fn read_progress(connection: &Connection) -> Result<Option<Progress>> {
    if !has_table(connection, "event_adoption")? {
        return Ok(None);
    }
    let mut statement =
        connection.cached("SELECT last_rowid, remaining, aggregates, events, bytes FROM event_adoption")?;
    let progress = statement
        .query_row([], |row| {
            Ok(Progress {
                last_rowid: row.get(0)?,
                remaining: row.get(1)?,
                aggregates: row.get(2)?,
                events: row.get(3)?,
                bytes: row.get(4)?,
            })
        })
        .optional()?;
    progress.map(Some).ok_or_else(|| Error::Corrupt("\"event_adoption\" has lost its row".to_owned()).into())
}

/// The last transaction: the older tables are empty.
fn finish(connection: &Connection) -> Result<()> {
    connection
        .sqlite()
        .execute_batch("DROP TABLE event_older; DROP TABLE event_sequence_older; DROP TABLE event_adoption")?;
    let found = connection.sqlite().prepare("SELECT 1 FROM event_adoption_finding LIMIT 1")?.exists([])?;
    if !found {
        connection.sqlite().execute_batch("DROP TABLE event_adoption_finding")?;
    }
    Ok(())
}

fn finding(row: &Row<'_>) -> Result<Value> {
    let mut finding = json!({
        "key": row.get::<_, i64>(0)?,
        "kind": row.get::<_, String>(1)?,
        "message": row.get::<_, String>(2)?,
    });
    for (index, name) in ["events", "through", "aggregateID", "seq", "type"].into_iter().enumerate() {
        let value = match (name, row.get_ref(index + 3)?) {
            ("aggregateID" | "type", ValueRef::Text(text)) => {
                // What the log cannot hold may be longer than a message should be.
                let whole = if name == "type" { MAX_TYPE_BYTES } else { MAX_AGGREGATE_ID_BYTES };
                match std::str::from_utf8(text) {
                    Ok(text) if text.len() > whole => json!(payload::shortened(text)),
                    Ok(text) => json!(text),
                    Err(_) => continue,
                }
            }
            ("events" | "through" | "seq", ValueRef::Integer(number)) => json!(number),
            _ => continue,
        };
        finding[name] = value;
    }
    Ok(finding)
}
