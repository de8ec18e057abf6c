//! `event_history`: a table-valued function of `store.db` that shows all events, packed or not. It reads as the rest of
//! the library does, in pages, so that it takes little memory however long the log is. SQLite calls it with the raw
//! connection, which takes unsafe code.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::ffi;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConnection, VTabCursor, sqlite3_vtab,
    sqlite3_vtab_cursor,
};

use crate::connection::{Connection, Effects};
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::history::{self, Range};
use crate::known::Known;
use crate::limits::{MAX_PAGE_ROWS, MAX_SAFE_INTEGER, MAX_SEQ, PAGE_BYTES};
use crate::log::commits;
use crate::tables;

/// The argument of `event_history('…')` is the hidden column.
const COLUMNS: &CStr = c"CREATE TABLE event_history (
  position INTEGER, id TEXT, aggregate_id TEXT, seq INTEGER, type TEXT, created INTEGER, metadata TEXT, data TEXT,
  aggregate TEXT HIDDEN
)";
const POSITION: c_int = 0;
const AGGREGATE_ID: c_int = 2;
const SEQ: c_int = 3;
const AGGREGATE: c_int = 8;
const ROWID: c_int = -1;

/// Events of a query's first page, so that `LIMIT 1` costs little; each page has more than the one before.
const FIRST_PAGE: usize = 16;
const PAGE_GROWTH: usize = 8;

/// Descending, in `idx_num`.
const DESCENDING: c_int = 1;

/// Gives a store's connection the table.
pub fn register(connection: &Connection) -> Result<()> {
    const MODULE: Module<'static, Table> = Module::eponymous_only_module();
    connection.sqlite().create_module(c"event_history", &MODULE, Some(connection.observed()))?;
    Ok(())
}

#[repr(C)]
struct Table {
    /// Must be the first.
    base: sqlite3_vtab,
    connection: Rc<Connection>,
    observed: Arc<Mutex<Effects>>,
}

// SAFETY: it is `repr(C)` and begins with what SQLite knows of it.
unsafe impl VTab<'_> for Table {
    type Aux = Arc<Mutex<Effects>>;
    type Cursor = Cursor;

    fn connect(
        db: &mut VTabConnection,
        observed: Option<&Self::Aux>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        // SAFETY: the handle is that of the connection that the table belongs to. SQLite drops the table, and with it
        // every statement prepared here, when that connection closes and before the handle is gone; cursors go before
        // their table. The connection made here does not close the handle. It is used while SQLite calls this table
        // only, on the thread that uses the connection.
        let sqlite = unsafe { rusqlite::Connection::from_handle(db.handle()) }?;
        let observed = observed.cloned().unwrap_or_default();
        let connection = Rc::new(Connection::around(sqlite));
        Ok((Cow::Borrowed(COLUMNS), Table { base: sqlite3_vtab::default(), connection, observed }))
    }

    /// Called for each statement that reads the table, while it is prepared.
    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        // Projectors may not read the log. The authorizer knows names only, and an application's own table of this name
        // stands before this one.
        self.observed.lock().touches_log = true;
        let plan = Plan::of(info)?;
        for (argument, (constraint, _, _)) in plan.taken.iter().enumerate() {
            // SQLite looks at each itself, too: values of another kind than the column's give no bound here.
            info.constraint_usage(*constraint).set_argv_index(argument as c_int + 1);
        }
        info.set_idx_str(&plan.taken.iter().flat_map(|(_, column, bound)| [*column, *bound]).collect::<String>());
        let order = info.order_bys().next().map(|order| (order.column(), order.is_order_by_desc()));
        if let Some((column, descending)) = order {
            let by_position = column == POSITION || column == ROWID;
            // Within an aggregate both are the same order, and nothing comes twice: what else is ordered by is nothing.
            let consumed = if plan.by_aggregate { by_position || column == SEQ } else { by_position && !descending };
            info.set_order_by_consumed(consumed);
            info.set_idx_num(if consumed && descending { DESCENDING } else { 0 });
        }
        let bounds = plan.taken.iter().filter(|(_, column, _)| *column != 'a');
        let narrowing: f64 = bounds.map(|(_, _, bound)| if *bound == '=' { 1e-6 } else { 0.25 }).product();
        let events = (if plan.by_aggregate { 1e3 } else { 1e6 } * narrowing).max(1.0);
        info.set_estimated_rows(events as i64);
        info.set_estimated_cost(events + 100.0);
        Ok(true)
    }

    fn open(&mut self) -> rusqlite::Result<Cursor> {
        Ok(Cursor {
            base: sqlite3_vtab_cursor::default(),
            connection: Rc::clone(&self.connection),
            known: Known::default(),
            aggregate: None,
            after: 0,
            before: 0,
            descending: false,
            limit: 0,
            page: Vec::new(),
            at: 0,
            done: true,
        })
    }
}

/// Which constraints are used: their indexes, columns (`a`ggregate, `s`eq or `p`osition) and bounds.
struct Plan {
    taken: Vec<(usize, char, char)>,
    by_aggregate: bool,
}

impl Plan {
    /// One aggregate by its seqs, or all events by their positions.
    fn of(info: &IndexInfo) -> rusqlite::Result<Self> {
        let mut usable = Vec::new();
        let mut aggregate = None;
        for (index, constraint) in info.constraints().enumerate() {
            if !constraint.is_usable() {
                continue;
            }
            let bound = match constraint.operator() {
                IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ => '=',
                IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GT => '>',
                IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GE => 'g',
                IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LT => '<',
                IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LE => 'l',
                _ => continue,
            };
            match constraint.column() {
                AGGREGATE_ID | AGGREGATE if bound == '=' && aggregate.is_none() => {
                    aggregate = (info.collation(index)? == "BINARY").then_some((index, 'a', '='));
                }
                SEQ => usable.push((index, 's', bound)),
                POSITION | ROWID => usable.push((index, 'p', bound)),
                _ => {}
            }
        }
        let kind = if aggregate.is_some() { 's' } else { 'p' };
        let bounds = usable.into_iter().filter(|(_, column, _)| *column == kind);
        Ok(Plan { taken: aggregate.into_iter().chain(bounds).collect(), by_aggregate: aggregate.is_some() })
    }
}

struct Event {
    position: i64,
    id: String,
    aggregate_id: String,
    seq: i64,
    type_name: String,
    created: Option<i64>,
    metadata: Option<String>,
    data: String,
}

impl Event {
    fn of(event: &StoredEvent<'_>) -> Self {
        Event {
            position: event.position,
            id: event.id.to_owned(),
            aggregate_id: event.aggregate_id.to_owned(),
            seq: event.seq,
            type_name: event.type_name.to_owned(),
            created: event.created,
            metadata: event.metadata.map(str::to_owned),
            data: event.data.to_owned(),
        }
    }
}

/// One reading of the table. What it knows lives as long as it does: a rollback ends every statement.
#[repr(C)]
struct Cursor {
    /// Must be the first.
    base: sqlite3_vtab_cursor,
    connection: Rc<Connection>,
    known: Known,
    /// Whose events, by seq; of all, by position.
    aggregate: Option<(String, i64)>,
    /// What is still to be read: `after < seq or position < before`.
    after: i64,
    before: i64,
    descending: bool,
    limit: usize,
    page: Vec<Event>,
    at: usize,
    /// Nothing comes after the page.
    done: bool,
}

impl Cursor {
    fn begin(&mut self, bounds: &str, descending: bool, values: &Filters<'_>) -> Result<()> {
        (self.aggregate, self.descending) = (None, descending);
        (self.after, self.before) = (-1, i64::MAX);
        self.page.clear();
        (self.at, self.limit, self.done) = (0, FIRST_PAGE, true);
        let mut bounds = bounds.chars();
        for value in values.iter() {
            let (Some(column), Some(bound)) = (bounds.next(), bounds.next()) else { break };
            match (column, value) {
                // Nothing equals it, and nothing is above or below.
                (_, ValueRef::Null) => return Ok(()),
                ('a', value) => {
                    let aggregate_id = match value {
                        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        // No text equals bytes; numbers are compared as the text that SQLite makes of them.
                        ValueRef::Blob(_) => return Ok(()),
                        number => {
                            let mut statement = self.connection.cached("SELECT CAST(?1 AS TEXT)")?;
                            statement.query_row([ToSqlOutput::Borrowed(number)], |row| row.get(0))?
                        }
                    };
                    let Some(sequence) = tables::find_sequence(&self.connection, &aggregate_id)? else {
                        return Ok(());
                    };
                    self.aggregate = Some((aggregate_id, sequence.key));
                }
                (_, value) => {
                    // Other numbers, and texts, are left to SQLite.
                    let Some(integer) = integer(value) else { continue };
                    let (after, before) = match bound {
                        '=' => (integer.saturating_sub(1), integer.saturating_add(1)),
                        '>' => (integer, i64::MAX),
                        'g' => (integer.saturating_sub(1), i64::MAX),
                        '<' => (i64::MIN, integer),
                        _ => (i64::MIN, integer.saturating_add(1)),
                    };
                    (self.after, self.before) = (self.after.max(after), self.before.min(before));
                }
            }
        }
        self.done = false;
        self.read()
    }

    /// Reads the next page, which is empty at the end.
    fn read(&mut self) -> Result<()> {
        self.page.clear();
        self.at = 0;
        // `after + 1 < before`, without a sum that could overflow.
        if self.done || self.before <= self.after || self.before - 1 <= self.after {
            self.done = true;
            return Ok(());
        }
        let (page, mut bytes) = (&mut self.page, 0);
        let mut keep = |event: &StoredEvent<'_>| {
            bytes += event.data.len();
            page.push(Event::of(event));
            Ok(())
        };
        let full = match &self.aggregate {
            Some((aggregate_id, key)) => {
                let before = Some(self.before.min(MAX_SEQ + 1));
                let range = Range { after: self.after, before, limit: self.limit, descending: self.descending };
                history::by_seq(&self.connection, &mut self.known, (aggregate_id, *key), range, &mut keep)?;
                page.len() >= self.limit.min(MAX_PAGE_ROWS) || bytes >= PAGE_BYTES
            }
            None => commits::scan(&self.connection, &mut self.known, self.after, self.limit, &mut keep)?.is_some(),
        };
        self.done = !full;
        self.limit = self.limit.saturating_mul(PAGE_GROWTH);
        let Some(last) = self.page.last() else { return Ok(()) };
        match (&self.aggregate, self.descending) {
            (Some(_), false) => self.after = last.seq,
            (Some(_), true) => self.before = last.seq,
            (None, _) => {
                self.after = last.position;
                self.page.truncate(self.page.partition_point(|event| event.position < self.before));
            }
        }
        Ok(())
    }

    fn current(&self) -> rusqlite::Result<&Event> {
        self.page.get(self.at).ok_or_else(|| failure(&Error::InvalidArgument("No event is left".to_owned())))
    }
}

// SAFETY: it is `repr(C)` and begins with what SQLite knows of it.
unsafe impl VTabCursor for Cursor {
    fn filter(&mut self, flags: c_int, bounds: Option<&str>, values: &Filters<'_>) -> rusqlite::Result<()> {
        guarded(|| self.begin(bounds.unwrap_or(""), flags & DESCENDING != 0, values))
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.at += 1;
        if self.at < self.page.len() { Ok(()) } else { guarded(|| self.read()) }
    }

    fn eof(&self) -> bool {
        self.at >= self.page.len()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        let event = self.current()?;
        match column {
            POSITION => context.set_result(event.position),
            1 => context.set_result(event.id.as_str()),
            AGGREGATE_ID | AGGREGATE => context.set_result(event.aggregate_id.as_str()),
            SEQ => context.set_result(event.seq),
            4 => context.set_result(event.type_name.as_str()),
            5 => context.set_result(event.created),
            6 => context.set_result(event.metadata.as_deref()),
            _ => context.set_result(event.data.as_str()),
        }
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.current()?.position)
    }
}

/// JavaScript's numbers arrive as reals.
fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(integer) => Some(integer),
        ValueRef::Real(real) if real.fract() == 0.0 && real.abs() <= MAX_SAFE_INTEGER as f64 => Some(real as i64),
        _ => None,
    }
}

/// SQLite calls from C, where no panic may go.
fn guarded(call: impl FnOnce() -> Result<()>) -> rusqlite::Result<()> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Error::Poisoned("event_history has failed".to_owned()).into()))
        .map_err(|error| failure(&error))
}

fn failure(error: &Error) -> rusqlite::Error {
    let code = match error {
        Error::Corrupt(_) | Error::CorruptSegment { .. } | Error::LostEvent { .. } => ffi::SQLITE_CORRUPT,
        Error::Busy { .. } => ffi::SQLITE_BUSY,
        _ => ffi::SQLITE_ERROR,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
}
