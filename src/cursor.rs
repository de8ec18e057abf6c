//! A statement in the middle of its rows, kept between calls. This needs unsafe code: a cursor owns a statement that
//! borrows the connection, and rows that borrow the statement, which Rust's borrows cannot say of a value that outlives
//! the call.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Row, Rows};

use crate::connection::Connection;
use crate::error::Result;
use crate::statement::{self, Prepared};

/// An open iteration.
pub(crate) struct Cursor {
    rows: ManuallyDrop<Rows<'static>>,
    /// Owned; a `Box` could not be moved while `rows` borrows what is in it.
    statement: NonNull<CachedStatement<'static>>,
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
        let mut statement = connection.cached(&prepared.sql)?;
        statement::bind(&mut statement, values)?;
        // SAFETY: the connection outlives the cursor (see above), and its address is stable.
        let statement: CachedStatement<'static> = unsafe { std::mem::transmute(statement) };
        let statement = NonNull::from(Box::leak(Box::new(statement)));
        // SAFETY: the statement stays where it is until `drop` takes it back, and nothing but `rows` touches it.
        let rows: Rows<'static> = unsafe { (*statement.as_ptr()).raw_query() };
        Ok(Cursor { rows: ManuallyDrop::new(rows), statement, fresh: true })
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

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: both are dropped once, here: first the rows, then the statement that they borrow.
        unsafe {
            ManuallyDrop::drop(&mut self.rows);
            drop(Box::from_raw(self.statement.as_ptr()));
        }
    }
}
