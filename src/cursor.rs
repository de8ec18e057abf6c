//! A statement in the middle of its rows, kept between calls. This is the core's only file with unsafe code: a cursor
//! owns a statement that borrows the connection, and rows that borrow the statement, which Rust's borrows cannot say of
//! a value that outlives the call.

#![allow(unsafe_code)]

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Row, Rows};

use crate::connection::Connection;
use crate::error::Result;
use crate::statement::{self, Prepared};

/// An open iteration. The fields stand in the order in which they must be dropped.
pub(crate) struct Cursor {
    rows: Rows<'static>,
    _statement: Box<CachedStatement<'static>>,
    fresh: bool,
}

impl Cursor {
    /// Begins to read.
    ///
    /// # Safety
    ///
    /// The caller must drop the cursor before the connection. `Core` does so: it keeps its cursors in a field that is
    /// dropped first, and `Connection` boxes SQLite's handle, so that it does not move.
    pub(crate) unsafe fn open(connection: &Connection, prepared: &Prepared, values: &[Value]) -> Result<Self> {
        let statement = connection.cached(&prepared.sql)?;
        // SAFETY: the connection outlives the cursor (see above) and its address is stable.
        let statement: CachedStatement<'static> = unsafe { std::mem::transmute(statement) };
        let mut statement = Box::new(statement);
        statement::bind(&mut statement, values)?;
        // SAFETY: the statement is boxed, so its address is stable; it is not touched again before `rows` is dropped,
        // since `rows` stands before it among the fields and nothing else reaches it.
        let rows: Rows<'static> = unsafe { std::mem::transmute(statement.raw_query()) };
        Ok(Cursor {
            rows,
            _statement: statement,
            fresh: true,
        })
    }

    /// Steps once and hands the row over; `false` at the end.
    pub(crate) fn next(&mut self, prepared: &Prepared, visit: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<bool> {
        let Some(row) = self.rows.next()? else { return Ok(false) };
        if std::mem::take(&mut self.fresh) {
            prepared.notice_columns(row);
        }
        visit(row)?;
        Ok(true)
    }
}
